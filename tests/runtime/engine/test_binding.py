"""Runs through buffers and one thread give what plain runs give, bit for bit; on the CPU's memory here."""

import gc
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.testing import assert_array_equal
from onnx import TensorProto, helper, numpy_helper
from tests.support.fake_engine import CUDA, machine

import trivec
from trivec._engine.devices import Device, Provider
from trivec._engine.io_binding import BoundSession
from trivec._engine.session import Session

SHAPES = [(1, 1), (3, 7), (2, 5), (5, 13), (1, 129), (31, 3), (3, 7)]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("graph") / "two.onnx", ("b", "s"))


def write(path: Path, dims: tuple[str, str]) -> Path:
    """ids (B, S) -> tokens (B, S, 6) float32, half (B, S, 6) float16, sums (B, 6) of a shape that no one states."""
    table = np.random.default_rng(3).normal(size=(50, 6)).astype(np.float32)
    axes = numpy_helper.from_array(np.array([1], dtype=np.int64), "axes")
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["tokens"]),
        helper.make_node("Cast", ["tokens"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("ReduceSum", ["tokens", "axes"], ["sums"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["b", "s"])],
        [
            helper.make_tensor_value_info("tokens", TensorProto.FLOAT, [*dims, 6]),
            helper.make_tensor_value_info("half", TensorProto.FLOAT16, [*dims, 6]),
            helper.make_tensor_value_info("sums", TensorProto.FLOAT, ["rows", 6]),
        ],
        [numpy_helper.from_array(table, "table"), axes],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def ids(shape: tuple[int, int]) -> Any:
    return np.random.default_rng(sum(shape)).integers(0, 50, shape)  # (B, S)


def open_real(graph: Path) -> Any:
    return ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"])


def test_bit_for_bit_at_shapes_that_grow_and_shrink(graph: Path) -> None:
    session = open_real(graph)
    bound = BoundSession(ort, session, ("cpu", 0))
    kept = []
    for shape in SHAPES:
        for names in (("tokens",), ("half", "tokens"), ("sums",), ("sums", "half", "tokens")):
            feeds = {"input_ids": ids(shape)}
            found, wanted = bound.run(feeds, names), session.run(list(names), feeds)
            kept.append((found, wanted))
    for found, wanted in kept:  # later runs have not written over them
        for a, b in zip(found, wanted, strict=True):
            assert a.dtype == b.dtype
            assert_array_equal(a, b)


def test_a_graph_that_names_its_dimensions_wrongly(tmp_path: Path) -> None:
    session = open_real(write(tmp_path / "wrong.onnx", ("s", "b")))
    bound = BoundSession(ort, session, ("cpu", 0))
    for shape in SHAPES:
        feeds = {"input_ids": ids(shape)}
        assert_array_equal(bound.run(feeds, ("tokens",))[0], session.run(["tokens"], feeds)[0])


def test_bound_sessions_encode_as_others(graph: Path) -> None:
    plain = Session([graph], device=Device("cpu"), threads=1)
    bound = Session([graph], device=Device("cpu"), threads=1, bind=True)
    assert (plain.ahead, bound.ahead, bound.lanes) == (1, 2, 1)
    for shape in SHAPES:
        found, wanted = (s.run_all(ids(shape), ("half", "sums")) for s in (bound, plain))
        for a, b in zip(found, wanted, strict=True):
            assert a.dtype == np.float32
            assert_array_equal(a, b)


def test_one_thread_runs_the_device(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, run = set(), BoundSession.run

    def recording(self: BoundSession, *arguments: Any) -> Any:
        names.add(threading.current_thread().name)
        return run(self, *arguments)

    monkeypatch.setattr(BoundSession, "run", recording)
    session = Session([graph], device=Device("cpu"), threads=1, bind=True)
    found: dict[int, Any] = {}
    threads = [
        threading.Thread(target=lambda k=k: found.update({k: session.run(ids((k, 4)), "tokens")})) for k in range(1, 9)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=600)
    assert names == {"trivec-device_0"}
    for k in range(1, 9):
        assert_array_equal(found[k], open_real(graph).run(["tokens"], {"input_ids": ids((k, 4))})[0])


# ---- CUDA graphs -----------------------------------------------------------------------------------------------------


def test_a_shape_that_comes_again_is_captured(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = machine(monkeypatch)
    providers = [Provider(CUDA, {"enable_cuda_graph": "1"})]
    session = Session([graph], device=Device("cuda"), threads=1, providers=providers)
    wanted = open_real(graph)
    for shape in [(2, 8), (2, 8), (4, 8), (2, 8), (4, 8), (4, 8)]:
        found = session.run(ids(shape), "tokens")
        assert_array_equal(found, wanted.run(["tokens"], {"input_ids": ids(shape)})[0])
    assert [graph_id for *_, graph_id in engine.runs] == ["-1", "1", "-1", "1", "2", "2"]
    session.run(ids((2, 8)), "sums")  # its shape is not known before the run, so it has no fixed buffer
    assert engine.runs[-1][2] == "-1"


def test_without_the_option_nothing_is_captured(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = machine(monkeypatch)
    session = Session([graph], device=Device("cuda"), threads=1)
    for _ in range(3):
        session.run(ids((2, 8)), "tokens")
    assert {graph_id for *_, graph_id in engine.runs} == {""}


# ---- work in flight --------------------------------------------------------------------------------------------------


@pytest.fixture
def bound(graph: Path) -> Iterator[Session]:
    yield Session([graph], device=Device("cpu"), threads=1, bind=True)


def test_results_come_in_order(bound: Session) -> None:
    def work(n: int) -> Any:
        time.sleep(0.002 * (n % 3))
        return n, bound.run(ids((1 + n % 4, 3)), "tokens")

    for n, (index, found) in enumerate(bound.overlapped(work, range(17))):
        assert index == n
        assert_array_equal(found, bound.run(ids((1 + n % 4, 3)), "tokens"))


def test_the_host_works_while_the_device_runs(bound: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    run, met, first = BoundSession.run, threading.Barrier(2), iter([True])

    def slow(self: BoundSession, *arguments: Any) -> Any:
        if next(first, False):
            met.wait(timeout=240)  # ends only if the second item's host work begins before the first run ends
        return run(self, *arguments)

    monkeypatch.setattr(BoundSession, "run", slow)

    def work(n: int) -> Any:
        if n == 1:
            met.wait(timeout=240)
        return bound.run(ids((2, 3)), "tokens")

    assert len(list(bound.overlapped(work, range(4)))) == 4


def test_no_more_is_under_way_than_said(bound: Session) -> None:
    started: list[int] = []

    def work(n: int) -> int:
        started.append(n)
        return n

    results = bound.overlapped(work, range(50))
    assert next(results) == 0
    time.sleep(0.05)
    assert len(started) <= 1 + bound.ahead
    results.close()
    assert len(started) <= 1 + bound.ahead


def test_an_error_comes_in_its_turn(bound: Session) -> None:
    def work(n: int) -> int:
        if n == 2:
            raise ValueError("two")
        return n

    found: list[int] = []
    with pytest.raises(ValueError, match="two"):
        found.extend(bound.overlapped(work, range(9)))
    assert found == [0, 1]
    assert list(bound.overlapped(lambda n: n, range(5))) == [0, 1, 2, 3, 4]


def test_closing_ends_the_threads(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> None:
    before = set(threading.enumerate())  # another test's may still be there

    def mine() -> int:
        new = set(threading.enumerate()) - before
        return sum(t.name.startswith(("trivec-device", "trivec-host")) for t in new)

    machine(monkeypatch)
    encoder = trivec.load(tiny_folder, device="cuda", precision="fp32")
    encoder.encode(["a cat", "a dog sat"])
    assert mine() >= 1
    encoder.close()
    gc.collect()
    wait(lambda: mine() == 0)
    assert mine() == 0


def wait(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not done() and time.monotonic() < deadline:
        time.sleep(0.01)
