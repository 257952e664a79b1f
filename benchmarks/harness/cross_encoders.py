"""The cross-encoders that are measured, and everybody who runs them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from benchmarks.harness import models
from benchmarks.harness.contest import Field
from benchmarks.harness.models import MINILM, XLM_R_BASE
from benchmarks.harness.stats import Shape
from benchmarks.harness.venvs import Failed
from benchmarks.harness.worker import Contender
from tokenizers import Tokenizer

LIMIT = 512  # tokens, of every engine
ENGINES = "benchmarks.harness.rerankers"
TORCH = "sentence-transformers"


class Subject(NamedTuple):
    """A cross-encoder that is measured."""

    key: str
    what: str
    make: Callable[[], tuple[Path, Path]]
    """The checkpoint, and trivec's folder of it; raises Failed."""
    shape: Shape
    pad: int
    """Its tokenizer's id of padding."""


def subjects(reranker: Path, tokenizer: Path, made: Path) -> tuple[Subject, ...]:
    """Those of a run.

    Args:
        reranker: the trained one's checkpoint.
        tokenizer: a folder with XLM-R's tokenizer.json.
        made: where models are kept.
    """
    trained, shaped = "the trained cross-encoder of MiniLM-L6's size", "XLM-R-base's shape with random weights"
    return (
        Subject("minilm", trained, lambda: models.trained_reranker(reranker, made), MINILM, 0),
        Subject("xlm-r-base", shaped, lambda: models.random_reranker(tokenizer, made), XLM_R_BASE, 1),
    )


def contenders(
    subject: Subject, checkpoint: Path, folder: Path, place: Field, wanted: Sequence[str]
) -> list[Contender]:
    """Everybody who scores pairs: trivec's variants, then the peers, or those with one of some words in their names."""
    common = {"threads": place.threads, "tokens": LIMIT, "pad": subject.pad}
    graph, fast = _graph(subject, checkpoint, place), place.work / f"models/{subject.key}-reranker-fastembed"
    if not isinstance(graph, Failed):
        models.fastembed_folder(graph, fast, LIMIT, graph)
    onnx, made = "" if isinstance(graph, Failed) else str(graph), str(checkpoint)
    ours = [
        Contender(
            f"trivec {p}", f"{ENGINES}:trivec", "trivec", {"folder": str(folder), "precision": p} | common, precision=p
        )
        for p in ("fp32", "int8")
    ]
    rows = (
        (TORCH, "sentence_transformers", TORCH, made, (32,)),
        ("FastEmbed", "fastembed", "fastembed", str(fast), (8, 32, 64)),
        (f"{TORCH} ONNX", "sentence_transformers_onnx", "onnx-4.57", onnx, (32,)),
        ("FlagEmbedding", "flagembedding", "flagembedding", made, (8, 32, 128)),
        ("onnxruntime, padded", "padded", "trivec", str(fast), (8, 32)),
    )
    peers = [
        Contender(name, f"{ENGINES}:{engine}", venv, {"folder": source} | common, batches)
        for name, engine, venv, source, batches in rows
    ]
    if isinstance(graph, Failed):
        for contender in peers:
            if contender.options["folder"] != made:
                place.fail(contender, graph)
    return [*ours, *(c for c in peers if not wanted or any(part in c.name.lower() for part in wanted))]


def _graph(subject: Subject, checkpoint: Path, place: Field) -> Path | Failed:
    """The checkpoint with the graph that the peers share, or why there is none."""
    try:
        python, out = place.pythons("onnx-4.57"), place.work / f"models/{subject.key}-reranker-onnx"
        engine = f"{ENGINES}:sentence_transformers_onnx"
        return models.onnx_checkpoint(python, out, place.threads, place.work / "logs/export.log", checkpoint, engine)
    except Failed as error:
        return error


def pair_lengths(pairs: Sequence[tuple[str, str]], tokenizer: Path, limit: int) -> npt.NDArray[np.int64]:
    """(N,) tokens of each pair with special tokens, cut at the limit."""
    counter = Tokenizer.from_file(str(tokenizer))
    counter.no_padding()
    counter.enable_truncation(limit)
    return np.array([len(e.ids) for e in counter.encode_batch(list(pairs))], dtype=np.int64)
