"""Vectors of tokens in files, in float32, float16 and int8, against numpy and pyarrow."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.support.tiny_late import DIM, TinyLate, write_tiny_late

import trivec
from trivec import InputError, LateEncoder, MultiVectors, store
from trivec._cli.main import main
from trivec.compare import diff

TEXTS = ["the cat sat on the mat", "", "a small red boat", "cat", "the cat sat on the mat", "find the", "dog " * 30]
SUFFIXES = ["parquet", "npz", "jsonl"]
Precision = Literal["float32", "float16", "int8"]
PRECISIONS: list[Precision] = ["float32", "float16", "int8"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyLate:
    return write_tiny_late(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def late(tiny: TinyLate) -> Iterator[LateEncoder]:
    with trivec.load(tiny.folder, kind="late", device="cpu", threads=1) as model:
        yield model


def tokens(path: Path) -> MultiVectors:
    found = store.read(path).vectors
    assert isinstance(found, MultiVectors)
    return found


def rounded(vectors: Any, precision: str) -> Any:
    """(t, D) float32 as that precision keeps them, in numpy."""
    if precision == "int8":
        return (np.rint(np.float64(127) * vectors) / 127).astype(np.float32)
    return vectors.astype(precision).astype(np.float32)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_encode_keeps(late: LateEncoder, precision: Precision) -> None:
    plain, kept = late.encode_document(TEXTS), late.encode_document(TEXTS, precision=precision)
    assert (kept.precision, kept.vectors.dtype, kept.dim) == (precision, precision, DIM)
    assert len(kept) == len(TEXTS)
    for mine, theirs in zip(kept, plain, strict=True):
        assert mine.dtype == np.float32
        np.testing.assert_allclose(mine, rounded(theirs, precision), rtol=0, atol=1e-7)
    np.testing.assert_array_equal(kept[2], list(kept)[2])
    np.testing.assert_array_equal(late.encode_document(TEXTS[0], precision=precision), kept[0])
    assert kept[1:4].precision == kept[[3, 1]].precision == precision
    queries = late.encode_query(TEXTS[:3])
    expected = [[(q @ d.T).max(1).sum() for d in (rounded(d, precision) for d in plain)] for q in queries]
    np.testing.assert_allclose(late.similarity(queries, kept), expected, rtol=1e-5)
    np.testing.assert_allclose(late.similarity(list(queries), list(kept)), expected, rtol=1e-5)
    small = queries.quantize(precision)
    expected = [[(rounded(q, precision) @ rounded(d, precision).T).max(1).sum() for d in plain] for q in queries]
    np.testing.assert_allclose(late.similarity(small, kept), expected, rtol=1e-5)
    assert kept.quantize("float32").quantize(precision).equals(kept)
    assert kept.equals(plain) == (precision == "float32")
    assert late.encode_document([], precision=precision).precision == precision


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_texts_and_vectors_come_back(late: LateEncoder, tmp_path: Path, suffix: str, precision: Precision) -> None:
    path = tmp_path / f"out.{suffix}"
    store.write(path, late, iter(TEXTS), window=3, method="encode_query", precision=precision)
    made = MultiVectors.concatenate(late.encode_iter(TEXTS, window=3, task="query", precision=precision))
    expected = made.quantize("float32") if suffix == "jsonl" else made
    wanted = store.fingerprint_of(late, method="encode_query", precision=precision)
    texts, vectors, found = stored = store.read(path, fingerprint=wanted, engine=late.engine_fingerprint, strict=True)
    assert (texts, found) == (None if suffix == "npz" else TEXTS, wanted)
    assert stored.engine == late.engine_fingerprint
    assert isinstance(vectors, MultiVectors)
    assert vectors.equals(expected)
    blocks = [block.vectors for block in store.read_iter(path, window=2)]
    several = [block for block in blocks if isinstance(block, MultiVectors)]
    assert [len(block) for block in several] == [2, 2, 2, 1]
    assert MultiVectors.concatenate(several).equals(expected)
    store.write(tmp_path / f"none.{suffix}", late, [], precision=precision)
    if suffix != "jsonl":  # whose lines say what they hold
        assert len(tokens(tmp_path / f"none.{suffix}")) == 0


def test_fingerprints_tell_the_precision(late: LateEncoder) -> None:
    found = [store.fingerprint_of(late, method="encode_document", precision=p) for p in PRECISIONS]
    assert len(set(found)) == 3
    assert found[0] == late.fingerprint_of("document" if "document" in late.prompts else None, task="document")


def test_columns_for_every_program(late: LateEncoder, tmp_path: Path) -> None:
    numbers = {"float32": "float", "float16": "halffloat", "int8": "int8"}
    plain = late.encode_document(TEXTS)
    sizes = []
    for precision in PRECISIONS:
        name = numbers[precision]
        path = tmp_path / f"{precision}.parquet"
        store.write(path, late, TEXTS * 40, precision=precision)
        table = pq.read_table(path)
        assert str(table.schema.field("colbert").type) == f"list<element: list<element: {name}>>"
        rows = np.array(table.column("colbert")[2].as_py(), dtype=np.float64)
        scale = 127 if precision == "int8" else 1
        np.testing.assert_allclose(
            rows / scale, plain[2], rtol=0, atol={"int8": 0.5 / 127, "float16": 5e-4}.get(name, 5e-3)
        )
        said = json.loads(table.schema.metadata[b"trivec"])
        assert said["version"] == 2
        assert said["layout"].get("colbert_dtype") == (None if precision == "float32" else precision)
        store.write(path.with_suffix(".npz"), late, TEXTS, precision=precision)
        again = MultiVectors.load(path.with_suffix(".npz"))
        assert again.equals(late.encode_document(TEXTS, precision=precision))
        again.save(tmp_path / "saved.npz")
        saved = store.read(tmp_path / "saved.npz")
        assert (saved.fingerprint, saved.texts) == (None, None)
        assert again.equals(tokens(tmp_path / "saved.npz"))
        sizes.append(path.stat().st_size)
    assert sizes[0] - sizes[1] > 0.9 * len(plain.vectors) * 40 * DIM * 2
    assert sizes[1] - sizes[2] > 0.9 * len(plain.vectors) * 40 * DIM


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_interrupted_run_goes_on(late: LateEncoder, tmp_path: Path, suffix: str) -> None:
    def broken() -> Iterator[str]:
        yield from TEXTS[:5]
        raise KeyboardInterrupt

    whole, path = tmp_path / f"whole.{suffix}", tmp_path / f"out.{suffix}"
    store.write(whole, late, TEXTS, window=2, precision="float16")
    with pytest.raises(KeyboardInterrupt):
        store.write(path, late, broken(), window=2, precision="float16")
    with pytest.raises(InputError, match="another model"):
        store.write(path, late, TEXTS, window=2, precision="int8")
    assert 0 < store.write(path, late, TEXTS, window=2, precision="float16").resumed < 5
    if suffix == "npz":  # a zip file has times in it
        assert tokens(path).equals(tokens(whole))
    else:
        assert path.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("suffix", ["parquet", "npz"])
def test_a_damaged_file_is_told(late: LateEncoder, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out.{suffix}"
    store.write(path, late, TEXTS, precision="int8" if suffix == "npz" else "float16")
    numbers = late.encode(TEXTS, precision="int8" if suffix == "npz" else "float16").vectors.tobytes()
    data = path.read_bytes()
    at = data.index(numbers[2 * DIM : 4 * DIM])
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(InputError, match=r"damaged|Bad CRC"):
        store.read(path)


def test_files_that_are_refused(late: LateEncoder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a .npy file does not hold colbert vectors. Write .npz, .jsonl or .parquet"):
        store.write(tmp_path / "out.npy", late, TEXTS)
    with pytest.raises(InputError, match=r"precision 'ubinary' of token vectors is not one of float32, float16, int8"):
        store.write(tmp_path / "out.parquet", late, TEXTS, precision="ubinary")
    with pytest.raises(InputError, match=r"'fp16' of token vectors .* is chosen at load"):
        late.fingerprint_of(precision="fp16")
    np.savez(tmp_path / "bad.npz", vectors=np.zeros((3, 2), dtype=np.int16), offsets=np.array([0, 3]))
    with pytest.raises(InputError, match=r"of shape \(3, 2\) of int16. Expected \(T, D\) float32, float16 or int8"):
        store.read(tmp_path / "bad.npz")
    np.savez(tmp_path / "bad.npz", vectors=np.zeros((3, 2), dtype=np.int8), offsets=np.array([0, 4]))
    with pytest.raises(InputError, match="offsets must go from 0 to 3"):
        store.read(tmp_path / "bad.npz")
    np.savez(tmp_path / "bad.npz", vectors=np.full((3, 2), np.nan, dtype=np.float16), offsets=np.array([0, 3]))
    with pytest.raises(InputError, match="NaN or infinity"):
        store.read(tmp_path / "bad.npz")


def test_numbers_that_a_precision_cannot_hold() -> None:
    large = MultiVectors.from_arrays([np.array([[1.5, 0.0]]), np.array([[1e5, 0.0]])])
    with pytest.raises(InputError, match=r"int8 is for vectors of length 1, and a number here is 1.5"):
        large[:1].quantize("int8")
    with pytest.raises(InputError, match=r"float16 holds numbers up to 65,504"):
        large.quantize("float16")
    both = [large[:1], large[:1].quantize("float16")]
    with pytest.raises(InputError, match=r"expected parts of one precision, got float16, float32"):
        MultiVectors.concatenate(both)
    edge = MultiVectors.from_arrays([np.array([[1.0002, -1.0, 0.5 / 127]], dtype=np.float32)]).quantize("int8")
    assert edge.vectors.tolist() == [[127, -127, 0]]
    assert repr(edge) == "MultiVectors(1 texts, dim=3, 1.0 vectors a text, int8)"


def test_the_command_line(
    tiny: TinyLate, late: LateEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "texts.txt", tmp_path / "out.parquet"
    source.write_text("\n".join(TEXTS))
    options = ["--task", "query", "--truncate-dim", "4", "--device", "cpu"]
    assert (
        main(["encode", str(tiny.folder), str(source), "-o", str(out), "--output-precision", "float16", *options]) == 0
    )
    expected = late.encode_query(TEXTS, precision="float16", truncate_dim=4)
    assert expected.equals(tokens(out))
    assert "dim 4 colbert" in capsys.readouterr().err
    assert main(["encode", str(tiny.folder), str(source), "-o", "-", *options]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0]["trivec"]["kind"] == "colbert"
    assert "trivec" not in lines[1]
    np.testing.assert_array_equal(
        np.array(lines[3]["colbert"], dtype=np.float32), late.encode_query(TEXTS[3], truncate_dim=4)
    )
    assert main(["encode", str(tiny.folder), str(source), "-o", str(out), "--force", "--max-active-dims", "3"]) == 1
    assert "--max-active-dims is for sparse rows" in capsys.readouterr().err
    assert (
        main(["encode", str(tiny.folder), str(source), "-o", str(out), "--force", "--output-precision", "binary"]) == 1
    )
    assert "'binary' of token vectors is not one of" in capsys.readouterr().err


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_file_is_compared_with_what_runs(late: LateEncoder, tmp_path: Path, precision: Precision) -> None:
    """The call that it was written with is found, number type and width included."""
    path = tmp_path / "before.parquet"
    store.write(path, late, TEXTS, method="encode_query", precision=precision, truncate_dim=4)
    found = diff(path, late)
    assert found.a.fingerprint == found.b.fingerprint
    assert found.heads["colbert"].equal
