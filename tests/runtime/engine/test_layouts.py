"""Texts of different lengths in one run: plans, feeds and outputs, beside a graph that is computed in numpy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import trivec
from trivec import InputError, ModelFormatError, ProviderError
from trivec._encoders.pipeline import Pipeline
from trivec._engine.devices import Device
from trivec._engine.graph_session import GraphSession
from trivec._engine.memory import Budget
from trivec._engine.mixed_feeds import POOLED, feeds_of, run_mixed
from trivec._model.manifest import POOLING_MODES, EncoderSpec, FileRef, Multi, Pooling, Sparse
from trivec._pooling.dense import pool, pool_weights
from trivec._pooling.heads import Selection, Wanted
from trivec._tokens.batch import Batch, Tokens
from trivec._tokens.plan import padded_length, plan_mixed

LENGTHS = (5, 1, 33, 2, 17, 9, 1, 31, 64, 65)
LINEAR = tuple(mode for mode in POOLING_MODES if mode != "max")
HIDDEN, TERMS = 6, 40
INPUTS = {
    "packed": (
        "input_ids",
        "position_ids",
        "token_offset",
        "cumulative_sequence_length",
        "token_row",
        "pool_weight",
    ),
    "padded": ("input_ids", "lengths", "pool_weight"),
}
LAYOUTS = tuple(INPUTS)


def batch_of(lengths: Sequence[int], seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    return Batch(rng.integers(1, TERMS, sum(lengths)), np.cumsum([0, *lengths]))


# ---- a graph in numpy ------------------------------------------------------------------------------------------------


def states_of(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """(S, H) of one text: of each token what it is, where it stands, and what else there is in the text."""
    place = np.arange(len(ids))[:, None] + 1.0
    own = np.sin(ids[:, None] * np.arange(1, HIDDEN + 1)) / place
    return np.asarray(own + own.mean(0) * 0.5, dtype=np.float32)


def logits_of(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """(V,) of one text."""
    return np.asarray(np.cos(np.outer(ids, np.arange(TERMS))).max(0), dtype=np.float32)


@dataclass
class NumpyGraph:
    """What a graph for CUDA computes, text by text, from its inputs alone. Stands for a Session."""

    layout: str
    most: int = 1 << 30
    name: str = "onnxruntime"
    run_error = GraphSession.run_error
    budget: Budget = field(default_factory=Budget)
    device: Device = field(default_factory=lambda: Device("cuda"))
    lanes: int = 1
    ahead: int = 1
    runs: list[int] = field(default_factory=list)
    outputs: Mapping[str, int | None] = field(
        default_factory=lambda: {"token_embeddings": HIDDEN, "logits": TERMS, "weights": None, POOLED: HIDDEN}
    )

    @property
    def inputs(self) -> tuple[str, ...]:
        return INPUTS[self.layout]

    def run_feeds(self, feeds: Mapping[str, npt.NDArray[Any]], outputs: Sequence[str]) -> list[npt.NDArray[np.float32]]:
        assert tuple(feeds) == self.inputs
        if feeds["input_ids"].size > self.most:
            raise RuntimeError("Failed to allocate memory for requested buffer of size 1")
        self.runs.append(feeds["input_ids"].size)
        texts = self._packed(feeds) if self.layout == "packed" else self._padded(feeds)
        shape = feeds["input_ids"].shape
        made: dict[str, npt.NDArray[np.float32]] = {
            "token_embeddings": np.full((*shape, HIDDEN), np.nan, np.float32),
            "weights": np.full(shape, np.nan, np.float32),
            "logits": np.stack([logits_of(ids) for ids, _ in texts]),
        }
        weights, pooled = feeds["pool_weight"], []
        for ids, place in texts:
            made["token_embeddings"][place] = states_of(ids)
            made["weights"][place] = np.sin(ids)
            pooled.append(weights[(slice(None), *place[self.layout == "packed" :])] @ states_of(ids))  # (K, H)
        made[POOLED] = np.stack(pooled, axis=1)  # (K, B, H)
        return [made[name] for name in outputs]

    def _packed(self, feeds: Mapping[str, npt.NDArray[Any]]) -> list[tuple[npt.NDArray[np.int64], Any]]:
        sums, offsets = feeds["cumulative_sequence_length"], feeds["token_offset"]
        assert sums.dtype == offsets.dtype == np.int32
        texts = []
        for text, (start, stop) in enumerate(pairwise(sums)):
            assert feeds["position_ids"][0, start:stop].tolist() == list(range(stop - start))
            assert (feeds["token_row"][start:stop] == text).all()
            # in the padded layout, real tokens stand at the row of their text
            places = offsets.ravel()[start:stop]
            assert places.tolist() == list(range(text * offsets.shape[1], text * offsets.shape[1] + stop - start))
            texts.append((feeds["input_ids"][0, start:stop], (0, slice(start, stop))))
        assert sorted(offsets.ravel()) == list(range(offsets.size))
        return texts

    def _padded(self, feeds: Mapping[str, npt.NDArray[Any]]) -> list[tuple[npt.NDArray[np.int64], Any]]:
        assert feeds["lengths"].dtype == np.int32
        assert (feeds["input_ids"] >= 0).all()
        return [
            (feeds["input_ids"][text, :length], (text, slice(length))) for text, length in enumerate(feeds["lengths"])
        ]


def pipeline(layout: str, pooling: Pooling | None = Pooling(), **more: Any) -> tuple[Pipeline, NumpyGraph]:  # noqa: B008
    graph = NumpyGraph(layout)
    encoder = EncoderSpec(FileRef("tokenizer.json"), 128, 128, {})
    session: Any = graph
    tokenizer: Any = None
    return Pipeline(encoder, tokenizer, session, "token_embeddings", pooling, (), {}, **more), graph


# ---- plans -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("budget", [1, 40, 100, 10_000])
@pytest.mark.parametrize("most", [None, 1, 3])
def test_plans_hold_each_text_once_within_the_budget(layout: str, budget: int, most: int | None) -> None:
    lengths = np.random.default_rng(0).integers(0, 70, 200)
    batches = plan_mixed(lengths, budget, most, layout, 66)
    assert sorted(np.concatenate(batches)) == list(range(200))
    filled = [rows for rows in batches if lengths[rows].all()]
    assert [rows for rows in batches if not lengths[rows].any()] == batches[len(filled) :]
    assert np.concatenate([lengths[rows] for rows in filled]).tolist() == sorted(lengths[lengths > 0], reverse=True)
    for rows in filled:
        size = lengths[rows].sum() if layout == "packed" else len(rows) * padded_length(int(lengths[rows[0]]), 66)
        assert size <= budget or len(rows) == 1
        assert most is None or len(rows) <= most


def test_plans_fill_their_batches() -> None:
    lengths = [7] * 100
    assert [len(rows) for rows in plan_mixed(lengths, 70, None, "packed", None)] == [10] * 10
    assert [len(rows) for rows in plan_mixed(lengths, 80, None, "padded", None)] == [10] * 10  # rows of 8
    assert plan_mixed([], 70, None, "packed", None) == []


def test_padded_lengths_are_few_and_within_the_models_positions() -> None:
    found = [padded_length(tokens, None) for tokens in range(1, 1025)]
    assert all(size >= tokens for tokens, size in enumerate(found, 1))
    assert len(set(found)) == 8 + 6 + 12
    assert max(size / tokens for tokens, size in enumerate(found, 1) if tokens > 64) < 1.5
    assert padded_length(500, 512) == 512
    assert padded_length(510, 511) == 511
    assert padded_length(513, 514) == 514


# ---- pooling by weights ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "modes", [*((mode,) for mode in LINEAR), ("mean", "cls"), ("lasttoken", "weightedmean", "cls")]
)
@pytest.mark.parametrize("prompt_length", [0, 1, 4, 200])
def test_weights_pool_as_the_modes_do(modes: tuple[str, ...], prompt_length: int) -> None:
    batch, pooling = batch_of(LENGTHS), Pooling(modes, include_prompt=False)
    weights = pool_weights(pooling, batch.lengths, prompt_length)
    assert weights is not None
    assert weights.shape == (len(modes), sum(LENGTHS))
    assert weights.dtype == np.float32
    states = np.random.default_rng(1).standard_normal((sum(LENGTHS), 5), dtype=np.float32)
    for start, stop in pairwise(batch.offsets):
        expected = pool(states[None, start:stop], pooling, prompt_length)[0]
        np.testing.assert_allclose((weights[:, start:stop] @ states[start:stop]).ravel(), expected, atol=2e-6)


def test_a_prompt_counts_where_the_model_says_so_and_a_maximum_is_no_sum() -> None:
    lengths = np.array(LENGTHS)
    counted = pool_weights(Pooling(("mean",)), lengths, 4)
    plain = pool_weights(Pooling(("mean",)), lengths, 0)
    assert counted is not None
    assert plain is not None
    np.testing.assert_array_equal(counted, plain)
    assert pool_weights(Pooling(("mean", "max")), lengths, 0) is None


def dense_of(opened: Pipeline, batch: Batch, prompt_length: int = 0) -> Any:
    return opened.represent(batch, Wanted(dense=True), prompt_length)[0].dense


# ---- runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("modes", [("mean",), ("cls", "weightedmean"), ("max",), ("max", "mean")])
def test_vectors_are_those_of_each_text_alone(layout: str, modes: tuple[str, ...]) -> None:
    pooling = Pooling(modes, include_prompt=False)
    opened, graph = pipeline(layout, pooling)
    batch = batch_of(LENGTHS)
    found = dense_of(opened, batch, 1)
    assert found.dtype == np.float32
    for text, (start, stop) in enumerate(pairwise(batch.offsets)):
        expected = pool(states_of(batch.ids[start:stop])[None], pooling, 1)[0]
        np.testing.assert_allclose(found[text], expected, atol=1e-6)
    assert len(graph.runs) == 1
    assert dense_of(opened, Batch.of_rows(np.zeros((3, 0), np.int64))).shape == (3, HIDDEN * len(modes))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_token_embeddings_of_each_text(layout: str) -> None:
    opened, _ = pipeline(layout)
    batch = batch_of(LENGTHS)
    several = opened.represent(batch, Wanted(states=True))[0].colbert
    assert isinstance(several, trivec.MultiVectors)
    for text, found in enumerate(several):
        ids = batch.ids[batch.offsets[text] : batch.offsets[text + 1]]
        np.testing.assert_array_equal(found, states_of(ids))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_heads_of_one_run(layout: str) -> None:
    lexical = Sparse("lexical", TERMS, output="weights", dropped_ids=(3,))
    opened, graph = pipeline(layout, sparse=lexical, multi=Multi("token_embeddings", HIDDEN, skip=1))
    batch = batch_of(LENGTHS)
    found, finite = opened.represent(batch, Wanted(dense=True, sparse=Selection(), multi=True))
    assert finite.all()
    assert len(graph.runs) == 1
    assert isinstance(found.sparse, trivec.SparseVectors)
    assert isinstance(found.colbert, trivec.MultiVectors)
    assert found.dense is not None
    for text, (start, stop) in enumerate(pairwise(batch.offsets)):
        ids = batch.ids[start:stop]
        terms: dict[int, float] = {}
        for token in ids.tolist():
            weight = float(np.float32(np.sin(token)))
            if token != 3 and weight > 0:
                terms[token] = weight
        assert found.sparse[text].to_dict() == pytest.approx(dict(sorted(terms.items())))
        tokens = states_of(ids)[1:]
        tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
        np.testing.assert_allclose(found.colbert[text], tokens, atol=1e-6)
        np.testing.assert_allclose(found.dense[text], states_of(ids).mean(0), atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pooled_logits(layout: str) -> None:
    opened, _ = pipeline(layout, sparse=Sparse("splade", TERMS, output="logits", activation="relu"))
    batch = batch_of(LENGTHS)
    found = opened.represent(batch, Wanted(sparse=Selection()))[0].sparse
    assert isinstance(found, trivec.SparseVectors)
    for text, (start, stop) in enumerate(pairwise(batch.offsets)):
        expected = np.log1p(np.maximum(logits_of(batch.ids[start:stop]), 0))
        np.testing.assert_allclose(found[text].to_dense(), expected, atol=1e-6)


def test_what_is_not_finite_is_named_by_its_text() -> None:
    class Broken(NumpyGraph):
        def run_feeds(self, feeds: Any, outputs: Any) -> Any:
            made = super().run_feeds(feeds, outputs)
            made[outputs.index("weights")][0, 7] = np.nan  # of the third text
            return made

    opened, _ = pipeline("packed", sparse=Sparse("lexical", TERMS, output="weights"))
    object.__setattr__(opened, "session", Broken("packed"))
    _, finite = opened.represent(batch_of(LENGTHS), Wanted(dense=True, sparse=Selection()))
    assert np.flatnonzero(~finite).tolist() == [2]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_that_runs_out_makes_smaller_runs_and_the_same_vectors(
    layout: str, caplog: pytest.LogCaptureFixture
) -> None:
    opened, graph = pipeline(layout)
    batch = batch_of([200] * 8)
    expected = dense_of(opened, batch)
    graph.most = max(graph.runs) - 1
    graph.runs.clear()
    np.testing.assert_array_equal(dense_of(opened, batch), expected)
    assert len(graph.runs) == 2
    assert "Memory ran out" in caplog.text
    graph.most = 250
    with pytest.raises(ProviderError, match=r"Memory ran out, and these are as few texts as are tried.*batch_size"):
        dense_of(opened, batch)


def test_each_plans_for_the_graph_that_is_open() -> None:
    opened, graph = pipeline("packed")
    batch = batch_of(LENGTHS)

    tokens = Tokens(batch.ids, batch.offsets, np.zeros(len(LENGTHS), dtype=np.bool_))
    found = np.zeros((len(LENGTHS), HIDDEN), np.float32)
    for rows, (vectors, _) in opened.each(tokens, Wanted(dense=True), 0, 8):
        found[rows] = vectors.dense
    np.testing.assert_allclose(found, dense_of(opened, batch), atol=1e-6)
    assert max(graph.runs[:-1]) <= 16 * 8  # a GPU is given more at a time
    assert graph.runs[-1] == sum(LENGTHS)
    assert sum(graph.runs[:-1]) == sum(LENGTHS)


def test_an_input_of_a_later_trivec_is_refused() -> None:
    with pytest.raises(ModelFormatError, match=r"has the inputs \['token_types'\].*pip install -U trivec"):
        feeds_of("packed", batch_of([3]), None, ("input_ids", "token_types"), None)
    with pytest.raises(InputError, match="layout 'packed' is none of auto, rows, mixed"):
        trivec.load("anywhere", layout="packed")  # type: ignore[call-overload]


def test_parts_of_a_batch_run_as_the_whole() -> None:
    graph: Any = NumpyGraph("padded")
    batch = batch_of(LENGTHS)
    wanted = {"token_embeddings": True, "logits": False}
    whole = run_mixed(graph, batch, wanted, None, None)
    assert whole["token_embeddings"].shape == (sum(LENGTHS), HIDDEN)
    parts = [run_mixed(graph, batch.part(slice(a, b)), wanted, None, None) for a, b in ((0, 3), (3, 4), (4, 10))]
    for name in wanted:
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), whole[name])
