"""Nomic: the published layout against a forward of the published code; task prefixes and matryoshka."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from tests.support.architectures import BERT
from tests.support.oracle import least_cosine
from tests.support.published import LENGTH, NOMIC, Published, norm_shapes, random_state, tokenizer, write_checkpoint
from torch import Tensor
from torch.nn import functional as F

import trivec
from trivec.integrations import milvus
from trivec_export._checkpoint.published import layouts, nomic
from trivec_export._reference.torch_model import load as load_model

VOCAB, SIZE, INNER, LAYERS = 320, 64, 256, 2

# config.json of nomic-embed-text-v1.5, but for the sizes
CONFIG: dict[str, Any] = {
    "activation_function": "swiglu",
    "architectures": ["NomicBertModel"],
    "attn_pdrop": 0.0,
    "auto_map": {
        "AutoConfig": "nomic-ai/nomic-bert-2048--configuration_hf_nomic_bert.NomicBertConfig",
        "AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel",
    },
    "bos_token_id": None,
    "causal": False,
    "dense_seq_output": True,
    "embd_pdrop": 0.0,
    "eos_token_id": None,
    "fused_bias_fc": True,
    "fused_dropout_add_ln": True,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-12,
    "max_trained_positions": 2048,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "model_type": "nomic_bert",
    "n_embd": SIZE,
    "n_head": 4,
    "n_inner": INNER,
    "n_layer": LAYERS,
    "n_positions": 512,
    "pad_vocab_size_multiple": 64,
    "parallel_block": False,
    "parallel_block_tied_norm": False,
    "prenorm": False,
    "qkv_proj_bias": False,
    "reorder_and_upcast_attn": False,
    "resid_pdrop": 0.0,
    "rotary_emb_base": 700,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
    "summary_activation": None,
    "summary_type": "cls_index",
    "torch_dtype": "float32",
    "transformers_version": "4.37.2",
    "type_vocab_size": 2,
    "use_cache": True,
    "use_flash_attn": True,
    "use_rms_norm": False,
    "use_xentropy": True,
    "vocab_size": VOCAB,
}
SHORT = {"n_layer": 1}


def state() -> dict[str, Tensor]:
    """Random weights by the published names."""
    norms = ["emb_ln"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (VOCAB, SIZE),
        "embeddings.token_type_embeddings.weight": (2, SIZE),
    }
    for i in range(LAYERS):
        layer = f"encoder.layers.{i}"
        shapes |= {f"{layer}.attn.Wqkv.weight": (3 * SIZE, SIZE), f"{layer}.attn.out_proj.weight": (SIZE, SIZE)}
        shapes |= {f"{layer}.mlp.{name}.weight": (INNER, SIZE) for name in ("fc11", "fc12")}
        shapes[f"{layer}.mlp.fc2.weight"] = (SIZE, INNER)
        norms += [f"{layer}.norm1", f"{layer}.norm2"]
    return random_state(shapes | norm_shapes(norms, SIZE))


def write(folder: Path, weights: dict[str, Tensor] | None = None, **changed: Any) -> Path:
    modules = [f"sentence_transformers.models.{kind}" for kind in ("Transformer", "Pooling")]
    weights = state() if weights is None else weights
    return write_checkpoint(folder, CONFIG | changed, weights, BERT, modules=modules, settings={})


def published(texts: list[str], prompt: str = "") -> Any:
    return Published(NOMIC, state(), CONFIG | SHORT).vectors(tokenizer(BERT), [prompt + text for text in texts])


def without(name: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda weights: {key: tensor for key, tensor in weights.items() if name not in key}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def said() -> list[str]:
    """What the gates said."""
    return []


@pytest.fixture(scope="module")
def folder(said: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published layout, exported; a layer less, which halves the time."""
    work = tmp_path_factory.mktemp("nomic")
    try:
        checkpoint = write(work / "nomic", without("layers.1.")(state()), **SHORT)
        trivec.export(checkpoint, work / "model", precision=["fp32", "int8"], max_texts=64, quiet=True)
    except trivec.GateError as error:  # noise is hard to quantize
        said.append(str(error))
    return work / "model"


@pytest.mark.parametrize("prefix", ["", "search_query: ", "search_document: ", "clustering: ", "classification: "])
def test_vectors_equal_the_published_code(prefix: str, folder: Path, texts: list[str]) -> None:
    with trivec.load(folder, device="cpu", precision="fp32") as encoder:
        assert (encoder.dim, encoder.max_seq_length) == (SIZE, LENGTH)
        few = texts[::5] if prefix else texts
        expected = published(few, prefix)
        assert least_cosine(encoder.encode(few, prompt=prefix), expected) >= 0.99999
        np.testing.assert_allclose(encoder.encode(few, prompt=prefix), expected, atol=2e-5)
        assert not prefix or least_cosine(encoder.encode(few), expected) < 0.999


def test_int8_is_written_if_it_is_faithful(folder: Path, said: list[str]) -> None:
    with trivec.load(folder, device="cpu", precision="fp32") as encoder:
        variants = encoder.manifest.encoders["main"].variants
    refused = {"int8"} if "int8 is not faithful to torch" in "".join(said) else set()
    assert variants.keys() == {"fp32", "int8"} - refused
    assert all(variant.gate is not None for variant in variants.values())


@pytest.mark.parametrize("dim", [64, 33, 8])
def test_the_milvus_function_equals_the_model_card(dim: int, folder: Path, texts: list[str]) -> None:
    """Its twin asks the hosted API. Whole vectors are what sentence-transformers gives, of length 1."""
    ours = milvus.NomicEmbeddingFunction(folder, "clustering", dim, precision="fp32", threads=1)
    assert ours.dim == dim
    for encode, prefix in (
        (ours.encode_queries, "search_query: "),
        (ours.encode_documents, "search_document: "),
        (ours, "clustering: "),
    ):
        embeddings = torch.from_numpy(published(texts[::3], prefix))
        if dim < SIZE:  # the lines of the model card of nomic-embed-text-v1.5
            embeddings = F.layer_norm(embeddings, normalized_shape=(embeddings.shape[1],))
            embeddings = embeddings[:, :dim]
        found = encode(texts[::3])
        assert {(vector.dtype, vector.shape) for vector in found} == {(np.dtype(np.float32), (dim,))}
        np.testing.assert_allclose(np.stack(found), F.normalize(embeddings, p=2, dim=1).numpy(), atol=2e-5)
        assert least_cosine(np.stack(found), embeddings.numpy()) >= 0.99999


def test_hidden_states_and_what_every_key_does(tmp_path: Path) -> None:
    """The native model of the converted config gives the published states, and every key that it takes over counts."""
    ids = torch.arange(3 * 61).reshape(3, 61) % VOCAB
    wanted = Published(NOMIC, state(), CONFIG).states(ids)
    layouts.convert(write(tmp_path / "a", {f"bert.{key}": x for key, x in state().items()}), tmp_path / "native")
    with torch.no_grad():
        torch.testing.assert_close(load_model(tmp_path / "native").model(input_ids=ids)[0], wanted, rtol=0, atol=2e-5)
    changes: dict[str, Any] = {"rotary_emb_base": 10000, "n_head": 8, "layer_norm_epsilon": 0.2}
    for key, value in changes.items():
        layouts.convert(write(tmp_path / key, **{key: value}), tmp_path / f"native-{key}")
        with torch.no_grad():
            states = load_model(tmp_path / f"native-{key}").model(input_ids=ids)[0]
        torch.testing.assert_close(
            states, Published(NOMIC, state(), CONFIG | {key: value}).states(ids), rtol=0, atol=2e-5
        )
        assert (states - wanted).abs().max() > 0.05, key


def test_the_published_sizes() -> None:
    """nomic-embed-text-v1.5's own config: every value that the native class has a default for is stated."""
    sizes = {"n_embd": 768, "n_head": 12, "n_inner": 3072, "n_layer": 12, "n_positions": 8192, "vocab_size": 30528}
    native = nomic.native_config(CONFIG | sizes | {"rotary_emb_base": 1000})
    made = hf.NomicBertConfig(**{key: x for key, x in native.items() if key != "model_type"})
    published_model = hf.NomicBertConfig()  # transformers' defaults are that model's
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"):
        assert getattr(made, key) == getattr(published_model, key), key
    for key in ("layer_norm_eps", "hidden_act", "type_vocab_size", "rope_parameters"):
        assert getattr(made, key) == getattr(published_model, key), key
    assert native["max_position_embeddings"] == 8192


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"rotary_scaling_factor": 2, "max_trained_positions": 128}, {"max_position_embeddings": 128}),
        ({"rotary_scaling_factor": 2, "n_positions": 2000}, {"max_position_embeddings": 2000}),
        ({"n_inner": None}, {"intermediate_size": 256}),
        ({"n_inner": 300}, {"intermediate_size": 512}),
        ({"vocab_size": 321}, {"vocab_size": 384}),
    ],
)
def test_keys_that_are_not_copied_as_they_are(changed: dict[str, Any], expected: dict[str, Any]) -> None:
    native = nomic.native_config(CONFIG | changed)
    assert {key: native[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("change", "config", "expected"),
    [
        (
            dict,
            {"num_experts": 8, "moe_every_n_layers": 2},
            "a mixture of experts",
        ),
        (dict, {"activation_function": "gelu"}, r'activation_function = "gelu", expected "swiglu"'),
        (dict, {"qkv_proj_bias": True}, r"qkv_proj_bias = true, expected false"),
        (dict, {"rotary_emb_fraction": 0.5}, r"rotary_emb_fraction = 0.5, expected 1.0"),
        (dict, {"rotary_emb_base": None}, r"rotary_emb_base = null, expected a positive number"),
        (dict, {"use_rms_norm": True}, r"use_rms_norm = true, expected false"),
        (dict, {"n_embd": 60.0}, r"n_embd = 60.0, expected an integer from 1"),
        (dict, {"n_head": 5}, r"n_embd = 64, expected a multiple of 10, for 5 heads"),
        (dict, {"n_layer": 3}, r"missing: layers.2.mlp.down_proj.weight"),
        (dict, {"n_layer": 1}, r"left over: layers.1.mlp.down_proj.weight"),
        (dict, {"n_inner": 512}, r"of another shape: layers.0.mlp.gate_proj.weight \(256, 64\), expected \(512, 64\)"),
        (without("0.attn.Wqkv"), {}, r"missing: layers.0.self_attn.k_proj.weight, layers.0.self_attn.q_proj.weight"),
        (
            lambda weights: weights | {"encoder.layers.0.attn.Wqkv.bias": torch.ones(192)},
            {},
            r"left over: layers.0.self_attn.k_proj.bias, layers.0.self_attn.q_proj.bias",
        ),
        (
            lambda weights: weights | {"encoder.layers.0.mlp.router.layer.weight": torch.ones(8, 64)},
            {},
            r"left over: encoder.layers.0.mlp.router.layer.weight",
        ),
    ],
)
def test_what_the_native_model_does_not_compute(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], config: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    checkpoint = write(tmp_path / "nomic", change(state()), **config)
    with pytest.raises(trivec.ModelFormatError, match=expected):
        trivec.export(checkpoint, tmp_path / "model", precision=["fp32"], max_texts=64, quiet=True)
    assert not (tmp_path / "model").exists()


def test_transformers_own_layout_is_left_alone(tmp_path: Path) -> None:
    layouts.convert(write(tmp_path / "nomic"), tmp_path / "native")
    config = json.loads((tmp_path / "native" / "config.json").read_text())
    assert not nomic.is_original(config)
    assert nomic.is_original(CONFIG)
    assert not nomic.is_original({"model_type": "gpt2", "n_embd": 64})
