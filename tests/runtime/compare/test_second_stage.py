"""`trivec compare A+reranker`: figures by hand, what is kept, what it would cost, refusals."""

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytrec_eval
from tests.support.loopback import KEY, Loopback, relevance
from tests.support.rerankers import TinyReranker, write_tiny_reranker

import trivec
from trivec import InputError, Reranker
from trivec._cli.main import main
from trivec.compare import compare, plan
from trivec.lexical import BM25

WORDS = ["a", "cat", "the", "dog", "and", "sat"]
TEXTS = [f"{' '.join(WORDS[(i * j + i) % 6] for j in range(2 + i % 5))} {i}" for i in range(40)]
QUERIES = ["the cat sat", "a dog and a cat", "sat", "the dog", "a cat and the dog sat"]
GAINS = np.random.default_rng(5).integers(0, 3, size=(5, 40)) * (np.random.default_rng(6).random((5, 40)) < 0.2)
DEPTH = 7


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyReranker:
    return write_tiny_reranker(tmp_path_factory.mktemp("reranker") / "model")


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as loopback:
        yield loopback


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRIVEC_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CO_API_KEY", KEY)
    found = tmp_path / "corpus"
    (found / "qrels").mkdir(parents=True)
    for name, letter, listed in (("corpus", "d", TEXTS), ("queries", "q", QUERIES)):
        lines = [json.dumps({"_id": f"{letter}{i}", "title": "", "text": text}) for i, text in enumerate(listed)]
        (found / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    judged = [f"q{q}\td{d}\t{GAINS[q, d]}" for q, d in np.argwhere(GAINS > 0).tolist()]
    (found / "qrels/test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]) + "\n", encoding="utf-8")
    return found


def bm25_hits() -> list[list[int]]:
    """Documents with a common term, best first."""
    model = BM25().fit(TEXTS)
    found = model.encode_queries(QUERIES).dot(model.encode_documents(TEXTS))  # (Q, N)
    order = np.argsort(-found, axis=1, kind="stable").tolist()
    return [[row for row in rows if found[i, row] > 0] for i, rows in enumerate(order)]


def again(hits: list[list[int]], score: Any) -> list[list[int]]:
    """The first of each query by another score, then the others."""
    made = []
    for query, rows in zip(QUERIES, hits, strict=True):
        first = sorted(rows[:DEPTH], key=lambda row: -score(query, TEXTS[row]))
        made.append([*first, *rows[DEPTH:]])
    return made


def ndcg(hits: list[list[int]]) -> float:
    run = {f"q{i}": {f"d{row}": float(-place) for place, row in enumerate(rows)} for i, rows in enumerate(hits)}
    truth = {f"q{i}": {f"d{j}": int(gain) for j, gain in enumerate(row)} for i, row in enumerate(GAINS)}
    found = pytrec_eval.RelevanceEvaluator(truth, {"ndcg_cut.10"}).evaluate(run)
    return float(np.mean([found.get(query, {"ndcg_cut_10": 0.0})["ndcg_cut_10"] for query in truth]))


def test_figures_by_hand(tiny: TinyReranker, folder: Path) -> None:
    found = compare(folder, ["bm25", f"bm25+{tiny.folder}"], depth=DEPTH, device="cpu", threads=1)
    first, second = found.rows
    assert second.name == f"bm25+{tiny.folder}"

    def score(query: str, text: str) -> float:
        return round(float(tiny.logits([(query, text)])[0, 0]), 5)

    expected = again(bm25_hits(), score)
    assert first.ndcg.value == pytest.approx(ndcg(bm25_hits()), abs=1e-6)
    assert second.ndcg.value == pytest.approx(ndcg(expected), abs=1e-6)
    assert second.ndcg.value != first.ndcg.value
    assert second.to_first is not None
    assert second.to_first.value == pytest.approx(second.ndcg.value - first.ndcg.value, abs=1e-12)
    assert second.recall == first.recall
    assert second.what == f"{DEPTH} by fp32 on cpu"
    assert (second.documents_per_second, second.tokens, second.cost, second.hosted) == (None, None, None, False)
    assert second.query_ms is not None
    assert second.query_ms[0] <= second.query_ms[1]
    assert (second.dims, second.bytes_per_vector) == (first.dims, first.bytes_per_vector)
    json.dumps(found.as_dict(), allow_nan=False)


def test_scores_are_kept(tiny: TinyReranker, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    rank = Reranker.rank

    @functools.wraps(rank)
    def counted(self: Reranker, query: str, documents: Any, *arguments: Any, **options: Any) -> Any:
        asked.append(query)
        return rank(self, query, documents, *arguments, **options)

    monkeypatch.setattr(Reranker, "rank", counted)
    before = compare(folder, [f"bm25+{tiny.folder}"], depth=DEPTH, device="cpu")
    assert asked == QUERIES
    after = compare(folder, [f"bm25+{tiny.folder}"], depth=DEPTH, device="cpu")
    assert after.rows[0].query_ms == before.rows[0].query_ms
    assert len(asked) == len(QUERIES)
    compare(folder, [f"bm25+{tiny.folder}"], depth=DEPTH - 1, device="cpu")
    assert len(asked) == 2 * len(QUERIES)


def test_a_first_stage_of_vectors(tiny: TinyReranker, tiny_folder: Path, folder: Path) -> None:
    names = [str(tiny_folder), f"{tiny_folder}:int8+{tiny.folder}:fp32"]
    found = compare(folder, names, depth=DEPTH, device="cpu", threads=1)
    with trivec.load(tiny_folder, precision="int8", device="cpu", threads=1) as encoder:
        q, d = encoder.encode_query(QUERIES), encoder.encode_document(TEXTS)
        similarity = encoder.similarity(q, d)
    hits = np.argsort(-np.round(similarity, 5), axis=1, kind="stable").tolist()  # equal texts are equally near
    expected = again(hits, lambda query, text: round(float(tiny.logits([(query, text)])[0, 0]), 5))
    assert found.rows[1].ndcg.value == pytest.approx(ndcg(expected), abs=1e-6)


def test_a_hosted_reranker(folder: Path, server: Loopback) -> None:
    name = f"bm25+cohere:m?base_url={server.base('cohere')}"
    (planned,) = plan(folder, [name], depth=DEPTH, prices={name: 2.0})
    assert not server.asked
    assert (planned.hosted, planned.texts, planned.requests) == (True, 5 * DEPTH, 5)
    assert planned.cost == pytest.approx(2 * planned.tokens / 1e6)
    found = compare(folder, ["bm25", name], depth=DEPTH, prices={name: 2.0})
    row = found.rows[1]
    assert row.ndcg.value == pytest.approx(ndcg(again(bm25_hits(), relevance)), abs=1e-6)
    assert (row.hosted, row.what, len(server.asked)) == (True, f"{DEPTH} by hosted at 127.0.0.1", 5)
    assert row.tokens is not None
    assert row.cost == pytest.approx(2 * row.tokens / 1e6)
    compare(folder, ["bm25", name], depth=DEPTH)
    assert len(server.asked) == 5
    with pytest.raises(InputError, match=r"this would cost about"):
        compare(folder, [name], depth=3, prices={name: 1e9})
    assert len(server.asked) == 5


def test_the_command(tiny: TinyReranker, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"bm25+{tiny.folder}"
    assert main(["compare", str(folder), "bm25", name, "--depth", "7", "--json", "--device", "cpu"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["rows"]] == ["bm25", name]
    assert found["rows"][1]["what"] == "7 by fp32 on cpu"


def test_refusals(tiny: TinyReranker, tiny_folder: Path, folder: Path) -> None:
    for names, options, message in (
        ([f"bm25+{tiny_folder}"], {}, r"is a DenseEncoder, which ranks no documents"),
        ([f"{tiny.folder}+{tiny.folder}"], {}, r"reranker"),
        (["bm25+nowhere/at/all"], {}, r"nowhere/at/all"),
        ([f"bm25+{tiny.folder}"], {"depth": 0}, r"depth must be a whole number from 1 to 100, got 0"),
        ([f"bm25+{tiny.folder}"], {"depth": 101}, r"depth must be a whole number from 1 to 100, got 101"),
        ([f"bm25+{tiny.folder}"] * 2, {}, r"is named twice"),
    ):
        with pytest.raises(trivec.TrivecError, match=message):
            compare(folder, names, device="cpu", **options)  # type: ignore[arg-type]
