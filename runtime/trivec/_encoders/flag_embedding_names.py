"""What callers of FlagEmbedding's BGE-M3 know beside `encode` and `compute_score`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from trivec._errors import InputError
from trivec._vectors.multi import MultiVectors
from trivec._vectors.rows import as_array
from trivec._vectors.sparse import SparseVector
from trivec._vectors.torch_tensors import tensors_for_tensors

Weights = Mapping[Any, float] | SparseVector
"""Weights by id, which may be a decimal string as in FlagEmbedding, or a row."""


class FlagEmbeddingNames:
    """Methods of M3Embedder 1.4 that read its outputs, or ours."""

    tokenizer: "Tokenizer | Any"
    encode_document: Callable[..., Any]

    def convert_id_to_token(self, lexical_weights: Weights | Sequence[Weights]) -> Any:  # noqa: ANN401
        """{text of a token: weight} of each row, or of the one row, ids in the order in which they come.

        Tokens of one text (with and without a space before it) become one: the later weight stays, as there.
        `decode` keeps them apart.
        """
        rows = _listed(lexical_weights)[0]
        made = [
            {self.tokenizer.decode([int(i)], skip_special_tokens=False): weight for i, weight in row.items()}
            for row in rows
        ]
        return made[0] if len(made) == 1 else made

    @staticmethod
    def compute_lexical_matching_score(
        lexical_weights_1: Weights | Sequence[Weights], lexical_weights_2: Weights | Sequence[Weights]
    ) -> float | npt.NDArray[np.float64]:
        """Sums of products of the weights of shared ids: a float of two rows, (N, M) of lists of N and M rows.

        Raises:
            InputError: a row beside a list.
        """
        (ours, one), (theirs, other) = _listed(lexical_weights_1), _listed(lexical_weights_2)
        if one != other:
            raise InputError("expected two rows, or two lists of rows. Type: [row]")
        found = np.array([[sum(w * b[i] for i, w in a.items() if i in b) for b in theirs] for a in ours])  # (N, M)
        return float(found[0, 0]) if one else found.reshape(len(ours), len(theirs)).astype(np.float64)

    @staticmethod
    @tensors_for_tensors
    def colbert_score(q_reps: npt.ArrayLike, p_reps: npt.ArrayLike) -> np.float32:
        """The mean over the query's vectors (S, D) of the greatest dot product with one of the passage's (T, D).

        A number; a tensor where an argument is one.

        Raises:
            InputError: no (S, D) numbers, or other widths.
        """
        query, passage = (MultiVectors.from_arrays([as_array(side)]) for side in (q_reps, p_reps))
        return np.float32(query.maxsim(passage)[0, 0])


def _listed(weights: Any) -> tuple[list[dict[str, float]], bool]:  # noqa: ANN401
    """Rows as {id: weight}, and whether one came alone."""
    single = isinstance(weights, Mapping | SparseVector)
    rows = [weights] if single else list(weights)
    named = [row.to_dict() if isinstance(row, SparseVector) else row for row in rows]
    if not all(isinstance(row, Mapping) for row in named):
        kinds = sorted({type(row).__name__ for row in rows})
        raise InputError(f"expected rows of weights, dictionaries or SparseVectors, got {', '.join(kinds)}.")
    return [{str(i): float(weight) for i, weight in row.items()} for row in named], single
