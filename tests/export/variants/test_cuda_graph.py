"""Graphs for CUDA on the CPU: packed through their twin, padded as they are, against torch one text at a time."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from sentence_transformers.sentence_transformer.modules import Pooling
from tests.support.architectures import ARCHITECTURES, POSITIONS, VOCAB, draw, make
from tests.support.small_graph import HEADS, HIDDEN, Builder, encoder
from tests.support.small_graph import VOCAB as WORDS
from tests.support.sparse_models import masked_lm, small_tokenizer
from torch import nn
from transformers import BertForMaskedLM

from trivec._gate.checks import Check
from trivec._gate.figures import Figures
from trivec._model import manifest_file
from trivec._model.integrity import describe
from trivec._model.manifest import EncoderSpec, Manifest, Route, Variant
from trivec_export._draft import Draft
from trivec_export._folder import manifest as manifest_module
from trivec_export._folder import report
from trivec_export._graph.save import save_graph
from trivec_export._reference.heads import Head, Hybrid, PooledLogits, TokenEmbeddings
from trivec_export._reference.taken import Tokenized
from trivec_export._reference.torch_model import load
from trivec_export._trace.trace import trace
from trivec_export._variants import write
from trivec_export._variants.cuda import graph as graph_module
from trivec_export._variants.cuda.check import difference, inputs, of_texts
from trivec_export._variants.cuda.cpu_twin import unpacked_twin
from trivec_export._variants.cuda.graph import CudaGraph, NoCudaGraph, cuda_graph
from trivec_export._variants.half import convert_half
from trivec_export._variants.write import Written

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
Feed = dict[str, NDArray[Any]]

LENGTHS = (5, 1, 33, 2, 17, 9, 1, 31)
PACKED = ("bert", "xlm_roberta", "nomic_bert")
PADDED = {"modernbert": "a bias or mask", "deberta_v2": "pair of tokens", "qwen3": "causal"}
LINEAR = ("mean", "cls", "lasttoken", "weightedmean", "mean_sqrt_len_tokens")


@dataclass(frozen=True)
class Made:
    """A model, its rows graph and its graph for CUDA, in float32."""

    head: Head
    rows: onnx.ModelProto
    cuda: CudaGraph
    run: Callable[[Feed], dict[str, Floats]]
    limit: int | None

    def torch(self, ids: Ids) -> list[Floats]:
        """What torch says of one text (S,): each output without its first axis."""
        with torch.no_grad():
            out = self.head(torch.from_numpy(ids)[None])
        return [x[0].numpy() for x in (out if isinstance(out, tuple) else (out,))]


def runner(model: onnx.ModelProto) -> Callable[[Feed], dict[str, Floats]]:
    """A graph for CUDA on the CPU; inputs that it does not have are left out."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    twin = unpacked_twin(model).SerializeToString()
    session = ort.InferenceSession(twin, options, providers=["CPUExecutionProvider"])
    given = {value.name for value in session.get_inputs()}
    names = [value.name for value in session.get_outputs()]
    return lambda feed: dict(zip(names, session.run(None, {k: feed[k] for k in feed if k in given}), strict=True))


def finish(head: Head, limit: int | None) -> Made:
    rows = trace(head, max_length=limit).graph
    cuda = cuda_graph(rows)
    assert isinstance(cuda, CudaGraph), cuda
    return Made(head, rows, cuda, runner(cuda.model), limit)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Made]]:
    """name -> what was made of the architecture, on first use; of xlm_roberta with BGE-M3's heads."""
    cache: dict[str, Made] = {}

    def get(name: str) -> Made:
        if name not in cache:
            model = load(make(name, tmp_path_factory.mktemp(name))).model
            head: Head = TokenEmbeddings(model)
            if name == "xlm_roberta":
                hidden = int(model.config.hidden_size)
                sparse, colbert = nn.Linear(hidden, 1), nn.Linear(hidden, 24)
                draw(sparse, 1.0)
                draw(colbert, 1.0)
                head = Hybrid(model, sparse, colbert)
            cache[name] = finish(head.eval(), ARCHITECTURES[name].max_length)
        return cache[name]

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield get
    torch.set_num_threads(threads)


def texts(lengths: tuple[int, ...] = LENGTHS, seed: int = 0) -> list[Ids]:
    """Rows of any ids: special ones and padding among them."""
    rng = np.random.default_rng(seed)
    found = [rng.integers(0, VOCAB, n) for n in lengths]
    for row in found:
        row[3:5] = 1  # <pad> within a text, as XLM-R's tokenizer makes of the word
    return found


def flat(rows: list[Ids]) -> list[Floats]:
    """Weights (1, S) of a plain sum of each text."""
    return [np.ones((1, len(row)), np.float32) for row in rows]


def states(case: Made, feed: Feed, rows: list[Ids], name: str = "token_embeddings") -> list[Floats]:
    return of_texts(case.run(feed)[name], case.cuda.layout, [len(row) for row in rows])


# ---------------------------------------------------------------------------------------------------------- parity
@pytest.mark.parametrize("name", [*PACKED, *PADDED])
def test_a_batch_of_any_lengths_equals_torch_text_by_text(made: Callable[[str], Made], name: str) -> None:
    case, rows = made(name), texts()
    assert case.cuda.layout == ("packed" if name in PACKED else "padded")
    assert PADDED.get(name, "") in case.cuda.why
    assert (case.cuda.why == "") == (name in PACKED)
    found = case.run(inputs(case.cuda.layout, rows, flat(rows)))
    wanted = [case.torch(row) for row in rows]
    assert list(found) == [*case.head.outputs, "pooled"]
    for i, output in enumerate(case.head.outputs):
        came = of_texts(found[output], case.cuda.layout, [len(row) for row in rows])
        for a, b in zip(came, wanted, strict=True):
            assert a.dtype == np.float32 and a.shape == b[i].shape
            assert_allclose(a, b[i], rtol=0, atol=ARCHITECTURES[name].atol, err_msg=output)
    sums = np.stack([values[0].sum(0) for values in wanted])  # (B, H)
    assert_allclose(found["pooled"][0], sums, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", [*PACKED, "qwen3"])
def test_more_tokens_in_a_batch_than_the_model_has_positions(made: Callable[[str], Made], name: str) -> None:
    """The last position of a text, in a row three times as long as any table."""
    case = made(name)
    rows = texts((1, POSITIONS, 100, POSITIONS))
    came = states(case, inputs(case.cuda.layout, rows, flat(rows)), rows)
    for a, row in zip(came, rows, strict=True):
        assert_allclose(a, case.torch(row)[0], rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", [*PACKED, "modernbert"])
def test_neighbours_do_not_change_a_text(made: Callable[[str], Made], name: str) -> None:
    case, rows = made(name), texts()
    together = states(case, inputs(case.cuda.layout, rows, flat(rows)), rows)
    others = [*texts(seed=1)[:4], *rows[4:]]  # as long
    beside = states(case, inputs(case.cuda.layout, others, flat(others)), others)
    for i in range(4, len(rows)):
        alone = states(case, inputs(case.cuda.layout, rows[i : i + 1], flat(rows[i : i + 1])), rows[i : i + 1])
        assert_allclose(alone[0], together[i], rtol=0, atol=1e-5)
        assert_allclose(beside[i], together[i], rtol=0, atol=1e-6)


# --------------------------------------------------------------------------------------------------------- pooling
def pool_weights(mode: str, count: int, skip: int) -> Floats:
    """What a mode gives each token, as docs of sentence-transformers' Pooling have it; `skip` tokens are a prompt."""
    kept = np.arange(count) >= skip
    weights = {
        "mean": kept / kept.sum(),
        "cls": np.arange(count) == skip,
        "lasttoken": np.arange(count) == count - 1,
        "weightedmean": kept * np.arange(1, count + 1) / (kept * np.arange(1, count + 1)).sum(),
        "mean_sqrt_len_tokens": kept / np.sqrt(kept.sum()),
    }
    found: Floats = weights[mode].astype(np.float32)
    return found


@pytest.mark.parametrize("name", ["bert", "modernbert"])
@pytest.mark.parametrize("skip", [0, 3])
def test_pooled_equals_sentence_transformers(made: Callable[[str], Made], name: str, skip: int) -> None:
    """All linear modes in one run, the tokens of a prompt left out."""
    case, rows = made(name), texts((5, 33, 9, 4))
    weights = [np.stack([pool_weights(mode, len(row), skip) for mode in LINEAR]) for row in rows]  # (K, S) each
    found = case.run(inputs(case.cuda.layout, rows, weights))["pooled"]  # (K, B, H)
    assert found.dtype == np.float32 and found.shape == (len(LINEAR), len(rows), 64)
    for k, mode in enumerate(LINEAR):
        module = Pooling(64, pooling_mode=mode, include_prompt=skip == 0)
        for b, row in enumerate(rows):
            features = {
                "token_embeddings": torch.from_numpy(case.torch(row)[0])[None],
                "attention_mask": torch.ones((1, len(row)), dtype=torch.int64),
                "prompt_length": skip,
            }
            expected = module(features)["sentence_embedding"][0].numpy()
            assert_allclose(found[k, b], expected, rtol=0, atol=2e-5, err_msg=f"{mode} of {len(row)}")


# ------------------------------------------------------------------------------------------------------- mutations
def _joined(feed: Feed) -> None:
    """The first two texts as one."""
    sums = feed["cumulative_sequence_length"]
    feed["cumulative_sequence_length"] = np.concatenate([sums[:1], sums[2:3], sums[2:]])


def _nowhere(feed: Feed) -> None:
    """Every token at the first position."""
    feed["position_ids"] = np.zeros_like(feed["position_ids"])


def _other_row(feed: Feed) -> None:
    """A token counted to the text before its own."""
    feed["token_row"] = np.maximum(feed["token_row"] - 1, 0)


def _shuffled(feed: Feed) -> None:
    """Places of tokens in the padded layout that are not theirs."""
    feed["token_offset"] = np.roll(feed["token_offset"].ravel(), 1).reshape(feed["token_offset"].shape)


def _all_real(feed: Feed) -> None:
    """Padding taken for tokens."""
    feed["lengths"] = np.full_like(feed["lengths"], feed["input_ids"].shape[1])


@pytest.mark.parametrize(
    ("name", "mutation", "output"),
    [
        ("bert", _joined, "token_embeddings"),
        ("bert", _nowhere, "token_embeddings"),
        ("bert", _other_row, "pooled"),
        ("nomic_bert", _nowhere, "token_embeddings"),
        ("xlm_roberta", _shuffled, "token_weights"),
        ("modernbert", _all_real, "token_embeddings"),
    ],
)
def test_a_wrong_input_shows(
    made: Callable[[str], Made], name: str, mutation: Callable[[Feed], None], output: str
) -> None:
    """The parity above can fail: what says where texts begin and what is padding is read."""
    case, rows = made(name), texts((9, 17, 5))
    feed = inputs(case.cuda.layout, rows, flat(rows))
    right = case.run(feed)[output]
    mutation(feed)
    assert np.abs(case.run(feed)[output] - right).max() > 0.05


# ---------------------------------------------------------------------------------------------------------- SPLADE
@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> BertForMaskedLM:
    folder = tmp_path_factory.mktemp("splade")
    tokenizer = small_tokenizer("bert", folder / "tokenizer")
    masked_lm("bert", folder / "model", tokenizer, bias=-1.0)
    model: BertForMaskedLM = BertForMaskedLM.from_pretrained(folder / "model", attn_implementation="eager").eval()
    return model


def test_pooled_logits_leave_padding_out(language_model: BertForMaskedLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_module, "_LEAST_TOKENS", 24)  # three tokens of each text in a slice
    monkeypatch.setattr(graph_module, "_LOGIT_BYTES", 0)
    case = finish(PooledLogits(language_model, "max", "relu").eval(), 64)
    assert (case.cuda.layout, [v.name for v in case.cuda.model.graph.input]) == ("padded", ["input_ids", "lengths"])
    assert "pools over tokens" in case.cuda.why
    assert Counter(node.op_type for node in case.cuda.model.graph.node)["Loop"] == 1
    rows = texts()
    found = case.run(inputs("padded", rows, flat(rows)))
    wanted = np.stack([case.torch(row)[0] for row in rows])  # (B, V)
    assert list(found) == ["pooled_logits"]
    assert_allclose(found["pooled_logits"], wanted, rtol=0, atol=1e-5)
    everything = inputs("padded", rows, flat(rows)) | {"lengths": np.full(len(rows), 33, np.int32)}
    assert np.abs(case.run(everything)["pooled_logits"] - wanted).max() > 0.05


def test_summed_weights_leave_padding_out() -> None:
    """SPLADE's other pooling: the sum of log(1 + relu(logit)), against the rows graph one text at a time."""
    builder = Builder()
    x = builder.add("Gather", [builder.random("table", WORDS, HIDDEN), "input_ids"], "embedded")
    x = builder.linear(builder.layer(x, "layer", before=False), "logits", HIDDEN, 50)
    one = builder.weight("one", np.array(1, np.float32))
    x = builder.add("Log", [builder.add("Add", [builder.add("Relu", [x], "positive"), one], "shifted")], "weights")
    axis = _numbers(builder, "axis", 1)
    model = builder.model(builder.add("ReduceSum", [x, axis], "summed", keepdims=0))
    model.graph.output[0].name = model.graph.node[-1].output[0] = "pooled_logits"
    del model.graph.output[0].type.tensor_type.shape.dim[2]
    graph = cuda_graph(model)
    assert isinstance(graph, CudaGraph) and graph.layout == "padded"
    rows = texts()
    found = runner(graph.model)(inputs("padded", rows, flat(rows)))["pooled_logits"]
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert_allclose(found, [session.run(None, {"input_ids": row[None]})[0][0] for row in rows], rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------ fp16
def test_fp16_reads_the_weights_of_the_rows_graph(made: Callable[[str], Made], tmp_path: Path) -> None:
    """Nothing is stored twice, and both give the same numbers on the CPU; a graph that is off is found out."""
    case, rows = made("nomic_bert"), texts()
    path = save_graph(convert_half(case.rows, rows).model, tmp_path / "half.onnx")[0]
    saved = onnx.load(path, load_external_data=False)
    graph = cuda_graph(saved, tmp_path)
    assert isinstance(graph, CudaGraph) and graph.layout == "packed"
    assert difference(graph, path, rows) == ""
    assert len(graph.model.SerializeToString()) < 60_000 < (tmp_path / "half.onnx.data").stat().st_size
    places = {t.name: list(t.external_data) for t in saved.graph.initializer}
    outside = [t for t in graph.model.graph.initializer if t.data_location == TensorProto.EXTERNAL]
    assert len(outside) > 10 and all(list(t.external_data) == places[t.name] for t in outside)
    wrong = onnx.ModelProto()
    wrong.CopyFrom(graph.model)
    for node in wrong.graph.node:
        if node.op_type == "RotaryEmbedding":
            del node.attribute[:], node.input[1:]
            node.op_type, node.domain = "Identity", ""
    assert "token_embeddings" in difference(CudaGraph(wrong, "packed"), path, rows)


def test_half_graphs_state_the_shapes_that_fusions_ask_for(made: Callable[[str], Made], tmp_path: Path) -> None:
    """Without them onnxruntime joins no Add with the norm after it, since it infers nothing behind its attention."""
    half = convert_half(made("bert").rows, texts()).model
    graph = cuda_graph(half)
    assert isinstance(graph, CudaGraph) and graph.layout == "packed"

    def fused(model: onnx.ModelProto) -> int:
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        options.log_severity_level = 3
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        made_of = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
        return made_of["SkipLayerNormalization"]

    for model in (half, unpacked_twin(graph.model)):
        found = fused(model)
        assert found >= 3  # of five; one follows the embeddings
        del model.graph.value_info[:]
        assert fused(model) < found


def test_the_packed_operator_is_as_onnxruntime_declares_it(made: Callable[[str], Made]) -> None:
    """Without a GPU the graph fails for want of a kernel, after its schema was found in order."""
    case = made("bert")
    half = cuda_graph(convert_half(case.rows, texts()).model)
    assert isinstance(half, CudaGraph)
    for model in (case.cuda.model, half.model):
        with pytest.raises(ort.capi.onnxruntime_pybind11_state.NotImplemented, match="PackedMultiHeadAttention"):
            ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        packed = [node for node in model.graph.node if node.op_type == "PackedMultiHeadAttention"]
        assert [list(node.input[3:]) for node in packed] == [["", "token_offset", "cumulative_sequence_length"]] * 2
        assert {value.name: value.type.tensor_type.elem_type for value in model.graph.input} == {
            "input_ids": TensorProto.INT64,
            "position_ids": TensorProto.INT64,
            "token_offset": TensorProto.INT32,
            "cumulative_sequence_length": TensorProto.INT32,
            "token_row": TensorProto.INT64,
            "pool_weight": TensorProto.FLOAT,
        }
        assert all(value.type.tensor_type.elem_type == TensorProto.FLOAT for value in model.graph.output)


def part(rows: list[Ids]) -> Draft:
    """What writing a graph for CUDA reads of a part: calibration texts, and whether it scores pairs."""
    texts, encoder = Tokenized([], rows), SimpleNamespace(attention="fused")
    return cast("Draft", SimpleNamespace(calibration=texts, verification={"default": texts}, encoder=encoder))


def written(folder: Path, model: onnx.ModelProto) -> tuple[onnx.ModelProto, Variant]:
    """A model in fp16, and saved so below `folder`."""
    half = convert_half(model, [np.arange(9)]).model
    paths = save_graph(half, folder / "onnx/model_fp16.onnx")
    refs = tuple(describe(folder, path.relative_to(folder).as_posix()) for path in paths)
    return half, Variant(refs, ("input_ids",), "token_embeddings", 21, ("cuda",))


def test_where_no_graph_can_be_made_the_reason_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnx").mkdir()
    builder = Builder()
    x = builder.add("Gather", [builder.random("table", WORDS, HIDDEN), "input_ids"], "embedded")
    half, variant = written(tmp_path, builder.model(_neighbours(builder, x)))
    cuda, why = write._write_cuda(tmp_path, part(texts()), half, variant)
    assert (cuda, why) == (None, "Conv 'conv' may mix tokens")
    line = "None, for Conv 'conv' may mix tokens. On CUDA the fp16 variant runs in batches of texts of one length."
    assert report._cuda(Written(variant, [], [], cuda, why), failed=False) == [line]
    half, variant = written(tmp_path, encoder())
    with monkeypatch.context() as patch:
        patch.setattr(write, "difference", lambda *_: "it is 3% off")
        assert write._write_cuda(tmp_path, part(texts()), half, variant) == (None, "it is 3% off")
    assert not (tmp_path / "onnx/model_fp16_cuda.onnx").exists()
    cuda, why = write._write_cuda(tmp_path, part(texts()), half, variant)
    assert cuda is not None and (cuda.layout, why) == ("packed", "")
    assert cuda.files[0] == describe(tmp_path, "onnx/model_fp16_cuda.onnx")


@pytest.mark.parametrize("passed", [True, False])
def test_a_graph_for_cuda_stays_and_goes_with_fp16(tmp_path: Path, passed: bool) -> None:
    (tmp_path / "onnx").mkdir()
    half, variant = written(tmp_path, encoder())
    cuda, _ = write._write_cuda(tmp_path, part(texts()), half, variant)
    (tmp_path / "tokenizer.json").write_text("{}")
    main = EncoderSpec(describe(tmp_path, "tokenizer.json"), None, None, {})
    manifest = Manifest("dense", HIDDEN, {"main": main}, {"default": Route()}, "default")
    figures = Figures(1.0, 1.0, 1.0, 0.0, {}, 0)
    checks = {"fp16": {"main": Check("fp16", "cpu", "default", figures, [], "", 1, 0.0)}} if passed else {}
    manifest_module.keep(tmp_path, manifest, {"main": {"fp16": variant}}, {"main": cuda}, checks)
    kept = manifest_file.read(tmp_path).encoders["main"]
    assert (kept.cuda == cuda, "fp16" in kept.variants) == (passed, passed)
    names = ["model_fp16.onnx", "model_fp16.onnx.data", "model_fp16_cuda.onnx"]
    assert sorted(path.name for path in (tmp_path / "onnx").iterdir()) == (names if passed else [])


# ---------------------------------------------------------------------------------------------- what is not possible
def small(*changes: Callable[[Builder, str], str], after: bool = True) -> CudaGraph | NoCudaGraph:
    """A layer with something before or after it."""
    builder = Builder()
    x = builder.add("Gather", [builder.random("table", WORDS, HIDDEN), "input_ids"], "embedded")
    for change in changes if not after else ():
        x = change(builder, x)
    x = builder.layer(x, "layer", before=False)
    for change in changes if after else ():
        x = change(builder, x)
    return cuda_graph(builder.model(x))


def _numbers(builder: Builder, name: str, *values: int) -> str:
    return builder.weight(name, np.array(values, np.int64))


def _neighbours(builder: Builder, x: str) -> str:
    weight = builder.random("conv.weight", HIDDEN, HIDDEN, 3)
    turned = builder.add("Transpose", [x], "turned", perm=[0, 2, 1])
    mixed = builder.add("Conv", [turned, weight], "conv", pads=[1, 1])
    return builder.add("Transpose", [mixed], "back", perm=[0, 2, 1])


def _less_the_mean(builder: Builder, x: str) -> str:
    mean = builder.add("ReduceMean", [x, _numbers(builder, "axes", 1)], "mean", keepdims=1)
    return builder.add("Sub", [x, mean], "centred")


def _softmax(builder: Builder, x: str) -> str:
    return builder.add("Softmax", [x], "share", axis=1)


def _backwards(builder: Builder, x: str) -> str:
    ids = builder.add("Cast", ["input_ids"], "floats", to=TensorProto.FLOAT)
    axis = builder.weight("axis", np.array(1, np.int64))
    rest = builder.add("CumSum", [ids, axis], "rest", reverse=1)
    return builder.add("Add", [x, builder.add("Unsqueeze", [rest, _numbers(builder, "end", 2)], "column")], "sum")


def _by_length(builder: Builder, x: str) -> str:
    size = builder.add("Shape", ["input_ids"], "size", start=1, end=2)
    share = builder.add("Cast", [size], "share", to=TensorProto.FLOAT)
    return builder.add("Div", [x, share], "scaled")


def _from_the_end(builder: Builder, x: str) -> str:
    size = builder.add("Squeeze", [builder.add("Shape", ["input_ids"], "size", start=1, end=2)], "S")
    step = builder.weight("step", np.array(-1, np.int64))
    stop = builder.weight("stop", np.array(0, np.int64))
    left = builder.add("Range", [size, stop, step], "left")  # S, S - 1, .. 1
    rows = builder.add("Gather", [builder.random("places", 99, HIDDEN), left], "placed")
    return builder.add("Add", [x, rows], "sum")


def _texts_swapped(builder: Builder, x: str) -> str:
    return builder.add("Transpose", [x], "swapped", perm=[1, 0, 2])


def _merged(builder: Builder, x: str) -> str:
    flat = builder.add("Reshape", [x, _numbers(builder, "wide", -1, HIDDEN)], "flat")
    return builder.add("Unsqueeze", [flat, _numbers(builder, "first", 0)], "one")


def _other_bias(builder: Builder, x: str) -> str:
    """Attention with a mask of its own for all keys."""
    mask = builder.add("Cast", ["input_ids"], "mask", to=TensorProto.INT32)
    return builder.add("MultiHeadAttention", [x, x, x, "", mask], "more", "com.microsoft", num_heads=HEADS)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_neighbours, "Conv 'conv' may mix tokens"),
        (_less_the_mean, "ReduceMean 'mean' may mix tokens"),
        (_softmax, "Softmax 'share' may mix tokens"),
        (_backwards, "CumSum 'rest' may mix tokens"),
        (_by_length, "depends on the length of the text"),
        (_from_the_end, "depends on the length of the text"),
        (_texts_swapped, "'token_embeddings' is not one of each text"),
        (_merged, "Reshape 'flat' may mix tokens"),
        (_other_bias, "MultiHeadAttention 'more' may mix tokens"),
    ],
)
def test_what_mixes_tokens_makes_no_graph_for_cuda(change: Callable[[Builder, str], str], why: str) -> None:
    graph = small(change, after=change not in (_by_length, _from_the_end, _backwards))
    assert isinstance(graph, NoCudaGraph)
    assert why in graph.why


def test_values_of_another_width_are_padded() -> None:
    """PackedMultiHeadAttention has fused kernels for one width of a head."""
    builder = Builder()
    x = builder.add("Gather", [builder.random("table", WORDS, HIDDEN), "input_ids"], "embedded")
    parts = [builder.linear(x, name, HIDDEN, width) for name, width in (("q", HIDDEN), ("k", HIDDEN), ("v", 64))]
    graph = cuda_graph(builder.model(builder.add("MultiHeadAttention", parts, "a", "com.microsoft", num_heads=HEADS)))
    assert isinstance(graph, CudaGraph)
    assert (graph.layout, graph.why) == (
        "padded",
        "MultiHeadAttention 'a' has values of another size than its keys",
    )


def test_positions_in_any_form_are_looked_up() -> None:
    """A table that is sliced (S, H), one that is gathered (1, S, H), and angles that are computed (S, 1).

    And what depends on the id: looked up in a row that is repeated for each text.
    """
    builder = Builder()
    x = builder.add("Gather", [builder.random("table", WORDS, HIDDEN), "input_ids"], "embedded")
    size = builder.add("Shape", ["input_ids"], "size", start=1, end=2)
    zero = _numbers(builder, "zero", 0)
    x = builder.add(
        "Add", [x, builder.add("Slice", [builder.random("places", 64, HIDDEN), zero, size, zero], "cut")], "first"
    )
    length = builder.add("Squeeze", [size], "S")
    start, step = (builder.weight(name, np.array(value, np.int64)) for name, value in (("start", 0), ("step", 1)))
    steps = builder.add("Range", [start, length, step], "steps")
    row = builder.add("Unsqueeze", [steps, zero], "row")  # (1, S)
    x = builder.add("Add", [x, builder.add("Gather", [builder.random("more", 64, HIDDEN), row], "found")], "second")
    column = builder.add("Unsqueeze", [steps, _numbers(builder, "one", 1)], "column")  # (S, 1)
    wave = builder.add("Sin", [builder.add("Cast", [column], "floats", to=TensorProto.FLOAT)], "wave")
    x = builder.add("Mul", [x, wave], "third")
    count = builder.add(
        "Concat", [builder.add("Shape", ["input_ids"], "B", end=1), _numbers(builder, "1", 1)], "counts", axis=0
    )
    codes = builder.weight("codes", np.arange(WORDS, dtype=np.int64)[None] % 7)  # (1, V)
    kinds = builder.add("GatherElements", [builder.add("Expand", [codes, count], "rows"), "input_ids"], "kinds", axis=1)
    x = builder.add("Add", [x, builder.add("Gather", [builder.random("few", 7, HIDDEN), kinds], "kind")], "fourth")
    model = builder.model(builder.layer(x, "layer", before=False))
    graph = cuda_graph(model)
    assert isinstance(graph, CudaGraph) and graph.layout == "packed"
    rows = [ids % WORDS for ids in texts()]
    found = runner(graph.model)(inputs("packed", rows, flat(rows)))["token_embeddings"]
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = [session.run(None, {"input_ids": row[None]})[0][0] for row in rows]
    assert_allclose(found[0], np.concatenate(wanted), rtol=0, atol=1e-5)


def test_a_model_of_few_positions_has_no_graph_for_cuda() -> None:
    """Whether what stands at a place depends on the length is seen at 33 tokens."""
    builder = Builder()
    x = builder.add("Gather", [builder.random("table", WORDS, HIDDEN), "input_ids"], "embedded")
    count = builder.add("Squeeze", [builder.add("Shape", ["input_ids"], "size", start=1, end=2)], "S")
    start, step = (builder.weight(name, np.array(value, np.int64)) for name, value in (("start", 0), ("step", 1)))
    row = builder.add(
        "Unsqueeze", [builder.add("Range", [start, count, step], "steps"), _numbers(builder, "0", 0)], "row"
    )
    x = builder.add("Add", [x, builder.add("Gather", [builder.random("few", 20, HIDDEN), row], "placed")], "sum")
    assert cuda_graph(builder.model(builder.layer(x, "layer", before=False))) == NoCudaGraph(
        "the model does not take 33 tokens"
    )


def test_a_lookup_of_one_index_reads_one_row(made: Callable[[str], Made]) -> None:
    """Token types: a row for all tokens, not one for each."""
    nodes = made("bert").cuda.model.graph.node
    weights = {tensor.name: tensor for tensor in made("bert").cuda.model.graph.initializer}
    types = next(node for node in nodes if node.input[0].endswith("token_type_embeddings.weight"))
    assert numpy_helper.to_array(weights[types.input[1]]).tolist() == [[0]]


def test_the_model_is_left_as_it_is() -> None:
    model = encoder()
    before = model.SerializeToString()
    assert isinstance(cuda_graph(model), CudaGraph)
    assert model.SerializeToString() == before
