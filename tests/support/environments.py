"""A script of tests.support in an environment of its own: asked on stdin, answered by a line of JSON."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def python_of(name: str, whose: str) -> Path:
    """The Python of an environment: scripts/setup NAME makes .venv-NAME, or what TRIVEC_NAME_VENV says.

    Raises:
        FileNotFoundError: it is not there; says whose it is.
    """
    found = ROOT / (os.environ.get(f"TRIVEC_{name.upper()}_VENV") or f".venv-{name}") / "bin/python"
    if not found.is_file():
        setup = f"scripts/setup {name}"
        raise FileNotFoundError(f"there is no {found}: {whose} have an environment of their own. Type: {setup}")
    return found


def asked(script: str, name: str, whose: str, question: str, environment: Mapping[str, str], seconds: float) -> Any:
    """What the script says last, as JSON.

    Args:
        script: its file.
        name: of the environment, as of `python_of`.
        whose: it is, in words.
        question: its stdin.
        environment: its variables.
        seconds: for all answers.

    Raises:
        FileNotFoundError: there is no such environment.
        RuntimeError: the process ended, with what it said last.
    """
    done = subprocess.run(
        [python_of(name, whose), "-I", script],
        input=question,
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the process of {whose} ended. A new one: scripts/setup {name}\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])
