"""Models whose vectors lie side by side in the points of a collection."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Self, Unpack

from qdrant_client import models

from trivec._encoders.calls import Overflow
from trivec._encoders.protocol import Encoder
from trivec._encoders.ranking import RankingModel
from trivec._errors import InputError
from trivec._tokens.inputs import one_by_one
from trivec._vectors.heads import Head
from trivec.integrations._adapter import Model, ModelOptions
from trivec.integrations._text_model import as_list
from trivec.integrations.qdrant._points import PointId, check_count, described, made
from trivec.integrations.qdrant._rerank import Found, check_reranker, documents_of
from trivec.integrations.qdrant._rerank import chosen as chosen_points
from trivec.integrations.qdrant._search import Fusion, HybridOptions, Search, check_name, planned
from trivec.integrations.qdrant._vectors import (
    ENGINES,
    METADATA,
    Collection,
    Part,
    check_engines,
    check_fingerprints,
    check_vectors,
    chosen,
    values,
    vector_params,
)


class QdrantEncoder:
    """One or more models whose vectors lie side by side in the points of a collection.

    Dense models give a vector named "dense", sparse ones "sparse", models of late interaction "colbert", BGE-M3 and
    mGTE the first two; its ColBERT vectors, 4 KB a token, come where `names` asks for them. `first + second` has the
    vectors of both.

    Documents are encoded with the model's prompt for documents, queries with that for queries. Safe to use from many
    threads and coroutines; pickles.

        m3 = QdrantEncoder("bge-m3", names={"dense": "dense", "sparse": "sparse", "colbert": "colbert"})
        client.query_points("texts", **m3.hybrid("a question", rerank="colbert"), limit=3)
    """

    def __init__(
        self,
        model: Model,
        *,
        names: Mapping[Head, str] | None = None,
        device: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
        on_overflow: Overflow | None = None,
        load_options: Mapping[str, Any] | None = None,
        encode_options: Mapping[str, Any] | None = None,
        query_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Open the model.

        Args:
            model: a folder written by `trivec export`, a name on the Hub, or what `trivec.load` returns.
            names: which vectors of the model, and what they are called in Qdrant: {"dense": "text", "sparse": "terms",
                "colbert": "tokens"}. None: dense and sparse ones, or ColBERT's alone, by their own names.
            device: as of `trivec.load`, as are precision and threads; None: its default.
            precision: the variant.
            threads: CPU threads.
            on_overflow: "error" raises for a text that the model cuts; None counts it in `encoders[i].truncated`.
            load_options: further arguments of `trivec.load`, such as {"truncate_dim": 128}.
            encode_options: options of `encode_document`, and of `encode_query` as well.
            query_options: options of `encode_query` alone, which win over those.

        Raises:
            InputError: names of vectors that the model does not give, two of one name, a sparse model whose similarity
                is not the dot product, or an argument that is unknown or out of range.
            Whatever `trivec.load` raises.
        """
        options = ModelOptions(
            model, device, precision, threads, on_overflow, load_options, encode_options, query_options
        )
        encoder = options.encoder(lambda e: bool(e.heads), "this adapter needs vectors")
        named = chosen(encoder, names)
        self._set([Part(options.calls(encoder, tuple(named)), named)])

    def __add__(self, other: "QdrantEncoder") -> "QdrantEncoder":
        """The vectors of both, in one collection.

        Raises:
            InputError: a name that both have.
        """
        if not isinstance(other, QdrantEncoder):
            return NotImplemented
        return QdrantEncoder.__new__(QdrantEncoder)._set([*self._parts, *other._parts])

    def __repr__(self) -> str:
        parts = (f"{part.model.encoder!r} as {', '.join(part.names.values())}" for part in self._parts)
        return f"QdrantEncoder({'; '.join(parts)})"

    # ---- what it is ----------------------------------------------------------------------------------------------

    @property
    def encoders(self) -> list[Encoder]:
        """The encoders, as `trivec.load` returned them."""
        return [part.model.encoder for part in self._parts]

    @property
    def names(self) -> list[str]:
        """What the vectors are called in Qdrant."""
        return list(self._heads)

    @property
    def fingerprints(self) -> dict[str, str]:
        """By the vectors' names, the sha256 of everything that decides those of documents.

        A model that is open for queries alone (`task="query"`) has none.
        """
        return {name: part.model.fingerprint("document") for name, part in self._documents()}

    @property
    def engine_fingerprints(self) -> dict[str, str]:
        """By the vectors' names, what computes those of documents: `engine_fingerprint` of their encoders."""
        return {name: part.model.encoder.engine_fingerprint for name, part in self._documents()}

    def collection(self) -> Collection:
        """Arguments of `create_collection`: sizes, distances, and fingerprints as metadata, for `check`.

        Dense vectors are compared as the model says, ColBERT's by MaxSim: the sum over the query's vectors of the
        greatest dot product. An index of those would hold every token, so none is built: use them to rerank, or set
        `["vectors_config"]["colbert"].hnsw_config = None` for Qdrant's own default. `.datatype =
        models.Datatype.FLOAT16` halves what they take.
        """
        return {
            "vectors_config": self._vectors_config(),
            "sparse_vectors_config": {
                name: models.SparseVectorParams() for name, head in self._heads.items() if head == "sparse"
            },
            "metadata": {METADATA: self.fingerprints, ENGINES: self.engine_fingerprints},
        }

    def check(self, info: models.CollectionInfo, *, strict: bool = False) -> None:
        """Whether a collection is made for these vectors.

        The log warns where it was begun with another engine, and how far its vectors may be from those of this one.

        Args:
            info: what `client.get_collection(name)` returns.
            strict: raise where it was begun with another engine, or does not say with which.

        Raises:
            InputError: a vector that is not there, or is of another size, distance or kind; or vectors of another
                model, by the fingerprints of `collection()`, where they were stored; or of another engine.
        """
        if not isinstance(info, models.CollectionInfo):
            raise InputError(
                f"expected what a collection is, got {type(info).__name__}. Type: "
                "encoder.check(client.get_collection(name))"
            )
        check_vectors(info, self._vectors_config(), [n for n, head in self._heads.items() if head == "sparse"])
        metadata = getattr(info.config, "metadata", None) or {}
        check_fingerprints(metadata.get(METADATA) or {}, self.fingerprints)
        check_engines(metadata.get(ENGINES) or {}, self.engine_fingerprints, strict=strict)

    # ---- points --------------------------------------------------------------------------------------------------

    def points(
        self,
        texts: Sequence[str],
        *,
        ids: Sequence[PointId] | None = None,
        payloads: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[models.PointStruct]:
        """Points of documents, for `client.upsert`.

        Args:
            texts: N texts.
            ids: N whole numbers from 0, or UUIDs; None: random UUIDs, so that nothing is overwritten.
            payloads: N mappings; None: {"text": text}.

        Raises:
            InputError: no list of texts, other numbers of ids or payloads, or an id that Qdrant does not take. Nothing
                is encoded.
            TruncationError, NonFiniteError: as of the encoder.
        """
        listed = as_list(texts)
        numbers, contents = described(listed, ids, payloads)
        return made([(part, part.model.documents(listed)) for part in self._parts], numbers, contents)

    async def apoints(
        self,
        texts: Sequence[str],
        *,
        ids: Sequence[PointId] | None = None,
        payloads: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[models.PointStruct]:
        """`points`, while the event loop goes on."""
        return await self._parts[0].model.apart(lambda: self.points(texts, ids=ids, payloads=payloads))

    def iter_points(
        self,
        texts: Iterable[str],
        *,
        ids: Iterable[PointId] | None = None,
        payloads: Iterable[Mapping[str, Any]] | None = None,
        window: int = 256,
    ) -> Iterator[models.PointStruct]:
        """`points` of any number of texts, in bounded memory, for `client.upload_points`.

        Args:
            texts: texts from any source, which is read as points are taken.
            ids: at least as many, such as itertools.count(), or None.
            payloads: at least as many, or None.
            window: texts that are encoded at a time.
        """
        if isinstance(texts, str | bytes):
            as_list(texts)  # raises
        source = one_by_one(texts, "expected a text or an iterable of texts")
        check_count("window", window)
        return self._stream(
            iter(source),
            None if ids is None else iter(ids),
            None if payloads is None else iter(payloads),
            window,
        )

    def _stream(
        self,
        texts: Iterator[str],
        ids: Iterator[PointId] | None,
        payloads: Iterator[Mapping[str, Any]] | None,
        window: int,
    ) -> Iterator[models.PointStruct]:
        while listed := list(islice(texts, window)):
            some = None if ids is None else list(islice(ids, len(listed)))
            contents = None if payloads is None else list(islice(payloads, len(listed)))
            yield from self.points(listed, ids=some, payloads=contents)

    # ---- queries -------------------------------------------------------------------------------------------------

    def query(self, text: str, using: str | None = None) -> Search:
        """Arguments of `client.query_points` that search by one vector.

        Args:
            text: a query.
            using: the vector's name; None where there is only one.

        Raises:
            InputError: no text, or no such vector.
        """
        part, name = self._one(using)
        return {"query": values(part, part.model.query(text), [name])[name], "using": name}

    async def aquery(self, text: str, using: str | None = None) -> Search:
        """`query`, while the event loop goes on."""
        part, name = self._one(using)
        return {"query": values(part, await part.model.aquery(text), [name])[name], "using": name}

    def hybrid(
        self,
        text: str,
        *,
        using: Sequence[str] | None = None,
        rerank: str | None = None,
        fusion: Fusion = "rrf",
        prefetch_limit: int = 100,
        query_filter: models.Filter | None = None,
    ) -> Search:
        """Arguments of `client.query_points` that search by several vectors, and fuse or rerank what they find.

        Args:
            text: a query; each model encodes it once.
            using: names of the vectors that search; None: all but ColBERT's and `rerank`.
            rerank: the name of the vector by whose scores the found points are ordered; None: they are fused.
            fusion: "rrf", by ranks (reciprocal rank fusion), or "dbsf", by scores (distribution-based).
            prefetch_limit: points that each vector finds.
            query_filter: which points are searched.

        Raises:
            InputError: no text, an unknown name or fusion, or too few vectors.
        """
        plan = planned(self._heads, using, rerank, fusion, prefetch_limit, query_filter)
        found = [values(part, part.model.query(text), plan.names) for part in self._parts_of(plan.names)]
        return plan.search({name: value for some in found for name, value in some.items()})

    async def ahybrid(self, text: str, **options: Unpack[HybridOptions]) -> Search:
        """`hybrid` with the same options, while the event loop goes on."""
        plan = planned(self._heads, **options)
        found = [values(part, await part.model.aquery(text), plan.names) for part in self._parts_of(plan.names)]
        return plan.search({name: value for some in found for name, value in some.items()})

    # ---- a second stage ------------------------------------------------------------------------------------------

    @staticmethod
    def rerank(
        question: str, points: Found, reranker: RankingModel, *, limit: int | None = None, text_key: str = "text"
    ) -> list[models.ScoredPoint]:
        """Points that a search has found, scored again, best first; those that came stay as they are.

        Args:
            question: the query.
            points: what `client.query_points` gives, with payloads, or its points.
            reranker: what `trivec.load` or `trivec.hosted.open_reranker` returns.
            limit: how many of them to give; None: all.
            text_key: where a payload has the point's text.

        Raises:
            InputError: a point without text, something that is no reranker, or no query.
            Whatever the reranker's `rank` raises.
        """
        model = check_reranker(reranker, limit)
        listed, texts = documents_of(points, text_key)
        return chosen_points(listed, model.rank(question, texts, limit))

    @staticmethod
    async def arerank(
        question: str, points: Found, reranker: RankingModel, *, limit: int | None = None, text_key: str = "text"
    ) -> list[models.ScoredPoint]:
        """`rerank`, while the event loop goes on."""
        model = check_reranker(reranker, limit)
        listed, texts = documents_of(points, text_key)
        return chosen_points(listed, await model.arank(question, texts, limit))

    # ---- helpers -------------------------------------------------------------------------------------------------

    def _set(self, parts: Sequence[Part]) -> Self:
        self._parts = list(parts)
        self._heads: dict[str, Head] = {}
        for part in parts:
            for head, name in part.names.items():
                if name in self._heads:
                    raise InputError(f"two vectors are called {name!r}. Give one another name: names={{{head!r}: ...}}")
                self._heads[name] = head
        return self

    def _documents(self) -> list[tuple[str, Part]]:
        """Vectors of documents by name; a model that is open for queries alone has none."""
        parts = (part for part in self._parts if part.model.encoder.opened_for in (None, "document"))
        return [(name, part) for part in parts for name in part.names.values()]

    def _parts_of(self, names: Iterable[str]) -> list[Part]:
        return [part for part in self._parts if set(part.names.values()) & set(names)]

    def _one(self, using: str | None) -> tuple[Part, str]:
        """The model of a vector, and the vector's name."""
        if using is None and len(self._heads) > 1:
            raise InputError(
                f"name the vector: using=, one of {', '.join(map(repr, self._heads))}. Or type: hybrid(text)"
            )
        name = next(iter(self._heads)) if using is None else using
        check_name(self._heads, name)
        return self._parts_of([name])[0], name

    def _vectors_config(self) -> dict[str, models.VectorParams]:
        """Sizes and distances of dense vectors and of ColBERT's."""
        return {name: params for part in self._parts for name, params in vector_params(part).items()}
