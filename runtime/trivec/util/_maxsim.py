"""MaxSim under sentence-transformers' names: late interaction of texts with a vector for each token."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trivec._errors import InputError
from trivec._vectors.arrays import Floats
from trivec._vectors.multi import MultiVectors
from trivec._vectors.rows import Vectors, as_array
from trivec._vectors.torch_tensors import tensors_for_tensors

Mask = Any
"""(N, T), or a list of (t,): where it is 0 or False, a token does not count. None: all count."""
_NOTHING = np.float32(-1e9)  # the score of a document without tokens: below any other, as in sentence-transformers


@tensors_for_tensors
def maxsim(
    a: Vectors,
    b: Vectors,
    a_mask: Mask = None,
    b_mask: Mask = None,
    chunk_elements: int | None = None,  # noqa: ARG001 - memory is bounded in any case
    length_normalize: bool = False,
    device: object = None,  # noqa: ARG001
) -> Floats:
    """MaxSim of all queries with all documents, the call and the results of sentence_transformers.util.maxsim 6.2.

    Args:
        a: the queries: MultiVectors, a list of (t, D) arrays or tensors, (N, T, D) padded, or (T, D) for one. Rows of
            zeros in a padded array are padding where no mask says so.
        b: the documents.
        a_mask: which of a query's tokens are added up.
        b_mask: which of a document's tokens are compared.
        chunk_elements: accepted; memory is bounded by blocks.
        length_normalize: divide by the number of a query's tokens.
        device: accepted; it is the CPU.

    Returns:
        (N, M) float32: for each token of the query its greatest dot product with a token of the document, added up;
        -1e9 where the document has no tokens. A torch tensor where an argument is one, or a list of them.

    Raises:
        InputError: other widths, a mask that does not fit, or numbers that are not finite.
    """
    queries, documents = _take(a, a_mask, "a"), _take(b, b_mask, "b")
    if not len(queries) or not len(documents):
        return np.zeros((len(queries), len(documents)), dtype=np.float32)
    scores = queries.maxsim(documents, "sum")  # (N, M)
    scores[:, np.diff(documents.offsets) == 0] = _NOTHING
    return scores / _counts(queries)[:, None] if length_normalize else scores


@tensors_for_tensors
def maxsim_pairwise(
    a: Vectors,
    b: Vectors,
    a_mask: Mask = None,
    b_mask: Mask = None,
    chunk_elements: int | None = None,  # noqa: ARG001
    length_normalize: bool = False,
    device: object = None,  # noqa: ARG001
) -> Floats:
    """MaxSim of query i with document i: (N,) float32. Arguments and errors are those of `maxsim`."""
    queries, documents = _take(a, a_mask, "a"), _take(b, b_mask, "b")
    if len(queries) != len(documents):
        raise InputError(
            f"query i is compared with document i, but a has {len(queries)} texts and b has {len(documents)}. For all "
            "pairs type: maxsim(a, b)"
        )
    if not len(queries):
        return np.zeros(0, dtype=np.float32)
    scores = queries.maxsim_pairs(documents, "sum")  # (N,)
    scores[np.diff(documents.offsets) == 0] = _NOTHING
    return scores / _counts(queries) if length_normalize else scores


def mean_maxsim(
    a: Vectors,
    b: Vectors,
    a_mask: Mask = None,
    b_mask: Mask = None,
    chunk_elements: int | None = None,
    length_normalize: bool = True,
    device: object = None,
) -> Any:  # noqa: ANN401
    """`maxsim` divided by the number of a query's tokens."""
    return maxsim(a, b, a_mask, b_mask, chunk_elements, length_normalize, device)


def mean_maxsim_pairwise(
    a: Vectors,
    b: Vectors,
    a_mask: Mask = None,
    b_mask: Mask = None,
    chunk_elements: int | None = None,
    length_normalize: bool = True,
    device: object = None,
) -> Any:  # noqa: ANN401
    """`maxsim_pairwise` divided by the number of a query's tokens."""
    return maxsim_pairwise(a, b, a_mask, b_mask, chunk_elements, length_normalize, device)


def _counts(queries: MultiVectors) -> Floats:
    """(N,) tokens of each query, one at least."""
    return np.maximum(np.diff(queries.offsets), 1).astype(np.float32)


def _take(vectors: Vectors, mask: Mask, name: str) -> MultiVectors:
    """The token vectors that count of each text."""
    if isinstance(vectors, MultiVectors):
        texts: list[Any] = list(vectors)
    elif isinstance(vectors, list | tuple):
        texts = [as_array(text) for text in vectors]
    else:
        padded = as_array(vectors)
        if padded.ndim == 2:
            padded, mask = padded[None], mask if mask is None or np.ndim(mask) != 1 else as_array(mask)[None]
        if padded.ndim != 3:
            raise InputError(f"{name} must be (N, T, D), (T, D) or a list of (t, D), got shape {padded.shape}.")
        mask = padded.any(-1) if mask is None else mask  # (N, T)
        texts = list(padded)
    if not texts:
        return MultiVectors.empty(0, 1)
    if mask is not None:
        texts = [text[kept] for text, kept in zip(texts, _kept(mask, texts, name), strict=True)]
    return MultiVectors.from_arrays(texts)


def _kept(mask: Mask, texts: Sequence[Any], name: str) -> list[npt.NDArray[np.bool_]]:
    """(t,) of each text: which tokens count."""
    rows = [as_array(row).astype(bool) for row in mask]
    rows = rows * len(texts) if len(rows) == 1 else rows
    width, covered = max(map(len, texts)), max(map(len, rows), default=0)
    if len(rows) != len(texts) or covered != width:
        raise InputError(
            f"{name}_mask must have a row for each of {len(texts)} texts, and cover {width} tokens; got {len(rows)} "
            f"rows of {covered}."
        )
    return [np.resize(np.pad(row, (0, width - len(row))), len(text)) for row, text in zip(rows, texts, strict=True)]
