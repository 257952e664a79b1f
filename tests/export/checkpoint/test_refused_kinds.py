"""Kinds of checkpoints that are not made: each is refused by its name, before anything is loaded, with what to use."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.support.architectures import make

import trivec


def write(folder: Path, config: dict[str, Any], **files: Any) -> Path:
    make("bert", folder)
    found = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**found, **config}))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("config", "files", "said"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, {}, "a quantized checkpoint.*was made from"),
        ({"quantization_config": {"quant_method": "fp8"}}, {}, "a quantized checkpoint"),
        (
            {"architectures": ["HF_ColBERT"], "auto_map": {"AutoModel": "x--y.Z"}},
            {},
            "code of its own.*jina",
        ),
        (
            {},
            {"config_sentence_transformers": {"model_type": "MultiVectorEncoder"}},
            "no projection to vectors",
        ),
        ({"architectures": ["ColQwen2ForRetrieval"]}, {}, "a retrieval model of pages and images"),
        ({"model_type": "mixtral", "num_local_experts": 8}, {}, "a mixture of experts"),
        ({"model_type": "qwen3_moe", "num_experts": 128}, {}, "a mixture of experts"),
        ({"model_type": "xlnet"}, {}, "XLNet, CANINE, I-BERT"),
        ({"model_type": "canine"}, {}, "XLNet, CANINE, I-BERT"),
        ({"model_type": "ibert"}, {}, "XLNet, CANINE, I-BERT"),
        ({}, {"tokenizer_config": {"tokenizer_class": "PhobertTokenizer"}}, "a PhoBERT model"),
        ({"position_embedding_type": "relative_key"}, {}, "relative positions .*transformers 4"),
        ({"position_embedding_type": "relative_key_query"}, {}, "relative positions"),
    ],
)
def test_a_kind_is_refused_by_its_name(
    config: dict[str, Any], files: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(trivec.ModelFormatError, match=said):
        trivec.export(write(tmp_path / "checkpoint", config, **files), tmp_path / "out", quiet=True)


@pytest.mark.parametrize("name", ["tf_model.h5", "flax_model.msgpack", "model.q4.gguf"])
def test_weights_of_another_framework(name: str, tmp_path: Path) -> None:
    folder = make("bert", tmp_path / "checkpoint")
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(b"x")
    with pytest.raises(trivec.ModelNotFoundError, match=rf"{name} only, .*transformers 4"):
        trivec.export(folder, tmp_path / "out", quiet=True)


@pytest.mark.parametrize("name", ["linear.weight", "classifier.weight", "encoder.layer.0.attention.distance.weight"])
def test_weights_of_another_kind_are_refused_without_its_name(name: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = make("bert", tmp_path / "checkpoint")
    weights = load_file(folder / "model.safetensors") | {name: torch.ones(4, 64)}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(trivec.ModelFormatError, match=rf"BertModel does not read, such as {name}"):
        trivec.export(folder, tmp_path / "out", precision=["fp32"], max_texts=64, quiet=True)


@pytest.mark.parametrize(
    "names",
    [
        {"cls.predictions.bias": (300,), "cls.predictions.transform.LayerNorm.gamma": (64,)},
        {"cls.seq_relationship.weight": (2, 64)},
        {"embeddings.position_ids": (1, 128)},
        {"pooler.dense.weight": (64, 64)},
    ],
)
def test_weights_of_which_no_vector_is_made(names: dict[str, tuple[int, ...]], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = make("bert", tmp_path / "checkpoint")
    weights = load_file(folder / "model.safetensors") | {name: torch.ones(size) for name, size in names.items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    trivec.export(folder, tmp_path / "out", precision=["fp32"], max_texts=64, quiet=True)
    report = (tmp_path / "out/REPORT.md").read_text()
    assert ("not used: the masked-language-model head" in report) == any(name.startswith("cls") for name in names)
