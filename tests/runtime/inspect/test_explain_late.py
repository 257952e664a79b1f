"""`trivec explain` of a late-interaction model: which token of a query met which of a document, against numpy."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.support.tiny_late import DROPPED, TinyLate, write_tiny_late
from tests.support.tiny_model import SPECIAL, WORDS

import trivec
from trivec._cli.main import main
from trivec._inspect.explain import explain

QUERY, DOCUMENT = "the red cat", "find the old cat under a tree"
EVERY = (*SPECIAL, *WORDS)
CPU = ("--device", "cpu", "--threads", "1")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyLate:
    return write_tiny_late(tmp_path_factory.mktemp("tiny") / "model")


def expected(tiny: TinyLate) -> list[tuple[str, str, float]]:
    products = tiny.vectors([QUERY], "query")[0] @ tiny.vectors([DOCUMENT], "document")[0].T  # (S, T)
    a = [EVERY[i] for i in tiny.ids(QUERY, "query")[0]]
    b = [EVERY[i] for i in tiny.ids(DOCUMENT, "document")[0] if i not in DROPPED]
    return [(name, b[row.argmax()], float(row.max())) for name, row in zip(a, products, strict=True)]


def test_which_token_met_which(tiny: TinyLate) -> None:
    with trivec.load(tiny.folder, device="cpu") as late:
        found = explain(late, [QUERY, DOCUMENT])
        assert found.similarity is not None
        assert found.similarity.matches is not None
        matches = [(match.a.token, match.b.token) for match in found.similarity.matches]
        wanted = expected(tiny)
        assert matches == [(a, b) for a, b, _ in wanted]
        scores = [match.score for match in found.similarity.matches]
        np.testing.assert_allclose(scores, [score for *_, score in wanted], rtol=1e-5)
        total = float(tiny.scores([QUERY], [DOCUMENT])[0, 0])
        assert found.similarity.colbert == pytest.approx(total, rel=1e-5)
        assert found.similarity.function == "maxsim"
        assert [token.id for token in found.texts[0].tokens] == tiny.ids(QUERY, "query")[0]
        assert [token.id for token in found.texts[1].tokens] == tiny.ids(DOCUMENT, "document")[0]
        assert found.texts[1].colbert == (len(tiny.vectors([DOCUMENT], "document")[0]), late.dim)
        both = explain(late, [QUERY, DOCUMENT], method="encode_document")
        assert [token.id for token in both.texts[0].tokens] == tiny.ids(QUERY, "document")[0]


def test_what_is_printed(tiny: TinyLate, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(tiny.folder), QUERY, DOCUMENT, "--top", "5", *CPU]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    wanted = expected(tiny)
    total = sum(score for *_, score in wanted)
    start = next(i for i, line in enumerate(lines) if "maxsim" in line)
    assert lines[start].split() == [
        "colbert",
        "maxsim",
        f"{total:.4f},",
        *["the", "sum", "of", "what", "A's", "tokens", "meet,", "the", "first", "5", "of"],
        "8:",
    ]
    for line, (a, b, score) in zip(lines[start + 1 :], wanted[:5], strict=True):
        assert line.split()[:3] == [a, b, f"{score:.4f}"]
    assert main(["explain", str(tiny.folder), QUERY, DOCUMENT, "--json", *CPU]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [match["a"]["token"] for match in said["similarity"]["matches"]] == [a for a, *_ in wanted]


def test_of_one_text_nothing_meets(tiny: TinyLate) -> None:
    with trivec.load(tiny.folder, device="cpu") as late:
        assert explain(late, [QUERY]).similarity is None


def test_a_query_that_is_cut_says_what(tmp_path: Path) -> None:
    tiny = write_tiny_late(tmp_path / "model")
    with trivec.load(tiny.folder, device="cpu") as late:
        found = explain(late, ["cat dog cat dog cat dog cat", "tree"])
        assert [token.token for token in found.texts[0].cut] == ["dog", "cat"]
        assert late.query_length == 8
