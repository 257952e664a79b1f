"""A virtual environment for each engine, made once for each state of its requirements."""

import hashlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "benchmarks/peers"
SHARED = ROOT.parent / "shared"
"""Corpora and models, where they lie beside the checkout."""
_ALONE = "--no-deps "
"""Begins the line of a package that is installed without what it asks for."""
_TOOLS = ("pip", "setuptools", "wheel", "_distutils_hack", "pkg_resources", "distutils")  # of venv itself


class Failed(Exception):  # noqa: N818 - not an error of this program: a row of its report
    """Something of a peer did not work: what was run, and the last line of what it said."""

    def __init__(self, command: str, said: str) -> None:
        super().__init__(f"{command}: {said}")
        self.command, self.said = tidy(command), tidy(said)


def checkout(*packages: str) -> dict[str, str]:
    """This process's variables, with folders of the project ("runtime", "export") and its root on Python's path."""
    paths = [str(ROOT / name) for name in packages] + [str(ROOT)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


class Footprint(NamedTuple):
    """What an environment holds, without pip."""

    bytes: int
    packages: int


def tidy(text: str) -> str:
    """A text without what belongs to this machine: folders become relative, addresses go, a | would end a cell."""
    places = ((sys.prefix, "VENV"), (f"{ROOT}{os.sep}", ""), (str(ROOT), "."), (str(ROOT.parent), ".."))
    for folder, name in (*places, (str(Path.home()), "~")):
        text = text.replace(folder, name) if len(folder) > 1 else text  # a checkout in the root of the disk
    return re.sub(r"https?://\S+", "(address)", text).replace("|", "/")


def requirements(name: str) -> list[str]:
    """What an environment installs: of "trivec" what trivec[cpu] needs, of "trivec-NAME" that extra as well."""
    ours, _, extra = name.partition("-")
    if ours == "trivec":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        extras = project["optional-dependencies"]
        return [*project["dependencies"], *extras["cpu"], *(extras[extra] if extra else ())]
    lines = (PEERS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def ensure(name: str, folder: Path) -> Path:
    """The environment's Python; made, and filled, where it is not there as its requirements want it.

    Raises:
        Failed: it cannot be made.
    """
    # A peer has versions of its own, which what trivec is tested with would contradict; torch is the same for all.
    constraints = ROOT / "scripts" / ("constraints.txt" if name.partition("-")[0] == "trivec" else "constraints.in")
    venv, wanted = folder / name, requirements(name)
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    state = hashlib.sha256("\n".join([*wanted, constraints.read_text(encoding="utf-8")]).encode()).hexdigest()
    marker = venv / ".bench-state"
    if marker.is_file() and marker.read_text(encoding="ascii") == state:
        return python
    print(f"setting up {tidy(str(venv))}: {' '.join(wanted)}", file=sys.stderr, flush=True)
    _run([sys.executable, "-m", "venv", "--clear", str(venv)])
    install = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(constraints)]
    _run([*install, *(each for each in wanted if not each.startswith(_ALONE))])
    alone = [each.removeprefix(_ALONE) for each in wanted if each.startswith(_ALONE)]
    if alone:
        _run([*install, "--no-deps", *alone])
    marker.write_text(state, encoding="ascii")
    return python


class Environments:
    """The environments of a run: each is made at its first need, and one that could not be made is not tried again."""

    def __init__(self, folder: Path) -> None:
        """Remember where they are."""
        self._folder = folder
        self._known: dict[str, Path | Failed] = {}

    def __call__(self, name: str) -> Path:
        """An environment's Python; raises as `ensure`."""
        if name not in self._known:
            try:
                self._known[name] = ensure(name, self._folder)
            except Failed as error:
                self._known[name] = error  # once is enough: an installation that fails can take minutes
        found = self._known[name]
        if isinstance(found, Failed):
            raise found
        return found


def versions(venv: Path) -> dict[str, str]:
    """Installed packages and their versions, without pip."""
    found = {}
    for info in sorted(_site(venv).glob("*.dist-info")):
        name, _, version = info.name.removesuffix(".dist-info").rpartition("-")
        if name.lower() not in _TOOLS:
            found[name.lower().replace("_", "-")] = version
    return found


def footprint(venv: Path) -> Footprint:
    """Bytes and packages of an environment: files as they are installed, without compiled ones."""
    size = 0
    for entry in _site(venv).iterdir():
        if entry.name.partition("-")[0] not in _TOOLS:
            size += size_of(entry)
    return Footprint(size, len(versions(venv)))


def size_of(path: Path) -> int:
    """Bytes of a file, or of a folder's files without __pycache__."""
    if path.is_file():
        return path.stat().st_size
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file() and f.parent.name != "__pycache__")


def _site(venv: Path) -> Path:
    return next(venv.glob("lib/python3*/site-packages"), venv / "Lib/site-packages")


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        errors = [line for line in lines if "ERROR" in line]
        raise Failed(" ".join(command), (errors or lines or [f"status {done.returncode}"])[-1])
