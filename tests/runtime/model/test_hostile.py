"""Folders of somebody who means harm: reading each ends with a TrivecError, soon, and in bounded memory.

Random ones are scripts/fuzz's; a short run of it is here as well.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from tests.support.bounds import bounded, most_bytes
from tests.support.mutations import sign
from tests.support.seed_folders import write_seed_folders

import trivec
from trivec import InputError, IntegrityError, ModelFormatError, ModelNotFoundError, ProviderError, TrivecError
from trivec._inspect.info import info
from trivec._model.graph_file import read_weights
from trivec.lexical import BM25

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured on Linux")
ROOT = Path(__file__).parents[3]
DEEP = 200_000
TEXTS = ["a cat", "", "a" * 40 + "!"]
Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_seed_folders(tmp_path_factory.mktemp("seeds"))


def read(folder: Path) -> None:
    """Describe, open and use a model, within the bounds."""
    with bounded(most_bytes(folder)):
        info(str(folder))
        with trivec.load(folder, device="cpu", threads=1) as encoder:
            encoder.encode(TEXTS)


def test_what_was_not_changed_is_read(seeds: dict[str, Path]) -> None:
    for name in seeds.keys() - {"bm25"}:
        read(seeds[name])


def test_a_model_card_of_blanks_takes_no_time(seeds: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(seeds["bare"], tmp_path / "folder")
    blanks = " " * 1_000_000
    (folder / "README.md").write_text(f"---\nbase_model:{blanks}\n---\npooling{blanks}", encoding="utf-8")
    read(folder)


# ---- changes ---------------------------------------------------------------------------------------------------------


def put(place: str, *keys: str | int, value: Any) -> Change:
    """Set one value of a JSON file."""

    def change(folder: Path) -> None:
        content = json.loads((folder / place).read_bytes())
        holder = content
        for key in keys[:-1]:
            holder = holder[key]
        holder[keys[-1]] = value
        (folder / place).write_text(json.dumps(content))

    return change


def write(place: str, data: str | bytes) -> Change:
    return lambda folder: (folder / place).write_bytes(data.encode() if isinstance(data, str) else data)


def replaced(place: str, old: str, new: str) -> Change:
    return lambda folder: (folder / place).write_text((folder / place).read_text().replace(old, new, 1))


def pipe(place: str) -> Change:
    def change(folder: Path) -> None:
        (folder / place).unlink()
        os.mkfifo(folder / place)

    return change


def linked(place: str, target: str) -> Change:
    def change(folder: Path) -> None:
        (folder / place).unlink()
        (folder / place).symlink_to(target)

    return change


def holes(place: str, size: int) -> Change:
    """A file of so many bytes that takes none on the disk."""
    return lambda folder: os.truncate(folder / place, size)


def npz(name: str, shape: tuple[int, ...], *, descr: str = "<f4", size: int = 96, **how: Any) -> Change:
    """arrays.npz with one array whose header says something, and whose numbers are so many zeros."""

    def change(folder: Path) -> None:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
        path = folder / "arrays.npz"
        with zipfile.ZipFile(path, "w", **how) as archive, archive.open(f"{name}.npy", "w") as stream:
            stream.write(header.getvalue())
            for _ in range(0, size, 1 << 20):
                stream.write(bytes(min(size, 1 << 20)))

    return change


def twice(folder: Path) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(folder / "arrays.npz", "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("default.ranges.npy", archive.read("default.ranges.npy"))


def many_listed(folder: Path) -> None:
    with zipfile.ZipFile(folder / "arrays.npz", "w") as archive:
        for i in range(20_000):
            archive.writestr(f"{i}.npy", b"")


def graph(change_model: Callable[[onnx.ModelProto], object], place: str = "onnx/model.onnx") -> Change:
    def change(folder: Path) -> None:
        model = onnx.load(folder / place, load_external_data=False)
        change_model(model)
        (folder / place).write_bytes(model.SerializeToString())

    return change


def external(location: str, *, offset: int = 0) -> Change:
    """The first weight of the graph is said to lie in another file."""

    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = 1
        del tensor.external_data[:]
        tensor.external_data.add(key="location", value=location)
        tensor.external_data.add(key="offset", value=str(offset))

    return graph(change)


def foreign_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "nobody.knows"
    model.opset_import.append(helper.make_opsetid("nobody.knows", 1))


def wider_output(model: onnx.ModelProto) -> None:
    """One more dimension in front than the texts have."""
    model.graph.node[-1].output[0] = "inner"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0], np.int64), "front"))
    model.graph.node.append(helper.make_node("Unsqueeze", ["inner", "front"], [model.graph.output[0].name]))
    model.graph.output[0].type.tensor_type.ClearField("shape")


def other_table(output: int, of: int) -> Change:
    """One output of three reads the table of another one, whose rows are of other numbers."""

    def change(model: onnx.ModelProto) -> None:
        model.graph.node[output].input[0] = model.graph.node[of].input[0]
        model.graph.output[output].type.tensor_type.ClearField("shape")

    return graph(change)


def name_of_no_text(folder: Path) -> None:
    """The name of an axis is no UTF-8."""
    place = folder / "onnx/model.onnx"
    before = place.read_bytes()
    assert b"batch" in before
    place.write_bytes(before.replace(b"batch", b"\xc3atch"))


def layer_twice(folder: Path) -> None:
    """A Dense layer reads what it has made, which is of other numbers."""
    modules = json.loads((folder / "modules.json").read_bytes())
    (folder / "modules.json").write_text(json.dumps([*modules[:3], {**modules[2], "idx": 3, "name": "3"}]))


def split_by(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def unfit_layer(folder: Path) -> None:
    """A Dense layer that reads five numbers, behind a graph that gives twelve."""
    step = {"kind": "dense", "arrays": "d", "activation": "identity", "residual": False, "epsilon": 1e-5}
    np.savez(folder / "arrays.npz", **{"d.weight": np.ones((12, 5), np.float32)})  # type: ignore[arg-type]
    put("trivec.json", "routes", "default", "steps", value=[step])(folder)
    sign(folder)


def shared_graph(folder: Path) -> None:
    main = json.loads((folder / "trivec.json").read_bytes())["encoders"]["main"]
    put("trivec.json", "encoders", value=dict.fromkeys(("main", *"abcd"), main))(folder)


def encoders(folder: Path) -> None:
    """A thousand encoders of the same files."""
    content = json.loads((folder / "trivec.json").read_bytes())
    content["encoders"] |= {str(i): content["encoders"]["main"] for i in range(1000)}
    content["routes"] |= {str(i): {**content["routes"]["default"], "encoder": str(i)} for i in range(1000)}
    (folder / "trivec.json").write_text(json.dumps(content))


MAIN = ("encoders", "main")
FP32 = (*MAIN, "variants", "fp32")
NO_MODES: list[Any] = [[], {}, 5, True, "", [[]], [None], ["mean", ""]]
CASES: dict[str, tuple[str, Change, type[TrivecError], str]] = {
    # JSON
    "manifest too deep": ("exported", write("trivec.json", '{"a":' * DEEP), ModelFormatError, "nested too deep"),
    "manifest of closed lists too deep": (
        "exported",
        put("trivec.json", "tools", value=json.loads("[" * 500 + "]" * 500)),
        ModelFormatError,
        "nested too deep",
    ),
    "manifest of 1 TB": ("exported", holes("trivec.json", 1 << 40), ModelFormatError, "over 8 MB"),
    "key twice": (
        "exported",
        replaced("trivec.json", '"dim":', '"dim": 3, "dim":'),
        ModelFormatError,
        "'dim' comes twice, with different values",
    ),
    "half a pair of surrogates": (
        "exported",
        put("trivec.json", "prompts", "x", value="\ud800"),
        ModelFormatError,
        "JSON",
    ),
    "size of 2^63": (
        "exported",
        put("trivec.json", *MAIN, "max_positions", value=2**63),
        ModelFormatError,
        "expected int",
    ),
    "number of 5,000 digits": (
        "exported",
        replaced("trivec.json", "12", "9" * 5000),
        ModelFormatError,
        "not valid JSON",
    ),
    "float that is no number": (
        "exported",
        put("trivec.json", "routes", "default", "steps", value=[{"kind": "normalize", "epsilon": float("nan")}]),
        ModelFormatError,
        "expected float, got NaN",
    ),
    "config too deep": ("bare", write("config.json", "[" * DEEP), ModelFormatError, "config.json is not valid JSON"),
    "config of another kind": (
        "bare",
        put("config.json", "architectures", value={"a": 1}),
        ModelFormatError,
        "another kind",
    ),
    "prompt of another kind": (
        "modules",
        put("config_sentence_transformers.json", "prompts", value={"query": 5}),
        ModelFormatError,
        "prompts.query: expected str, got 5",
    ),
    "length of another kind": (
        "modules",
        put("sentence_bert_config.json", "max_seq_length", value="16"),
        ModelFormatError,
        "another kind",
    ),
    "10,000 modules": (
        "modules",
        write("modules.json", json.dumps([{"type": "sentence_transformers.models.Normalize", "path": ""}] * 10_000)),
        ModelFormatError,
        "lists 10000 modules",
    ),
    "route that is a program": (
        "router",
        put("router_config.json", "parameters", "route_mappings", value={"(" * 100_000: "query"}),
        ModelFormatError,
        "another kind",
    ),
    # paths
    "path upwards": (
        "exported",
        put("trivec.json", *FP32, "files", 0, "path", value="../x"),
        ModelFormatError,
        "leaves",
    ),
    "absolute path": (
        "exported",
        put("trivec.json", "arrays", "path", value="/etc/passwd"),
        ModelFormatError,
        "leaves",
    ),
    "drive": ("exported", put("trivec.json", *MAIN, "tokenizer", "path", value="C:x"), ModelFormatError, "leaves"),
    "path with a zero byte": (
        "exported",
        put("trivec.json", "arrays", "path", value="a\0b"),
        ModelFormatError,
        "leaves",
    ),
    "path too long": ("exported", put("trivec.json", "arrays", "path", value="a" * 5000), IntegrityError, "is missing"),
    "module upwards": ("modules", put("modules.json", 2, "path", value="../2_Dense"), ModelFormatError, "leaves"),
    "module on another system": (
        "modules",
        put("modules.json", 2, "path", value="..\\2_Dense"),
        ModelFormatError,
        "leaves",
    ),
    # what is no file
    "manifest is a pipe": ("exported", pipe("trivec.json"), ModelFormatError, "no file but a pipe"),
    "tokenizer is a pipe": ("exported", pipe("tokenizer.json"), TrivecError, "no file but"),
    "graph is a pipe": ("exported", pipe("onnx/model.onnx"), TrivecError, "no file but"),
    "weights are a pipe": ("exported", pipe("onnx/model.onnx.data"), TrivecError, "no file but"),
    "arrays are a pipe": ("exported", pipe("arrays.npz"), TrivecError, "no file but"),
    "config is a pipe": ("bare", pipe("config.json"), ModelFormatError, "no file but a pipe"),
    "table is a pipe": ("model2vec", pipe("model.safetensors"), ModelFormatError, "no file but a pipe"),
    "manifest is a device": ("exported", linked("trivec.json", "/dev/zero"), TrivecError, "no file but|leads out"),
    "config is a device": ("bare", linked("config.json", "/dev/zero"), TrivecError, "no file but|leads out"),
    # arrays.npz
    "arrays of 256 MB in 0.3 MB": (
        "exported",
        npz("default.ranges", (2, 1 << 25), size=1 << 28, compression=zipfile.ZIP_DEFLATED),
        ModelFormatError,
        "larger than it is in the file",
    ),
    "array of 12 PB": (
        "exported",
        npz("default.ranges", (1 << 50, 3)),
        ModelFormatError,
        r"manifest has it as \(2, 12\)",
    ),
    "array that no route has, of 12 PB": ("exported", npz("x", (1 << 50, 3)), ModelFormatError, "should have"),
    "array of another shape": (
        "exported",
        npz("default.ranges", (12, 2)),
        ModelFormatError,
        r"\(12, 2\); the manifest has",
    ),
    "array of objects": ("exported", npz("default.ranges", (2, 12), descr="|O"), ModelFormatError, "of object"),
    "array twice": ("exported", twice, ModelFormatError, "twice"),
    "arrays without end": ("exported", many_listed, ModelFormatError, "as numpy.savez ends it"),
    "arrays cut": (
        "exported",
        lambda f: os.truncate(f / "arrays.npz", 300),
        ModelFormatError,
        "as numpy.savez ends it",
    ),
    "layers that do not fit": ("exported", unfit_layer, ModelFormatError, "does not fit its output"),
    "a layer twice": ("modules", layer_twice, ModelFormatError, "does not fit its output"),
    # tensors
    "tensors of 2^63": ("model2vec", write("model.safetensors", b"\xff" * 8 + b"{}"), ModelFormatError, "no whole"),
    "tensors that say they are huge": (
        "model2vec",
        lambda folder: (folder / "model.safetensors").write_bytes(
            (78).to_bytes(8, "little")
            + b'{"embeddings":{"dtype":"F32","shape":[99999999999,7],"data_offsets":[0,4]}}   '
            + bytes(4)
        ),
        ModelFormatError,
        "no whole",
    ),
    # the tokenizer
    "tokenizer too deep": (
        "exported",
        write("tokenizer.json", "[" * DEEP),
        ModelFormatError,
        "readable tokenizer.json",
    ),
    "tokenizer of 1 TB": ("bare", holes("tokenizer.json", 1 << 40), ModelFormatError, "over 256 MB"),
    "expression without end": (
        "bare",
        put("tokenizer.json", "pre_tokenizer", value=split_by("(a+)+$")),
        InputError,
        "cannot be tokenized: .*retry-limit-in-match",
    ),
    "token of 2^32": (
        "bare",
        put("tokenizer.json", "model", "vocab", "cat", value=2**32 - 1),
        ProviderError,
        "cannot run",
    ),
    "special token of nobody": (
        "bare",
        put("tokenizer.json", "post_processor", "single", value=[{"SpecialToken": {"id": "nobody", "type_id": 0}}]),
        ModelFormatError,
        "readable tokenizer.json",
    ),
    # the graph
    **{
        f"pooling by {value!r}": (
            "modules",
            put("1_Pooling/config.json", "pooling_mode", value=value),
            ModelFormatError,
            "pooling.mode.*expected some of|pooling mode .* is none of",
        )
        for value in NO_MODES
    },
    "external data upwards": ("modules", external("../config.json"), ModelFormatError, "leaves"),
    "external data anywhere": ("modules", external("/etc/passwd"), ModelFormatError, "leaves"),
    "external data upwards, exported": ("exported", external("../arrays.npz"), ModelFormatError, "cannot read"),
    "external data anywhere, exported": ("exported", external("/etc/passwd"), ModelFormatError, "cannot read"),
    "external data beyond its file": (
        "exported",
        external("model.onnx.data", offset=1 << 62),
        ModelFormatError,
        "cannot read",
    ),
    "operator of nobody": ("exported", graph(foreign_operator), ModelFormatError, "nobody.knows"),
    "weights of 2^62": (
        "exported",
        graph(lambda model: model.graph.initializer[0].dims.__setitem__(0, 1 << 62)),
        ModelFormatError,
        "cannot read",
    ),
    "output of another shape": (
        "bare",
        graph(wider_output, "model.onnx"),
        ModelFormatError,
        "expected one row for each token",
    ),
    "weights of terms with an axis more": (
        "hybrid",
        other_table(1, 0),
        ModelFormatError,
        "expected one number in each",
    ),
    "states without an axis": ("hybrid", other_table(0, 1), ModelFormatError, "gives 1 numbers, not 5"),
    "name of an axis that is no text": ("exported", name_of_no_text, ModelFormatError, "no UTF-8"),
    # the manifest
    "terms of 2^31": (
        "hybrid",
        put("trivec.json", "routes", "default", "sparse", "dim", value=1 << 31),
        ModelFormatError,
        "sparse.dim must be between 1 and 16,777,216",
    ),
    "1,000 encoders": ("exported", encoders, ModelFormatError, "1001 encoders"),
    "one graph in five encoders": ("exported", shared_graph, ModelFormatError, "5 encoders have the same graph"),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused(case: str, seeds: dict[str, Path], tmp_path: Path) -> None:
    name, change, kind, message = CASES[case]
    folder = tmp_path / "folder"
    shutil.copytree(seeds[name], folder)
    manifest = folder / "trivec.json"
    before = manifest.read_bytes() if manifest.exists() else b""
    change(folder)
    if manifest.is_file() and manifest.stat().st_size == len(before) and manifest.read_bytes() == before:
        sign(folder)  # who can change a file can change its digest
    with pytest.raises(kind, match=message):
        read(folder)


def test_texts_of_one_token_have_no_vector_where_the_first_is_left_out(seeds: dict[str, Path], tmp_path: Path) -> None:
    """A tokenizer that adds no special tokens: of ColBERT's vectors, which leave out the first, there is none."""
    folder = tmp_path / "folder"
    shutil.copytree(seeds["hybrid"], folder)
    put("tokenizer.json", "post_processor", value=None)(folder)
    sign(folder)
    with trivec.load(folder, device="cpu") as encoder:
        for texts in (["cat"], ["cat", "dog"]):
            found = encoder.encode(texts, return_colbert_vecs=True)
            assert [len(rows) for rows in found.colbert] == [0] * len(texts)
        found = encoder.encode(["cat", "the cat"], return_colbert_vecs=True)
        assert [row.shape for row in found.colbert] == [(0, 3), (1, 3)]


def test_vectors_of_tokens_of_another_width(seeds: dict[str, Path], tmp_path: Path) -> None:
    """Five numbers a token where the manifest says three: no reshaping makes vectors of them."""
    folder = tmp_path / "folder"
    shutil.copytree(seeds["hybrid"], folder)
    other_table(2, 0)(folder)
    sign(folder)
    with trivec.load(folder, device="cpu") as encoder, pytest.raises(ModelFormatError, match="expected 3 in each row"):
        encoder.encode(["a cat", "the cat sat"], return_colbert_vecs=True)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (write("bm25.json", "[" * DEEP), ModelFormatError, "nested too deep"),
        (replaced("bm25.json", '"b":', '"b": 0.5, "b":'), ModelFormatError, "'b' comes twice"),
        (put("bm25.json", "avgdl", value=10**400), ModelFormatError, "avgdl must be a finite number"),
        (pipe("bm25.json"), ModelNotFoundError, "there is no file"),
    ],
)
def test_bm25(change: Change, kind: type[TrivecError], message: str, seeds: dict[str, Path], tmp_path: Path) -> None:
    shutil.copy(seeds["bm25"] / "bm25.json", tmp_path)
    change(tmp_path)
    with bounded(most_bytes(tmp_path)), pytest.raises(kind, match=message):
        BM25(str.split).load(tmp_path / "bm25.json")


def field(number: int, content: bytes) -> bytes:
    """A field of a protobuf message that has a length."""
    size, length = len(content), b""
    while size > 0x7F:
        length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def test_the_reader_of_graphs_keeps_within_bounds(tmp_path: Path) -> None:
    nested = b""
    for _ in range(5_000):  # a graph in an attribute of a node of a graph ...
        nested = field(1, field(5, field(6, nested)))
    many = field(7, field(5, bytes([2 << 3, 1]) * 4_000_000))
    number = bytes([7 << 3]) + b"\xff" * 10_000_000
    path = tmp_path / "model.onnx"
    for data in (field(7, nested), number):
        path.write_bytes(data)
        with bounded(most_bytes(tmp_path)):
            assert read_weights(path) == ("fp32", ())
    path.write_bytes(many)
    with bounded(most_bytes(tmp_path)), pytest.raises(ModelFormatError, match="over 3,000,000 fields"):
        read_weights(path)


def test_a_short_run_of_the_fuzzer() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("runtime", "export", ""))}
    command = [sys.executable, str(ROOT / "scripts/fuzz.py"), "--cases", "200", "--seed", "18"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "200 cases of seed 18" in found.stdout
    assert "  read\n" in found.stdout, "some changes do no harm, and their folders are read"


def test_the_fuzzer_tells_what_fails(tmp_path: Path) -> None:
    """With a reader that raises something else, hangs or dies, each of these is told and gone on from."""
    code = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
import fuzz
fuzz.SECONDS, fuzz._ASLEEP = 1, 3
def read(name, folder, *, gate=True):
    if folder.name != "case":
        return
    number = read.number = read.number + 1
    if number == 1:
        raise KeyError("something")
    if number == 2:
        os.abort()
    time.sleep(60)
read.number = 0
fuzz._read = read
sys.argv = ["fuzz", "--cases", "3"]
sys.exit(fuzz.main())
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("runtime", "export", ""))}
    command = [sys.executable, "-c", code, str(ROOT / "scripts")]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert found.returncode == 1, found.stdout + found.stderr
    for said in ("FAILED KeyError: scripts/fuzz --seed 0 --first 0 --cases 1", "FAILED died: -6", "3 failed"):
        assert said in found.stdout, found.stdout
