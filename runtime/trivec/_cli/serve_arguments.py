"""The flags of `trivec serve`, each also an environment variable."""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trivec._cli.commands import run_serve
from trivec._engine.devices import ENGINES
from trivec._model.manifest import LOADED_PRECISIONS
from trivec._system.switches import is_on

_SIZES = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
_NO_VARIABLES = ("print_config", "help")


def add_serve(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The command and its flags."""
    parser = commands.add_parser(
        "serve",
        allow_abbrev=False,
        help="models over HTTP: the dialects of OpenAI, TEI, Cohere and vLLM",
        description="Serve models over HTTP until SIGTERM, then finish what was let in. Every flag can also be given "
        "as TRIVEC_ and its name: TRIVEC_MAX_WAIT=10. Needs trivec[serve].",
        epilog="Exit status: 0 drained; 1 a model that cannot be opened; 2 a command line that cannot be understood; "
        "3 the port is taken; 130, 143 a second signal.",
    )
    parser.add_argument(
        "models",
        metavar="MODEL",
        nargs="+",
        help="model folder or name on the Hub, or NAME=either; NAME.precision=int8 (or .device, .engine, .low_memory, "
        ".threads, .providers, .default_prompt_name) for one of several",
    )
    _add_address(parser)
    _add_models(parser)
    _add_limits(parser)
    _add_security(parser)
    parser.add_argument("--log-format", choices=("text", "json"), default="text", help="(default: %(default)s)")
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info", help="(default: %(default)s)"
    )
    parser.add_argument("--no-ui", action="store_true", help="no page at /: 200 and nothing, as of TEI")
    parser.add_argument("--print-config", action="store_true", help="print what is in force, and end")
    _read_variables(parser, os.environ)
    parser.set_defaults(run=run_serve)


def _add_address(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=8080, metavar="N", help="0 picks one (default: %(default)s)")
    parser.add_argument("--root-path", default="", metavar="PATH", help="what a proxy keeps before each path")
    parser.add_argument("--metrics-port", type=_port, metavar="N", help="serve the metrics on a port of their own too")


def _add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--alias", action="append", default=[], metavar="A=NAME", help="one more name of a model")
    parser.add_argument(
        "--precision",
        choices=("auto", *LOADED_PRECISIONS),
        default="auto",
        help="variant to run (default: %(default)s)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    add_engine(parser)
    add_low_memory(parser)
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: what this process may use)")
    parser.add_argument("--providers", metavar="LIST", help="onnxruntime's providers instead, separated by commas")
    parser.add_argument("--default-prompt-name", metavar="NAME", help="prompt of requests that name none")
    parser.add_argument(
        "--warm-up",
        choices=("none", "short", "full"),
        default="short",
        help="what runs before a model is ready: short texts, or one as long as it reads (default: %(default)s)",
    )


def add_engine(parser: "argparse.ArgumentParser | argparse._ArgumentGroup") -> None:
    """The flag that every command has that opens a model."""
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        help="what runs graphs; auto is onnxruntime (default: %(default)s)",
    )


def add_low_memory(parser: "argparse.ArgumentParser | argparse._ArgumentGroup") -> None:
    """The flag of commands that encode."""
    parser.add_argument(
        "--low-memory", action="store_true", help="leave weights in the mapped file, unpacked: less memory, slower"
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    def limit(name: str, kind: Any, default: object, text: str, metavar: str = "N") -> None:  # noqa: ANN401
        parser.add_argument(name, type=kind, default=default, metavar=metavar, help=f"{text} (default: %(default)s)")

    parser.add_argument(
        "--on-overflow",
        choices=("truncate", "error"),
        default="truncate",
        help="for texts longer than the model reads, where a request does not say (default: %(default)s)",
    )
    parser.add_argument(
        "--token-ids",
        choices=("refuse", "own"),
        default="refuse",
        help="ids in the place of texts: refuse them, or take them for the model's own (default: %(default)s)",
    )
    limit("--max-texts", int, 2048, "texts of a request")
    limit("--max-body", _size, "16MiB", "bytes of a request's body", "SIZE")
    limit("--max-request-tokens", int, 300_000, "tokens of a request")
    parser.add_argument(
        "--max-batch-tokens", type=_auto, default=None, metavar="N", help="tokens of a run (default: what takes 50 ms)"
    )
    limit("--max-wait", _seconds, "30s", "a request that would wait longer is refused with 429", "TIME")
    limit("--timeout", _seconds, "120s", "a request that waited so long is given up", "TIME")
    limit("--max-connections", int, 1024, "connections; who waits gets that of one idle for a second")
    limit("--header-timeout", _seconds, "10s", "for a request's headers", "TIME")
    limit("--body-timeout", _seconds, "30s", "for a request's body", "TIME")
    limit("--keep-alive", _seconds, "75s", "for the next request of a connection", "TIME")
    limit("--drain-delay", _seconds, "0s", "from SIGTERM to the end of accepting", "TIME")
    limit("--drain-timeout", _seconds, "25s", "for requests that were let in before", "TIME")


def _add_security(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help="keys, one a line, as KEY or NAME:KEY; a single one may come in TRIVEC_API_KEY",
    )
    parser.add_argument("--insecure", action="store_true", help="listen beyond loopback without a key")
    parser.add_argument("--cors-origin", action="append", default=[], metavar="ORIGIN", help="whose pages may ask")
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME", help="one more name in Host")


def _read_variables(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    """Take defaults from TRIVEC_ variables; argparse converts them as it does what is typed."""
    for action in parser._actions:
        value = environment.get(f"TRIVEC_{action.dest.upper()}")
        if not action.option_strings or value is None or action.dest in _NO_VARIABLES:
            continue
        if value.startswith("tcp://"):  # Kubernetes says so of a service called trivec
            continue
        if isinstance(action, argparse._StoreTrueAction):
            action.default = is_on(f"TRIVEC_{action.dest.upper()}")
        elif isinstance(action, argparse._AppendAction):
            action.default = [part.strip() for part in value.split(",") if part.strip()]
        else:
            action.default = value


def _port(argument: str) -> int:
    if not argument.isdecimal() or int(argument) > 65535:
        raise argparse.ArgumentTypeError(f"expected a port, 0 to 65535, got {argument!r}")
    return int(argument)


def _auto(argument: str) -> int | None:
    if argument == "auto":
        return None
    if not argument.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, or auto, got {argument!r}")
    return int(argument)


def _size(argument: str) -> int:
    number = argument.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    unit = argument[len(number) :].lower()
    if not number.isdecimal() or unit not in _SIZES:
        raise argparse.ArgumentTypeError(f"expected bytes, such as 16777216 or 16MiB, got {argument!r}")
    return int(number) * _SIZES[unit]


def _seconds(argument: str) -> float:
    try:
        found = float(argument.removesuffix("s"))
    except ValueError:
        found = -1.0
    if not 0 <= found < 1e9:
        raise argparse.ArgumentTypeError(f"expected seconds, such as 30 or 0.5s, got {argument!r}")
    return found
