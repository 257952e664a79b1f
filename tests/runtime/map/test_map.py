"""`trivec map` without a browser: projections against scikit-learn, what is on the page, and every refusal."""

import importlib.util
import io
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from tests.support.map_pages import HOSTILE, npy, seen
from tests.support.tiny_model import TinyModel

import trivec
from trivec import HybridVectors, MultiVectors, SparseVectors, store
from trivec import map as maps
from trivec._cli.main import main
from trivec._errors import InputError, MissingExtraError, NonFiniteError
from trivec._vectors.heads import record_of
from trivec.map._page import centered
from trivec.map._pca import pca
from trivec.map._pca_sparse import pca_sparse
from trivec.map._points import project
from trivec.store._parquet import write_parquet
from trivec.store._schema import Block, Head, Layout

Doubles = npt.NDArray[np.float64]
CPU = ("--device", "cpu", "--threads", "1")


def random_sparse(rows: int, dim: int, seed: int, weights: int = 12) -> SparseVectors:
    rng = np.random.default_rng(seed)
    popular = rng.zipf(1.3, size=(rows, weights)) % dim
    return SparseVectors.from_dicts(
        [dict.fromkeys(row.tolist(), 0.0) | {int(i): float(rng.random()) for i in row} for row in popular], dim
    )


def parquet(path: Path, texts: list[str], vectors: Any, fingerprint: str = "f" * 64) -> Path:
    head = Head(Layout.of(vectors), fingerprint, len(texts))
    with path.open("wb") as stream:
        write_parquet(stream, head, lambda: iter([Block(texts, record_of(vectors))]))
    return path


# ---- projections -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "dim"), [(1, 5), (2, 7), (3, 1), (7, 2), (301, 37), (23, 64)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "uint8", "float16"])
def test_pca_is_that_of_scikit_learn(rows: int, dim: int, dtype: str) -> None:
    rng = np.random.default_rng(rows * dim)
    array = (rng.normal(size=(rows, dim)) * np.linspace(9, 30, dim) + 100).astype(dtype)
    found = pca(array)
    expected, shares = reference(array.astype(np.float64))
    assert found.points.shape == (rows, 2) and found.points.dtype == np.float64
    assert_allclose(found.points, expected, rtol=1e-7, atol=1e-8 * max(1, np.abs(expected).max()))
    assert_allclose(found.explained, shares, rtol=1e-9, atol=1e-12)


def reference(array: Any) -> tuple[Doubles, Doubles]:
    """Of scikit-learn, with zeros where it has no component or one without variance."""
    points, shares = np.zeros((len(array), 2)), np.zeros(2)
    count = min(2, *array.shape, len(array) - 1)
    if count > 0:
        model = PCA(count, svd_solver="full")
        points[:, :count] = model.fit_transform(array)
        shares[:count] = model.explained_variance_ratio_
    return points, shares


def test_pca_in_blocks_far_from_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean is 1e6 times the spread: squares less squares of means would have lost all digits."""
    monkeypatch.setattr("trivec.map._pca._BLOCK", 17 * 9)
    array = np.random.default_rng(0).normal(size=(500, 9)) * np.arange(1, 10) + 1e7
    expected, shares = reference(array - array.mean(0))
    found = pca(array)
    assert_allclose(found.points, expected, atol=1e-6)
    assert_allclose(found.explained, shares, rtol=1e-6)


def test_pca_of_what_does_not_vary() -> None:
    assert_array_equal(pca(np.full((9, 4), 0.1, np.float32)).points, np.zeros((9, 2)))
    assert pca(np.zeros((0, 4), np.float32)).points.shape == (0, 2)
    assert_array_equal(pca(np.zeros((3, 0), np.float32)).points, np.zeros((3, 2)))
    array = np.zeros((50, 3))
    array[:, 1] = np.arange(50)  # the others are constant
    found = pca(array)
    assert_allclose(found.points[:, 0], np.arange(50) - 24.5, atol=1e-12)
    assert_array_equal(found.points[:, 1], 0)
    assert found.explained == (1.0, 0.0)


def test_pca_of_numbers_that_cannot_be_squared() -> None:
    with pytest.raises(InputError, match=r"squares are too large for float64\. Divide them by a constant\."):
        pca(np.array([[1e200, 0], [0, 1e200], [1, 1]]))


@pytest.mark.parametrize(("rows", "dim"), [(1, 9), (2, 9), (3, 2), (60, 40), (150, 700), (700, 150)])
def test_sparse_pca_is_that_of_rows_written_out(rows: int, dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trivec.map._pca_sparse._ENTRIES", 997)
    vectors = random_sparse(rows, dim, seed=rows)
    found = pca_sparse(vectors)
    expected, shares = reference(vectors.to_dense().astype(np.float64))
    assert_allclose(found.points, expected, atol=1e-6 * max(1e-3, np.abs(expected).max()))
    assert_allclose(found.explained, shares, rtol=1e-7, atol=1e-12)


def test_sparse_pca_with_empty_rows_and_unused_terms() -> None:
    vectors = SparseVectors.from_dicts([{}, {7: 1.0}, {}, {7: 2.0, 90: 1.0}, {90: 3.0}, {}], 100)
    expected, shares = reference(vectors.to_dense().astype(np.float64))
    found = pca_sparse(vectors)
    assert_allclose(found.points, expected, atol=1e-9)
    assert_allclose(found.explained, shares, rtol=1e-9)
    for blank in (SparseVectors.empty(4, 5), SparseVectors.empty(0, 5), SparseVectors.from_dicts([{1: 0.3}] * 6, 5)):
        assert_array_equal(pca_sparse(blank).points, np.zeros((len(blank), 2)))
        assert pca_sparse(blank).explained == (0.0, 0.0)


def test_sparse_pca_with_equal_eigenvalues() -> None:
    """Every row has a term of its own: all directions hold as much, so any two do, if they are orthogonal."""
    vectors = SparseVectors.from_dicts([{i: 1.0} for i in range(30)], 30)
    found = pca_sparse(vectors)
    assert_allclose(found.explained, [1 / 29, 1 / 29], rtol=1e-9)
    assert_allclose(found.points.T @ found.points, np.eye(2), atol=1e-9)


def test_tsne_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    array = (rng.normal(size=(60, 12)) + 3 * rng.normal(size=(4, 12))[np.arange(60) % 4]).astype(np.float32)
    found = project(array, "tsne").points
    assert_array_equal(found, TSNE(init="pca", metric="cosine", random_state=0, perplexity=59 / 3).fit_transform(array))
    rows = SparseVectors.from_dicts([dict(enumerate(row)) for row in array.tolist()], 12)
    points = project(rows, "tsne").points
    away = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(away, np.inf)
    assert_array_equal(away.argmin(1) % 4, np.arange(60) % 4)  # the nearest is of the same cluster


@pytest.mark.parametrize(
    "array", [np.zeros((0, 3)), np.ones((2, 3)), np.eye(4), np.ones((40, 3)), np.arange(9)[:, None]]
)
def test_tsne_of_little(array: Any) -> None:
    points = project(array.astype(np.float32), "tsne").points
    assert points.shape == (len(array), 2) and np.isfinite(points).all()


def test_points_fill_a_square_without_being_stretched() -> None:
    points: Any = centered(np.array([[10.0, 5.0], [30.0, 6.0], [20.0, 7.0]]))
    assert_allclose(points, np.array([[-1, -0.1], [1, 0], [0, 0.1]]), atol=1e-6)
    assert_array_equal(centered(np.array([[3.0, 4.0]])), np.zeros((1, 2)))
    assert centered(np.zeros((0, 2))).shape == (0, 2)


# ---- the page --------------------------------------------------------------------------------------------------------


def test_a_map_of_a_parquet_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    array = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    source = parquet(tmp_path / "a & b.parquet", [f"text {i}" for i in range(6)], array)
    out = tmp_path / "out.html"
    assert main(["map", str(source), str(out)]) == 0
    page = seen(out)
    expected, shares = reference(array.astype(np.float64))
    assert_allclose(page.points, centered(expected), atol=1e-6)
    assert (page.rows, page.texts, page.cut) == (list(range(6)), [f"text {i}" for i in range(6)], {})
    said = f"PCA; the axes hold {100 * shares[0]:.1f} % and {100 * shares[1]:.1f} % of the variance"
    assert page.facts == {
        "Texts": "6",
        "Vectors": "4 dimensions, float32",
        "Projection": said,
        "Fingerprint": "f" * 12,
    }
    assert "<title>a &amp; b.parquet: a map of 6 texts</title>" in page.html
    size = f"{out.stat().st_size / 1e6:.1f} MB"
    assert capsys.readouterr().err == f"6 texts, {said}, {size}: {out}\n"
    first = out.read_bytes()
    assert main(["map", str(source), str(out), "--force"]) == 0
    assert out.read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a & b.parquet", "out.html"]
    if sys.platform != "win32":
        assert stat.S_IMODE(out.stat().st_mode) == stat.S_IMODE(source.stat().st_mode)


def test_from_texts_to_a_map(tiny_model: "TinyModel", tmp_path: Path) -> None:
    texts = ["the cat sat", "", "a small red boat", "the old dog ran", "under the hill"]
    with trivec.load(tiny_model.folder, device="cpu", threads=1) as encoder:
        store.write(tmp_path / "c.jsonl", encoder, texts)
        store.write(tmp_path / "c.npy", encoder, texts)
    drawn = maps.write(tmp_path / "c.jsonl", tmp_path / "a.html")
    assert drawn == maps.Drawn(tmp_path / "a.html", 5, 5, drawn.projection, (tmp_path / "a.html").stat().st_size)
    maps.write(tmp_path / "c.npy", tmp_path / "b.html", texts=texts)
    a, b = seen(tmp_path / "a.html"), seen(tmp_path / "b.html")
    assert a.texts == b.texts == texts
    assert_allclose(a.points, centered(reference(tiny_model.expected(texts).astype(np.float64))[0]), atol=1e-5)
    assert_allclose(b.points, a.points, atol=1e-6)


def test_texts_are_data(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(len(HOSTILE), 4))
    maps.write(npy(tmp_path / "x.npy", array), tmp_path / "x.html", texts=HOSTILE, max_chars=100)
    page = seen(tmp_path / "x.html")
    assert page.texts == [text[:100] for text in HOSTILE]
    assert page.cut == {"6": 1 << 20}
    assert "executed" not in page.html
    assert "The page has the first 100 letters of each text, and searches these." in page.html
    assert len(page.html) < 60_000


def test_names_are_data(tmp_path: Path) -> None:
    source = npy(tmp_path / "<img src=x onerror=alert(1)>{{points}}&\n.npy", np.eye(3))
    maps.write(source, tmp_path / "x.html", texts=["a", "b", "c"])
    page = seen(tmp_path / "x.html")
    assert "<img" not in page.html
    assert "&lt;img src=x onerror=alert(1)&gt;{{points}}&amp;\ufffd.npy: a map of 3 texts" in page.html


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_a_sample_is_the_same_each_time_and_fair(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trivec.map._corpus._WINDOW", 64)
    source, rows = tmp_path / f"x.{suffix}", random_sparse(1000, 50, 1)
    if suffix == "npy":
        npy(source, rows.to_dense())
    else:
        rows.save(source)
    texts = [f"number {i}" for i in range(1000)]
    pages = []
    for out in ("a.html", "b.html"):
        drawn = maps.write(source, tmp_path / out, texts=texts, limit=90)
        assert drawn[1:3] == (90, 1000)
        pages.append(seen(tmp_path / out))
    page = pages[0]
    assert page.html == pages[1].html
    assert page.facts["Texts"] == "90 of 1,000 (a random sample)"
    assert len(set(page.rows)) == 90 and page.rows == sorted(page.rows)
    assert page.texts == [texts[i] for i in page.rows]
    assert_allclose(page.points, centered(reference(rows[np.array(page.rows)].to_dense())[0]), atol=1e-5)
    quarters = np.histogram(page.rows, 4, (0, 1000))[0]
    assert quarters.min() >= 12  # 22.5 are expected, with a standard deviation of 4


def test_no_rows(tmp_path: Path) -> None:
    maps.write(npy(tmp_path / "x.npy", np.zeros((0, 3))), tmp_path / "x.html", texts=[])
    page = seen(tmp_path / "x.html")
    assert (page.points.shape, page.rows, page.texts) == ((0, 2), [], [])
    assert page.facts["Texts"] == "0"


def test_which_of_several_vectors(tmp_path: Path) -> None:
    dense, rows = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32), random_sparse(9, 20, 0)
    tokens = MultiVectors.from_arrays([np.ones((2, 3), np.float32)] * 9)
    texts = list("abcdefghi")
    source = parquet(tmp_path / "h.parquet", texts, HybridVectors(dense, rows, tokens))
    for chosen, vectors in ((None, dense), ("dense", dense), ("sparse", rows.to_dense())):
        maps.write(source, tmp_path / "h.html", vectors=chosen, overwrite=True)  # type: ignore[arg-type]
        assert_allclose(seen(tmp_path / "h.html").points, centered(reference(vectors)[0]), atol=1e-5)
    only = parquet(tmp_path / "t.parquet", texts, HybridVectors(None, None, tokens))
    with pytest.raises(InputError, match=r"t\.parquet holds vectors of tokens alone \(ColBERT\): a map needs one vec"):
        maps.write(only, tmp_path / "t.html")
    with pytest.raises(InputError, match=r"holds no sparse vectors, only dense ones\. Leave out --vectors"):
        maps.write(parquet(tmp_path / "d.parquet", texts, dense), tmp_path / "t.html", vectors="sparse")
    assert not (tmp_path / "t.html").exists()


# ---- refusals --------------------------------------------------------------------------------------------------------


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["map", *map(str, arguments)]) == 1
    return capsys.readouterr().err


def test_files_and_targets_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = npy(tmp_path / "x.npy", np.eye(3)), tmp_path / "x.html"
    texts = tmp_path / "t.txt"
    texts.write_text("a\nb\nc\n")
    assert "there is no file" in refusal(capsys, tmp_path / "y.npy", out)
    assert "is none of .npy, .npz, .jsonl, .parquet" in refusal(capsys, tmp_path / "y.txt", out)
    said = refusal(capsys, source, tmp_path / "nowhere" / "x.html", "--texts", texts)
    assert said == (
        f"trivec: error: there is no folder '{tmp_path / 'nowhere'}' to write x.html to. "
        f"Type: mkdir -p {tmp_path / 'nowhere'}\n"
    )
    assert "does not end in .html: a map is a page." in refusal(capsys, source, tmp_path / "x.npy", "--texts", texts)
    out.write_text("mine")
    said = refusal(capsys, source, out, "--texts", texts)
    assert said.endswith(f"{out} exists. Choose another name, or replace it: --force (overwrite=True).\n")
    assert out.read_text() == "mine"
    out.unlink()
    out.mkdir()
    assert "is a folder. Choose another name." in refusal(capsys, source, out, "--texts", texts, "--force")


@pytest.mark.parametrize("failing", ["write_bytes", "replace"])
def test_a_page_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], failing: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "another name")

    folder = tmp_path / "work"
    folder.mkdir()
    out, source = folder / "x.html", parquet(folder / "x.parquet", list("abc"), np.eye(3, dtype=np.float32))
    out.write_text("mine")
    monkeypatch.setattr(Path, failing, full)
    assert refusal(capsys, source, out, "--force") == f"trivec: error: [Errno 28] No space left on device: '{out}'\n"
    assert sorted(path.name for path in folder.iterdir()) == ["x.html", "x.parquet"]
    assert out.read_text() == "mine"


def test_texts_from_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("été\n\nc\n".encode())))
    assert main(["map", str(npy(tmp_path / "x.npy", np.eye(3))), str(tmp_path / "x.html"), "--texts", "-"]) == 0
    assert seen(tmp_path / "x.html").texts == ["été", "", "c"]


def test_texts_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = npy(tmp_path / "x.npy", np.eye(3)), tmp_path / "x.html"
    own = parquet(tmp_path / "x.parquet", list("abc"), np.eye(3, dtype=np.float32))
    said = refusal(capsys, source, out)
    assert said.endswith("x.npy keeps no texts. Say where they are, one a line: --texts FILE.txt (texts=...).\n")
    for lines, rows, count in ((2, "more than 2", 2), (5, "3", 5)):
        (tmp_path / "t.txt").write_text("a\n" * lines)
        said = refusal(capsys, source, out, "--texts", tmp_path / "t.txt")
        assert f"x.npy has {rows} rows, and there are {count} texts. Give the texts that were encoded, in the" in said
    assert "x.parquet keeps its own texts. Leave out --texts (texts=None)." in refusal(
        capsys, own, out, "--texts", tmp_path / "t.txt"
    )
    assert "there is no file" in refusal(capsys, source, out, "--texts", tmp_path / "u.txt")
    with pytest.raises(InputError, match=r"expected strings, got int at index 1: 7\."):
        maps.write(source, out, texts=["a", 7, "c"])  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"texts must be an iterable of texts, got str 'abc'\."):
        maps.write(source, out, texts="abc")
    assert not out.exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none(tmp_path: Path, bad: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trivec.map._corpus._WINDOW", 100)
    array = np.ones((999, 3))
    array[876, 1] = bad
    with pytest.raises(NonFiniteError, match=r"row 876 \(from 0\) of .*x\.npy holds NaN or infinity\."):
        maps.write(npy(tmp_path / "x.npy", array), tmp_path / "x.html", texts=["a"] * 999, limit=5)


def test_options_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = npy(tmp_path / "x.npy", np.eye(3)), tmp_path / "x.html"
    with pytest.raises(InputError, match=r"limit must be a whole number of at least 1, got 0\."):
        maps.write(source, out, texts=list("abc"), limit=0)
    with pytest.raises(InputError, match=r"max_chars must be a whole number of at least 1, got True\."):
        maps.write(source, out, texts=list("abc"), max_chars=True)
    with pytest.raises(InputError, match=r"projection 'umap' is not one of pca, tsne\."):
        maps.write(source, out, texts=list("abc"), projection="umap")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(MissingExtraError, match=r't-SNE needs scikit-learn, .* Type: pip install "trivec\[map\]"'):
        maps.write(source, out, texts=list("abc"), projection="tsne")
    maps.write(source, out, texts=list("abc"))


def test_the_page_s_files_are_part_of_the_package() -> None:
    spec = importlib.util.find_spec("trivec.map")
    assert spec is not None and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0])
    assert {path.name for path in folder.iterdir()} >= {"page.html", "page.css", "page.js"}
