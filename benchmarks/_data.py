"""BEIR's SciFact from the Hub, in the layout that `_scifact.read` wants."""

import gzip
import importlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

CORPUS, JUDGEMENTS = "BeIR/scifact", "BeIR/scifact-qrels"


def fetch(folder: Path) -> Path:
    """The folder with corpus.jsonl, queries.jsonl and qrels/test.tsv; downloaded and converted where they are not."""
    if not (folder / "qrels/test.tsv").is_file():
        from huggingface_hub import snapshot_download

        data = Path(snapshot_download(CORPUS, repo_type="dataset", allow_patterns=["corpus*", "queries*"]))
        judged = Path(snapshot_download(JUDGEMENTS, repo_type="dataset", allow_patterns=["*test*"]))
        convert(data, judged, folder)
    return folder


def convert(data: Path, judged: Path, folder: Path) -> None:
    """Write BEIR's layout from what the Hub has: JSON lines, gzipped or not, or Parquet; judgements also as TSV.

    Raises:
        FileNotFoundError: a download has none of these.
    """
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for name in ("corpus", "queries"):
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as stream:
            for row in _rows(data, name):
                kept = {"_id": str(row["_id"]), "title": row.get("title") or "", "text": row["text"]}
                stream.write(json.dumps(kept, ensure_ascii=False) + "\n")
    lines = [f"{row['query-id']}\t{row['corpus-id']}\t{int(row['score'])}" for row in _rows(judged, "test")]
    text = "\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n"
    (folder / "qrels/test.tsv").write_text(text, encoding="utf-8")


def _rows(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    """The rows of the files that have the name in theirs, or in their folder's."""
    files = sorted(f for f in folder.rglob("*") if f.is_file() and name in str(f.relative_to(folder)))
    known = [f for f in files if f.name.endswith((".jsonl", ".jsonl.gz", ".tsv", ".parquet"))]
    if not known:
        raise FileNotFoundError(f"no {name} in .jsonl, .jsonl.gz, .tsv or .parquet was downloaded. Pass --data FOLDER.")
    for file in known:
        yield from _read(file)


def _read(file: Path) -> Iterable[dict[str, Any]]:
    if file.suffix == ".parquet":
        rows: list[dict[str, Any]] = importlib.import_module("pyarrow.parquet").read_table(file).to_pylist()
        return rows
    if file.suffix == ".tsv":
        head, *lines = file.read_text(encoding="utf-8").splitlines()
        return [dict(zip(head.split("\t"), line.split("\t"), strict=True)) for line in lines]
    text = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    return [json.loads(line) for line in text.decode().splitlines() if line.strip()]
