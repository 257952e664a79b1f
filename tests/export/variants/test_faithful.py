"""A graph is measured by the gate's texts and bounds before it is written: an export's int8 goes on where it fails."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tests.support.architectures import make

import trivec
from trivec_export._variants import write
from trivec_export._variants.int8.quantize import Quantized


def damaged(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The same with one of its matrices turned round."""
    made = onnx.ModelProto()
    made.CopyFrom(graph)
    matrix = next(t for t in made.graph.initializer if len(t.dims) == 2 and t.dims[0] == t.dims[1])
    matrix.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(numpy_helper.to_array(matrix).T), matrix.name))
    return made


def test_what_has_the_last_word_on_int8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[str, bool] = {}
    real: Callable[..., Quantized] = vars(write)["quantize"]

    def asked(graph: onnx.ModelProto, *args: Any, **options: Any) -> Quantized:
        made = real(graph, *args, **options)
        tried = {"float": graph, "damaged": damaged(graph), "int8": made.model}
        said.update({name: options["accept"](model) for name, model in tried.items()})
        return made

    monkeypatch.setattr(write, "quantize", asked)
    checkpoint = make("bert", tmp_path / "bert")
    trivec.export(checkpoint, tmp_path / "out", precision=["fp32", "int8"], max_texts=64, quiet=True)
    assert said == {"float": True, "damaged": False, "int8": True}
