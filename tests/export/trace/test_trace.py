"""Graphs of fused ops against the same checkpoint in torch eager, and against themselves with a part taken away."""

import copy
import pickle
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers as hf
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper
from tests.support.architectures import ARCHITECTURES, POSITIONS, SIZES, VOCAB, WINDOW, draw, make
from transformers.masking_utils import (
    ALL_MASK_ATTENTION_FUNCTIONS,
    and_masks,
    bidirectional_mask_function,
    blockwise_overlay,
    causal_mask_function,
    chunked_causal_mask_function,
    or_masks,
    sliding_window_bidirectional_mask_function,
    sliding_window_causal_mask_function,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from trivec._errors import ModelFormatError, ModelNotFoundError
from trivec_export._reference.heads import TokenEmbeddings
from trivec_export._reference.torch_model import load
from trivec_export._trace.attention import ATTENTION, Mask, Span, _span, attention, mask
from trivec_export._trace.trace import PLAIN, trace, trace_fused

Array = NDArray[np.float32]
MUTATIONS = [(name, mutation) for name, row in ARCHITECTURES.items() for mutation in row.mutations]


@dataclass(frozen=True)
class Exported:
    """One architecture, exported once for the whole file."""

    folder: Path
    reference: hf.PreTrainedModel
    proto: ModelProto
    run: Callable[[NDArray[np.int64]], Array]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Exported]]:
    """name -> its export, made on first use."""
    cache: dict[str, Exported] = {}

    def export(name: str) -> Exported:
        if name not in cache:
            folder = make(name, tmp_path_factory.mktemp(name))
            model = load(folder).model
            proto = trace_fused(TokenEmbeddings(model), max_length=ARCHITECTURES[name].max_length)
            cache[name] = Exported(folder, model, proto, _runner(proto))
        return cache[name]

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield export
    torch.set_num_threads(threads)


def _runner(proto: ModelProto) -> Callable[[NDArray[np.int64]], Array]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(ids: NDArray[np.int64]) -> Array:
        tokens: Array = session.run(["token_embeddings"], {"input_ids": ids})[0]
        return tokens

    return run


def _ids(rows: int, tokens: int) -> NDArray[np.int64]:
    """Random ids, special ones and padding included: a text may spell any token."""
    return np.random.default_rng(100 * rows + tokens).integers(0, VOCAB, (rows, tokens))


def _torch(model: hf.PreTrainedModel, ids: NDArray[np.int64]) -> Array:
    x = torch.from_numpy(ids)
    with torch.no_grad():
        out = model(input_ids=x, attention_mask=torch.ones_like(x))
    tokens: Array = out.last_hidden_state.numpy()
    return tokens


def _cosine(a: Array, b: Array) -> Array:
    cosine: Array = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return cosine


# ---------------------------------------------------------------------------------------------------------- parity
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_token_embeddings_equal_torch(exported: Callable[[str], Exported], name: str) -> None:
    """Every token of every size, up to the last position and beyond the reach of every relative bias."""
    export, row = exported(name), ARCHITECTURES[name]
    for size in (*SIZES, (2, row.max_length or 3 * POSITIONS)):
        ids = _ids(*size)
        came, expected = export.run(ids), _torch(export.reference, ids)
        assert came.dtype == np.float32 and came.shape == (*size, export.reference.config.hidden_size)
        assert _cosine(came, expected).min() >= 0.99999, size
        np.testing.assert_allclose(came, expected, rtol=0, atol=row.atol, err_msg=str(size))


@pytest.mark.parametrize(("name", "mutation"), MUTATIONS)
def test_what_is_taken_out_of_the_graph_shows(exported: Callable[[str], Exported], name: str, mutation: str) -> None:
    """The parity above can fail: without its mask, bias or positions, a graph gives other vectors."""
    export = exported(name)
    proto = copy.deepcopy(export.proto)
    assert _mutate(proto, mutation) > 0
    ids = _ids(5, 61)
    assert ids.shape[1] > 3 * WINDOW
    came, expected = _runner(proto)(ids).mean(1), _torch(export.reference, ids).mean(1)
    assert _cosine(export.run(ids).mean(1), expected).min() >= 0.99999
    assert _cosine(came, expected).max() < 0.99


def _mutate(proto: ModelProto, mutation: str) -> int:
    """Take one thing out of a graph; how many times it was there."""
    count = 0
    if mutation == "positions":
        for tensor in proto.graph.initializer:
            if tensor.name.endswith("position_embeddings.weight"):
                tensor.CopyFrom(numpy_helper.from_array(np.zeros(tensor.dims, np.float32), tensor.name))
                count += 1
    for node in proto.graph.node:
        if mutation == "rotary" and node.op_type == "RotaryEmbedding":
            node.op_type, node.domain = "Identity", ""
            del node.input[1:], node.attribute[:]
            count += 1
        if mutation in ("window", "bias") and node.op_type == "MultiHeadAttention" and len(node.input) > 5:
            node.input[5] = ""
            count += 1
        if mutation == "causal" and any(attribute.name == "unidirectional" for attribute in node.attribute):
            kept = [attribute for attribute in node.attribute if attribute.name != "unidirectional"]
            del node.attribute[:]
            node.attribute.extend(kept)
            count += 1
    return count


TEXTS = ["a", "the rain on the tin roof, and then a train", "42 <s> [PAD]", "nothing is lost, " * 30]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_folder_is_a_sentence_transformer(exported: Callable[[str], Exported], name: str) -> None:
    """The graph on one text at a time gives what sentence-transformers gives on a padded batch, by its own pooling."""
    from sentence_transformers import SentenceTransformer

    export = exported(name)
    model = SentenceTransformer(str(export.folder), device="cpu")
    last = model[1].get_config_dict()["pooling_mode"] == "lasttoken"
    assert last == (name == "qwen3")
    expected = model.encode(TEXTS)
    for text, vector in zip(TEXTS, expected, strict=True):
        ids = model.tokenizer(text, truncation=True, return_tensors="np")["input_ids"].astype(np.int64)
        tokens = export.run(ids)[0]  # (S, H)
        assert _cosine(tokens[-1] if last else tokens.mean(0), vector) >= 0.99999, text


# ----------------------------------------------------------------------------------------------------------- graphs
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_graph_is_fused(exported: Callable[[str], Exported], name: str) -> None:
    export, mutations = exported(name), ARCHITECTURES[name].mutations
    graph = export.proto.graph
    counts = Counter(node.op_type for node in graph.node)
    layers = export.reference.config.num_hidden_layers
    assert counts["MultiHeadAttention"] == layers
    # What a fused op would have left behind, were it not fused; T5's Relu, SiLU's Sigmoid and Mul are what they are.
    left = ("Softmax", "Erf", "Tanh", "Pow", "ReduceMean", "Sqrt", "Cos", "Sin", "Log", "Not", "And")
    padding_ids = {"Not": 1} if {"Equal", "CumSum"} <= counts.keys() else {}  # RoBERTa's positions skip padding ids
    assert {op: counts[op] for op in left if counts[op]} == padding_ids
    nodes = [node for node in graph.node if node.op_type == "MultiHeadAttention"]
    for node in nodes:
        assert not any(node.input[3:5])  # no packed bias, no key padding mask: it would rule out the flash kernel
    biased = [len(node.input) > 5 for node in nodes]
    causal = [any(a.name == "unidirectional" for a in node.attribute) for node in nodes]
    assert any(biased) == bool({"window", "bias"} & set(mutations))
    assert any(causal) == ("causal" in mutations)
    assert not any(b and c for b, c in zip(biased, causal, strict=True))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_graph_carries_nothing_else(exported: Callable[[str], Exported], name: str) -> None:
    """No paths and stack traces of this machine, no dead or doubled weights, readable names."""
    proto = copy.deepcopy(exported(name).proto)
    graph = proto.graph
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", 21), ("com.microsoft", 1)]
    shapes = [
        [dim.dim_param or dim.dim_value for dim in v.type.tensor_type.shape.dim] for v in (*graph.input, *graph.output)
    ]
    assert [v.name for v in (*graph.input, *graph.output)] == ["input_ids", "token_embeddings"]
    assert shapes == [["batch", "sequence"], ["batch", "sequence", 64]]
    used = {name for node in graph.node for name in node.input}
    assert {tensor.name for tensor in graph.initializer} <= used
    contents = [(tensor.data_type, tuple(tensor.dims), tensor.raw_data) for tensor in graph.initializer]
    assert len(contents) == len(set(contents))
    names = [node.name for node in graph.node]
    assert len(names) == len(set(names)) and all(names)
    matrices = [tensor for tensor in graph.initializer if len(tensor.dims) == 2 and tensor.data_type == 1]
    assert all("." in tensor.name for tensor in matrices)
    texts = list(_strings(proto))
    assert "batch" in texts and "pytorch" in texts  # the walk finds what is there
    assert not [text for text in texts if any(mark in text for mark in ("/", "\\", 'File "', ".py", "site-packages"))]


def _strings(message: Any) -> Iterator[str]:
    """Every text in a protobuf message; weights may hold any byte and are left out."""
    for descriptor, value in message.ListFields():
        for item in value if descriptor.is_repeated else [value]:
            if descriptor.message_type is not None:
                yield from _strings(item)
            elif isinstance(item, str):
                yield item
            elif isinstance(item, bytes) and descriptor.name != "raw_data":
                yield item.decode()


def test_wide_window_is_no_window(tmp_path: Path) -> None:
    """A window beyond max_length hides nothing: the layer keeps the kernel without bias."""
    model = load(make("modernbert", tmp_path)).model
    proto = trace(model, max_length=WINDOW // 2).graph
    assert all(len(node.input) <= 3 for node in proto.graph.node if node.op_type == "MultiHeadAttention")
    ids = _ids(2, WINDOW // 2)
    np.testing.assert_allclose(_runner(proto)(ids), _torch(model, ids), rtol=0, atol=2e-5)
    tables = {t.name: tuple(t.dims) for t in proto.graph.initializer if t.name.startswith("rotary_emb.")}
    assert set(tables.values()) == {(WINDOW // 2, 8)} and len(tables) == 4  # full and sliding have their own angles


# ------------------------------------------------------------------------------------------------------ side effects
@pytest.mark.parametrize("name", ["mpnet", "deberta_v2_conv", "t5_gated", "gemma3_bidirectional"])
def test_everything_is_put_back(tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str) -> None:
    """transformers and the model are as they were, and nothing was printed."""
    folder = make(name, tmp_path)
    capfd.readouterr()
    model = load(folder).model
    ids = _ids(2, 9)
    before = _torch(model, ids)
    file = sys.modules[type(model).__module__]
    state = (
        dict(ALL_ATTENTION_FUNCTIONS._global_mapping),
        dict(ALL_MASK_ATTENTION_FUNCTIONS._global_mapping),
        getattr(file, "apply_rotary_pos_emb", None),
        [sorted(vars(module)) for module in model.modules()],
        [sorted(module._buffers) for module in model.modules()],
        model.config.to_dict(),
        model.config._attn_implementation,
    )
    trace(model, max_length=POSITIONS)
    after = (
        dict(ALL_ATTENTION_FUNCTIONS._global_mapping),
        dict(ALL_MASK_ATTENTION_FUNCTIONS._global_mapping),
        getattr(file, "apply_rotary_pos_emb", None),
        [sorted(vars(module)) for module in model.modules()],
        [sorted(module._buffers) for module in model.modules()],
        model.config.to_dict(),
        model.config._attn_implementation,
    )
    assert after == state
    assert ATTENTION not in after[0]
    np.testing.assert_array_equal(_torch(model, ids), before)
    assert capfd.readouterr() == ("", "")


def test_everything_is_put_back_after_an_error(tmp_path: Path) -> None:
    model = load(make("gemma3_causal", tmp_path)).model
    rotate = sys.modules[type(model).__module__].apply_rotary_pos_emb
    model.config.num_hidden_layers = 7  # more layers than attention nodes will be found
    with pytest.raises(ModelFormatError, match=r"'gemma3_text'.*3 MultiHeadAttention and 0 Softmax.*at least 7 and 0"):
        trace_fused(TokenEmbeddings(model), max_length=POSITIONS)
    assert sys.modules[type(model).__module__].apply_rotary_pos_emb is rotate
    assert ATTENTION not in ALL_ATTENTION_FUNCTIONS._global_mapping
    assert not any("forward" in vars(module) for module in model.modules())
    assert model.config._attn_implementation == "eager"


# ------------------------------------------------------------------------------------------------------------ refusals
class _Layer(torch.nn.Module):
    config = hf.BertConfig()


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("dropout", 0.1),
        ("s_aux", torch.zeros(4)),
        ("softcap", 50.0),
        ("head_mask", torch.ones(4)),
        ("sliding_window", 8),
        ("output_attentions", True),
        ("an_argument_of_tomorrow", 1),
    ],
)
def test_attention_arguments_are_never_dropped(argument: str, value: Any) -> None:
    x = torch.zeros(1, 4, 3, 8)
    full = Mask(None, causal=False, local=False)
    with pytest.raises(ModelFormatError, match=rf"_Layer \(model type 'bert'\) passes '{argument}'"):
        attention(_Layer(), x, x, x, full, **{argument: value})


@pytest.mark.parametrize("came", [None, torch.zeros(1, 1, 3, 3)])
def test_foreign_masks_are_refused(came: Any) -> None:
    """No mask may mean causal or not, by the model's own reading."""
    x = torch.zeros(1, 4, 3, 8)
    with pytest.raises(ModelFormatError, match=r"'attention_mask'.*did not build"):
        attention(_Layer(), x, x, x, came)


def test_empty_arguments_are_no_arguments() -> None:
    x = torch.zeros(1, 4, 3, 8)
    out, weights = attention(
        _Layer(), x, x, x, Mask(None, causal=False, local=False), softcap=None, output_attentions=False, position_ids=x
    )
    assert out.shape == (1, 3, 4, 8) and weights is None


@pytest.mark.parametrize("limit", [40, 1000])
def test_mask_rules_are_read_from_what_they_keep(limit: int) -> None:
    """The rule's own answers decide, whatever closures it is made of."""
    window = sliding_window_causal_mask_function(7)
    always = lambda *_: torch.tensor(True)  # noqa: E731
    assert _span(bidirectional_mask_function, limit) == Span(None, None)
    assert _span(causal_mask_function, limit) == Span(None, 0)
    assert _span(or_masks(causal_mask_function, always), limit) == Span(None, None)
    assert _span(window, limit) == Span(-6, 0)
    assert _span(sliding_window_bidirectional_mask_function(7), limit) == Span(-7, 7)
    assert _span(or_masks(window, lambda _b, _h, q, k: abs(q - k) < 7), limit) == Span(-6, 6)
    assert _span(sliding_window_causal_mask_function(limit), limit) == Span(None, 0)
    # Not a band of offsets: chunks, blocks of the batch, every second key.
    assert _span(chunked_causal_mask_function(8, torch.zeros(1, dtype=torch.long)), limit) is None
    assert _span(or_masks(causal_mask_function, blockwise_overlay((torch.arange(limit) // 5)[None])), limit) is None
    assert _span(and_masks(causal_mask_function, lambda _b, _h, q, k: (q - k) % 2 == 0), limit) is None


def test_untranslated_mask_rule_raises() -> None:
    rule = chunked_causal_mask_function(8, torch.zeros(1, dtype=torch.long))
    with pytest.raises(ModelFormatError, match="'bert' uses an attention mask that is neither full, nor causal"):
        mask(1, 16, 16, mask_function=rule, config=hf.BertConfig(), limit=64)


SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@pytest.mark.parametrize(
    ("model", "config", "message"),
    [
        (hf.Gemma2Model, hf.Gemma2Config(**SMALL), "'gemma2'.*passes 'softcap'"),
        (
            hf.GptOssModel,
            hf.GptOssConfig(**SMALL, num_local_experts=2, num_experts_per_tok=1),
            "'gpt_oss'.*passes 's_aux'",
        ),
        (
            hf.Llama4TextModel,
            hf.Llama4TextConfig(**SMALL, attention_chunk_size=8, num_local_experts=1, intermediate_size_mlp=48),
            "'llama4_text' uses an attention mask that is neither",
        ),
        (
            hf.DebertaModel,
            hf.DebertaConfig(
                vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48
            ),
            "'deberta'.*0 MultiHeadAttention and 2 Softmax nodes, expected at least 2 and 0",
        ),
        (
            hf.RoFormerModel,
            hf.RoFormerConfig(
                vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48
            ),
            "'roformer'.*cannot be traced: unsupported operand",
        ),
    ],
)
def test_architectures_without_translation_are_refused(model: Any, config: Any, message: str) -> None:
    """Real architectures that do something else: an attention node would be silently wrong."""
    with pytest.raises(ModelFormatError, match=message):
        trace_fused(
            TokenEmbeddings(model._from_config(config, attn_implementation="eager").eval()).eval(), max_length=32
        )


PLAIN_SMALL = {key: value for key, value in SMALL.items() if key not in ("num_key_value_heads", "head_dim")}


@pytest.mark.parametrize(
    ("model", "config"),
    [
        (hf.Gemma2Model, hf.Gemma2Config(**SMALL, attn_logit_softcapping=2.0)),
        (hf.DebertaModel, hf.DebertaConfig(**PLAIN_SMALL, relative_attention=True, pos_att_type=["c2p", "p2c"])),
        (hf.RoFormerModel, hf.RoFormerConfig(**PLAIN_SMALL)),
        (hf.GPTNeoXModel, hf.GPTNeoXConfig(**PLAIN_SMALL)),
        (
            hf.GPTNeoModel,
            hf.GPTNeoConfig(
                vocab_size=50,
                hidden_size=32,
                num_layers=2,
                num_heads=4,
                intermediate_size=48,
                max_position_embeddings=64,
                attention_types=[[["global", "local"], 1]],
                window_size=8,
            ),
        ),
        (hf.LayoutLMModel, hf.LayoutLMConfig(**PLAIN_SMALL)),
        (hf.XLMModel, hf.XLMConfig(vocab_size=50, emb_dim=32, n_layers=2, n_heads=4, max_position_embeddings=64)),
        (hf.Lfm2Model, hf.Lfm2Config(**SMALL, layer_types=["conv", "full_attention"], block_multiple_of=16)),
    ],
)
def test_plain_attention_equals_torch(model: Any, config: Any) -> None:
    """What has no fused node is traced as the model's own code has it, for rows of one length."""
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    reference = model(config).eval()
    draw(reference, 1.0)
    traced = trace(reference, max_length=64)
    for size in SIZES:
        ids = _ids(*size) % 50
        np.testing.assert_allclose(_runner(traced.graph)(ids), _torch(reference, ids), rtol=0, atol=5e-5)
    operators = Counter(node.op_type for node in traced.graph.graph.node)
    assert (traced.attention == PLAIN) == bool(operators["Softmax"])
    assert bool(traced.why) == (traced.attention == PLAIN)


@pytest.mark.parametrize(
    ("model", "config", "ops"),
    [
        # A decoder turned bidirectional, as embedding models do: the flag must come from the mask.
        (hf.LlamaModel, hf.LlamaConfig(**SMALL, is_causal=False), {"MultiHeadAttention": 2, "RotaryEmbedding": 4}),
        # Rotates pairs, not halves: traced as it stands.
        (hf.GlmModel, hf.GlmConfig(**SMALL), {"MultiHeadAttention": 2, "RotaryEmbedding": 0}),
    ],
)
def test_architectures_that_nobody_listed(model: Any, config: Any, ops: dict[str, int]) -> None:
    """Nothing is recognised by name: what the probes do not recognise is slower, and right."""
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    reference = model(config).eval()
    draw(reference, 1.0)
    proto = trace(reference, max_length=64).graph
    counts = Counter(node.op_type for node in proto.graph.node)
    assert {op: counts[op] for op in ops} == ops
    causal = [a for node in proto.graph.node for a in node.attribute if a.name == "unidirectional"]
    assert len(causal) == (0 if config.model_type == "llama" else 2)
    for size in SIZES:
        ids = _ids(*size) % 50
        np.testing.assert_allclose(_runner(proto)(ids), _torch(reference, ids), rtol=0, atol=2e-5)


def test_angles_that_depend_on_the_length(tmp_path: Path) -> None:
    """Dynamic rope: one table is right up to the original length, and refused beyond it."""
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
    model = hf.NomicBertModel(
        hf.NomicBertConfig(**{**SMALL, "rope_parameters": rope}, attn_implementation="eager")
    ).eval()
    with pytest.raises(ModelFormatError, match=r"angles of a position depend on the length .* below 100 positions"):
        trace_fused(TokenEmbeddings(model), max_length=100)
    ids = _ids(2, 61) % 50
    np.testing.assert_allclose(_runner(trace(model, max_length=64).graph)(ids), _torch(model, ids), rtol=0, atol=2e-5)


def test_half_precision_is_refused(tmp_path: Path) -> None:
    model = load(make("bert", tmp_path)).model.half()
    with pytest.raises(ModelFormatError, match=r"eval mode with parameters in \['torch.float16'\], expected"):
        trace(model, max_length=POSITIONS)


# ------------------------------------------------------------------------------------------------------------- loading
def test_a_plain_pickle_loads(tmp_path: Path) -> None:
    model = load(make("bert", tmp_path)).model
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    ids = _ids(2, 9)
    np.testing.assert_array_equal(_torch(load(tmp_path).model, ids), _torch(model, ids))


class _Touch:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused(tmp_path: Path, zipped: bool) -> None:
    folder = make("bert", tmp_path / "model")
    (folder / "model.safetensors").unlink()
    file, mark = folder / "pytorch_model.bin", tmp_path / "ran"
    torch.save({"weight": _Touch(mark)}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        ModelFormatError, match=r"pytorch_model\.bin holds more than tensors.*Convert it to safetensors"
    ):
        load(folder)
    assert not mark.exists()
    with file.open("wb") as stream:
        pickle.dump({"weight": 1}, stream)
    with pytest.raises((ModelFormatError, ModelNotFoundError), match=r"pytorch_model\.bin|model"):
        load(folder)


def test_missing_weights_are_refused_where_they_count(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = make("bert", tmp_path)
    weights = load_file(folder / "model.safetensors")
    ids, expected = _ids(2, 9), _torch(load(folder).model, _ids(2, 9))
    save_file({k: v for k, v in weights.items() if "pooler" not in k}, folder / "model.safetensors", {"format": "pt"})
    np.testing.assert_array_equal(_torch(load(folder).model, ids), expected)
    save_file({k: v for k, v in weights.items() if "layer.1" not in k}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        ModelFormatError, match=r"no weights for 16 parameters of BertModel, such as encoder\.layer\.1\."
    ):
        load(folder)


def test_folders_that_are_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no config\.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "of_tomorrow"}')
    with pytest.raises(ModelFormatError, match="of_tomorrow"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelNotFoundError, match=r"no file named model\.safetensors"):
        load(tmp_path)


def test_remote_code_is_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    (tmp_path / "code.py").write_text(f"open({str(mark)!r}, 'w')\n")
    (tmp_path / "config.json").write_text('{"model_type": "mine", "auto_map": {"AutoConfig": "code.Config"}}')
    with pytest.raises(ModelFormatError, match="trust_remote_code"):
        load(tmp_path)
    assert not mark.exists()


def test_encoder_decoder_leaves_its_decoder_behind(exported: Callable[[str], Exported]) -> None:
    export = exported("t5_gated")
    assert type(export.reference) is hf.T5EncoderModel
    whole = hf.T5Model.from_pretrained(export.folder, attn_implementation="eager").eval()
    ids = _ids(2, 9)
    with torch.no_grad():
        expected = whole.encoder(input_ids=torch.from_numpy(ids)).last_hidden_state.numpy()
    np.testing.assert_array_equal(_torch(export.reference, ids), expected)


@pytest.mark.parametrize("kind", ["bart", "led", "marian", "pegasus", "m2m_100"])
def test_an_encoder_decoder_that_comes_with_its_decoder_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    config = hf.AutoConfig.for_model(
        kind, vocab_size=64, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=32,
        pad_token_id=1, bos_token_id=0, eos_token_id=2, decoder_start_token_id=2,
    )  # fmt: skip
    hf.AutoModel.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ModelFormatError, match=rf"encoder-decoder \({kind}\).*Use sentence-transformers"):
        load(tmp_path)
