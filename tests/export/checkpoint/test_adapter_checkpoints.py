"""A checkpoint that is an adapter: alone, in a module's folder, and what ends in an error instead of a plain model."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tests.support.architectures import make
from tests.support.oracle import least_cosine, reference
from tests.support.save_model import save_model

import trivec

TEXTS = ["a", "the rain in spain", "Hello, World! 12345"]


def adapter(folder: Path, base: Path, **options: Any) -> Path:
    """A LoRA adapter of random weights, as PEFT saves it."""
    torch.manual_seed(1)
    model = get_peft_model(
        hf.BertModel.from_pretrained(base),
        LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": ["query", "value"], **options}),
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "magnitude" in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(str(folder))
    return folder


def checkpoint(folder: Path, base: Path, **options: Any) -> Path:
    """What sentence-transformers saves of a model that was trained with an adapter: no base weights."""
    made = save_model(
        SentenceTransformer(modules=[Transformer(str(base)), Pooling(64, "mean")], device="cpu"), folder / "checkpoint"
    )
    for name in ("model.safetensors", "config.json"):
        (made / name).unlink()
    return adapter(made, base, **options)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make("bert", tmp_path / "base")


def export(folder: Path, **options: Any) -> Path:
    return trivec.export(folder, folder.parent / "out", precision=["fp32"], max_texts=64, quiet=True, **options)


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"target_modules": ["dense"]}])
def test_an_adapter_alone_is_merged_into_the_model_it_names(
    options: dict[str, Any], base: Path, tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path, base, **options)
    with trivec.load(export(folder), device="cpu") as encoder:
        expected = reference(folder).encode(TEXTS, batch_size=1)
        assert least_cosine(encoder.encode(TEXTS), expected) >= 0.99999
    plain = save_model(
        SentenceTransformer(modules=[Transformer(str(base)), Pooling(64, "mean")], device="cpu"), tmp_path / "plain"
    )
    assert least_cosine(expected, reference(plain).encode(TEXTS)) < 0.99  # the adapter counts
    adapted, merged_into = encoder.manifest.origins
    assert {"adapter_config.json", "adapter_model.safetensors"} < adapted.files.keys()
    weights = hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest()
    assert (merged_into.name, merged_into.files["model.safetensors"]) == ("base", weights)


def test_an_adapter_that_transformers_itself_reads_wrongly(base: Path, tmp_path: Path) -> None:
    """Of DoRA it leaves out the magnitudes: PEFT and sentence-transformers differ, and nothing is written."""
    with pytest.raises(trivec.GateError, match=r"differs is Transformer \(number 1\)"):
        export(checkpoint(tmp_path, base, use_dora=True))


def test_base_weights_beside_it_are_those_that_it_names(base: Path, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, base)
    for name in ("model.safetensors", "config.json"):
        (folder / name).write_bytes((base / name).read_bytes())
    with trivec.load(export(folder), device="cpu") as encoder:
        assert least_cosine(encoder.encode(TEXTS), reference(folder).encode(TEXTS, batch_size=1)) >= 0.99999


def test_without_peft_there_is_no_such_model(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoint(tmp_path, base)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(trivec.MissingExtraError, match=r"is an adapter .*Type: pip install peft"):
        export(folder)


def test_a_base_that_cannot_be_found(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = checkpoint(tmp_path, base)
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": "no/such-model"}))
    with pytest.raises(trivec.ModelNotFoundError, match=r"is an adapter for 'no/such-model', which cannot be found"):
        export(folder)


def test_an_adapter_of_another_model(base: Path, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, base)
    weights = load_file(folder / "adapter_model.safetensors")
    weights["base_model.model.encoder.layer.9.attention.self.query.lora_A.weight"] = torch.zeros(4, 64)
    save_file(weights, folder / "adapter_model.safetensors")
    with pytest.raises(trivec.ModelFormatError, match=r"does not fit BertModel: .*layer\.9"):
        export(folder)


def test_a_setting_that_this_peft_does_not_know(base: Path, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, base)
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"use_tomorrow": 3}))
    with pytest.raises(trivec.ModelFormatError, match=r"use_tomorrow = 3, which this PEFT does not know"):
        export(folder)


def test_adapters_in_folders_are_never_left_out_in_silence(base: Path, tmp_path: Path) -> None:
    adapter(base / "french", base)
    with pytest.raises(trivec.ModelFormatError, match=r"adapters in folders of their own \(french\).*--tasks french"):
        export(base)
    with trivec.load(export(base, tasks=["french"]), device="cpu") as encoder:
        assert list(encoder.manifest.routes) == ["french"]
        model = hf.BertModel.from_pretrained(base)
        model.load_adapter(str(base / "french"))
        tokens = [torch.tensor([ids]) for ids in encoder.tokenize(TEXTS)]
        with torch.no_grad():
            expected = torch.stack([model.eval()(input_ids=ids)[0][0].mean(0) for ids in tokens])
        assert least_cosine(encoder.encode(TEXTS), expected.numpy()) >= 0.99999
