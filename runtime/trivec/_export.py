"""The one door from the runtime to the exporter, which is heavy and optional."""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from trivec._home import home
from trivec._manifest import FILE_NAME
from trivec._source import Folder, Repository, Source


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
    quiet: bool = False,
) -> Path:
    """Export a checkpoint to a model folder; needs `trivec[export]`. See `trivec_export.export`."""
    from trivec_export import export as run

    return run(
        model,
        out,
        family=family,
        precision=precision,
        calibration=calibration,
        revision=revision,
        trust_remote_code=trust_remote_code,
        token=token,
        max_texts=max_texts,
        quiet=quiet,
    )


def exported(source: Source, *, revision: str | None) -> Source:
    """The source itself where it has ONNX graphs, else its export in `TRIVEC_HOME`, made on the first call."""
    names = source.names()
    if FILE_NAME in names or any(name.endswith(".onnx") for name in names):
        return source
    folder = home() / "exports" / _slug(source)
    if not (folder / FILE_NAME).exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        export(source.name, folder, revision=source.revision if isinstance(source, Repository) else revision)
    return Folder(folder)


def _slug(source: Source) -> str:
    """A folder name that changes when the checkpoint does."""
    if isinstance(source, Repository):
        source.file("config.json")  # pins the commit
        state = str(source.revision)
    else:
        root = Path(source.name)
        stats = [(name, (root / name).stat()) for name in source.names()]
        state = repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
    digest = hashlib.sha256(f"{source.name}\n{state}".encode()).hexdigest()[:16]
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', source.name).strip('-')[-60:]}-{digest}"
