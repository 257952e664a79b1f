"""What `import trivec` brings along, what it offers, and what is said where onnxruntime is not whole."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import trivec

HEAVY = {"torch", "transformers", "optimum", "scipy", "onnx", "onnxruntime", "huggingface_hub", "trivec_export"}
HEAVY |= {"httpx2"}  # of trivec.hosted alone
HEAVY |= {"starlette", "uvicorn", "httptools", "orjson", "msgspec", "prometheus_client"}  # of trivec.server


def python(code: str, *arguments: str) -> str:
    root = Path(trivec.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_light() -> None:
    code = "import trivec, sys, json; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    loaded = json.loads(python(code))
    assert {"trivec", "numpy", "tokenizers"} <= set(loaded)
    assert HEAVY.isdisjoint(loaded)


def test_a_load_and_an_encode_need_neither_torch_nor_transformers(tiny_folder: Path) -> None:
    code = """
import json, sys, trivec
vector = trivec.load(sys.argv[1], device="cpu", threads=1).encode("a cat")
print(json.dumps([len(vector), sorted({name.partition('.')[0] for name in sys.modules})]))
"""
    dim, loaded = json.loads(python(code, str(tiny_folder)))
    assert dim == 12
    assert "onnxruntime" in loaded
    assert {*HEAVY, "safetensors"}.isdisjoint(set(loaded) - {"onnxruntime"})


def test_all_is_sorted_and_every_name_exists() -> None:
    assert trivec.__all__ == sorted(trivec.__all__)
    assert [name for name in trivec.__all__ if not hasattr(trivec, name)] == []


def test_public_names_say_that_they_are_of_trivec() -> None:
    for name in trivec.__all__:
        value = getattr(trivec, name)
        if callable(value):
            assert value.__module__ == "trivec"


def test_every_error_has_a_builtin_parent() -> None:
    parents = {
        trivec.BusyError: RuntimeError,
        trivec.GateError: RuntimeError,
        trivec.InputError: ValueError,
        trivec.IntegrityError: OSError,
        trivec.MissingExtraError: ImportError,
        trivec.ModelFormatError: ValueError,
        trivec.ModelNotFoundError: FileNotFoundError,
        trivec.NonFiniteError: ArithmeticError,
        trivec.ProviderError: RuntimeError,
        trivec.ServiceError: RuntimeError,
        trivec.TruncationError: ValueError,
        trivec.WorkerError: RuntimeError,
    }
    assert {getattr(trivec, n) for n in trivec.__all__ if n.endswith("Error")} == {*parents, trivec.TrivecError}
    for error, parent in parents.items():
        assert issubclass(error, trivec.TrivecError)
        assert issubclass(error, parent)
        assert str(error("what came")) == "what came"


BLOCKED = """
import sys
sys.modules["onnxruntime"] = None  # as where it is not installed
import trivec
try:
    trivec.load(sys.argv[1])
except trivec.MissingExtraError as error:
    print(error)
"""


def test_without_onnxruntime(tiny_folder: Path) -> None:
    assert python(BLOCKED, str(tiny_folder)).strip() == (
        'onnxruntime is not installed, and nothing runs without it. Type: pip install "trivec[cpu]"   '
        '(or "trivec[gpu]" on a machine with an NVIDIA GPU)'
    )


def test_without_onnxruntime_that_is_said_before_the_model_is_looked_for() -> None:
    assert python(BLOCKED, "no/such-model").startswith("onnxruntime is not installed")


def test_a_half_removed_onnxruntime(tiny_folder: Path) -> None:
    code = """
import sys, types
sys.modules["onnxruntime"] = types.ModuleType("onnxruntime")  # what a leftover folder imports as: a name, nothing in it
import trivec
try:
    trivec.load(sys.argv[1])
except trivec.MissingExtraError as error:
    print(error)
"""
    message = python(code, str(tiny_folder)).strip()
    assert message.startswith("onnxruntime is half removed (onnxruntime and onnxruntime-gpu share their files")
    assert message.endswith(
        'Type: pip uninstall -y onnxruntime onnxruntime-gpu && pip install "trivec[cpu]"   '
        '(or "trivec[gpu]" on a machine with an NVIDIA GPU)'
    )


@pytest.mark.parametrize("flag", ["both", "tensor"])
def test_tensors_without_torch(tiny_folder: Path, flag: str) -> None:
    code = """
import sys
sys.modules["torch"] = None
import trivec
options = {"convert_to_tensor": True} if sys.argv[2] == "tensor" else {"convert_to_numpy": False}
try:
    trivec.load(sys.argv[1], device="cpu", threads=1).encode("a cat", **options)
except trivec.MissingExtraError as error:
    print(error)
"""
    assert python(code, str(tiny_folder), flag).strip() == (
        "convert_to_tensor=True and convert_to_numpy=False give torch tensors, and torch is not installed. Leave both "
        "at their defaults for numpy arrays, or type: pip install torch"
    )


def test_without_what_hosted_models_need() -> None:
    code = """
import sys
sys.modules["httpx2"] = None  # as where it is not installed
import trivec
from trivec.integrations.milvus import OpenAIEmbeddingFunction
try:
    OpenAIEmbeddingFunction(api_key="x")
except trivec.MissingExtraError as error:
    print(error)
"""
    said = python(code).strip()
    assert said.startswith("trivec.hosted needs httpx2 (")
    assert said.endswith('Type: pip install "trivec[hosted]"')


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "httptools", "orjson", "msgspec", "prometheus_client"])
def test_without_what_a_server_needs(package: str) -> None:
    code = """
import sys
sys.modules[sys.argv[1]] = None
import trivec
try:
    import trivec.server
except trivec.MissingExtraError as error:
    print(error)
"""
    said = python(code, package).strip()
    assert said.startswith("trivec.server needs packages of its own (")
    assert said.endswith('Type: pip install "trivec[serve]"')


def test_a_server_needs_what_its_extra_brings_and_a_command_line_none_of_it(tiny_folder: Path) -> None:
    code = """
import json, sys, trivec.server
trivec.server.app({"tiny": trivec.load(sys.argv[1], device="cpu", threads=1)})
print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))
"""
    loaded = set(json.loads(python(code, str(tiny_folder))))
    assert {"starlette", "orjson", "msgspec"} <= loaded
    assert loaded.isdisjoint({"torch", "transformers", "fastapi", "pydantic", "httpx", "httpx2", "scipy"})
    code = "import sys, trivec._cli.arguments; trivec._cli.arguments.parser(); print(*sys.modules)"
    assert {"starlette", "uvicorn", "msgspec", "orjson", "prometheus_client"}.isdisjoint(python(code).split())
