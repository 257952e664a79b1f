"""A text's representations side by side: dense, sparse, and a vector for each token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from trivec._errors import InputError
from trivec._vectors.arrays import Floats, Ids, Rows
from trivec._vectors.multi import MultiVectors
from trivec._vectors.ragged import take_rows
from trivec._vectors.sparse import SparseVector, SparseVectors

Head = Literal["dense", "sparse", "colbert", "score"]
"""What a model gives: representations of a text, or scores of a pair of texts."""
HEADS: tuple[Head, ...] = ("dense", "sparse", "colbert")
"""The kinds of representations, in the order in which records and messages name them."""


@dataclass(frozen=True)
class HybridVectors:
    """The representations of N texts; None where one was not asked for."""

    dense: Floats | None = None
    """(N, D), or (D,) of one text."""
    sparse: SparseVectors | SparseVector | None = None
    """Weights of vocabulary terms."""
    colbert: MultiVectors | Floats | None = None
    """One vector a token; (T, D) of one text."""

    @property
    def rows(self) -> int:
        """N, of several texts."""
        return next((len(part) for part in self.parts() if part is not None), 0)

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers, of several texts."""
        dense, sparse, colbert = self.parts()
        found = 0 if dense is None else int(dense.nbytes)
        found += 0 if sparse is None else 8 * int(sparse.nnz)
        return found + (0 if colbert is None else int(colbert.vectors.nbytes))

    def parts(self) -> tuple[Any, Any, Any]:
        """Each representation, or None, in the order of HEADS."""
        return self.dense, self.sparse, self.colbert

    def take(self, rows: int | slice | Rows) -> "HybridVectors":
        """Those of some texts, or of one; memory is shared where it can be."""
        return HybridVectors(*(None if part is None else part[rows] for part in self.parts()))


def record_of(vectors: object) -> HybridVectors:
    """What any encoder gives, by its kinds of vectors.

    Raises:
        InputError: something else, such as tensors.
    """
    if isinstance(vectors, np.ndarray):
        return HybridVectors(dense=vectors)
    if isinstance(vectors, SparseVectors | SparseVector):
        return HybridVectors(sparse=vectors)
    if isinstance(vectors, HybridVectors):
        return vectors
    if isinstance(vectors, MultiVectors):
        return HybridVectors(colbert=vectors)
    raise InputError(
        "expected vectors of several texts, (N, D), SparseVectors, MultiVectors or HybridVectors, got "
        f"{type(vectors).__name__}. Leave out what asks for tensors or for token embeddings."
    )


def concatenated(blocks: Sequence[HybridVectors]) -> HybridVectors:
    """The rows of several records in one, in order."""
    if len(blocks) == 1:
        return blocks[0]
    dense = [block.dense for block in blocks if block.dense is not None]
    sparse = [block.sparse for block in blocks if isinstance(block.sparse, SparseVectors)]
    colbert = [block.colbert for block in blocks if isinstance(block.colbert, MultiVectors)]
    return HybridVectors(
        np.concatenate(dense) if dense else None,
        SparseVectors.concatenate(sparse) if sparse else None,
        MultiVectors.concatenate(colbert) if colbert else None,
    )


class Collector:
    """What runs make of some of N texts each, put in the texts' order.

    Vectors, of texts or of tokens, go to their places when they come: they are held once.
    """

    def __init__(self, count: int, vectors_of: Ids | None = None) -> None:
        """Wait for the first run.

        Args:
            count: N.
            vectors_of: (N,) how many vectors of tokens each text will have; None where there are none.
        """
        self.finite = np.ones(count, dtype=np.bool_)
        """(N,) whether every number of a text is finite."""
        self._dense: Floats | None = None
        self._sparse: list[HybridVectors] = []
        self._order: list[Rows] = []
        self._tokens: MultiVectors | None = None
        self._offsets = None if vectors_of is None else np.concatenate([[0], np.cumsum(vectors_of)])  # (N + 1,)

    def add(self, rows: Rows, made: HybridVectors, finite: npt.NDArray[np.bool_]) -> None:
        """The representations of the texts `rows` (B,), and whether each is finite, (B,)."""
        self.finite[rows] = finite
        if made.dense is not None:
            if self._dense is None and len(rows) == len(self.finite) == 1:
                self._dense = made.dense
            elif self._dense is None:
                self._dense = np.empty((len(self.finite), *made.dense.shape[1:]), dtype=np.float32)
            if self._dense is not made.dense:
                self._dense[rows] = made.dense
        if made.sparse is not None:
            self._sparse.append(HybridVectors(sparse=made.sparse))
            self._order.append(rows)
        if isinstance(made.colbert, MultiVectors):
            self._add_tokens(rows, made.colbert)

    def _add_tokens(self, rows: Rows, made: MultiVectors) -> None:
        """Vectors of the tokens of B texts."""
        if self._tokens is None and np.array_equal(rows, np.arange(len(self.finite))):
            self._tokens = made  # a long text's vectors are not copied
            return
        if self._tokens is None:
            if self._offsets is None:
                raise RuntimeError("vectors of tokens were not expected.")
            held = np.empty((self._offsets[-1], made.dim), dtype=np.float32)  # (T, D)
            self._tokens = MultiVectors._trusted(held, self._offsets)
        self._tokens.vectors[take_rows(self._tokens.offsets, rows)[1]] = made.vectors

    def vectors(self, row_of: Rows | None) -> HybridVectors:
        """All of them; of text `row_of[i]` in row i, where such rows (M,) are given."""
        found, rest = HybridVectors(self._dense, None, self._tokens), HybridVectors()
        if row_of is not None:
            found = found.take(row_of)  # N to M texts
        if self._sparse:
            rest = concatenated(self._sparse)
            back = np.argsort(np.concatenate(self._order))  # (N,)
            back = back if row_of is None else back[row_of]  # (M,)
            if not np.array_equal(back, np.arange(rest.rows)):
                rest = rest.take(back)
        return HybridVectors(found.dense, rest.sparse, found.colbert)
