"""`compare` and `trivec compare`: figures by hand, what is kept and asked for, costs, reports, refusals."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytrec_eval
from tests.support.loopback import KEY, Loopback, Reply, vectors
from tests.support.tiny_heads import hybrid
from tests.support.tiny_model import TinyModel

import trivec
from trivec import InputError
from trivec._cli.main import main
from trivec.compare import compare, plan
from trivec.hosted._encoder import PROBES
from trivec.lexical import BM25

WORDS = ["a", "cat", "the", "dog", "and", "sat"]
TEXTS = [f"{' '.join(WORDS[(i * j + i) % 6] for j in range(2 + i % 5))} {i}" for i in range(40)]
QUERIES = ["the cat sat", "a dog and a cat", "sat", "the dog", "a cat and the dog sat"]
GAINS = np.random.default_rng(5).integers(0, 3, size=(5, 40)) * (np.random.default_rng(6).random((5, 40)) < 0.2)


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as loopback:
        yield loopback


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A corpus in BEIR's layout; vectors are kept beside it."""
    monkeypatch.setenv("TRIVEC_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    found = tmp_path / "corpus"
    (found / "qrels").mkdir(parents=True)
    for name, letter, listed in (("corpus", "d", TEXTS), ("queries", "q", QUERIES)):
        lines = [json.dumps({"_id": f"{letter}{i}", "title": "", "text": text}) for i, text in enumerate(listed)]
        (found / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    judged = [f"q{q}\td{d}\t{GAINS[q, d]}" for q, d in np.argwhere(GAINS > 0).tolist()]
    (found / "qrels/test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]) + "\n", encoding="utf-8")
    return found


def _hosted(server: Loopback, more: str = "") -> str:
    return f"openai:any?base_url={server.base('openai')}{more}"


def _asked(server: Loopback) -> list[str]:
    """The texts that were asked for, but for those of a file's probe."""
    return [text for text in server.texts if text not in PROBES]


def _ndcg(queries: Any, documents: Any, unit: bool = True) -> float:
    """trec_eval's, of cosines or (without `unit`) dot products above 0; of equal ones the earlier document first."""
    q, d = np.asarray(queries, np.float64), np.asarray(documents, np.float64)
    if unit:
        q, d = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (q, d))
    scores = (q @ d.T).astype(np.float32)  # (Q, N)
    order = np.argsort(-scores, axis=1, kind="stable").tolist()
    hits = [[j for j in row if unit or scores[i, j] > 0] for i, row in enumerate(order)]
    run = {f"q{i}": {f"d{j}": float(-place) for place, j in enumerate(row)} for i, row in enumerate(hits)}
    truth = {f"q{i}": {f"d{j}": int(gain) for j, gain in enumerate(row)} for i, row in enumerate(GAINS)}
    found = pytrec_eval.RelevanceEvaluator(truth, {"ndcg_cut.10"}).evaluate(run)
    return float(np.mean([found.get(query, {"ndcg_cut_10": 0.0})["ndcg_cut_10"] for query in truth]))


def test_figures_by_hand(tiny_folder: Path, folder: Path, server: Loopback) -> None:
    names = [str(tiny_folder), f"{tiny_folder}:int8", "bm25", _hosted(server)]
    found = compare(folder, names, device="cpu", threads=1)
    assert [row.name for row in found.rows] == names
    assert (found.documents, found.queries) == (40, 5)
    fp32, int8, bm25, hosted = found.rows
    made: dict[str, tuple[Any, Any]] = {"hosted": (vectors(QUERIES), vectors(TEXTS))}
    for precision in ("fp32", "int8"):
        with trivec.load(tiny_folder, precision=precision, device="cpu", threads=1) as encoder:
            made[precision] = encoder.encode_query(QUERIES), encoder.encode_document(TEXTS)
    lexical = BM25().fit(TEXTS)
    rows = lexical.encode_queries(QUERIES), lexical.encode_documents(TEXTS)
    for row, (queries, documents), unit in (
        (fp32, made["fp32"], True),
        (int8, made["int8"], True),
        (hosted, made["hosted"], True),
        (bm25, [_dense(part) for part in rows], False),
    ):
        assert row.ndcg.value == pytest.approx(_ndcg(queries, documents, unit), abs=1e-6)
        assert row.ndcg.low <= row.ndcg.value <= row.ndcg.high
        if row is not fp32:
            assert row.to_first is not None
            assert row.to_first.value == pytest.approx(row.ndcg.value - fp32.ndcg.value, abs=1e-12)
    assert [row.what for row in found.rows] == ["fp32 on cpu", "int8 on cpu", "English", "float32 on 127.0.0.1"]
    x, y = (np.asarray(made[name][1], np.float64) for name in ("fp32", "int8"))
    cosines = (x * y).sum(1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1))
    assert int8.cosine_min == pytest.approx(cosines.min(), abs=1e-9)
    assert int8.cosine_mean == pytest.approx(cosines.mean(), abs=1e-9)
    assert bm25.cosine_min is None
    assert (fp32.dims, fp32.bytes_per_vector) == (x.shape[1], 4 * x.shape[1])
    assert bm25.bytes_per_vector == pytest.approx(8 * rows[1].nnz / 40)
    assert (fp32.to_first, fp32.same_top10, fp32.rbo, fp32.tokens, hosted.hosted) == (None, None, None, None, True)
    json.dumps(found.as_dict(), allow_nan=False)


def _dense(rows: Any) -> Any:
    found = np.zeros((len(rows), rows.dim))
    for i, row in enumerate(rows):
        found[i, row.indices] = row.values
    return found


def test_what_was_done_is_not_done_again(folder: Path, tiny_folder: Path, server: Loopback) -> None:
    names = [_hosted(server), str(tiny_folder)]
    first = compare(folder, names, device="cpu", prices={names[0]: 2.0})
    texts = _asked(server)
    assert sorted(texts) == sorted({*TEXTS, *QUERIES})
    asked = len(server.asked)
    again = compare(folder, [*names, "bm25"], device="cpu", prices={names[0]: 2.0})
    assert len(server.asked) == asked
    assert again.rows[:2] == first.rows  # speeds and tokens are those of the run that encoded
    tokens = first.rows[0].tokens
    assert tokens
    assert first.rows[0].cost == pytest.approx(2e-6 * tokens)


def test_a_run_that_ended_early_goes_on(folder: Path, server: Loopback) -> None:
    name = _hosted(server, "&max_retries=0&concurrency=1")
    server.refuse = lambda texts: Reply(503, {"error": {"message": "down"}}) if TEXTS[30] in texts else None
    with pytest.raises(trivec.ServiceError, match="answered 503"):
        compare(folder, [name])
    server.refuse = lambda _: None
    before = {text for asked in server.asked if TEXTS[30] not in asked.texts for text in asked.texts} - {*PROBES}
    server.asked.clear()
    found = compare(folder, [name])
    assert found.rows[0].ndcg.value == pytest.approx(_ndcg(vectors(QUERIES), vectors(TEXTS)), abs=1e-6)
    assert not before & set(server.texts)  # nothing that was answered is asked for again


def test_a_dry_run_sends_nothing(folder: Path, server: Loopback, capsys: pytest.CaptureFixture[str]) -> None:
    name = _hosted(server)
    arguments = ["compare", str(folder), "bm25", name, "--price", f"{name}=1000000"]
    assert main([*arguments, "--dry-run", "--json"]) == 0
    bm25, hosted = json.loads(capsys.readouterr().out)
    assert (bm25["texts"], bm25["cost"], bm25["hosted"]) == (45, None, False)
    estimate = sum(len(text) for text in (*TEXTS, *QUERIES)) / 3  # ASCII: a third of the letters
    assert hosted["tokens"] == pytest.approx(estimate, abs=1)
    assert (hosted["requests"], hosted["cost"]) == (1, pytest.approx(hosted["tokens"]))
    assert main([*arguments, "--dry-run"]) == 0
    assert "nothing was sent" in capsys.readouterr().out
    assert main(arguments) == 1
    assert "this would cost about" in capsys.readouterr().err
    assert server.asked == []
    assert main([*arguments, "--yes"]) == 0
    assert len(_asked(server)) == 45


def test_kinds_of_vectors_have_a_row_each(tiny_model: TinyModel, tmp_path: Path, folder: Path) -> None:
    model = hybrid(tmp_path / "hybrid", tiny_model).folder
    found = compare(folder, [str(model)], device="cpu")
    assert [row.name for row in found.rows] == [f"{model} dense", f"{model} sparse"]
    with trivec.load(model, device="cpu") as encoder:
        q, d = encoder.encode_query(QUERIES).sparse, encoder.encode_document(TEXTS).sparse
    assert found.rows[1].ndcg.value == pytest.approx(_ndcg(_dense(q), _dense(d), unit=False), abs=1e-6)


def test_reports(folder: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report.md"
    arguments = ["compare", str(folder), str(tiny_folder), "bm25", "--device", "cpu", "-o", str(out)]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "nDCG@10 [95 %]" in shown
    assert "query ms p50 / p95" in shown
    text = out.read_text(encoding="utf-8")
    assert f"## Where {tiny_folder} and bm25 differ most" in text
    listed = compare(folder, [str(tiny_folder), "bm25"], device="cpu").differing["bm25"]
    changes = [abs(one.ndcg[0] - one.ndcg[1]) for one in listed]
    assert changes == sorted(changes, reverse=True)
    for one in listed:
        assert f"**{one.text}** ({one.id})" in text
        assert one.text == QUERIES[int(one.id[1:])]
        for hit in one.hits[1]:
            assert hit.relevance == GAINS[int(one.id[1:]), int(hit.id[1:])]
    assert main(arguments) == 1
    assert "report.md exists" in capsys.readouterr().err
    assert main([*arguments[:-1], str(tmp_path / "report.json")]) == 0
    assert json.loads((tmp_path / "report.json").read_text())["rows"][1]["name"] == "bm25"


def test_what_is_refused(folder: Path, tiny_folder: Path, tmp_path: Path, server: Loopback) -> None:
    cases: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        ((folder, []), {}, "expected a list of encoders"),
        ((folder, "bm25"), {}, "expected a list of encoders"),
        ((folder, ["bm25", "bm25"]), {}, "'bm25' is named twice"),
        ((folder, [5]), {}, "provider:model, 'bm25' or an encoder, got int 5"),
        ((folder, ["bm25"]), {"prices": {"voyage:x": 1}}, "a price for 'voyage:x', which is not compared"),
        ((folder, ["bm25"]), {"prices": {"bm25": -1}}, "must be a number from 0"),
        ((folder, ["bm25"]), {"limit_docs": 0}, "limit_docs must be a whole number from 1"),
        ((folder, ["bm25"]), {"max_cost": float("nan")}, "max_cost must be a number"),
        ((folder, ["bm25"]), {"split": "dev"}, r"lacks qrels/dev.tsv.* There is test\."),
        ((tmp_path, ["bm25"]), {}, "lacks corpus.jsonl"),
        ((folder, [_hosted(server), str(tmp_path / "nothing")]), {}, "there is no folder"),
        ((folder, [_hosted(server), f"{tiny_folder}:fp16"]), {}, "fp16"),
        ((folder, [_hosted(server, "&api_key=x")]), {}, "api_key= behind openai:any"),
        ((folder, ["bm25"]), {"cache": folder / "corpus.jsonl"}, "vectors cannot be kept in .*--cache FOLDER"),
    ]
    for arguments, more, reason in cases:
        with pytest.raises(trivec.TrivecError, match=reason):
            compare(*arguments, **{"device": "cpu", **more})
    assert server.asked == []  # nothing is paid for before all is known to be right
    with pytest.raises(InputError, match="'bm25' is named twice"):
        plan(folder, ["bm25", "bm25"])


@pytest.mark.parametrize("argument", ["x", "=1", "bm25=much", "bm25="])
def test_a_price_that_is_none(argument: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(folder), "bm25", "--price", argument]) == 1
    assert "expected ENCODER=NUMBER" in capsys.readouterr().err
