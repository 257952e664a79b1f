"""The command line: `trivec export | encode | verify | info | doctor | similarity | explain | map`.

What a command needs is imported when it runs, so that `--help`, `--version` and a mistyped option answer at once.
"""

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from trivec._cli.arguments import parser
from trivec._errors import TrivecError

INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
BROKEN_PIPE = 141  # 128 + SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments; None: those of the process.

    Returns:
        The exit status: 0, or 1 after an error (one line on stderr; with TRIVEC_DEBUG=1 the traceback before it).

    Raises:
        SystemExit: argparse ends --help and --version with status 0, a wrong command line with 2.
    """
    args = parser().parse_args(argv)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt as error:
        print("trivec: interrupted", file=sys.stderr)
        _print_notes(error)
        return INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()
        return BROKEN_PIPE
    except (TrivecError, OSError) as error:
        if os.environ.get("TRIVEC_DEBUG", "0") not in ("", "0"):
            traceback.print_exc()
        print(f"trivec: error: {' '.join(str(error).split())}", file=sys.stderr)
        _print_notes(error)
        return 1
    return status


# ---- commands --------------------------------------------------------------------------------------------------------


def _print_notes(error: BaseException) -> None:
    """What an error says beside its message: how to go on, say."""
    for note in getattr(error, "__notes__", ()):
        print(f"trivec: {note}", file=sys.stderr)


# ---- arguments -------------------------------------------------------------------------------------------------------


def _silence_stdout() -> None:
    """Whoever read stdout is gone: what is still buffered goes nowhere, so the interpreter's last flush is silent."""
    with contextlib.suppress(OSError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
