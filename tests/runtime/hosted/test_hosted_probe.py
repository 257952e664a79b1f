"""A hosted model that changes under its name: files keep its probe, and who goes on with one or compares it is told."""

import base64
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.loopback import Loopback, Reply, vectors

from trivec import store
from trivec._cli.main import main
from trivec._errors import InputError, ServiceError
from trivec.compare import diff
from trivec.hosted import HostedEncoder
from trivec.hosted._encoder import PROBES
from trivec.store import _write

Open = Callable[..., HostedEncoder]
TEXTS = [f"text {n}" for n in range(40)]
CHANGED = "the model behind this name has changed since. For a fixed text it gives vectors of a cosine of "


def answers(server: Loopback, change: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> None:
    """From now on the model (cohere's) gives other vectors (N, D)."""

    def changed(found: Any) -> Any:
        rows = np.array(found["embeddings"]["float"])
        return {**found, "embeddings": {"float": change(rows).tolist()}}

    server.refuse = lambda _: Reply(change=changed)


def turned(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Of a cosine of 0.999 to what they were."""
    other = np.roll(rows, 1, 1)
    other -= (other * rows).sum(1, keepdims=True) * rows
    angle = np.arccos(0.999)
    return np.asarray(rows * np.cos(angle) + other / np.linalg.norm(other, axis=1, keepdims=True) * np.sin(angle))


def noisy(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """As between two calls of one model: of a cosine above 0.99999."""
    return np.asarray(rows * (1 + 1e-3 * np.random.default_rng(0).standard_normal(rows.shape)))


def probes(server: Loopback) -> int:
    return sum(asked.texts == list(PROBES) for asked in server.asked)


def cut_off(path: Path, encoder: HostedEncoder, server: Loopback) -> None:
    """A run that ends after half of the texts."""
    working = server.refuse
    server.refuse = lambda some: Reply(401, {}) if TEXTS[20] in some else working(some)
    with pytest.raises(ServiceError):
        store.write(path, encoder, TEXTS, batch_size=10, window=10)
    server.refuse = working


@pytest.mark.parametrize("suffix", [".npy", ".jsonl", ".parquet"])
def test_every_file_has_one(suffix: str, provider: str, server: Loopback, opened: Open, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    store.write(path, opened(provider, dimensions=8), TEXTS)
    assert (probes(server), len(server.texts)) == (1, len(TEXTS) + 3)
    stored = store.read(path)
    assert stored.probe is not None
    kept = np.frombuffer(base64.b64decode(stored.probe), dtype="<f2").reshape(3, 8)
    np.testing.assert_allclose(kept, vectors(PROBES), atol=5e-4)
    np.testing.assert_allclose(np.asarray(stored.vectors), vectors(TEXTS), atol=1e-7)


@pytest.mark.parametrize(("change", "told"), [(turned, True), (noisy, False)])
def test_going_on(
    change: Any, told: bool, server: Loopback, opened: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.npy"
    encoder = opened("cohere", dimensions=8, concurrency=1)
    first = store_probe(tmp_path, encoder)
    cut_off(path, encoder, server)
    answers(server, change)
    if told:
        with pytest.raises(
            InputError,
            match=rf"{CHANGED}0\.9990 to those it gave\. For vectors of one model start over: rm .*x\.npy\.part",
        ):
            store.write(path, encoder, TEXTS, window=10, strict=True)
    server.asked.clear()
    assert store.write(path, encoder, TEXTS, window=10).resumed == 20
    assert probes(server) == 1
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [f"{CHANGED}0.9990" in message for message in warned] == [True] * told
    assert store.read(path).probe == first  # of those that began it


def store_probe(folder: Path, encoder: HostedEncoder) -> str | None:
    """What a file of its own says."""
    store.write(folder / "own.npy", encoder, ["a"])
    return store.read(folder / "own.npy").probe


def test_a_file_that_went_on_is_that_of_one_run(server: Loopback, opened: Open, tmp_path: Path) -> None:
    encoder = opened("cohere", dimensions=8, concurrency=1)
    cut_off(tmp_path / "x.parquet", encoder, server)
    for name in ("x.parquet", "y.parquet"):
        store.write(tmp_path / name, encoder, TEXTS, window=10)
    assert (tmp_path / "x.parquet").read_bytes() == (tmp_path / "y.parquet").read_bytes()


def test_an_earlier_run_without_one(
    server: Loopback, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Files and journals from before there were probes are read and go on, and nobody is asked in vain."""
    encoder = opened("cohere", dimensions=8, concurrency=1)
    with monkeypatch.context() as before:
        before.setattr(_write, "probe_of", lambda _: None)
        store.write(tmp_path / "old.jsonl", encoder, TEXTS)
        cut_off(tmp_path / "x.npy", encoder, server)
    assert "probe" not in (tmp_path / "old.jsonl").read_text()
    answers(server, turned)
    diff(tmp_path / "old.jsonl", encoder)
    assert probes(server) == 0
    assert store.write(tmp_path / "x.npy", encoder, TEXTS, window=10).resumed == 20
    assert probes(server) == 1
    assert caplog.text == ""


def test_the_command_line(
    server: Loopback, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """`trivec encode` goes on, and `trivec diff` compares, as the functions do."""
    name = f"cohere:m?base_url={server.url}&dimensions=8&concurrency=1"
    source, out = tmp_path / "texts.txt", tmp_path / "x.jsonl"
    source.write_text("\n".join(TEXTS))
    command = ["encode", name, str(source), "-o", str(out), "--no-progress", "--batch-size", "10", "--window", "10"]
    server.refuse = lambda some: Reply(401, {}) if TEXTS[20] in some else None
    assert main(command) == 1
    answers(server, turned)
    capsys.readouterr()
    assert main([*command, "--strict"]) == 1
    assert f"{CHANGED}0.9990" in capsys.readouterr().err
    assert caplog.text == ""
    assert main(command) == 0
    assert f"{CHANGED}0.9990" in caplog.text
    for change, told in ((noisy, False), (turned, True)):
        answers(server, change)
        server.asked.clear()
        caplog.clear()
        assert main(["diff", str(out), name]) in (0, 1)
        assert (f"x.jsonl: {CHANGED}0.9990" in caplog.text) == told
        assert probes(server) == 1


def test_comparing(server: Loopback, opened: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A model of another name has its own probe, and of that nothing follows."""
    encoder = opened("cohere", dimensions=8)
    store.write(tmp_path / "x.jsonl", encoder, TEXTS, method="encode_document")
    assert diff(encoder, tmp_path / "x.jsonl").verdict == "interchangeable"
    assert caplog.text == ""
    server.asked.clear()
    diff(tmp_path / "x.jsonl", opened("voyage", dimensions=8))
    assert (probes(server), caplog.text) == (0, "")
    answers(server, turned)
    store.write(tmp_path / "y.jsonl", encoder, TEXTS, method="encode_document")
    diff(tmp_path / "x.jsonl", tmp_path / "y.jsonl")
    assert f"x.jsonl: {CHANGED}0.9990" in caplog.text
    caplog.clear()
    server.refuse = lambda _: None
    store.write(tmp_path / "z.jsonl", opened("cohere"), TEXTS)
    server.dim = 6
    diff(tmp_path / "z.jsonl", opened("cohere"))
    said = "z.jsonl: the model behind this name has changed since. For a fixed text it gives 6 numbers where it gave 8"
    assert said in caplog.text


@pytest.mark.parametrize("probe", ["!", "AAAA", "", "QQ=="])
def test_one_that_is_none(probe: str, opened: Open, tmp_path: Path) -> None:
    """In a file that people edit."""
    encoder = opened("cohere", dimensions=8)
    store.write(tmp_path / "x.jsonl", encoder, TEXTS)
    first, *rest = (tmp_path / "x.jsonl").read_text().splitlines(keepends=True)
    row = json.loads(first)
    row["trivec"]["probe"] = probe
    (tmp_path / "x.jsonl").write_text("".join([json.dumps(row) + "\n", *rest]))
    if not probe:
        assert diff(tmp_path / "x.jsonl", encoder).verdict == "interchangeable"
        return
    with pytest.raises(InputError, match=r"x\.jsonl: damaged, its probe cannot be read"):
        diff(tmp_path / "x.jsonl", encoder)


def test_bits_are_probed_as_floats(server: Loopback, opened: Open, tmp_path: Path) -> None:
    """A bit that turns is no other model; what is asked for otherwise is the same."""
    encoder = opened("voyage", dimensions=8, output_dtype="ubinary", extra_body={"seed": 1}, cache=tmp_path / "c.db")
    assert encoder.encode(TEXTS).shape == (40, 1)
    for _ in range(2):  # and never from the cache
        np.testing.assert_array_equal(encoder.probe(), vectors(PROBES))
    asked = server.asked[-1].body
    assert (asked["output_dimension"], asked["seed"], asked.get("output_dtype")) == (8, 1, None)
    assert probes(server) == 2
    assert encoder.encode(["a"]).shape == (1, 1)
    encoder.close()
    with pytest.raises(InputError, match="closed"):
        encoder.probe()
