"""A reading of a checkpoint that is wrong in one thing does not pass: sentence-transformers reads it by itself."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling
from tests.support.architectures import make
from tests.support.save_model import save_model
from tokenizers import Tokenizer

import trivec
from trivec._model.checkpoint import Checkpoint
from trivec._model.manifest import Route
from trivec_export import _draft, _export

Reading = Callable[[Checkpoint], Checkpoint]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with every kind of module behind it. Not to be changed."""
    base = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    dense = Dense(64, 32, activation_function=torch.nn.Tanh())
    modules = [Transformer(str(make("bert", base / "bert"))), Pooling(64, "mean", include_prompt=False)]
    modules += [dense, LayerNorm(32), Normalize()]
    model = SentenceTransformer(modules=modules, prompts={"query": "find this: "}, device="cpu")
    return save_model(model, base / "checkpoint")


@pytest.fixture
def checkpoint(saved: Path, tmp_path: Path) -> Path:
    """The same, free to be changed."""
    import shutil

    return Path(shutil.copytree(saved, tmp_path / "checkpoint"))


def export(checkpoint: Path) -> None:
    trivec.export(checkpoint, checkpoint.parent / "out", precision=["fp32"], max_texts=64, quiet=True)


def routes(change: Callable[[Route], Route]) -> Reading:
    return lambda found: dataclasses.replace(found, routes={name: change(r) for name, r in found.routes.items()})


def pooling(**values: Any) -> Reading:
    def change(route: Route) -> Route:
        assert route.pooling is not None
        return dataclasses.replace(route, pooling=dataclasses.replace(route.pooling, **values))

    return routes(change)


def steps(*kept: int) -> Reading:
    return routes(lambda route: dataclasses.replace(route, steps=tuple(route.steps[i] for i in kept)))


def activation(name: str) -> Reading:
    def change(route: Route) -> Route:
        first, *rest = route.steps
        return dataclasses.replace(route, steps=(dataclasses.replace(first, activation=name), *rest))

    return routes(change)


def transformer(**values: Any) -> Reading:
    def change(found: Checkpoint) -> Checkpoint:
        return dataclasses.replace(
            found, transformers={name: dataclasses.replace(t, **values) for name, t in found.transformers.items()}
        )

    return change


@pytest.mark.parametrize(
    ("misread", "module"),
    [
        (pooling(modes=("cls",)), "Pooling"),
        (pooling(modes=("max",)), "Pooling"),
        (pooling(modes=("lasttoken",)), "Pooling"),
        (pooling(modes=("weightedmean",)), "Pooling"),
        (pooling(modes=("mean_sqrt_len_tokens",)), "Pooling"),
        (activation("identity"), "Dense"),
        (activation("gelu"), "Dense"),
        (steps(0, 2), "LayerNorm"),
        (steps(0, 1), "Normalize"),
        (transformer(config_kwargs={"layer_norm_eps": 0.5}), "Transformer"),
        (transformer(config_kwargs={"hidden_act": "relu"}), "Transformer"),
    ],
)
def test_the_first_module_that_differs_is_named(
    misread: Reading, module: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = vars(_export)["read_checkpoint"]
    monkeypatch.setattr(_export, "read_checkpoint", lambda *given, **options: misread(real(*given, **options)))
    with pytest.raises(trivec.GateError, match=rf"for the text .*tokens \[.* differs is {module} \(number \d\)"):
        export(checkpoint)
    assert not (checkpoint.parent / "out").exists()


def test_a_dropped_dense_layer(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = vars(_export)["read_checkpoint"]
    monkeypatch.setattr(_export, "read_checkpoint", lambda *a, **o: steps(2)(real(*a, **o)))
    with pytest.raises((trivec.GateError, ValueError), match=r"Dense|broadcast"):
        export(checkpoint)


@pytest.mark.parametrize("misread", [transformer(max_seq_length=20), transformer(truncation_side="left")])
def test_other_token_ids(misread: Reading, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = vars(_export)["read_checkpoint"]
    monkeypatch.setattr(_export, "read_checkpoint", lambda *a, **o: misread(real(*a, **o)))
    with pytest.raises(trivec.GateError, match=r"token ids differ .* sentence-transformers .* here, \[.* there"):
        export(checkpoint)


def test_one_changed_id(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = vars(_draft)["save_tokenizer"]

    def swapped(tokenizer: Any, path: Path) -> None:
        real(tokenizer, path)
        content = json.loads(path.read_text())
        vocabulary = content["model"]["vocab"]
        vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
        Tokenizer.from_str(json.dumps(content)).save(str(path))

    monkeypatch.setattr(_draft, "save_tokenizer", swapped)
    with pytest.raises(trivec.GateError, match="token ids differ from those of sentence-transformers"):
        export(checkpoint)


def test_a_prompt_that_counts_on_one_side(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = vars(_export)["read_checkpoint"]
    misread = pooling(include_prompt=True)
    monkeypatch.setattr(_export, "read_checkpoint", lambda *a, **o: misread(real(*a, **o)))
    with pytest.raises(trivec.GateError, match=r"behind the prompt 'find this: ' vectors have a cosine of"):
        export(checkpoint)


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    found = load_file(folder / "model.safetensors")
    change(found)
    save_file(found, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("place", "change", "said"),
    [
        ("", lambda w: w.pop("encoder.layer.1.output.dense.weight"), r"no weights for 1 .*layer\.1\.output\.dense"),
        ("", lambda w: w.update({"linear.weight": torch.zeros(4, 64)}), r"1 weights .* does not read, .* linear\.w"),
        ("", lambda w: w.update({"classifier.bias": torch.zeros(2)}), r"does not read, such as classifier\.bias"),
        ("2_Dense", lambda w: w.update({"scale": torch.zeros(2)}), r"2_Dense has the weights scale|cannot load"),
        ("2_Dense", lambda w: w.pop("linear.bias"), "cannot load"),
    ],
)
def test_one_tensor_too_few_or_too_many(
    place: str, change: Callable[[dict[str, torch.Tensor]], object], said: str, checkpoint: Path
) -> None:
    weights(checkpoint / place, change)
    with pytest.raises(trivec.ModelFormatError, match=said):
        export(checkpoint)


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("1_Pooling/config.json", "attention_heads", 4),
        ("2_Dense/config.json", "dropout", 0.5),
        ("sentence_bert_config.json", "layers_used", [1, 2]),
        ("sentence_bert_config.json", "processing_kwargs", {"text": {"stride": 4}}),
        ("config_sentence_transformers.json", "vector_scale", 2.0),
        ("4_Normalize/config.json", "p", 1),
    ],
)
def test_an_ignored_setting(file: str, key: str, value: Any, checkpoint: Path) -> None:
    path = checkpoint / file
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        path.write_text("{}")
    rewrite(path, lambda content: content.update({key: value}))
    name = next(iter(value["text"])) if key == "processing_kwargs" else key
    with pytest.raises(trivec.ModelFormatError, match=rf"{name} = .*which trivec does not follow"):
        export(checkpoint)


def test_the_checkpoint_itself_passes(checkpoint: Path) -> None:
    export(checkpoint)
    manifest = json.loads((checkpoint.parent / "out/trivec.json").read_text())
    assert manifest["source"]["reference"].startswith("sentence-transformers ")
    assert "Reference: sentence-transformers" in (checkpoint.parent / "out/REPORT.md").read_text()
