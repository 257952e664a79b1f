"""The BEIR SciFact corpus: from the Hub, from its folder, its texts, and how vectors of it are judged."""

import gzip
import importlib
import json
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trivec.compare import _metrics as metrics
from trivec.compare import read_judged

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

CORPUS, JUDGEMENTS = "BeIR/scifact", "BeIR/scifact-qrels"
# A full stop, a question or exclamation mark, then a space and something that begins a sentence. Cuts "et al. (1999)"
# in two now and then: these are texts to embed, not sentences to parse.
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9(])")


class SciFact(NamedTuple):
    """Documents and the test queries, with what was judged relevant."""

    documents: dict[str, str]
    """id to title and abstract."""
    abstracts: dict[str, str]
    """id to abstract."""
    queries: dict[str, str]
    """id to claim, of the queries that have a judgement in the test split."""
    judgements: dict[str, dict[str, int]]
    """query id to document id to relevance."""

    def gains(self) -> npt.NDArray[np.int64]:
        """(Q, N) relevance of each document to each query, in the order of `queries` and `documents`."""
        column = {document: i for i, document in enumerate(self.documents)}
        gains = np.zeros((len(self.queries), len(column)), dtype=np.int64)  # (Q, N)
        for row, query in enumerate(self.queries):
            for document, relevance in self.judgements[query].items():
                gains[row, column[document]] = relevance
        return gains


def read(folder: Path) -> SciFact:
    """Read a folder in BEIR's layout: corpus.jsonl, queries.jsonl, qrels/test.tsv.

    A document is its title, a space and its abstract, as BEIR's models read it.
    """
    judged = read_judged(folder)
    abstracts = {entry["_id"]: entry["text"] for entry in _lines(folder / "corpus.jsonl")}
    return SciFact(judged.documents, abstracts, judged.queries, judged.judgements)


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


# ---- texts ---------------------------------------------------------------------------------------------------------


def split_sentences(text: str, least_words: int = 3) -> list[str]:
    """A text's sentences, without those of fewer than `least_words` words."""
    return [part for part in _SENTENCE_END.split(text.strip()) if len(part.split()) >= least_words]


def even_sample(items: list[str], count: int) -> list[str]:
    """Up to `count` items at equal distances, the first and the last among them."""
    if len(items) <= count:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, count).astype(int)]


def short_texts(data: SciFact) -> list[str]:
    """Sentences of 10 to 14 words."""
    sentences = [s for abstract in data.abstracts.values() for s in split_sentences(abstract)]
    return [text for text in sentences if 10 <= len(text.split()) <= 14]


def mixed_texts(data: SciFact, parts: tuple[int, int]) -> list[str]:
    """So many short sentences and so many abstracts, shuffled the same way in each run."""
    found = even_sample(short_texts(data), parts[0]) + even_sample(list(data.abstracts.values()), parts[1])
    random.Random(0).shuffle(found)
    return found


def texts_of(data: Path | None, counts: tuple[int, int, int]) -> dict[str, list[str]]:
    """Short, long and mixed texts: SciFact's where it is at hand, else of those that ship with trivec."""
    short, long, mixed = counts
    if data is not None and (data / "corpus.jsonl").is_file():
        found = read(data)
        return {
            "short": even_sample(short_texts(found), short),
            "long": even_sample(list(found.abstracts.values()), long),
            "mixed": mixed_texts(found, (mixed * 3 // 4, mixed // 4)),
        }
    from trivec._gate.texts import verification_texts

    listed = [text.text for text in verification_texts() if text.text.strip()]
    brief = [f"{text} {i}" for i in range(-(-short // len(listed))) for text in listed if len(text.split()) <= 16]
    broad = [" ".join(listed[(41 * row + i) % len(listed)] for i in range(30)) for row in range(long)]
    both = [text for pair in zip(brief, broad * (1 + len(brief) // max(1, len(broad))), strict=False) for text in pair]
    return {"short": brief[:short], "long": broad, "mixed": both[:mixed]}


# ---- figures -------------------------------------------------------------------------------------------------------


def ndcg(scores: Floats, gains: npt.NDArray[np.int64], k: int = 10) -> Doubles:
    """(Q,) nDCG at `k` of ranking by scores (Q, N), the higher the better, judged by gains (Q, N), 0 for none.

    Of equal scores the earlier document comes first.
    """
    top = np.argsort(-scores, axis=1, kind="stable")[:, :k]  # (Q, k)
    return metrics.ndcg(np.take_along_axis(gains, top, axis=1), gains, k)


def cosine_ndcg(queries: Floats, documents: Floats, gains: npt.NDArray[np.int64]) -> Doubles:
    """(Q,) nDCG@10 of ranking documents (N, D) for queries (Q, D) by cosine, judged by gains (Q, N)."""
    q = queries / np.linalg.norm(queries, axis=1, keepdims=True)  # (Q, D)
    d = documents / np.linalg.norm(documents, axis=1, keepdims=True)  # (N, D)
    return ndcg(q @ d.T, gains)


def cosines(a: Floats, b: Floats) -> Doubles:
    """(N,) cosine of each row of a (N, D) and the same row of b (N, D), in float64."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    found: Doubles = (x * y).sum(1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1))
    return found


# ---- from the Hub --------------------------------------------------------------------------------------------------


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
