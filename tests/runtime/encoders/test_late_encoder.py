"""Vectors of tokens by a tiny late-interaction model, against numpy: every argument, every error."""

import asyncio
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.tiny_late import (
    DIM,
    DOCUMENT_LENGTH,
    QUERY_LENGTH,
    UNSEEN,
    TinyLate,
    write_tiny_late,
)

import trivec
from trivec import InputError, LateEncoder, ModelFormatError, MultiVectors, TruncationError, store
from trivec._model.manifest import Expansion
from trivec._tokens.plan import plan

LONG = "a small red boat under the old tree ran on and on and on"
TEXTS = ["the cat sat on the mat", "", "A small RED boat", "cat", "the cat sat on the mat", LONG, "find the"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyLate:
    return write_tiny_late(tmp_path_factory.mktemp("tiny") / "model")


def load(model: TinyLate, **options: Any) -> LateEncoder:
    return trivec.load(model.folder, kind="late", device="cpu", **options)


@pytest.fixture
def late(tiny: TinyLate) -> Iterator[LateEncoder]:
    with load(tiny, threads=1) as model:
        yield model


def close(found: Any, expected: list[Any]) -> None:
    assert isinstance(found, MultiVectors)
    assert [len(row) for row in found] == [len(row) for row in expected]
    np.testing.assert_allclose(found.vectors, np.concatenate(expected), rtol=0, atol=1e-6)


def test_both_sides(tiny: TinyLate, late: LateEncoder) -> None:
    close(late.encode_query(TEXTS), tiny.vectors(TEXTS, "query"))
    close(late.encode_document(TEXTS), tiny.vectors(TEXTS, "document"))
    close(late.encode(TEXTS), tiny.vectors(TEXTS, "document"))
    close(late.encode(TEXTS, task="query"), tiny.vectors(TEXTS, "query"))
    assert late.tokenize(TEXTS, task="query") == [tiny.ids(text, "query")[0] for text in TEXTS]
    one = late.encode_query("cat")
    assert (one.shape, one.dtype) == ((QUERY_LENGTH, DIM), np.float32)
    assert len(late.encode_document([])) == len(late.encode_query([])) == 0
    assert late.encode_document([]).dim == DIM
    assert (late.heads, late.dim, late.similarity_fn_name) == (("colbert",), DIM, "maxsim")
    assert "LateEncoder(" in repr(late)
    for lanes in (1, 2):
        with load(tiny, threads=lanes) as other:
            for batch_size in (1, 32):
                close(other.encode_query(TEXTS * 3, batch_size=batch_size), tiny.vectors(TEXTS * 3, "query"))
    aside = asyncio.run(late.aencode(TEXTS, task="query"))
    close(aside, tiny.vectors(TEXTS, "query"))
    blocks = list(late.encode_iter(iter(TEXTS), window=3, task="query"))
    close(MultiVectors.concatenate(blocks), tiny.vectors(TEXTS, "query"))
    assert late.represent(TEXTS, task="query").colbert.equals(late.encode_query(TEXTS))  # type: ignore[union-attr]
    of_one = late.represent("cat", task="query")
    assert (of_one.dense, of_one.sparse) == (None, None)
    np.testing.assert_array_equal(of_one.colbert, one)
    with trivec.Batcher(late) as batcher:
        np.testing.assert_array_equal(batcher.represent("cat", task="query").colbert, one)
        np.testing.assert_array_equal(batcher.encode_query("cat"), one)


@pytest.mark.parametrize(
    "expansion",
    [None, replace(UNSEEN, attended=True), replace(UNSEEN, length=5, exact=False)],
    ids=["none", "attended", "at least"],
)
def test_other_expansions(expansion: Expansion | None, tmp_path: Path) -> None:
    model = write_tiny_late(tmp_path / "model", expansion)
    with load(model) as late:
        close(late.encode_query(TEXTS), model.vectors(TEXTS, "query"))


def test_a_prompt_stands_behind_the_mark(tiny: TinyLate, late: LateEncoder) -> None:
    expected = tiny.vectors(["the cat"], "query")
    close(late.encode_query(["cat"], prompt="the "), expected)
    close(late.encode_query(["cat"], prompt_name="wanted"), expected)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("tree ", r"begins with 'tree', the mark of a query.*Type: encode_query\(texts\)$"),
        ("tree", r"Type: encode_query\(texts\)$"),
        (" tree the ", r"Type: encode_query\(texts, prompt='the '\)$"),
        ("bird ", r"begins with 'bird', the mark of a document.*Type: encode_document\(texts\)$"),
    ],
)
def test_a_prompt_that_would_bring_the_mark_again(
    late: LateEncoder, tiny: TinyLate, prompt: str, message: str, tmp_path: Path
) -> None:
    """sentence-transformers has the mark in its prompts ("[Q] "), trivec in the model."""
    for call in (
        lambda: late.encode(TEXTS, prompt=prompt),
        lambda: late.encode_query(TEXTS, prompt=prompt),
        lambda: late.encode_document(TEXTS, prompt=prompt),
        lambda: late.encode_iter(TEXTS, prompt=prompt),
        lambda: late.fingerprint_of(prompt=prompt),
        lambda: late.check_call(prompt=prompt),
        lambda: late.tokenize(TEXTS, prompt=prompt),
        lambda: late.read_rows(TEXTS, prompt=prompt),
        lambda: store.write(tmp_path / "a.jsonl", late, TEXTS, prompt=prompt),
        lambda: load(tiny, prompts={"mine": prompt}),
    ):
        with pytest.raises(InputError, match=message):
            call()
    assert not list(tmp_path.glob("a.jsonl*"))
    longer = late.tokenize(["cat"], prompt="trees ")
    assert longer == [[2, 23, 1, 7, 3]]  # a word that only begins so


def test_the_name_of_a_prompt_of_the_other_side(tiny: TinyLate, late: LateEncoder) -> None:
    """There "query" names "[Q] ", which makes a query of a text; here the task does, and the name alone does not."""
    for call in (
        lambda: late.encode(TEXTS, prompt_name="query"),
        lambda: late.encode_document(TEXTS, prompt_name="query"),
        lambda: late.fingerprint_of("query"),
    ):
        with pytest.raises(InputError, match=r"'query' is of a query, and this call reads.*Type: encode_query\(texts"):
            call()
    with pytest.raises(InputError, match=r"'document' is of a document.*behind the mark of a query.*encode_document"):
        late.encode_query(TEXTS, prompt_name="document")
    assert late.encode(TEXTS, prompt_name="query", task="query").equals(late.encode_query(TEXTS))
    assert late.encode(TEXTS, prompt_name="document").equals(late.encode_document(TEXTS))
    with load(tiny, prompts={"query": "the "}, default_prompt_name="query") as own:  # a text, and no mark
        close(own.encode(["cat"]), tiny.vectors(["the cat"], "document"))


def test_a_run_has_one_length_and_one_number_of_tokens_that_are_seen() -> None:
    lengths, parts = [8, 8, 4, 8, 8, 4], [5, 3, 4, 5, 8, 4]
    batches = plan(lengths, 1000, None, parts)
    assert sorted(i for batch in batches for i in batch) == [0, 1, 2, 3, 4, 5]
    kinds = [{(lengths[i], parts[i]) for i in batch} for batch in batches]
    assert sorted(map(len, kinds)) == [1, 1, 1, 1]
    assert [len(batch) for batch in plan(lengths, 8, None, parts)] == [1] * 4 + [2]


def test_lengths(tiny: TinyLate) -> None:
    with load(tiny) as late:
        assert (late.query_length, late.document_length, late.max_seq_length) == (QUERY_LENGTH, DOCUMENT_LENGTH, 12)
        before = late.fingerprint_of(task="query"), late.fingerprint
        late.query_length = 10
        assert late.encode_query("cat").shape == (10, DIM)  # what is filled up is filled up to it
        assert late.fingerprint_of(task="query") != before[0]
        assert late.fingerprint == before[1]
        late.max_seq_length = 5
        assert (late.query_length, late.document_length) == (10, 5)
        assert late.encode_document(LONG).shape[0] <= 5
        again = pickle.loads(pickle.dumps(late))
        assert (again.query_length, again.document_length) == (10, 5)
        assert again.fingerprint == late.fingerprint
        with pytest.raises(InputError, match="at most 32"):
            late.query_length = 33
        with pytest.raises(InputError, match="above the 3 special tokens"):
            late.document_length = 3
    with load(tiny) as late:
        assert late.encode_query("cat", max_length=6).shape == (6, DIM)
        assert late.encode_query("cat", max_length=30).shape == (QUERY_LENGTH, DIM)  # cutting fills nothing up
        with pytest.raises(TruncationError, match=r"1 of 2 texts are longer than 8 tokens, the first at index 1"):
            late.encode_query(["cat", LONG], on_overflow="error")
        late.encode_query(["cat", LONG])
        assert late.truncated == 1


def test_width(tiny: TinyLate) -> None:
    with load(tiny, truncate_dim=4) as late:
        close(late.encode_document(TEXTS), tiny.vectors(TEXTS, "document", 4))
        close(late.encode_document(TEXTS, truncate_dim=DIM), tiny.vectors(TEXTS, "document"))
        close(late.encode_document(TEXTS, truncate_dim=2), tiny.vectors(TEXTS, "document", 2))
        assert late.encode_query([], truncate_dim=2).dim == 2
        assert late.represent(TEXTS, whole=True).colbert.dim == DIM  # type: ignore[union-attr]
        prints = {late.fingerprint_of(truncate_dim=width) for width in (None, 2, 4, DIM)}
        assert len(prints) == 3
        assert pickle.loads(pickle.dumps(late)).fingerprint == late.fingerprint
        with pytest.raises(InputError, match="truncate_dim must be a whole number from 1 to 6, got 7"):
            late.encode("cat", truncate_dim=7)


def test_a_model_that_does_not_normalize(tmp_path: Path) -> None:
    from trivec._model import manifest_file

    model = write_tiny_late(tmp_path / "model")
    manifest = manifest_file.read(model.folder)
    routes = {
        name: replace(route, multi=replace(route.multi, normalize=False))  # type: ignore[type-var]
        for name, route in manifest.routes.items()
    }
    (model.folder / "trivec.json").write_text(manifest_file.dumps(replace(manifest, routes=routes)))
    with load(model) as late:
        lengths = np.linalg.norm(late.encode_document(TEXTS).vectors, axis=1)
        assert np.abs(lengths - 1).max() > 0.1
        close(late.encode_document(TEXTS, normalize_embeddings=True), model.vectors(TEXTS, "document"))
        assert late.fingerprint_of(normalize_embeddings=True) != late.fingerprint


def test_scores(tiny: TinyLate, late: LateEncoder) -> None:
    queries, documents = late.encode_query(TEXTS[:3]), late.encode_document(TEXTS)
    expected = tiny.scores(TEXTS[:3], TEXTS)
    np.testing.assert_allclose(late.similarity(queries, documents), expected, rtol=1e-5)
    tensors = [torch.from_numpy(np.array(row)) for row in documents]
    np.testing.assert_allclose(late.similarity(list(queries), tensors), expected, rtol=1e-5)
    np.testing.assert_allclose(late.similarity(queries[0], documents[1]), expected[:1, 1:2], rtol=1e-5)
    pairwise = late.similarity_pairwise(queries, documents[:3])
    np.testing.assert_allclose(pairwise, np.diagonal(expected[:, :3]), rtol=1e-5)
    late.similarity_fn_name = "meanmaxsim"
    np.testing.assert_allclose(late.similarity(queries, documents), expected / QUERY_LENGTH, rtol=1e-5)
    with pytest.raises(InputError, match=r"'cosine' is not one of maxsim, meanmaxsim"):
        late.similarity_fn_name = "cosine"
    with pytest.raises(InputError, match=r"embeddings2: expected MultiVectors, a list of \(t, D\) arrays"):
        late.similarity(queries, np.zeros(3))
    with pytest.raises(InputError, match=r"dim 6 and 2"):
        late.similarity(queries, late.encode_document(TEXTS, truncate_dim=2))


def test_ranks(tiny: TinyLate, late: LateEncoder) -> None:
    scores = tiny.scores(["the red cat"], TEXTS)[0]
    order = np.argsort(-scores, kind="stable")
    ranked = late.rank("the red cat", iter(TEXTS), top_k=4, return_documents=True)
    assert [row["corpus_id"] for row in ranked] == order[:4].tolist()
    assert [row["text"] for row in ranked] == [TEXTS[i] for i in order[:4]]
    np.testing.assert_allclose([row["score"] for row in ranked], scores[order[:4]], rtol=1e-5)
    kept = late.encode_document(TEXTS)
    assert late.rank("the red cat", kept) == late.rank("the red cat", TEXTS)
    assert asyncio.run(late.arank("the red cat", TEXTS)) == late.rank("the red cat", TEXTS)
    for arguments, message in (
        ((3, TEXTS), "expected a query that is a text, got int"),
        (("cat", "dog"), r"expected a list of documents, got one text. Type: rank\(query, \[document\]\)"),
        (("cat", TEXTS, 0), "top_k must be a positive integer or None, got 0"),
        (("cat", kept, 1, True), "return_documents is for texts, and these are vectors"),
        (("cat", ["a", 3]), "got int at index 1"),
    ):
        with pytest.raises(InputError, match=message):
            late.rank(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_value": None}, "output_value None: this model gives 'token_embeddings' alone"),
        ({"token_pooling": 2}, "token_pooling is not built yet"),
        ({"task": "passage"}, r"task 'passage' is no route of this model. Expected one of \['document', 'query'\]"),
        ({"prompt_name": "none"}, "prompt_name 'none' is none of"),
        ({"max_length": 2}, "max_seq_length must be a whole number above the 3 special tokens"),
        ({"batch_size": 0}, "batch_size must be a positive integer"),
    ],
)
def test_options_that_cannot_be_used(late: LateEncoder, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        late.encode(TEXTS, **options)
    with pytest.raises(InputError, match=message):
        late.check_call(**options)


def test_one_side_alone(tiny: TinyLate) -> None:
    with load(tiny, task="query") as late:
        assert (late.query_length, late.max_seq_length) == (QUERY_LENGTH, QUERY_LENGTH)
        close(late.encode(TEXTS), tiny.vectors(TEXTS, "query"))
        with pytest.raises(InputError, match=r"task 'document' is no route"):
            late.encode_document(TEXTS)


def test_by_openvino(tiny: TinyLate) -> None:
    """What is seen is an input of the graph there as well, of lone queries and of many."""
    with trivec.load(tiny.folder, kind="late", engine="openvino", threads=2) as late:
        assert late.engine == "openvino"
        close(late.encode_query(TEXTS * 20), tiny.vectors(TEXTS * 20, "query"))
        close(late.encode_document(TEXTS), tiny.vectors(TEXTS, "document"))
        np.testing.assert_allclose(late.encode_query("cat"), tiny.vectors(["cat"], "query")[0], rtol=0, atol=1e-6)


def test_processes(tiny: TinyLate) -> None:
    with load(tiny, threads=1) as late:
        late.query_length = 9
        alone = late.encode_query(TEXTS * 4)
        with late.start_multi_process_pool(["cpu", "cpu"]) as pool:
            close(late.encode_query(TEXTS * 4, pool=pool, chunk_size=5), list(alone))
        assert late.truncated == 8  # here, and there


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"similarity": "cosine"}, "similarity 'cosine' is none of maxsim, meanmaxsim"),
        ({"family": "dense", "similarity": "dot"}, "heads that a dense model does not have"),
        ({"dim": 5}, "gives 6 numbers, not 5"),
    ],
)
def test_a_folder_that_contradicts_itself(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=message):
        load(write_tiny_late(tmp_path / "model", **changes))


@pytest.mark.parametrize(
    "expansion", [replace(UNSEEN, length=0), replace(UNSEEN, token_id=-1), replace(UNSEEN, length=1 << 20)]
)
def test_an_expansion_out_of_range(expansion: Expansion, tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"multi\.expansion\.length must be up to 8,192|has ids below 0"):
        load(write_tiny_late(tmp_path / "model", expansion))


def test_ids_in_the_place_of_texts(tiny: TinyLate, late: LateEncoder) -> None:
    """They get the mark and the expansion as texts do."""
    reader = late.route("query").tokenizer
    tokens = reader.of_ids([[8, 9], [2, 8, 3]])
    assert [tokens.of(row).tolist() for row in range(2)] == [
        [2, 22, 8, 9, 3, 0, 0, 0],
        [2, 22, 8, 3, 0, 0, 0, 0],
    ]
    assert tokens.second is not None
    assert tokens.second.tolist() == [5, 4]
    with pytest.raises(InputError, match=r"token ids at index 1 begin with the mark \[22\].*ids of the text alone"):
        reader.of_ids([[8, 9], [2, 22, 8, 3]])
