"""Which model a caller expects: one whose manifest has a certain digest, or one that cannot be verified."""

import hashlib
import re
from typing import NamedTuple

from trivec._errors import InputError, IntegrityError, ModelFormatError
from trivec._model.hub import Repository
from trivec._model.json_files import read_bytes
from trivec._model.manifest import FILE_NAME, Manifest
from trivec._model.source import Source

UNVERIFIED = "unverified"
"""What asks for a model whose manifest has no digests of its files."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def digest_of(text: bytes) -> str:
    """A manifest's digest, which says all of its files by theirs: "sha256:" and 64 hexadecimal digits."""
    return f"sha256:{hashlib.sha256(text).hexdigest()}"


def check_expect(expect: object) -> None:
    """Raise InputError unless it is a digest, "unverified" or None."""
    if expect is not None and expect != UNVERIFIED and not (isinstance(expect, str) and _DIGEST.fullmatch(expect)):
        raise InputError(
            f"expect={expect!r} is no digest of a {FILE_NAME}. Expected 'sha256:' and 64 digits of 0-9 and a-f, as "
            f"`trivec info MODEL` prints them, or {UNVERIFIED!r} for a model without digests."
        )


class Stated(NamedTuple):
    """The manifest of a model, before it is understood."""

    text: bytes
    where: str
    """Its file, for messages."""


def read_pinned(source: Source, expect: str | None) -> Stated | None:
    """A model's trivec.json, read once and compared with the one that is expected; None: it has none.

    Args:
        source: the model.
        expect: as `load` takes it.

    Raises:
        IntegrityError: it is another, or there is none to compare.
    """
    path = source.file(FILE_NAME)
    stated = None if path is None else Stated(read_bytes(path), str(path))
    if expect is None or expect == UNVERIFIED:
        return stated
    if stated is None:
        other = "revision=COMMIT pins a repository" if isinstance(source, Repository) else "trivec export makes one"
        raise IntegrityError(
            f"{source.name} has no {FILE_NAME}, so nothing says whether it is the model of {expect} that was expected; "
            f"{other}."
        )
    found = digest_of(stated.text)
    if found != expect:
        raise IntegrityError(
            f"{source.name} is another model than the one that was expected: its {FILE_NAME} is {found}, and "
            f"expect={expect!r}. Fetch the right one; or, where this one is right, type: expect={found!r}"
        )
    return stated


def unverified_files(manifest: Manifest) -> list[str]:
    """The files that a manifest names without their sha256, in alphabetical order."""
    refs = {ref.path: ref for ref in manifest.every_file()}
    return sorted(path for path, ref in refs.items() if not ref.sha256)


def check_digests(manifest: Manifest, expect: str | None, where: str) -> None:
    """Raise ModelFormatError where a manifest leaves digests out, and that was not asked for.

    Args:
        manifest: of a folder that has a trivec.json.
        expect: as `load` takes it.
        where: the manifest's file, for the message.
    """
    missing = unverified_files(manifest)
    if missing and expect != UNVERIFIED:
        raise ModelFormatError(
            f"{where} has no sha256 of {', '.join(missing)}, so nothing says whether these are the files that were "
            f"exported. Export the model again: trivec export; or open it as it is: expect={UNVERIFIED!r}, of "
            f"commands --expect {UNVERIFIED}"
        )
