"""Loading from the Hub: a small server on loopback that answers as the Hub does, and logs what it is asked."""

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from huggingface_hub import constants, hf_hub_download
from numpy.testing import assert_allclose
from onnx import numpy_helper
from tests.support.hub import Files, Hub, files_of
from tests.support.tiny_model import TinyModel

import trivec
import trivec_export
from trivec import DenseEncoder, InputError, IntegrityError, ModelFormatError, ModelNotFoundError
from trivec._cli.main import main
from trivec._inspect.info import info
from trivec._model import manifest_file
from trivec._model.find import find
from trivec._model.integrity import describe

NAME = "lab/tiny"
TEXTS = ["the cat sat", "", "a red boat " * 9]
MANIFEST_FILES = ["trivec.json", "tokenizer.json", "onnx/model.onnx", "onnx/model.onnx.data", "arrays.npz"]
INT8_FILES = [name.replace("model.", "model_int8.") for name in MANIFEST_FILES]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "hub"


@pytest.fixture
def manifest_files(tiny_folder: Path) -> Files:
    return files_of(tiny_folder)


@pytest.fixture
def other_files(tiny_folder: Path, tmp_path: Path) -> Files:
    """The same model with another embedding table: every file but the tokenizer and the arrays differs."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "other"))
    path = folder / "onnx" / "model.onnx"
    model = onnx.load(path)
    (folder / "onnx" / "model.onnx.data").unlink()
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[::-1].copy(), tensor.name))
    model.producer_name = "other"
    onnx.save_model(model, path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    text = (folder / "trivec.json").read_text()
    manifest = manifest_file.read(folder)
    for ref in manifest.encoders["main"].variants["fp32"].files:
        new = describe(folder, ref.path)
        text = text.replace(str(ref.sha256), str(new.sha256)).replace(
            f'"bytes": {ref.bytes},', f'"bytes": {new.bytes},'
        )
    (folder / "trivec.json").write_text(text)
    return files_of(folder)


@pytest.fixture
def optimum_files(tiny_folder: Path) -> Files:
    """What `optimum-cli export onnx` writes: one graph at the root, no modules.json; and an int8 graph beside it."""
    graphs = {
        name: onnx.load(tiny_folder / "onnx" / source).SerializeToString()
        for name, source in (("model.onnx", "model.onnx"), ("model_quantized.onnx", "model_int8.onnx"))
    }
    return {
        **graphs,
        "README.md": b"# tiny",
        "config.json": json.dumps({"model_type": "bert", "max_position_embeddings": 32}).encode(),
        "model.safetensors": b"weights of torch",
        "special_tokens_map.json": b"{}",
        "tokenizer.json": (tiny_folder / "tokenizer.json").read_bytes(),
        "tokenizer_config.json": json.dumps({"model_max_length": 16}).encode(),
    }


@pytest.fixture
def load(cache: Path) -> Callable[..., DenseEncoder]:
    def function(name: str = NAME, **options: Any) -> DenseEncoder:
        encoder: DenseEncoder = trivec.load(name, **{"device": "cpu", "threads": 1, "cache_dir": cache, **options})
        return encoder

    return function


Load = Callable[..., DenseEncoder]


def refused(load: Load, name: str = NAME, error: type[Exception] = ModelNotFoundError, **options: Any) -> str:
    """The message of the one error that a load raises: of one line, with no other error behind it."""
    with pytest.raises(error) as caught:
        load(name, **options)
    text = "".join(traceback.format_exception(caught.value))
    assert text.count("Traceback (most recent call last)") == 1, text
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- a folder with a manifest ----------------------------------------------------------------------------------------


def test_only_the_files_of_the_variant_are_fetched(
    hub: Hub, load: Load, manifest_files: Files, tiny_model: "TinyModel"
) -> None:
    hub.add(NAME, {**manifest_files, "README.md": b"", "pytorch_model.bin": b"never"})
    encoder = load()
    assert_allclose(encoder.encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)
    assert sorted(hub.files()) == sorted(MANIFEST_FILES)
    hub.log.clear()
    int8 = load(precision="int8")
    assert_allclose(int8.encode(TEXTS), tiny_model.expected(TEXTS, "int8"), atol=1e-6)
    assert sorted(hub.files()) == ["onnx/model_int8.onnx", "onnx/model_int8.onnx.data"]


@pytest.mark.parametrize("kind", ["manifest_files", "optimum_files"])
def test_the_second_load_asks_nothing(
    hub: Hub, load: Load, kind: str, request: pytest.FixtureRequest, tiny_model: "TinyModel"
) -> None:
    hub.add(NAME, request.getfixturevalue(kind))
    load()
    hub.log.clear()
    load()
    assert hub.log == []
    hub.stop()
    for options in ({}, {"local_files_only": True}):
        assert_allclose(load(**options).encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)


@pytest.mark.parametrize("closed", [False, True])
def test_files_are_fetched_without_a_stderr(
    hub: Hub, load: Load, manifest_files: Files, monkeypatch: pytest.MonkeyPatch, closed: bool
) -> None:
    hub.add("lab/tiny", manifest_files)
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stderr", stream if closed else None)
    assert load("lab/tiny").encode(["a", "b"]).shape == (2, 12)


def test_local_files_only_never_asks(hub: Hub, load: Load, manifest_files: Files) -> None:
    hub.add(NAME, manifest_files)
    assert refused(load, local_files_only=True) == (
        f"there is no folder 'lab/tiny' in {Path.cwd()}, and no repository lab/tiny in the cache (the Hub may not be "
        "asked: local_files_only)."
    )
    assert hub.log == []
    load()
    hub.log.clear()
    assert refused(load, local_files_only=True, precision="int8") == (
        "onnx/model_int8.onnx of lab/tiny is not in the cache (the Hub may not be asked: local_files_only)."
    )
    assert hub.log == []


def test_offline_mode_never_asks(
    hub: Hub, load: Load, manifest_files: Files, monkeypatch: pytest.MonkeyPatch, tiny_model: "TinyModel"
) -> None:
    hub.add(NAME, manifest_files)
    load()
    hub.log.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert_allclose(load().encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)
    assert "HF_HUB_OFFLINE" in refused(load, "lab/absent")
    assert hub.log == []


PROCESS = """
import sys, trivec
try:
    print(trivec.load(sys.argv[1], device="cpu", threads=1).encode("the cat").tobytes().hex())
except trivec.ModelNotFoundError as error:
    print("refused:", error)
"""


def test_the_environment_s_endpoint_home_and_offline_mode(
    hub: Hub, manifest_files: Files, tmp_path: Path, tiny_model: "TinyModel"
) -> None:
    hub.add(NAME, manifest_files)

    def run(**more: str) -> str:
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(trivec.__file__).parents[1]),
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "home"),
            **more,
        }
        environment.pop("HF_HUB_CACHE", None)
        command = [sys.executable, "-c", PROCESS, NAME]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def vector(output: str) -> Any:
        return np.frombuffer(bytes.fromhex(output), np.float32)

    expected = tiny_model.expected(["the cat"])[0]
    assert run(HF_HUB_OFFLINE="1").startswith("refused: there is no folder 'lab/tiny' in ")
    assert hub.log == []
    assert_allclose(vector(run()), expected, atol=1e-6)
    assert sorted(hub.files()) == sorted(MANIFEST_FILES)
    assert (tmp_path / "home" / "hub" / "models--lab--tiny").is_dir()
    hub.stop()
    assert_allclose(vector(run()), expected, atol=1e-6)
    assert_allclose(vector(run(HF_HUB_OFFLINE="1")), expected, atol=1e-6)


# ---- names -----------------------------------------------------------------------------------------------------------


def test_a_bare_name_is_one_of_sentence_transformers_first(hub: Hub, load: Load, manifest_files: Files) -> None:
    hub.add("sentence-transformers/tiny", manifest_files)
    hub.add("tiny", {"config.json": b"{}"})
    assert load("tiny").manifest.source["name"] == "tests/tiny"
    assert [line for line in hub.log if line.startswith("GET /api")] == ["GET /api/models/sentence-transformers/tiny"]


def test_another_s_bare_name_is_one_of_the_cache(hub: Hub, load: Load, cache: Path, manifest_files: Files) -> None:
    hub.add("tiny", manifest_files)
    message = refused(load, "tiny")
    assert message.startswith(
        f"there is no folder 'tiny' in {Path.cwd()}, no repository tiny in the cache, and no repository "
        "sentence-transformers/tiny in the cache or on the Hub. "
    )
    assert hub.log == ["GET /api/models/sentence-transformers/tiny"]
    for name in manifest_files:
        hf_hub_download("tiny", name, cache_dir=cache)
    hub.log.clear()
    load("tiny")
    assert hub.log == []


def test_that_a_bare_name_went_to_the_hub_is_said(
    hub: Hub, load: Load, manifest_files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    hub.add("sentence-transformers/words", manifest_files)
    load("words")
    (record,) = caplog.records
    assert record.getMessage().startswith(
        f"there is no folder 'words' in {Path.cwd()}, and sentence-transformers/words on the Hub is taken, at commit "
    )
    load("words")
    assert len(caplog.records) == 1  # from the cache


def test_a_missing_folder_comes_first_where_the_hub_cannot_be_reached(hub: Hub, load: Load) -> None:
    hub.stop()
    for name, asked in (("exp7", "sentence-transformers/exp7"), ("runs/exp7", "runs/exp7")):
        message = refused(load, name)
        assert message.startswith(f"there is no folder {name!r} in {Path.cwd()}; {asked}: the cache lacks files of it")


def test_a_folder_has_no_revisions(load: Load, tiny_folder: Path, tmp_path: Path) -> None:
    of_each: list[tuple[str, dict[str, Any]]] = [(str(tiny_folder), {}), (str(tmp_path), {"export": True})]
    for name, options in of_each:
        message = refused(load, name, error=InputError, revision="v2", **options)
        assert message.startswith(f"revision='v2' is for repositories on the Hub, and {name!r} is a folder, which")


@pytest.mark.parametrize("value", ["1", "true"])
def test_trivec_offline_never_asks(
    hub: Hub, load: Load, manifest_files: Files, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    hub.add(NAME, manifest_files)
    monkeypatch.setenv("TRIVEC_OFFLINE", value)
    assert "in the cache (the Hub may not be asked: TRIVEC_OFFLINE)" in refused(load)
    assert "the Hub may not be asked: TRIVEC_OFFLINE" in refused(load, "tiny")
    assert main(["info", NAME]) == 1
    assert hub.log == []
    monkeypatch.setenv("TRIVEC_OFFLINE", "0")
    load()


def test_the_exporter_s_libraries_do_not_ask_either() -> None:
    code = "import trivec_export; from huggingface_hub import constants; print(constants.HF_HUB_OFFLINE)"
    path = os.pathsep.join(str(Path(module.__file__ or "").parents[1]) for module in (trivec, trivec_export))
    for value, offline in (("1", "True"), ("0", "False")):
        environment = {**os.environ, "PYTHONPATH": path, "TRIVEC_OFFLINE": value}
        environment.pop("HF_HUB_OFFLINE", None)
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == offline


def test_an_export_of_what_is_cached_never_asks(
    hub: Hub, load: Load, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("lab/weights", {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"weights"})
    hub.add("lab/base", {"config.json": b"{}"})
    hf_hub_download("lab/weights", "config.json", cache_dir=cache)
    hub.log.clear()

    def export(model: str, out: Path, *, revision: str | None) -> None:  # as of an adapter, whose base is another model
        find("lab/base")

    monkeypatch.setattr(sys.modules["trivec._export"], "export", export)
    assert "and no repository lab/base in the cache (" in refused(
        load, "lab/weights", export=True, local_files_only=True
    )
    assert hub.log == []


def test_a_name_with_an_organization_is_tried_as_it_is(hub: Hub, load: Load) -> None:
    refused(load, "lab/absent")
    assert hub.log == ["GET /api/models/lab/absent"]


def test_a_folder_of_that_name_wins(
    hub: Hub, load: Load, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_folder, tmp_path / "lab" / "tiny")
    monkeypatch.chdir(tmp_path)
    load()
    assert hub.log == []


# ---- revisions -------------------------------------------------------------------------------------------------------


def test_a_branch_a_tag_and_a_commit(
    hub: Hub, load: Load, manifest_files: Files, other_files: Files, tiny_model: "TinyModel"
) -> None:
    repository = hub.add(NAME, manifest_files)
    commit = repository.commit(other_files, "v2/beta")
    main = load().encode(TEXTS)
    assert_allclose(main, tiny_model.expected(TEXTS), atol=1e-6)
    tagged = load(revision="v2/beta").encode(TEXTS)
    assert np.abs(tagged - main).max() > 0.1
    hub.stop()
    assert_allclose(load(revision=commit).encode(TEXTS), tagged)
    assert_allclose(load(revision="v2/beta").encode(TEXTS), tagged)
    assert_allclose(load(revision="main").encode(TEXTS), main)
    assert_allclose(load().encode(TEXTS), main)


@pytest.mark.parametrize("kind", ["manifest_files", "optimum_files"])
@pytest.mark.parametrize("moment", ["/resolve/", "tokenizer.json", ".onnx"])
def test_all_files_come_from_one_commit_though_main_moves_meanwhile(
    hub: Hub,
    load: Load,
    kind: str,
    moment: str,
    other_files: Files,
    request: pytest.FixtureRequest,
    tiny_model: "TinyModel",
) -> None:
    repository = hub.add(NAME, request.getfixturevalue(kind))
    first = repository.refs["main"]

    def move(line: str) -> None:
        if moment in line:
            repository.commit(other_files)

    hub.before = move
    encoder = load()
    assert repository.refs["main"] != first
    assert hub.revisions() == {first}
    assert_allclose(encoder.encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)
    hub.log.clear()
    load()  # and the cache's main is that commit
    assert hub.log == []


def test_a_file_fetched_later_is_of_the_cached_commit(
    hub: Hub, load: Load, manifest_files: Files, other_files: Files, tiny_model: "TinyModel"
) -> None:
    repository = hub.add(NAME, manifest_files)
    load()
    first = repository.refs["main"]
    repository.commit(other_files)
    hub.log.clear()
    assert_allclose(load(precision="int8").encode(TEXTS), tiny_model.expected(TEXTS, "int8"), atol=1e-6)
    assert hub.revisions() == {first}


def test_a_pickle_is_of_the_commit_that_was_loaded(
    hub: Hub, load: Load, manifest_files: Files, other_files: Files, tiny_model: "TinyModel", cache: Path
) -> None:
    repository = hub.add(NAME, manifest_files)
    data = pickle.dumps(load())
    repository.commit(other_files)
    shutil.rmtree(cache)
    assert_allclose(pickle.loads(data).encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)


def test_a_pickle_of_a_bare_name_is_of_the_repository_that_was_found(
    hub: Hub, load: Load, manifest_files: Files
) -> None:
    hub.add("sentence-transformers/tiny", manifest_files)
    copy = pickle.loads(pickle.dumps(load("tiny")))
    assert repr(copy) == "DenseEncoder('sentence-transformers/tiny', dim=12, fp32, cpu)"


# ---- a repository without a manifest ---------------------------------------------------------------------------------


def test_what_optimum_writes(hub: Hub, load: Load, optimum_files: Files, tiny_model: "TinyModel") -> None:
    hub.add(NAME, optimum_files)
    encoder = load()
    assert_allclose(encoder.encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)
    assert encoder.max_seq_length == 16
    assert encoder.manifest.source == {
        "name": NAME,
        "revision": hub.repositories[NAME].refs["main"],
        "has_modules": False,
        "pooling": "assumed, as sentence-transformers does",
    }
    described = ["README.md", "config.json", "tokenizer.json", "tokenizer_config.json"]
    assert sorted(hub.files()) == sorted([*described, "model.onnx"])
    assert not [line for line in hub.log if "modules.json" in line]  # the listing says that there is none


def test_a_listing_that_was_lost_costs_one_request(
    hub: Hub, load: Load, optimum_files: Files, trivec_home: Path
) -> None:
    hub.add(NAME, optimum_files)
    load()
    shutil.rmtree(trivec_home / "listings")
    hub.log.clear()
    load()
    # trivec.json, which may exist for all the cache knows, then the listing of the commit
    commit = hub.repositories[NAME].refs["main"]
    assert hub.log == [f"HEAD /{NAME}/resolve/{commit}/trivec.json", f"GET /api/models/{NAME}/revision/{commit}"]


def test_without_listing_and_network_the_cached_files_are_the_model(
    hub: Hub, load: Load, optimum_files: Files, trivec_home: Path, tiny_model: "TinyModel"
) -> None:
    hub.add(NAME, optimum_files)
    load()
    shutil.rmtree(trivec_home / "listings")
    hub.stop()
    found = load(local_files_only=True).encode(TEXTS)
    assert_allclose(found, tiny_model.expected(TEXTS), atol=1e-6)


def test_int8_in_the_cache_does_not_become_the_choice_of_auto(
    hub: Hub, load: Load, optimum_files: Files, tiny_model: "TinyModel"
) -> None:
    hub.add(NAME, optimum_files)
    load(precision="int8")
    assert "model.onnx" not in hub.files()
    assert refused(load, local_files_only=True).startswith("model.onnx of lab/tiny is not in the cache")
    assert_allclose(load().encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)


def test_a_checkpoint_without_graphs(hub: Hub, load: Load) -> None:
    hub.add(NAME, {"config.json": b"{}", "model.safetensors": b"x", "tokenizer.json": b"{}"})
    assert refused(load) == (
        f"{NAME} is a checkpoint without ONNX graphs. Type: trivec export {NAME} OUT   "
        "(or load(..., export=True) where trivec[export] is installed)"
    )
    assert hub.files() == ["config.json"]  # which would say that it is a static model; no weights


def test_a_repository_that_is_no_model(hub: Hub, load: Load) -> None:
    hub.add(NAME, {"README.md": b"text"})
    assert refused(load).startswith(f"{NAME} is no model: it has neither a trivec.json nor a config.json")


# ---- external data ---------------------------------------------------------------------------------------------------


def test_graph_and_data_are_links_into_the_blobs(hub: Hub, load: Load, manifest_files: Files, cache: Path) -> None:
    hub.add(NAME, manifest_files)
    load().encode("a")
    (snapshot,) = (cache / "models--lab--tiny" / "snapshots").iterdir()
    for name in ("model.onnx", "model.onnx.data"):
        path = snapshot / "onnx" / name
        assert path.is_symlink()
        assert path.resolve().parent.name == "blobs"


def test_data_that_lies_in_a_third_folder_is_refused(
    hub: Hub, load: Load, manifest_files: Files, cache: Path, tmp_path: Path
) -> None:
    hub.add(NAME, manifest_files)
    load().close()
    (snapshot,) = (cache / "models--lab--tiny" / "snapshots").iterdir()
    link = snapshot / "onnx" / "model.onnx.data"
    elsewhere = tmp_path / "store" / "weights"
    elsewhere.parent.mkdir()
    shutil.move(link.resolve(), elsewhere)
    link.unlink()
    link.symlink_to(elsewhere)
    assert refused(load, error=ModelFormatError).startswith(f"{link} leads to {elsewhere}, out of the model folder")


@pytest.mark.parametrize("location", ["weights.bin", "", "parts/w.bin"])
def test_data_of_other_names_is_fetched_by_the_locations_in_the_graph(
    hub: Hub, load: Load, optimum_files: Files, tmp_path: Path, tiny_model: "TinyModel", location: str
) -> None:
    """One file of a name of its own, or one a tensor; what else lies in the repository stays there."""
    place = tmp_path / "saved" / "onnx"
    (place / "parts").mkdir(parents=True)
    options: dict[str, Any] = {"location": location} if location else {"all_tensors_to_one_file": False}
    model = onnx.load(tiny_model.folder / "onnx" / "model.onnx")
    onnx.save_model(model, place / "model.onnx", save_as_external_data=True, size_threshold=0, **options)
    saved = files_of(place.parent)
    others = {name: content for name, content in optimum_files.items() if not name.endswith(".onnx")}
    hub.add(NAME, {**others, **saved, "onnx/other.bin": b"x", "pytorch_model.bin": b"x"})
    encoder = load(pooling="mean")
    assert_allclose(encoder.encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)
    assert {name for name in hub.files() if name not in others} == saved.keys()
    encoder.encode(TEXTS * 40)  # the lanes' session opens the same files
    hub.stop()
    again = load(pooling="mean", local_files_only=True)
    assert again.fingerprint == encoder.fingerprint
    assert_allclose(again.encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)


def test_data_that_the_repository_lacks(hub: Hub, load: Load, optimum_files: Files, tmp_path: Path) -> None:
    graph = onnx.load_from_string(optimum_files["model.onnx"])
    onnx.save_model(graph, tmp_path / "m.onnx", save_as_external_data=True, location="gone.bin", size_threshold=0)
    hub.add(NAME, {**optimum_files, "model.onnx": (tmp_path / "m.onnx").read_bytes()})
    assert refused(load, error=trivec.ModelFormatError) == (
        f"{NAME}: model.onnx has weights in gone.bin, which is not there in the cache or on the Hub."
    )


# ---- graphs of other names -------------------------------------------------------------------------------------------


def test_the_only_graph_is_fetched_and_info_fetches_none(
    hub: Hub, load: Load, optimum_files: Files, tiny_model: "TinyModel", cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    graph = optimum_files.pop("model.onnx")
    del optimum_files["model_quantized.onnx"]
    hub.add(NAME, {**optimum_files, "onnx/model_uint8_O4.onnx": graph})
    assert "  int8       size unknown" in info(NAME)  # by its name
    assert not [name for name in hub.files() if name.endswith(".onnx")]
    encoder = load()
    assert encoder.precision == "fp32"  # by its weights
    assert_allclose(encoder.encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)


def test_one_of_several_graphs_is_fetched(hub: Hub, load: Load, optimum_files: Files, tiny_model: "TinyModel") -> None:
    graphs = {f"onnx/model_{name}.onnx": optimum_files["model.onnx"] for name in ("O1", "O2", "O3")}
    others = {name: content for name, content in optimum_files.items() if not name.endswith(".onnx")}
    hub.add(NAME, {**others, **graphs})
    assert refused(load).endswith(
        f"onnx/model_O1.onnx, onnx/model_O2.onnx, onnx/model_O3.onnx. Type: trivec.load({NAME!r}, "
        "file_name='onnx/model_O1.onnx')"
    )
    assert_allclose(load(file_name="model_O2.onnx").encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)
    assert [name for name in hub.files() if name.endswith(".onnx")] == ["onnx/model_O2.onnx"]


def test_torch_weights_alone_in_the_cache_and_no_network(
    hub: Hub, load: Load, optimum_files: Files, cache: Path
) -> None:
    """As sentence-transformers leaves a cache: whether there are graphs on the Hub, no file of it says."""
    hub.add(NAME, optimum_files)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        hf_hub_download(NAME, name, cache_dir=cache)
    hub.stop()
    assert refused(load, local_files_only=True) == (
        f"{NAME} has no ONNX graph in the cache (the Hub may not be asked: local_files_only); "
        "whether it has one on the Hub is not known. Load it once where the Hub may be asked, or type: "
        f"trivec export {NAME} OUT"
    )


# ---- damage ----------------------------------------------------------------------------------------------------------


def blob(cache: Path, name: str) -> Path:
    (snapshot,) = (cache / "models--lab--tiny" / "snapshots").iterdir()
    return (snapshot / name).resolve()


@pytest.mark.parametrize("name", ["tokenizer.json", "onnx/model.onnx", "onnx/model.onnx.data", "arrays.npz"])
@pytest.mark.parametrize("how", ["truncated", "altered"])
def test_a_damaged_file_is_fetched_once_more(
    hub: Hub, load: Load, manifest_files: Files, cache: Path, tiny_model: "TinyModel", name: str, how: str
) -> None:
    hub.add(NAME, manifest_files)
    load()
    data = manifest_files[name]
    damaged = data[:-7] if how == "truncated" else bytes([data[0] ^ 1]) + data[1:]
    blob(cache, name).write_bytes(damaged)
    hub.log.clear()
    assert_allclose(load().encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)
    assert hub.files() == [name]
    hub.log.clear()
    load()
    assert hub.log == []


def test_a_damaged_file_that_cannot_be_fetched(hub: Hub, load: Load, manifest_files: Files, cache: Path) -> None:
    hub.add(NAME, manifest_files)
    load()
    blob(cache, "onnx/model.onnx.data").write_bytes(b"short")
    hub.log.clear()
    with pytest.raises(IntegrityError, match=r"model\.onnx\.data has 5 bytes; the manifest says "):
        load(local_files_only=True)
    assert hub.log == []
    hub.status = 500
    message = refused(load, error=IntegrityError)
    assert "model.onnx.data has 5 bytes; the manifest says " in message
    assert "Fetching it anew failed: lab/tiny: " in message
    hub.stop()
    assert "Fetching it anew failed: lab/tiny: " in refused(load, error=IntegrityError)


def test_a_repository_whose_file_is_not_what_its_manifest_says(hub: Hub, load: Load, manifest_files: Files) -> None:
    hub.add(NAME, {**manifest_files, "tokenizer.json": manifest_files["tokenizer.json"][:-1]})
    message = refused(load, error=IntegrityError)
    assert "tokenizer.json has" in message
    assert hub.files().count("tokenizer.json") == 2  # fetched, found wrong, and fetched once more


def test_a_repository_that_lacks_a_file_of_its_manifest(hub: Hub, load: Load, manifest_files: Files) -> None:
    del manifest_files["onnx/model.onnx.data"]
    hub.add(NAME, manifest_files)
    assert refused(load) == "onnx/model.onnx.data of lab/tiny is not in the cache or on the Hub."


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_an_unknown_repository(hub: Hub, load: Load) -> None:
    assert refused(load, "nobody") == (
        f"there is no folder 'nobody' in {Path.cwd()}, no repository nobody in the cache, and no repository "
        "sentence-transformers/nobody in the cache or on the Hub. A private repository needs token= or `hf auth login`."
    )


@pytest.mark.parametrize("name", ["a b", "lab/ti ny", "lab/..", "-x", "lab/x.git", 5000 * "a"])
def test_names_that_no_repository_can_have(hub: Hub, load: Load, name: str) -> None:
    assert refused(load, name).startswith(f"there is no folder {name!r} in {Path.cwd()}, ")


def test_an_unknown_revision(hub: Hub, load: Load, manifest_files: Files) -> None:
    hub.add(NAME, manifest_files)
    assert refused(load, revision="v9").endswith("; lab/tiny has no revision 'v9' on the Hub.")
    load()
    assert refused(load, revision="v9").endswith("; lab/tiny has no revision 'v9' on the Hub.")


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_repository(hub: Hub, load: Load, manifest_files: Files, status: int) -> None:
    hub.add(NAME, manifest_files).gated = status
    assert refused(load) == "lab/tiny is gated: accept its terms on the Hub, then type `hf auth login` or pass token=."


def test_a_server_that_is_down(hub: Hub, load: Load) -> None:
    hub.stop()
    message = refused(load)
    assert "; lab/tiny: the cache lacks files of it, and fetching them from the Hub failed (" in message
    assert message.endswith("). Check the network, HF_ENDPOINT and the cache folder.")


@pytest.mark.parametrize("status", [400, 418, 500, 503])
def test_a_server_in_trouble(hub: Hub, load: Load, status: int) -> None:
    hub.status = status
    message = refused(load)
    assert "; lab/tiny: the Hub did not answer as expected: " in message
    assert len(hub.log) == 1


def test_a_server_that_is_no_hub(hub: Hub, load: Load, manifest_files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(NAME, manifest_files)
    monkeypatch.setattr(hub, "_answer", lambda _: (200, {}, b"<html>Please log in to the Wi-Fi</html>"))
    assert "; lab/tiny: the cache lacks files of it, and fetching them from the Hub failed (" in refused(load)


def test_the_token_goes_along(hub: Hub, load: Load, manifest_files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(NAME, manifest_files)
    seen = []
    send = BaseHTTPRequestHandler.send_response

    def recording(self: BaseHTTPRequestHandler, code: int, message: str | None = None) -> None:
        seen.append(self.headers.get("Authorization"))
        send(self, code, message)

    monkeypatch.setattr(BaseHTTPRequestHandler, "send_response", recording)
    load(token="a-secret")
    assert len(seen) >= 5
    assert set(seen) <= {"Bearer a-secret", None}
    assert seen.count("Bearer a-secret") >= 5
    assert "a-secret" not in repr(load(token="a-secret"))
