"""What holds for any texts, whatever kind of encoder: tested on generated ones (hypothesis, derandomized).

TRIVEC_EXAMPLES=20000 takes so many of each property; the suite takes 200.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import trivec

GOLDEN = Path(__file__).parents[2] / "golden"
KINDS: dict[str, dict[str, Any]] = {
    "dense": {"precision": "fp32"},
    "dense int8": {"precision": "int8"},
    "splade": {},
    "hybrid": {},
    "static": {},
}
OPTIONS: dict[str, dict[str, Any]] = {"hybrid": {"return_colbert_vecs": True}}
EXACT = ("dense int8", "static")  # integers do not round by the batch; float32 products may in the last bit
generated = settings(
    max_examples=int(os.environ.get("TRIVEC_EXAMPLES", "200")),
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

words = st.lists(st.sampled_from(["the", "cat", "a", "red", "boat", "under", "unknown", "猫", "!"]), max_size=40)
text = st.one_of(
    words.map(" ".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=24),
    st.sampled_from(["", " ", "\n", "\0", "a" * 5000, "cat " * 3000, "\u202ecat\u0301", "🙂" * 50]),
)


@st.composite
def lists(draw: st.DrawFn) -> list[str]:
    """Texts of which some come again, in any order."""
    some = draw(st.lists(text, min_size=1, max_size=12))
    again = draw(st.lists(st.sampled_from(some), max_size=12))
    return draw(st.permutations(some + again))


class Opened:
    """Every kind, with one thread and with two, of which two batches run at a time."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack, self._found = stack, dict[tuple[str, int], Any]()

    def __call__(self, kind: str, threads: int = 1) -> Any:
        if (kind, threads) not in self._found:
            folder = GOLDEN / kind.partition(" ")[0]
            encoder = trivec.load(folder, device="cpu", threads=threads, **KINDS[kind])
            self._found[kind, threads] = self._stack.enter_context(encoder)
        return self._found[kind, threads]


@pytest.fixture(scope="module")
def opened() -> Iterator[Opened]:
    with ExitStack() as stack:
        yield Opened(stack)


def rows(vectors: Any) -> list[Any]:
    """A row for each text, as plain arrays."""
    if isinstance(vectors, np.ndarray):
        return list(vectors)
    if isinstance(vectors, trivec.SparseVectors):
        return list(vectors.to_dense())
    if isinstance(vectors, trivec.MultiVectors):
        return [np.asarray(row) for row in vectors]
    parts = [rows(part) for part in vectors.parts() if part is not None]
    return [list(row) for row in zip(*parts, strict=True)]


def assert_same(kind: str, found: Sequence[Any], expected: Sequence[Any]) -> None:
    assert len(found) == len(expected)
    for mine, other in zip(found, expected, strict=True):
        for a, b in zip(mine, other, strict=True) if isinstance(mine, list) else [(mine, other)]:
            if kind in EXACT:
                assert_array_equal(a, b)
            else:
                assert_allclose(a, b, rtol=1e-5, atol=2e-6)


def encoded(encoder: Any, kind: str, texts: Any, **options: Any) -> list[Any]:
    return rows(encoder.encode(texts, **OPTIONS.get(kind, {}), **options))


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_gives_what_each_text_gives_alone(kind: str, opened: Opened) -> None:
    """In its order, whatever the batch size and the number of threads; and counts what it cut."""

    @generated
    @given(lists(), st.integers(1, 40), st.sampled_from([1, 2]))
    def check(texts: list[str], batch_size: int, threads: int) -> None:
        encoder = opened(kind, threads)
        start = encoder.truncated
        alone = [encoded(encoder, kind, [text])[0] for text in texts]
        cut = encoder.truncated - start
        assert_same(kind, encoded(encoder, kind, texts, batch_size=batch_size), alone)
        assert encoder.truncated - start == 2 * cut
        assert_same(kind, encoded(encoder, kind, texts[::-1]), alone[::-1])

    check()


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_gives_what_the_list_gives(kind: str, opened: Opened) -> None:
    @generated
    @given(lists(), st.integers(1, 9), st.integers(1, 40))
    def check(texts: list[str], window: int, batch_size: int) -> None:
        encoder = opened(kind)
        start = encoder.truncated
        expected = encoded(encoder, kind, texts)
        cut = encoder.truncated - start
        options = {**OPTIONS.get(kind, {}), "window": window, "batch_size": batch_size}
        blocks = [rows(block) for block in encoder.encode_iter(iter(texts), **options)]
        assert [len(block) for block in blocks[:-1]] == [window] * (len(blocks) - 1)
        assert_same(kind, [row for block in blocks for row in block], expected)
        assert encoder.truncated - start == 2 * cut

    check()


@pytest.mark.parametrize("kind", ["dense", "splade", "hybrid", "static"])
def test_a_pool_gives_what_one_process_gives(kind: str, opened: Opened) -> None:
    encoder = opened(kind)
    pool = encoder.start_multi_process_pool(["cpu", "cpu"])
    try:

        @generated
        @given(lists(), st.sampled_from([None, 1, 3]))
        def check(texts: list[str], chunk_size: int | None) -> None:
            start = encoder.truncated
            expected = encoded(encoder, kind, texts)
            cut = encoder.truncated - start
            assert_same(kind, encoded(encoder, kind, texts, pool=pool, chunk_size=chunk_size), expected)
            assert encoder.truncated - start == 2 * cut

        check()
    finally:
        encoder.stop_multi_process_pool(pool)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batcher_gives_what_the_list_gives(kind: str, opened: Opened) -> None:
    encoder = opened(kind)
    with trivec.Batcher(encoder) as batcher, ThreadPoolExecutor(4) as threads:

        def one(text: str) -> Any:
            return batcher.encode(text, **OPTIONS.get(kind, {}))

        @generated
        @given(lists())
        def check(texts: list[str]) -> None:
            expected = encoded(encoder, kind, texts)
            assert_same(kind, [row(made) for made in threads.map(one, texts)], expected)

        check()


def row(made: Any) -> Any:
    """What was made of one text, as `rows` has it."""
    if isinstance(made, np.ndarray):
        return made
    if isinstance(made, trivec.SparseVector):
        return made.to_dense()
    return [row(part) for part in made.parts() if part is not None]
