"""Vectors of a model as Qdrant stores them: their settings in a collection, and their values."""

from collections.abc import Container, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict, cast

import numpy as np
from qdrant_client import models

from trivec._encoders.protocol import Encoder
from trivec._engine.engine_drift import check_engine
from trivec._errors import InputError
from trivec._vectors.heads import Head, HybridVectors
from trivec._vectors.multi import MultiVectors
from trivec._vectors.sparse import SparseVector
from trivec.integrations._text_model import TextModel, dense_lists, sparse_row

METADATA = "trivec"
"""Under which a collection holds the fingerprints of its vectors."""
ENGINES = f"{METADATA}.engines"
"""Under which it holds what computed the first of them."""
_DISTANCES = {
    "cosine": models.Distance.COSINE,
    "dot": models.Distance.DOT,
    "euclidean": models.Distance.EUCLID,
    "manhattan": models.Distance.MANHATTAN,
}


class Collection(TypedDict):
    """Arguments of `QdrantClient.create_collection`."""

    vectors_config: dict[str, models.VectorParams]
    sparse_vectors_config: dict[str, models.SparseVectorParams]
    metadata: dict[str, Any]


class Part(NamedTuple):
    """A model, and what its vectors are called."""

    model: TextModel
    names: dict[Head, str]


def chosen(encoder: Encoder, names: Mapping[Head, str] | None) -> dict[Head, str]:
    """What a model's vectors are called; None: dense and sparse ones, or ColBERT's alone, by their own names.

    Raises:
        InputError: a vector that the model does not give, or one that Qdrant compares otherwise than the model.
    """
    found = encoder.heads
    named: dict[Head, str] = {head: head for head in found if head != "colbert" or len(found) == 1}
    if names is not None:
        named = dict(names) if isinstance(names, Mapping) else {}
    if not named or set(named) - set(found) or not all(isinstance(name, str) for name in named.values()):
        raise InputError(
            f"names={names!r}: this {type(encoder).__name__} gives {', '.join(found)}. Expected a name for some of "
            'these: names={"dense": "text"}'
        )
    if found == ("sparse",) and encoder.similarity_fn_name != "dot":
        raise InputError(
            f"{encoder!r} compares by {encoder.similarity_fn_name}, and Qdrant compares sparse vectors by the dot "
            'product alone. Type: trivec.load(..., similarity_fn_name="dot")'
        )
    return named


def vector_params(part: Part) -> dict[str, models.VectorParams]:
    """By their names, sizes and distances of a model's dense vectors and of ColBERT's."""
    found: dict[str, models.VectorParams] = {}
    if part.names.keys() == {"sparse"}:
        return found
    empty = part.model.of_none()
    if "dense" in part.names:
        size = cast("np.ndarray[Any, Any]", empty.dense).shape[1]
        distance = _DISTANCES[part.model.encoder.similarity_fn_name]
        found[part.names["dense"]] = models.VectorParams(size=size, distance=distance)
    if "colbert" in part.names:
        found[part.names["colbert"]] = models.VectorParams(
            size=cast("MultiVectors", empty.colbert).dim,
            distance=models.Distance.DOT,  # as the model was trained; its vectors have length 1
            multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
            hnsw_config=models.HnswConfigDiff(m=0),
        )
    return found


def values(part: Part, vectors: HybridVectors, wanted: Container[str]) -> dict[str, Any]:
    """By their names, vectors of one text: a list of floats, a SparseVector or a list of lists.

    Raises:
        InputError: ColBERT vectors are wanted, and the query has none.
    """
    found: dict[str, Any] = {}
    for head, name in part.names.items():
        if name not in wanted:
            continue
        if head == "dense":
            found[name] = dense_lists(vectors)
        elif head == "sparse":
            found[name] = sparse_vector(sparse_row(vectors))
        else:
            found[name] = cast("np.ndarray[Any, Any]", vectors.colbert).tolist()
            if not found[name]:
                raise InputError("the query has no tokens, and so no ColBERT vectors. Ask for something.")
    return found


def sparse_vector(row: SparseVector) -> models.SparseVector:
    """Terms and weights as Qdrant takes them."""
    return models.SparseVector(indices=row.indices.tolist(), values=row.values.tolist())


def check_vectors(info: models.CollectionInfo, dense: Mapping[str, Any], sparse: Sequence[str]) -> None:
    """Raise InputError unless a collection has these vectors."""
    params = info.config.params
    there = params.vectors if isinstance(params.vectors, dict) else {"": params.vectors} if params.vectors else {}
    terms = params.sparse_vectors or {}
    for kind, wanted, found in (("dense", list(dense), there), ("sparse", list(sparse), terms)):
        for name in wanted:
            if name not in found:
                known = ", ".join(repr(n) for n in [*there, *terms]) or "none"
                raise InputError(
                    f"the collection has no {kind} vector {name!r}; it has {known}. Set names=, or create another: "
                    "client.create_collection(name, **encoder.collection())"
                )
    for name, expected in dense.items():
        for what in ("size", "distance", "multivector_config"):
            got, want = getattr(there[name], what), getattr(expected, what)
            if got != want:
                raise InputError(
                    f"the collection's vectors {name!r} have {what} {_shown(got)}, and the model's {_shown(want)}. "
                    "Load the model that they were made with, or create another collection."
                )
    for name in sparse:
        if terms[name].modifier not in (None, models.Modifier.NONE):
            raise InputError(
                f"the collection's vectors {name!r} have the modifier {_shown(terms[name].modifier)}, and the model's "
                "weights are final. Create another: client.create_collection(name, **encoder.collection())"
            )


def check_fingerprints(stored: Mapping[str, str], fingerprints: Mapping[str, str]) -> None:
    """Raise InputError where vectors of one name were made with another model or other settings."""
    for name, fingerprint in fingerprints.items():
        if stored.get(name, fingerprint) != fingerprint:
            raise InputError(
                f"the vectors {name!r} of the collection were made by another model, or with other settings: their "
                f"fingerprint is {stored[name]}, and this model's is {fingerprint}. Load the same one, or create "
                "another collection."
            )


def check_engines(stored: Mapping[str, str], engines: Mapping[str, str], *, strict: bool) -> None:
    """Warn, or where it is strict raise InputError, where vectors of one name were computed by another engine."""
    for name, engine in engines.items():
        check_engine(f"the collection's vectors {name!r}", stored.get(name), engine, strict=strict)


def _shown(value: Any) -> str:  # noqa: ANN401 - of a VectorParams
    return str(getattr(value, "value", value))
