"""The text towers of CLIP and SigLIP: one vector a text, in sentence-transformers' space; images are another matter."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from tests.support.architectures import ROBERTA, _tokenizer, draw
from tests.support.oracle import least_cosine, reference

import trivec

TEXTS = ["a", "the rain in spain", "Hello, World! 12345", "two cats on a red boat " * 9]
_TEXT = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
_IMAGE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "image_size": 32, "patch_size": 16}


def clip(folder: Path) -> Path:
    text = _TEXT | {"num_attention_heads": 4, "max_position_embeddings": 24, "bos_token_id": 0, "eos_token_id": 2}
    config = hf.CLIPConfig(text_config=text, vision_config=_IMAGE | {"num_attention_heads": 4}, projection_dim=16)
    return write(hf.CLIPModel(config), folder, 24, "CLIPImageProcessor", "CLIPProcessor")


def siglip(folder: Path) -> Path:
    text = _TEXT | {"num_attention_heads": 4, "max_position_embeddings": 16, "pad_token_id": 1, "eos_token_id": 2}
    config = hf.SiglipConfig(text_config=text, vision_config=_IMAGE | {"num_attention_heads": 4})
    return write(hf.SiglipModel(config), folder, 16, "SiglipImageProcessor", "SiglipProcessor")


def write(model: Any, folder: Path, length: int, images: str, processor: str) -> Path:
    torch.manual_seed(0)
    draw(model.eval(), 1.0)
    model.save_pretrained(folder)
    tokenizer = _tokenizer(ROBERTA, length)
    tokenizer.save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    names = ["input_ids", *(["attention_mask"] if "CLIP" in images else [])]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"model_input_names": names}))
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": images, "processor_class": processor, "size": {"height": 32, "width": 32}})
    )
    return folder


def with_modules(folder: Path) -> Path:
    """As sentence-transformers 6 saves it."""
    listed = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}]
    (folder / "modules.json").write_text(json.dumps(listed))
    entry = {"method": "get_text_features", "method_output_name": "pooler_output"}
    settings = {
        "transformer_task": "feature-extraction",
        "modality_config": {"text": entry, "image": {**entry, "method": "get_image_features"}},
        "module_output_name": "sentence_embedding",
    }
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings))
    return folder


def export(folder: Path, **options: Any) -> Any:
    precision = options.pop("precision", ["fp32"])
    trivec.export(folder, folder.parent / "out", precision=precision, max_texts=64, quiet=True)
    return trivec.load(folder.parent / "out", device="cpu", precision=precision[-1])


@pytest.mark.parametrize("saved", [False, True])
def test_clip_equals_the_reference(saved: bool, tmp_path: Path) -> None:
    checkpoint = clip(tmp_path / "clip")
    checkpoint = with_modules(checkpoint) if saved else checkpoint
    with export(checkpoint) as encoder:
        vectors = encoder.encode(TEXTS)
        assert vectors.shape == (4, 16)
        expected = reference(checkpoint).encode(TEXTS, batch_size=1)
        np.testing.assert_allclose(vectors, expected, atol=1e-4)
        assert max(map(len, encoder.tokenize(TEXTS))) == 24
    notes = (tmp_path / "out/REPORT.md").read_text()
    assert "put right" not in notes


def test_siglip_is_padded_as_it_was_trained(tmp_path: Path) -> None:
    checkpoint = with_modules(siglip(tmp_path / "siglip"))
    oracle = reference(checkpoint)
    padded = {"text": {"padding": "max_length", "max_length": 16}}
    expected = oracle.encode(TEXTS, processing_kwargs=padded)
    alone = oracle.encode(TEXTS, batch_size=1)
    assert least_cosine(alone, expected) < 0.99  # what it gives by itself depends on the batch
    with export(checkpoint) as encoder:
        np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=1e-4)
        np.testing.assert_allclose(encoder.encode(TEXTS[0]), expected[0], atol=1e-4)
    notes = (tmp_path / "out/REPORT.md").read_text()
    assert "texts are padded to the 16 tokens that the model was trained on" in notes


def test_int8_of_a_text_tower(tmp_path: Path) -> None:
    checkpoint = clip(tmp_path / "clip")
    with export(checkpoint, precision=["fp32", "int8"]) as encoder:
        assert encoder.precision == "int8"
        expected = reference(checkpoint).encode(TEXTS, batch_size=1)
        assert least_cosine(encoder.encode(TEXTS), expected) >= 0.97
