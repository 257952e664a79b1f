"""benchmarks.models on a tiny checkpoint: every table, with figures that are those of the manifest."""

import json
from pathlib import Path

import pytest
from benchmarks import models
from benchmarks.harness.scifact import read
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tests.support.architectures import make
from tests.support.save_model import save_model

from trivec._model import manifest_file


def beir(folder: Path) -> Path:
    (folder / "qrels").mkdir(parents=True)
    rain = "rain in spain falls mainly there today on us"
    rows = [
        {"_id": str(i), "title": f"title {i}", "text": f"the {word} {rain} {i}."}
        for i, word in enumerate(("red", "cold", "late", "warm", "first"))
    ]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    queries = [{"_id": "q1", "text": "cold rain"}, {"_id": "q2", "text": "the first rain"}]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    (folder / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\t1\t1\nq2\t4\t1\n")
    return folder


def test_every_table(tmp_path: Path) -> None:
    modules = [Transformer(str(make("bert", tmp_path / "base"))), Pooling(64, "mean")]
    checkpoint = save_model(SentenceTransformer(modules=modules, device="cpu"), tmp_path / "tiny")
    data = read(beir(tmp_path / "data"))
    size = models.Size(short=4, mixed=(3, 1), documents=5, rounds=2)
    found = [models.export(checkpoint, tmp_path / "out")]
    assert found[0].cpu > 0 and found[0].peak > 0
    gates = models.gate_table(found).rows
    stored = manifest_file.read(tmp_path / "out").encoders["main"].variants
    assert [row["variant"] for row in gates] == list(stored) == ["fp32", "fp16", "int8"]
    assert [row["cosine min"] for row in gates] == [(v.gate or {})["cosine_min"] for v in stored.values()]
    assert gates[2]["layers"] == "12 static, 0 by row, 0 fp32"
    speed = models.speed_table(found, data, size, 1).rows
    assert {row["engine"] for row in speed} == {models.THEIRS, "trivec fp32", "trivec int8"}
    assert all(row["times as fast"] == 1.0 for row in speed if row["engine"] == models.THEIRS)
    quality = models.quality_table(found, data, size, 1).rows
    assert [row["variant"] for row in quality] == ["fp32", "int8"]
    assert quality[0]["to fp32"] == 0.0
    assert 0 <= float(quality[0]["nDCG@10"]) <= 100


def test_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["models", "--models", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"holds no checkpoint\. Type: scripts/models"):
        models.main()
