"""`trivec.compare.diff` and `trivec diff`: figures against numpy by hand, scikit-learn's nDCG, verdicts, refusals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import ndcg_score
from tests.support.static_models import model2vec_folder
from tests.support.tiny_heads import hybrid, random_logits, random_weights, splade
from tests.support.tiny_model import TinyModel

import trivec
from trivec import InputError, store
from trivec._cli.main import main
from trivec._engine import engine_name
from trivec._vectors.multi import MultiVectors
from trivec._vectors.sparse import SparseVectors
from trivec.compare import HeadDifference, Ndcg, diff, read_judged
from trivec.compare._diff import _compared, _ndcg
from trivec.compare._difference import VERDICTS, _judge

WORDS = ["a", "cat", "the", "dog", "and", "sat"]
TEXTS = [" ".join(WORDS[(i * j + i) % 6] for j in range(1 + i % 5)) for i in range(24)]


def by_hand(x: Any, y: Any) -> list[float]:
    """Cosines of rows, by a loop in float64."""
    rows = zip(x.astype(np.float64), y.astype(np.float64), strict=True)
    return [float(a @ b / np.sqrt((a @ a) * (b @ b))) for a, b in rows]


@pytest.mark.parametrize("dim", [8, 5])
def test_figures_of_dense_vectors_by_hand(dim: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 8)).astype(np.float32)
    y = (x + 0.3 * rng.normal(size=(40, 8)).astype(np.float32))[:, :dim]
    found = _compared(x, y, [f"text {i}" for i in range(40)], None)
    changed = _shares(x, y)
    assert found.top10_kept == pytest.approx(np.mean(changed), abs=1e-12)
    assert found.texts_changed == pytest.approx(np.mean(np.array(changed) < 1), abs=1e-12)
    assert found.dims == (8, dim)
    if dim != 8:
        assert (found.cosine_min, found.cosine_mean, found.moved) == (None, None, ())
        assert _judge("dense", found)[0] == "encode again"
        return
    cosines = by_hand(x, y)
    assert found.cosine_min == pytest.approx(min(cosines), abs=1e-12)
    assert found.cosine_mean == pytest.approx(np.mean(cosines), abs=1e-12)
    order = np.argsort(cosines)[:5]
    assert [moved.text for moved in found.moved] == [f"text {i}" for i in order]
    assert [moved.cosine for moved in found.moved] == pytest.approx([cosines[i] for i in order])


def _shares(x: Any, y: Any, k: int = 10) -> list[float]:
    """The share of each row's k nearest in x that it has in y as well, of vectors of any two widths."""
    sets = []
    for rows in (x, y):
        unit = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
        scores = unit @ unit.T
        np.fill_diagonal(scores, -np.inf)
        sets.append([set(row[:k].tolist()) for row in np.argsort(-scores, axis=1)])
    return [len(a & b) / k for a, b in zip(*sets, strict=True)]


def test_figures_of_sparse_rows_and_of_tokens() -> None:
    rng = np.random.default_rng(1)
    x = np.maximum(rng.normal(size=(30, 20)), 0).astype(np.float32)
    y = x * (1 + 0.1 * rng.random((30, 20)).astype(np.float32))
    found = _compared(_sparse(x), _sparse(y), None, None)
    assert found.top10_kept == pytest.approx(np.mean(_shares(x, y)), abs=1e-12)
    assert found.dims == (20, 20)
    same = _compared(_sparse(x), _sparse(x), None, None)
    assert (same.equal, same.top10_kept) == (True, 1.0)
    assert same.cosine_min == pytest.approx(1.0)
    tokens = [rng.normal(size=(n, 4)).astype(np.float32) for n in (3, 1, 2)]
    a, b = MultiVectors.from_arrays(tokens), MultiVectors.from_arrays([2 * rows for rows in tokens])
    multi = _compared(a, b, None, None)
    assert multi.cosine_min == pytest.approx(1.0)  # lengths do not count
    assert not multi.equal
    other = _compared(a, MultiVectors.from_arrays([*tokens[:2], tokens[2][:1]]), None, None)
    assert other.cosine_min is None
    assert _judge("colbert", other)[1].startswith("vectors of other tokens")


def _sparse(rows: Any) -> SparseVectors:
    return SparseVectors.from_dicts(
        [{int(t): float(row[t]) for t in np.flatnonzero(row)} for row in rows], rows.shape[1]
    )


@pytest.mark.parametrize(
    ("cosine_min", "kept", "judged", "expected"),
    [
        (0.9996, 0.995, None, "interchangeable"),
        (0.9996, 0.98, None, "mix with this loss"),
        (0.98, 0.95, None, "mix with this loss"),
        (0.96, 0.95, None, "encode again"),
        (0.98, 0.85, None, "encode again"),
        (0.9996, 0.995, Ndcg(0.6, 0.6, 0.595), "mix with this loss"),
        (0.9996, 0.995, Ndcg(0.6, 0.6, 0.58), "encode again"),
        (0.9996, 0.995, Ndcg(None, 0.6, 0.5995), "interchangeable"),
    ],
)
def test_verdicts(cosine_min: float, kept: float, judged: Ndcg | None, expected: str) -> None:
    found = HeadDifference((8, 8), False, cosine_min, 0.999, kept, 0.1, judged, ())
    assert _judge("dense", found)[0] == expected


def test_norms_count(tiny_folder: Path, tmp_path: Path) -> None:
    """Vectors of one direction and of other norms have a cosine of 1, and rank otherwise in a dot product."""
    with trivec.load(tiny_folder) as encoder, trivec.load(tiny_folder, precision="int8") as other:
        plain, unit = tmp_path / "plain.npy", tmp_path / "unit.jsonl"
        store.write(plain, encoder, TEXTS)
        store.write(unit, encoder, TEXTS, normalize_embeddings=True)
        x, y = (store.read(path).vectors for path in (plain, unit))
        found = diff(plain, unit)
        norms = np.linalg.norm(np.asarray(x, np.float64), axis=1)
        expected = max(float(abs(n - 1) / max(n, 1)) for n in norms)
        assert expected > 0.3  # beyond what any verdict but one lets pass
        assert found.heads["dense"].norm_change == pytest.approx(expected, abs=1e-6)
        assert found.verdict == "encode again"
        assert f"norms change by up to {expected:.2%}" in found.reason
        # another variant has no call of the file's fingerprint: normalized like the file, it is compared with its like
        expected_cosines = by_hand(np.asarray(y), other.encode(TEXTS, normalize_embeddings=True))
        like = diff(unit, other)
        assert like.heads["dense"].norm_change < 1e-5
        assert like.heads["dense"].cosine_min == pytest.approx(min(expected_cosines), abs=1e-9)
        assert like.b.fingerprint == store.fingerprint_of(other, normalize_embeddings=True)
        assert diff(unit, other, normalize_embeddings=False).heads["dense"].norm_change > 0.3
        assert diff(plain, other, texts=TEXTS).b.fingerprint == other.fingerprint


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_close_to_nothing(value: float, tmp_path: Path) -> None:
    rows = np.random.default_rng(2).normal(size=(20, 6)).astype(np.float32)
    np.save(tmp_path / "a.npy", rows)
    rows[3, 2] = value
    np.save(tmp_path / "b.npy", rows)
    found = diff(tmp_path / "a.npy", tmp_path / "b.npy")  # a warning of numpy's would be an error here
    assert (found.verdict, found.heads["dense"].cosine_min, found.heads["dense"].norm_change) == ("encode again", -1, 1)
    json.dumps(found.as_dict(), allow_nan=False)


@pytest.mark.parametrize(("change", "expected"), [(0.03, 0), (0.04, 1), (0.24, 1), (0.25, 2), (1.0, 2)])
def test_a_norm_moves_a_vector_as_far_as_an_angle(change: float, expected: int) -> None:
    found = HeadDifference((8, 8), False, 0.9999, 0.9999, 1.0, 0.0, None, (), change)
    assert _judge("dense", found)[0] == VERDICTS[expected]


def test_ndcg_is_scikit_learns(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    documents, queries = rng.normal(size=(30, 6)).astype(np.float32), rng.normal(size=(7, 6)).astype(np.float32)
    gains = rng.integers(0, 3, size=(7, 30)) * (rng.random((7, 30)) < 0.2)
    gains[:, 0] = 1
    judged = judged_folder(tmp_path, [f"text {i}" for i in range(30)], [f"query {i}" for i in range(7)], gains)
    found = _ndcg(read_judged(judged), queries, documents, "dot")
    assert found == pytest.approx(ndcg_score(gains, queries.astype(np.float64) @ documents.T, k=10), abs=1e-9)


def judged_folder(folder: Path, texts: list[str], queries: list[str], gains: Any) -> Path:
    """A corpus in BEIR's layout."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    rows = [{"_id": f"d{i}", "title": "", "text": text} for i, text in enumerate(texts)]
    asked = [{"_id": f"q{i}", "text": text} for i, text in enumerate(queries)] + [{"_id": "nobody", "text": "x"}]
    for name, listed in (("corpus", rows), ("queries", asked)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed), encoding="utf-8")
    lines = [f"q{q}\td{d}\t{gains[q][d]}" for q in range(len(queries)) for d in range(len(texts)) if gains[q][d]]
    (folder / "qrels/test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n", encoding="utf-8")
    return folder


def test_two_variants_of_a_folder(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["diff", str(tiny_folder), str(tiny_folder), "--precision", "fp32,int8", "--device", "cpu", "--json"]
    status = main(arguments)
    found = json.loads(capsys.readouterr().out)
    assert status == (found["verdict"] == "encode again")
    assert [found[side]["what"] for side in "ab"] == ["fp32 on cpu", "int8 on cpu"]
    assert found["a"]["engine"] == found["b"]["engine"]
    assert found["texts"] == 630
    main([*arguments[:-1]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"A  {tiny_folder}: fp32 on cpu"
    assert lines[-1].startswith(f"verdict: {found['verdict']} (dense: ")


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "npy"])
@pytest.mark.parametrize(
    "options", [{}, {"normalize_embeddings": True}, {"method": "encode_query"}, {"truncate_dim": 7}]
)
def test_a_stored_file_against_what_runs_now(
    tiny_folder: Path, tmp_path: Path, suffix: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call that the file was written with is found by its fingerprint, so that equal engines give equal bits."""
    path = tmp_path / f"out.{suffix}"
    with trivec.load(tiny_folder, device="cpu", threads=1) as encoder:
        store.write(path, encoder, TEXTS, **options)
        monkeypatch.setattr(engine_name, "this_kernel_class", lambda: "elsewhere")
        found = diff(path, encoder, texts=TEXTS if suffix == "npy" else None)
    assert found.heads["dense"].equal
    assert (found.verdict, found.reason) == ("interchangeable", "dense: equal to the bit")
    assert found.a.fingerprint == found.b.fingerprint
    assert found.a.engine != found.b.engine
    assert str(found.b.engine).endswith("elsewhere")


def test_sparse_hybrid_and_static(tiny_model: TinyModel, tmp_path: Path) -> None:
    sparse = splade(tmp_path / "sparse", tiny_model, random_logits(), random_weights()).folder
    both = hybrid(tmp_path / "hybrid", tiny_model).folder
    static = model2vec_folder(tmp_path / "static")
    for folder, heads in ((sparse, {"sparse"}), (both, {"dense", "sparse"}), (static, {"dense"})):
        found = diff(folder, folder, texts=TEXTS)
        assert set(found.heads) == heads
        assert found.verdict == "interchangeable"
    assert set(diff(both, both, texts=TEXTS, heads=["colbert"]).heads) == {"colbert"}
    with trivec.load(both) as m3:
        store.write(tmp_path / "both.parquet", m3, TEXTS)
    assert diff(tmp_path / "both.parquet", both).verdict == "interchangeable"
    other = diff(tiny_model.folder, static, texts=TEXTS)
    assert other.verdict == "encode again"
    assert other.heads["dense"].dims[0] != other.heads["dense"].dims[1]
    with pytest.raises(InputError, match="there is nothing to compare"):
        diff(sparse, static, texts=TEXTS)
    with pytest.raises(InputError, match=r"heads \['sparse'\]: expected some of dense"):
        diff(both, tiny_model.folder, texts=TEXTS, heads=["sparse"])


def test_judgements(tiny_folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    gains = (rng.random((4, 24)) < 0.3).astype(int)
    gains[:, 5] = 2
    folder = judged_folder(tmp_path / "judged", TEXTS, TEXTS[:4], gains)
    with (
        trivec.load(tiny_folder, device="cpu", precision="fp32") as a,
        trivec.load(tiny_folder, device="cpu", precision="int8") as b,
    ):
        found = diff(a, b, judged=folder).heads["dense"].ndcg
        pairs = [(a, a), (b, b), (b, a)]
        expected = []
        for asking, asked in pairs:
            q, d = asking.encode_query(TEXTS[:4]), asked.encode_document(TEXTS)
            q, d = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (q, d))
            scores = np.round(q.astype(np.float64) @ d.T, 7) - 1e-12 * np.arange(24)  # equal ones: the first text first
            expected.append(float(ndcg_score(gains, scores, k=10)))
        assert found is not None
        assert list(found) == pytest.approx(expected, abs=1e-6)
        store.write(tmp_path / "d.npy", a, TEXTS, method="encode_document")
        stored = diff(tmp_path / "d.npy", b, judged=folder).heads["dense"].ndcg
        assert stored == Ndcg(None, found.b, found.mixed)
        with pytest.raises(InputError, match="two files have no vectors of queries"):
            diff(tmp_path / "d.npy", tmp_path / "d.npy", judged=folder)


def test_judgements_without_the_names_of_their_columns(tmp_path: Path) -> None:
    """Their first line is a judgement, and would be left out."""
    rows = [{"_id": str(i), "text": text} for i, text in enumerate(TEXTS[:3])]
    for name in ("corpus", "queries"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "qrels").mkdir()
    place, lines = tmp_path / "qrels" / "test.tsv", "0\t1\t1\n1\t2\t1\n"
    place.write_text(lines)
    with pytest.raises(InputError, match=r"test.tsv, line 1: expected the columns' names .*, got a judgement"):
        read_judged(tmp_path)
    place.write_text("query-id\tcorpus-id\tscore\n" + lines)
    assert read_judged(tmp_path).judgements == {"0": {"1": 1}, "1": {"2": 1}}


def test_few_texts_say_nothing_of_neighbours(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for count, shown in ((11, "nothing to tell: each of 11 texts has all others"), (12, "100.00% kept")):
        (tmp_path / "texts.txt").write_text("\n".join(TEXTS[:count]))
        assert main(["diff", str(tiny_folder), str(tiny_folder), "--texts", str(tmp_path / "texts.txt")]) == 0
        assert f"  top 10       {shown}" in capsys.readouterr().out


def test_what_cannot_be_compared(tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with trivec.load(tiny_folder, device="cpu", threads=1) as encoder:
        store.write(tmp_path / "float.npy", encoder, TEXTS)
        store.write(tmp_path / "int8.npy", encoder, TEXTS, precision="int8")
        store.write(tmp_path / "own.jsonl", encoder, TEXTS)
        store.write(tmp_path / "other.jsonl", encoder, TEXTS[:3])
        cases: list[tuple[dict[str, Any], str]] = [
            ({"a": "float.npy"}, "keeps no texts. Say which were encoded: --texts FILE"),
            ({"a": "float.npy", "texts": TEXTS[:3]}, "float.npy has 24, the texts has 3"),
            ({"a": "int8.npy", "texts": TEXTS}, "holds int8 numbers, whose cosines say nothing of the texts"),
            ({"a": "own.jsonl", "texts": TEXTS[::-1]}, "keeps other texts than are to be compared: leave those out"),
            ({"a": "own.jsonl", "b": tmp_path / "other.jsonl"}, "other.jsonl keeps other texts than"),
            ({"a": "own.jsonl", "b": tmp_path / "own.jsonl", "prompt": "x"}, "as they are. Leave out prompt"),
            ({"a": "own.jsonl", "b": 5}, "or an encoder, got int 5. Type: trivec.load"),
            ({"a": tiny_folder, "heads": 5, "texts": TEXTS}, "heads 5: expected some of dense"),
            ({"a": tiny_folder, "heads": [["dense"]], "texts": TEXTS}, "expected some of dense"),
            ({"a": tiny_folder, "texts": TEXTS, "precision": "ubinary"}, "gives, with these options, uint8 numbers"),
            ({"a": tiny_folder, "texts": ["one"]}, "expected at least two"),
            ({"a": tiny_folder, "texts": TEXTS, "judged": tmp_path}, "both say what is compared"),
            ({"a": tiny_folder, "judged": tmp_path}, "lacks corpus.jsonl, queries.jsonl, qrels/test.tsv"),
        ]
        for arguments, reason in cases:
            with pytest.raises(InputError, match=reason):
                diff(tmp_path / arguments.pop("a"), arguments.pop("b", encoder), **arguments)
    own = str(tmp_path / "own.jsonl")
    assert main(["diff", own, own, "--precision", "int8"]) == 1
    assert "two files are compared as they are. Leave out precision." in capsys.readouterr().err
    assert main(["diff", str(tiny_folder), str(tiny_folder), "--precision", "fp32,int8,fp16"]) == 1
    assert "--precision 'fp32,int8,fp16': expected a value for both sides, or A's,B's." in capsys.readouterr().err


def test_two_files(tiny_folder: Path, tmp_path: Path) -> None:
    with trivec.load(tiny_folder, device="cpu", threads=1) as encoder:
        rows = encoder.encode(TEXTS)
    np.save(tmp_path / "a.npy", rows)
    np.save(tmp_path / "b.npy", rows + np.float32(0.001))
    found = diff(tmp_path / "a.npy", tmp_path / "b.npy")
    cosines = by_hand(rows, rows + np.float32(0.001))
    assert found.heads["dense"].cosine_min == pytest.approx(min(cosines), abs=1e-9)
    assert (found.a.fingerprint, found.texts) == (None, 24)
