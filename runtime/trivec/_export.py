"""The one door from the runtime to the exporter, which is heavy and optional."""

import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

from trivec._errors import GateError, MissingExtraError, ModelNotFoundError
from trivec._model.checkpoint import read_checkpoint
from trivec._model.derived import check_pooling
from trivec._model.find import find
from trivec._model.hub import Repository, never_asked
from trivec._model.json_files import read_object
from trivec._model.manifest import FILE_NAME
from trivec._model.source import Folder, Source
from trivec._model.static_model import refuse_static, static_spec
from trivec._system.home import home

logger = logging.getLogger("trivec")


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
    """Export a checkpoint to a model folder; needs `trivec[export]`. See `trivec_export.export`."""
    from trivec_export import export as run

    folder = Path(model)
    if folder.is_dir():
        refuse_static(Folder(folder))  # in the first second: the exporter would import torch before it looks
    try:
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
            tasks=tasks,
            name=name,
            version=version,
            quiet=quiet,
        )
    except MissingExtraError:
        with contextlib.suppress(ModelNotFoundError):  # nobody shall install torch for a model that needs no export
            refuse_static(find(model, revision=revision, token=token))
        raise


def missing_packages() -> list[str]:
    """What the exporter lacks of the packages that it needs; it comes with the runtime, and they do not."""
    from trivec_export import missing_packages as missing

    return missing()


def exported(source: Source, *, pooling: str | None = None, local_files_only: bool = False) -> Source:
    """The source itself where it has graphs or needs none, else its export in `TRIVEC_HOME`, made on the first call.

    With `local_files_only` the exporter does not ask the Hub either.

    Raises:
        InputError: a pooling is asked for that is not the one that an export has.
    """
    if source.file(FILE_NAME) is not None or static_spec(source) is not None or _has_graphs(source):
        return source
    check_pooling(source, read_checkpoint(source).routes, pooling)
    folder = home() / "exports" / _slug(source)
    if not (folder / FILE_NAME).exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            with never_asked(local_files_only):
                export(source.name, folder, revision=source.revision if isinstance(source, Repository) else None)
        except GateError as error:
            if not (folder / FILE_NAME).exists():
                raise
            logger.warning("%s", error)  # the variants that are faithful are there; whoever asks for another is told
    return Folder(folder)


def _has_graphs(source: Source) -> bool:
    """Whether its ONNX graphs give what the model is for: those of BGE-M3's repository know its dense head alone."""
    if not any(name.endswith(".onnx") for name in source.names()):
        return False
    checkpoint = read_checkpoint(source)
    whole = checkpoint.family in ("dense", "rerank") or (checkpoint.family == "splade" and not checkpoint.has_modules)
    return whole and "lora_adaptations" not in read_object(source, "config.json")


def _slug(source: Source) -> str:
    """A folder name that changes when the checkpoint does."""
    if isinstance(source, Repository):
        source.file("config.json")  # pins the commit
        state = str(source.revision)
    else:
        root = Path(source.name)
        stats = [(name, (root / name).stat()) for name in source.names()]
        state = repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])
    digest = hashlib.sha256(os.fsencode(f"{source.name}\n{state}")).hexdigest()[:16]
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', source.name).strip('-')[-60:]}-{digest}"
