"""Files that are not what they should be."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trivec._errors import InputError, TrivecError


@contextmanager
def readable(path: Path, advice: str = "", kind: type[TrivecError] = InputError) -> Iterator[None]:
    """Raise InputError, or another kind, for whatever a parser raises over damaged bytes: no list of these is complete.

    numpy and zipfile alone have ValueError, EOFError, OSError, SyntaxError, tokenize.TokenError, NotImplementedError,
    OverflowError and MemoryError.
    """
    try:
        yield
    except (TrivecError, FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except Exception as error:
        raise kind(f"{path} is no readable {path.suffix} file: {error}.{advice}") from error
