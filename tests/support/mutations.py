"""Random changes of a model folder, such as somebody who means harm, or a bad disk, would make."""

import io
import json
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from trivec._model.integrity import sha256

Change = Callable[[random.Random, Path], str]
"""Changes a folder; says what it did."""
_NUMBERS = (0, 1, -1, 2, 255, 2**31 - 1, 2**31, -(2**31), 2**32, 2**62, 2**63 - 1, 2**63, -(2**63), 2**64, 10**30)
_STRINGS = (
    *("", ".", "..", "/", "../x", "/etc/passwd", "C:\\x", "..\\x", "a\0b", "\ud800", "x" * 300, "é" * 3000, "\n"),
    *("mean", "cls", "fp32", "int8", "onnx/model.onnx", "tokenizer.json", "trivec.json", "query", "default", "main"),
)
_PATTERNS = (
    "(a+)+$",
    "(a|a)*?$",
    "(?:a*)*b",
    "(",
    "(?=a)*",
    "",
    ".",
    "\\G",
    "(?<=a)",
    "[[:alpha:]]*?$",
    "(?i)s+",
    "\\p{L}+",
)
_NESTED = 5000
_LARGE = 1 << 20


def change_folder(rng: random.Random, folder: Path) -> list[str]:
    """Make one to four changes; in most cases the manifest then tells the new sizes and digests, so that they count."""
    done = [rng.choice(CHANGES)(rng, folder) for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4)))]
    if rng.random() < 0.8:
        done.append(sign(folder))
    return done


def _files(folder: Path, *suffixes: str) -> list[Path]:
    """Regular files that end so, not through links."""
    found = (p for p in sorted(folder.rglob("*")) if p.is_file() and not p.is_symlink())
    return [path for path in found if not suffixes or path.suffix in suffixes]


# ---- JSON ------------------------------------------------------------------------------------------------------------


def _value(rng: random.Random) -> Any:
    kind = rng.randrange(8)
    if kind < 2:
        return rng.choice(_NUMBERS)
    if kind < 4:
        return rng.choice(_STRINGS)
    return rng.choice((None, True, False, [], {}, 1e308, 1e-320, float("nan"), float("inf"), [[]], {"": {}}, [1], "1"))


def _nodes(value: Any) -> list[tuple[Any, Any]]:
    """Every place of a JSON value: what holds it, and its key there."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        item = waiting.pop()
        for key in list(item) if isinstance(item, dict) else range(len(item)):
            found.append((item, key))
            if isinstance(item[key], dict | list):
                waiting.append(item[key])
    return found


def _json(rng: random.Random, folder: Path) -> str:
    """One place of a JSON file gets another value, goes, or comes from another place."""
    files = _files(folder, ".json")
    if not files:
        return "no JSON"
    path = rng.choice(files)
    try:
        value = json.loads(path.read_bytes())
        nodes = _nodes(value)
    except (ValueError, RecursionError, TypeError):
        return "JSON is broken already"
    if not nodes:
        return "empty JSON"
    holder, key = rng.choice(nodes)
    done = rng.randrange(5)
    if done == 0:
        del holder[key]
    elif done == 1:
        other, place = rng.choice(nodes)
        holder[key] = json.loads(json.dumps(other[place]))
    elif done == 2 and isinstance(holder, dict):
        holder[rng.choice(_STRINGS)] = holder.pop(key)
    elif done == 3 and isinstance(holder[key], list):
        holder[key] = holder[key] * rng.choice((2, 3, 1000)) if len(holder[key]) < 50 else []
    else:
        holder[key] = _value(rng)
    path.write_text(json.dumps(value), encoding="utf-8", errors="surrogatepass")
    return f"JSON {path.name}: {('drop', 'copy', 'rename', 'repeat', 'set')[done]} {key!r:.60}"


def _json_text(rng: random.Random, folder: Path) -> str:
    """A JSON file's text gets what no parsed value can be: depth, keys twice, numbers without end."""
    files = _files(folder, ".json")
    if not files:
        return "no JSON"
    path = rng.choice(files)
    text = path.read_text(encoding="utf-8", errors="replace")
    places = [i for i, letter in enumerate(text) if letter in ":,["] or [0]
    place = rng.choice(places) + 1
    deep = rng.choice((100, _NESTED, 200_000))
    more = rng.choice(
        ("[" * deep, '{"a":' * deep, "[" * deep + "]" * deep, '"a":1,"a":2,', "9" * 5000, "-", "NaN", "\0", "\\")
    )
    path.write_text(text[:place] + more + text[place:], encoding="utf-8")
    return f"text of {path.name}: {more[:12]!r} x {len(more)} at {place}"


def _tokenizer(rng: random.Random, folder: Path) -> str:
    """A tokenizer's model, steps or ids become others."""
    files = [path for path in _files(folder, ".json") if "tokenizer" in path.name or path.name == "query.json"]
    if not files:
        return "no tokenizer"
    path = rng.choice(files)
    try:
        value = json.loads(path.read_bytes())
        vocabulary = value["model"]["vocab"]
        match rng.randrange(6):
            case 0:
                value["pre_tokenizer"] = {
                    "type": "Split",
                    "pattern": {"Regex": rng.choice(_PATTERNS)},
                    "behavior": rng.choice(("Isolated", "Removed", "MergedWithNext")),
                    "invert": rng.random() < 0.5,
                }
            case 1:
                value["normalizer"] = {
                    "type": "Replace",
                    "pattern": {"Regex": rng.choice(_PATTERNS)},
                    "content": rng.choice(_STRINGS[:10]),
                }
            case 2:
                vocabulary[rng.choice(list(vocabulary))] = rng.choice(_NUMBERS)
            case 3:
                value["model"] |= {
                    "unk_token": rng.choice(("", "nobody", None)),
                    "type": rng.choice(("BPE", "WordPiece")),
                }
            case 4:
                value["truncation"] = {"max_length": rng.choice(_NUMBERS), "strategy": "LongestFirst", "stride": 0}
                value["truncation"]["direction"] = rng.choice(("Left", "Right"))
            case _:
                value["post_processor"]["single"] = [
                    {"SpecialToken": {"id": "nobody", "type_id": rng.choice(_NUMBERS)}}
                ]
        path.write_text(json.dumps(value), encoding="utf-8")
    except (ValueError, KeyError, TypeError, IndexError, RecursionError, AttributeError):
        return "the tokenizer is broken already"
    return f"tokenizer {path.name}"


# ---- binary files ----------------------------------------------------------------------------------------------------


def _bytes(rng: random.Random, folder: Path) -> str:
    """Bytes of any file are changed, cut, repeated, or come from another place."""
    files = _files(folder)
    if not files:
        return "no files"
    path = rng.choice(files)
    data = bytearray(path.read_bytes())
    at = rng.randrange(len(data) + 1)
    size = rng.choice((1, 2, 4, 8, 64, 1000))
    match rng.randrange(6):
        case 0:
            data[at : at + 1] = bytes([rng.randrange(256)])
        case 1:
            data[at : at + size] = rng.choice((b"\0", b"\xff", b"\x80", b"\x7f")) * size
        case 2:
            del data[at:]
        case 3:
            data[at:at] = data[max(0, at - size) : at] * rng.choice((1, 10, 100))
        case 4:
            data[at : at + size] = rng.choice(files).read_bytes()[:size]
        case _:
            wide = rng.choice((2, 4, 8))
            number = rng.choice(_NUMBERS) & ((1 << 8 * wide) - 1)
            data[at : at + wide] = number.to_bytes(wide, rng.choice(("little", "big")))
    path.write_bytes(data)
    return f"bytes of {path.name} at {at}"


def _graph(rng: random.Random, folder: Path) -> str:
    """A graph's nodes, weights or external data become others."""
    files = _files(folder, ".onnx")
    if not files:
        return "no graph"
    path = rng.choice(files)
    try:
        model = onnx.load_model_from_string(path.read_bytes())
        said = rng.choice((_change_weights, _change_nodes, _change_nodes))(rng, model)
        path.write_bytes(model.SerializeToString())
    except Exception as error:  # noqa: BLE001 - of an earlier change: protobuf has errors of its own
        return f"the graph is broken already: {type(error).__name__}"
    return f"graph {path.name}: {said}"


def _change_weights(rng: random.Random, model: onnx.ModelProto) -> str:
    tensor = rng.choice(model.graph.initializer)
    match rng.randrange(3):
        case 0:
            dims = [rng.choice(_NUMBERS[:12]) for _ in range(rng.randrange(5))]
            del tensor.dims[:]
            tensor.dims.extend(dims)
            return f"dims {dims}"
        case 1:
            tensor.data_type = rng.randrange(30)
            return f"data_type {tensor.data_type}"
        case _:
            tensor.data_location = 1
            del tensor.external_data[:]
            values = {"location": rng.choice(_STRINGS[:9]), "offset": str(rng.choice(_NUMBERS)), "length": "48"}
            for key, value in values.items():
                tensor.external_data.add(key=key, value=value.encode("utf-8", "replace").decode())
            return f"external data {values}"


def _change_nodes(rng: random.Random, model: onnx.ModelProto) -> str:
    graph = model.graph
    node = rng.choice(graph.node)
    match rng.randrange(8):
        case 0:
            node.domain = rng.choice(("nobody", "com.microsoft", "ai.onnx.ml"))
            return f"domain {node.domain}"
        case 1:
            node.op_type = rng.choice(
                ("If", "Loop", "Nothing", "Cast", "Reshape", "Concat", "Identity", "Tile", "Expand")
            )
            return f"op {node.op_type}"
        case 2:
            others = "nobody", "", node.output[0], graph.initializer[0].name
            node.input[rng.randrange(len(node.input))] = rng.choice(others)
            return "input"
        case 3:
            del graph.node[rng.randrange(len(graph.node))]
            return "a node less"
        case 4:
            model.opset_import[0].version = rng.choice((0, 1, 7, 999, -1))
            return "opset"
        case 5:
            attribute = node.attribute.add(name=rng.choice(("axis", "to", "body")), type=2)
            attribute.i = rng.choice(_NUMBERS[:12])
            return f"attribute {attribute.name}"
        case 6:
            given = rng.choice([*graph.input, *graph.output])
            given.name = rng.choice(("nobody", "input_ids", "token_type_ids", "sentence_embedding", "token_embeddings"))
            return f"name {given.name}"
        case _:
            shape = rng.choice([*graph.input, *graph.output]).type.tensor_type
            shape.elem_type = rng.choice((0, 1, 6, 7, 8, 10, 99))
            for dim in shape.shape.dim:
                dim.dim_value = rng.choice(_NUMBERS[:12])
            return "shape of an input or output"


def _arrays(rng: random.Random, folder: Path) -> str:
    """arrays.npz says other sizes, is compressed, or has an array twice."""
    files = _files(folder, ".npz")
    if not files:
        return "no arrays"
    path = rng.choice(files)
    try:
        with zipfile.ZipFile(path) as archive:
            found = {name: archive.read(name) for name in archive.namelist()}
    except Exception as error:  # noqa: BLE001 - of an earlier change
        return f"the arrays are broken already: {type(error).__name__}"
    name = rng.choice(list(found) or ["x.npy"])
    shape = tuple(rng.choice(_NUMBERS) for _ in range(rng.randrange(4)))
    header = io.BytesIO()
    descr = rng.choice(("<f4", "<f8", "<f2", "<i4", "|O", "<U9", "|V7"))
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
    found[name] = header.getvalue() + rng.choice((b"", b"\0" * 96, b"\0" * 1_000_000))
    kind = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    with zipfile.ZipFile(path, "w", kind) as archive:
        for key, data in found.items():
            archive.writestr(key, data)
    return f"arrays: {name} is {descr} {shape}, {'stored' if kind == zipfile.ZIP_STORED else 'compressed'}"


def _safetensors(rng: random.Random, folder: Path) -> str:
    """The header of a .safetensors file says other things."""
    files = _files(folder, ".safetensors")
    if not files:
        return "no tensors"
    path = rng.choice(files)
    data = path.read_bytes()
    try:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        entry = header[rng.choice(list(header))]
        key = rng.choice(("shape", "data_offsets", "dtype"))
        entry[key] = (
            rng.choice(("F64", "I8", "BF16", "F8_E4M3")) if key == "dtype" else [rng.choice(_NUMBERS) for _ in "ab"]
        )
        text = json.dumps(header).encode()
    except (ValueError, KeyError, TypeError, IndexError):
        return "the tensors are broken already"
    length = rng.choice((len(text), len(text), len(text), *_NUMBERS)) & (2**64 - 1)
    path.write_bytes(length.to_bytes(8, "little") + text + data[8 + size :])
    return f"tensors: {key} {entry[key]}, {length}"


def _kind(rng: random.Random, folder: Path) -> str:
    """A file becomes a pipe, a folder, a link to a device, another file, or nothing."""
    files = _files(folder)
    if not files:
        return "no files"
    path, other = rng.choice(files), rng.choice(files)
    content = other.read_bytes()
    path.unlink()
    kind = rng.choice(("pipe", "folder", "device", "loop", "another", "nothing", "empty"))
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind in ("device", "loop"):
        path.symlink_to("/dev/zero" if kind == "device" else path.name)
    elif kind in ("another", "empty"):
        path.write_bytes(content if kind == "another" else b"")
    return f"{path.name} is {kind}"


def sign(folder: Path) -> str:
    """Make the manifest tell sizes and digests of the files as they are now."""
    path = folder / "trivec.json"
    try:
        manifest = json.loads(path.read_bytes()) if path.is_file() and path.stat().st_size < _LARGE else {}
        for holder, key in _nodes(manifest):
            name = holder[key] if key == "path" else None
            if isinstance(name, str) and isinstance(holder, dict) and (folder / name).is_file():
                holder |= {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)}
        if manifest:
            path.write_text(json.dumps(manifest), encoding="utf-8")
    except (ValueError, RecursionError, TypeError, OSError):
        return "not signed"
    return "signed"


CHANGES: tuple[Change, ...] = (
    *(_json, _json, _json, _json, _json_text, _tokenizer, _tokenizer),
    *(_bytes, _bytes, _graph, _graph, _arrays, _safetensors, _kind),
)
