"""Files of vectors, against what the encoder gives, numpy, scipy and pyarrow."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse
from tests.support.tiny_heads import TERMS, Tiny, hybrid, random_logits, random_weights, splade
from tests.support.tiny_model import TinyModel

import trivec
from trivec import HybridEncoder, InputError, MissingExtraError, MultiVectors, SparseEncoder, SparseVectors, store
from trivec._cli.main import main
from trivec._encoders.dense import OutputPrecision
from trivec.store import _formats, _schema

TEXTS = [
    "the cat sat on the mat",
    "",
    'A small RED boat\nin two lines, with "quotes" and \\',
    "un mot inconnu: 東京 \u2028 \x00 👍🏽",
    "dog " * 40,
    "a",
    "blue river under the old tree",
    "cat",
    "bird bird bird",
    "house on the hill",
    "the cat sat on the mat",
]


@pytest.fixture(scope="module")
def encoder(tiny_model: "TinyModel") -> Iterator[trivec.DenseEncoder]:
    with trivec.load(tiny_model.folder, device="cpu", threads=1) as found:
        yield found


@pytest.fixture(scope="module")
def sparse(tiny_model: "TinyModel", tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparseEncoder]:
    folder = tmp_path_factory.mktemp("splade") / "model"
    made: Tiny = splade(folder, tiny_model, random_logits(), random_weights())
    with trivec.load(made.folder, device="cpu", threads=1) as found:
        yield found


@pytest.fixture(scope="module")
def several(tiny_model: "TinyModel", tmp_path_factory: pytest.TempPathFactory) -> Iterator[HybridEncoder]:
    made: Tiny = hybrid(tmp_path_factory.mktemp("hybrid") / "model", tiny_model)
    with trivec.load(made.folder, device="cpu", threads=1) as found:
        yield found


def joined(blocks: Iterator[store.Stored]) -> tuple[list[int], list[str], list[Any]]:
    """Rows of each block, all texts, and the vectors of each block."""
    listed = list(blocks)
    rows = [len(block.texts or ()) for block in listed]
    return rows, [text for block in listed for text in block.texts or ()], [block.vectors for block in listed]


# ---- dense -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_texts_and_dense_vectors_come_back(encoder: trivec.DenseEncoder, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out.{suffix}"
    assert store.write(path, encoder, iter(TEXTS), window=4) == (path, 11, 0)
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == [f"out.{suffix}"]
    texts, vectors, fingerprint = store.read(path)
    assert texts == TEXTS
    assert isinstance(vectors, np.ndarray)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, encoder.encode(TEXTS))
    assert fingerprint == encoder.fingerprint
    rows, found, blocks = joined(store.read_iter(path, window=3))
    assert (rows, found) == ([3, 3, 3, 2], TEXTS)
    np.testing.assert_array_equal(np.concatenate(blocks), vectors)


def test_npy_is_an_array_for_numpy(encoder: trivec.DenseEncoder, tiny_model: "TinyModel", tmp_path: Path) -> None:
    store.write(tmp_path / "out.NPY", encoder, TEXTS, window=4)
    array = np.load(tmp_path / "out.NPY")
    np.testing.assert_allclose(array, tiny_model.expected(TEXTS), atol=1e-6)
    np.save(tmp_path / "numpy.npy", array)
    written, numpys = (tmp_path / "out.NPY").read_bytes(), (tmp_path / "numpy.npy").read_bytes()
    start, theirs = (10 + int.from_bytes(data[8:10], "little") for data in (written, numpys))
    assert written[10:start].split() == numpys[10:theirs].split()  # and spaces, which numpy passes over
    numbers = numpys[theirs:]
    assert written[start:].startswith(numbers)
    said = re.fullmatch(rb"\ntrivec (\{.*\})\ntrivec crc32 [0-9a-f]{8}\n", written[start + len(numbers) :])
    assert said is not None  # where numpy does not look
    assert json.loads(said[1]) == {"fingerprint": encoder.fingerprint, "engine": encoder.engine_fingerprint}
    texts, vectors, fingerprint = store.read(tmp_path / "out.NPY")
    assert (texts, fingerprint) == (None, encoder.fingerprint)
    assert store.read(tmp_path / "numpy.npy").fingerprint is None
    np.testing.assert_array_equal(np.asarray(vectors), array)
    blocks = [np.asarray(block.vectors) for block in store.read_iter(tmp_path / "numpy.npy", window=4)]
    assert [len(block) for block in blocks] == [4, 4, 3]
    np.testing.assert_array_equal(np.concatenate(blocks), array)


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "npy"])
@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
def test_number_types_come_back(
    encoder: trivec.DenseEncoder, tmp_path: Path, suffix: str, precision: OutputPrecision
) -> None:
    path = tmp_path / f"out.{suffix}"
    store.write(path, encoder, TEXTS, window=4, precision=precision)
    expected = encoder.encode(TEXTS, precision=precision)
    vectors = store.read(path).vectors
    assert isinstance(vectors, np.ndarray)
    assert vectors.dtype == expected.dtype
    np.testing.assert_array_equal(vectors, expected)


def test_parquet_is_a_table_for_everybody(encoder: trivec.DenseEncoder, tmp_path: Path) -> None:
    store.write(tmp_path / "out.parquet", encoder, TEXTS)
    table = pq.read_table(tmp_path / "out.parquet")
    schema = "text: string\ndense: fixed_size_list<element: float>[12]\n  child 0, element: float"
    assert str(table.schema.remove_metadata()) == schema
    assert table.column("text").to_pylist() == TEXTS
    np.testing.assert_array_equal(np.array(table.column("dense").to_pylist(), np.float32), encoder.encode(TEXTS))
    said = json.loads(table.schema.metadata[b"trivec"])
    assert (said["fingerprint"], said["engine"]) == (encoder.fingerprint, encoder.engine_fingerprint)


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "npy"])
def test_no_texts(encoder: trivec.DenseEncoder, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out.{suffix}"
    assert store.write(path, encoder, []).rows == 0
    texts, vectors, _ = store.read(path)
    assert texts == (None if suffix == "npy" else [])
    assert isinstance(vectors, np.ndarray)
    assert len(vectors) == 0
    assert vectors.dtype == np.float32
    assert suffix == "jsonl" or vectors.shape == (0, 12)  # an empty file of lines says nothing
    assert list(store.read_iter(path)) == []


def test_methods_and_options(encoder: trivec.DenseEncoder, tmp_path: Path) -> None:
    calls: list[tuple[store.Method, dict[str, Any]]] = [
        ("encode_query", {}),
        ("encode_document", {"truncate_dim": 5}),
        ("encode", {"prompt": "old "}),
    ]
    for number, (method, options) in enumerate(calls):
        path = tmp_path / f"{number}.parquet"
        store.write(path, encoder, TEXTS, method=method, normalize_embeddings=True, **options)
        expected = getattr(encoder, method)(TEXTS, normalize_embeddings=True, **options)
        wanted = store.fingerprint_of(encoder, method=method, normalize_embeddings=True, **options)
        found = store.read(path, fingerprint=wanted)
        np.testing.assert_array_equal(np.asarray(found.vectors), expected)
        assert found.fingerprint == wanted
    assert store.fingerprint_of(encoder, method="encode_query") == encoder.fingerprint_of("query")
    assert store.fingerprint_of(encoder) == encoder.fingerprint


def test_row_groups_hold_many_windows(
    encoder: trivec.DenseEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trivec.store._parquet._GROUP", 5 * 12 * 4)
    store.write(tmp_path / "out.parquet", encoder, TEXTS, window=2)
    metadata = pq.read_metadata(tmp_path / "out.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [6, 5]
    assert store.read(tmp_path / "out.parquet").texts == TEXTS
    assert joined(store.read_iter(tmp_path / "out.parquet", window=4))[1] == TEXTS


def test_a_block_with_too_many_numbers_for_32_bits_is_halved(
    several: HybridEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trivec.store._parquet._MOST", 500)  # of bytes
    store.write(tmp_path / "out.parquet", several, TEXTS, return_colbert_vecs=True)
    texts, vectors, _ = store.read(tmp_path / "out.parquet")
    assert texts == TEXTS
    assert isinstance(vectors, trivec.HybridVectors)
    assert isinstance(vectors.colbert, MultiVectors)
    expected = several.encode(TEXTS, return_colbert_vecs=True).colbert
    assert isinstance(expected, MultiVectors)
    assert vectors.colbert.equals(expected)


# ---- sparse, hybrid --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "npz"])
def test_sparse_rows_come_back(sparse: SparseEncoder, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out.{suffix}"
    store.write(path, sparse, TEXTS, window=4, method="encode_query", prompt="")
    expected = sparse.encode_query(TEXTS, prompt="")
    texts, vectors, fingerprint = store.read(path)
    assert texts == (None if suffix == "npz" else TEXTS)
    assert isinstance(vectors, SparseVectors)
    assert vectors.equals(expected)
    assert min(map(len, vectors)) == 0  # a text without terms is among them
    assert fingerprint == sparse.fingerprint_of(prompt="", task="query")
    blocks = [block.vectors for block in store.read_iter(path, window=3)]
    assert all(isinstance(block, SparseVectors) for block in blocks)
    assert [len(block) for block in blocks if isinstance(block, SparseVectors)] == [3, 3, 3, 2]
    assert SparseVectors.concatenate(b for b in blocks if isinstance(b, SparseVectors)).equals(expected)


def test_npz_is_a_matrix_for_scipy(sparse: SparseEncoder, tmp_path: Path) -> None:
    store.write(tmp_path / "out.npz", sparse, TEXTS, window=4)
    expected = sparse.encode(TEXTS)
    matrix = scipy.sparse.load_npz(tmp_path / "out.npz")
    np.testing.assert_array_equal(matrix.toarray(), expected.to_dense())
    assert SparseVectors.load(tmp_path / "out.npz").equals(expected)
    scipy.sparse.save_npz(tmp_path / "scipy.npz", matrix)  # compressed, and of no known model
    texts, vectors, fingerprint = store.read(tmp_path / "scipy.npz")
    assert (texts, fingerprint) == (None, None)
    assert isinstance(vectors, SparseVectors)
    assert vectors.equals(expected)


def test_sparse_columns(sparse: SparseEncoder, tmp_path: Path) -> None:
    store.write(tmp_path / "out.parquet", sparse, TEXTS)
    table = pq.read_table(tmp_path / "out.parquet")
    assert str(table.schema.field("sparse").type) == (
        "struct<indices: list<element: int32>, values: list<element: float>>"
    )
    rows = [dict(zip(row["indices"], row["values"], strict=True)) for row in table.column("sparse").to_pylist()]
    assert rows == sparse.encode(TEXTS).to_dicts()


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
@pytest.mark.parametrize("suffix_of_texts", [0, 11])
def test_hybrid_vectors_come_back(several: HybridEncoder, tmp_path: Path, suffix: str, suffix_of_texts: int) -> None:
    path, texts = tmp_path / f"out.{suffix}", TEXTS[suffix_of_texts:]
    store.write(path, several, texts, window=4, return_colbert_vecs=True)
    if not texts and suffix == "jsonl":
        return
    expected = several.encode(texts, return_colbert_vecs=True)
    found = store.read(path)
    assert found.texts == texts
    assert isinstance(found.vectors, trivec.HybridVectors)
    assert expected.dense is not None
    assert found.vectors.dense is not None
    np.testing.assert_array_equal(found.vectors.dense, expected.dense)
    for kind in (SparseVectors, MultiVectors):
        ours, theirs = ((v.sparse if kind is SparseVectors else v.colbert) for v in (found.vectors, expected))
        assert isinstance(ours, kind)
        assert isinstance(theirs, kind)
        assert ours.equals(theirs)  # type: ignore[arg-type]
    assert joined(store.read_iter(path, window=5))[1] == texts


def test_parts_of_hybrid_vectors(several: HybridEncoder, tmp_path: Path) -> None:
    store.write(tmp_path / "out.parquet", several, TEXTS, return_dense=False)
    vectors = store.read(tmp_path / "out.parquet").vectors
    assert isinstance(vectors, trivec.HybridVectors)
    assert vectors.dense is None
    assert vectors.colbert is None
    assert isinstance(vectors.sparse, SparseVectors)
    assert vectors.sparse.shape == (len(TEXTS), TERMS)


# ---- what cannot be written ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("out.txt", {}, "is none of .npy, .npz, .jsonl, .parquet: the suffix says what is written and read"),
        ("out", {}, "is none of .npy, .npz, .jsonl, .parquet"),
        ("no/out.npy", {}, r"there is no folder '.*no' to write out.npy to. Type: mkdir -p"),
        ("folder.npy", {"overwrite": True}, "folder.npy exists. Choose another name"),
        ("there.npy", {}, r"there.npy exists. Choose another name, or replace it: overwrite=True"),
        ("out.npz", {}, "a .npz file does not hold dense vectors. Write .npy, .jsonl or .parquet"),
        ("out.npy", {"window": 0}, "window must be a whole number of at least 1, got 0"),
        ("out.npy", {"texts": "one"}, r"write takes an iterable of texts, got one text. Type: \[text\]"),
        ("out.npy", {"texts": 3}, "write takes an iterable of texts, got int"),
        ("out.npy", {"texts": ["a", 3]}, "expected strings, got int at index 1"),
        ("out.npy", {"texts": ["a", "\ud800"]}, "lone surrogate"),
        ("out.npy", {"encoder": "minilm"}, r"expected an encoder, got str 'minilm'. Type: trivec.load\("),
        ("out.npy", {"method": "embed"}, "method 'embed' is not one of encode, encode_query, encode_document"),
        ("out.npy", {"output_value": "token_embeddings"}, "expected vectors of several texts, .* got list"),
        ("out.npy", {"truncate_dim": 99}, "truncate_dim must be between 1 and 12"),
        ("out.npy", {"prompt_name": "none"}, "prompt_name 'none' is none of this model's prompts"),
    ],
)
def test_what_is_refused_leaves_nothing(
    encoder: trivec.DenseEncoder, tmp_path: Path, name: str, options: dict[str, Any], message: str
) -> None:
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "there.npy").write_bytes(b"older")
    before = sorted(tmp_path.iterdir())
    given = {"encoder": encoder, "texts": ["a"], **options}
    with pytest.raises(InputError, match=message):
        store.write(tmp_path / name, **given)
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "there.npy").read_bytes() == b"older"


def test_kinds_that_a_file_does_not_hold(several: HybridEncoder, sparse: SparseEncoder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a \.npy file does not hold sparse vectors\. Write \.npz, \.jsonl or \.parq"):
        store.write(tmp_path / "a.npy", sparse, TEXTS)
    with pytest.raises(InputError, match=r"a \.npz file does not hold hybrid vectors\. Write \.jsonl or \.parquet"):
        store.write(tmp_path / "a.npz", several, TEXTS)


def test_without_pyarrow(encoder: trivec.DenseEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for call in (lambda p: store.write(p, encoder, TEXTS), store.read, store.read_iter):
        with pytest.raises(MissingExtraError, match=r'Type: pip install "trivec\[parquet\]"'):
            call(tmp_path / "out.parquet")
    assert list(tmp_path.glob("*.p*")) == []
    store.write(tmp_path / "out.jsonl", encoder, TEXTS)
    assert store.read(tmp_path / "out.jsonl").texts == TEXTS


# ---- what cannot be read ---------------------------------------------------------------------------------------------


def test_a_store_of_another_model_is_refused(
    encoder: trivec.DenseEncoder, sparse: SparseEncoder, tmp_path: Path
) -> None:
    store.write(tmp_path / "out.parquet", encoder, TEXTS)
    store.write(tmp_path / "out.npz", sparse, TEXTS)
    store.write(tmp_path / "out.npy", encoder, TEXTS)
    store.write(tmp_path / "out.jsonl", encoder, TEXTS)
    np.save(tmp_path / "numpy.npy", encoder.encode(TEXTS))
    wanted = encoder.fingerprint_of(precision="int8")
    of_dense = ((f"out.{suffix}", encoder.fingerprint) for suffix in ("parquet", "npy", "jsonl"))
    for name, found in (*of_dense, ("out.npz", sparse.fingerprint)):
        for read in (store.read, store.read_iter):
            with pytest.raises(InputError) as raised:
                read(tmp_path / name, fingerprint=wanted)
            assert str(raised.value) == (
                f"{tmp_path / name} was written with the fingerprint {found[:12]}, and {wanted[:12]} is wanted: "
                "another model, variant, prompt or option. Load the model that wrote it, with the same options, or "
                "encode the texts again."
            )
    with pytest.raises(InputError, match=r"does not say which model wrote it: it is of another program, of an earlier"):
        store.read(tmp_path / "numpy.npy", fingerprint=wanted)


def test_a_file_that_is_not_there(encoder: trivec.DenseEncoder, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file: "):
        store.read(tmp_path / "out.parquet")
    with pytest.raises(InputError, match="expected strings, got bool"):
        store.write(tmp_path / "out.parquet", encoder, [*TEXTS[:4], True], window=2)  # type: ignore[list-item]
    with pytest.raises(FileNotFoundError, match=r"only out.parquet.partial of a run that was interrupted: write it ag"):
        store.read_iter(tmp_path / "out.parquet")


@pytest.mark.parametrize("name", ["out.parquet", "out.npy", "out.npz"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.99])
def test_files_that_are_cut_off(
    encoder: trivec.DenseEncoder, sparse: SparseEncoder, tmp_path: Path, name: str, kept: float
) -> None:
    path = tmp_path / name
    store.write(path, sparse if name == "out.npz" else encoder, TEXTS * 3)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    for read in (store.read, lambda p: list(store.read_iter(p, window=4))):
        with pytest.raises(InputError, match=f"{name} is no readable|{name} cannot be read"):
            read(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "b", "embedding": [1.0, 2.0', "line 2 is not valid JSON"),
        ('["b", 1.0]', "line 2: expected an object with a text, got"),
        ('{"text": null, "embedding": [1.0, 2.0]}', "line 2: expected an object with a text, got"),
        ('{"text": "b", "embedding": [1.0]}', "line 2 has 1 numbers in its embedding, the first line 2"),
        ('{"text": "b"}', "line 2 has no numbers in its embedding, the first line 2"),
        ('{"text": "b", "embedding": [1.0, "x"]}', "line 2: its embedding is no float32 vector"),
        ('{"text": "b", "embedding": [1.0, [2]]}', "line 2: its embedding is no float32 vector"),
    ],
)
def test_lines_that_do_not_fit(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(f'{{"text": "a", "embedding": [0.5, 1.5]}}\n{line}\n', encoding="utf-8")
    with pytest.raises(InputError, match=message):
        store.read(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "b"}', "line 1 has none of embedding, sparse, colbert; it has: text"),
        ('{"text": "b", "sparse": {"1": 1.0}}', "line 1 does not say how large the vocabulary is"),
        ('{"text": "b", "sparse": {"9": 1.0}, "sparse_dim": 5}', "line 1: row 0 has the id 9, expected 0 to 4"),
        ('{"text": "b", "sparse": [1], "sparse_dim": 5}', "line 1: it has no sparse weights"),
        ('{"text": "b", "colbert": [[1.0, 2.0], [1.0]]}', "line 1: its colbert vectors are not of 2 numbers each"),
    ],
)
def test_a_first_line_that_does_not_fit(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "in.jsonl").write_text(line, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        store.read(tmp_path / "in.jsonl")


def test_files_of_others(tmp_path: Path, sparse: SparseEncoder) -> None:
    import pyarrow as pa

    pq.write_table(pa.table({"body": ["a"], "vector": [[1.0]]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match=r"was not written by trivec: .* columns \(body, vector\)"):
        store.read(tmp_path / "other.parquet")
    np.save(tmp_path / "flat.npy", np.zeros(3))
    with pytest.raises(InputError, match=r"holds shape \(3,\) of float64, expected the vectors of N texts: \(N, D\)"):
        store.read(tmp_path / "flat.npy")
    np.save(tmp_path / "objects.npy", np.array([[None]]))
    with pytest.raises(InputError, match=r"is no readable .npy file"):
        store.read(tmp_path / "objects.npy")
    scipy.sparse.save_npz(tmp_path / "csc.npz", sparse.encode(TEXTS).to_scipy().tocsc())
    with pytest.raises(InputError, match="holds a csc matrix, expected csr"):
        store.read(tmp_path / "csc.npz")
    np.savez(tmp_path / "arrays.npz", vectors=np.zeros((2, 3)))
    with pytest.raises(InputError, match="has no format, shape, indptr, only vectors"):
        store.read(tmp_path / "arrays.npz")
    for read in (store.read, store.read_iter):
        with pytest.raises(InputError, match=r"in.txt' is none of .npy"):
            read(tmp_path / "in.txt")
    with pytest.raises(InputError, match="window must be a whole number of at least 1, got 0"):
        store.read_iter(tmp_path / "flat.npy", window=0)


@pytest.mark.parametrize("change", ["column", "null", "short", "no vector", "version"])
def test_parquet_that_was_changed(encoder: trivec.DenseEncoder, tmp_path: Path, change: str) -> None:
    import pyarrow as pa

    path = tmp_path / "out.parquet"
    store.write(path, encoder, TEXTS)
    table = pq.read_table(path)
    vectors = table.column("dense").to_pylist()
    columns = {
        "column": {"text": TEXTS, "vectors": vectors},
        "null": {"text": [None, *TEXTS[1:]], "dense": vectors},
        "short": {"text": TEXTS, "dense": [*vectors[:-1], vectors[0][:3]]},
        "no vector": {"text": TEXTS, "dense": [*vectors[:-1], None]},
        "version": {"text": TEXTS, "dense": vectors},
    }[change]
    metadata = table.schema.metadata
    if change == "version":
        metadata = {b"trivec": metadata[b"trivec"].replace(b'"version": 1', b'"version": 3')}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)
    message = {
        "column": 'lacks a column that it was written with: Field "dense"',
        "null": "a row has no text",
        "short": "a row has no vector, or one of another length than 12",
        "no vector": "a row has no vector, or one of another length than 12",
        "version": "was written by a later version of trivec",
    }[change]
    with pytest.raises(InputError, match=message):
        store.read(path)


# ---- the command line ------------------------------------------------------------------------------------------------


def test_encode_writes_parquet(tiny_model: "TinyModel", encoder: trivec.DenseEncoder, tmp_path: Path) -> None:
    lines = [text.replace("\n", " ") for text in TEXTS]
    (tmp_path / "in.txt").write_text("\n".join(lines), encoding="utf-8")
    command = ["encode", str(tiny_model.folder), str(tmp_path / "in.txt"), "--task", "query", "--normalize"]
    assert main([*command, "--device", "cpu", "--threads", "1", "-o", str(tmp_path / "out.parquet")]) == 0
    wanted = store.fingerprint_of(encoder, method="encode_query", normalize_embeddings=True)
    texts, vectors, _ = store.read(tmp_path / "out.parquet", fingerprint=wanted)
    assert texts == lines
    np.testing.assert_array_equal(np.asarray(vectors), encoder.encode_query(lines, normalize_embeddings=True))


def test_every_suffix_has_a_kind() -> None:
    assert {kind for found in _formats.FORMATS.values() for kind in found.kinds} == set(get_args(_schema.Kind))
