"""The pains that users of comparable libraries report, by their row in the survey of peers (section 3, 25 rows).

From the user's end: `tests/export/test_peers_export.py` has the rows that need a checkpoint (2, 3, 6, 7, 8, 10, 15 to
19), this file the others. What a row asks of a GPU is tested as far as a CPU can show it: in 12 and 14 onnxruntime says
that it has CUDA and runs on the CPU. Not tested, since it does not apply yet: the rerankers of 14, and the BM25 of 25.
"""

import asyncio
import dataclasses
import importlib.metadata
import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from onnx import TensorProto, helper, numpy_helper
from packaging.requirements import Requirement
from tests.support.tiny_model import TinyModel

import trivec
from trivec import DenseEncoder, IntegrityError, ProviderError
from trivec._cli.main import main
from trivec._loading import choice
from trivec._model import manifest as manifest_module
from trivec._model import manifest_file
from trivec._model.integrity import describe
from trivec._model.manifest import Manifest, Variant

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ["the cat sat on the mat", "", "A small RED boat", "dog " * 40, "blue river under the old tree", "bird"]
WIDTH = 2048  # of the hidden layer of `wide`


def load(folder: Path, **options: Any) -> DenseEncoder:
    encoder: DenseEncoder = trivec.load(folder, **{"device": "cpu", "threads": 1, **options})
    return encoder


def python(code: str | Path, *arguments: object, timeout: float = 60, **environment: str) -> Any:
    """What a fresh process prints, read as JSON. It must end by itself, with nothing on stderr."""
    program = [str(code)] if isinstance(code, Path) else ["-c", code]
    done = subprocess.run(
        [sys.executable, *program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(Path(trivec.__file__).parents[1]), **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def rewrite(folder: Path, variants: dict[str, Variant] | None = None, **changes: Any) -> None:
    """Change the variants and fields of the encoder, and bring the digests up to date with the files."""
    manifest = manifest_file.read(folder)
    encoder = manifest.encoders["main"]
    described = {
        name: dataclasses.replace(variant, files=tuple(describe(folder, ref.path) for ref in variant.files))
        for name, variant in (encoder.variants if variants is None else variants).items()
    }
    changed: Manifest = dataclasses.replace(
        manifest, encoders={"main": dataclasses.replace(encoder, variants=described, **changes)}
    )
    (folder / manifest_module.FILE_NAME).write_text(manifest_file.dumps(changed), encoding="utf-8")


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that may be changed."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """What pyproject.toml says of the package."""
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def names(lines: Iterable[str]) -> set[str]:
    return {Requirement(line).name for line in lines}


# ---- installing ------------------------------------------------------------------------------------------------------


def test_row_01_the_runtime_needs_no_transformers_and_nothing_is_pinned(
    project: dict[str, Any], tiny_model: "TinyModel"
) -> None:
    """1: ONNX extras that pin transformers below 4.58, so that pip downgrades it or its holes stay open."""
    extras: dict[str, list[str]] = project["optional-dependencies"]
    runtime = [*project["dependencies"], *extras["cpu"], *extras["gpu"], *extras["static"]]
    assert "transformers" in names(extras["export"])
    assert {"transformers", "torch", "optimum", "sentence-transformers"}.isdisjoint(names(runtime))
    every = [Requirement(line) for lines in (project["dependencies"], *extras.values()) for line in lines]
    assert [str(r) for r in every if not r.specifier.contains("9999")] == []  # no upper bounds
    installed = importlib.metadata.version("transformers")
    assert int(installed.partition(".")[0]) >= 5
    assert all(r.specifier.contains(installed) for r in every if r.name == "transformers")
    code = """
import json, sys
for name in ("torch", "transformers", "optimum", "sentence_transformers", "scipy", "onnx"):
    sys.modules[name] = None  # as where it is not installed
import trivec
print(json.dumps(trivec.load(sys.argv[1], device="cpu", threads=1).encode(["a red cat", "dog"]).tolist()))
"""
    found = python(code, tiny_model.folder)
    assert_allclose(found, tiny_model.expected(["a red cat", "dog"]), atol=1e-6)


def test_row_13_engines_are_extras_and_every_advice_removes_both(
    project: dict[str, Any],
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """13: onnxruntime overwrites onnxruntime-gpu, and CUDA is gone; pip believes that both are installed.

    Removing one of them takes the files of both away, and pip then does not install the other anew.
    """
    extras: dict[str, list[str]] = project["optional-dependencies"]
    assert names(extras["cpu"]) == {"onnxruntime"}
    assert names(extras["gpu"]) == {"onnxruntime-gpu"}
    others = [*project["dependencies"], *(line for key in extras.keys() - {"cpu", "gpu"} for line in extras[key])]
    assert [name for name in names(others) if name.startswith("onnxruntime")] == []
    for name in ("onnxruntime", "onnxruntime_gpu"):
        metadata = tmp_path / f"{name}-1.99.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.99.0\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    main(["doctor"])
    with pytest.raises(ProviderError) as caught:
        load(tiny_folder, device="cuda")
    for advice in (capsys.readouterr().out, str(caught.value)):
        removed = re.search(r"pip uninstall -y ((?:onnxruntime\S* )+)", advice)
        assert removed is not None, advice
        assert set(removed[1].split()) == {"onnxruntime", "onnxruntime-gpu"}, advice
        assert 'pip install "trivec[gpu]"' in advice


def test_row_25_four_wheels_and_nothing_is_installed_on_the_way(project: dict[str, Any], tiny_folder: Path) -> None:
    """25: five seconds of import, and pip or a compiler that starts at run time."""
    assert names([*project["dependencies"], *project["optional-dependencies"]["cpu"]]) == {
        "numpy",
        "tokenizers",
        "huggingface_hub",
        "onnxruntime",
    }
    code = """
import json, sys
events = []
watched = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "socket.bind")
sys.addaudithook(lambda event, _: events.append(event) if event in watched else None)
import trivec
encoder = trivec.load(sys.argv[1], device="cpu", threads=1)
encoder.encode_document(["a cat", "dog " * 30], precision="int8")
encoder.encode_query("a cat", show_progress_bar=False)
slow = [name for name in ("torch", "transformers", "optimum", "scipy", "requests", "asyncio") if name in sys.modules]
print(json.dumps([events, slow]))
"""
    assert python(code, tiny_folder) == [[], []]


# ---- memory and threads ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wide(tiny_model: "TinyModel", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny tokenizer, 512 tokens, and 8 KB of hidden state a token."""
    folder = Path(shutil.copytree(tiny_model.folder, tmp_path_factory.mktemp("wide") / "model"))
    rng = np.random.default_rng(5)
    shapes = {"table": (24, 16), "up": (16, WIDTH), "down": (WIDTH, 12)}
    weights = {name: rng.normal(scale=0.1, size=shape).astype(np.float32) for name, shape in shapes.items()}
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
            helper.make_node("MatMul", ["embedded", "up"], ["hidden"]),
            helper.make_node("Tanh", ["hidden"], ["active"]),
            helper.make_node("MatMul", ["active", "down"], ["token_embeddings"]),
        ],
        "wide",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
        [helper.make_tensor_value_info("token_embeddings", TensorProto.FLOAT, ["batch", "tokens", 12])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "onnx/model.onnx.data").unlink()
    onnx.save_model(model, folder / "onnx/model.onnx")
    fp32 = manifest_file.read(folder).encoders["main"].variants["fp32"]
    only = {"fp32": dataclasses.replace(fp32, files=(describe(folder, "onnx/model.onnx"),))}
    rewrite(folder, only, max_seq_length=512, max_positions=512)
    return folder


MEMORY = """
import json, random, re, sys, trivec

def mb(key):
    return int(re.search(key + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024

encoder = trivec.load(sys.argv[1], device="cpu", threads=1)
encoder.encode("a")
rng, before, after = random.Random(0), mb("VmRSS"), []
words = ["cat", "dog", "the", "sat", "mat", "hill", "red", "blue"]
for _ in range(6):
    lengths = rng.sample(range(1, 510), 8)  # other ones each time
    encoder.encode([" ".join(rng.choices(words, k=rng.choice(lengths))) for _ in range(550)])
    after.append(mb("VmRSS"))
print(json.dumps([before, after, mb("VmHWM")]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_row_04_memory_is_bounded_and_does_not_grow_with_new_lengths(wide: Path) -> None:
    """4: an arena that only grows, until a container is killed at 5 GiB on 550 short texts."""
    before, after, peak = python(MEMORY, wide)
    one_run = 2048 * WIDTH * 4 / 2**20  # MB of the hidden state of one run at the default batch_size
    assert peak - before < 4 * one_run  # all texts padded to the longest would take 138 times as much
    assert max(after) - min(after) < 2 * one_run
    assert max(after[3:]) - max(after[:3]) < one_run / 2  # other lengths, and no memory of their own for each


QUOTA = """
import contextlib, io, json, os, pathlib, sys, trivec
from trivec._cli.main import main
from trivec._system.threads import available_threads, default_threads

available_threads.__defaults__ = default_threads.__defaults__ = (pathlib.Path(sys.argv[2]),)
os.sched_getaffinity = lambda _: set(range(64))
tasks = pathlib.Path("/proc/self/task")
trivec.load(sys.argv[1], device="cpu", threads=1).close()  # whatever else starts, has
before = len(list(tasks.iterdir()))
encoder = trivec.load(sys.argv[1], device="cpu")
started = len(list(tasks.iterdir())) - before
session = next(iter(encoder._pipelines.values())).session._session
spin = session.get_session_options().get_session_config_entry("session.intra_op.allow_spinning")
with contextlib.redirect_stdout(io.StringIO()) as said:
    main(["doctor"])
print(json.dumps([started, spin, [" ".join(line.split()) for line in said.getvalue().splitlines()]]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_row_05_a_quota_decides_how_many_threads_start_and_they_do_not_spin(wide: Path, tmp_path: Path) -> None:
    """5: a pool of 64 spinning threads in a container that may use 2 CPUs."""
    parent = tmp_path / "sys/fs/cgroup/kubepods"
    (parent / "pod").mkdir(parents=True)
    (parent / "pod/cpu.max").write_text("max 100000\n")
    (parent / "cpu.max").write_text("200000 100000\n")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/kubepods/pod\n")
    started, spin, lines = python(QUOTA, wide, tmp_path)
    assert started == 1  # the caller is the second thread
    assert spin == "0"
    assert "count 2" in lines
    assert "from cgroup CPU quota of 2" in lines
    assert any(line.startswith("spin no: a cgroup grants 2 CPUs") for line in lines)


# ---- numbers ---------------------------------------------------------------------------------------------------------


def test_row_09_a_vector_that_is_not_finite_stops_the_command(
    folder: Path, tiny_model: "TinyModel", tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """9: files full of NaN, and exit status 0."""
    row = tiny_model.weights["fp32"][0][tiny_model.ids("cat")[1]]  # (D,)
    data = folder / "onnx/model.onnx.data"
    content = data.read_bytes()
    assert content.count(row.tobytes()) == 1
    data.write_bytes(content.replace(row.tobytes(), np.full_like(row, np.nan).tobytes()))
    rewrite(folder)
    (tmp_path / "texts.txt").write_text("a dog\nthe old cat\na boat\n", encoding="utf-8")
    command = ["encode", str(folder), str(tmp_path / "texts.txt"), "--device", "cpu", "-o"]
    for name in ("out.npy", "out.jsonl"):
        assert main([*command, str(tmp_path / name)]) == 1
        assert not (tmp_path / name).exists()
        assert "'the old cat'" in capsys.readouterr().err
    with load(folder, precision="int8") as encoder:  # the variant that is whole still answers
        assert_allclose(encoder.encode(["the old cat"]), tiny_model.expected(["the old cat"], "int8"), atol=1e-6)


def test_row_24_int8_of_a_single_query_finds_what_float32_finds(tiny_folder: Path) -> None:
    """24: int8 of one vector, with ranges of its own batch, is all zeros and finds nothing."""
    words = ("find", "cat", "dog", "sat", "ran", "mat", "hill", "red", "blue", "small", "old", "house", "river")
    documents = [f"{a} {b}" for a in words for b in words if a < b]
    with load(tiny_folder) as encoder:
        exact = encoder.encode(documents, normalize_embeddings=True)
        small = encoder.encode(documents, precision="int8", normalize_embeddings=True)
        together = encoder.encode(words[:9], precision="int8", normalize_embeddings=True)
        for index, word in enumerate(words[:9]):
            query = encoder.encode(word, precision="int8", normalize_embeddings=True)
            assert len(np.unique(query)) > 6
            assert_array_equal(query, together[index])
            wanted = exact @ encoder.encode(word, normalize_embeddings=True)  # (N,)
            with np.load(tiny_folder / "arrays.npz") as arrays:
                ranges = arrays["default.normalized_ranges"]
            found = trivec.int8_scores(query[None], small, ranges)[0]  # (N,)
            assert wanted[int(found.argmax())] > np.sort(wanted)[-3]


# ---- devices ---------------------------------------------------------------------------------------------------------


def test_row_11_half_precision_is_never_chosen_on_a_cpu(folder: Path, tiny_model: "TinyModel") -> None:
    """11: fp16 on a CPU, where casts make it up to four times slower."""
    have = manifest_file.read(folder).encoders["main"].variants
    half = dataclasses.replace(have["fp32"], needs=("cuda",))
    expected: dict[tuple[str, ...], str] = {("fp16", "fp32", "int8"): "fp32", ("fp16", "int8"): "int8"}
    for variants, chosen in expected.items():
        rewrite(folder, {name: half if name == "fp16" else have[name] for name in variants})
        with load(folder) as encoder:
            assert encoder.precision == chosen
            assert_allclose(encoder.encode(TEXTS), tiny_model.expected(TEXTS, chosen), atol=1e-6)
    rewrite(folder, {"fp16": half})
    with pytest.raises(ProviderError, match=r"fp16 is not run on cpu: .* slower.* Load precision=\"fp32\" or \"int8\""):
        load(folder)


class WithoutCuda(onnxruntime.InferenceSession):  # type: ignore[misc]
    """What onnxruntime does where CUDA's libraries are missing: it opens on the CPU and says so to nobody."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "providers": ["CPUExecutionProvider"]})


@pytest.fixture
def cuda_in_name_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime says that it has CUDA, and every session runs on the CPU."""
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(onnxruntime, "InferenceSession", WithoutCuda)
    monkeypatch.setattr(choice, "_warned", set())


@pytest.mark.usefixtures("cuda_in_name_only")
def test_row_12_cuda_that_falls_back_raises_or_is_said(
    tiny_model: "TinyModel", caplog: pytest.LogCaptureFixture
) -> None:
    """12: CUDA was asked for, the CPU runs, and the health check says CUDA."""
    with pytest.raises(ProviderError, match=r"'cuda:0' was asked for, but onnxruntime fell back to CPUExecutionProv"):
        load(tiny_model.folder, device="cuda")
    with caplog.at_level(logging.WARNING, logger="trivec"):
        for _ in range(2):
            with load(tiny_model.folder, device="auto") as encoder:
                assert encoder.device == "cpu"
                assert "cpu" in repr(encoder)
                assert_allclose(encoder.encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)
                with pytest.raises(trivec.InputError, match="this encoder runs on cpu, not 'cuda'"):
                    encoder.encode(TEXTS, device="cuda")
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["cuda"]
    assert "fell back" in caplog.records[0].getMessage()


@pytest.mark.usefixtures("cuda_in_name_only")
def test_row_14_int8_is_not_run_on_cuda(tiny_model: "TinyModel") -> None:
    """14: graphs that are several times slower on a GPU than torch, int8 above all (the part that a CPU can show)."""
    with pytest.raises(ProviderError, match=r"int8 is not run on cuda: .*no CUDA kernels.* device=\"cpu\"\."):
        load(tiny_model.folder, device="cuda", precision="int8")
    with load(tiny_model.folder, device="auto", precision="int8") as encoder:
        assert encoder.device == "cpu"
        assert_allclose(encoder.encode(TEXTS), tiny_model.expected(TEXTS, "int8"), atol=1e-6)


# ---- files -----------------------------------------------------------------------------------------------------------


def cached(folder: Path, hub: Path) -> Path:
    """The model as "lab/tiny" in a Hub cache: links in a snapshot, files among the blobs."""
    repository, commit = hub / "models--lab--tiny", "b" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(commit)
    (repository / "blobs").mkdir()
    for path in (p for p in folder.rglob("*") if p.is_file()):
        blob = repository / "blobs" / path.relative_to(folder).as_posix().replace("/", "-")
        link = repository / "snapshots" / commit / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, blob)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return repository


def test_row_20_a_cached_model_loads_behind_a_firewall(tiny_model: "TinyModel", tmp_path: Path) -> None:
    """20: the Hub is asked although all files are there, and behind a firewall nothing ever comes back."""
    cached(tiny_model.folder, tmp_path / "hub")
    code = """
import json, os, sys, trivec
os.environ.pop("HF_HUB_OFFLINE", None)  # nobody says that there is no network
encoder = trivec.load("lab/tiny", device="cpu", threads=1)
print(json.dumps(encoder.encode(["a red cat"]).tolist()))
"""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, answers none
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environment = {"HF_ENDPOINT": url, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
        found = python(code, timeout=240, NO_PROXY="127.0.0.1", **environment)
        silent.settimeout(0.05)
        with pytest.raises(TimeoutError):  # nobody knocked
            silent.accept()
    assert_allclose(found, tiny_model.expected(["a red cat"]), atol=1e-6)


@pytest.mark.parametrize("damage", ["cut", "zeros"])
def test_row_21_an_interrupted_download_is_found_and_does_not_last(
    tiny_model: "TinyModel", tmp_path: Path, damage: str
) -> None:
    """21: half a file in the cache, unnoticed for months; and a failure that stays when the file is whole again."""
    repository = cached(tiny_model.folder, tmp_path / "hub")
    blob = repository / "blobs/onnx-model.onnx.data"
    whole = blob.read_bytes()
    half = whole[: len(whole) // 2]
    options: dict[str, Any] = {"device": "cpu", "threads": 1, "cache_dir": tmp_path / "hub", "local_files_only": True}
    for _ in range(2):
        blob.write_bytes(half if damage == "cut" else half.ljust(len(whole), b"\0"))
        with pytest.raises(IntegrityError, match=r"model\.onnx\.data has .* the manifest says"):
            trivec.load("lab/tiny", **options)
        blob.write_bytes(whole)
        with trivec.load("lab/tiny", **options) as encoder:
            assert_allclose(encoder.encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)


# ---- many callers ----------------------------------------------------------------------------------------------------


def test_row_23_the_event_loop_goes_on_and_the_graph_is_opened_once(
    wide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """23: an embedding call that stops the event loop, and a session that is built anew for every call."""
    opened: list[Any] = []
    met = 0
    loops: list[asyncio.AbstractEventLoop] = []

    class Asking(onnxruntime.InferenceSession):  # type: ignore[misc]
        """In a run, it waits for the event loop to answer, which a loop that is held up never does."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            opened.append(arguments[0])
            super().__init__(*arguments, **options)

        def run(self, *arguments: Any, **options: Any) -> Any:
            nonlocal met
            for loop in loops:
                answer = threading.Event()
                loop.call_soon_threadsafe(answer.set)
                assert answer.wait(240), "the event loop is held up"
                met += 1
            return super().run(*arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Asking)
    documents = ["cat " * (200 + i) for i in range(120)]

    async def serve(encoder: DenseEncoder) -> list[Any]:
        loops.append(asyncio.get_running_loop())
        answers = await asyncio.gather(*(encoder.aencode(part) for part in (documents, "a cat", documents, ["dog"])))
        loops.clear()
        return answers

    with load(wide) as encoder:
        expected = encoder.encode(documents)
        answers = asyncio.run(serve(encoder))
        for found in (answers[0], answers[2]):
            assert_allclose(found, expected, rtol=0, atol=1e-6)
        assert_allclose(answers[1], encoder.encode("a cat"), rtol=0, atol=1e-6)
        assert_allclose(answers[3], encoder.encode(["dog"]), rtol=0, atol=1e-6)
    assert len(opened) == 1
    assert met > 10


def test_row_22_iterators_that_end_early_leave_nothing_behind(tiny_folder: Path) -> None:
    """22: a worker dies or an iterator is closed, and the parent hangs or prints errors of `__del__` at its end."""
    code = """
import json, sys, threading, trivec

read = []
def texts(end=None):
    for i in range(10_000_000):
        read.append(i)
        if i == end:
            raise KeyError("the source broke")
        yield "cat " * (i % 7)

encoder = trivec.load(sys.argv[1], device="cpu", threads=1)
before = threading.active_count()
closed = encoder.encode_iter(texts(), window=64)
shapes = [next(closed).shape for _ in range(3)]
closed.close()
first = len(read)
found = []
try:
    for block in encoder.encode_iter(texts(end=300), window=64):
        found.append(len(block))
except KeyError as error:
    found.append(error.args[0])
after = threading.active_count()
left = encoder.encode_iter(texts(), window=64)  # never finished and never closed
next(left)
print(json.dumps([shapes, first, found, after - before]))
"""
    shapes, read, found, threads = python(code, tiny_folder, timeout=240)
    assert shapes == [[64, 12]] * 3
    assert read <= 64 * 10  # some windows ahead, not the whole source
    assert found == [64, 64, 64, 64, 44, "the source broke"]  # no text before the error is lost
    assert threads == 0


KILLED = """
import json, multiprocessing, os, pathlib, signal, sys, threading, time, trivec

here = pathlib.Path(__file__).parent
run = trivec.DenseEncoder._run

def stay(self, texts, call):
    if texts and texts[0].startswith("stay"):
        (here / str(os.getpid())).touch()
        time.sleep(300)  # longer than anybody waits
    return run(self, texts, call)

def kill(pid):
    while not (here / str(pid)).exists():
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)

def main():
    encoder = trivec.load(sys.argv[1], device="cpu", threads=1)
    texts = [f"{'cat ' * 400} {i}" for i in range(9)]
    with encoder.start_multi_process_pool(["cpu", "cpu"]) as pool:
        few = encoder.encode(texts, pool=pool).tolist()
        victim = multiprocessing.active_children()[1]
        killer = threading.Thread(target=kill, args=(victim.pid,), daemon=True)
        killer.start()
        try:
            encoder.encode(["stay 1", "stay 2"], pool=pool, chunk_size=1)
            message = "nothing was said"
        except trivec.WorkerError as error:
            message = str(error)
    children = len(multiprocessing.active_children())
    print(json.dumps([message, victim.pid, children, few, encoder.encode(texts).tolist()]))

if __name__ == "__main__":
    main()
else:  # a worker
    trivec.DenseEncoder._run = stay
"""


def test_row_22_a_worker_that_is_killed_raises_and_nobody_hangs(wide: Path, tmp_path: Path) -> None:
    """22: a worker is killed where memory runs out, and its parent waits for it for ever."""
    job = tmp_path / "job.py"  # workers import what they are started from: a file
    job.write_text(KILLED, encoding="utf-8")
    message, pid, children, few, alone = python(job, wide)
    assert f"pid {pid}) was killed by SIGKILL" in message
    assert children == 0
    assert_allclose(few, alone, rtol=0, atol=1e-6)
