"""What vectors consist of, and blocks of texts with theirs: what every kind of file is written from and read into."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

import numpy as np

from trivec._errors import InputError
from trivec._vectors.arrays import Array
from trivec._vectors.heads import HybridVectors, concatenated, record_of
from trivec._vectors.multi import MultiVectors
from trivec._vectors.sparse import SparseVector, SparseVectors

Vectors = Array | SparseVectors | MultiVectors | HybridVectors
"""What `encode` gives for N texts: (N, D), N rows of terms, a vector for each token, or several of these."""
Kind = Literal["dense", "sparse", "colbert", "hybrid"]
ORIGIN = ("fingerprint", "engine", "probe")
"""What a file says of where its vectors come from: fields of `Head`."""


class Block(NamedTuple):
    """Some texts and what was made of them."""

    texts: list[str] | None
    """None where the file keeps none."""
    parts: HybridVectors
    engines: tuple[tuple[str, str], ...] = ()
    """Rows that say what computed them and what follows: where they are, for messages, and the engine."""


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
    colbert_dtype: str | None = None
    """"float16" or "int8" (127 times the numbers); None: float32, or no vectors of tokens."""

    @classmethod
    def of(cls, vectors: object) -> "Layout":
        """The layout of what `encode` gave for any number of texts, such as none.

        Raises:
            InputError: something that is no vectors of several texts, such as tensors.
        """
        dense, sparse, colbert = rows_of(vectors).parts()
        kinds: tuple[Kind, ...] = ("dense", "sparse", "colbert")
        there = [kind for kind, part in zip(kinds, (dense, sparse, colbert), strict=True) if part is not None]
        return cls(
            "hybrid" if isinstance(vectors, HybridVectors) else there[0],
            None if dense is None else int(dense.shape[1]),
            None if dense is None else dense.dtype.name,
            None if sparse is None else sparse.dim,
            None if colbert is None else colbert.dim,
            None if colbert is None or colbert.precision == "float32" else colbert.precision,
        )

    def stated(self) -> dict[str, object]:
        """What files say of it; fields that came later only where they say something, so that older files hold."""
        found = asdict(self)
        return found if self.colbert_dtype is not None else {k: v for k, v in found.items() if k != "colbert_dtype"}

    def vectors(self, parts: HybridVectors) -> Vectors:
        """HybridVectors in the type that `encode` gives them in."""
        if self.kind == "hybrid":
            return parts
        found: Vectors | None = getattr(parts, self.kind)
        if found is None:
            raise TypeError(f"a {self.kind} layout without {self.kind} vectors")
        return found

    def empty(self) -> HybridVectors:
        """The parts of no texts."""
        return HybridVectors(
            None if self.dense_dim is None else np.zeros((0, self.dense_dim), dtype=self.dense_dtype),
            None if self.sparse_dim is None else SparseVectors.empty(0, self.sparse_dim),
            None
            if self.colbert_dim is None
            else MultiVectors.empty(0, self.colbert_dim).quantize(self.colbert_dtype or "float32"),
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
    fingerprint: str | None = None
    """Of the `encode` call; None where the file does not say."""
    rows: int | None = None
    """None where only reading tells."""
    checksum: str | None = None
    """Of its rows, by `_checksum`; None where the file does not say."""
    engine: str | None = None
    """What computed the vectors: `engine_fingerprint` of the encoder, several with ; between; None as above."""
    probe: str | None = None
    """Of a hosted model, by `_probe`; None of another one, or as above."""

    @property
    def origin(self) -> dict[str, str]:
        """What the file says of where its vectors come from, by name."""
        return {name: value for name in ORIGIN if (value := getattr(self, name))}


def origin_of(said: object) -> dict[str, str]:
    """What JSON in a file says of where its vectors come from, as `Head.origin` has it; only texts say any."""
    stated = said if isinstance(said, dict) else {}
    return {name: stated[name] for name in ORIGIN if isinstance(stated.get(name), str)}


class Contents(NamedTuple):
    """A file that can be read."""

    head: Head
    blocks: Callable[[int], Iterator[Block]]
    """Its rows, at most so many at a time."""
