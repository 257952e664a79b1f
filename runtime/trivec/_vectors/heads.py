"""A text's representations side by side: dense, sparse, and a vector for each token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trivec._errors import InputError
from trivec._vectors.arrays import Array, Floats
from trivec._vectors.multi import MultiVectors
from trivec._vectors.sparse import SparseVector, SparseVectors


@dataclass(frozen=True)
class HybridVectors:
    """The representations of N texts; None where one was not asked for."""

    dense: Floats | None
    """(N, D), or (D,) of one text."""
    sparse: SparseVectors | SparseVector | None
    """Weights of vocabulary terms."""
    colbert: MultiVectors | Floats | None
    """One vector a token; (T, D) of one text."""


class Heads(NamedTuple):
    """What one run gives of B texts; None where it was not asked for."""

    dense: Floats | None
    """(B, D)."""
    sparse: SparseVectors | None
    multi: MultiVectors | None
    finite: npt.NDArray[np.bool_]
    """(B,) whether everything of a text is finite."""


def joined(parts: Sequence[Heads], back: npt.NDArray[np.intp], *, single: bool = False) -> HybridVectors:
    """Blocks of rows in one piece, in the texts' order; of a single text, its row."""
    if len(parts) == 1 and np.array_equal(back, np.arange(len(back))):  # a long text's vectors are not copied
        whole = parts[0]
        return first(whole.dense, whole.sparse, whole.multi) if single else HybridVectors(*whole[:3])
    dense = [part.dense for part in parts if part.dense is not None]
    sparse = [part.sparse for part in parts if part.sparse is not None]
    multi = [part.multi for part in parts if part.multi is not None]
    vectors = np.concatenate(dense)[back] if dense else None  # (N, D)
    terms = SparseVectors.concatenate(sparse)[back] if sparse else None
    several = MultiVectors.concatenate(multi)[back] if multi else None
    return first(vectors, terms, several) if single else HybridVectors(vectors, terms, several)


def concatenated(parts: Sequence[HybridVectors]) -> HybridVectors:
    """Blocks of rows in one piece."""
    dense = [part.dense for part in parts if part.dense is not None]
    sparse = [part.sparse for part in parts if isinstance(part.sparse, SparseVectors)]
    multi = [part.colbert for part in parts if isinstance(part.colbert, MultiVectors)]
    return HybridVectors(
        np.concatenate(dense) if dense else None,
        SparseVectors.concatenate(sparse) if sparse else None,
        MultiVectors.concatenate(multi) if multi else None,
    )


def first(dense: Floats | None, sparse: Any, multi: Any) -> HybridVectors:  # noqa: ANN401
    """The first text's."""
    return HybridVectors(
        None if dense is None else dense[0],
        None if sparse is None else sparse[0],
        None if multi is None else multi[0],
    )


class Parts(NamedTuple):
    """The representations of N texts; None for what there is none of."""

    dense: Array | None
    """(N, D) float32, int8 or uint8."""
    sparse: SparseVectors | None
    """N rows."""
    colbert: MultiVectors | None
    """N texts."""

    @property
    def rows(self) -> int:
        """N."""
        return next((len(part) for part in self if part is not None), 0)

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers."""
        dense = 0 if self.dense is None else self.dense.nbytes
        sparse = 0 if self.sparse is None else 8 * self.sparse.nnz
        return dense + sparse + (0 if self.colbert is None else self.colbert.vectors.nbytes)

    def take(self, rows: slice) -> "Parts":
        """Those of some texts in a row; memory is shared."""
        return Parts(
            None if self.dense is None else self.dense[rows],
            None if self.sparse is None else self.sparse[rows],
            None if self.colbert is None else self.colbert[rows],
        )


def parts_of(vectors: object) -> Parts:
    """Vectors of N texts, taken apart.

    Raises:
        InputError: something else, such as tensors or the vector of one text.
    """
    if isinstance(vectors, np.ndarray) and vectors.ndim == 2:
        return Parts(vectors, None, None)
    if isinstance(vectors, SparseVectors):
        return Parts(None, vectors, None)
    if isinstance(vectors, HybridVectors):
        sparse = vectors.sparse if isinstance(vectors.sparse, SparseVectors) else None
        colbert = vectors.colbert if isinstance(vectors.colbert, MultiVectors) else None
        return Parts(vectors.dense, sparse, colbert)
    raise InputError(
        f"expected vectors of several texts, (N, D) or SparseVectors or HybridVectors, got {type(vectors).__name__}. "
        "Leave out what asks for tensors or for token embeddings."
    )
