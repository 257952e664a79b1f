"""The queue of rows: shares, order, deadlines, errors and counts, by an engine and a clock that the tests hold."""

import threading
from collections.abc import Hashable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from trivec._concurrency.row_queue import RowQueue
from trivec._concurrency.turn import Turn
from trivec._concurrency.window import DeadlineError, Job, Speed, in_turn, shared_out
from trivec._tokens.batch import Tokens
from trivec._vectors.heads import HybridVectors

SOON = 120.0  # seconds that stand for ever
POISON, BOMB = 666, 667


class Engine:
    """Makes (N, 2) of rows: the sum of a row's ids, and its length. Its runs are written down; the gate holds them."""

    def __init__(self) -> None:
        self.runs: list[tuple[Hashable, list[list[int]]]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        self.threads: list[int] = []
        self.clock = Clock()
        self.token_seconds = 1e-4

    def run_rows(self, tokens: Tokens, key: Hashable, /) -> tuple[HybridVectors, npt.NDArray[np.bool_]]:
        rows = [tokens.of(row).tolist() for row in range(len(tokens.truncated))]
        self.runs.append((key, rows))
        self.threads.append(threading.get_ident())
        self.entered.release()
        assert self.gate.wait(SOON)
        self.clock.now += self.token_seconds * len(tokens.ids)
        if any(BOMB in row for row in rows):
            raise MemoryError("a bomb")
        dense = np.array([[sum(row), len(row)] for row in rows], dtype=np.float32)
        return HybridVectors(dense), np.array([POISON not in row for row in rows])


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Seen:
    """What a queue tells."""

    def __init__(self) -> None:
        self.windows: list[tuple[int, int, float]] = []
        self.jobs: list[Job] = []
        self.finished = threading.Semaphore(0)

    def window(self, rows: int, tokens: int, seconds: float) -> None:
        self.windows.append((rows, tokens, seconds))

    def done(self, jobs: list[Job]) -> None:
        self.jobs += jobs
        for _ in jobs:
            self.finished.release()

    def wait(self, jobs: int) -> None:
        for _ in range(jobs):
            assert self.finished.acquire(timeout=SOON)


class Setup:
    def __init__(self, *, least: int = 10, most: int = 10, turn: Turn | None = None) -> None:
        self.engine, self.seen = Engine(), Seen()
        self.clock = self.engine.clock
        self.turn = turn or Turn()
        self.queue = RowQueue(self.engine, self.seen, turn=self.turn, least=least, most=most, clock=self.clock)

    def job(self, *lengths: int, key: Hashable = "k", first: int = 1, timeout: float = 100.0) -> Job:
        """Rows of these lengths, none like another."""
        rows = [[first + place, *[0] * (length - 1)] for place, length in enumerate(lengths)]
        return Job(Tokens.of_ids(rows), key, self.clock.now, self.clock.now + timeout)

    def behind(self, *jobs: Job) -> list[list[int]]:
        """Submit them while a first row runs; the first ids of the windows that follow it."""
        self.engine.gate.clear()
        self.queue.submit(self.job(1, first=9000))
        assert self.engine.entered.acquire(timeout=SOON)
        for job in jobs:
            self.queue.submit(job)
        self.engine.gate.set()
        self.seen.wait(1 + sum(not job.gone for job in jobs))
        return [[row[0] for row in rows] for _, rows in self.engine.runs[1:]]


@pytest.fixture
def setup() -> Setup:
    return Setup()


def test_a_job_comes_back_whole_and_in_order(setup: Setup) -> None:
    job = setup.job(4, 4, 4, 4, 4)
    windows = setup.behind(job)
    assert windows == [[1, 2], [3, 4], [5]]
    assert job.vectors().dense.tolist() == [[1, 4], [2, 4], [3, 4], [4, 4], [5, 4]]  # type: ignore[union-attr]
    assert job.finite().all()
    assert [window[:2] for window in setup.seen.windows[1:]] == [(2, 8), (2, 8), (1, 4)]
    assert [window[2] for window in setup.seen.windows[1:]] == pytest.approx([8e-4, 8e-4, 4e-4])


def test_a_short_one_beside_a_bulk_is_in_the_next_window(setup: Setup) -> None:
    bulk = setup.job(*[2] * 30, first=100)
    short = setup.job(2, first=1)
    windows = setup.behind(bulk, short)
    assert 1 in windows[0]
    assert setup.seen.jobs[1] is short
    assert windows[0][:4] == [100, 101, 102, 103]  # the rest of the window is the oldest one's
    assert sum(map(len, windows)) == 31


def test_shares_are_equal_and_the_rest_is_the_oldest_ones(setup: Setup) -> None:
    jobs = [setup.job(*[1] * 30, first=100), setup.job(*[1] * 30, first=200), setup.job(1, first=1)]
    found = {job.tokens.ids[0]: stop - first for job, first, stop in shared_out(jobs, 12)}
    assert found == {100: 7, 200: 4, 1: 1}


def test_more_requests_than_a_window_holds_are_served_from_the_oldest_on(setup: Setup) -> None:
    jobs = [setup.job(3, first=10 * place) for place in range(1, 6)]
    assert setup.behind(*jobs) == [[10, 20, 30], [40, 50]]


def test_a_row_beyond_the_budget_runs_alone_and_at_most_every_second_window(setup: Setup) -> None:
    long = setup.job(50, 50, 50, first=100)
    short = setup.job(*[8] * 3, first=1)
    assert setup.behind(long, short) == [[100], [1], [101], [2], [102], [3]]


def test_a_window_always_has_a_row(setup: Setup) -> None:
    assert [(first, stop) for _, first, stop in shared_out([setup.job(11, 1)], 10)] == [(0, 1)]
    assert shared_out([], 10) == []


def test_a_key_splits_windows_and_the_keys_take_turns(setup: Setup) -> None:
    bulk = setup.job(*[5] * 6, key="a", first=100)
    other = setup.job(*[5] * 4, key="b", first=1)
    setup.behind(bulk, other)
    assert [key for key, _ in setup.engine.runs[1:]] == ["a", "b", "a", "b", "a"]


def test_who_has_waited_half_the_time_goes_first(setup: Setup) -> None:
    old = Job(Tokens.of_ids([[1]]), "slow", 0.0, 100.0)
    young = Job(Tokens.of_ids([[2]]), "k", 10.0, 20.0)
    assert in_turn([old, young], 12.0, {}) == [old]
    assert in_turn([old, young], 12.0, {"slow": 3, "k": 2}) == [young]
    assert in_turn([old, young], 16.0, {"slow": 3, "k": 4}) == [young]
    same = Job(Tokens.of_ids([[2]]), "slow", 10.0, 20.0)
    assert in_turn([old, same], 16.0, {}) == [same, old]
    assert in_turn([], 0.0, {}) == []


def test_rows_whose_time_is_up_do_not_run(setup: Setup) -> None:
    setup.engine.gate.clear()
    setup.queue.submit(setup.job(1))
    assert setup.engine.entered.acquire(timeout=SOON)
    late, later = setup.job(2, timeout=5.0, first=50), setup.job(2, first=60)
    setup.queue.submit(late)
    setup.queue.submit(later)
    setup.clock.now += 5.0
    setup.engine.gate.set()
    setup.seen.wait(3)
    assert isinstance(late.error, DeadlineError)
    assert [rows for _, rows in setup.engine.runs[1:]] == [[[60, 0]]]
    assert setup.queue.waiting_tokens == setup.queue.waiting_texts == 0


def test_rows_of_who_hung_up_do_not_run(setup: Setup) -> None:
    setup.engine.gate.clear()
    setup.queue.submit(setup.job(1))
    assert setup.engine.entered.acquire(timeout=SOON)
    gone, stays = setup.job(4, 4, first=50), setup.job(2, first=60)
    setup.queue.submit(gone)
    setup.queue.submit(stays)
    assert (setup.queue.waiting_texts, setup.queue.waiting_tokens) == (3, 10)
    setup.queue.drop(gone)
    setup.queue.drop(gone)  # twice is once
    assert (setup.queue.waiting_texts, setup.queue.waiting_tokens) == (1, 2)
    setup.engine.gate.set()
    setup.seen.wait(2)
    assert [rows for _, rows in setup.engine.runs[1:]] == [[[60, 0]]]
    assert gone not in setup.seen.jobs


def test_who_hangs_up_in_the_middle_costs_no_further_window(setup: Setup) -> None:
    job = setup.job(*[5] * 10)
    setup.engine.gate.clear()
    setup.queue.submit(job)
    assert setup.engine.entered.acquire(timeout=SOON)
    setup.queue.drop(job)
    setup.engine.gate.set()
    setup.queue.close()
    assert len(setup.engine.runs) == 1
    assert setup.seen.jobs == []


def test_equal_rows_of_a_window_run_once() -> None:
    setup = Setup(least=100, most=100)
    one = Job(Tokens.of_ids([[1, 2], [3], [1, 2]]), "k", 0.0, 1e9)
    other = Job(Tokens.of_ids([[3], [4]]), "k", 0.0, 1e9)
    setup.behind(one, other)
    assert setup.engine.runs[1][1] == [[1, 2], [3], [4]]
    assert one.vectors().dense.tolist() == [[3, 2], [3, 1], [3, 2]]  # type: ignore[union-attr]
    assert other.vectors().dense.tolist() == [[3, 1], [4, 1]]  # type: ignore[union-attr]
    assert setup.seen.windows[1][:2] == (3, 7)


def test_a_bad_row_fails_alone_and_nothing_runs_twice() -> None:
    setup = Setup(least=100, most=100)
    bad = Job(Tokens.of_ids([[1], [POISON]]), "k", 0.0, 1e9)
    good = Job(Tokens.of_ids([[2], [3]]), "k", 0.0, 1e9)
    setup.behind(bad, good)
    assert len(setup.engine.runs) == 2
    assert bad.finite().tolist() == [True, False]
    assert good.finite().tolist() == [True, True]


def test_an_error_of_the_engine_meets_who_caused_it() -> None:
    setup = Setup(least=100, most=100)
    bad = Job(Tokens.of_ids([[BOMB]]), "k", 0.0, 1e9)
    jobs = [setup.job(1, first=2), bad, setup.job(1, first=3)]
    setup.behind(*jobs)
    assert isinstance(bad.error, MemoryError)
    assert [job.error for job in jobs if job is not bad] == [None, None]
    assert len(setup.engine.runs) == 1 + 1 + 3  # together, then each request by itself
    setup.queue.submit(last := setup.job(1))  # and the thread lives
    setup.seen.wait(1)
    assert last.is_done


def test_a_lone_short_job_runs_in_its_callers_thread(setup: Setup) -> None:
    job = setup.job(3)
    assert setup.queue.run_here(job)
    assert job.is_done
    assert setup.engine.threads == [threading.get_ident()]
    assert setup.seen.jobs == [job]
    assert setup.queue.seconds() == 0.0


def test_a_long_one_or_one_that_meets_company_does_not(setup: Setup) -> None:
    setup.queue.seed(1000, 1.0)  # 1,000 tokens a second: 5 ms are 5 tokens
    assert not setup.queue.run_here(setup.job(6))
    setup.turn.take()  # another model of this device runs
    assert not setup.queue.run_here(setup.job(1))
    setup.turn.give()
    assert setup.queue.run_here(setup.job(1))
    setup.engine.gate.clear()
    setup.queue.submit(setup.job(1))
    assert setup.engine.entered.acquire(timeout=SOON)
    assert not setup.queue.run_here(setup.job(1))
    setup.engine.gate.set()
    setup.seen.wait(2)


def test_a_request_is_let_in_by_what_it_would_wait(setup: Setup) -> None:
    setup.queue.seed(1000, 1.0)
    assert setup.queue.admit(1_000_000, 30.0) == 0.0  # nobody waits: a device with nothing to do refuses nobody
    assert setup.queue.admit(1, 30.0) == pytest.approx(1000.001)
    setup.queue.release(1_000_000)
    assert setup.queue.admit(10_000, 30.0) == 0.0
    assert setup.queue.admit(20_000, 30.0) == 0.0
    assert setup.queue.admit(10, 30.0) == pytest.approx(30.01)


def test_models_of_one_device_wait_for_each_other() -> None:
    one = Setup()
    other = Setup(turn=one.turn)
    for setup in (one, other):
        setup.queue.seed(1000, 1.0)
    one.queue.admit(40_000, 30.0)
    assert other.queue.admit(1, 30.0) == pytest.approx(40.001)
    one.engine.gate.clear()
    one.queue.submit(one.job(1))
    assert one.engine.entered.acquire(timeout=SOON)
    other.queue.submit(other.job(1))
    assert not other.engine.entered.acquire(timeout=0.05)  # it waits for the cores, whichever model runs
    one.engine.gate.set()
    assert other.engine.entered.acquire(timeout=SOON)


def test_the_turn_goes_to_whoever_asked_first() -> None:
    turn, order = Turn(), []
    turn.take()
    threads = []
    for number in range(5):

        def work(number: int = number) -> None:
            turn.take()
            order.append(number)
            turn.give()

        threads.append(threading.Thread(target=work))
        threads[-1].start()
        while len(turn._asked) <= number:
            threading.Event().wait(0.001)
    assert not turn.take_if_free()
    turn.give()
    for thread in threads:
        thread.join(SOON)
    assert order == [0, 1, 2, 3, 4]
    assert turn.take_if_free()


def test_a_window_holds_what_the_model_runs_in_50_ms() -> None:
    setup = Setup(least=256, most=16384)
    for rate, budget in ((1_000, 256), (100_000, 5_000), (10_000_000, 16_384)):
        queue = RowQueue(setup.engine, setup.seen, turn=Turn(), least=256, most=16384, clock=setup.clock)
        queue.seed(rate, 1.0)
        assert queue.budget == budget
        assert queue.fits(budget)
        assert not queue.fits(budget + 1)


def test_the_speed_counts_a_run_by_its_tokens() -> None:
    speed = Speed()
    speed.add(4096, 0.1)
    assert speed.rate == pytest.approx(40_960)
    for _ in range(5):
        speed.add(8, 0.01)  # short ones, 800 a second, hardly move it
    assert speed.rate > 25_000
    for _ in range(20):
        speed.add(4096, 1.0)
    assert speed.rate == pytest.approx(4096, rel=0.05)


def test_a_window_that_takes_far_too_long_is_noticed(setup: Setup) -> None:
    assert not setup.queue.is_stuck()
    setup.engine.gate.clear()
    setup.queue.submit(setup.job(5))
    assert setup.engine.entered.acquire(timeout=SOON)
    setup.clock.now += 59.0
    assert not setup.queue.is_stuck()
    setup.clock.now += 2.0
    assert setup.queue.is_stuck()
    setup.engine.gate.set()
    setup.seen.wait(1)
    setup.queue.close()
    assert not setup.queue.is_stuck()


def test_closing_runs_what_waits(setup: Setup) -> None:
    jobs = [setup.job(4, 4, 4, first=10 * place) for place in range(3)]
    for job in jobs:
        setup.queue.submit(job)
    setup.queue.close()
    assert all(job.is_done for job in jobs)
    setup.queue.close()


def test_many_threads_get_their_own_rows() -> None:
    setup = Setup(least=64, most=64)
    jobs: list[Any] = []

    def work(start: int) -> None:
        for number in range(50):
            job = setup.job(3, 5, first=start + 10 * number)
            jobs.append(job)
            setup.queue.submit(job)

    threads = [threading.Thread(target=work, args=(100_000 * place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    setup.queue.close()
    assert len(jobs) == len(setup.seen.jobs) == 400
    for job in jobs:
        first = float(job.tokens.ids[0])
        assert job.vectors().dense.tolist() == [[first, 3], [first + 1, 5]]
    assert setup.queue.seconds() == 0.0
