"""Work in threads, and without them."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from trivec._system.background import Background


def here(number: int) -> tuple[int, int]:
    return number, threading.get_ident()


def test_threads_do_the_work_in_order() -> None:
    with Background(2, "trivec-test") as threads:
        found = list(threads.map(here, range(20)))
        assert threads.submit(here, 7).result()[0] == 7
        running = {thread.ident for thread in threading.enumerate() if thread.name.startswith("trivec-test")}
    assert [number for number, _ in found] == list(range(20))
    assert {thread for _, thread in found} <= running
    assert 1 <= len(running) <= 2


def test_the_caller_does_it_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    with Background(2, "trivec-test") as threads:
        expected = [(number, threading.get_ident()) for number in range(5)]
        assert list(threads.map(here, range(5))) == expected
        assert threads.future(lambda: 1) is None


def test_an_error_is_its_own_and_what_follows_is_left_undone() -> None:
    gate, done = threading.Event(), []

    def work(number: int) -> int:
        if number == 0:
            raise RuntimeError("of the work, and not of the threads")
        gate.wait(240)
        done.append(number)
        return number

    with Background(1, "trivec-test") as threads:
        results = threads.map(work, range(9))
        with pytest.raises(RuntimeError, match="of the work"):
            next(results)
        gate.set()
    assert done in ([], [1])  # at most what had begun


def test_no_thread_starts_before_there_is_work(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Executor(ThreadPoolExecutor):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            made.append(arguments)
            super().__init__(*arguments, **options)

    monkeypatch.setattr("trivec._system.background.ThreadPoolExecutor", Executor)
    with Background(3, "trivec-test") as threads:
        assert made == []
        assert threads.submit(sum, [1, 2]).result() == 3
        assert made == [(3,)]
