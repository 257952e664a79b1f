"""From scores of documents to their order, as sentence-transformers' CrossEncoder.rank gives it."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from trivec._errors import InputError
from trivec._tokens.inputs import as_texts
from trivec._vectors.arrays import Floats


class _Ranked(TypedDict):
    corpus_id: int
    score: float


class Ranked(_Ranked, total=False):
    """A document's place, as sentence-transformers' CrossEncoder.rank gives it."""

    text: str


def check_top_k(top_k: object) -> None:
    """Raise InputError unless it is None or a whole number above 0."""
    if top_k is not None and (not isinstance(top_k, int | np.integer) or isinstance(top_k, bool) or top_k < 1):
        raise InputError(f"top_k must be a positive integer or None, got {top_k!r}.")


def documents_of(query: object, documents: object) -> list[str]:
    """The documents of a query, checked.

    Raises:
        InputError: the query or a document (its index is named) is no text, or one text came in the place of a list.
    """
    if not isinstance(query, str):
        raise InputError(f"expected a query that is a text, got {type(query).__name__}: {str(query)[:40]!r}.")
    if documents is None:
        raise InputError("expected a list of documents, got None.")
    texts, single = as_texts(documents, None)
    if single:
        raise InputError("expected a list of documents, got one text. Type: rank(query, [document])")
    return texts


def ranked(scores: Floats, documents: Sequence[str], top_k: int | None, return_documents: bool) -> list[Ranked]:
    """Documents by their scores (N,), best first; equal ones in their order."""
    order = np.argsort(-scores, kind="stable")[:top_k].tolist()
    if return_documents:
        return [{"corpus_id": row, "score": float(scores[row]), "text": documents[row]} for row in order]
    return [{"corpus_id": row, "score": float(scores[row])} for row in order]
