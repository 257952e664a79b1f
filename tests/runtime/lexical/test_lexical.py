"""BM25: numbers and files are those of pymilvus.model, to the last bit; and what is said about bad input."""

import json
import math
import os
import pickle
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.lexical_twin import twin

import trivec
from trivec.lexical import BM25, _weights, build_default_analyzer

CORPUS = [
    "Cells divide. A cell that divides has two daughter cells.",
    "The organization of cells, in five cell types.",
    "",
    "Proteins fold in the cell; a cell's proteins misfold.",
    "The of and.",
    "Five proteins and one cell in five experiments",
    "A cell",
]
QUERIES = ["which cells fold proteins in proteins?", "", "nothing known", "five five five organizations"]


def _random_corpus(documents: int, seed: int) -> list[str]:
    """Words of very different frequencies: some in most documents, many in one."""
    rng = random.Random(seed)
    return [" ".join(f"w{int(rng.paretovariate(0.6))}" for _ in range(rng.randint(0, 60))) for _ in range(documents)]


def _same(ours: trivec.SparseVectors, reference: Any) -> None:
    """Shape, rows, indices, and values to the last bit."""
    reference.sort_indices()
    assert ours.shape == reference.shape
    assert ours.values.dtype == reference.data.dtype == np.float32
    assert np.array_equal(ours.indptr, reference.indptr)
    assert np.array_equal(ours.indices, reference.indices)
    assert np.array_equal(ours.values, reference.data)


@pytest.mark.parametrize("options", [{}, {"k1": 0.9, "b": 0.4, "epsilon": 0.1}, {"k1": 0.0, "b": 1.0, "epsilon": 0.0}])
@pytest.mark.parametrize("block", [1, 100, 1 << 18])
def test_vectors_and_files_are_the_twins(
    options: dict[str, Any], block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_weights, "_BLOCK", block)
    corpus, others = _random_corpus(201, seed=1), [*_random_corpus(33, seed=2), "", "unknown words only"]
    reference = twin().BM25EmbeddingFunction(analyzer=str.split, corpus=corpus, **options)
    ours = BM25(str.split, **options).fit(corpus)
    assert (ours.dim, ours.corpus_size, ours.avgdl) == (reference.dim, 201, reference.avgdl)
    assert ours.terms == list(reference.idf)
    assert ours.idf.tolist() == [weight for weight, _ in reference.idf.values()]
    _same(ours.encode_documents(corpus), reference.encode_documents(corpus))
    _same(ours.encode_documents(others), reference.encode_documents(others))
    _same(ours.encode_queries(others), reference.encode_queries(others))

    reference.save(tmp_path / "twin.json")
    ours.save(tmp_path / "ours.json")
    assert (tmp_path / "ours.json").read_bytes() == (tmp_path / "twin.json").read_bytes()
    _same(BM25(str.split).load(tmp_path / "twin.json").encode_documents(others), reference.encode_documents(others))
    again = twin().BM25EmbeddingFunction(analyzer=str.split)
    again.load(tmp_path / "ours.json")
    _same(ours.encode_documents(others), again.encode_documents(others))
    _same(ours.encode_queries(others), again.encode_queries(others))


def test_the_default_analyzer_as_the_twins() -> None:
    reference = twin().BM25EmbeddingFunction(corpus=CORPUS)
    ours = BM25().fit(CORPUS)
    assert " ".join(ours.terms) == "cell divid two daughter organ five type protein fold 's misfold one experi"
    _same(ours.encode_documents(CORPUS), reference.encode_documents(CORPUS))
    _same(ours.encode_queries(QUERIES), reference.encode_queries(QUERIES))


def test_the_formulas() -> None:
    documents = ["a a b", "a c", "a", "d d d d"]
    bm25 = BM25(str.split, k1=1.2, b=0.5, epsilon=0.3).fit(documents)
    plain = {term: math.log(4 - n + 0.5) - math.log(n + 0.5) for term, n in {"a": 3, "b": 1, "c": 1, "d": 1}.items()}
    idf = {**plain, "a": 0.3 * sum(plain.values()) / 4}  # more than half of the documents have it
    assert bm25.terms == ["a", "b", "c", "d"]
    np.testing.assert_allclose(bm25.idf, list(idf.values()), rtol=1e-15)
    vector = bm25.encode_documents(["a a b x"])  # 4 tokens, one unknown; 2.5 on average
    penalty = 1.2 * (1 - 0.5 + 0.5 * 4 / 2.5)
    np.testing.assert_allclose(vector.to_dense(), [[2 * 2.2 / (2 + penalty), 2.2 / (1 + penalty), 0, 0]], rtol=1e-7)
    np.testing.assert_allclose(bm25.encode_queries(["b b x a"]).to_dense(), [[idf["a"], 2 * idf["b"], 0, 0]], rtol=1e-7)


def test_tokens_that_are_there_already() -> None:
    analyzer = build_default_analyzer()
    texts, tokens = BM25(analyzer).fit(CORPUS), BM25(analyzer).fit_tokens(analyzer(text) for text in CORPUS)
    assert tokens.terms == texts.terms
    assert tokens.encode_document_tokens(map(analyzer, CORPUS)).equals(texts.encode_documents(CORPUS))
    assert tokens.encode_query_tokens(map(analyzer, QUERIES)).equals(texts.encode_queries(QUERIES))
    assert tokens.encode_document_tokens([("cell", np.str_("cell"))]).equals(texts.encode_documents(["cell cell"]))


def test_it_pickles() -> None:
    bm25 = BM25(build_default_analyzer("de"), k1=1.25).fit(CORPUS)
    again = pickle.loads(pickle.dumps(bm25))
    assert repr(again) == repr(bm25)
    assert again.encode_documents(CORPUS).equals(bm25.encode_documents(CORPUS))


def test_any_iterable_and_none_at_all() -> None:
    def stream() -> Iterator[str]:
        yield from CORPUS

    bm25 = BM25().fit(stream())
    expected = bm25.encode_documents(CORPUS)
    assert bm25.encode_documents(stream()).equals(expected)
    assert bm25.encode_documents(np.array(CORPUS, dtype=object)).equals(expected)
    assert bm25.encode_documents([]).shape == bm25.encode_queries([]).shape == (0, 13)
    assert bm25.encode_documents(CORPUS)[4].to_dict() == {}
    assert bm25.encode_queries(["cell"]).to_tokens(bm25.terms.__getitem__)[0][0][0] == "cell"


def test_processes_give_the_same() -> None:
    corpus = [f"{text} term{i % 50}" for i, text in enumerate(CORPUS * 60)]
    one, two = BM25().fit(corpus), BM25(workers=2).fit(corpus)
    assert two.terms == one.terms
    assert np.array_equal(two.idf, one.idf)
    with pytest.raises(trivec.InputError, match=r"^expected a text for document 300, got int 7\.$"):
        two.fit([*corpus[:300], 7])  # type: ignore[list-item]


# ---- states ----------------------------------------------------------------------------------------------------------


def test_before_it_is_fitted(tmp_path: Path) -> None:
    bm25 = BM25()
    assert (bm25.dim, bm25.corpus_size, bm25.avgdl, bm25.terms) == (0, 0, 0, [])
    calls: tuple[Callable[[], object], ...] = (
        lambda: bm25.encode_documents(CORPUS),
        lambda: bm25.encode_queries(QUERIES),
        lambda: bm25.encode_document_tokens([["a"]]),
        lambda: bm25.encode_query_tokens([["a"]]),
        lambda: bm25.save(tmp_path / "bm25.json"),
        lambda: bm25.idf,
    )
    for call in calls:
        with pytest.raises(trivec.InputError) as caught:
            call()
        assert str(caught.value) == "this BM25 knows no corpus yet. Type: bm25.fit(corpus), or bm25.load(path)"
    assert list(tmp_path.iterdir()) == []


def test_what_fails_leaves_it_as_it_was(tmp_path: Path) -> None:
    bm25 = BM25(k1=1.1).fit(CORPUS)
    expected, state = bm25.encode_documents(CORPUS), repr(bm25)
    (tmp_path / "bad.json").write_text('{"version": "v1", "k1": 3')
    wrong: Any = ["a b", None]
    calls: list[Callable[[], object]] = [
        lambda: bm25.fit([]),
        lambda: bm25.fit(wrong),
        lambda: bm25.load(tmp_path / "bad.json"),
    ]
    for call in calls:
        with pytest.raises(trivec.TrivecError):
            call()
        assert repr(bm25) == state
        assert bm25.encode_documents(CORPUS).equals(expected)
    assert bm25.fit(["another corpus"]).terms == ["anoth", "corpus"]


def test_a_file_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bm25.json"
    bm25 = BM25().fit(CORPUS)
    bm25.save(path)
    before = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        BM25().fit(["another corpus"]).save(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["bm25.json"]
    BM25().fit(["another corpus"]).save(str(path))
    assert BM25().load(str(path)).terms == ["anoth", "corpus"]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# ---- bad input -------------------------------------------------------------------------------------------------------


FUNCTION = "analyzer must be a function from a text to its terms"
NO_TERMS = (
    "the 3 documents of the corpus have no terms: they are empty, or the analyzer drops all of their words (stop "
    'words, punctuation). See what it makes of one: bm25.analyzer("...")'
)
FILL = "Fill or drop missing values first: texts.fillna('') or texts.dropna() of a Series."
NO_LIST = "expected a list of texts, one for each document"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k1": -0.1}, "k1 must be a finite number from 0, got -0.1."),
        ({"k1": math.inf}, "k1 must be a finite number from 0, got inf."),
        ({"k1": "1.5"}, "k1 must be a finite number from 0, got '1.5'."),
        ({"b": 1.01}, "b must be a number from 0 to 1, got 1.01."),
        ({"b": math.nan}, "b must be a number from 0 to 1, got nan."),
        ({"b": True}, "b must be a number from 0 to 1, got True."),
        ({"epsilon": -1}, "epsilon must be a finite number from 0, got -1."),
        ({"workers": 0}, "workers must be a whole number from 1, got 0."),
        ({"analyzer": "de"}, f"{FUNCTION}, got str 'de'. For a language type: build_default_analyzer(\"de\")"),
    ],
)
def test_parameters_out_of_their_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(trivec.InputError) as caught:
        BM25(**options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ([], "the corpus has no documents; expected at least one."),
        (["", "the of", " \n"], NO_TERMS),
        (["", "", ""], NO_TERMS),
        ("one text", f"{NO_LIST}, got str 'one text'. For a single one type: [text]"),
        (7, f"{NO_LIST}, got int."),
        (["a", None], f"expected a text for document 1, got NoneType None. {FILL}"),
        (["a", b"bytes"], "expected a text for document 1, got bytes b'bytes'. Decode it first: text.decode('utf-8')."),
    ],
)
def test_a_corpus_that_cannot_be_used(corpus: Any, message: str) -> None:
    with pytest.raises(trivec.InputError) as caught:
        BM25().fit(corpus)
    assert str(caught.value) == message


@pytest.mark.parametrize("block", [7, 1 << 18])
def test_texts_and_tokens_that_cannot_be_used(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_weights, "_BLOCK", block)
    bm25 = BM25().fit(CORPUS)
    with pytest.raises(trivec.InputError, match=r"^expected a text for document 300, got float nan\. Fill or drop"):
        bm25.encode_documents([*["a"] * 300, math.nan])  # type: ignore[list-item]
    with pytest.raises(
        trivec.InputError, match=r"^expected a list of texts, one for each query, got str 'cell'\. For a"
    ):
        bm25.encode_queries("cell")
    with pytest.raises(trivec.InputError, match=r"^expected a list of strings for document 1, got str 'a text'\.$"):
        bm25.fit_tokens([["a"], "a text"])
    for wrong, shown in ((1, "int 1"), (None, "NoneType None"), (["a"], r"list \['a'\]"), (b"a", "bytes b'a'")):
        tokens: Any = [*[["cell", "new"]] * 40, ["cell", wrong]]
        with pytest.raises(trivec.InputError, match=rf"^expected strings as the terms of document 40, got {shown}\.$"):
            bm25.fit_tokens(tokens)
        with pytest.raises(trivec.InputError, match=rf"^expected strings as the terms of document 40, got {shown}\.$"):
            bm25.encode_document_tokens(tokens)
        with pytest.raises(trivec.InputError, match=rf"^expected strings as the terms of query 40, got {shown}\.$"):
            bm25.encode_query_tokens(tokens)
    with pytest.raises(trivec.InputError, match=r"^expected a list of token lists, one for each document, got str 'a'"):
        bm25.encode_document_tokens("a")
    broken: Any = len
    with pytest.raises(
        trivec.InputError, match=r"^expected a list of strings for document 0, the analyzer gave int 1\.$"
    ):
        BM25(broken).fit(["a"])


def _stored(**changes: Any) -> str:
    good = {"version": "v1", "corpus_size": 3, "avgdl": 2.5, "idf_word": ["a", "b"], "idf_value": [0.5, 1.5]}
    good |= {"k1": 1.5, "b": 0.75, "epsilon": 0.25}
    return json.dumps({key: value for key, value in (good | changes).items() if value is not ...})


AGAIN = "Write it again: bm25.fit(corpus).save(path)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_stored()[:-20], "is not valid JSON (Expecting"),
        ("no JSON", "is not valid JSON (Expecting value"),
        ("\udcff", "is not valid JSON ('utf-8' codec can't decode"),
        (
            "[]",
            "holds no JSON object; BM25 parameters are version, corpus_size, avgdl, idf_word, idf_value, k1, b, eps",
        ),
        (_stored(avgdl=..., b=...), "lacks avgdl, b; BM25 parameters are version,"),
        (_stored(version="v2"), "has the version 'v2', expected 'v1'. " + AGAIN + ", or update trivec."),
        (_stored(idf_value=[0.5]), "idf_word and idf_value must be lists of one length above 0, got 2 and 1."),
        (_stored(idf_word=[], idf_value=[]), "must be lists of one length above 0, got 0 and 0."),
        (_stored(idf_word="ab"), "idf_word and idf_value must be lists of one length above 0, got str and 2."),
        (_stored(idf_word=["a", 7]), "idf_word must hold different strings, got 7."),
        (_stored(idf_word=["a", "a"]), "idf_word must hold different strings, got 'a' twice."),
        (_stored(idf_value=[0.5, "1"]), "idf_value must hold finite numbers, got '1' for 'b'."),
        (_stored(idf_value=[math.nan, 1]), "idf_value must hold finite numbers, got nan for 'a'."),
        (_stored(idf_value=[True, 1]), "idf_value must hold finite numbers, got True for 'a'."),
        (_stored(corpus_size=0), "corpus_size must be a whole number from 1, got 0."),
        (_stored(corpus_size=2.0), "corpus_size must be a whole number from 1, got 2.0."),
        (_stored(avgdl=0), "avgdl must be a finite number above 0, got 0."),
        (_stored(avgdl=math.inf), "avgdl must be a finite number above 0, got inf."),
        (_stored(k1=None), "k1 must be a finite number from 0, got None."),
        (_stored(b=7), "b must be a number from 0 to 1, got 7."),
    ],
)
def test_a_parameter_file_that_cannot_be_used(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bm25.json"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(trivec.ModelFormatError) as caught:
        BM25().load(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert AGAIN in str(caught.value)


def test_a_parameter_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("none.json", "folder"):
        with pytest.raises(trivec.ModelNotFoundError) as caught:
            BM25().load(tmp_path / name)
        assert str(caught.value) == f"there is no file '{tmp_path / name}' of BM25 parameters. {AGAIN}"
