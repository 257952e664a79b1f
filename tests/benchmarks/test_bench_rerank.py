"""The benchmark of rerankers: what it computes, and that its engines agree; not how fast they are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import rerank
from benchmarks.harness import rerankers
from benchmarks.harness.cross_encoders import pair_lengths
from benchmarks.harness.scifact import SciFact
from benchmarks.harness.serve import find
from tests.support.rerankers import TinyReranker, write_tiny_reranker

PAIRS = [["the cat", "sat on the mat"], ["a dog", "boat " * 40], ["the cat", "a dog"], ["", "tree"]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyReranker:
    return write_tiny_reranker(tmp_path_factory.mktemp("reranker") / "model")


def options(folder: Path) -> dict[str, Any]:
    return {"folder": str(folder), "precision": "fp32", "threads": 1, "tokens": 16, "pad": 0}


def test_our_engine_gives_logits_in_order(tiny: TinyReranker) -> None:
    engine = find("benchmarks.harness.rerankers:trivec")(options(tiny.folder))
    found = engine.arrays(engine.many(PAIRS, 0))["scores"]  # type: ignore[arg-type]
    np.testing.assert_allclose(found, tiny.logits([(a, b) for a, b in PAIRS])[:, 0], rtol=1e-5)
    ranked = engine.one(["the cat", ["a dog", "sat on the mat"]])  # type: ignore[arg-type]
    assert sorted(place["corpus_id"] for place in ranked) == [0, 1]
    assert len(engine.one("a text")) == 1


def test_the_padded_engine_feeds_what_the_tokenizer_gives(tiny: TinyReranker, tmp_path: Path) -> None:
    """The tiny graph has no mask, so that batches of one row, which are never padded, are compared."""
    folder = tmp_path / "plain"
    folder.mkdir()
    (folder / "model.onnx").write_bytes((tiny.folder / "onnx/model.onnx").read_bytes())
    (folder / "tokenizer.json").write_bytes((tiny.folder / "tokenizer.json").read_bytes())
    engine = rerankers.padded(options(folder))
    found = engine.arrays(engine.many(PAIRS, 1))["scores"]  # type: ignore[arg-type]
    np.testing.assert_allclose(found, tiny.logits([(a, b) for a, b in PAIRS])[:, 0], rtol=1e-5)
    logits = tiny.logits([("the cat", text) for text in ("a dog", "tree")])[:, 0]
    assert engine.one(["the cat", ["a dog", "tree"]]) in ([0, 1], [1, 0])  # type: ignore[arg-type]
    assert rerankers._best(logits.tolist())[0] == int(logits.argmax())


def test_lengths_of_pairs(tiny: TinyReranker) -> None:
    pairs = [(a, b) for a, b in PAIRS]
    expected = [len(tiny.ids(pair)[0]) for pair in pairs]
    assert pair_lengths(pairs, tiny.folder / "tokenizer.json", 16).tolist() == expected


def test_bm25_hits_are_those_of_its_scores() -> None:
    texts = ("the cat sat", "a dog ran", "boats and a cat", "trees", "hills", "rivers", "birds")
    documents = {str(row): text for row, text in enumerate(texts)}
    data = SciFact(documents, documents, {"q": "cat"}, {"q": {"0": 1}})
    found = rerank.bm25_hits(data, ["cat", "dog ran"], 2)
    assert set(found.tolist()[0]) == {0, 2}
    assert found.tolist()[1][0] == 1


def test_goals_and_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = {goal.what: goal for goal in rerank.goals("minilm")}
    ratio = wanted["minilm, mixed documents: trivec fp32 over sentence-transformers"]
    assert (ratio.figure, ratio.sign, ratio.value) == ("minilm mixed / trivec fp32 / sentence-transformers", ">=", 1.8)
    assert wanted["minilm, nDCG@10 x 100 that int8 costs, top 20"].value == 0.5
    for argument in (["--only", "speed"], ["--models", "bert"]):
        with pytest.raises(SystemExit):
            rerank.main([*argument, "--data", str(tmp_path)])
        assert "does not know" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        rerank.main(["--data", str(tmp_path)])
    assert "has no corpus.jsonl" in capsys.readouterr().err
    assert json.dumps(rerank.FULL)
