"""Which graphs for CUDA have passed `trivec verify --device cuda` on this machine.

Such a graph cannot be proven where it is made: its attention has no kernel for a CPU. So it is used where it has been
compared with fp32 on the machine itself, and a new driver name, onnxruntime or file asks for a new comparison.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trivec._engine.devices import Device
from trivec._engine.session import engine_versions
from trivec._system.atomic import write_at_once
from trivec._system.home import home
from trivec._system.nvidia import cuda_name


def is_approved(digests: Sequence[str], device: Device) -> bool:
    """Whether a graph of these files, by their sha256, has passed on that device with the onnxruntime of today."""
    with contextlib.suppress(OSError):  # no home is one without notes
        return _note(digests, device).is_file()
    return False


def approve(digests: Sequence[str], device: Device, figures: Mapping[str, Any]) -> Path | None:
    """Note that it has passed, with the figures; None where trivec's folder cannot be written."""
    text = json.dumps({**_what(digests, device), "figures": dict(figures)}, indent=2)
    try:
        note = _note(digests, device)
        note.parent.mkdir(parents=True, exist_ok=True)
        write_at_once(note, text.encode())
    except OSError:
        return None
    return note


def _note(digests: Sequence[str], device: Device) -> Path:
    key = json.dumps(_what(digests, device), sort_keys=True)
    return home() / "approved" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"


def _what(digests: Sequence[str], device: Device) -> dict[str, Any]:
    return {
        "files": list(digests),
        "device": cuda_name(device.index or 0) if device.kind == "cuda" else device.kind,
        "onnxruntime": engine_versions(),
    }
