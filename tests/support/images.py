"""A Dockerfile replayed a line at a time: a new environment for FROM, and a folder for the root of the image."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_PLACES = r"(?<=[\s\"'=])/(?=(?:tmp|models|srv)/)"  # what paths of the image begin with


class Image:
    """What the lines have made so far.

    Attributes:
        root: the folder that stands for /.
        environment: of every command; nothing of the machine's but where packages come from.
        words: what CMD, ENTRYPOINT, HEALTHCHECK, USER and EXPOSE say, their paths below `root`.
    """

    def __init__(self, base: Path) -> None:
        self.root, venv = base / "root", base / "venv"
        self.environment = {"PATH": f"{venv / 'bin'}:/usr/bin:/bin"}
        self.environment["PIP_CONSTRAINT"] = str(ROOT / "scripts/constraints.txt")
        self.environment |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
        self.words: dict[str, str] = {}
        self._venv = venv

    def build(self, lines: list[str], context: Path) -> None:
        """Follow the lines; a step that is not known fails."""
        for line in lines:
            if not line or line.startswith("#"):
                continue
            step, _, words = line.partition(" ")
            inside = self.inside(words)
            if step == "FROM":
                assert re.fullmatch(r"python:3\.\d+-slim", words)
                self.root.mkdir()
                self.run([sys.executable, "-m", "venv", str(self._venv)])
            elif step == "COPY":
                source, target = context / inside.split()[0], Path(inside.split()[1])
                target = target / source.name if inside.endswith("/") else target
                target.parent.mkdir(parents=True, exist_ok=True)
                (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
            elif step == "RUN":
                self.run(["bash", "-euc", inside])
            elif step == "ENV":
                self.environment |= dict(pair.split("=") for pair in inside.split())
            else:
                assert step in ("CMD", "ENTRYPOINT", "HEALTHCHECK", "USER", "EXPOSE"), step
                self.words[step] = inside

    def inside(self, words: str) -> str:
        """Words, with paths of the image below `root`."""
        return re.sub(_PLACES, f"{self.root}/", f" {words}").strip()

    def command(self, step: str) -> list[str]:
        """The words of ENTRYPOINT, CMD or HEALTHCHECK, in their exec form: a shell would keep signals to itself."""
        found: list[str] = json.loads(
            self.words[step].partition("CMD ")[2] if step == "HEALTHCHECK" else self.words[step]
        )
        return found

    @property
    def is_nobodys(self) -> bool:
        """Whether it runs as a user without rights."""
        return self.words["USER"].isdigit() and int(self.words["USER"]) > 0

    def run(self, command: list[str]) -> str:
        """What a command of the image prints; it ends with 0."""
        done = subprocess.run(
            command, cwd=self.root, env=self.environment, capture_output=True, text=True, timeout=1800, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
