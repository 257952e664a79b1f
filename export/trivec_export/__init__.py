"""Export text-embedding checkpoints to trivec model folders: fp32, fp16 and int8 ONNX graphs, checked against torch.

Importing this package loads neither torch nor transformers; `export` does, after it has looked whether all is there.
"""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from trivec._errors import MissingExtraError
from trivec._system.switches import is_on

__all__ = ["export"]

# onnxruntime's wheels since 1.31 send telemetry unless told otherwise before they are loaded. What a user set stays.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# What trivec.load understands, transformers does not: it asks the Hub for code that a checkpoint names elsewhere.
if is_on("TRIVEC_OFFLINE"):
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
# torch's threads wait by spinning: beside other work an export takes twice the CPU seconds. Read as torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_PACKAGES = ("torch", "transformers", "optimum", "onnx", "onnxscript", "safetensors", "requests")


def export(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    family: str = "auto",
    precision: Sequence[str] = ("fp32", "fp16", "int8"),
    calibration: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    token: str | bool | None = None,
    max_texts: int | None = None,
    tasks: Sequence[str] | None = None,
    name: str | None = None,
    version: str | None = None,
    quiet: bool = False,
) -> Path:
    """Export a checkpoint to a model folder that `trivec.load` runs without torch.

    Args:
        model: a checkpoint folder, or a name on the Hub.
        out: the folder to make. It must not exist; it appears when everything in it is written and checked.
        family: "dense", or "auto": modules.json decides, else mean pooling (last token for a causal model).
        precision: the variants to make: "fp32", "fp16", "int8".
        calibration: a .txt (a text a line) or .jsonl file ("text" in each object) whose texts calibrate int8 beside the
            exporter's own.
        revision: branch, tag or commit on the Hub.
        trust_remote_code: run the checkpoint's own Python code; off unless you have read it.
        token: for private and gated repositories.
        max_texts: calibrate and verify on an even sample of at most so many texts each, which the manifest records;
            for models so large that all of them take hours. At least 64.
        tasks: of a checkpoint with an adapter for each task (Jina v3), the tasks to export; None: all. Each has a graph
            of its own.
        name: what you call the model, up to 100 letters; None: nothing but its source's name. Like the version, it
            stands in the manifest and decides nothing.
        version: which one of that name this is, by your own count.
        quiet: print nothing.

    Returns:
        The folder.

    Raises:
        MissingExtraError: torch or another package of `trivec[export]`, or onnxruntime, is not installed.
        InputError: the output folder exists or cannot be written, or an argument is out of range.
        ModelNotFoundError: there is no such checkpoint.
        ModelFormatError: the checkpoint has something that trivec does not translate.
        GateError: a variant is not faithful to torch. The others are written all the same, unless fp32 is the one.
    """
    _check_packages()
    from trivec_export._export import run
    from trivec_export._request import Request

    return run(
        Request(
            model=os.fspath(model),
            out=Path(out),
            family=family,
            precisions=tuple(precision),
            calibration=None if calibration is None else Path(calibration),
            revision=revision,
            trust_remote_code=trust_remote_code,
            token=token,
            max_texts=max_texts,
            tasks=None if tasks is None else tuple(tasks),
            name=name,
            version=version,
        ),
        quiet=quiet,
    )


def missing_packages() -> list[str]:
    """Packages of `trivec[export]` that are not installed."""
    return [name for name in _PACKAGES if importlib.util.find_spec(name) is None]


def _check_packages() -> None:
    """Fail in the first second, before minutes of work."""
    if missing := missing_packages():
        raise MissingExtraError(
            f'exporting needs {", ".join(missing)}, not installed here. Type: pip install "trivec[export,cpu]"'
        )
    if importlib.util.find_spec("onnxruntime") is None:
        raise MissingExtraError(
            "exporting needs onnxruntime, which checks every variant against torch. "
            'Type: pip install "trivec[cpu]"   (or "trivec[gpu]")'
        )
