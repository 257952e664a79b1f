"""How folders without modules.json are pooled: what was said, what was read, and what is a guess with a warning."""

import json
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from huggingface_hub import constants
from numpy.testing import assert_allclose, assert_array_equal
from onnx import TensorProto, helper, numpy_helper
from tests.support.hub import Hub, files_of
from tests.support.tiny_model import DIM, TinyModel

import trivec
from trivec import InputError, ModelFormatError
from trivec._cli.main import main
from trivec._loading import choice

GOLDEN = Path(__file__).parents[2] / "golden"
TEXTS = ["the cat sat", "", "a red boat " * 9, "find"]
Json = Mapping[str, Any]
Make = Callable[..., Path]
CLS = {"word_embedding_dimension": DIM, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]
NORMALIZE = {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A process that has said nothing yet, and a Hub's cache with nothing in it."""
    monkeypatch.setattr(choice, "_warned", set())
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def make(tiny_folder: Path, tmp_path: Path) -> Make:
    """The tiny model's fp32 graph and tokenizer without a manifest, and files of JSON or text by their path."""

    def build(files: Json = {}, change: Callable[[onnx.ModelProto], None] | None = None) -> Path:  # noqa: B006
        folder = tmp_path / "model"
        (folder / "onnx").mkdir(parents=True)
        shutil.copy(tiny_folder / "tokenizer.json", folder)
        model = onnx.load(tiny_folder / "onnx" / "model.onnx")
        if change is not None:
            change(model)
        onnx.save_model(model, folder / "onnx" / "model.onnx")
        config = {"model_type": "bert", "max_position_embeddings": 16, **files.get("config.json", {})}
        write(folder, {**files, "config.json": config})
        return folder

    return build


def write(folder: Path, files: Json) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def put_in_cache(cache: Path, name: str, files: Json) -> None:
    """A repository's commit, as huggingface_hub keeps it."""
    commit = "b" * 40
    repository = cache / f"models--{name.replace('/', '--')}"
    write(repository, {"refs/main": commit})
    write(repository / "snapshots" / commit, files)


def load(folder: Path | str, **options: Any) -> trivec.DenseEncoder:
    encoder: trivec.DenseEncoder = trivec.load(folder, **{"device": "cpu", "threads": 1, **options})
    return encoder


def expected(model: TinyModel, mode: str) -> Any:
    """(N, D) in numpy, by sentence-transformers' definitions."""
    table, weight = model.weights["fp32"]
    rows = []
    for text in TEXTS:
        tokens = np.tanh(table[model.ids(text)] @ weight)  # (S, D)
        places = np.arange(1, len(tokens) + 1)[:, None]
        rows.append(
            {
                "cls": tokens[0],
                "mean": tokens.mean(0),
                "max": tokens.max(0),
                "lasttoken": tokens[-1],
                "weightedmean": (tokens * places).sum(0) / places.sum(),
                "mean_sqrt_len_tokens": tokens.sum(0) / np.sqrt(len(tokens)),
            }[mode]
        )
    return np.stack(rows)


def check(encoder: trivec.DenseEncoder, model: TinyModel, mode: str, said: str) -> None:
    assert_allclose(encoder.encode(TEXTS), expected(model, mode), atol=1e-5)
    assert encoder.manifest.source["pooling"] == said


# ---- said by the user ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["cls", "mean", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens"])
def test_pooling_settles_it(
    make: Make, tiny_model: TinyModel, mode: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make()
    encoder = load(folder, pooling=mode)
    check(encoder, tiny_model, mode, "by pooling=")
    assert encoder.load_arguments() == {"pooling": mode}
    again = pickle.loads(pickle.dumps(encoder))
    assert_array_equal(again.encode(TEXTS), encoder.encode(TEXTS))
    assert not caplog.records
    assert (load(folder).fingerprint == encoder.fingerprint) == (mode == "mean")
    assert main(["info", str(folder), "--pooling", mode]) == 0
    out = capsys.readouterr().out
    assert f"default: main -> {mode}\n" in out
    assert "pooling by pooling=" in out


def test_the_command_line_takes_it_too(make: Make, tiny_model: TinyModel, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("\n".join([*TEXTS, ""]), encoding="utf-8")
    options = ["--pooling", "cls", "--file-name", "model.onnx", "--device", "cpu"]
    assert main(["encode", str(make()), str(tmp_path / "in.txt"), "-o", str(tmp_path / "out.npy"), *options]) == 0
    assert_allclose(np.load(tmp_path / "out.npy"), expected(tiny_model, "cls"), atol=1e-5)


def test_pooling_that_is_none_or_that_the_model_says_otherwise(make: Make, tiny_folder: Path) -> None:
    folder = make({"modules.json": MODULES, "1_Pooling/config.json": CLS})
    with pytest.raises(InputError, match="pooling 'median' is not one of cls, max, mean"):
        load(folder, pooling="median")
    with pytest.raises(InputError, match=r"pooling='mean': .* is pooled by cls, and pooling= is for graphs without"):
        load(folder, pooling="mean")
    with pytest.raises(InputError, match=r"pooling='cls': .* is pooled by mean, and pooling= is for graphs without"):
        load(tiny_folder, pooling="cls")
    others: dict[str, Any] = {"static": "cls", "splade": "mean", "hybrid": "max"}
    for kind, other in others.items():
        with pytest.raises(InputError, match=f"pooling='{other}': .*{kind} is pooled by "):
            trivec.load(GOLDEN / kind, pooling=other)
    with pytest.raises(InputError, match=r"file_name='model.onnx': .* is a static model, which runs no graph"):
        trivec.load(GOLDEN / "static", file_name="model.onnx")
    assert load(folder, pooling="cls").fingerprint == load(folder).fingerprint
    assert load(tiny_folder, pooling="mean").fingerprint == load(tiny_folder).fingerprint


# ---- guessed ---------------------------------------------------------------------------------------------------------


def test_a_guess_is_one_warning_that_names_it(
    make: Make,
    tiny_model: TinyModel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = make()
    for _ in range(2):
        encoder = load(folder)
        check(encoder, tiny_model, "mean", "assumed, as sentence-transformers does")
    monkeypatch.setattr(choice, "_warned", set())  # as in a process of a pool
    check(pickle.loads(pickle.dumps(encoder)), tiny_model, "mean", "assumed, as sentence-transformers does")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.message == (
        f"{folder} has no modules.json, and mean pooling is assumed, as sentence-transformers does. Where it was "
        f"trained with another, its vectors are wrong. Settle it: trivec.load({str(folder)!r}, pooling='cls'), or "
        "'mean' where that is right."
    )
    assert main(["info", str(folder)]) == 0
    assert "pooling assumed, as sentence-transformers does" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("files", "mode", "said"),
    [
        (
            {"config.json": {"architectures": ["QwenForCausalLM"]}},
            "lasttoken",
            "assumed, as sentence-transformers does",
        ),
        (
            {"tokenizer_config.json": {"padding_side": "left"}},
            "lasttoken",
            "assumed, for its tokenizer pads on the left",
        ),
        ({"tokenizer_config.json": {"padding_side": "right"}}, "mean", "assumed, as sentence-transformers does"),
        ({"README.md": "pooling: 'cls', or with pooling: 'mean'"}, "mean", "assumed, as sentence-transformers does"),
        ({"README.md": "last_hidden_state[:, 0:5]"}, "mean", "assumed, as sentence-transformers does"),
        ({"README.md": "a text on pooling and [CLS] tokens"}, "mean", "assumed, as sentence-transformers does"),
    ],
)
def test_other_guesses(
    make: Make, tiny_model: TinyModel, caplog: pytest.LogCaptureFixture, files: Json, mode: str, said: str
) -> None:
    check(load(make(files)), tiny_model, mode, said)
    assert f"and {mode} pooling is {said}." in caplog.text


# ---- read ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["1_Pooling", "onnx/1_Pooling", "openvino/1_Pooling"])
def test_a_pooling_module_anywhere(
    make: Make, tiny_model: TinyModel, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    check(load(make({f"{place}/config.json": CLS})), tiny_model, "cls", f"by {place}/config.json")
    assert not caplog.records


def test_two_pooling_modules_that_differ_say_nothing(
    make: Make, tiny_model: TinyModel, caplog: pytest.LogCaptureFixture
) -> None:
    files = {"1_Pooling/config.json": CLS, "other/1_Pooling/config.json": {"pooling_mode": "max"}}
    check(load(make(files)), tiny_model, "mean", "assumed, as sentence-transformers does")
    assert len(caplog.records) == 1


CARDS = {  # as the cards of such repositories write it
    "transformers.js": ("const output = await extractor(texts, { pooling: 'cls', normalize: true });", "cls"),
    "double quotes": ('extractor(texts, {"pooling": "mean"})', "mean"),
    "older architecture": (
        "Pooling({'pooling_mode_cls_token': True, 'pooling_mode_mean_tokens': False, 'pooling_mode_max': False})",
        "cls",
    ),
    "square root": ("'pooling_mode_mean_sqrt_len_tokens': True", "mean_sqrt_len_tokens"),
    "architecture": ("Pooling({'embedding_dimension': 64, 'pooling_mode': 'lasttoken'})", "lasttoken"),
    "server": ("text-embeddings-router --model-id x --pooling last-token --port 80", "lasttoken"),
    "torch cls": ("# Perform pooling.\n    sentence_embeddings = model_output[0][:, 0]\n", "cls"),
    "torch state": ("embeddings = outputs.last_hidden_state[:, 0, :]", "cls"),
    "torch tuple": ("query_embeddings = model(**query_tokens)[0][:, 0]", "cls"),
    "function": ("def mean_pooling(model_output, attention_mask):\n    return 1", "mean"),
    "average": ("embeddings = average_pool(outputs.last_hidden_state, mask)", "mean"),
}


@pytest.mark.parametrize("card", CARDS)
def test_a_statement_of_the_card(
    make: Make, tiny_model: TinyModel, card: str, caplog: pytest.LogCaptureFixture
) -> None:
    text, mode = CARDS[card]
    readme = f"---\nlibrary_name: x\n---\n\n# A model\n\n```\n{text}\n```\nThe same again: {text}\n"
    check(load(make({"README.md": readme})), tiny_model, mode, "by README.md")
    assert not caplog.records


BASE = "lab/base-v1.5"
NAMED: dict[str, Json] = {
    "a value": {"README.md": f"---\ntags: [x]\nbase_model: {BASE}\nbase_model_relation: quantized\n---\n# a\n"},
    "quotes": {"README.md": f"---\nbase_model: '{BASE}'\n---\npooling: 'max'"},
    "a list": {"README.md": f"---\nbase_model:\n- {BASE}\ntags:\n- y\n---\n"},
    "in brackets": {"README.md": f'---\nbase_model: ["{BASE}"]\n---\n'},
    "config": {"config.json": {"_name_or_path": BASE}},
}


@pytest.mark.parametrize("how", NAMED)
def test_the_base_model_where_it_is_cached(
    make: Make, tiny_model: TinyModel, tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    put_in_cache(
        tmp_path / "own", BASE, {"modules.json": [*MODULES, NORMALIZE], "1_Pooling/config.json": CLS, "config.json": {}}
    )
    encoder = load(make(NAMED[how]), cache_dir=tmp_path / "own")
    wanted = expected(tiny_model, "cls")
    assert_allclose(encoder.encode(TEXTS), wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-5)
    assert encoder.manifest.source["pooling"] == f"by its base model {BASE}"
    assert not caplog.records


@pytest.mark.parametrize("files", [{}, {"modules.json": MODULES}, {"config.json": {}}])
def test_a_base_model_that_is_not_wholly_cached_is_named(
    make: Make, tiny_model: TinyModel, tmp_path: Path, files: Json, caplog: pytest.LogCaptureFixture
) -> None:
    if files:
        put_in_cache(tmp_path / "hub", BASE, files)
    why = f"the Hub's cache has no modules.json of {BASE}, which it was made from"
    check(load(make(NAMED["config"])), tiny_model, "mean", f"assumed, as sentence-transformers does ({why})")
    assert why in caplog.text


def test_a_layer_of_the_base_model_that_is_not_here(
    make: Make, tiny_model: TinyModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dense = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    files = {"modules.json": [*MODULES, dense], "1_Pooling/config.json": CLS, "2_Dense/config.json": {}}
    put_in_cache(tmp_path / "hub", BASE, files)
    said = f"assumed from its base model {BASE}, whose dense layer is not here"
    check(load(make(NAMED["a list"])), tiny_model, "cls", said)
    assert f"cls pooling is {said}" in caplog.text


@pytest.mark.parametrize("origin", ["/models/BAAI_bge", "./", "bert-base-uncased", 3, None, "../other", "./m"])
def test_origins_that_are_no_repository(make: Make, tiny_model: TinyModel, origin: Any) -> None:
    encoder = load(make({"config.json": {"_name_or_path": origin}}))
    check(encoder, tiny_model, "mean", "assumed, as sentence-transformers does")


def test_the_card_of_a_repository_on_the_hub(hub: Hub, make: Make, tiny_model: TinyModel, tmp_path: Path) -> None:
    folder = make({"README.md": CARDS["transformers.js"][0]})
    hub.add("lab/bge-onnx", files_of(folder))
    encoder = load("lab/bge-onnx", cache_dir=tmp_path / "cache")
    check(encoder, tiny_model, "cls", "by README.md")
    settled = load("lab/bge-onnx", cache_dir=tmp_path / "cache", local_files_only=True, pooling="cls")
    assert settled.fingerprint == encoder.fingerprint


# ---- graphs that pool ------------------------------------------------------------------------------------------------


def with_sentences(model: onnx.ModelProto, *, alone: bool) -> None:
    """The maximum over the tokens as a sentence embedding."""
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "axes"))
    model.graph.node.append(
        helper.make_node("ReduceMax", ["token_embeddings", "axes"], ["sentence_embedding"], keepdims=0)
    )
    model.opset_import[0].version = 18
    if alone:
        del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["b", DIM]))


def test_a_graph_that_pools_needs_no_guess(make: Make, tiny_model: TinyModel, caplog: pytest.LogCaptureFixture) -> None:
    folder = make({}, lambda model: with_sentences(model, alone=False))
    assert_allclose(load(folder).encode(TEXTS), expected(tiny_model, "max"), atol=1e-5)
    assert not caplog.records
    assert_allclose(load(folder, pooling="cls").encode(TEXTS), expected(tiny_model, "cls"), atol=1e-5)


def test_a_graph_that_only_pools_takes_no_pooling(make: Make) -> None:
    folder = make({}, lambda model: with_sentences(model, alone=True))
    with pytest.raises(InputError, match="pooling= is given, and the graph gives sentence embeddings alone"):
        load(folder, pooling="cls")


def test_a_pooling_module_whose_file_is_missing(make: Make) -> None:
    """sentence-transformers cannot load such a folder either."""
    with pytest.raises(ModelFormatError, match=r"has no 1_Pooling/config.json, which says how it pools"):
        load(make({"modules.json": MODULES}))
