"""`trivec explain` of a reranker, against the tiny one's table."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.rerankers import TinyReranker, write_tiny_reranker

from trivec._cli.main import main

CPU = ("--device", "cpu", "--threads", "1")
QUERY = "the cat"
SENTENCES = ("The cat sat.", "A dog ran!", "東京。")
TEXT = f"{SENTENCES[0]} {SENTENCES[1]}\n{SENTENCES[2]}"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyReranker:
    return write_tiny_reranker(tmp_path_factory.mktemp("reranker") / "model")


def as_json(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> Any:
    assert main(["explain", str(folder), *arguments, "--json", *CPU]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_score_and_the_drops(tiny: TinyReranker, capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, tiny.folder, QUERY, TEXT)
    rests = (f"{SENTENCES[1]}\n{SENTENCES[2]}", f"{SENTENCES[0]} {SENTENCES[2]}", f"{SENTENCES[0]} {SENTENCES[1]}\n")
    logit, *without = tiny.logits([(QUERY, TEXT), *((QUERY, rest) for rest in rests)])[:, 0].tolist()
    assert found["logit"] == pytest.approx(logit, rel=1e-5)
    assert found["scores"] == {"score": pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-5)}
    assert [left["sentence"] for left in found["sentences"]] == list(SENTENCES)
    np.testing.assert_allclose([left["logit"] for left in found["sentences"]], without, rtol=1e-4, atol=1e-5)
    drops = [logit - each for each in without]
    np.testing.assert_allclose([left["drop"] for left in found["sentences"]], drops, rtol=1e-4, atol=1e-5)
    assert [token["id"] for token in found["tokens"]] == tiny.ids((QUERY, TEXT))[0]
    assert (found["cut"], found["label"], found["activation"]) == ([0, 0], None, "sigmoid")


def test_what_is_cut_and_a_prompt(tiny: TinyReranker, capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, tiny.folder, QUERY, "boat " * 40, "--prompt-name", "query")
    assert (found["prompt"], found["cut"], found["sentences"]) == ("find the ", [0, 40 - 9], [])
    assert len(found["tokens"]) == 16
    both = as_json(capsys, tiny.folder, "dog " * 20, "boat " * 40)
    assert (sum(both["cut"]), both["cut"][0] > 0) == (60 - 13, True)


def test_several_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    three = write_tiny_reranker(tmp_path / "three", ("no", "yes", "maybe"), "identity")
    found = as_json(capsys, three.folder, QUERY, TEXT)
    logits = three.logits([(QUERY, TEXT)])[0]
    assert list(found["scores"]) == ["no", "yes", "maybe"]
    np.testing.assert_allclose(list(found["scores"].values()), logits, rtol=1e-5)
    assert found["label"] == ("no", "yes", "maybe")[int(logits.argmax())]
    assert found["logit"] == pytest.approx(logits.max(), rel=1e-5)


def test_as_text(tiny: TinyReranker, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(tiny.folder), QUERY, TEXT, *CPU]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    logit = float(tiny.logits([(QUERY, TEXT)])[0, 0])
    assert any(line.startswith(f"  logit     {logit:.4f}, which sigmoid makes a score of") for line in lines)
    start = lines.index("the logit without a sentence, and how much lower it is")
    assert [line.split("  ")[-1] for line in lines[start + 1 :]] == list(SENTENCES)
    assert main(["explain", str(tiny.folder), QUERY, "boat " * 40, *CPU]) == 0
    assert "  cut off   0 tokens of the query and 29 of the text, which are not read" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((QUERY,), "is a reranker: it scores a query with a text. Type: trivec explain MODEL QUERY TEXT"),
        ((QUERY, TEXT, "--task", "query"), "is a reranker: --task is for encoders"),
        ((QUERY, TEXT, "--prompt-name", "none"), "prompt_name 'none' is none of this model's prompts"),
    ],
)
def test_refusals(
    tiny: TinyReranker, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(tiny.folder), *arguments, *CPU]) == 1
    assert message in capsys.readouterr().err
