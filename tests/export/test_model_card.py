"""README.md of a model folder: the model card that a hub reads."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from tests.support.architectures import make
from tests.support.hub import Hub, files_of

import trivec
from trivec._gate.checks import Check
from trivec._gate.figures import Figures
from trivec._loading.load_keywords import Precision
from trivec._model import manifest_file
from trivec_export._folder.card import render

SOURCE = """---
license: apache-2.0
language: [en, de]
datasets: [some/set]
library_name: sentence-transformers
model-index: [{name: x}]
---
# A model
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card")
    checkpoint = make("bert", folder / "checkpoint")
    (checkpoint / "README.md").write_text(SOURCE)
    return trivec.export(checkpoint, folder / "out", precision=["fp32", "int8"], max_texts=64, quiet=True)


def test_a_hub_reads_it(exported: Path) -> None:
    card = ModelCard.load(exported / "README.md")
    assert card.data.library_name == "trivec"
    assert card.data.license == "apache-2.0"
    assert card.data.language == ["en", "de"]
    assert card.data.pipeline_tag == "sentence-similarity"
    assert {"onnx", "trivec", "dense", "fp32", "int8"} <= set(card.data.tags or [])
    assert "base_model" not in card.data.to_dict()  # the source is a folder of this machine
    assert "model-index" not in card.data.to_dict()
    assert "trivec.load(" in card.text
    for precision in ("fp32", "int8"):
        gate = manifest_file.read(exported).encoders["main"].variants[precision].gate or {}
        assert f"| {precision} | {gate['cosine_min']:.6f} |" in card.text


def test_an_uploaded_folder_loads_by_its_name(exported: Path, hub: Hub, tmp_path: Path) -> None:
    """All that `hf upload FOLDER REPO` sends lies there; what the chosen variant reads is fetched, and no more."""
    uploaded = files_of(exported)
    assert {"README.md", "REPORT.md", "onnx/model.onnx", "onnx/model_int8.onnx"} <= set(uploaded)
    hub.add("lab/card", uploaded)
    texts = ["the cat sat", "a red boat"]
    others: dict[Precision, str] = {"int8": "fp32", "fp32": "int8"}
    for precision, other in others.items():
        hub.log.clear()
        with trivec.load("lab/card", precision=precision, device="cpu", cache_dir=tmp_path / precision) as encoder:
            vectors = encoder.encode(texts)
        with trivec.load(exported, precision=precision, device="cpu") as encoder:
            np.testing.assert_array_equal(vectors, encoder.encode(texts))
        variants = manifest_file.read(exported).encoders["main"].variants
        fetched = set(hub.files())
        assert {ref.path for ref in variants[precision].files} <= fetched
        assert not fetched & {ref.path for ref in variants[other].files}
        assert not fetched & {"README.md", "REPORT.md"}


@pytest.mark.parametrize("stated", [None, "no front matter", "---\nlicense: [unclosed\n---\n"])
def test_a_source_without_a_card(stated: str | None, exported: Path, tmp_path: Path) -> None:
    if stated is not None:
        (tmp_path / "README.md").write_text(stated)
    manifest = manifest_file.read(exported)
    text = render(manifest, _checks(exported), tmp_path)
    (tmp_path / "card.md").write_text(text)
    assert ModelCard.load(tmp_path / "card.md").data.license is None


def test_a_repository_is_the_base_model(exported: Path, tmp_path: Path) -> None:
    import dataclasses

    manifest = manifest_file.read(exported)
    manifest = dataclasses.replace(manifest, source={**manifest.source, "name": "some-one/some.model"})
    (tmp_path / "card.md").write_text(render(manifest, _checks(exported), tmp_path))
    data = ModelCard.load(tmp_path / "card.md").data.to_dict()
    assert data["base_model"] == "some-one/some.model"
    assert data["base_model_relation"] == "quantized"


def _checks(exported: Path) -> dict[str, dict[str, Check]]:
    from types import SimpleNamespace
    from typing import cast

    known = {field.name for field in dataclasses.fields(Figures)}
    found = {}
    for precision, variant in manifest_file.read(exported).encoders["main"].variants.items():
        stated = {name: value for name, value in (variant.gate or {}).items() if name in known}
        found[precision] = {"main": cast("Check", SimpleNamespace(figures=Figures(**stated, worst=0)))}
    return found
