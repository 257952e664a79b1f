"""What every measure of a server takes: the folder, the sizes, texts and requests."""

import argparse
import asyncio
import random
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from benchmarks.concurrency import short_texts
from benchmarks.harness.load import Load, post
from benchmarks.harness.servers import Server
from benchmarks.harness.stats import turns
from benchmarks.harness.tables import Row
from benchmarks.harness.venvs import checkout

import trivec

PATH = "/v1/embeddings"
Way = Callable[[], float]


class Run:
    """One run: the folder, the sizes, and the tables so far."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.short, self.bulk = short_texts(2048), long_texts(512, 150)
        self.batches = [self.short[i : i + 32] for i in range(0, 1024, 32)]
        self.saturation = 0.0  # short texts a second, one a request
        self.idle = float("inf")  # milliseconds of one text, the median

    def serve(self, precision: str = "int8", *flags: str, folder: Path | None = None) -> Server:
        """Ours, with a port of its own."""
        command = [sys.executable, "-m", "trivec", "serve", f"minilm={folder or self.args.folder}", "--port", "{port}"]
        more = ["--precision", precision, "--threads", str(self.args.threads), "--log-level", "warning", *flags]
        return Server([*command, *more], checkout("runtime"), ready="/health/ready", live="/health/live")

    def load(self, precision: str = "int8", *, folder: Path | None = None) -> Any:  # noqa: ANN401 - an encoder
        """The same encoder, here."""
        settings: dict[str, Any] = {"precision": precision, "device": "cpu", "threads": self.args.threads}
        return trivec.load(folder or self.args.folder, **settings)

    def rounds(self, ways: dict[str, Way]) -> dict[str, list[float]]:
        """What each way gives in each round, in turns."""
        found: dict[str, list[float]] = {name: [] for name in ways}
        for name in turns(list(ways), self.args.rounds):
            found[name].append(ways[name]())
        return found


def long_texts(number: int, words: int) -> list[str]:
    """So many texts of so many words."""
    rng = random.Random(3)
    pool = " ".join(short_texts(400)).split()
    return [" ".join(rng.choices(pool, k=words)) for _ in range(number)]


def embeddings(texts: str | list[str], form: str = "base64") -> bytes:
    """A request of ours, and of every server that speaks OpenAI's dialect."""
    return post(PATH, {"model": "minilm", "input": texts, "encoding_format": form})


def go(work: Coroutine[Any, Any, Load]) -> Load:
    """Run a load."""
    return asyncio.run(work)


def goal(ratio: float, least: float) -> Row:
    """A ratio that should be at least so much."""
    return {"goal": f">= {least}", "met": met(ratio >= least)}


def met(reached: object) -> str:
    """Whether a goal is."""
    return "yes" if reached else "NO"
