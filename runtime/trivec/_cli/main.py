"""The command line: `trivec COMMAND`, a function of `commands` each.

What a command needs is imported when it runs, so that `--help`, `--version` and a mistyped option answer at once.
"""

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from trivec._cli.arguments import parser
from trivec._errors import TrivecError
from trivec._system.streams import prepare_streams, tell
from trivec._system.switches import is_on

INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
TERMINATED = 143  # 128 + SIGTERM
BROKEN_PIPE = 141  # 128 + SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments; None: those of the process.

    Returns:
        The exit status: 0, or 1 after an error (one line on stderr; with TRIVEC_DEBUG=1 the traceback before it), or
        what a shell reports of a command that a signal has ended.

    Raises:
        SystemExit: argparse ends --help and --version with status 0, a wrong command line with 2.
    """
    prepare_streams()
    args = parser().parse_args(argv)
    try:
        with _orderly_end():
            status: int = args.run(args)
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt as error:
        ended = isinstance(error, _Terminated)
        tell("trivec: ended by SIGTERM" if ended else "trivec: interrupted")
        _print_notes(error)
        return TERMINATED if ended else INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()
        return BROKEN_PIPE
    except (TrivecError, OSError) as error:
        if is_on("TRIVEC_DEBUG"):
            tell(traceback.format_exc(), end="")
        tell(f"trivec: error: {' '.join(str(error).split())}")
        _print_notes(error)
        return 1
    return status


class _Terminated(KeyboardInterrupt):
    """SIGTERM came."""


@contextlib.contextmanager
def _orderly_end() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does: what is done is written and kept, what is half done is cleared away.

    A second one ends it at once. Where the program that calls `main` has its own way with the signal, that stays.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise _Terminated

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


# ---- commands --------------------------------------------------------------------------------------------------------


def _print_notes(error: BaseException) -> None:
    """What an error says beside its message: how to go on, say."""
    for note in getattr(error, "__notes__", ()):
        tell(f"trivec: {note}")


# ---- arguments -------------------------------------------------------------------------------------------------------


def _silence_stdout() -> None:
    """Whoever read stdout is gone: what is still buffered goes nowhere, so the interpreter's last flush is silent."""
    with contextlib.suppress(OSError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
