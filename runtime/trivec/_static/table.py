"""The table of a static model: token ids to vectors, and their mean over each text."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trivec._errors import ModelFormatError
from trivec._model.static_model import EXTRA, TABLES
from trivec._model.tensor_files import read_tensors
from trivec._tokens.batch import Tokens
from trivec._vectors.arrays import Floats

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]
_BLOCK = 1 << 14  # tokens of one text whose vectors are gathered at a time


@dataclass(frozen=True)
class StaticTable:
    """A vector for each token, in the number type of the file: nothing is unpacked before it is needed.

    A vocabulary-quantized model has fewer vectors than tokens, with a vector's row and a weight for each token.
    """

    vectors: Array
    """(R, D) float64, float32, float16 or int8."""
    weights: Array | None = None
    """(V,) floats by which a token's vector is multiplied; None: 1."""
    mapping: Array | None = None
    """(V,) the row of each token; None: its id."""

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        return int(self.vectors.shape[1])

    @property
    def is_half(self) -> bool:
        """Whether the table is float16."""
        return self.vectors.dtype == np.float16

    def of(self, ids: Ids) -> Array:
        """(K, D) vectors of tokens (K,), in the number type of the table times that of the weights."""
        rows = self.vectors.take(ids if self.mapping is None else self.mapping[ids], axis=0)
        return rows if self.weights is None else rows * self.weights[ids][:, None]

    def mean(self, tokens: Tokens) -> Floats:
        """(N, D) float32: the mean vector of each text's tokens; zeros for a text without tokens.

        A text's vectors are added up in the order of its tokens, as numpy's mean does in Model2Vec's `encode`, so that
        the sums are the same to the last bit, whatever else is in the batch. Means of integers are exact.
        """
        exact = np.float64 if self._product() == np.float64 else np.float32
        counts = tokens.lengths  # (N,)
        longest = int(counts.max(initial=0))
        # One call of numpy for each text or one for each position, whichever takes fewer.
        sums = self._by_text if len(counts) <= longest else self._by_position
        means = sums(tokens, exact)  # (N, D)
        means /= np.maximum(counts, 1)[:, None].astype(exact)
        return means.astype(np.float32, copy=False)

    def _by_text(self, tokens: Tokens, dtype: type) -> Array:
        """(N, D) sums, text after text: for few or long ones."""
        sums: Array = np.zeros((len(tokens.truncated), self.dim), dtype=dtype)
        for row in range(len(sums)):
            ids = tokens.of(row)
            for start in range(0, len(ids), _BLOCK):
                sums[row] += self.of(ids[start : start + _BLOCK]).sum(0, dtype=dtype)
        return sums

    def _by_position(self, tokens: Tokens, dtype: type) -> Array:
        """(N, D) sums: the first tokens of all texts, then the second ones, and so on; longest texts in front."""
        counts = tokens.lengths  # (N,)
        order = np.argsort(-counts, kind="stable")  # (N,)
        starts, counts = tokens.offsets[:-1][order], counts[order]
        sums: Array = np.zeros((len(order), self.dim), dtype=dtype)
        # texts that have a token at each position, (longest,)
        having = np.searchsorted(-counts, -np.arange(1, int(counts[0]) + 1), side="right")
        for position, many in enumerate(having.tolist()):
            sums[:many] += self.of(tokens.ids[starts[:many] + position])
        result = np.empty_like(sums)
        result[order] = sums
        return result

    def _product(self) -> np.dtype[Any]:
        """The number type of a weighted vector."""
        weights = [] if self.weights is None else [self.weights.dtype]
        return np.result_type(self.vectors.dtype, *weights)


def read_table(path: Path, tokens: int, last_id: int, *, every_row: bool) -> StaticTable:
    """Read and check a table.

    Args:
        path: the .safetensors file.
        tokens: of the tokenizer.
        last_id: the largest id that it gives.
        every_row: whether the table must have a row for each token and no more, as Model2Vec asks.

    Raises:
        MissingExtraError: safetensors is not installed.
        ModelFormatError: the file is damaged, or its tensors do not fit each other or the tokenizer.
    """
    found = read_tensors(
        path, {*TABLES, "weights", "mapping"}, extra=EXTRA, why=f"{path} holds the table of a static model"
    )
    vectors = next((found[name] for name in TABLES if name in found), np.zeros((0, 0)))  # (R, D)
    weights, mapping = found.get("weights"), found.get("mapping")
    rows = len(vectors)
    for name, array in (("weights", weights), ("mapping", mapping)):
        if array is not None and (array.ndim != 1 or len(array) <= last_id):
            raise ModelFormatError(
                f"{path}: {name} has the shape {array.shape}; expected one number for each of the {last_id + 1} tokens "
                "of the tokenizer."
            )
    if weights is not None and weights.dtype.kind != "f":
        raise ModelFormatError(f"{path}: weights is of {weights.dtype}; expected floating-point numbers.")
    if mapping is not None:
        if mapping.dtype.kind not in "iu":
            raise ModelFormatError(f"{path}: mapping is of {mapping.dtype}; expected integers.")
        low, high = (int(mapping.min()), int(mapping.max())) if len(mapping) else (0, -1)
        if low < 0 or high >= rows:
            raise ModelFormatError(
                f"{path}: mapping goes from {low} to {high}, and the table has the rows 0 to {rows - 1}."
            )
    elif last_id >= rows or (every_row and tokens != rows):
        raise ModelFormatError(
            f"{path}: the table has {rows} rows, and the tokenizer {tokens} tokens with ids up to {last_id}. Its "
            "tokenizer.json is of another model: fetch both again."
        )
    return StaticTable(np.ascontiguousarray(vectors), weights, mapping)
