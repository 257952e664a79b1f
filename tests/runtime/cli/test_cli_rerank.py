"""`trivec rerank` against the tiny reranker's table, computed in numpy."""

import functools
import gzip
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytrec_eval
from tests.support.loopback import KEY, Loopback, relevance
from tests.support.rerankers import TinyReranker, write_tiny_reranker

from trivec import Reranker
from trivec._cli.main import main

CPU = ("--device", "cpu", "--threads", "1")
QUERY = "the cat"
TEXTS = ["a dog", "the boat", "sat on the mat", "", "a dog", "a small tree"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyReranker:
    return write_tiny_reranker(tmp_path_factory.mktemp("reranker") / "model")


def rerank(model: TinyReranker, *arguments: object) -> int:
    return main(["rerank", str(model.folder), *map(str, arguments), *CPU])


def scores(model: TinyReranker, query: str, texts: list[str], prompt: str = "") -> list[float]:
    """The model's activation is a sigmoid."""
    logits = model.logits([(query, text) for text in texts], prompt)[:, 0]
    found: list[float] = (1 / (1 + np.exp(-logits.astype(np.float64)))).tolist()
    return found


def order(found: list[float]) -> list[int]:
    return sorted(range(len(found)), key=lambda row: -round(found[row], 6))


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def as_file(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_one_query(tiny: TinyReranker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "texts.txt"
    source.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    expected = scores(tiny, QUERY, TEXTS)
    assert rerank(tiny, source, "--query", QUERY) == 0
    captured = capsys.readouterr()
    (line,) = lines(captured.out)
    assert (line["query_id"], line["query"]) == (1, QUERY)
    assert [place["id"] for place in line["ranking"]] == order(expected)
    np.testing.assert_allclose([p["score"] for p in line["ranking"]], sorted(expected, reverse=True), rtol=1e-5)
    assert {tuple(place) for place in line["ranking"]} == {("id", "score")}
    assert "6 pairs, " in captured.err
    assert rerank(tiny, source, "--query", QUERY, "--top-k", 2, "--documents", "--prompt-name", "query") == 0
    (line,) = lines(capsys.readouterr().out)
    prompted = scores(tiny, QUERY, TEXTS, tiny.prompts["query"])
    assert [place["text"] for place in line["ranking"]] == [TEXTS[row] for row in order(prompted)[:2]]
    assert rerank(tiny, source, "--query", QUERY, "--activation", "identity") == 0
    (line,) = lines(capsys.readouterr().out)
    raw = tiny.logits([(QUERY, text) for text in TEXTS])[:, 0]
    np.testing.assert_allclose([p["score"] for p in line["ranking"]], np.sort(raw)[::-1], rtol=1e-5)


def test_several_queries_in_either_form(tiny: TinyReranker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists: list[dict[str, Any]] = [
        {"query_id": "q1", "query": QUERY, "documents": [{"id": f"d{row}", "text": t} for row, t in enumerate(TEXTS)]},
        {"query_id": "q2", "query": "a dog", "documents": [{"id": 7, "text": "a cat"}, {"id": 8, "text": "the hill"}]},
    ]
    rows = [
        {"query_id": each["query_id"], "query": each["query"], **document, "more": 1}
        for each in lists
        for document in each["documents"]
    ]
    made = []
    for number, content in enumerate((lists, rows)):
        out = tmp_path / f"{number}.jsonl"
        packed = tmp_path / f"in{number}.jsonl.gz"
        packed.write_bytes(gzip.compress(as_file(tmp_path / "plain.jsonl", content).read_bytes()))
        assert rerank(tiny, packed, "-o", out, "--window", 4) == 0
        made.append(out.read_bytes())
    assert made[0] == made[1]
    first, second = lines(made[0].decode())
    assert [place["id"] for place in first["ranking"]] == [f"d{row}" for row in order(scores(tiny, QUERY, TEXTS))]
    both = scores(tiny, "a dog", ["a cat", "the hill"])
    assert [place["id"] for place in second["ranking"]] == [7 + row for row in order(both)]
    assert (second["query_id"], second["query"]) == ("q2", "a dog")
    assert not list(tmp_path.glob("*.partial*"))
    assert "8 pairs, " in capsys.readouterr().err


def test_queries_without_ids(
    tiny: TinyReranker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = [
        {"query": QUERY, "documents": TEXTS[:2]},
        {"query": QUERY, "documents": []},
        {"query": QUERY, "documents": TEXTS[2:4]},
        {"query": "a", "text": "cat"},
        {"query": "a", "text": "dog"},
    ]
    data = "\n\n".join(map(json.dumps, content)).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert rerank(tiny) == 0
    found = lines(capsys.readouterr().out)
    assert [(line["query_id"], sorted(p["id"] for p in line["ranking"])) for line in found] == [
        (1, [0, 1]),
        (3, [0, 1]),  # the second has no documents, and no line
        (4, [0, 1]),
    ]


def test_a_run_for_trec_eval(tiny: TinyReranker, tmp_path: Path) -> None:
    source = as_file(
        tmp_path / "in.jsonl",
        [{"query_id": "q", "query": QUERY, "documents": [{"id": f"d{r}", "text": t} for r, t in enumerate(TEXTS)]}],
    )
    out = tmp_path / "out.run"
    assert rerank(tiny, source, "-o", out, "--top-k", 3) == 0
    expected = scores(tiny, QUERY, TEXTS)
    fields = [line.split(" ") for line in out.read_text(encoding="utf-8").splitlines()]
    assert [f[2] for f in fields] == [f"d{row}" for row in order(expected)[:3]]
    assert [(f[0], f[1], f[3], f[5]) for f in fields] == [("q", "Q0", str(rank), "trivec") for rank in (1, 2, 3)]
    np.testing.assert_allclose([float(f[4]) for f in fields], sorted(expected, reverse=True)[:3], rtol=1e-5)
    with out.open(encoding="utf-8") as stream:
        run = pytrec_eval.parse_run(stream)
    assert set(run["q"]) == {f"d{row}" for row in order(expected)[:3]}


def test_it_goes_on(tiny: TinyReranker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Whatever was done before an interruption is not scored again, and the file is the same."""
    content = [{"query": f"the cat {n}", "documents": TEXTS} for n in range(4)]
    source, out, whole = as_file(tmp_path / "in.jsonl", content), tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    assert rerank(tiny, source, "-o", whole) == 0
    asked: list[tuple[str, int]] = []
    rank = Reranker.rank

    @functools.wraps(rank)
    def counted(self: Reranker, query: str, documents: Any, *arguments: Any, **options: Any) -> Any:
        if documents:
            asked.append((query, len(documents)))
        if query == "the cat 2" and len(asked) < 5:
            raise KeyboardInterrupt
        return rank(self, query, documents, *arguments, **options)

    monkeypatch.setattr(Reranker, "rank", counted)
    assert rerank(tiny, source, "-o", out, "--window", 6) == 130
    assert not out.exists()
    assert "the same call goes on from there" in capsys.readouterr().err
    changed = as_file(tmp_path / "changed.jsonl", [{"query": "another", "documents": TEXTS}])
    assert rerank(tiny, changed, "-o", out, "--window", 6) == 1
    assert rerank(tiny, source, "-o", out, "--activation", "identity") == 1
    assert "was begun with the fingerprint" in capsys.readouterr().err
    asked[:] = [("", 0)] * 5
    assert rerank(tiny, source, "-o", out, "--window", 6) == 0
    assert asked[5:] == [("the cat 2", 6), ("the cat 3", 6)]
    assert out.read_bytes() == whole.read_bytes()
    assert "12 of them done before" in capsys.readouterr().err
    assert rerank(tiny, source, "-o", out) == 1
    assert "exists. Choose another name, or replace it: --force" in capsys.readouterr().err
    assert rerank(tiny, source, "-o", out, "--force") == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (["a"], r"in.jsonl, line 1: expected {query, documents: "),
        ([{"query": "a"}], r"line 1: expected {query, documents: .* For one query type: --query TEXT"),
        ([{"query": "a", "documents": "b"}], r"line 1: expected a list of documents, got \"b\""),
        ([{"query": "a", "documents": ["b"]}, {"query": 3, "documents": ["b"]}], r"line 2: query: expected a string"),
        ([{"query": "a", "documents": ["b", None]}], r"line 1, document 1: expected a string, got null"),
        ([{"query": "a", "documents": [{"id": 1}]}], r"line 1, document 0: expected a text, or an object with a text"),
        ([{"query": "a", "documents": [{"id": [], "text": "b"}]}], r"document 0: id: expected a string or a whole"),
        ([{"query": "a", "documents": ["b"], "query_id": True}], r"query_id: expected a string or a whole number"),
        (
            [{"query": q, "query_id": i, "documents": ["b"]} for q, i in (("a", 1), ("b", 2), ("a", 1))],
            r"line 3: the query 1 was there before, with others between",
        ),
        ([{"query": "a\ud800", "documents": ["b"]}], r"line 1: query holds a lone surrogate"),
    ],
)
def test_lines_that_cannot_be_used(
    tiny: TinyReranker, content: list[Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = as_file(tmp_path / "in.jsonl", content)
    assert rerank(tiny, source, "-o", tmp_path / "out.jsonl") == 1
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out.jsonl").exists()


def test_other_refusals(
    tiny: TinyReranker, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = as_file(tmp_path / "in.jsonl", [{"query_id": "q 1", "query": "a", "documents": ["b"]}])
    text = tmp_path / "in.txt"
    text.write_text("a\n", encoding="utf-8")
    for arguments, message in (
        ((source, "-o", tmp_path / "out.run"), "a TREC run takes no white space in ids, got 'q 1'. Write .jsonl"),
        ((source, "-o", tmp_path / "out.npy"), "is neither .jsonl, .run nor .trec"),
        ((source, "-o", tmp_path / "no/out.run"), "there is no folder"),
        ((source, "-o", source), "is the input; it is not overwritten"),
        ((text,), "is neither .jsonl nor .ndjson"),
        ((tmp_path / "no.jsonl",), "there is no file"),
        ((source, "--prompt-name", "none"), "prompt_name 'none' is none of this model's prompts"),
        ((source, "--activation", "softmin"), "activation_fn 'softmin' is not one of"),
    ):
        assert rerank(tiny, *arguments) == 1
        assert message in capsys.readouterr().err
    assert main(["rerank", str(tiny_folder), str(source), *CPU]) == 1
    assert "is a DenseEncoder, which ranks no documents. Expected a reranker" in capsys.readouterr().err
    long = as_file(tmp_path / "long.jsonl", [{"query_id": "q", "query": "a", "documents": ["b", "boat " * 40]}])
    assert rerank(tiny, long, "--on-overflow", "error") == 1
    assert "query 'q', documents from 0 on: 1 of 2 pairs are longer than 16 tokens" in capsys.readouterr().err
    assert rerank(tiny, long) == 0
    assert "1 of 2 pairs were longer than the model reads, and were cut" in capsys.readouterr().err


def test_a_hosted_reranker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CO_API_KEY", KEY)
    source = as_file(tmp_path / "in.jsonl", [{"query": QUERY, "documents": ["a", "b", "c"]}])
    with Loopback() as server:
        spec = f"cohere:m?base_url={server.base('cohere')}"
        assert main(["rerank", spec, str(source)]) == 0
        (line,) = lines(capsys.readouterr().out)
        assert main(["rerank", spec, str(source), "--batch-size", "3"]) == 1
    expected = sorted(range(3), key=lambda row: -relevance(QUERY, "abc"[row]))
    assert [place["id"] for place in line["ranking"]] == expected
    assert "batch_size=3 is no option of this reranker's rank" in capsys.readouterr().err
