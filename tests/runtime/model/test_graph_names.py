"""Folders without a manifest whose graphs, or the files of whose weights, have names of their own."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from onnx import TensorProto, helper, numpy_helper
from tests.support.tiny_model import TinyModel

import trivec
from trivec import InputError, ModelFormatError, ModelNotFoundError, ProviderError
from trivec._inspect.info import info
from trivec._model.graph_file import read_weights

TEXTS = ["the cat sat", "", "a red boat " * 9]
Make = Callable[..., Path]


@pytest.fixture
def make(tiny_folder: Path, tmp_path: Path) -> Make:
    """A folder of JSON files, and a graph of the tiny model's under each name; "int8" in it has the other weights."""

    def build(*names: str, folder: str = "model") -> Path:
        root = tmp_path / folder
        root.mkdir()
        shutil.copy(tiny_folder / "tokenizer.json", root)
        (root / "config.json").write_text(json.dumps({"model_type": "bert", "max_position_embeddings": 16}))
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            onnx.save_model(graph(tiny_folder, "_int8" if "int8" in name else ""), path)
        return root

    return build


def graph(tiny_folder: Path, suffix: str = "") -> onnx.ModelProto:
    return onnx.load(tiny_folder / "onnx" / f"model{suffix}.onnx")


def load(folder: Path, **options: Any) -> trivec.DenseEncoder:
    encoder: trivec.DenseEncoder = trivec.load(folder, **{"device": "cpu", "threads": 1, "pooling": "mean", **options})
    return encoder


# ---- graphs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model_optimized.onnx", "onnx/model_O2.onnx", "onnx/Tiny-v1.onnx", "onnx/cpu/a.onnx"])
def test_the_only_graph_is_taken(make: Make, tiny_model: TinyModel, name: str) -> None:
    encoder = load(make(name))
    assert_allclose(encoder.encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)
    assert encoder.precision == "fp32"
    assert encoder.manifest.encoders["main"].variants["fp32"].files[0].path == name


def test_a_usual_name_goes_before_others(make: Make, tiny_model: TinyModel) -> None:
    folder = make("onnx/model.onnx", "onnx/model_int8_O2.onnx", "model_int8_best.onnx")
    assert_allclose(load(folder).encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)
    with pytest.raises(ModelNotFoundError) as caught:
        load(folder, precision="int8")
    assert "has no int8 variant; it has: fp32." in str(caught.value)
    assert str(caught.value).endswith(
        "or name another of its graphs (model_int8_best.onnx, onnx/model_int8_O2.onnx): "
        "file_name='model_int8_best.onnx'"
    )


def test_one_of_several_is_named(make: Make, tiny_model: TinyModel) -> None:
    folder = make("onnx/model_O3.onnx", "onnx/model_int8_O3.onnx")
    with pytest.raises(ModelNotFoundError) as caught:
        load(folder)
    assert str(caught.value) == (
        f"{folder} has graphs, and none of the usual names: onnx/model_O3.onnx, onnx/model_int8_O3.onnx. Type: "
        f"trivec.load({str(folder)!r}, file_name='onnx/model_O3.onnx')"
    )
    with pytest.raises(ModelNotFoundError, match=r"none of the name 'model_O4.onnx': onnx/model_O3.onnx, onnx/model_"):
        load(folder, file_name="model_O4.onnx")
    fp32 = load(folder, file_name="model_O3.onnx")
    other = load(folder, file_name="onnx/model_int8_O3.onnx")
    assert_allclose(fp32.encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)
    assert_allclose(other.encode(TEXTS), tiny_model.expected(TEXTS, "int8"), atol=1e-6)
    assert fp32.fingerprint != other.fingerprint
    assert other.load_arguments()["file_name"] == "onnx/model_int8_O3.onnx"
    again = pickle.loads(pickle.dumps(other))
    assert_array_equal(again.encode(TEXTS), other.encode(TEXTS))
    assert again.fingerprint == other.fingerprint


def test_a_name_wins_over_the_usual_ones(make: Make, tiny_model: TinyModel) -> None:
    folder = make("model.onnx", "onnx/model_int8_O3.onnx")
    encoder = load(folder, file_name="model_int8_O3.onnx")
    assert_allclose(encoder.encode(TEXTS), tiny_model.expected(TEXTS, "int8"), atol=1e-6)


def test_a_manifest_names_its_graphs(tiny_folder: Path) -> None:
    with pytest.raises(InputError, match=r"file_name='model.onnx' is for models without a trivec.json"):
        trivec.load(tiny_folder, file_name="model.onnx")


def with_types(model: onnx.ModelProto, kind: int) -> tuple[onnx.ModelProto, Any]:
    """The table (V, D) in another number type, in a graph's constant, and the numbers that the graph makes of it."""
    table = next(tensor for tensor in model.graph.initializer if tensor.name == "table")
    values = numpy_helper.to_array(table)  # (V, D)
    model.graph.initializer.remove(table)
    if kind == TensorProto.FLOAT16:
        stored = values.astype(np.float16)
        steps = [helper.make_node("Cast", ["stored"], ["table"], to=TensorProto.FLOAT)]
        values = stored.astype(np.float32)
    else:
        zero = 128 if kind == TensorProto.UINT8 else 0
        stored = (np.round(values * 30).clip(-127, 127) + zero).astype(np.uint8 if zero else np.int8)
        model.graph.initializer.append(numpy_helper.from_array(np.array(1 / 30, np.float32), "scale"))
        model.graph.initializer.append(numpy_helper.from_array(np.array(zero, stored.dtype), "zero"))
        steps = [helper.make_node("DequantizeLinear", ["stored", "scale", "zero"], ["table"])]
        values = (stored.astype(np.float32) - zero) * np.float32(1 / 30)
    steps.insert(0, helper.make_node("Constant", [], ["stored"], value=numpy_helper.from_array(stored)))
    for i, node in enumerate(steps):
        model.graph.node.insert(i, node)
    return model, values


@pytest.mark.parametrize("kind", [TensorProto.INT8, TensorProto.UINT8])
def test_the_precision_is_that_of_the_weights(make: Make, tiny_model: TinyModel, kind: int) -> None:
    folder = make()
    (folder / "onnx").mkdir()
    model, table = with_types(graph(tiny_model.folder), kind)
    onnx.save_model(model, folder / "onnx" / "model_O4.onnx")
    encoder = load(folder)
    assert encoder.precision == "int8"
    weight = tiny_model.weights["fp32"][1]
    expected = [np.tanh(table[tiny_model.ids(text)] @ weight).mean(0) for text in TEXTS]
    assert_allclose(encoder.encode(TEXTS), expected, atol=1e-5)
    with pytest.raises(ModelNotFoundError, match="has no fp32 variant; it has: int8"):
        load(folder, precision="fp32")
    assert "  int8" in info(str(folder))


def test_half_precision_is_no_more_for_a_cpu_than_under_its_usual_name(make: Make, tiny_model: TinyModel) -> None:
    folder = make()
    model, _ = with_types(graph(tiny_model.folder), TensorProto.FLOAT16)
    onnx.save_model(model, folder / "small.onnx")
    with pytest.raises(ProviderError, match="fp16 is not run on cpu"):
        load(folder)


# ---- the file of a graph ---------------------------------------------------------------------------------------------


def test_weights_in_branches_functions_and_other_shapes(tmp_path: Path) -> None:
    """What the onnx package finds external, in every place that a tensor can have."""
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["y"], value=_external("c", [2, 3], TensorProto.FLOAT, "branch.bin"))],
        "inner",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
    )
    body = [helper.make_node("Constant", [], ["z"], value=_external("f", [4], TensorProto.FLOAT, "function.bin"))]
    function = helper.make_function("own", "F", [], ["z"], body, [helper.make_opsetid("", 17)])
    outer = helper.make_graph(
        [helper.make_node("If", ["x"], ["o"], then_branch=inner, else_branch=inner)],
        "outer",
        [],
        [],
        [_external("w", [300, 2], TensorProto.FLOAT16, "a/w.bin"), _external("v", [7], TensorProto.INT8, "a/w.bin")],
    )
    model = helper.make_model(outer, functions=[function], producer_name="x" * 300)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    found = read_weights(tmp_path / "m.onnx")
    assert set(found.locations) == {"branch.bin", "a/w.bin", "function.bin"}
    assert found.precision == "fp16"


def _external(name: str, dims: list[int], kind: int, location: str) -> TensorProto:
    tensor = TensorProto(name=name, dims=dims, data_type=kind, data_location=TensorProto.EXTERNAL)
    for key, value in (("offset", "0"), ("location", location), ("length", "24")):
        tensor.external_data.add(key=key, value=value)
    return tensor


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x3a\xff\xff\xff\xff\x0f", b"\x08", 40 * b"\x80"])
def test_what_is_no_graph_has_no_weights(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    assert read_weights(tmp_path / "m.onnx") == ("fp32", ())


# ---- external data ---------------------------------------------------------------------------------------------------

Save = Callable[[onnx.ModelProto, Path], None]


def in_one_file(model: onnx.ModelProto, path: Path) -> None:
    onnx.save_model(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)


def in_a_folder(model: onnx.ModelProto, path: Path) -> None:
    (path.parent / "parts").mkdir()
    onnx.save_model(model, path, save_as_external_data=True, location="parts/w.bin", size_threshold=0)


def in_a_file_a_tensor(model: onnx.ModelProto, path: Path) -> None:
    onnx.save_model(model, path, save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=0)


SAVED: dict[Save, set[str]] = {
    in_one_file: {"onnx/weights.bin"},
    in_a_folder: {"onnx/parts/w.bin"},
    in_a_file_a_tensor: {"onnx/table", "onnx/weight"},
}


@pytest.mark.parametrize("save", SAVED)
def test_weights_in_files_of_other_names(make: Make, tiny_model: TinyModel, save: Save) -> None:
    folder = make()
    (folder / "onnx").mkdir()
    save(graph(tiny_model.folder), folder / "onnx" / "model.onnx")
    encoder = load(folder)
    assert_allclose(encoder.encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)
    before = encoder.fingerprint
    refs = encoder.manifest.encoders["main"].variants["fp32"].files
    assert {ref.path for ref in refs} == {"onnx/model.onnx"} | SAVED[save]
    (path, *_) = (folder / name for name in SAVED[save])
    numbers = np.frombuffer(path.read_bytes(), dtype=np.float32)
    path.write_bytes((numbers * 2).tobytes())  # the graph's own file is the same
    other = load(folder)
    assert abs(other.encode(TEXTS[0]) - tiny_model.expected(TEXTS[:1])[0]).max() > 0.01
    assert other.fingerprint != before
    path.unlink()
    with pytest.raises(ModelFormatError, match=f"onnx/model.onnx has weights in {path.relative_to(folder)}, which is"):
        load(folder)


def test_weights_do_not_lie_outside_of_the_model(make: Make, tiny_model: TinyModel) -> None:
    folder = make()
    model = graph(tiny_model.folder)
    in_one_file(model, folder / "model.onnx")
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        tensor.external_data[0].value = "../weights.bin"
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    shutil.move(folder / "weights.bin", folder.parent)
    with pytest.raises(ModelFormatError, match="leaves the model folder"):
        load(folder)
