"""A checkpoint without modules.json: its pooling is sentence-transformers' guess, and the export says so."""

import json
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from tests.support.architectures import make

import trivec
from trivec._inspect.info import info
from trivec._model import manifest_file
from trivec._model.checkpoint import read_checkpoint
from trivec._model.source import Folder
from trivec_export._checkpoint.pooling import assumed_pooling

TEXTS = ["", "a", "the rain in spain", "one two three four five " * 4]
GUESS = "assumed, as sentence-transformers does without modules.json"


def test_the_guess_is_said_and_stands_in_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = make("bert", tmp_path / "bert")
    (checkpoint / "README.md").write_text("```js\nawait extractor(texts, { pooling: 'cls' })\n```\n")
    expected = SentenceTransformer(str(checkpoint), device="cpu").encode(TEXTS)
    out = trivec.export(checkpoint, tmp_path / "out", precision=["fp32"], max_texts=64)
    said = f"{GUESS}; README.md says cls"
    assert f"warning: mean pooling is {said}. Where another is right, save it so first: " in capsys.readouterr().err
    assert manifest_file.read(out).source["pooling"] == said
    assert f"How token embeddings are pooled is {said}." in (out / "REPORT.md").read_text()
    assert f"pooling {said}" in info(str(out))
    with trivec.load(out, device="cpu") as encoder:
        np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=1e-5)
    with pytest.raises(trivec.InputError, match="is pooled by mean, and pooling= is for graphs without"):
        trivec.load(checkpoint, export=True, pooling="cls")


def test_what_is_no_guess(tmp_path: Path) -> None:
    def said(**files: object) -> str | None:
        for name, content in files.items():
            path = tmp_path / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.with_suffix(".json").write_text(json.dumps(content))
        return assumed_pooling(Folder(tmp_path), read_checkpoint(Folder(tmp_path)))

    assert said(config={"architectures": ["BertModel"]}) == GUESS
    assert said(config={"architectures": ["BertForMaskedLM"], "vocab_size": 9}) is None  # SPLADE
    assert said(config={"architectures": ["QwenForCausalLM"]}) == GUESS
    assert said(**{"1_Pooling__config": {"pooling_mode": "max"}}) == f"{GUESS}; 1_Pooling/config.json says max"
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    listed = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    assert said(modules=listed) is None
