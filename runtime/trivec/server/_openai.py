"""OpenAI's dialect: /v1/embeddings, with sparse and ColBERT vectors beside the dense ones, and /v1/models."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from trivec._encoders.calls import Side
from trivec._vectors.multi import MultiVectors
from trivec.server._bodies import Embeddings
from trivec.server._errors import ApiError
from trivec.server._exchange import Exchange, Reply
from trivec.server._models import Ask, Kind, Model
from trivec.server._registry import Registry
from trivec.server._vectors import answered, dense_of, length_of, side_of, sparse_of, texts_of, usage
from trivec.server._work import Answer, Work
from trivec.server._write import base64, dumps, listed, multi_row, sparse_row

_SIDES: dict[str, Side] = {
    "query": "query",
    "search_query": "query",
    "document": "document",
    "search_document": "document",
}


class OpenAI:
    """The routes."""

    def __init__(self, registry: Registry, work: Work) -> None:
        self._registry, self._work = registry, work

    async def embeddings(self, exchange: Exchange) -> Reply:
        """POST /v1/embeddings."""
        body = await exchange.parsed(Embeddings)
        heads: Sequence[Kind] = tuple(dict.fromkeys(body.outputs)) if body.outputs is not None else ("dense",)
        if not heads:
            raise ApiError("bad_value", "outputs is empty. Name some of dense, sparse, colbert.", param="outputs")
        texts, is_ids = texts_of(body.input, "input", exchange.settings)
        model, side = self._registry.find(body.model, heads)
        ask = Ask(
            texts, tuple(heads), "input", is_ids, _task(body, side), body.prompt_name, body.truncate,
            length_of(body.truncate_prompt_tokens), side_of(body.truncation_direction),
        )  # fmt: skip
        answer = await answered(self._work, exchange, model, ask)
        items = await _items(model, ask, answer, body, exchange)
        name = dumps(body.model or model.name)
        return Reply(
            [b'{"object":"list","data":', *items, b',"model":', name, b',"usage":', dumps(usage(answer)), b"}"]
        )

    async def models(self, exchange: Exchange) -> Reply:
        """GET /v1/models, and one of them."""
        name = exchange.scope.get("path_params", {}).get("name")
        if name is not None:
            found = self._registry.find(name, ()).model
            return Reply.of({**found.described(), "id": name})
        listed = [{**self._registry.find(name, ()).model.described(), "id": name} for name in self._registry.names()]
        return Reply.of({"object": "list", "data": listed})


def _task(body: Embeddings, side: Side | None) -> Side | None:
    """The side of a search, as the name of the model or input_type says."""
    said = None if body.input_type is None else _SIDES[body.input_type]
    if said is not None and side is not None and said != side:
        raise ApiError(
            "bad_value", f"input_type is {body.input_type}, and the model's name asks for {side}. Say one.",
            param="input_type",
        )  # fmt: skip
    return said or side


async def _items(model: Model, ask: Ask, answer: Answer, body: Embeddings, exchange: Exchange) -> list[bytes]:
    """The `data` of the answer."""
    packed = body.encoding_format == "base64"
    facts = exchange.facts
    parts: list[Any] = []  # each gives its fields of an item
    dtype = body.output_dtype or "float"
    if "dense" in ask.heads:
        cosine = model.encoder.similarity_fn_name == "cosine"
        unit = cosine if body.normalize is None else body.normalize
        dense, facts.fingerprint = dense_of(
            model, ask, answer, unit=unit, dimensions=body.dimensions or None,
            dtype="float32" if dtype == "float" else dtype,
        )  # fmt: skip
        parts.append(lambda row: {"embedding": base64(dense[row]) if packed else dense[row]})
    elif body.dimensions or dtype != "float":
        raise ApiError("bad_value", "dimensions and output_dtype are for dense vectors.", param="outputs")
    if "sparse" in ask.heads:
        rows, mark = sparse_of(
            model, ask, answer, threshold=body.threshold or 0.0, max_active_dims=body.max_active_dims
        )
        facts.fingerprint = mark
        tokens = model.encoder.token if body.return_tokens else None
        parts.append(lambda row: {"sparse_embedding": sparse_row(rows, row, tokens, as_base64=packed)})
    elif body.threshold is not None or body.max_active_dims is not None:
        raise ApiError("bad_value", "threshold and max_active_dims are for sparse vectors: name them in outputs.", param="outputs")  # fmt: skip  # noqa: E501
    if "colbert" in ask.heads:
        facts.fingerprint = facts.fingerprint or model.fingerprint(ask)
        several = cast("MultiVectors", answer.vectors.colbert)
        parts.append(lambda row: _multi(multi_row(several, row), packed))

    def item(row: int) -> dict[str, Any]:
        found: dict[str, Any] = {"object": "embedding", "index": row}
        for part in parts:
            found.update(part(row))
        return found

    return await listed(len(ask.texts), item)


def _multi(vectors: "np.ndarray[Any, Any]", packed: bool) -> dict[str, Any]:
    if not packed:
        return {"multi_vector": vectors}
    return {"multi_vector": base64(vectors), "shape": list(vectors.shape)}
