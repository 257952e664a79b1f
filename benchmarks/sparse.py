"""Sparse and hybrid models: what int8 costs a SPLADE in retrieval, and what everything costs in memory.

    python -m benchmarks.sparse quality FOLDER --checkpoint CHECKPOINT [--data ../shared/data/scifact]
    python -m benchmarks.sparse memory FOLDER --checkpoint CHECKPOINT [--fastembed-python PYTHON --fastembed-model DIR]
    python -m benchmarks.sparse long FOLDER [--checkpoint CHECKPOINT]

quality: nDCG@10 on BEIR SciFact of a SPLADE folder in fp32 and int8, and of sentence-transformers with the checkpoint
that it was exported from. memory: 256 texts of 512 tokens, each engine in a process of its own that may hold 12 GB.
long: a BGE-M3 folder and one text of 8,192 tokens; with the checkpoint, also through bge-m3-lite, which is made an
environment and its own graph (a checkpoint of its shape: python -m benchmarks.harness.models bge-m3). Each
prints Markdown and writes benchmarks/results/sparse-NAME.md.
"""

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from benchmarks.harness import models
from benchmarks.harness.contest import agreement
from benchmarks.harness.machine import cpu_name, now
from benchmarks.harness.scifact import ndcg, read
from benchmarks.harness.tables import NONE, Row, Table, write
from benchmarks.harness.venvs import ROOT, SHARED, Failed, ensure
from benchmarks.harness.worker import Contender, Process, encode
from tokenizers import Tokenizer

from trivec.compare._metrics import interval

TEXTS, TOKENS = 256, 512
THREADS = 2
LIMIT = 12 << 30
LONG = 8192


def run(
    name: str, contender: Contender, python: Path, count: int, tokens: int, save: Path | None = None, ids: str = ""
) -> Row:
    """A row of what an engine made of `count` texts of `tokens` tokens, alone in a process of limited memory.

    Args:
        name: of the row.
        contender: the engine.
        python: of its environment.
        count: of texts.
        tokens: of each of them.
        save: where its vectors go.
        ids: a tokenizer.json that makes the token ids of an engine that takes no texts.
    """
    row: Row = {"engine": name}
    with tempfile.TemporaryDirectory() as scratch:
        texts, log = Path(scratch) / "texts.json", Path(scratch) / "engine.log"
        # No two alike, of which trivec would run one; longer than any of them reads.
        made = [f"{number}{' word' * (tokens + 8)}" for number in range(count)]
        texts.write_text(json.dumps(made))
        if ids:
            contender.options["ids"] = str(Path(scratch) / "ids.json")
            reader = Tokenizer.from_file(ids)
            reader.enable_truncation(tokens)
            Path(contender.options["ids"]).write_text(json.dumps({text: reader.encode(text).ids for text in made}))
        try:
            with Process(contender, python, THREADS, log, memory=LIMIT) as process:
                loaded = process.load().seconds
                found = process.ask(encode(texts, contender.batches[0], save))
        except Failed as error:
            short = any(word in error.said.lower() for word in ("memory", "alloc"))
            what = f"{'out of memory at 12 GB' if short else 'failed'}: {error.said[:160]}"
            return row | {"peak RSS MB": "-", "seconds": "-", "what it said": what}
    seconds = round(loaded + found["seconds"], 1)
    return row | {"peak RSS MB": round(found["peak"] / 1e6), "seconds": seconds, "what it said": ""}


def ours(folder: Path, precision: str) -> Contender:
    """A variant of a trivec folder, sparse or hybrid."""
    options = {"folder": str(folder), "precision": precision, "threads": THREADS}
    return Contender(f"trivec {precision}", "trivec", "", options, precision=precision)


def peer(engine: str, folder: Path, batch: int) -> Contender:
    """Another library, with the batch size that is its default."""
    return Contender(engine, engine, "", {"folder": str(folder), "threads": THREADS}, (batch,))


# ---- the three reports -------------------------------------------------------------------------------------------


def quality(args: argparse.Namespace) -> list[Table]:
    """nDCG@10 of each variant and of the oracle."""
    import torch
    from sentence_transformers import SparseEncoder

    import trivec

    data = read(args.data)
    documents, queries, gains = list(data.documents.values()), list(data.queries.values()), data.gains()
    found: dict[str, npt.NDArray[np.float64]] = {}
    torch.set_num_threads(THREADS)
    oracle = SparseEncoder(str(args.checkpoint), device="cpu")
    oracle.max_seq_length = args.tokens
    rows = oracle.encode_document(documents, batch_size=16, convert_to_tensor=False)
    asked = oracle.encode_query(queries, convert_to_tensor=False)
    columns = torch.stack([row.to_dense() for row in asked]).T.contiguous()  # (V, Q)
    scores = torch.stack([torch.mv(columns.T, row.to_dense()) for row in rows])  # (N, Q)
    found["sentence-transformers"] = ndcg(scores.T.numpy(), gains)
    for precision in args.precision.split(","):
        with trivec.load(args.folder, precision=precision, device="cpu", threads=THREADS) as encoder:
            encoder.max_seq_length = args.tokens
            vectors, wanted = encoder.encode_document(documents), encoder.encode_query(queries)
            found[f"trivec {precision}"] = ndcg(wanted.dot(vectors), gains)
    base = found["sentence-transformers"]
    table = []
    for name, values in found.items():
        low, high = interval(values - base)
        row: Row = {"engine": name, "nDCG@10 x 100": round(float(values.mean()) * 100, 2)}
        row |= {"minus the first": round(float((values - base).mean()) * 100, 2)}
        table.append(row | {"95%": f"{low * 100:+.2f} to {high * 100:+.2f}"})
    note = (
        f"BEIR SciFact, {len(queries)} test queries, {len(documents)} documents cut at {args.tokens} tokens; dot "
        "product. The interval is of the difference, from 10,000 resamples of the queries."
    )
    return [Table("ndcg", "Retrieval", note, table)]


def memory(args: argparse.Namespace) -> list[Table]:
    """Peak memory of each engine over the same texts."""
    here, asked = Path(sys.executable), (TEXTS, TOKENS)
    rows = [run(f"trivec:{p}", ours(args.folder, p), here, *asked) for p in args.precision.split(",")]
    rows.append(run("sentence-transformers:32", peer("sparse-encoder", args.checkpoint, 32), here, *asked))
    if args.fastembed_python:
        other = peer("fastembed-sparse", args.fastembed_model, 256)
        rows.append(run("fastembed:256", other, args.fastembed_python, *asked))
    note = (
        f"{TEXTS} texts of {TOKENS} tokens, 30,522 terms, {THREADS} threads; each engine alone in a process that may "
        "hold 12 GB of memory of its own (mapped files not counted). Peak RSS of the whole process. After the colon: "
        "trivec's variant, the batch size of the others, which is their default."
    )
    return [Table("memory", "Memory", note, rows)]


def long(args: argparse.Namespace) -> list[Table]:
    """Peak memory of one long text, and how near the engines' vectors are."""
    here, work = Path(sys.executable), ROOT / "build/bench"
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        first: Path | None = None
        for name, contender, python, ids in _of_long(args, here, work):
            file = Path(scratch) / f"{len(rows)}.npz"
            row = run(name, contender, python, 1, LONG, file, ids)
            first = first or (file if file.is_file() else None)
            near = agreement(first, file) if first and file.is_file() else {}
            rows.append(row | {f"cosine min, {k}": near[k][1] if k in near else NONE for k in ("dense", "colbert")})
            print(rows[-1], file=sys.stderr, flush=True)
    note = (
        f"One text of {LONG:,} tokens: dense, sparse and ColBERT vectors in one run, {THREADS} threads. Peak RSS of "
        "the whole process; seconds with loading. After the colon: the variant. Cosines to the first row. bge-m3-lite "
        "runs on token ids, so that the memory and time of a tokenizer are not in its rows: of ours, tokenizers' table "
        "of XLM-R's vocabulary takes 282 MB."
    )
    digits = {f"cosine min, {name}": 6 for name in ("dense", "colbert")}
    return [Table("long", "One long text", note, rows, digits)]


def _of_long(args: argparse.Namespace, here: Path, work: Path) -> Iterator[tuple[str, Contender, Path, str]]:
    """Who reads the long text: a name, an engine, its Python, and the tokenizer of one that takes ids."""
    for precision in args.precision.split(","):
        for low in (False, True):
            options = ours(args.folder, precision).options | {"low_memory": low}
            name = f"hybrid:{precision}{', low_memory' if low else ''}"
            yield name, Contender(name, "trivec", "", options, precision=precision), here, ""
    if args.checkpoint:
        python = ensure("bge-m3-lite", work)
        graph = models.bge_lite_graph(args.checkpoint, python, work / "models/bge-m3-lite")
        options = {"folder": str(args.checkpoint), "graph": str(graph), "threads": THREADS}
        for low in (False, True):
            name = f"bge-m3-lite:fp32{', low_memory' if low else ''}"
            lite = Contender(name, "benchmarks.harness.bge_lite:engine", "", options | {"low_memory": low})
            yield name, lite, python, str(args.checkpoint / "tokenizer.json")


def _machine() -> Table:
    versions = f"Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}"
    found = {"CPU": cpu_name(), "date": now(), "versions": versions}
    return Table("run", "The run", "One process after the other.", [{"what": k, "is": v} for k, v in found.items()])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one report, print and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, make in (("quality", quality), ("memory", memory), ("long", long)):
        command = commands.add_parser(name)
        command.add_argument("folder", type=Path)
        command.add_argument("--checkpoint", type=Path)
        command.add_argument("--data", type=Path, default=SHARED / "data/scifact")
        command.add_argument("--tokens", type=int, default=96)
        command.add_argument("--precision", default="fp32,int8")
        command.add_argument("--fastembed-python", type=Path)
        command.add_argument("--fastembed-model", type=Path)
        command.add_argument("--out", type=Path, default=ROOT / "benchmarks/results")
        command.set_defaults(make=make)
    args = parser.parse_args(arguments)
    tables = [_machine(), *args.make(args)]
    write(tables, f"Sparse models: {args.command}", args.out, f"sparse-{args.command}")


if __name__ == "__main__":
    main()
