"""Points: ids, payloads and vectors of documents."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from qdrant_client import models

from trivec._errors import InputError
from trivec._tokens.inputs import one_by_one
from trivec._vectors.heads import HybridVectors
from trivec._vectors.multi import MultiVectors
from trivec.integrations._text_model import dense_lists, sparse_rows
from trivec.integrations.qdrant._vectors import Part, sparse_vector

PointId = int | str | uuid.UUID


def described(
    texts: Sequence[str], ids: Sequence[PointId] | None, payloads: Sequence[Mapping[str, Any]] | None
) -> tuple[list[int | str], list[dict[str, Any]]]:
    """Ids and payloads of N texts, checked; random UUIDs and the texts where there are none.

    Raises:
        InputError: another number of them, an id that Qdrant does not take, or a payload that is no mapping.
    """
    for name, given in (("ids", ids), ("payloads", payloads)):
        if given is not None and len(given) != len(texts):
            raise InputError(f"got {len(given)} {name} for {len(texts)} texts. Expected as many.")
        if given is not None:
            one_by_one(given, f"{name} must be in the order of the texts")
    numbers: Sequence[PointId] = [uuid.uuid4() for _ in texts] if ids is None else ids
    contents: Sequence[Mapping[str, Any]] = [{"text": text} for text in texts] if payloads is None else payloads
    return [_id(row, value) for row, value in enumerate(numbers)], [_payload(*item) for item in enumerate(contents)]


def made(
    found: Sequence[tuple[Part, HybridVectors]], ids: Sequence[int | str], payloads: Sequence[dict[str, Any]]
) -> list[models.PointStruct]:
    """Points of N texts, with the vectors of all models."""
    rows: list[dict[str, Any]] = [{} for _ in ids]
    for part, vectors in found:
        for head, name in part.names.items():
            column: Sequence[Any]
            if head == "dense":
                column = dense_lists(vectors)
            elif head == "sparse":
                column = [sparse_vector(row) for row in sparse_rows(vectors)]
            else:
                column = [tokens.tolist() for tokens in cast("MultiVectors", vectors.colbert)]
            for row, value in zip(rows, column, strict=True):
                if value or head != "colbert":  # Qdrant takes no empty list of vectors, and points without
                    row[name] = value
    return [
        models.PointStruct(id=number, vector=row, payload=payload)
        for number, row, payload in zip(ids, rows, payloads, strict=True)
    ]


def check_count(name: str, value: object) -> None:
    """Raise InputError unless a count is one."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} must be a whole number above 0, got {value!r}.")


def _payload(row: int, value: object) -> dict[str, Any]:
    """A payload as Qdrant takes it, or InputError."""
    if not isinstance(value, Mapping):
        raise InputError(f"payloads must be mappings, got {type(value).__name__} {value!r} at index {row}.")
    return dict(value)


def _id(row: int, value: object) -> int | str:
    """An id as Qdrant takes it, or InputError."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= 0:
        return int(value)
    try:
        return str(uuid.UUID(str(value)))
    except ValueError:
        raise InputError(
            f"Qdrant takes whole numbers from 0 and UUIDs as ids, got {value!r} at index {row}. For any other name "
            f"type: uuid.uuid5(uuid.NAMESPACE_URL, {str(value)!r})"
        ) from None
