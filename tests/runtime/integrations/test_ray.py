"""`trivec.integrations.ray`: the class by itself, then in a real Ray that is killed half way and goes on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.support.tiny_heads import hybrid, random_logits, random_weights, splade
from tests.support.tiny_model import TinyModel

import trivec
from trivec import InputError, MissingExtraError
from trivec._system.threads import available_threads
from trivec.integrations.ray import Encode, assigned_threads, columns

TEXTS = ["the cat sat on the mat", "", "A small RED boat", "un mot inconnu: 東京", "dog " * 40, "a"]
BATCH = {"id": np.arange(6), "text": np.array(TEXTS, dtype=object)}


def encode(folder: Path, **options: Any) -> Encode:
    return Encode(str(folder), device="cpu", **{"threads": 1, **options})


def load(folder: Path) -> Any:
    return trivec.load(folder, device="cpu", threads=1)


# ------------------------------------------------------------------------------------------------- without a cluster
def test_dense_vectors_are_an_array(tiny_folder: Path) -> None:
    batch = encode(tiny_folder)(BATCH)
    assert list(batch) == ["id", "text", "embedding"]
    assert batch["id"] is BATCH["id"]
    assert batch["embedding"].dtype == np.float32
    assert np.array_equal(batch["embedding"], load(tiny_folder).encode(TEXTS))


def test_names_methods_and_options(tiny_folder: Path) -> None:
    made = encode(
        tiny_folder,
        column="body",
        output="v",
        method="encode_query",
        precision="int8",
        load_options={"truncate_dim": 5},
        encode_options={"normalize_embeddings": True},
    )
    assert repr(made) == (
        f"Encode(DenseEncoder({str(tiny_folder)!r}, dim=12, int8, cpu), column='body', output='v', threads=1)"
    )
    expected = trivec.load(tiny_folder, device="cpu", precision="int8", truncate_dim=5).encode_query(
        TEXTS, normalize_embeddings=True
    )
    assert np.array_equal(made({"body": np.array(TEXTS)})["v"], expected)


def test_no_rows(tiny_folder: Path) -> None:
    batch = encode(tiny_folder)({"text": np.array([], dtype=object)})
    assert batch["embedding"].shape == (0, 12)


def test_sparse_vectors_are_two_lists(tiny_model: "TinyModel", tmp_path: Path) -> None:
    folder = splade(tmp_path / "model", tiny_model, random_logits(), random_weights()).folder
    batch = encode(folder, method="encode_document", encode_options={"max_active_dims": 4})(BATCH)
    assert list(batch) == ["id", "text", "embedding_indices", "embedding_values"]
    assert [str(batch[f"embedding_{name}"].type.value_type) for name in ("indices", "values")] == ["int32", "float"]
    expected = load(folder).encode_document(TEXTS, max_active_dims=4)
    assert batch["embedding_indices"].to_pylist() == [row.indices.tolist() for row in expected]
    assert batch["embedding_values"].to_pylist() == [row.values.tolist() for row in expected]


def test_hybrid_vectors_are_all_of_them(tiny_model: "TinyModel", tmp_path: Path) -> None:
    folder = hybrid(tmp_path / "model", tiny_model).folder
    batch = encode(folder, encode_options={"return_colbert_vecs": True})(BATCH)
    expected = load(folder).encode(TEXTS, return_colbert_vecs=True)
    assert list(batch)[2:] == ["embedding", "embedding_indices", "embedding_values", "embedding_colbert"]
    assert np.array_equal(batch["embedding"], expected.dense)
    assert batch["embedding_values"].to_pylist() == [row.values.tolist() for row in expected.sparse]
    assert str(batch["embedding_colbert"].type) == "list<item: fixed_size_list<item: float>[3]>"
    assert batch["embedding_colbert"].to_pylist() == [row.tolist() for row in expected.colbert]
    only = encode(folder, encode_options={"return_dense": False})(BATCH)
    assert list(only)[2:] == ["embedding_indices", "embedding_values"]


def test_a_column_that_is_not_there(tiny_folder: Path) -> None:
    with pytest.raises(InputError, match=r"the dataset has no column 'body'; it has 'id', 'text'. Name the column of"):
        encode(tiny_folder, column="body")(BATCH)


@pytest.mark.parametrize(
    ("value", "said"), [(None, "NoneType 'None'"), (float("nan"), "float 'nan'"), (7, "int '7'"), (b"x", "bytes")]
)
def test_a_row_that_is_no_text_is_named(tiny_folder: Path, value: Any, said: str) -> None:
    rows = {"id": np.array([40, 41, 42]), "text": np.array(["a", value, "b"], dtype=object)}
    with pytest.raises(InputError, match="expected a text in column 'text', got") as caught:
        encode(tiny_folder)(rows)
    assert f"got {said}" in str(caught.value)
    assert "in row 1 of the batch, where id is '41'." in str(caught.value)
    assert ("dataset.filter" in str(caught.value)) == (value is None or value != value)


def test_wrong_arguments(tiny_folder: Path) -> None:
    with pytest.raises(InputError, match="method 'embed' is not one of encode, encode_query, encode_document"):
        encode(tiny_folder, method="embed")
    with pytest.raises(InputError, match="threads among load_options: Encode has arguments of that name"):
        encode(tiny_folder, load_options={"threads": 2})
    with pytest.raises(InputError, match="list does not go into a column: leave tensors and output_value out"):
        encode(tiny_folder, encode_options={"output_value": "token_embeddings"})(BATCH)


def test_lists_without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r'need pyarrow. Type: pip install "ray\[data\]"'):
        columns(trivec.SparseVectors.from_dicts([{1: 2.0}], 5), "v")


def test_importing_it_does_not_import_ray() -> None:
    code = "import sys, trivec.integrations.ray; print('ray' in sys.modules, 'pyarrow' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(trivec.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


@pytest.mark.parametrize(
    ("initialized", "actor", "cpus", "expected"),
    [
        (False, "a", {"CPU": 4.0}, None),
        (True, None, {}, None),  # the driver
        (True, "a", {"CPU": 1.0}, 1),
        (True, "a", {"CPU": 0.5}, 1),
        (True, "a", {"GPU": 1.0}, 1),
        (True, "a", {"CPU": 4096.0}, available_threads().count),
    ],
)
def test_threads_are_what_ray_assigns(
    monkeypatch: pytest.MonkeyPatch, initialized: bool, actor: str | None, cpus: dict[str, float], expected: int | None
) -> None:
    context = SimpleNamespace(get_actor_id=lambda: actor, get_task_id=lambda: None, get_assigned_resources=lambda: cpus)
    fake = SimpleNamespace(is_initialized=lambda: initialized, get_runtime_context=lambda: context)
    monkeypatch.setitem(sys.modules, "ray", fake)
    assert assigned_threads() == expected


def test_threads_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    assert assigned_threads() is None


# ---------------------------------------------------------------------------------------------------- with a cluster
ROWS, FILES, BLOCK = 240, 3, 20
JOB = """
import os, sys, time
import ray
from pathlib import Path
from ray.data.checkpoint import CheckpointConfig
from trivec.integrations.ray import Encode

class Slow(Encode):  # writes down what it encodes, and leaves the time to be killed
    def __call__(self, batch):
        time.sleep(float(os.environ["DELAY"]))
        with open("log", "a") as log:
            log.write(f"{self!r}\\t{batch['id'].tolist()}\\n")
        return super().__call__(batch)

# one for the two encoders, one for the filter of what is done, and one for reading and writing; logical, not cores
ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
ray.data.DataContext.get_current().checkpoint_config = CheckpointConfig(
    id_column="id", checkpoint_path=str(Path("checkpoint").absolute()), delete_checkpoint_on_success=False
)
(
    ray.data.read_parquet("documents")
    .repartition(target_num_rows_per_block=20)
    .map_batches(
        Slow,
        fn_constructor_args=(sys.argv[1],),
        fn_constructor_kwargs={"device": "cpu", "encode_options": {"return_colbert_vecs": True}},
        compute=ray.data.ActorPoolStrategy(size=2),
        num_cpus=0.5,
        batch_size=16,
    )
    .write_parquet("vectors")
)
"""


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A short path: Ray puts sockets below it, whose names are limited."""
    folder = Path(tempfile.mkdtemp(prefix="ray"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def start(model: Path, work: Path, temporary: Path, delay: float) -> "subprocess.Popen[bytes]":
    environment = {
        **os.environ,
        "HOME": str(work),  # Ray keeps a token there
        "RAY_TMPDIR": str(temporary),
        "RAY_USAGE_STATS_ENABLED": "0",
        "DELAY": str(delay),
        "PYTHONPATH": str(Path(trivec.__file__).parents[1]),
    }
    with (work / "output").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-c", JOB, str(model)],
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def finish(job: "subprocess.Popen[bytes]") -> None:
    """Kill the job with its cluster, as when a machine goes down."""
    for _ in range(50):
        try:
            os.killpg(job.pid, signal.SIGKILL)
        except ProcessLookupError:  # nobody is left, nor can start another
            break
        job.poll()
        time.sleep(0.1)
    job.wait()


def logged(work: Path) -> Counter[int]:
    """How often each row was encoded since the last call; and each actor kept to one thread."""
    lines = [line.split("\t") for line in (work / "log").read_text().splitlines()]
    (work / "log").unlink()
    assert all(name.endswith("output='embedding', threads=1)") for name, _ in lines)
    return Counter(row for _, rows in lines for row in json.loads(rows))


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="this system has no process groups to kill")
def test_a_killed_job_goes_on(tiny_model: "TinyModel", tmp_path: Path, temporary: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    model = hybrid(tmp_path / "model", tiny_model).folder
    texts = [f"{TEXTS[row % 6]} {TEXTS[row // 6 % 6]} house {row}" for row in range(ROWS)]
    (tmp_path / "documents").mkdir()
    for part in np.array_split(np.arange(ROWS), FILES):
        table = pa.table({"id": part, "text": [texts[row] for row in part]})
        pq.write_table(table, tmp_path / f"documents/{part[0]:03}.parquet")

    def committed() -> set[int]:
        files = [file for file in (tmp_path / "checkpoint").glob("*.parquet") if ".pending" not in file.name]
        return {row for file in files for row in pq.read_table(file)["id"].to_pylist()}

    job = start(model, tmp_path, temporary, delay=0.3)
    try:
        end = time.monotonic() + 600
        while len(committed()) < 3 * BLOCK and job.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        assert job.poll() is None, (tmp_path / "output").read_text()
    finally:
        finish(job)
    first, done = logged(tmp_path), committed()
    assert 3 * BLOCK <= len(done) < ROWS

    job = start(model, tmp_path, temporary, delay=0.0)
    try:
        assert job.wait(600) == 0, (tmp_path / "output").read_text()
    finally:
        finish(job)
    again = logged(tmp_path)
    assert set(again).isdisjoint(done)  # what was finished is not encoded again
    assert set(first) | set(again) == set(range(ROWS))
    assert set(again.values()) == {1}

    found = pq.read_table(tmp_path / "vectors").sort_by("id")
    assert found["id"].to_pylist() == list(range(ROWS))  # every row once
    expected = load(model).encode(texts, return_colbert_vecs=True)
    assert np.array_equal(np.array(found["embedding"].to_pylist(), dtype=np.float32), expected.dense)
    assert found["embedding_indices"].to_pylist() == [row.indices.tolist() for row in expected.sparse]
    assert found["embedding_values"].to_pylist() == [row.values.tolist() for row in expected.sparse]
    assert found["embedding_colbert"].to_pylist() == [row.tolist() for row in expected.colbert]
