"""A reranker for LlamaIndex' query engines."""

from collections.abc import Mapping
from typing import Any

from llama_index.core.bridge.pydantic import BaseModel, Field, PrivateAttr
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from trivec._errors import InputError
from trivec._pooling.ranks import Ranked
from trivec.integrations._rank_model import OfReranker, RankModel, Reranking, arguments_of, open_rank_model
from trivec.integrations._saved_model import name_of


class TrivecRerank(OfReranker, BaseNodePostprocessor):
    """The most relevant nodes for a query, best first; was: SentenceTransformerRerank.

        rerank = TrivecRerank("reranker", top_n=3)
        index.as_query_engine(similarity_top_k=20, node_postprocessors=[rerank])

    A node is read as LlamaIndex embeds it, with its metadata (MetadataMode.EMBED). The nodes that it is given stay as
    they are. Safe to use from many threads and coroutines; pickles.

    Attributes:
        reranker: what `trivec.load` or `trivec.hosted.open_reranker` returned.
        fingerprint: sha256 of what decides the scores, and of nothing else.
        truncated: pairs that were longer than the model reads.
    """

    model: str = Field(description="What opens the reranker again.")
    top_n: int = Field(description="Number of nodes to return, best first.", ge=1)
    keep_retrieval_score: bool = Field(default=False, description="Keep the earlier score as retrieval_score.")
    load_options: dict[str, Any] = Field(default_factory=dict, description="Of trivec.load, beside the name.")
    rank_options: dict[str, Any] = Field(default_factory=dict, description="Of the reranker's rank.")
    _model: RankModel = PrivateAttr()

    def __init__(
        self,
        model: Reranking,
        *,
        top_n: int = 2,
        keep_retrieval_score: bool = False,
        device: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
        load_options: Mapping[str, Any] | None = None,
        rank_options: Mapping[str, Any] | None = None,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        """Open the model.

        Args:
            model: a folder written by `trivec export`, a name on the Hub, "provider:model" of a hosted one, or what
                `trivec.load` returns.
            top_n: how many nodes are given.
            keep_retrieval_score: put the score that a node came with into its metadata, as "retrieval_score".
            device: as of `trivec.load`, as are precision and threads; None: its default.
            precision: the variant.
            threads: CPU threads.
            load_options: further arguments of `trivec.load`, or of `trivec.hosted.open_reranker`.
            rank_options: of the reranker's `rank`, such as {"activation_fn": "identity"}.
            callback_manager: as of BaseNodePostprocessor.

        Raises:
            InputError: no reranker, one of several labels, or an argument that is unknown.
            Whatever `trivec.load` raises.
        """
        opened = open_rank_model(
            model, device=device, precision=precision, threads=threads, load=load_options, options=rank_options
        )
        fields: dict[str, Any] = {
            "model": name_of(model, opened.reranker),
            "top_n": top_n,
            "keep_retrieval_score": keep_retrieval_score,
            "load_options": arguments_of(opened.reranker),
            "rank_options": dict(rank_options or {}),
            "callback_manager": callback_manager or CallbackManager([]),
        }
        super().__init__(**fields)
        self._model = opened

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex stores it."""
        return "TrivecRerank"

    def __getstate__(self) -> dict[str, Any]:
        """As pydantic, without what belongs to this process; LlamaIndex' own would take it from this object too."""
        state = BaseModel.__getstate__(self)
        return {**state, "__dict__": {k: v for k, v in state["__dict__"].items() if k != "callback_manager"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As pydantic; LlamaIndex' own would open the model again, without its runtime settings."""
        state["__dict__"] = {"callback_manager": CallbackManager([]), **state["__dict__"]}
        BaseModel.__setstate__(self, state)

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _query(query_bundle)
        with self.callback_manager.event(CBEventType.RERANKING, payload=self._payload(nodes, query)) as event:
            chosen = self._chosen(nodes, self._model.rank(query, _texts(nodes), self.top_n))
            event.on_end(payload={EventPayload.NODES: chosen})
        return chosen

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = _query(query_bundle)
        with self.callback_manager.event(CBEventType.RERANKING, payload=self._payload(nodes, query)) as event:
            chosen = self._chosen(nodes, await self._model.arank(query, _texts(nodes), self.top_n))
            event.on_end(payload={EventPayload.NODES: chosen})
        return chosen

    def _payload(self, nodes: list[NodeWithScore], query: str) -> dict[str, Any]:
        return {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model,
            EventPayload.QUERY_STR: query,
            EventPayload.TOP_K: self.top_n,
        }

    def _chosen(self, nodes: list[NodeWithScore], ranked: list[Ranked]) -> list[NodeWithScore]:
        chosen = []
        for place in ranked:
            given = nodes[place["corpus_id"]]
            node = given.node
            if self.keep_retrieval_score:
                node = node.model_copy(update={"metadata": {**node.metadata, "retrieval_score": given.score}})
            chosen.append(NodeWithScore(node=node, score=place["score"]))
        return chosen


def _query(bundle: QueryBundle | None) -> str:
    if bundle is None:
        raise InputError("there is no query to rank the nodes for. Type: postprocess_nodes(nodes, query_str=...)")
    return bundle.query_str


def _texts(nodes: list[NodeWithScore]) -> list[str]:
    return [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
