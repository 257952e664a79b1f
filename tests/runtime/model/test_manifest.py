"""trivec.json: its exact bytes, its way back, and what is said of a wrong one."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trivec import ModelFormatError
from trivec._model.manifest import FORMAT, EncoderSpec, FileRef, Manifest, Pooling, Route, Step, Variant
from trivec._model.manifest_file import dumps, loads, read

SMALL = Manifest(
    family="dense",
    dim=4,
    encoders={
        "main": EncoderSpec(
            FileRef("tokenizer.json", 11, "aa"),
            8,
            None,
            {
                "fp32": Variant(
                    (FileRef("onnx/model.onnx", 22, "bb"), FileRef("onnx/model.onnx.data", 33, "cc")),
                    ("input_ids",),
                    "token_embeddings",
                    21,
                    gate={"cosine_min": 0.999995},
                )
            },
            special_ids=(2, 3),
        )
    },
    routes={"default": Route(steps=(Step("dense", "2_Dense", "tanh"), Step("normalize")))},
    default_route="default",
    prompts={"query": "Frage: ä"},
    source={"name": "a/b", "revision": None},
    tools={"trivec": "0.1"},
)

GOLDEN = """\
{
  "format": 1,
  "family": "dense",
  "dim": 4,
  "encoders": {
    "main": {
      "tokenizer": {
        "path": "tokenizer.json",
        "bytes": 11,
        "sha256": "aa"
      },
      "max_seq_length": 8,
      "max_positions": null,
      "variants": {
        "fp32": {
          "files": [
            {
              "path": "onnx/model.onnx",
              "bytes": 22,
              "sha256": "bb"
            },
            {
              "path": "onnx/model.onnx.data",
              "bytes": 33,
              "sha256": "cc"
            }
          ],
          "inputs": [
            "input_ids"
          ],
          "output": "token_embeddings",
          "opset": 21,
          "needs": [],
          "gate": {
            "cosine_min": 0.999995
          },
          "rungs": null,
          "layout": "rows"
        }
      },
      "truncation_side": "right",
      "lower_case": false,
      "special_ids": [
        2,
        3
      ],
      "add_special_tokens": true,
      "template": null,
      "attention": "fused",
      "cuda": null
    }
  },
  "routes": {
    "default": {
      "encoder": "main",
      "pooling": {
        "modes": [
          "mean"
        ],
        "include_prompt": true
      },
      "steps": [
        {
          "kind": "dense",
          "arrays": "2_Dense",
          "activation": "tanh",
          "residual": false,
          "epsilon": 1e-05
        },
        {
          "kind": "normalize",
          "arrays": "",
          "activation": "identity",
          "residual": false,
          "epsilon": 1e-05
        }
      ],
      "sparse": null,
      "multi": null,
      "score": null,
      "max_seq_length": null
    }
  },
  "default_route": "default",
  "prompts": {
    "query": "Frage: ä"
  },
  "default_prompt_name": null,
  "similarity": "cosine",
  "truncate_dim": null,
  "max_active_dims": null,
  "arrays": null,
  "name": null,
  "version": null,
  "card": null,
  "source": {
    "name": "a/b",
    "revision": null
  },
  "origins": [],
  "command": null,
  "tools": {
    "trivec": "0.1"
  }
}
"""


def changed(change: Callable[[dict[str, Any]], None]) -> str:
    data = json.loads(GOLDEN)
    change(data)
    return json.dumps(data)


def at(data: Any, path: str) -> Any:
    for key in path.split("."):
        data = data[int(key)] if isinstance(data, list) else data[key]
    return data


def put(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    parent, _, key = path.rpartition(".")

    def change(data: dict[str, Any]) -> None:
        target = at(data, parent) if parent else data
        if isinstance(target, list):
            target[int(key)] = value
        else:
            target[key] = value

    return change


def drop(path: str) -> Callable[[dict[str, Any]], None]:
    parent, _, key = path.rpartition(".")
    return lambda data: (at(data, parent) if parent else data).pop(key)


def test_golden_bytes() -> None:
    assert dumps(SMALL) == GOLDEN


def test_round_trip() -> None:
    assert loads(dumps(SMALL)) == SMALL
    assert loads(dumps(SMALL).encode()) == SMALL


def test_fields_with_defaults_may_be_left_out() -> None:
    data = json.loads(GOLDEN)
    for key in ("prompts", "similarity", "arrays", "tools", "source"):
        del data[key]
    manifest = loads(json.dumps(data))
    assert (manifest.prompts, manifest.similarity, manifest.arrays) == ({}, "cosine", None)


def test_unknown_fields_of_the_same_format_are_ignored() -> None:
    assert loads(changed(put("encoders.main.colour", "blue"))) == SMALL


def test_files_are_listed_once_each_and_only_of_the_variant() -> None:
    shared = FileRef("tokenizer.json", 11, "aa")
    variants = {p: Variant((FileRef(f"{p}.onnx"),)) for p in ("fp32", "int8")}
    both = {name: EncoderSpec(shared, None, None, variants) for name in ("main", "other")}
    manifest = Manifest("dense", 4, both, {"default": Route()}, "default", arrays=FileRef("arrays.npz"))
    assert [ref.path for ref in manifest.files("int8")] == ["tokenizer.json", "int8.onnx", "arrays.npz"]
    assert manifest.precisions() == ["fp32", "int8"]


def for_cuda(**changes: Any) -> str:
    """A manifest with an fp16 variant and a graph for CUDA over its weights, with some fields of that changed."""
    data = json.loads(GOLDEN)
    encoder = data["encoders"]["main"]
    weights = {"path": "onnx/model_fp16.onnx.data"}
    encoder["variants"]["fp16"] = {"files": [{"path": "onnx/model_fp16.onnx"}, weights], "needs": ["cuda"]}
    encoder["cuda"] = {
        "files": [{"path": "onnx/model_fp16_cuda.onnx"}, weights],
        "inputs": ["input_ids", "position_ids"],
        "output": "token_embeddings",
        "opset": 21,
        "needs": ["cuda"],
        "layout": "packed",
        **changes,
    }
    return json.dumps(data)


def test_a_graph_for_cuda_comes_with_fp16() -> None:
    manifest = loads(for_cuda())
    cuda = manifest.encoders["main"].cuda
    assert cuda is not None and (cuda.layout, cuda.needs, cuda.gate) == ("packed", ("cuda",), None)
    assert loads(dumps(manifest)) == manifest
    assert [ref.path for ref in manifest.files("fp16")] == [
        "tokenizer.json",
        "onnx/model_fp16.onnx",
        "onnx/model_fp16.onnx.data",
        "onnx/model_fp16_cuda.onnx",
    ]
    assert "onnx/model_fp16_cuda.onnx" not in [ref.path for ref in manifest.files("fp32")]
    assert manifest.precisions() == ["fp32", "fp16"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "rows"}, "encoders.main.cuda.layout is 'rows'; expected packed or padded."),
        ({"layout": "woven"}, "encoders.main.cuda.layout 'woven' is none of rows, packed, padded. Type: pip install"),
        ({"files": []}, "encoders.main.cuda.files is empty."),
        ({"inputs": []}, "encoders.main.cuda.inputs is empty."),
        ({"needs": []}, "encoders.main.cuda.needs is []; expected ['cuda']."),
        ({"files": [{"path": "../model.onnx"}]}, "the file path '../model.onnx' leaves the model folder."),
        ({"layout": 3}, "encoders.main.cuda.layout: expected str, got 3."),
    ],
)
def test_a_graph_for_cuda_that_is_wrong(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelFormatError, match=re.escape(message)):
        loads(for_cuda(**changes))


def test_a_graph_for_cuda_without_fp16() -> None:
    data = json.loads(for_cuda())
    del data["encoders"]["main"]["variants"]["fp16"]
    with pytest.raises(ModelFormatError, match="cuda is there without the fp16 variant whose weights it reads"):
        loads(json.dumps(data))


def test_variants_lie_in_rows() -> None:
    with pytest.raises(ModelFormatError, match=r"variants\.fp32\.layout is 'packed'; expected rows\."):
        loads(changed(put("encoders.main.variants.fp32.layout", "packed")))


def test_precisions_are_those_that_every_encoder_has() -> None:
    one = EncoderSpec(FileRef("t"), None, None, {p: Variant((FileRef(p),)) for p in ("int8", "fp16", "fp32")})
    two = EncoderSpec(FileRef("t"), None, None, {p: Variant((FileRef(p),)) for p in ("int8", "fp32")})
    assert Manifest("dense", 4, {"a": one, "b": two}, {}, None).precisions() == ["fp32", "int8"]


def test_a_manifest_from_the_future() -> None:
    with pytest.raises(ModelFormatError) as caught:
        loads(changed(put("format", FORMAT + 1)), "m/trivec.json")
    assert str(caught.value) == "m/trivec.json has format 3; this trivec reads up to 2. Type: pip install -U trivec"


def test_a_future_manifest_need_not_have_the_fields_of_today() -> None:
    with pytest.raises(ModelFormatError, match="pip install -U trivec"):
        loads('{"format": 99, "models": []}')


@pytest.mark.parametrize("text", ["", "{", "[1, 2", b"\xff\xfe{}"])
def test_no_json(text: str | bytes) -> None:
    with pytest.raises(ModelFormatError, match=r"^m/trivec\.json is not valid JSON \(.*Export the model again"):
        loads(text, "m/trivec.json")


@pytest.mark.parametrize("text", ["[]", "null", '"text"', "3", "{}", '{"format": "1"}', '{"format": true}'])
def test_json_that_is_no_manifest(text: str) -> None:
    with pytest.raises(ModelFormatError, match="has no integer field 'format', so it is not a trivec manifest"):
        loads(text)


@pytest.mark.parametrize(
    "path",
    [
        "family",
        "dim",
        "encoders",
        "routes",
        "default_route",
        "encoders.main.tokenizer",
        "encoders.main.max_seq_length",
        "encoders.main.variants",
        "encoders.main.tokenizer.path",
        "encoders.main.variants.fp32.files",
    ],
)
def test_a_missing_field_is_named(path: str) -> None:
    parent, _, key = path.rpartition(".")
    where = f"trivec.json.{parent}" if parent else "trivec.json"
    with pytest.raises(ModelFormatError) as caught:
        loads(changed(drop(path)))
    assert str(caught.value) == f"{where}: the field '{key}' is missing."


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("family", 3, "expected str, got 3."),
        ("dim", "4", 'expected int, got "4".'),
        ("dim", True, "expected int, got true."),
        ("dim", 4.5, "expected int, got 4.5."),
        ("prompts", ["query"], 'got ["query"].'),
        ("prompts.query", None, "expected str, got null."),
        ("encoders.main", [], "expected an object, got []."),
        ("encoders.main.lower_case", 1, "expected bool, got 1."),
        ("encoders.main.special_ids", 3, "got 3."),
        ("encoders.main.variants.fp32.opset", "21", 'expected int, got "21".'),
        ("encoders.main.tokenizer.bytes", [1], "expected int, got [1]."),
        ("routes.default.pooling.include_prompt", "yes", 'expected bool, got "yes".'),
        ("arrays", "arrays.npz", 'expected an object, got "arrays.npz".'),
    ],
)
def test_a_field_of_the_wrong_type_is_named(path: str, value: object, message: str) -> None:
    with pytest.raises(ModelFormatError) as caught:
        loads(changed(put(path, value)))
    assert str(caught.value).startswith(f"trivec.json.{path}: ")
    assert str(caught.value).endswith(message)


def test_an_item_of_a_list_is_named_by_its_index() -> None:
    with pytest.raises(ModelFormatError, match=r"^trivec\.json\.encoders\.main\.special_ids\[1\]: expected int"):
        loads(changed(put("encoders.main.special_ids.1", "x")))
    with pytest.raises(ModelFormatError, match=r"^trivec\.json\.routes\.default\.steps\[0\]\.epsilon: expected float"):
        loads(changed(put("routes.default.steps.0.epsilon", "small")))


def test_an_integer_is_a_float() -> None:
    assert loads(changed(put("routes.default.steps.0.epsilon", 1))).routes["default"].steps[0].epsilon == 1.0


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("routes", {}, "routes is empty"),
        ("dim", 0, "dim must be between 1 and 16,777,216, got 0"),
        ("dim", None, "dim must be between 1 and 16,777,216, got None"),
        ("default_route", "query", r"default_route 'query' is none of the routes \['default'\]"),
        ("default_prompt_name", "passage", r"default_prompt_name 'passage' is none of the prompts \['query'\]"),
        ("similarity", "euclid", "similarity 'euclid' is none of cosine, dot, euclidean, manhattan"),
        ("truncate_dim", 5, "truncate_dim must be between 1 and dim, got 5"),
        ("truncate_dim", 0, "truncate_dim must be between 1 and dim, got 0"),
        ("routes.default.encoder", "second", "routes.default.encoder 'second' is not in encoders"),
        ("routes.default.pooling.modes", [], "routes.default.pooling.modes is empty"),
        ("routes.default.pooling.modes", ["median"], "unknown pooling mode 'median'"),
        ("routes.default.steps.0.kind", "conv", "unknown step 'conv'"),
        ("routes.default.steps.0.activation", "swish", "unknown activation 'swish'"),
        ("encoders.main.variants", {"bf16": {"files": [{"path": "a"}]}}, "unknown variant 'bf16'"),
        ("encoders.main.variants.fp32.files", [], "variants.fp32.files is empty"),
        ("encoders.main.max_seq_length", 0, "encoders.main.max_seq_length must be positive or null, got 0"),
        ("encoders.main.truncation_side", "both", "truncation_side 'both' is neither left nor right"),
    ],
)
def test_values_out_of_range(path: str, value: object, message: str) -> None:
    with pytest.raises(ModelFormatError, match=f"^trivec.json: .*{message}"):
        loads(changed(put(path, value)))


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "onnx/../../x", "..", "a\\..\\..\\b", "C:/x", ""])
@pytest.mark.parametrize(
    "field", ["encoders.main.tokenizer.path", "encoders.main.variants.fp32.files.1.path", "arrays"]
)
def test_paths_stay_in_the_folder(field: str, path: str) -> None:
    with pytest.raises(ModelFormatError, match=r"leaves the model folder|a file path is empty"):
        loads(changed(put(field, {"path": path} if field == "arrays" else path)))


def test_a_path_of_a_hidden_or_nested_file_is_allowed() -> None:
    assert loads(changed(put("arrays", {"path": "more/.arrays..npz"}))).arrays == FileRef("more/.arrays..npz")


def test_read_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "trivec.json").write_bytes(b"\xff")
    with pytest.raises(ModelFormatError) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'trivec.json'} is not valid JSON")
    (tmp_path / "trivec.json").write_text(GOLDEN, encoding="utf-8")
    assert read(tmp_path) == SMALL


def test_pooling_may_be_absent() -> None:
    assert loads(changed(put("routes.default.pooling", None))).routes["default"].pooling is None
    assert loads(changed(drop("routes.default.pooling"))).routes["default"].pooling == Pooling()
