"""`trivec serve`: what its flags make of models, settings and keys, and the process that they start."""

import argparse
import contextlib
import ipaddress
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trivec._errors import InputError
from trivec._system.streams import tell

if TYPE_CHECKING:
    from trivec.server import Settings

USAGE, PORT_TAKEN = 2, 3
_OF_A_MODEL = ("precision", "device", "engine", "low_memory", "threads", "providers", "default_prompt_name")


def run(args: argparse.Namespace) -> int:
    """Serve until a signal."""
    try:
        sources, aliases, settings = _models(args), _aliases(args.alias), _settings(args)
    except InputError as error:
        tell(f"trivec serve: error: {error}")
        return USAGE
    if args.print_config:
        print(json.dumps(_config(args, sources, aliases, settings), indent=2))
        return 0
    with _log_to_stderr(args.log_format, args.log_level):
        return _serve(args, sources, aliases, settings)


def _serve(
    args: argparse.Namespace, sources: Mapping[str, dict[str, Any]], aliases: Mapping[str, str], settings: "Settings"
) -> int:
    from trivec._load import load
    from trivec.server._app import App
    from trivec.server._models import Model
    from trivec.server._process import PortTakenError, Process, listen

    log = logging.getLogger("trivec.server")
    try:
        app = App({name: Model(name, settings) for name in sources}, aliases, settings)
    except InputError as error:
        tell(f"trivec serve: error: {error}")
        return USAGE
    try:
        listener = listen(args.host, args.port)
        if args.metrics_port is not None:
            _serve_metrics(app, args.host, args.metrics_port)
    except PortTakenError as error:
        tell(f"trivec serve: error: {error}")
        return PORT_TAKEN

    def open_all() -> None:
        for name, source in sources.items():
            encoder = load(**source)
            app.open(name, encoder)
            app.registry.models[name].warm_up()
            log.info(
                "model %s: %s, %s on %s, %s threads, fingerprint %s",
                name, source["name_or_folder"], encoder.precision, encoder.device, source["threads"] or "all",
                encoder.fingerprint[:16],
            )  # fmt: skip

    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    log.info("listening on http://%s:%s", shown, port)
    log.info("in force: %s", json.dumps(_config(args, sources, aliases, settings)["limits"]))
    Process(app, listener, open_all).run()
    return 0


def _serve_metrics(app: Any, host: str, port: int) -> None:  # noqa: ANN401 - an App
    from prometheus_client import start_http_server

    from trivec.server._process import PortTakenError

    try:
        start_http_server(port, addr=host, registry=app.metrics.registry)
    except OSError as error:
        raise PortTakenError(f"port {port} of {host}, for the metrics, cannot be had: {error.strerror}.") from error


# ---- arguments -------------------------------------------------------------------------------------------------------


def _models(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """What `load` is to be called with, by the names that are served."""
    common = {name: getattr(args, name) for name in _OF_A_MODEL}
    found: dict[str, dict[str, Any]] = {}
    own: list[tuple[str, str, str]] = []
    for argument in args.models:
        name, equals, value = argument.partition("=")
        model, _, option = name.rpartition(".")
        if equals and model and option in _OF_A_MODEL:
            own.append((model, option, value))
            continue
        name, place = (name, value) if equals else (Path(argument).name, argument)
        if not name or not place:
            raise InputError(f"{argument!r} names no model. Type NAME=FOLDER.")
        if name in found:
            raise InputError(f"two models are called {name!r}. Type NAME=FOLDER for one of them.")
        found[name] = {"name_or_folder": place, **common}
    if not found:
        raise InputError("there is no model to serve. Type: trivec serve NAME=FOLDER")
    for model, option, value in own:
        if model not in found:
            raise InputError(f"{model}.{option}={value}: there is no model {model!r}, only {', '.join(found)}.")
        found[model][option] = _own(f"{model}.{option}", option, value)
    for each in found.values():
        if each["providers"] is not None:
            each["providers"] = [name.strip() for name in str(each["providers"]).split(",")]
    return found


def _own(name: str, option: str, value: str) -> object:
    """What a model's own option says."""
    if option == "threads":
        if not value.isdecimal():
            raise InputError(f"{name} must be a whole number, got {value!r}.")
        return int(value)
    if option == "low_memory":
        if value not in ("true", "false"):
            raise InputError(f"{name} must be true or false, got {value!r}.")
        return value == "true"
    return value


def _aliases(given: Sequence[str]) -> dict[str, str]:
    found = {}
    for argument in given:
        alias, equals, name = argument.partition("=")
        if not equals or not alias or not name:
            raise InputError(f"--alias {argument!r}: expected A=NAME.")
        found[alias] = name
    return found


def _settings(args: argparse.Namespace) -> "Settings":
    from trivec.server import Settings

    loopback = _is_loopback(args.host)
    keys = _keys(args.api_key_file, os.environ.get("TRIVEC_API_KEY"))
    if not loopback and not keys and not args.insecure:
        raise InputError(
            f"--host {args.host} can be reached from elsewhere, and there is no key. Give one (--api-key-file FILE, or "
            "TRIVEC_API_KEY), or say --insecure."
        )
    if "*" in (*args.cors_origin, *args.allow_host) and not args.insecure:
        raise InputError("'*' in --cors-origin or --allow-host lets any page ask. Name them, or say --insecure.")
    names = (
        "on_overflow", "token_ids", "max_texts", "max_body", "max_request_tokens", "max_batch_tokens", "max_wait",
        "timeout", "max_connections", "header_timeout", "body_timeout", "keep_alive", "drain_delay", "drain_timeout",
        "warm_up",
    )  # fmt: skip
    hosts = tuple(name.lower() for name in args.allow_host)
    return Settings(
        **{name: getattr(args, name) for name in names},
        keys=keys,
        cors_origins=tuple(args.cors_origin),
        allow_hosts=hosts or (("*",) if keys and not loopback else ()),  # a key keeps foreign pages out by itself
        open_metrics=loopback or not keys,
        ui=not args.no_ui,
        root_path=args.root_path.rstrip("/"),
    )


def _keys(file: Path | None, variable: str | None) -> dict[str, str]:
    """Names of keys, by key."""
    found: dict[str, str] = {}
    if variable:
        found[variable] = "TRIVEC_API_KEY"
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--api-key-file {file} cannot be read: {getattr(error, 'strerror', error)}.") from None
        for number, line in enumerate((line.strip() for line in lines), 1):
            if line and not line.startswith("#"):
                name, colon, key = line.partition(":")
                found[key if colon else line] = name if colon else f"line {number}"
        if all(name == "TRIVEC_API_KEY" for name in found.values()):
            raise InputError(f"--api-key-file {file} has no key.")
    if "" in found or any(not key.isascii() or not key.isprintable() or " " in key for key in found):
        raise InputError("a key must be of printable ASCII characters, without blanks.")
    return found


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _config(
    args: argparse.Namespace, sources: Mapping[str, dict[str, Any]], aliases: Mapping[str, str], settings: "Settings"
) -> dict[str, Any]:
    """What is in force; of keys, their names."""
    limits = asdict(settings)
    limits["keys"] = sorted(settings.keys.values())
    address = {name: getattr(args, name) for name in ("host", "port", "metrics_port")}
    log = {"format": args.log_format, "level": args.log_level}
    return {**address, "models": sources, "aliases": aliases, "limits": limits, "log": log}


@contextlib.contextmanager
def _log_to_stderr(form: str, level: str) -> Iterator[None]:
    """Ours alone, and only for as long as it serves: `main` may be called by a program with a log of its own."""
    from trivec.server._log import JsonFormatter

    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(JsonFormatter() if form == "json" else text)
    logger = logging.getLogger("trivec")
    before, hook, propagate = logger.level, threading.excepthook, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False
    threading.excepthook = lambda told: logger.error("a thread ended by %s", told.exc_type.__name__)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        logger.propagate = propagate
        threading.excepthook = hook
