"""Relevance of documents to a query, from a service."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np

from trivec._errors import InputError, NonFiniteError, ServiceError, TruncationError
from trivec._pooling.ranks import Ranked, check_top_k, ranked
from trivec._tokens.inputs import as_texts, check_encodable
from trivec._vectors.arrays import Array, Floats
from trivec.hosted._batches import Batch, Budget, Job, estimated_tokens
from trivec.hosted._failures import TooLongError
from trivec.hosted._flow import Flow, settled
from trivec.hosted._http import Service, Usage
from trivec.hosted._loop import LOOP
from trivec.hosted._options import Options
from trivec.hosted._provider import Rerank

_SCORE = 1_024  # bytes that a score, and what stands around it, takes in an answer at most


class HostedReranker:
    """Scores documents for a query. Made by `trivec.hosted.open_reranker`; safe to use from many threads."""

    def __init__(self, options: Options, service: Service, endpoint: Rerank) -> None:
        self._options, self._service, self._endpoint = options, service, endpoint
        self._budget = Budget(endpoint.documents, endpoint.tokens)
        self._closed = False

    @property
    def name(self) -> str:
        """provider:model."""
        return self._options.spec

    @property
    def usage(self) -> Usage:
        """Requests, documents (as texts), tokens by our estimate, retries and seconds waited, so far."""
        return self._service.usage

    @property
    def fingerprint(self) -> str:
        """sha256 of what is asked, and of whom: it marks the request, not the model behind it."""
        row, model = self._service.row, self._options.model
        whom = {"provider": row.name, "address": self._service.url, "model": model}
        named = {**whom, "body": self._endpoint.body(model, "", [""]), "version": row.version}
        return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()

    @property
    def engine_fingerprint(self) -> str:
        """The service, which does not tell what computes there: where it is equal, scores need not be."""
        return f"hosted at {urlsplit(self._service.url).hostname or self._service.url}"

    @property
    def truncated(self) -> None:
        """None: services do not say how many documents they cut."""

    def estimate(self, queries: Sequence[str], documents: Sequence[str], depth: int) -> Usage:
        """What ranking `depth` of the documents for each query would ask for, about; nothing is sent.

        Tokens are estimated by bytes, with documents of mean length, and a query is counted with each document.
        """
        each = min(depth, len(documents))
        mean = sum(map(estimated_tokens, documents)) / max(1, len(documents))
        tokens = sum(each * (estimated_tokens(query) + mean) for query in queries)
        requests = len(queries) * -(-each // self._budget.inputs)
        return Usage(requests, len(queries) * each, round(tokens))

    def scores(self, query: str, documents: Sequence[str]) -> Floats:
        """Relevance of each of N documents, in their order: (N,) float32.

        Raises:
            InputError: the query or a document is no text, or blank, or the reranker is closed. Nothing is sent.
            ServiceError: the service refuses, goes on failing, or answers with something else than scores.
            TruncationError: a document is too long for it.
        """
        flow = self._flow(query, documents)
        try:
            while (future := flow.oldest()) is not None:
                future.exception()  # waits
                flow.take()
        except BaseException:
            flow.last_seconds(flow.stop())
            list(flow.rest())
            raise
        return _scores(flow)

    async def ascores(self, query: str, documents: Sequence[str]) -> Floats:
        """`scores` for coroutines."""
        flow = self._flow(query, documents)
        try:
            while (future := flow.oldest()) is not None:
                await settled([future])
                flow.take()
        except BaseException:
            flow.stop()
            list(flow.rest())
            raise
        return _scores(flow)

    def rank(
        self, query: str, documents: Sequence[str], top_k: int | None = None, return_documents: bool = False
    ) -> list[Ranked]:
        """The documents by their relevance, best first, as `Reranker.rank` of a local model gives them.

        Args:
            query: one text.
            documents: N texts.
            top_k: how many of them to give; None: all.
            return_documents: whether each comes with its text.

        Returns:
            For each document its index `corpus_id`, its `score` as the service gives it and, where asked for, its
            `text`; equal ones in their order.

        Raises:
            As `scores`.
        """
        check_top_k(top_k)
        return ranked(self.scores(query, documents), as_texts(documents, None)[0], top_k, return_documents)

    async def arank(
        self, query: str, documents: Sequence[str], top_k: int | None = None, return_documents: bool = False
    ) -> list[Ranked]:
        """`rank` for coroutines."""
        check_top_k(top_k)
        scores = await self.ascores(query, documents)
        return ranked(scores, as_texts(documents, None)[0], top_k, return_documents)

    def close(self) -> None:
        """Close the connections. Scoring afterwards raises."""
        self._closed = True
        self._service.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return reranker_of, (self._options.portable(),)

    def __repr__(self) -> str:
        return f"HostedReranker({self.name!r}{', closed' if self._closed else ''})"

    # ---- helpers -------------------------------------------------------------------------------------------------

    def _flow(self, query: str, documents: Sequence[str]) -> Flow:
        if self._closed:
            raise InputError(f"this reranker is closed. Open it again: trivec.hosted.open_reranker({self.name!r})")
        if not isinstance(query, str) or not query.strip():
            raise InputError(f"expected a query that is a text and not blank, got {query!r:.60}.")
        texts, single = as_texts(documents, None)
        if single:
            raise InputError("expected a list of documents, got one text. Type: [document]")
        check_encodable(query, "the query")
        for index, text in enumerate(texts):
            check_encodable(text, f"the document at index {index}")
            if not text.strip():
                raise InputError(f"the document at index {index} is blank. Drop such documents. Nothing was sent.")
        more = estimated_tokens(query)

        def cut(job: Job) -> Iterator[list[int]]:
            return self._budget.parts(job.texts, job.missing, beside=more)

        def start(batch: Batch, flow: Flow) -> "Future[Array]":
            return LOOP.submit(self._fetched(query, batch, flow))

        return Flow(iter([Job(texts, 0, together=False)]), cut, start, self._service.concurrency + 1)

    async def _fetched(self, query: str, batch: Batch, flow: Flow) -> Array:
        """Scores (B, 1) of some documents; where they are too many, of one half and then the other."""
        texts = batch.texts
        body = self._endpoint.body(self._options.model, query, texts)
        try:
            most = len(texts) * _SCORE
            found = await self._service.post(self._endpoint.path, body, most, lambda: flow.wants(batch))
        except TooLongError as error:
            refused = error
        else:
            return self._checked(found, query, texts)
        if len(texts) == 1:
            raise TruncationError(
                f"the document at index {batch.job.place(batch.rows[0])} is too long. {refused.error}"
            )
        middle = len(texts) // 2
        halves = [batch._replace(rows=batch.rows[:middle]), batch._replace(rows=batch.rows[middle:])]
        scores = [await self._fetched(query, half, flow) for half in halves]
        self._budget.within(halves[1].texts, by_count=refused.by_count)
        return np.concatenate(scores)

    def _checked(self, found: Any, query: str, texts: Sequence[str]) -> Array:  # noqa: ANN401 - JSON
        name, count = self._service.row.name, len(texts)
        try:
            pairs = self._endpoint.answer(found)
            scores = np.array([score for _, score in sorted(pairs)], dtype=np.float32)[:, None]  # (B, 1)
            whole = [index for index, _ in sorted(pairs)] == list(range(count))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            whole = False
        if not whole:
            raise ServiceError(
                f"{name} answered with something else than one score for each of {count} documents: "
                f"{self._service.key.hidden_in(str(found))[:200]}",
                provider=name,
                status=200,
            )
        if not np.isfinite(scores).all():
            raise NonFiniteError(f"{name} gave a score that is NaN or infinite for {query[:60]!r}.")
        self._service.count(
            texts=count, tokens=round(count * estimated_tokens(query) + sum(map(estimated_tokens, texts)))
        )
        return scores


def _scores(flow: Flow) -> Floats:
    flow.finish()
    (job,) = flow.ready()
    found: Floats = job.vectors(1, np.dtype(np.float32))[:, 0]
    return found


def reranker_of(options: Options, api_key: Any = ...) -> HostedReranker:  # noqa: ANN401 - as of `open`
    """A reranker; raises InputError where the service has none."""
    endpoint = options.row.rerank
    if endpoint is None:
        raise InputError(f"{options.provider} has no reranker; voyage, cohere, jina and tei have.")
    found, service = options.connected(options.api_key if api_key is ... else api_key)
    return HostedReranker(found, service, endpoint)
