"""LanceDB's embedding function: a table of SciFact, what it remembers of its model, and what it refuses."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pydantic
import pytest
from lancedb.embeddings import get_registry
from lancedb.pydantic import LanceModel, Vector
from tests.runtime.frameworks.conftest import Expected, SciFact
from tests.support.tiny_model import TinyModel

from trivec import InputError, TruncationError
from trivec.integrations.lancedb import TrivecEmbeddings

OPTIONS: dict[str, Any] = {"device": "cpu", "threads": 1}


def schema(model: TrivecEmbeddings) -> Any:
    class Row(LanceModel):  # type: ignore[misc]
        id: str
        text: str = model.SourceField()
        vector: Vector(model.ndims()) = model.VectorField()  # type: ignore[valid-type]

    return Row


def test_scifact(minilm: Path, prompted: dict[str, Any], scifact: SciFact, expected: Expected, tmp_path: Path) -> None:
    model = get_registry().get("trivec").create(name=str(minilm), **prompted)
    assert isinstance(model, TrivecEmbeddings)
    assert model.ndims() == 384
    table = lancedb.connect(tmp_path).create_table("scifact", schema=schema(model))
    table.add([{"id": name, "text": text} for name, text in scifact.documents.items()])
    stored = table.to_arrow()
    assert stored.column("id").to_pylist() == scifact.ids
    vectors = np.stack(stored.column("vector").to_numpy())
    np.testing.assert_array_equal(vectors, expected.documents)
    for place, question in enumerate(list(scifact.queries.values())[:3]):
        found = table.search(question).distance_type("dot").limit(5).to_list()
        assert [row["id"] for row in found] == [scifact.ids[row] for row in expected.order(place)[:5]]
    script = f"""
        import lancedb
        import trivec.integrations.lancedb
        table = lancedb.connect({str(tmp_path)!r}).open_table("scifact")
        print(*(row["id"] for row in table.search({scifact.question!r}).distance_type("dot").limit(5).to_list()))
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    told = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, timeout=300, check=False)
    assert told.stdout.split() == [scifact.ids[row] for row in expected.order()[:5]], told.stderr


def test_a_table_refuses_other_vectors(tiny_model: TinyModel, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model.folder, folder)
    model = TrivecEmbeddings.create(name=str(folder), load_options={"token": "hf_secret"}, **OPTIONS)
    kept = model.safe_model_dump()
    assert kept == {"name": str(folder), "precision": "fp32", "expected": model.fingerprint}
    store = lancedb.connect(tmp_path / "store")
    store.create_table("texts", schema=schema(model)).add([{"id": "1", "text": "a cat"}])
    manifest = json.loads((folder / "trivec.json").read_text())
    manifest["prompts"]["document"] = "the "
    (folder / "trivec.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="gives other vectors than those that were stored"):
        store.open_table("texts").search("the cat").to_list()


def test_what_is_refused(tiny_folder: Path) -> None:
    model = TrivecEmbeddings.create(name=str(tiny_folder), on_overflow="error", **OPTIONS)
    with pytest.raises(InputError, match="at index 1"):
        model.compute_source_embeddings_with_retry(["a cat", None])
    with pytest.raises(TruncationError):
        model.compute_query_embeddings_with_retry("cat " * 40)
    assert model.generate_embeddings([]) == []
    with pytest.raises(pydantic.ValidationError, match="precison"):
        TrivecEmbeddings.create(name=str(tiny_folder), precison="int8")
    with pytest.raises(InputError, match=r"normalise=True is no option of this model"):
        TrivecEmbeddings.create(name=str(tiny_folder), encode_options={"normalise": True}, **OPTIONS)
    short = TrivecEmbeddings.create(name=str(tiny_folder), load_options={"truncate_dim": 4}, **OPTIONS)
    assert (short.ndims(), np.shape(short.generate_embeddings(["a"]))) == (4, (1, 4))
