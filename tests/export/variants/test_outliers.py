"""Channels a hundred times as strong as the others: int8 passes its gate, or is refused with the layer's name."""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tests.support.architectures import make
from tests.support.oracle import reference
from torch import Tensor

import trivec
from trivec._gate.figures import BOUNDS, Bounds, compare
from trivec._gate.texts import verification_texts
from trivec_export._variants import write
from trivec_export._variants.int8.quantize import Quantized

CHANNELS = [37, 251]
LAYERS = 2  # of MiniLM's six: real weights in a third of the time
_NORM = "encoder.layer.0.output.LayerNorm"
_NEXT = [f"encoder.layer.1.attention.self.{part}.weight" for part in ("query", "key", "value")]
_VALUE, _OUT = "encoder.layer.1.attention.self.value", "encoder.layer.1.attention.output.dense.weight"

Weights = Mapping[str, Tensor]


def in_a_norm(weights: Weights) -> None:
    """The residual carries them on, so that the model computes something else."""
    for part in ("weight", "bias"):
        weights[f"{_NORM}.{part}"][CHANNELS] *= 100


def in_a_norm_but_not_behind_it(weights: Weights) -> None:
    """The linear layers that read the norm undo it; the residual does not."""
    in_a_norm(weights)
    for name in _NEXT:
        weights[name][:, CHANNELS] /= 100


def in_the_values(weights: Weights) -> None:
    """The output projection undoes it: the vectors are MiniLM's."""
    for part in ("weight", "bias"):
        weights[f"{_VALUE}.{part}"][CHANNELS] *= 100
    weights[_OUT][:, CHANNELS] /= 100


@pytest.fixture
def checkpoint(minilm_checkpoint: Path, tmp_path: Path) -> Path:
    """The first layers of MiniLM, free to be changed."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(minilm_checkpoint, folder, copy_function=shutil.copyfile)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": LAYERS}))
    return folder


def export(checkpoint: Path, out: Path, change: Callable[[Weights], None]) -> str:
    """Change the weights and export: the complaint, or ""."""
    weights = load_file(checkpoint / "model.safetensors")
    kept = {
        name: tensor for name, tensor in weights.items() if int((re.findall(r"layer\.(\d)", name) or "0")[0]) < LAYERS
    }
    change(kept)
    save_file(kept, checkpoint / "model.safetensors", metadata={"format": "pt"})
    try:
        trivec.export(checkpoint, out, precision=["fp32", "int8"], max_texts=64, quiet=True)
    except trivec.GateError as error:
        return str(error)
    return ""


def check_passed(checkpoint: Path, out: Path) -> None:
    """int8 keeps the gate's bounds against sentence-transformers, on texts that the export did not verify with."""
    texts = verification_texts()[5::11]
    expected = reference(checkpoint).encode([text.text for text in texts])
    with trivec.load(out, precision="int8") as encoder:
        vectors = encoder.encode([text.text for text in texts])
    figures = compare(vectors, vectors, 1, expected, [text.kind for text in texts])
    assert figures.cosine_min >= BOUNDS["int8"].cosine_min
    assert figures.cosine_mean >= (BOUNDS["int8"].cosine_mean or 1)


@pytest.mark.parametrize("change", [in_a_norm, in_a_norm_but_not_behind_it])
def test_outlier_channels_pass_or_are_refused_by_name(
    change: Callable[[Weights], None], checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    complaint = export(checkpoint, out, change)
    variants = json.loads((out / "trivec.json").read_text())["encoders"]["main"]["variants"]
    if not complaint:
        assert sorted(variants) == ["fp32", "int8"]
        check_passed(checkpoint, out)
        return
    assert list(variants) == ["fp32"]
    assert not list((out / "onnx").glob("*int8*"))
    found = re.search(r"int8 is not faithful.*; largest layer error: (\S+) (\d\.\d+)\. ", complaint)
    assert found is not None, complaint
    layers = {f"encoder.layer.{i}.{part}.MatMul" for i in range(LAYERS) for part in PARTS}
    assert found[1] in layers
    assert 0 < float(found[2]) < 10


PARTS = (
    *(f"attention.self.{part}" for part in ("query", "key", "value")),
    *("attention.output.dense", "intermediate.dense", "output.dense"),
)


def test_outliers_that_smoothing_can_move_cost_nothing(checkpoint: Path, tmp_path: Path) -> None:
    assert export(checkpoint, tmp_path / "out", in_the_values) == ""
    check_passed(checkpoint, tmp_path / "out")


def test_a_refusal_names_the_layer_with_the_largest_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that no int8 keeps."""
    seen: list[Quantized] = []
    real = vars(write)["quantize"]

    def noted(*args: object, **options: object) -> Quantized:
        seen.append(real(*args, **options))
        return seen[-1]

    monkeypatch.setattr(write, "quantize", noted)
    monkeypatch.setitem(BOUNDS, "int8", Bounds(cosine_min=1.0))
    with pytest.raises(trivec.GateError) as caught:
        trivec.export(
            make("bert", tmp_path / "bert"), tmp_path / "out", precision=["fp32", "int8"], max_texts=64, quiet=True
        )
    worst = max((layer for layer in seen[0].layers if layer.precision == "int8"), key=lambda layer: layer.error)
    assert "int8 is not faithful to torch" in str(caught.value)
    assert f"; largest layer error: {worst.name} {worst.error:.2f}." in str(caught.value)
