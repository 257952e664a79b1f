"""The dialect of text-embeddings-inference: /embed, /embed_all, /embed_sparse, /similarity, /tokenize and the rest."""

from dataclasses import replace
from typing import Any, cast

import numpy as np

from trivec._vectors.arrays import Floats, normalize
from trivec._vectors.multi import MultiVectors
from trivec._version import __version__
from trivec.server._bodies import Decode, Embed, Predict, Root, Similarity, SimilarityOptions, Tokenize
from trivec.server._errors import ApiError
from trivec.server._exchange import Exchange, Reply
from trivec.server._models import Ask, Kind, Model
from trivec.server._registry import Named, Registry
from trivec.server._rerank import Rerankers, sigmoid
from trivec.server._vectors import answered, check_count, dense_of, side_of, sparse_of, texts_of
from trivec.server._work import Answer, Work
from trivec.server._write import index_values, listed, multi_row


class TEI:
    """The routes."""

    def __init__(self, registry: Registry, work: Work, rerankers: Rerankers) -> None:
        self._registry, self._work, self._rerankers = registry, work, rerankers

    async def embed(self, exchange: Exchange) -> Reply:
        """POST /embed."""
        return await self._embed(exchange, exchange.read(await exchange.body(), Embed))

    async def _embed(self, exchange: Exchange, body: Embed) -> Reply:
        model, ask, answer = await self._answer(exchange, body, "dense")
        dense, exchange.facts.fingerprint = dense_of(
            model, ask, answer, unit=body.normalize, dimensions=body.dimensions or None
        )
        return Reply(await listed(len(dense), lambda row: dense[row]))

    async def embed_all(self, exchange: Exchange) -> Reply:
        """POST /embed_all: vectors of all tokens; of a late-interaction model, those that it compares texts by."""
        body = await exchange.parsed(Embed)
        late = self._any(body.model).model.heads == ("colbert",)
        model, ask, answer = await self._answer(exchange, body, "colbert" if late else "dense", states=not late)
        states = cast("MultiVectors", answer.vectors.colbert)
        exchange.facts.fingerprint = model.fingerprint(ask)
        return Reply(await listed(len(ask.texts), lambda row: multi_row(states, row)))

    async def embed_sparse(self, exchange: Exchange) -> Reply:
        """POST /embed_sparse."""
        return await self._embed_sparse(exchange, await exchange.parsed(Embed))

    async def _embed_sparse(self, exchange: Exchange, body: Embed) -> Reply:
        model, ask, answer = await self._answer(exchange, body, "sparse")
        rows, exchange.facts.fingerprint = sparse_of(model, ask, answer)
        return Reply(await listed(len(ask.texts), lambda row: index_values(rows, row)))

    async def _answer(
        self, exchange: Exchange, body: Embed, head: Kind, *, states: bool = False
    ) -> tuple[Model, Ask, Answer]:
        texts, is_ids = texts_of(body.inputs, "inputs", exchange.settings)
        model, side = self._registry.find(body.model, (head,), first=True)
        ask = Ask(
            texts, (head,), "inputs", is_ids, side, body.prompt_name, body.truncate,
            side=side_of(body.truncation_direction), states=states,
        )  # fmt: skip
        if states:
            ask = replace(ask, heads=("colbert",))
        return model, ask, await answered(self._work, exchange, model, ask)

    async def similarity(self, exchange: Exchange) -> Reply:
        """POST /similarity."""
        return await self._similarity(exchange, await exchange.parsed(Similarity))

    async def _similarity(self, exchange: Exchange, body: Similarity) -> Reply:
        check_count(len(body.inputs.sentences), "inputs.sentences", exchange.settings)
        options = body.parameters or SimilarityOptions()
        model, side = self._registry.find(body.model, ("dense",), first=True)
        ask = Ask(
            [body.inputs.source_sentence, *body.inputs.sentences], ("dense",), "inputs", False, side,
            options.prompt_name, options.truncate, side=side_of(options.truncation_direction),
        )  # fmt: skip
        answer = await answered(self._work, exchange, model, ask)
        exchange.facts.fingerprint = model.fingerprint(ask)
        vectors = normalize(cast("Floats", answer.vectors.dense))
        return Reply.of(vectors[1:] @ vectors[0])

    async def tokenize(self, exchange: Exchange) -> Reply:
        """POST /tokenize: the tokens of texts, cut nowhere."""
        body = await exchange.parsed(Tokenize)
        texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
        check_count(len(texts), "inputs", exchange.settings)
        model, side = self._any(body.model)
        exchange.facts.model, exchange.facts.texts = model.name, len(texts)
        prompt = (
            "" if model.heads == ("score",) else _prompt(model, Ask(texts, task=side, prompt_name=body.prompt_name))
        )
        tokenizer = model.whole_tokenizer(side)
        prompted = [prompt + text for text in texts]
        found = await self._work.in_thread(
            lambda: tokenizer.encode_batch(prompted, add_special_tokens=body.add_special_tokens)
        )
        return Reply(await listed(len(texts), lambda row: _tokens(found[row], prompted[row])))

    async def decode(self, exchange: Exchange) -> Reply:
        """POST /decode: token ids back to text."""
        body = await exchange.parsed(Decode)
        rows = body.ids if all(isinstance(row, list) for row in body.ids) else [body.ids]
        model, side = self._any(body.model)
        tokenizer = model.whole_tokenizer(side)
        size = tokenizer.get_vocab_size(True)
        for index, row in enumerate(cast("list[Any]", rows)):
            if not isinstance(row, list) or not all(isinstance(i, int) and 0 <= i < size for i in row):
                raise ApiError("bad_value", f"ids.{index}: expected ids of 0 to {size - 1}.", param=f"ids.{index}")
        check_count(len(rows), "ids", exchange.settings)
        return Reply.of(tokenizer.decode_batch(rows, skip_special_tokens=body.skip_special_tokens))

    async def predict(self, exchange: Exchange) -> Reply:
        """POST /predict: labels of texts or pairs, by a cross-encoder that has some."""
        body = await exchange.parsed(Predict)
        model = self._registry.find(body.model, ("score",), first=True).model
        labels = list(model.encoder.labels)
        if not labels:
            raise ApiError("wrong_model_kind", f"{model.name!r} has no labels: it reranks. Ask /rerank.", param="model")
        pairs, single = _pairs(body.inputs)
        check_count(len(pairs), "inputs", exchange.settings)
        ask = Ask(pairs, ("score",), "inputs", truncate=body.truncate, side=side_of(body.truncation_direction))
        answer = await answered(self._work, exchange, model, ask)
        exchange.facts.fingerprint = model.fingerprint(ask)
        logits = cast("Floats", answer.vectors.dense)  # (N, L)
        scores = logits if body.raw_scores else _probabilities(logits)
        made = [
            sorted(
                ({"score": float(score), "label": label} for score, label in zip(row, labels, strict=True)),
                key=lambda found: -cast("float", found["score"]),
            )
            for row in scores.tolist()
        ]
        return Reply.of(made[0] if single else made)

    async def root(self, exchange: Exchange) -> Reply:
        """POST /, where huggingface_hub's client asks: what the default model is for."""
        data = await exchange.body()
        peek = exchange.read(data, Root)
        if peek.query is not None:
            return await self._rerankers.rerank_body(exchange, data)
        if isinstance(peek.inputs, dict):
            return await self._similarity(exchange, exchange.read(data, Similarity))
        heads = self._any(None).model.heads
        if heads == ("score",):
            raise ApiError("wrong_model_kind", "This model scores pairs. Ask /rerank or /predict.", param="inputs")
        body = exchange.read(data, Embed)
        return await (self._embed(exchange, body) if "dense" in heads else self._embed_sparse(exchange, body))

    async def info(self, exchange: Exchange) -> Reply:
        """GET /info."""
        model, _ = self._any(None)
        settings, encoder = exchange.settings, model.encoder
        kind: dict[str, Any] = {"reranker": {}}
        if model.heads != ("score",):
            pooling = encoder.route().pooling
            kind = {"embedding": {"pooling": "+".join(pooling.modes) if pooling else ""}}
        return Reply.of(
            {
                "model_id": model.name,
                "model_sha": encoder.fingerprint,
                "model_dtype": encoder.precision,
                "model_type": kind,
                "max_concurrent_requests": settings.max_connections,
                "max_input_length": encoder.max_seq_length,
                "max_batch_tokens": model.queue.budget,
                "max_batch_requests": None,
                "max_client_batch_size": settings.max_texts,
                "auto_truncate": settings.on_overflow == "truncate",
                "tokenization_workers": self._work.tokenizers,
                "version": __version__,
            }
        )

    def _any(self, name: str | None) -> Named:
        return self._registry.find(name, (), first=True)


def _prompt(model: Model, ask: Ask) -> str:
    try:
        return model.prompt_of(ask)
    except ValueError as error:
        raise ApiError("bad_value", str(error), param="prompt_name") from None


def _tokens(found: Any, text: str) -> list[dict[str, Any]]:  # noqa: ANN401 - tokenizers has no types
    """The tokens of a text, as TEI tells them."""
    made = []
    for i, token, special, (start, stop) in zip(
        found.ids, found.tokens, found.special_tokens_mask, found.offsets, strict=True
    ):
        inside = not special
        made.append(
            {
                "id": i,
                "text": text[start:stop] if inside else token,
                "special": bool(special),
                "start": start if inside else None,
                "stop": stop if inside else None,
            }
        )
    return made


def _pairs(inputs: str | list[str | list[str]]) -> tuple[list[tuple[str, str]], bool]:
    """Pairs of a text, a pair, or a list of either in lists; whether it is one."""
    if isinstance(inputs, str):
        return [(inputs, "")], True
    if len(inputs) == 2 and all(isinstance(item, str) for item in inputs):
        return [cast("tuple[str, str]", tuple(inputs))], True
    for index, item in enumerate(inputs):
        if not isinstance(item, list) or not 1 <= len(item) <= 2:
            raise ApiError(
                "bad_value", f"inputs.{index}: expected a list of one text, or of two.", param=f"inputs.{index}"
            )
    return [(item[0], item[1] if len(item) == 2 else "") for item in inputs], False


def _probabilities(logits: Floats) -> Floats:
    """(N, L): the sigmoid of one label, the softmax of several."""
    if logits.shape[1] == 1:
        return sigmoid(logits)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)
