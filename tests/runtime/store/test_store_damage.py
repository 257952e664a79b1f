"""Files that were damaged anywhere: an error, or the rows as they were written; no other rows, no other exception."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import trivec
from trivec import TrivecError, store
from trivec._vectors.heads import HybridVectors
from trivec.store._checksum import checked
from trivec.store._schema import Block, Contents, Head, Layout

GOLDEN = Path(__file__).parents[2] / "golden"
TEXTS = ["the cat sat", "", "a red boat " * 9, "ünï 猫", "old river", "mat", "the cat sat"]
FILES: dict[str, dict[str, Any]] = {
    "dense.npy": {},
    "dense.parquet": {},
    "splade.npz": {},
    "splade.parquet": {},
    "hybrid.parquet": {"return_colbert_vecs": True},
    "static.npy": {"precision": "binary"},
}
EXAMPLES = int(os.environ.get("TRIVEC_EXAMPLES", "2000"))
given_damage = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def damage(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """A bit turned, a byte replaced, some lost or doubled, an end cut off: what disks, copies and editors do."""
    where = draw(st.floats(0, 1, exclude_max=True))
    kind = draw(st.sampled_from(["bit", "byte", "lost", "doubled", "cut", "swapped"]))
    number = draw(st.integers(1, 255))

    def apply(data: bytes) -> bytes:
        at, made = int(where * len(data)), bytearray(data)
        if kind == "bit":
            made[at] ^= 1 << number % 8
        elif kind == "byte":
            made[at] = number
        elif kind == "lost":
            del made[at : at + number]
        elif kind == "doubled":
            made[at:at] = made[at : at + number]
        elif kind == "cut":
            del made[at:]
        else:
            other = (at + number) % len(made)
            made[at], made[other] = made[other], made[at]
        return bytes(made)

    return apply


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    for name, options in FILES.items():
        with trivec.load(GOLDEN / name.partition(".")[0], device="cpu", threads=1) as encoder:
            store.write(folder / name, encoder, TEXTS, window=3, **options)
    return folder


def rows(path: Path) -> bytes:
    found = store.read(path)
    return pickle.dumps((found.texts, parts(found.vectors)))


def parts(vectors: Any) -> Any:
    """As bytes, which know -0 and NaN apart."""
    if isinstance(vectors, np.ndarray):
        return vectors.shape, vectors.dtype.str, vectors.tobytes()
    if isinstance(vectors, trivec.SparseVectors):
        return vectors.dim, *map(parts, (vectors.indptr, vectors.indices, vectors.values))
    if isinstance(vectors, trivec.MultiVectors):
        return (*map(parts, (vectors.vectors, vectors.offsets)),)
    return tuple(None if part is None else parts(part) for part in vectors.parts())


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_gives_an_error_or_its_rows(name: str, written: Path, tmp_path: Path) -> None:
    whole, expected, path = (written / name).read_bytes(), rows(written / name), tmp_path / name

    @given_damage
    @given(damage())
    def check(apply: Callable[[bytes], bytes]) -> None:
        path.write_bytes(apply(whole))
        try:
            found = rows(path)
        except TrivecError:
            return
        assert found == expected

    check()


@pytest.mark.parametrize("name", ["dense.jsonl", "splade.jsonl", "hybrid.jsonl"])
def test_a_damaged_text_file_is_an_error_or_text(name: str, tmp_path: Path) -> None:
    """People edit them, so they carry no checksum: what still reads as rows is rows."""
    whole, path = (GOLDEN / "stores" / name).read_bytes(), tmp_path / name

    @given_damage
    @given(damage())
    def check(apply: Callable[[bytes], bytes]) -> None:
        path.write_bytes(apply(whole))
        try:
            found = store.read(path)
        except TrivecError:
            return
        assert found.texts is not None

    check()


@pytest.mark.parametrize("name", ["dense.npy", "splade.npz", "hybrid.parquet", "dense.jsonl"])
def test_a_damaged_journal_goes_on_or_begins_anew(name: str, tmp_path: Path) -> None:
    """Its records have checksums: whatever is left of it, the file that comes of it is the same."""
    kind, options = name.partition(".")[0], FILES.get(name, {})
    path, half = tmp_path / name, tmp_path / f"{name}.partial"
    with trivec.load(GOLDEN / kind, device="cpu", threads=1) as encoder:
        whole = b""

        def begun(text: str) -> str:
            nonlocal whole
            if text == "stop":
                whole = half.read_bytes()
                raise KeyboardInterrupt
            return text

        with pytest.raises(KeyboardInterrupt):
            store.write(path, encoder, map(begun, [*TEXTS[:6], "stop"]), window=2, **options)
        half.unlink()
        store.write(path, encoder, TEXTS, window=2, **options)
        expected = rows(path)
        assert len(whole) > 200

        @settings(given_damage, max_examples=max(1, EXAMPLES // 10))
        @given(damage())
        def check(apply: Callable[[bytes], bytes]) -> None:
            path.unlink(missing_ok=True)
            half.write_bytes(apply(whole))
            try:
                store.write(path, encoder, TEXTS, window=2, **options)
            except TrivecError:
                half.unlink()
                return
            assert rows(path) == expected

        check()


def test_numpy_reads_what_has_a_checksum(written: Path) -> None:
    path = written / "dense.npy"
    np.testing.assert_array_equal(np.load(path), store.read(path).vectors)
    np.testing.assert_array_equal(np.load(path, mmap_mode="r"), store.read(path).vectors)


@pytest.mark.parametrize("window", [1, 2, 100])
def test_a_stream_says_so_at_the_last_row_at_the_latest(window: int, written: Path, tmp_path: Path) -> None:
    data = bytearray((written / "dense.npy").read_bytes())
    data[data.index(b"\ntrivec {") - 2] ^= 1  # of the last row
    (tmp_path / "dense.npy").write_bytes(data)
    blocks = store.read_iter(tmp_path / "dense.npy", window=window)
    with pytest.raises(trivec.InputError, match=r"dense\.npy is damaged: what it holds has the checksum"):
        list(blocks)


@pytest.mark.parametrize("name", GOLDEN.joinpath("stores").glob("[!h]*.np?"))
def test_a_file_of_an_earlier_version_or_of_another_program_is_read(name: Path, tmp_path: Path) -> None:
    assert b"trivec crc32" not in name.read_bytes()
    assert store.read(name).vectors is not None
    np.save(tmp_path / "x.npy", np.eye(3, dtype=np.float32))
    np.testing.assert_array_equal(store.read(tmp_path / "x.npy").vectors, np.eye(3))


def test_the_other_order_of_bytes(written: Path, tmp_path: Path) -> None:
    """Of another program it is read as what it says; of a file with a checksum it is damage in the header."""
    numbers = np.arange(12, dtype=np.float32).reshape(3, 4) / 7
    np.save(tmp_path / "x.npy", numbers.astype(">f4"))
    found = store.read(tmp_path / "x.npy").vectors
    assert isinstance(found, np.ndarray) and found.dtype.isnative
    np.testing.assert_array_equal(found, numbers)
    turned = (written / "dense.npy").read_bytes().replace(b"<f4", b">f4", 1)
    (tmp_path / "dense.npy").write_bytes(turned)
    with pytest.raises(trivec.InputError, match="is damaged"):
        store.read(tmp_path / "dense.npy")


def test_numbers_lost_as_many_as_the_checksum_has_bytes(written: Path, tmp_path: Path) -> None:
    """The checksum lies where numbers should be then, and nothing behind them."""
    data = (written / "dense.npy").read_bytes()
    for lost in (22, 23, 24):
        (tmp_path / "dense.npy").write_bytes(data[:200] + data[200 + lost :])
        with pytest.raises(trivec.InputError, match=r"no readable \.npy file"):
            store.read(tmp_path / "dense.npy")


def test_numbers_lost_with_a_part_of_the_checksum(written: Path, tmp_path: Path) -> None:
    """As many as it has bytes, across the end of the numbers: what is left is an array and nothing behind it."""
    data = (written / "dense.npy").read_bytes()
    end = data.index(b"\ntrivec {")
    for before in range(24):
        (tmp_path / "dense.npy").write_bytes(data[: end - before] + data[end - before + len(data) - end :])
        with pytest.raises(trivec.InputError, match=r"no readable \.npy file"):
            store.read(tmp_path / "dense.npy")


@pytest.mark.parametrize("stated", [2, 4])
def test_another_number_of_rows_than_stated(stated: int) -> None:
    block = Block(None, HybridVectors(np.eye(3, dtype=np.float32), None, None))
    head = Head(Layout("dense", 3, "float32"), None, stated)
    contents = checked(Path("x.parquet"), Contents(head, lambda _: iter([block])))
    with pytest.raises(trivec.InputError, match=f"it has 3 rows, and says that they are {stated}"):
        list(contents.blocks(10))


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("dense.npy", b"onnxruntime"),
        ("dense.npy", b"crc32"),
        ("dense.parquet", b"onnxruntime"),
        ("dense.parquet", b"trivec.checksum"),
    ],
)
def test_what_a_file_says_of_itself_is_checked_too(name: str, lost: bytes, written: Path, tmp_path: Path) -> None:
    data = (written / name).read_bytes()
    assert data.count(lost) == 1
    (tmp_path / name).write_bytes(data.replace(lost, lost[:-1] + b"!", 1))
    with pytest.raises(trivec.InputError):
        store.read(tmp_path / name)


def test_rows_that_another_program_took_from_a_file_are_read(written: Path, tmp_path: Path) -> None:
    """They have no checksum any more, and are not damaged."""
    table = pq.read_table(written / "dense.parquet")
    pq.write_table(table.slice(2, 3), tmp_path / "some.parquet")
    found, all_of_it = store.read(tmp_path / "some.parquet"), store.read(written / "dense.parquet")
    assert found.texts == TEXTS[2:5]
    np.testing.assert_array_equal(found.vectors, np.asarray(all_of_it.vectors)[2:5])
    assert found.fingerprint == all_of_it.fingerprint


def test_several_arrays_in_one_file_are_not_the_first(tmp_path: Path) -> None:
    with (tmp_path / "x.npy").open("wb") as file:
        np.save(file, np.eye(3, dtype=np.float32))
        np.save(file, np.zeros((3, 3), dtype=np.float32))
    with pytest.raises(trivec.InputError, match=r"no readable \.npy file: it goes on behind its array"):
        store.read(tmp_path / "x.npy")


@pytest.mark.parametrize("kind", ["SparseVectors", "MultiVectors"])
def test_damaged_archives_of_vectors(kind: str, tmp_path: Path) -> None:
    with trivec.load(GOLDEN / "hybrid", device="cpu", threads=1) as encoder:
        made = encoder.encode(TEXTS, return_colbert_vecs=True)
    vectors = made.sparse if kind == "SparseVectors" else made.colbert
    path = tmp_path / "x.npz"
    vectors.save(path)
    whole, expected = path.read_bytes(), parts(vectors)
    assert zipfile.is_zipfile(path)

    @settings(given_damage, max_examples=max(1, EXAMPLES // 4))
    @given(damage())
    def check(apply: Callable[[bytes], bytes]) -> None:
        path.write_bytes(apply(whole))
        try:
            found = getattr(trivec, kind).load(path)
        except TrivecError:
            return
        assert parts(found) == expected

    check()
