"""FlagEmbedding as the reference: in a process of another environment, since it reaches into transformers 4.

Both sides of the pipe are here. The tests use the class `FlagEmbedding`, which asks; the environment that
`scripts/setup oracle` makes runs this file as a script, which answers. There are FlagEmbedding and numpy, but neither
pytest nor our packages.
"""

import functools
import json
import os
import select
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[2]
SETUP = "scripts/setup oracle"
_SECONDS = 400  # for any answer: far more than it takes


def write(path: Path, value: object) -> None:
    """Keep a tree of dictionaries and lists as JSON, its arrays beside it."""
    arrays: list[npt.NDArray[Any]] = []

    def kept(leaf: object) -> object:
        if isinstance(leaf, np.generic):
            return leaf.item()
        if not isinstance(leaf, np.ndarray):
            raise TypeError(f"{type(leaf).__name__} is neither JSON nor an array")
        arrays.append(leaf)
        return {"array": len(arrays) - 1}

    text = json.dumps(value, default=kept)
    np.savez(path, *arrays, json=np.array(text))


def read(path: Path) -> Any:
    """What `write` wrote."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    text = str(arrays.pop("json"))
    return json.loads(text, object_hook=lambda d: arrays[f"arr_{d['array']}"] if d.keys() == {"array"} else d)


# ---- who asks --------------------------------------------------------------------------------------------------------


class FlagEmbedding:
    """The process; leave it with `with`. What it imports takes ten seconds, so it serves a whole run."""

    def __init__(self) -> None:
        python = ROOT / (os.environ.get("TRIVEC_ORACLE_VENV") or ".venv-oracle") / "bin/python"
        if not python.is_file():
            raise FileNotFoundError(f"there is no {python}: FlagEmbedding has an environment of its own. Type: {SETUP}")
        self._work = tempfile.TemporaryDirectory(prefix="trivec-oracle-")
        self._path = Path(self._work.name) / "question.npz"
        self._log = Path(self._work.name) / "stderr"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [python, "-I", __file__],
                env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._work.cleanup()

    def ask(self, what: str, **arguments: Any) -> Any:
        """The answer of one of the functions below.

        Raises:
            RuntimeError: it raised, or the process ended; with what it said last.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        write(self._path, [what, arguments])
        try:
            print(self._path, file=stdin, flush=True)
            answer = stdout.readline() if select.select([stdout], [], [], _SECONDS)[0] else "it does not answer"
        except BrokenPipeError:
            answer = ""
        if answer != "done\n":
            said = self._log.read_text(encoding="utf-8", errors="replace")[-3000:]
            raise RuntimeError(f"FlagEmbedding's process: {answer or 'it ended'}. A new one: {SETUP}\n{said}")
        return read(self._path)


# ---- who answers -----------------------------------------------------------------------------------------------------


@functools.cache
def model(checkpoint: str, colbert_dim: int) -> Any:
    """BGE-M3 on the CPU, in float32."""
    from FlagEmbedding import BGEM3FlagModel

    return BGEM3FlagModel(checkpoint, use_fp16=False, devices=["cpu"], colbert_dim=colbert_dim)


def encode(checkpoint: str, colbert_dim: int, texts: list[str], **options: Any) -> Any:
    """dense_vecs, lexical_weights and colbert_vecs."""
    return model(checkpoint, colbert_dim).encode(texts, **options)


def compute_score(checkpoint: str, colbert_dim: int, pairs: list[Any], **options: Any) -> Any:
    """By mode, of pairs or of one pair."""
    given = tuple(pairs) if isinstance(pairs[0], str) else [tuple(pair) for pair in pairs]
    return model(checkpoint, colbert_dim).compute_score(given, **options)


def rerank(checkpoint: str, pairs: list[Any], **options: Any) -> list[float]:
    """FlagReranker's scores."""
    from FlagEmbedding import FlagReranker

    reranker = FlagReranker(checkpoint, use_fp16=False, devices=["cpu"])
    return [float(score) for score in reranker.compute_score([tuple(pair) for pair in pairs], **options)]


def tokens(checkpoint: str, colbert_dim: int) -> list[str]:
    """The tokenizer's vocabulary."""
    return list(model(checkpoint, colbert_dim).tokenizer.get_vocab())


def lexical_scores(queries: list[dict[str, float]], passages: list[dict[str, float]]) -> Any:
    """(N, M) of float32 weights."""
    from FlagEmbedding.inference.embedder.encoder_only.m3 import M3Embedder

    sides = [[{term: np.float32(w) for term, w in row.items()} for row in side] for side in (queries, passages)]
    return M3Embedder.compute_lexical_matching_score(None, *sides)


def colbert_scores(queries: list[Any], passages: list[Any]) -> list[list[float]]:
    """(N, M) of arrays (S, D)."""
    from FlagEmbedding.inference.embedder.encoder_only.m3 import M3Embedder

    return [[float(M3Embedder.colbert_score(None, query, passage)) for passage in passages] for query in queries]


def milvus(checkpoint: str, texts: list[str], **options: Any) -> dict[str, Any]:
    """What each method of pymilvus.model's BGEM3EmbeddingFunction gives, and its `dim`.

    "sparse" is what makes a csr_array: ((values, columns, row starts), shape).
    """
    from pymilvus.model import hybrid, utils
    from pymilvus.model.utils import dependency_control

    def refuse(package: str, *_: object) -> None:
        raise AssertionError(f"pymilvus.model wants to install {package}")

    utils.prompt_install = dependency_control.prompt_install = refuse
    function = hybrid.BGEM3EmbeddingFunction(checkpoint, device="cpu", **options)
    found = {name: getattr(function, name)(texts) for name in ("encode_queries", "encode_documents", "__call__")}
    for each in found.values():
        matrix = each["sparse"]
        each["sparse"] = [[matrix.data, matrix.indices, matrix.indptr], matrix.shape]
    return {"dim": function.dim, **found}


def serve() -> None:
    """Read the path of a question a line, and put the answer in its place."""
    known: list[Callable[..., Any]] = [encode, compute_score, rerank, tokens, lexical_scores, colbert_scores, milvus]
    answers = {function.__name__: function for function in known}
    pipe, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    for line in sys.stdin:
        path = Path(line.rstrip("\n"))
        try:
            what, arguments = read(path)
            write(path, answers[what](**arguments))
            said = "done"
        except Exception as error:  # noqa: BLE001 - it goes to the one who asked
            traceback.print_exc()
            said = f"{what} raised {type(error).__name__}"
        print(said, file=pipe, flush=True)


if __name__ == "__main__":
    serve()
