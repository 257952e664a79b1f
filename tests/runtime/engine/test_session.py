"""What a session is opened with: options that a caller may change, and a profile."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.testing import assert_allclose
from onnx import TensorProto, helper, numpy_helper
from tests.support.fake_engine import machine

from trivec._engine.devices import Device
from trivec._engine.open_session import DISABLED_OPTIMIZERS
from trivec._engine.session import Session

WIDTH = 16


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """Ids (B, S) to the normalized sum of two tables' rows (B, S, W), which onnxruntime would fuse."""
    rng = np.random.default_rng(0)
    tables = [rng.normal(size=(50, WIDTH)).astype(np.float32) for _ in range(2)]
    ones = np.ones(WIDTH, dtype=np.float32)
    constants = {"a": tables[0], "b": tables[1], "scale": ones, "bias": 0 * ones}
    nodes = [
        helper.make_node("Gather", ["a", "input_ids"], ["x"]),
        helper.make_node("Gather", ["b", "input_ids"], ["y"]),
        helper.make_node("Add", ["x", "y"], ["sum"]),
        helper.make_node("LayerNormalization", ["sum", "scale", "bias"], ["tokens"], axis=-1),
    ]
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["b", "s"])],
        [helper.make_tensor_value_info("tokens", TensorProto.FLOAT, ["b", "s", WIDTH])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    path = tmp_path / "graph.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def ids(shape: tuple[int, int]) -> Any:
    return np.random.default_rng(sum(shape)).integers(0, 50, shape)  # (B, S)


def operators(session: Session) -> set[str]:
    """What a session's profiles have seen run."""
    events = [event for file in session.end_profiling() for event in json.loads(file.read_text(encoding="utf-8"))]
    return {event["args"]["op_name"] for event in events if event.get("cat") == "Node" and "op_name" in event["args"]}


def test_a_cpus_session_leaves_add_and_norm_apart(graph: Path, tmp_path: Path) -> None:
    session = Session([graph], device=Device("cpu"), threads=1, profile=tmp_path / "run")
    fused = Session(
        [graph],
        device=Device("cpu"),
        threads=1,
        profile=tmp_path / "fused",
        options=lambda options: options.add_session_config_entry(DISABLED_OPTIMIZERS, ""),
    )
    assert_allclose(session.run(ids((2, 5)), "tokens"), fused.run(ids((2, 5)), "tokens"), atol=1e-5)
    assert operators(session) == {"Gather", "Add", "LayerNormalization"}
    assert operators(fused) == {"Gather", "SkipLayerNormalization"}


def test_cuda_fuses_what_it_can(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    seen: list[Any] = []
    Session([graph], device=Device("cuda"), threads=1, options=seen.append)
    with pytest.raises(RuntimeError, match="disable_specified_optimizers"):
        seen[0].get_session_config_entry(DISABLED_OPTIMIZERS)


def test_options_are_changed_after_trivec_has_set_them_and_of_the_lanes_too(graph: Path) -> None:
    seen: list[tuple[int, bool]] = []

    def change(options: Any) -> None:
        seen.append((options.intra_op_num_threads, options.enable_mem_pattern))
        options.enable_mem_pattern = True

    session = Session([graph], device=Device("cpu"), threads=2, options=change)
    run = lambda each, shape: each.run(ids(shape), "tokens")  # noqa: E731
    found = list(session.side_by_side(run, [(1, 3), (2, 3), (3, 3)]))
    assert [rows.shape for rows in found] == [(1, 3, WIDTH), (2, 3, WIDTH), (3, 3, WIDTH)]
    assert seen == [(2, False), (1, False)]
    assert session._session.get_session_options().enable_mem_pattern


def test_profiles_of_a_session_and_of_its_lanes(graph: Path, tmp_path: Path) -> None:
    session = Session([graph], device=Device("cpu"), threads=2, profile=tmp_path / "run")
    session.run(ids((2, 5)), "tokens")
    list(session.side_by_side(lambda each, shape: each.run(ids(shape), "tokens"), [(1, 3), (2, 3)]))
    files = session.end_profiling()
    assert [file.parent for file in files] == [tmp_path, tmp_path]
    assert [file.name.startswith(name) for file, name in zip(files, ("run_", "run-lanes_"), strict=True)] == [True] * 2
    runs = [sum(e["name"] == "model_run" for e in json.loads(file.read_text(encoding="utf-8"))) for file in files]
    assert runs == [1, 2]


def test_without_a_profile_there_are_no_files(graph: Path) -> None:
    assert Session([graph], device=Device("cpu"), threads=1).end_profiling() == []
