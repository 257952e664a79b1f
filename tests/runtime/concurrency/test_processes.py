"""`encode` in several processes, under sentence-transformers' names: equal to `encode` in one."""

import inspect
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sentence_transformers import SentenceTransformer
from tests.support.tiny_heads import hybrid, random_logits, random_weights, splade
from tests.support.tiny_model import TinyModel

import trivec
from trivec import DenseEncoder, InputError, TruncationError
from trivec._concurrency.pool import WorkerPool

TEXTS = [f"{'cat ' * (n % 7)}dog {'red ' * (n % 3)}" for n in range(41)] + ["", "a " * 40]


@pytest.fixture(scope="module")
def started(
    tiny_model: "TinyModel", tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[DenseEncoder, WorkerPool]]:
    """The tiny model and two processes of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIVEC_HOME", str(tmp_path_factory.mktemp("home")))
        encoder: DenseEncoder = trivec.load(tiny_model.folder, device="cpu", threads=1)
        with encoder, encoder.start_multi_process_pool(["cpu", "cpu"]) as pool:
            yield encoder, pool


def test_parameters_are_those_of_sentence_transformers() -> None:
    for name in ("start_multi_process_pool", "stop_multi_process_pool", "encode_multi_process"):
        ours, theirs = (inspect.signature(getattr(c, name)).parameters for c in (DenseEncoder, SentenceTransformer))
        given = [(p.name, p.default) for p in theirs.values()]
        assert [(p.name, p.default) for p in ours.values()] == given, name


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunk_size": 4, "batch_size": 2},
        {"normalize_embeddings": True, "truncate_dim": 5, "chunk_size": 10},
        {"precision": "ubinary"},
        {"prompt_name": "query"},
        {"prompt": "the red "},
    ],
)
def test_rows_of_a_pool(started: tuple[DenseEncoder, WorkerPool], options: dict[str, Any]) -> None:
    encoder, pool = started
    alone = {name: value for name, value in options.items() if name != "chunk_size"}
    found = encoder.encode(iter(TEXTS), pool=pool, **options)
    expected = encoder.encode(TEXTS, **alone)
    assert_array_equal(found, expected)
    assert found.dtype == expected.dtype
    assert_array_equal(encoder.encode_query(TEXTS, pool=pool), encoder.encode_query(TEXTS))


def test_one_text_no_text_and_token_embeddings(started: tuple[DenseEncoder, WorkerPool]) -> None:
    encoder, pool = started
    assert_array_equal(encoder.encode("cat", pool=pool), encoder.encode("cat"))
    assert encoder.encode([], pool=pool).shape == (0, 12)
    assert encoder.encode([], pool=pool, precision="binary").dtype == np.int8
    tokens: Any = encoder.encode(TEXTS, pool=pool, output_value="token_embeddings")
    for found, expected in zip(tokens, encoder.encode(TEXTS, output_value="token_embeddings"), strict=True):
        assert_array_equal(found, expected)
    assert encoder.encode(TEXTS, pool=pool, convert_to_tensor=True).shape == (43, 12)


def test_the_older_name(started: tuple[DenseEncoder, WorkerPool]) -> None:
    encoder, pool = started
    found = encoder.encode_multi_process(TEXTS, pool, "query", None, 8, 6, False, "int8", True)
    assert_array_equal(found, encoder.encode(TEXTS, "query", precision="int8", normalize_embeddings=True))


def test_texts_that_are_cut_count_here(started: tuple[DenseEncoder, WorkerPool]) -> None:
    encoder, pool = started
    before = encoder.truncated
    encoder.encode(["cat", "dog " * 30, "a", "red " * 50], pool=pool, chunk_size=1)
    assert encoder.truncated == before + 2
    list(encoder.encode_iter(["cat", "dog " * 30], pool=pool, window=1))
    assert encoder.truncated == before + 3
    with pytest.raises(TruncationError, match="in the chunk that starts at text 2: 1 of 2 texts"):
        encoder.encode(["cat", "dog", "a", "red " * 50], pool=pool, chunk_size=2, on_overflow="error")


@pytest.mark.parametrize("window", [1, 7, 100])
def test_a_stream_through_a_pool(started: tuple[DenseEncoder, WorkerPool], window: int) -> None:
    encoder, pool = started
    found = list(encoder.encode_iter(iter(TEXTS), window=window, pool=pool, normalize_embeddings=True))
    assert [len(block) for block in found] == [len(TEXTS[i : i + window]) for i in range(0, len(TEXTS), window)]
    assert_array_equal(np.concatenate(found), encoder.encode(TEXTS, normalize_embeddings=True))


def test_a_stream_that_breaks_or_is_left_leaves_the_pool_usable(started: tuple[DenseEncoder, WorkerPool]) -> None:
    encoder, pool = started

    def texts() -> Iterator[str]:
        yield from TEXTS[:10]
        raise KeyError("the source broke")

    rows: list[Any] = []
    with pytest.raises(KeyError, match="the source broke"):
        rows.extend(encoder.encode_iter(texts(), window=4, pool=pool))
    assert [len(block) for block in rows] == [4, 4, 2]
    stream: Any = encoder.encode_iter((f"cat {n}" for n in range(10_000)), window=4, pool=pool)
    assert len(list(islice(stream, 2))) == 2
    stream.close()
    assert_array_equal(encoder.encode(TEXTS, pool=pool), encoder.encode(TEXTS))


def test_what_is_refused(started: tuple[DenseEncoder, WorkerPool], tiny_folder: Path) -> None:
    encoder, pool = started
    with pytest.raises(InputError, match="pool must come from start_multi_process_pool"):
        encoder.encode(["a"], pool={"input": 1, "output": 2, "processes": []})  # type: ignore[call-overload]
    with pytest.raises(InputError, match="prompt_name 'nope' is none"):
        encoder.encode(["a"], "nope", pool=pool)
    with pytest.raises(InputError, match="expected strings, got int at index 1"):
        encoder.encode(["a", 3], pool=pool)  # type: ignore[list-item]
    with pytest.raises(InputError, match="prompt_name 'nope' is none"):
        encoder.encode_iter(["a"], prompt_name="nope", pool=pool)
    with pytest.raises(InputError, match="device 'tpu' is not known"):
        encoder.encode(["a"], device=["tpu"])
    other = trivec.load(tiny_folder, device="cpu", threads=1, precision="int8")
    with pytest.raises(InputError, match="this pool was started from another encoder"):
        other.encode(["a"], pool=pool)


def test_a_list_of_devices_starts_processes_for_the_call(started: tuple[DenseEncoder, WorkerPool]) -> None:
    encoder, _ = started
    assert_array_equal(encoder.encode(TEXTS, device=["cpu", "cpu"], chunk_size=5), encoder.encode(TEXTS))
    assert_array_equal(
        np.concatenate(list(encoder.encode_iter(TEXTS, window=9, device=["cpu"]))), encoder.encode(TEXTS)
    )


def test_a_pool_stops_by_sentence_transformers_name(tiny_folder: Path) -> None:
    with trivec.load(tiny_folder, device="cpu", threads=1) as encoder:
        pool = encoder.start_multi_process_pool(["cpu"])
        encoder.stop_multi_process_pool(pool)
        with pytest.raises(trivec.WorkerError, match="closed"):
            encoder.encode(["a"], pool=pool)


def test_sparse_and_hybrid_rows(tiny_model: "TinyModel", tmp_path: Path) -> None:
    terms = splade(tmp_path / "splade", tiny_model, random_logits(), random_weights())
    with trivec.load(terms.folder, device="cpu", threads=1) as encoder:
        rows, expected = (
            encoder.encode(TEXTS, device=["cpu", "cpu"], max_active_dims=5),
            encoder.encode(TEXTS, max_active_dims=5),
        )
        assert_array_equal(rows.to_dense(), expected.to_dense())
        assert encoder.encode([], device=["cpu"]).shape == (0, encoder.dim)
    several = hybrid(tmp_path / "hybrid", tiny_model)
    encoder = trivec.load(several.folder, device="cpu", threads=1)
    with encoder.start_multi_process_pool(["cpu"]) as pool:
        found = encoder.encode(TEXTS, return_colbert_vecs=True, pool=pool, chunk_size=9)
        wanted = encoder.encode(TEXTS, return_colbert_vecs=True)
        assert_array_equal(found.dense, wanted.dense)
        assert_array_equal(found.sparse.to_dense(), wanted.sparse.to_dense())
        for row in range(len(TEXTS)):
            assert_array_equal(found.colbert[row], wanted.colbert[row])
        one = encoder.encode("cat", pool=pool)
        assert one.dense.shape == wanted.dense[0].shape
