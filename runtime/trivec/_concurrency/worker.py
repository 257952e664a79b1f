"""What a process of a pool does: open the encoder, then encode what comes."""

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from trivec._errors import TrivecError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


class Reopened(Protocol):
    """What a pool needs of an encoder: to be opened again elsewhere, and a count."""

    @property
    def device(self) -> str:
        """Where it runs."""

    @property
    def truncated(self) -> int:
        """Texts that it has cut so far."""

    def __reduce__(self) -> tuple[Any, ...]:
        """A function, and its arguments: LoadOptions first."""


class Reply(NamedTuple):
    """A worker's message."""

    value: Any = None
    truncated: int = 0
    error: Exception | None = None


def serve(pipe: "Connection[Any, Any]", threads: int) -> None:
    """Open the encoder, then encode what comes until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the first one decides
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))  # tokenizers makes its threads at the first call
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, OSError), pipe:  # the other side is gone, and with it the reason to be here
        build, arguments = pipe.recv()
        try:
            encoder = build(*arguments)
        except Exception as error:  # noqa: BLE001 - the parent raises it
            pipe.send(Reply(error=_portable(error)))
            return
        pipe.send(Reply())
        while True:
            pipe.send_bytes(_answer(encoder, *pipe.recv()))


def _answer(encoder: Reopened, method: str, texts: Sequence[str], options: Mapping[str, Any]) -> bytes:
    """The pickled reply to one chunk."""
    before = encoder.truncated
    try:
        value = getattr(encoder, method)(texts, **options)
        return pickle.dumps(Reply(value, encoder.truncated - before), protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # noqa: BLE001 - the parent raises it
        return pickle.dumps(Reply(error=_portable(error)))


def _portable(error: Exception) -> Exception:
    """The error if it survives pickling, else one that quotes it; with the worker's traceback."""
    text = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    except Exception:  # noqa: BLE001 - its own methods run here
        return RuntimeError(text)
    if not isinstance(error, TrivecError):  # a message of trivec says all there is
        error.add_note(text)
    return error


def _end_with_parent() -> None:
    """Do not finish a long chunk for a parent that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
