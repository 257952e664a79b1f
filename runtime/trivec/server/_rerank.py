"""Scores of pairs: /rerank of TEI, of Cohere and Jina, and of Weaviate, and vLLM's /score."""

from dataclasses import replace
from typing import Any, cast

import numpy as np

from trivec._encoders.calls import Side
from trivec._vectors.arrays import Floats, normalize
from trivec._vectors.multi import MultiVectors
from trivec._vectors.sparse import SparseVectors
from trivec.server._bodies import Rerank, Score
from trivec.server._errors import ApiError
from trivec.server._exchange import Exchange, Reply
from trivec.server._models import Ask, Model
from trivec.server._registry import Registry
from trivec.server._vectors import answered, check_count, length_of, now, side_of, usage
from trivec.server._work import Answer, Work
from trivec.server._write import dumps, listed


class Rerankers:
    """The routes."""

    def __init__(self, registry: Registry, work: Work) -> None:
        self._registry, self._work = registry, work

    async def rerank(self, exchange: Exchange) -> Reply:
        """POST /rerank: what the body has decides whose shape it is."""
        return await self.rerank_body(exchange, await exchange.body())

    async def rerank_body(self, exchange: Exchange, data: bytes) -> Reply:
        """The same with a body that is read."""
        body = exchange.read(data, Rerank)
        exchange.tei = body.texts is not None
        if (body.texts is None) == (body.documents is None):
            raise ApiError("bad_value", "Send the candidates as documents (Cohere, Jina) or as texts (TEI).", param="documents")  # fmt: skip  # noqa: E501
        field = "documents" if body.texts is None else "texts"
        listed_texts = body.texts if body.texts is not None else body.documents or []
        texts = [text if isinstance(text, str) else text.text for text in listed_texts]
        check_count(len(texts), field, exchange.settings)
        if body.top_n is not None and body.top_n < 0:
            raise ApiError("bad_value", f"top_n must be at least 0, got {body.top_n}.", param="top_n")
        model = self._registry.find(body.model, ("score",), first=exchange.tei).model
        if model.encoder.labels:
            raise ApiError("wrong_model_kind", f"{model.name!r} has labels: ask /predict.", param="model")
        pairs = [(body.query, text) for text in texts]
        ask = Ask(pairs, ("score",), field, truncate=body.truncate, side=side_of(body.truncation_direction))
        answer = await answered(self._work, exchange, model, ask)
        exchange.facts.fingerprint = model.fingerprint(ask)
        logits = cast("Floats", answer.vectors.dense)[:, 0]  # (N,)
        scores = logits if body.raw_scores else sigmoid(logits)
        order = np.argsort(-logits, kind="stable")[: body.top_n or None].tolist()
        return await _ranked(exchange, body, model, answer, texts, scores, order)

    async def score(self, exchange: Exchange) -> Reply:
        """POST /score: each text against one, or pair by pair."""
        body = await exchange.parsed(Score)
        first, second = _two_lists(body, exchange)
        model = self._registry.find(body.model, (), first=True).model
        limit = length_of(body.truncate_prompt_tokens)
        if model.heads == ("score",):
            ask = Ask(list(zip(first, second, strict=True)), ("score",), "text_2")
            answer = await answered(self._work, exchange, model, ask)
            scores = sigmoid(cast("Floats", answer.vectors.dense)[:, 0])
        elif model.heads == ("colbert",):  # whose sides are read differently
            sides: list[Answer] = []
            tasks: tuple[Side, Side] = ("query", "document")
            for texts, task in zip((first, second), tasks, strict=True):
                ask = Ask(texts, model.heads, "text_2", task=task, max_length=limit)
                sides.append(await answered(self._work, exchange, model, ask))
            scores = model.encoder.similarity_pairwise(*(side.vectors.colbert for side in sides))
            answer = replace(sides[1], tokens=sides[0].tokens + sides[1].tokens)
        else:
            both = [*first, *second]
            ask = Ask(both, model.heads, "text_2", max_length=limit)
            answer = await answered(self._work, exchange, model, ask)
            scores = _similarities(model, answer, len(first))
        exchange.facts.fingerprint = model.fingerprint(ask)
        data = [{"index": row, "object": "score", "score": score} for row, score in enumerate(scores)]
        head = {
            "id": f"score-{exchange.request_id}",
            "object": "list",
            "created": now(),
            "model": body.model or model.name,
        }
        return Reply.of({**head, "data": data, "usage": usage(answer)})


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-x)), without overflow."""
    small = np.exp(-np.abs(logits))
    return np.asarray(np.where(logits >= 0, 1 / (1 + small), small / (1 + small)), dtype=np.float32)


async def _ranked(
    exchange: Exchange, body: Rerank, model: Model, answer: Answer, texts: list[str], scores: Floats, order: list[int]
) -> Reply:
    """The answer, in the shape of the body."""
    if exchange.tei:

        def tei(place: int) -> dict[str, Any]:
            row = order[place]
            found: dict[str, Any] = {"index": row, "score": scores[row]}
            return {**found, "text": texts[row]} if body.return_text else found

        return Reply(await listed(len(order), tei))
    if body.property is not None:
        rows = [{"document": text, "score": score} for text, score in zip(texts, scores, strict=True)]
        return Reply.of({"query": body.query, "scores": rows})

    def item(place: int) -> dict[str, Any]:
        row = order[place]
        found: dict[str, Any] = {"index": row, "relevance_score": scores[row]}
        return {**found, "document": {"text": texts[row]}} if body.return_documents else found

    head = {"id": exchange.request_id, "model": body.model or model.name, "object": "list"}
    tail = {
        "meta": {
            "api_version": {"version": "2"},
            "billed_units": {"search_units": 1},
            "tokens": {"input_tokens": answer.tokens},
        },
        "usage": usage(answer),
    }
    results = await listed(len(order), item)
    return Reply([dumps(head)[:-1], b',"results":', *results, b",", dumps(tail)[1:]])


def _two_lists(body: Score, exchange: Exchange) -> tuple[list[str], list[str]]:
    """Two lists of one length: 1:1, 1:N or N:N."""
    names = (("text_1", "text_2"), ("queries", "documents"), ("data_1", "data_2"))
    given = [pair for pair in names if getattr(body, pair[0]) is not None or getattr(body, pair[1]) is not None]
    if len(given) != 1 or None in (getattr(body, given[0][0]), getattr(body, given[0][1])):
        pairs = ", ".join(f"{a} and {b}" for a, b in names)
        raise ApiError("bad_value", f"Send one of the pairs {pairs}.", param="text_1")
    first, second = (_as_list(getattr(body, name)) for name in given[0])
    for texts, name in ((first, given[0][0]), (second, given[0][1])):
        check_count(len(texts), name, exchange.settings)
    if len(first) == 1:
        first = first * len(second)
    if len(first) != len(second):
        raise ApiError(
            "bad_value",
            f"{given[0][0]} has {len(first)} texts and {given[0][1]} {len(second)}: expected one, or as many.",
            param=given[0][0],
        )
    return first, second


def _as_list(texts: str | list[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else texts


def _similarities(model: Model, answer: Answer, count: int) -> Floats:
    """(N,) of text i with text N + i: cosine, dot product of terms, MaxSim; of several the mean, as compute_score."""
    left, right = answer.vectors.take(slice(0, count)), answer.vectors.take(slice(count, 2 * count))
    found = []
    if left.dense is not None and right.dense is not None:
        a, b = (side if model.ends_normalized(None) else normalize(side) for side in (left.dense, right.dense))
        found.append(np.einsum("nd,nd->n", a, b))
    if isinstance(left.sparse, SparseVectors) and isinstance(right.sparse, SparseVectors):
        found.append(left.sparse.row_dot(right.sparse))
    if isinstance(left.colbert, MultiVectors) and isinstance(right.colbert, MultiVectors):
        found.append(left.colbert.maxsim_pairs(right.colbert))
    return np.asarray(sum(found) / len(found), dtype=np.float32)
