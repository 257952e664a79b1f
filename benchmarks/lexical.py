"""BM25 of SciFact: trivec.lexical against pymilvus.model from the texts, and against bm25s from the same tokens.

    python -m benchmarks.lexical SCIFACT [--rounds 3] [--documents 5183]

From texts: fit and encode_documents of all documents (title, a space, abstract), each engine with its own default
English analyzer, made anew in each round. From tokens: trivec's fit_tokens and encode_document_tokens against
bm25s.BM25(method="lucene").index, both given the same lists of tokens. The engines take turns within each round, in one
process. Their terms and vectors are compared before: the run fails where they are not the same. NLTK's data must be
where NLTK looks for them (the environment's NLTK_DATA), or llama-index-core installed, whose wheel has them. Prints
Markdown and writes lexical.md and lexical.jsonl.
"""

import argparse
import gc
import importlib.util
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from benchmarks.harness.machine import cpu_name, now
from benchmarks.harness.scifact import read
from benchmarks.harness.stats import ratios, spread, turns
from benchmarks.harness.tables import Goal, Row, Table, goals, write
from benchmarks.harness.venvs import ROOT

from trivec import __version__
from trivec.lexical import BM25

GOALS = (
    Goal("from texts: trivec over pymilvus.model", "texts", "", ">=", 5.0),
    Goal("from tokens: trivec over bm25s", "tokens", "", ">=", 1.0),
)
Tokens = list[list[str]]


class Work(NamedTuple):
    """What the engines are given."""

    texts: list[str]
    tokens: Tokens
    """The texts as pymilvus.model's analyzer splits them."""


def ours_from_texts(work: Work) -> Any:  # noqa: ANN401 - vectors of one engine or another
    """Trivec, from texts."""
    return BM25().fit(work.texts).encode_documents(work.texts)


def twin_from_texts(work: Work) -> Any:  # noqa: ANN401
    """pymilvus.model, from texts."""
    from pymilvus.model.sparse.bm25 import BM25EmbeddingFunction

    return BM25EmbeddingFunction(corpus=work.texts).encode_documents(work.texts)


def ours_from_tokens(work: Work) -> Any:  # noqa: ANN401
    """Trivec, from tokens."""
    return BM25().fit_tokens(work.tokens).encode_document_tokens(work.tokens)


def bm25s_from_tokens(work: Work) -> Any:  # noqa: ANN401
    """bm25s, from tokens."""
    import bm25s

    index = bm25s.BM25(method="lucene")
    index.index(work.tokens, show_progress=False)
    return index


def prepare(documents: list[str]) -> Work:
    """The work, after a look at what the engines make of it, which also warms them up.

    Raises:
        SystemExit: terms or vectors are not the same.
    """
    from pymilvus.model.sparse.bm25 import build_default_analyzer

    from trivec.lexical import build_default_analyzer as ours

    twin, mine = build_default_analyzer("en"), ours("en")
    tokens = [twin(text) for text in documents]
    differ = sum(mine(text) != found for text, found in zip(documents, tokens, strict=True))
    work = Work(documents, tokens)
    reference, vectors = twin_from_texts(Work(documents[:300], [])), ours_from_texts(Work(documents[:300], []))
    reference.sort_indices()
    same = np.array_equal(reference.indices, vectors.indices) and np.array_equal(reference.data, vectors.values)
    if differ or not same or reference.shape != vectors.shape:
        raise SystemExit(f"{differ} of {len(documents)} documents have other terms; vectors are the same: {same}.")
    for from_tokens in (ours_from_tokens, bm25s_from_tokens):  # Python hashes a string when it is first looked up
        from_tokens(work)
    return work


def seconds(run: Callable[[Work], Any], work: Work) -> float:
    """Wall-clock seconds of one run, which begins without garbage of the one before."""
    gc.collect()
    start = time.perf_counter()
    run(work)
    return time.perf_counter() - start


def contest(work: Work, rounds: int, key: str, pair: dict[str, Callable[[Work], Any]]) -> tuple[list[Row], float]:
    """Rows for two engines that take turns, trivec first among them; and by how much trivec is faster."""
    found: dict[str, list[float]] = {name: [] for name in pair}
    for name in turns(list(pair), rounds):
        found[name].append(seconds(pair[name], work))
    mine, peer = found.values()
    ratio = spread(peer).median / spread(mine).median
    within = ratios(mine, peer)
    rows: list[Row] = []
    for name, taken in found.items():
        middle = spread(taken)
        row: Row = {"from": key, "engine": name, "seconds": middle.median, "least": middle.low, "most": middle.high}
        row |= {"documents/s": len(work.tokens) / middle.median}
        rows.append(
            row
            | {"x peer": ratio if name == "trivec" else 1.0, "rounds' least": within.low if name == "trivec" else 1.0}
        )
    return rows, ratio


def machine(args: argparse.Namespace, load: float, count: int) -> Table:
    """The machine, the versions, the command."""
    packages = ("numpy", "scipy", "nltk", "pymilvus.model", "bm25s")
    listed = ", ".join(f"{name} {version(name)}" for name in packages)
    rows: list[Row] = [
        {"what": "CPU", "is": f"{cpu_name()}, {os.cpu_count()} logical; each engine runs in one thread"},
        {"what": "date", "is": now()},
        {"what": "versions", "is": f"Python {platform.python_version()}, trivec {__version__}, {listed}"},
        {"what": "documents", "is": f"{count} of SciFact; {args.rounds} rounds, the engines in turn"},
    ]
    note = f"Load average of the machine before the run: {load:.2f}."
    return Table("run", "The run", note, rows)


def nltk_data() -> None:
    """Point NLTK to the data in the wheel of llama-index-core, where it is installed."""
    if "NLTK_DATA" not in os.environ and importlib.util.find_spec("llama_index"):
        spec = importlib.util.find_spec("llama_index.core")
        if spec and spec.submodule_search_locations:
            os.environ["NLTK_DATA"] = str(Path(spec.submodule_search_locations[0]) / "_static" / "nltk_cache")


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lexical", description=__doc__.partition("\n")[0])
    parser.add_argument("scifact", type=Path, help="folder with BEIR's SciFact")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--documents", type=int, default=None, help="only the first ones: a check, not a result")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    nltk_data()
    documents = list(read(args.scifact).documents.values())[: args.documents]
    work = prepare(documents)
    texts, texts_ratio = contest(
        work, args.rounds, "texts", {"trivec": ours_from_texts, "pymilvus.model": twin_from_texts}
    )
    tokens, tokens_ratio = contest(
        work, args.rounds, "tokens", {"trivec": ours_from_tokens, "bm25s": bm25s_from_tokens}
    )
    note = (
        "Seconds of fit and encode_documents (bm25s: of index): the median round, with the least and the most. x peer: "
        "the medians' quotient; rounds' least: the smallest quotient within a round. All documents have the same terms "
        "in trivec and pymilvus.model, and of the first 300 the vectors are the same to the last bit."
    )
    tables = [
        goals({"texts": texts_ratio, "tokens": tokens_ratio}, GOALS),
        machine(args, load, len(documents)),
        Table(
            "lexical",
            "Fit and encode",
            note,
            [*texts, *tokens],
            {"seconds": 3, "least": 3, "most": 3, "documents/s": 0},
        ),
    ]
    write(tables, "BM25 on SciFact", args.out, "lexical")


if __name__ == "__main__":
    main()
