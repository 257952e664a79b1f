"""What an export was made of and by which command: nothing in which two equal exports differ."""

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from trivec._model.checkpoint import Checkpoint
from trivec._model.integrity import describe, sha256
from trivec._model.manifest import PRECISIONS, FileRef, Origin
from trivec._system.native_text import argument_text
from trivec_export._checkpoint.adapters import CONFIG, base_of
from trivec_export._checkpoint.fetch import CARD, Fetched
from trivec_export._folder.card import SOURCE_CARD, stated
from trivec_export._request import Request

_LICENSE = ("license", "license_name", "license_link")


def origins(fetched: Fetched, checkpoint: Checkpoint, token: str | bool | None) -> tuple[Origin, ...]:
    """The checkpoint, then the models that adapters in it were made for, each with the sha256 of its files."""
    found = {fetched.folder: fetched}
    for spec in checkpoint.transformers.values():
        place = fetched.folder / spec.folder
        while (place / CONFIG).is_file():
            base = base_of(place, token=token)
            found[base.folder], place = base, base.folder
    return tuple(map(_origin, found.values()))


def _origin(fetched: Fetched) -> Origin:
    said = stated(fetched.folder)
    return Origin(
        name=fetched.name,
        revision=fetched.revision,
        files={path: sha256(fetched.folder / path) for path in sorted(fetched.files)},
        license=", ".join(text for key in _LICENSE for text in _texts(said.get(key))) or None,
        base_model=tuple(_texts(said.get("base_model"))),
    )


def _texts(value: object) -> list[str]:
    """What somebody's YAML has in a place for one text or several."""
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str)]


def copy_card(fetched: Fetched, folder: Path) -> FileRef | None:
    """The checkpoint's card into the model folder, as it is; None: it has none."""
    if CARD not in fetched.files:
        return None
    shutil.copyfile(fetched.folder / CARD, folder / SOURCE_CARD)
    return describe(folder, SOURCE_CARD)


def command(request: Request, fetched: Fetched) -> str:
    """The command line that asks for the same, without where it was written, paths of this machine and tokens."""
    return shlex.join(["trivec", "export", fetched.name, "OUT", *_options(request)])


def _options(request: Request) -> Iterator[str]:
    calibration = None if request.calibration is None else argument_text(request.calibration.name)
    given = {
        "--family": None if request.family == "auto" else request.family,
        "--precision": None if request.precisions == PRECISIONS else ",".join(request.precisions),
        "--calibration": calibration,
        "--revision": request.revision,
        "--max-texts": request.max_texts,
        "--tasks": None if request.tasks is None else ",".join(request.tasks),
        "--name": request.name,
        "--version": request.version,
    }
    for option, value in given.items():
        if value is not None:
            yield from (option, str(value))
    if request.trust_remote_code:
        yield "--trust-remote-code"
