"""Graphs with their weights beside them."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from trivec_export._graph.save import save_graph


def test_weights_lie_beside_the_graph_aligned_and_the_model_is_left_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape).astype(np.float32) for shape in ((3, 5), (5, 700), (700, 600))]
    names = ["w0", "w1", "w2"]
    nodes = [helper.make_node("MatMul", [f"x{i}", name], [f"x{i + 1}"]) for i, name in enumerate(names)]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("x3", TensorProto.FLOAT, [None, 600])],
        [numpy_helper.from_array(w, n) for w, n in zip(weights, names, strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    before = model.SerializeToString()
    files = save_graph(model, tmp_path / "model.onnx")
    assert model.SerializeToString() == before
    assert [f.name for f in files] == ["model.onnx", "model.onnx.data"]
    assert files[0].stat().st_size < 2000
    saved = onnx.load(files[0], load_external_data=False)
    offsets = [int({e.key: e.value for e in t.external_data}["offset"]) for t in saved.graph.initializer[1:]]
    assert offsets[0] % 64 == 0
    assert offsets[1] % 4096 == 0
    session = ort.InferenceSession(str(files[0]), providers=["CPUExecutionProvider"])
    x = rng.normal(size=(2, 3)).astype(np.float32)
    np.testing.assert_allclose(
        session.run(None, {"x0": x})[0], x @ weights[0] @ weights[1] @ weights[2], rtol=1e-4, atol=1e-3
    )
    onnx.checker.check_model(str(files[0]))
