"""Multi-vectors: for each text a vector a token, and MaxSim, the late interaction that compares them."""

import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast, overload

import numpy as np
import numpy.typing as npt

from trivec._errors import InputError
from trivec._vectors.arrays import Array, Floats, Ids, RowIndex
from trivec._vectors.ragged import blocks, check_offsets, read_npz, reduce_rows, resolve_rows, take_rows

_WRITER = "MultiVectors.save(path)"
_BLOCK = 1 << 20  # similarities of tokens that are held at a time: 4 MB
_BLOCK_TOKENS = 1 << 12  # tokens of documents in a block; a longer document comes alone
_LEVELS = np.float32(127)  # numbers of vectors of length 1 are at most 1: every file and every model has one scale
_ABOVE = 1e-3  # by so much float16 may make such a number larger
Reduce = Literal["mean", "sum"]
REDUCE_OF: Mapping[str, Reduce] = {"maxsim": "sum", "meanmaxsim": "mean"}
"""What becomes of a query's maxima, by the name of the similarity."""
TOKEN_PRECISIONS = ("float32", "float16", "int8")
"""What token vectors can be kept in."""


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class MultiVectors:
    """Token vectors of many texts, one after the other.

        vectors = MultiVectors.from_arrays([np.eye(3), np.ones((1, 3))])
        vectors[0]  # (3, 3) float32
        vectors.maxsim(vectors)  # (2, 2) float32

    `vectors[i]` is a view of the (t, D) vectors of a text; slices, lists of rows and masks give MultiVectors. A slice
    of consecutive rows shares the memory of its source. What `quantize` has made smaller is float32 again wherever rows
    or scores are asked for.

    Raises:
        InputError: vectors that are no (T, D) finite numbers, or offsets that do not fit.
    """

    vectors: Array
    """(T, D) float32; or float16, or int8: 127 times the numbers, where `quantize` has made them so."""
    offsets: Ids
    """(N + 1,) int64: text i has vectors[offsets[i]:offsets[i + 1]]."""

    def __post_init__(self) -> None:
        vectors = np.asarray(self.vectors)
        if vectors.ndim != 2 or vectors.shape[1] == 0 or vectors.dtype.kind not in "fiu":
            raise InputError(f"vectors must be (T, D) numbers, got shape {vectors.shape} of {vectors.dtype}.")
        with np.errstate(over="ignore"):
            vectors = vectors.astype(np.float32, copy=False)
        _check_finite(vectors)
        _fill(self, vectors, check_offsets("offsets", self.offsets, len(vectors)))

    @classmethod
    def _trusted(cls, vectors: Array, offsets: Ids) -> "MultiVectors":
        """Without checks, for arrays that are right by construction."""
        return _fill(object.__new__(cls), vectors, offsets)

    @classmethod
    def _kept(cls, vectors: Array, offsets: npt.ArrayLike) -> "MultiVectors":
        """Of arrays that were kept, in the number type that they have: int8 is what `quantize` gives.

        Raises:
            InputError: as of the constructor.
        """
        if vectors.dtype.name not in TOKEN_PRECISIONS[1:]:
            return cls(vectors, cast("Ids", offsets))
        if vectors.ndim != 2 or vectors.shape[1] == 0:
            raise InputError(f"vectors must be (T, D) numbers, got shape {vectors.shape} of {vectors.dtype}.")
        _check_finite(vectors)
        return cls._trusted(vectors, check_offsets("offsets", offsets, len(vectors)))

    @classmethod
    def empty(cls, count: int, dim: int) -> "MultiVectors":
        """`count` texts without vectors."""
        return cls._trusted(np.zeros((0, dim), dtype=np.float32), np.zeros(count + 1, dtype=np.int64))

    @classmethod
    def from_arrays(cls, arrays: Iterable[npt.ArrayLike]) -> "MultiVectors":
        """From one (t, D) array for each text, such as FlagEmbedding's `colbert_vecs`.

        Raises:
            InputError: no arrays, or arrays of different D.
        """
        listed = [np.asarray(array) for array in arrays]
        if not listed or any(array.ndim != 2 or array.shape[1] != listed[0].shape[1] for array in listed):
            shapes = sorted({array.shape for array in listed})[:5]
            raise InputError(f"expected (t, D) arrays of one D, got {f'shapes {shapes}' if shapes else 'no arrays'}.")
        return cls(np.concatenate(listed), np.cumsum([0, *map(len, listed)]))

    @property
    def dim(self) -> int:
        """D."""
        return int(self.vectors.shape[1])

    @property
    def precision(self) -> str:
        """What the vectors are kept in: "float32", "float16" or "int8"."""
        return str(self.vectors.dtype.name)

    def quantize(self, precision: str) -> "MultiVectors":
        """The same texts in fewer bytes a number: "float16" takes 2, "int8" 1; "float32" takes 4.

        int8 is round(127 x), for vectors of length 1: one scale for all, so that a file needs no ranges.

        Raises:
            InputError: an unknown precision, or numbers that it cannot hold.
        """
        check_token_precision(precision)
        if precision == self.precision:
            return self
        made: Array = np.empty(self.vectors.shape, dtype=precision)
        step = max(_BLOCK // self.dim, 1)
        for start in range(0, len(made), step):
            made[start : start + step] = _quantized(as_floats(self.vectors[start : start + step]), precision)
        return self._trusted(made, self.offsets)

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.offsets) - 1

    def __repr__(self) -> str:
        mean = len(self.vectors) / max(len(self), 1)
        kept = "" if self.precision == "float32" else f", {self.precision}"
        return f"MultiVectors({len(self)} texts, dim={self.dim}, {mean:.1f} vectors a text{kept})"

    def __iter__(self) -> Iterator[Floats]:
        for start, stop in pairwise(self.offsets.tolist()):
            yield as_floats(self.vectors[start:stop])

    @overload
    def __getitem__(self, index: int | np.integer) -> Floats: ...
    @overload
    def __getitem__(self, index: RowIndex) -> "MultiVectors": ...
    def __getitem__(self, index: Any) -> Any:
        """The (t, D) float32 vectors of a text, or the texts of a slice, of integers or of a boolean mask."""
        if isinstance(index, int | np.integer) and not isinstance(index, bool):
            row = range(len(self))[operator.index(index)]
            return as_floats(self.vectors[self.offsets[row] : self.offsets[row + 1]])
        if isinstance(index, slice) and index.step in (None, 1):
            start, stop, _ = index.indices(len(self))
            offsets = self.offsets[start : max(stop, start) + 1]
            return self._trusted(self.vectors[offsets[0] : offsets[-1]], offsets - offsets[0])
        taken, places = take_rows(self.offsets, resolve_rows(index, len(self)))
        return self._trusted(self.vectors[places], taken)

    def equals(self, other: "MultiVectors") -> bool:
        """Whether texts and vectors are the same, in one precision."""
        same = self.precision == other.precision and np.array_equal(self.offsets, other.offsets)
        return same and np.array_equal(self.vectors, other.vectors)

    # ---- scores ------------------------------------------------------------------------------------------------------

    def maxsim(self, other: "MultiVectors", reduce: Reduce = "mean") -> Floats:
        """MaxSim of all these queries with all documents: each query vector's greatest dot product, then their mean.

        The mean is FlagEmbedding's `colbert_score`, the sum that of ColBERT (Khattab & Zaharia 2020, equation 3).
        Memory is bounded by blocks, beside the result and the vectors themselves.

        Args:
            other: the documents.
            reduce: "mean" or "sum" over the vectors of the query.

        Returns:
            (N, M) float32; 0 where the query or the document has no vectors.

        Raises:
            InputError: another dimension, or an unknown reduce.
        """
        self._check(other, reduce)
        result = np.zeros((len(self), len(other)), dtype=np.float32)
        for block in blocks(other.offsets, _BLOCK_TOKENS):
            _add_maxima(self, other[block], result[:, block])
        if reduce == "mean":
            result /= np.maximum(np.diff(self.offsets), 1)[:, None].astype(np.float32)
        return result

    def maxsim_pairs(self, other: "MultiVectors", reduce: Reduce = "mean") -> Floats:
        """MaxSim of query i with document i, as `maxsim`.

        Returns:
            (N,) float32.

        Raises:
            InputError: another dimension or number of texts, or an unknown reduce.
        """
        self._check(other, reduce)
        if len(self) != len(other):
            raise InputError(
                f"maxsim_pairs compares query i with document i: got {len(self)} queries and {len(other)} documents. "
                "For all pairs type: queries.maxsim(documents)"
            )
        result = np.zeros(len(self), dtype=np.float32)
        for row in range(len(self)):
            one = slice(row, row + 1)
            _add_maxima(self[one], other[one], result[one, None])
        if reduce == "mean":
            result /= np.maximum(np.diff(self.offsets), 1).astype(np.float32)
        return result

    # ---- files -------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write an .npz file at exactly this path: arrays `vectors` and `offsets`."""
        with Path(path).open("wb") as file:
            np.savez(file, vectors=self.vectors, offsets=self.offsets)

    @classmethod
    def load(cls, path: str | Path) -> "MultiVectors":
        """Read what `save` wrote; nothing in the file is executed.

        Raises:
            InputError: another kind of file, or arrays that do not fit.
            FileNotFoundError: no such file.
        """
        stored = read_npz(path, ("vectors", "offsets"), _WRITER)
        try:
            return cls._kept(stored["vectors"], stored["offsets"])
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    @classmethod
    def concatenate(cls, parts: "Iterable[MultiVectors]") -> "MultiVectors":
        """The texts of all parts, in order.

        Raises:
            InputError: no parts, or parts of different dimensions or precisions.
        """
        listed = list(parts)
        dims = sorted({part.dim for part in listed})
        if len(dims) != 1:
            what = f"parts of dim {', '.join(map(str, dims))}" if dims else "no parts"
            raise InputError(f"expected parts of one dim, got {what}.")
        kept = sorted({part.precision for part in listed})
        if len(kept) != 1:
            raise InputError(f"expected parts of one precision, got {', '.join(kept)}. Type: part.quantize('float16')")
        counts = np.concatenate([[0], *(np.diff(part.offsets) for part in listed)])
        return cls._trusted(np.concatenate([part.vectors for part in listed]), np.cumsum(counts, dtype=np.int64))

    def _check(self, other: object, reduce: str) -> None:
        if not isinstance(other, MultiVectors):
            raise InputError(
                f"expected MultiVectors, got {type(other).__name__}. Type: MultiVectors.from_arrays(arrays)"
            )
        if self.dim != other.dim:
            raise InputError(
                f"vectors of dim {self.dim} and {other.dim} cannot be compared: they come from different models. "
                "Encode both with one."
            )
        if reduce not in ("mean", "sum"):
            raise InputError(f"reduce must be 'mean' or 'sum', got {reduce!r}.")


def as_multi_vectors(vectors: object, called: str) -> MultiVectors:
    """Vectors of tokens in any of their forms: MultiVectors, (t, D) arrays or tensors of several texts, or one of them.

    Args:
        vectors: a list of arrays, or an array (t, D) of one text.
        called: by what name a message calls them.

    Raises:
        InputError: something else.
    """
    if isinstance(vectors, MultiVectors):
        return vectors
    try:
        if isinstance(vectors, list | tuple):
            return MultiVectors.from_arrays(cast("Any", vectors))
        return MultiVectors.from_arrays([np.asarray(vectors)])
    except (InputError, TypeError, ValueError, RuntimeError) as error:  # numpy's, and torch's over gradients
        raise InputError(
            f"{called}: expected MultiVectors, a list of (t, D) arrays, or one of them: {error} "
            "Type: encoder.encode_query([text])"
        ) from error


def _add_maxima(queries: MultiVectors, documents: MultiVectors, result: Floats) -> None:
    """Add to (N, M) each query vector's greatest dot product with each document's vectors."""
    if len(documents.vectors) == 0:
        return
    step, transposed = max(_BLOCK // max(len(documents.vectors), len(documents)), 1), as_floats(documents.vectors).T
    for start in range(0, len(queries.vectors), step):
        stop = min(start + step, len(queries.vectors))
        similarities = as_floats(queries.vectors[start:stop]) @ transposed  # (S, T)
        best = reduce_rows(np.maximum, similarities, documents.offsets, axis=1)  # (S, M)
        # the queries that these vectors are of; the first and the last may go on in other steps
        first = int(np.searchsorted(queries.offsets, start, side="right")) - 1
        last = int(np.searchsorted(queries.offsets, stop, side="left"))
        offsets = np.clip(queries.offsets[first : last + 1], start, stop)
        result[first:last] += reduce_rows(np.add, best, offsets)


def as_floats(vectors: Array) -> Floats:
    """(T, D) float32 of token vectors in any of TOKEN_PRECISIONS; float32 ones as they are."""
    if vectors.dtype == np.int8:
        return np.divide(vectors, _LEVELS, dtype=np.float32)
    return vectors.astype(np.float32, copy=False)


def check_token_precision(precision: object) -> None:
    """Raise InputError unless it is one of TOKEN_PRECISIONS."""
    if precision not in TOKEN_PRECISIONS:
        hint = " The variant (fp32, fp16, int8) is chosen at load." if precision in ("fp32", "fp16") else ""
        raise InputError(f"precision {precision!r} of token vectors is not one of {', '.join(TOKEN_PRECISIONS)}.{hint}")


def _quantized(vectors: Floats, precision: str) -> Array:
    """(T, D) of one of TOKEN_PRECISIONS."""
    if precision == "int8":
        most = float(np.abs(vectors).max(initial=0.0))
        if most > 1 + _ABOVE:
            raise InputError(
                f"int8 is for vectors of length 1, and a number here is {most:.4g}. Normalize them "
                "(normalize_embeddings=True), or take float16."
            )
        levels: Array = np.clip(np.rint(vectors * _LEVELS), -_LEVELS, _LEVELS).astype(np.int8)
        return levels
    with np.errstate(over="ignore"):
        made: Array = vectors.astype(precision)
    if not np.isfinite(made).all():
        raise InputError("float16 holds numbers up to 65,504, and one of these is larger. Keep them in float32.")
    return made


def _check_finite(vectors: Array) -> None:
    if vectors.size and not np.isfinite([vectors.min(), vectors.max()]).all():  # no (T, D) temporary
        raise InputError("the vectors hold NaN or infinity. Find them: ~np.isfinite(vectors).all(1)")


def _fill(vectors: MultiVectors, *fields: Any) -> MultiVectors:  # noqa: ANN401 - two arrays
    """Set the fields of a frozen instance, in their order."""
    for name, value in zip(vectors.__slots__, fields, strict=True):
        object.__setattr__(vectors, name, value)
    return vectors
