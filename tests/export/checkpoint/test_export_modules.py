"""Every sentence-transformers module that a text model uses, in both generations of the config files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling
from tests.support.architectures import make
from tests.support.oracle import least_cosine, reference
from tests.support.save_model import save_model

import trivec

TEXTS = ["", "a", "the rain in spain", "Hello, World! 12345", "one two three four five six seven eight nine ten " * 4]
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
LEGACY = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
Build = Callable[..., Path]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Save a SentenceTransformer over a tiny random BERT: build(pooling, *after, prompts=..., ...)."""
    bert = make("bert", tmp_path / "bert")

    def save(mode: Any = "mean", *after: torch.nn.Module, include_prompt: bool = True, **options: Any) -> Path:
        transformer = Transformer(str(bert))
        modules = [transformer, Pooling(64, mode, include_prompt=include_prompt), *after]
        return save_model(SentenceTransformer(modules=modules, device="cpu", **options), tmp_path / "checkpoint")

    return save


def to_legacy(folder: Path) -> Path:
    """Rewrite the config files with the keys of sentence-transformers 2."""
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text())
    modes = pooling["pooling_mode"]
    modes = [modes] if isinstance(modes, str) else modes
    old = {"word_embedding_dimension": pooling["embedding_dimension"]} | {v: k in modes for k, v in LEGACY.items()}
    old["include_prompt"] = pooling.get("include_prompt", True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(old))
    settings = {"max_seq_length": 24, "do_lower_case": False}
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings))
    modules = json.loads((folder / "modules.json").read_text())
    for module in modules:
        module["type"] = f"sentence_transformers.models.{module['type'].rpartition('.')[2]}"
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def exported(checkpoint: Path, **options: Any) -> trivec.DenseEncoder:
    folder = trivec.export(checkpoint, checkpoint.parent / "model", precision=["fp32"], max_texts=64, quiet=True)
    encoder: trivec.DenseEncoder = trivec.load(folder, device="cpu", **options)
    return encoder


@pytest.mark.parametrize(
    "mode", [*MODES, ("cls", "max", "mean"), ("weightedmean", "lasttoken", "mean_sqrt_len_tokens")]
)
def test_pooling_modes(mode: str | tuple[str, ...], build: Build) -> None:
    checkpoint = build(mode)
    with exported(checkpoint) as encoder:
        expected = reference(checkpoint).encode(TEXTS)
        assert least_cosine(encoder.encode(TEXTS), expected) >= 0.99999
        np.testing.assert_allclose(encoder.encode(TEXTS), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["mean", ("cls", "mean")])
def test_config_files_of_the_older_generation(mode: str | tuple[str, ...], build: Build) -> None:
    checkpoint = to_legacy(build(mode, Normalize()))
    oracle = reference(checkpoint)
    with exported(checkpoint) as encoder:
        assert encoder.max_seq_length == oracle.max_seq_length == 24
        assert least_cosine(encoder.encode(TEXTS), oracle.encode(TEXTS)) >= 0.99999
        assert encoder.truncated == 1


def test_dense_layer_norm_normalize_prompts_and_similarity(build: Build) -> None:
    torch.manual_seed(1)
    after = [
        Dense(64, 32, activation_function=torch.nn.Tanh()),
        LayerNorm(32),
        Dense(32, 48, bias=False, activation_function=torch.nn.GELU()),
        Dense(48, 48, activation_function=torch.nn.Identity(), use_residual=True),
        Normalize(),
    ]
    checkpoint = build(
        "mean",
        *after,
        prompts={"query": "query: ", "passage": "passage: ", "other": "say "},
        default_prompt_name="other",
        similarity_fn_name="dot",
    )
    oracle = reference(checkpoint)
    with exported(checkpoint) as encoder:
        assert encoder.similarity_fn_name == "dot"
        assert encoder.prompts == oracle.prompts
        for ours, theirs in (
            (encoder.encode(TEXTS), oracle.encode(TEXTS)),
            (encoder.encode_query(TEXTS), oracle.encode_query(TEXTS)),
            (encoder.encode_document(TEXTS), oracle.encode_document(TEXTS)),
            (encoder.encode(TEXTS, prompt_name="passage"), oracle.encode(TEXTS, prompt_name="passage")),
            (encoder.encode(TEXTS, prompt="x "), oracle.encode(TEXTS, prompt="x ")),
            (encoder.encode(TEXTS, prompt=""), oracle.encode(TEXTS, prompt="")),
            (encoder.encode(TEXTS, truncate_dim=17), oracle.encode(TEXTS, truncate_dim=17)),
        ):
            assert least_cosine(ours, theirs) >= 0.99999
        plain, query = encoder.encode(TEXTS, prompt=""), encoder.encode_query(TEXTS)
        assert least_cosine(plain, query) < 0.999  # the prompt matters


@pytest.mark.parametrize("mode", [*MODES[:1], *MODES[2:]])
def test_prompt_left_out_of_the_pooling(mode: str, build: Build) -> None:
    checkpoint = build(mode, include_prompt=False, prompts={"query": "represent this query: "})
    oracle = reference(checkpoint)
    with exported(checkpoint) as encoder:
        assert least_cosine(encoder.encode_query(TEXTS), oracle.encode_query(TEXTS)) >= 0.99999
        if mode in ("mean", "cls", "weightedmean", "mean_sqrt_len_tokens"):
            encoder.manifest.routes["default"].pooling  # noqa: B018
            pooled = trivec.load(checkpoint.parent / "model", device="cpu")
            assert least_cosine(pooled.encode_query(TEXTS), pooled.encode(TEXTS)) < 0.9999


def test_a_truncate_dim_of_the_checkpoint_is_kept_and_does_not_blind_the_gate(build: Build) -> None:
    checkpoint = build(truncate_dim=20)
    with exported(checkpoint) as encoder:
        assert encoder.dim == 20
        assert encoder.manifest.dim == 64
        assert least_cosine(encoder.encode(TEXTS), reference(checkpoint).encode(TEXTS)) >= 0.99999


def test_lower_casing(build: Build) -> None:
    checkpoint = build()
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text())
    tokenizer["normalizer"] = None  # else the tokenizer lower-cases by itself
    (checkpoint / "tokenizer.json").write_text(json.dumps(tokenizer))
    plain = reference(checkpoint).encode(TEXTS)
    settings = json.loads((checkpoint / "sentence_bert_config.json").read_text())
    (checkpoint / "sentence_bert_config.json").write_text(json.dumps(settings | {"do_lower_case": True}))
    expected = reference(checkpoint).encode(TEXTS)
    with exported(checkpoint) as encoder:
        assert least_cosine(encoder.encode(TEXTS), expected) >= 0.99999
    assert least_cosine(plain, expected) < 0.99


def test_router_with_a_transformer_for_each_side(tmp_path: Path) -> None:
    query, document = make("bert", tmp_path / "q"), make("distilbert", tmp_path / "d")
    router = Router.for_query_document(
        [Transformer(str(query)), Pooling(64, "cls"), Dense(64, 32)],
        [Transformer(str(document)), Pooling(64, "mean"), Dense(64, 32)],
    )
    checkpoint = save_model(SentenceTransformer(modules=[router, Normalize()], device="cpu"), tmp_path / "checkpoint")
    check_router(checkpoint)


def test_router_behind_one_transformer(tmp_path: Path) -> None:
    bert = make("bert", tmp_path / "b")
    router = Router.for_query_document([Dense(64, 32)], [Dense(64, 32)], default_route="query")
    modules = [Transformer(str(bert)), Pooling(64), router]
    checkpoint = save_model(SentenceTransformer(modules=modules, device="cpu"), tmp_path / "checkpoint")
    encoder = check_router(checkpoint)
    assert len(encoder.manifest.encoders) == 1


def check_router(checkpoint: Path) -> trivec.DenseEncoder:
    oracle = reference(checkpoint)
    encoder = exported(checkpoint)
    assert least_cosine(encoder.encode_query(TEXTS), oracle.encode_query(TEXTS)) >= 0.99999
    assert least_cosine(encoder.encode_document(TEXTS), oracle.encode_document(TEXTS)) >= 0.99999
    assert least_cosine(encoder.encode(TEXTS), oracle.encode(TEXTS)) >= 0.99999
    assert least_cosine(encoder.encode_query(TEXTS), encoder.encode_document(TEXTS)) < 0.9
    with pytest.raises(trivec.InputError, match=r"task 'passage' is no route of this model.*'document', 'query'"):
        encoder.encode(TEXTS, task="passage")
    return encoder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            (
                "modules.json",
                lambda m: [*m, {"idx": 9, "name": "9", "path": "x", "type": "sentence_transformers.models.LSTM"}],
            ),
            "has the module LSTM",
        ),
        (("1_Pooling/config.json", lambda c: c | {"pooling_mode": "attention"}), "pooling mode 'attention'"),
        (("sentence_bert_config.json", lambda c: c | {"query_length": 32}), "query_length = 32"),
        (("modules.json", lambda m: m[:1]), "starts with Transformer, Pooling"),
        (
            ("config_sentence_transformers.json", lambda c: c | {"model_type": "SparseEncoder"}),
            "trivec runs SparseEncoder models of Transformer and SpladePooling",
        ),
    ],
)
def test_what_is_not_translated_raises(change: tuple[str, Callable[[Any], Any]], message: str, build: Build) -> None:
    checkpoint = build()
    path = checkpoint / change[0]
    path.write_text(json.dumps(change[1](json.loads(path.read_text()))))
    with pytest.raises(trivec.ModelFormatError, match=message):
        trivec.export(checkpoint, checkpoint.parent / "model", quiet=True)
    assert not (checkpoint.parent / "model").exists()


def test_pickled_weights_are_read_and_recorded(build: Build) -> None:
    from safetensors.torch import load_file

    checkpoint = build("mean", Dense(64, 32))
    expected = reference(checkpoint).encode(TEXTS)
    for folder in (checkpoint, checkpoint / "2_Dense"):
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    with exported(checkpoint) as encoder:
        assert least_cosine(encoder.encode(TEXTS), expected) >= 0.99999
        assert encoder.manifest.source["weights"] == "pytorch_model.bin"
