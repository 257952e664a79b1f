"""Stored vectors in DuckDB, polars, pandas and LanceDB as they are, and their columns back in similarity and search."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import lancedb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from tests.runtime.frameworks.conftest import Expected, SciFact

import trivec
from trivec import InputError, store, util

COLUMNS: dict[str, Callable[[str], Any]] = {
    "pyarrow": lambda path: pq.read_table(path).column("dense"),
    "pyarrow, one chunk": lambda path: pq.read_table(path).column("dense").combine_chunks(),
    "pandas": lambda path: pd.read_parquet(path)["dense"],
    "pandas of pyarrow": lambda path: pd.read_parquet(path, dtype_backend="pyarrow")["dense"],
    "polars": lambda path: pl.read_parquet(path)["dense"],
    "polars, lazy": lambda path: pl.scan_parquet(path).select("dense").collect()["dense"],
    "DuckDB": lambda path: duckdb.sql(f"select dense from '{path}'").fetchnumpy()["dense"],
    "DuckDB to pandas": lambda path: duckdb.sql(f"select dense from '{path}'").df()["dense"],
    "DuckDB to polars": lambda path: duckdb.sql(f"select dense from '{path}'").pl()["dense"],
    "DuckDB's rows": lambda path: [row[0] for row in duckdb.sql(f"select dense from '{path}'").fetchall()],
}


@pytest.fixture(scope="module")
def stored(encoder: trivec.DenseEncoder, scifact: SciFact, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("store") / "scifact.parquet"
    store.write(path, encoder, scifact.texts, window=25, method="encode_document")
    return str(path)


@pytest.fixture(scope="module")
def older(stored: str) -> str:
    """The same as trivec 0.2 wrote it: lists of any length."""
    import pyarrow as pa

    table = pq.read_table(stored)
    lists = table.column("dense").cast(pa.list_(pa.float32()))
    path = stored.replace("scifact", "older")
    pq.write_table(table.set_column(1, pa.field("dense", lists.type), lists), path)
    return path


@pytest.mark.parametrize("reader", COLUMNS)
@pytest.mark.parametrize("file", ["stored", "older"])
def test_a_column_goes_where_vectors_go(
    reader: str,
    file: str,
    request: pytest.FixtureRequest,
    encoder: trivec.DenseEncoder,
    expected: Expected,
) -> None:
    column = COLUMNS[reader](request.getfixturevalue(file))
    wanted = encoder.similarity(expected.queries, expected.documents)
    np.testing.assert_array_equal(encoder.similarity(expected.queries, column), wanted)
    by_documents = util.cos_sim(expected.documents, expected.queries)
    np.testing.assert_array_equal(util.cos_sim(column, expected.queries), by_documents)
    found = util.semantic_search(expected.queries, column, top_k=4)
    assert found == util.semantic_search(expected.queries, expected.documents, top_k=4)
    assert [hit["corpus_id"] for hit in found[0]] == expected.order()[:4]


@pytest.mark.parametrize("file", ["stored", "older"])
def test_files_are_read(file: str, request: pytest.FixtureRequest, scifact: SciFact, expected: Expected) -> None:
    found = store.read(request.getfixturevalue(file))
    assert found.texts == scifact.texts
    np.testing.assert_array_equal(found.vectors, expected.documents)


def test_duckdb_takes_them_as_arrays(stored: str, scifact: SciFact, expected: Expected) -> None:
    query = expected.queries[0].tolist()
    found = duckdb.sql(
        f"select text from '{stored}' order by array_inner_product(dense::FLOAT[384], {query}::FLOAT[384]) desc limit 3"
    ).fetchall()
    assert [row[0] for row in found] == [scifact.texts[row] for row in expected.order()[:3]]


def test_polars_takes_them_as_arrays(stored: str) -> None:
    assert pl.read_parquet(stored).schema["dense"] == pl.Array(pl.Float32, 384)


def test_lancedb_takes_them_as_vectors(stored: str, scifact: SciFact, expected: Expected, tmp_path: Path) -> None:
    table = lancedb.connect(tmp_path).create_table("scifact", pq.read_table(stored))
    found = table.search(expected.queries[0], vector_column_name="dense").distance_type("dot").limit(3).to_list()
    assert [row["text"] for row in found] == [scifact.texts[row] for row in expected.order()[:3]]
    np.testing.assert_array_equal(np.stack(table.to_arrow().column("dense").to_numpy()), expected.documents)


def test_one_row(stored: str, encoder: trivec.DenseEncoder, expected: Expected) -> None:
    wanted = encoder.similarity(expected.documents[3], expected.queries)
    for row in (
        pq.read_table(stored).column("dense")[3],
        pd.read_parquet(stored)["dense"][3],
        pl.read_parquet(stored)["dense"][3],
    ):
        np.testing.assert_array_equal(encoder.similarity(row, expected.queries), wanted)


@pytest.mark.parametrize("reader", [name for name in COLUMNS if "DuckDB" not in name])
def test_a_missing_vector_is_an_error(reader: str, tmp_path: Path) -> None:
    import pyarrow as pa

    dense = pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2))
    path = str(tmp_path / "gap.parquet")
    pq.write_table(pa.table({"dense": dense}), path)
    with pytest.raises(InputError, match=r"hold nan in row 1|hold no vector in row 1, but (None|nan|<NA>)"):
        util.cos_sim(COLUMNS[reader](path), [[1.0, 0.0]])
