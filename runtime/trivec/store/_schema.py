"""What vectors consist of, and blocks of texts with theirs: what every kind of file is written from and read into."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from trivec._vectors.arrays import Array
from trivec._vectors.heads import HybridVectors, Parts, parts_of
from trivec._vectors.multi import MultiVectors
from trivec._vectors.sparse import SparseVectors

Vectors = Array | SparseVectors | HybridVectors
"""What `encode` gives for N texts: (N, D), N rows of terms, or several of these."""
Kind = Literal["dense", "sparse", "hybrid"]


class Block(NamedTuple):
    """Some texts and what was made of them."""

    texts: list[str] | None
    """None where the file keeps none."""
    parts: Parts


Blocks = Callable[[], Iterator[Block]]
"""Gives the blocks of a file from the first one on, each time it is called."""


@dataclass(frozen=True)
class Layout:
    """Which parts there are, and what a row of each looks like; None for what there is none of."""

    kind: Kind
    dense_dim: int | None = None
    dense_dtype: str | None = None
    """numpy's name: "float32", "int8", "uint8"."""
    sparse_dim: int | None = None
    colbert_dim: int | None = None

    @classmethod
    def of(cls, vectors: object) -> "Layout":
        """The layout of what `encode` gave for any number of texts, such as none.

        Raises:
            InputError: something that is no vectors of several texts, such as tensors.
        """
        dense, sparse, colbert = parts_of(vectors)
        kind: Kind = "hybrid" if isinstance(vectors, HybridVectors) else "dense" if dense is not None else "sparse"
        return cls(
            kind,
            None if dense is None else int(dense.shape[1]),
            None if dense is None else dense.dtype.name,
            None if sparse is None else sparse.dim,
            None if colbert is None else colbert.dim,
        )

    def vectors(self, parts: Parts) -> Vectors:
        """Parts in the type that `encode` gives them in."""
        if self.kind == "hybrid":
            return HybridVectors(*parts)
        found = parts.dense if self.kind == "dense" else parts.sparse
        if found is None:
            raise TypeError(f"a {self.kind} layout without {self.kind} vectors")
        return found

    def empty(self) -> Parts:
        """The parts of no texts."""
        return Parts(
            None if self.dense_dim is None else np.zeros((0, self.dense_dim), dtype=self.dense_dtype),
            None if self.sparse_dim is None else SparseVectors.empty(0, self.sparse_dim),
            None if self.colbert_dim is None else MultiVectors.empty(0, self.colbert_dim),
        )

    def concatenate(self, several: Sequence[Parts]) -> Parts:
        """The rows of all parts, in order."""
        if len(several) == 1:
            return several[0]
        listed = [self.empty(), *several]
        dense = [parts.dense for parts in listed if parts.dense is not None]
        sparse = [parts.sparse for parts in listed if parts.sparse is not None]
        colbert = [parts.colbert for parts in listed if parts.colbert is not None]
        return Parts(
            np.concatenate(dense) if dense else None,
            SparseVectors.concatenate(sparse) if sparse else None,
            MultiVectors.concatenate(colbert) if colbert else None,
        )


class Head(NamedTuple):
    """What a file says of itself."""

    layout: Layout
    fingerprint: str | None
    """Of the `encode` call; None where the file does not say."""
    rows: int | None
    """None where only reading tells."""


class Contents(NamedTuple):
    """A file that can be read."""

    head: Head
    blocks: Callable[[int], Iterator[Block]]
    """Its rows, at most so many at a time."""
