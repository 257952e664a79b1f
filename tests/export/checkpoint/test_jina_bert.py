"""jina-embeddings-v2 in its published layout, against the published model's arithmetic written down here."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.support.architectures import BERT, _tokenizer
from tests.support.oracle import least_cosine
from torch import Tensor
from torch.nn import functional

import trivec
from trivec_export._checkpoint.published.jina_bert import alibi_slopes

HIDDEN, INNER, LAYERS, HEADS = 48, 40, 2, 6
TEXTS = ["a", "the rain in spain", "Hello, World! 12345", "one two three four five six seven " * 12]
CONFIG: dict[str, Any] = {
    "architectures": ["JinaBertForMaskedLM"],
    "auto_map": {"AutoModel": "jinaai/jina-bert-implementation--modeling_bert.JinaBertModel"},
    "model_type": "bert",
    "position_embedding_type": "alibi",
    "feed_forward_type": "geglu",
    "emb_pooler": "mean",
    "hidden_act": "gelu",
    "vocab_size": 300,
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "max_position_embeddings": 8192,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "torch_dtype": "float16",
}


def draw() -> dict[str, Tensor]:
    """Weights by their published names; norms that are not neutral."""
    seed = torch.Generator().manual_seed(0)

    def random(*shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=seed) * scale

    def linear(name: str, out: int, into: int, *, bias: bool = True) -> dict[str, Tensor]:
        weight = {f"{name}.weight": random(out, into, scale=1.6 * into**-0.5)}
        return weight | ({f"{name}.bias": random(out, scale=0.1)} if bias else {})

    def norm(name: str) -> dict[str, Tensor]:
        return {f"{name}.weight": 1 + random(HIDDEN, scale=0.1), f"{name}.bias": random(HIDDEN, scale=0.1)}

    found = {"embeddings.word_embeddings.weight": random(300, HIDDEN)}
    found |= {"embeddings.token_type_embeddings.weight": random(2, HIDDEN)} | norm("embeddings.LayerNorm")
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            found |= linear(f"{layer}.attention.{part}", HIDDEN, HIDDEN)
        found |= norm(f"{layer}.attention.output.LayerNorm") | norm(f"{layer}.mlp.layernorm")
        found |= linear(f"{layer}.mlp.gated_layers", 2 * INNER, HIDDEN, bias=False)
        found |= linear(f"{layer}.mlp.wo", HIDDEN, INNER)
    return found | linear("pooler.dense", HIDDEN, HIDDEN)


def published(weights: dict[str, Tensor], ids: list[int], act: Any) -> Tensor:
    """Token embeddings (S, H) as modeling_bert.py of jina-bert-implementation computes them."""

    def norm(name: str, x: Tensor) -> Tensor:
        return functional.layer_norm(x, (HIDDEN,), weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-12)

    def linear(name: str, x: Tensor) -> Tensor:
        return functional.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    place = torch.arange(len(ids))
    slopes = torch.tensor([2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3])  # of 6 heads: 4, and every other one of 8
    alibi = -slopes[:, None, None] * (place[:, None] - place[None, :]).abs()  # (N, S, S)
    x = weights["embeddings.word_embeddings.weight"][ids] + weights["embeddings.token_type_embeddings.weight"][0]
    x = norm("embeddings.LayerNorm", x)
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}"
        heads = (
            linear(f"{layer}.attention.self.{part}", x).reshape(len(ids), HEADS, -1).transpose(0, 1)  # (N, S, D)
            for part in ("query", "key", "value")
        )
        q, k, v = heads
        scores = q @ k.transpose(1, 2) / math.sqrt(HIDDEN // HEADS) + alibi
        mixed = (scores.softmax(-1) @ v).transpose(0, 1).reshape(len(ids), HIDDEN)
        x = norm(f"{layer}.attention.output.LayerNorm", linear(f"{layer}.attention.output.dense", mixed) + x)
        wide = linear(f"{layer}.mlp.gated_layers", x)
        x = norm(f"{layer}.mlp.layernorm", linear(f"{layer}.mlp.wo", act(wide[:, :INNER]) * wide[:, INNER:]) + x)
    return x


def write(folder: Path, weights: dict[str, Tensor], **config: Any) -> Path:
    folder.mkdir()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    _tokenizer(BERT, 8192).save_pretrained(folder)
    kinds = (("Transformer", ""), ("Pooling", "1_Pooling"))
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling))
    settings = {"max_seq_length": 8192, "do_lower_case": False, "model_args": {"trust_remote_code": True}}
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(("kind", "act"), [("geglu", functional.gelu), ("reglu", functional.relu)])
@pytest.mark.parametrize("prefix", ["", "bert."])
def test_vectors_equal_the_published_arithmetic(kind: str, act: Any, prefix: str, tmp_path: Path) -> None:
    weights = draw()
    stored = {f"{prefix}{name}": tensor for name, tensor in weights.items()}
    checkpoint = write(tmp_path / "checkpoint", stored, feed_forward_type=kind)
    trivec.export(checkpoint, tmp_path / "out", precision=["fp32"], max_texts=64, quiet=True)
    with trivec.load(tmp_path / "out", device="cpu") as encoder:
        expected = np.stack([published(weights, ids, act).mean(0).numpy() for ids in encoder.tokenize(TEXTS)])
        assert least_cosine(encoder.encode(TEXTS), expected) >= 0.99999
        np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=1e-4)
        assert encoder.manifest.encoders["main"].attention == "fused"
        assert "own reading of its published layout" in encoder.manifest.source["reference"]


@pytest.mark.parametrize(
    ("heads", "expected"), [(4, [2**-2, 2**-4, 2**-6, 2**-8]), (3, [2**-4, 2**-8, 2**-2]), (1, [2**-8])]
)
def test_slopes_by_the_paper(heads: int, expected: list[float]) -> None:
    assert alibi_slopes(heads) == expected


def test_twelve_heads_as_the_base_model_has_them() -> None:
    found = alibi_slopes(12)
    assert found[:8] == [2.0 ** -(i + 1) for i in range(8)]
    assert found[8:] == [2.0 ** -(0.5 + i) for i in range(4)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"feed_forward_type": "original"}, "feed_forward_type"),
        ({"intermediate_size": 44}, "of another shape"),
        ({"is_decoder": True}, "is_decoder"),
    ],
)
def test_what_it_does_not_compute_is_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    checkpoint = write(tmp_path / "checkpoint", draw(), **change)
    with pytest.raises(trivec.ModelFormatError, match=said):
        trivec.export(checkpoint, tmp_path / "out", precision=["fp32"], max_texts=64, quiet=True)


def test_the_layout_of_the_code_model_is_refused_by_its_weights(tmp_path: Path) -> None:
    weights = draw() | {"encoder.layer.0.attention.self.layer_norm_q.weight": torch.ones(HIDDEN)}
    checkpoint = write(tmp_path / "checkpoint", weights)
    with pytest.raises(trivec.ModelFormatError, match=r"left over: .*layer_norm_q"):
        trivec.export(checkpoint, tmp_path / "out", precision=["fp32"], max_texts=64, quiet=True)
