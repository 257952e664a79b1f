"""What vectors consist of, and blocks of texts with theirs: what every kind of file is written from and read into."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from trivec._errors import InputError
from trivec._vectors.arrays import Array
from trivec._vectors.heads import HybridVectors, concatenated, record_of
from trivec._vectors.multi import MultiVectors
from trivec._vectors.sparse import SparseVector, SparseVectors

Vectors = Array | SparseVectors | HybridVectors
"""What `encode` gives for N texts: (N, D), N rows of terms, or several of these."""
Kind = Literal["dense", "sparse", "hybrid"]


class Block(NamedTuple):
    """Some texts and what was made of them."""

    texts: list[str] | None
    """None where the file keeps none."""
    parts: HybridVectors


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
        dense, sparse, colbert = rows_of(vectors).parts()
        kind: Kind = "hybrid" if isinstance(vectors, HybridVectors) else "dense" if dense is not None else "sparse"
        return cls(
            kind,
            None if dense is None else int(dense.shape[1]),
            None if dense is None else dense.dtype.name,
            None if sparse is None else sparse.dim,
            None if colbert is None else colbert.dim,
        )

    def vectors(self, parts: HybridVectors) -> Vectors:
        """HybridVectors in the type that `encode` gives them in."""
        if self.kind == "hybrid":
            return parts
        dense, sparse, _ = parts.parts()
        found: Vectors | None = dense if self.kind == "dense" else sparse
        if found is None:
            raise TypeError(f"a {self.kind} layout without {self.kind} vectors")
        return found

    def empty(self) -> HybridVectors:
        """The parts of no texts."""
        return HybridVectors(
            None if self.dense_dim is None else np.zeros((0, self.dense_dim), dtype=self.dense_dtype),
            None if self.sparse_dim is None else SparseVectors.empty(0, self.sparse_dim),
            None if self.colbert_dim is None else MultiVectors.empty(0, self.colbert_dim),
        )

    def concatenate(self, several: Sequence[HybridVectors]) -> HybridVectors:
        """The rows of all parts, in order."""
        return concatenated(several or [self.empty()])


def rows_of(vectors: object) -> HybridVectors:
    """Vectors of N texts, taken apart.

    Raises:
        InputError: something else, such as tensors or the vector of one text.
    """
    found = record_of(vectors)
    dense, sparse, colbert = found.parts()
    if (dense is not None and dense.ndim != 2) or isinstance(sparse, SparseVector) or isinstance(colbert, np.ndarray):
        raise InputError(
            "expected vectors of several texts, (N, D) or SparseVectors or HybridVectors, got those of one text. Type: "
            "[text]"
        )
    return found


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
