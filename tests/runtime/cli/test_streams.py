"""Streams that are closed, missing, full or of a small alphabet, and locales without UTF-8: the work is done."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import trivec
from trivec._cli.main import main
from trivec._system.streams import prepare_streams, tell

PROMPT = "为检索写: 😀 é "
TEXTS = ["two boats", "snow", "the red train"]
NO_UTF8 = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture(scope="module")
def model(tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose folder and prompt are not ASCII."""
    folder = tmp_path_factory.mktemp("streams") / "模型 ü"
    shutil.copytree(tiny_model.folder, folder)
    manifest = json.loads((folder / "trivec.json").read_text(encoding="utf-8"))
    manifest["prompts"] = {"query": PROMPT}
    (folder / "trivec.json").write_text(json.dumps(manifest, ensure_ascii=False), encoding="utf-8")
    return folder


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "in.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    return tmp_path


def run(redirections: str, *arguments: str | Path, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    """The command in a process of its own, behind a shell's redirections."""
    command = ["sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-m", "trivec", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment}
    return subprocess.run(command, env=environment, capture_output=True, timeout=600, check=False)


class Full(io.TextIOBase):
    """A stream whose disk is full."""

    def write(self, text: str, /) -> int:
        raise OSError(28, "No space left on device", text)


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("redirections", ["2>&-", ">&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_encode_with_closed_descriptors(model: Path, work: Path, redirections: str) -> None:
    done = run(redirections, "encode", model, work / "in.txt", "-o", work / "out.npy", "--progress", "--threads", "1")
    assert done.returncode == 0
    assert done.stdout == b""  # `print` to a stderr that is missing would end up here
    with trivec.load(model, device="cpu", threads=1) as encoder:
        assert_array_equal(np.load(work / "out.npy"), encoder.encode(TEXTS))


def test_lines_on_stdout_stay_alone(model: Path, work: Path) -> None:
    done = run("2>&-", "encode", model, work / "in.txt", "-o", "-", "--progress", "--threads", "1")
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == TEXTS


def test_no_file_gets_the_number_of_a_closed_stream(work: Path) -> None:
    """What a library writes to descriptor 2 would land in it."""
    code = (
        "from trivec._system.streams import prepare_streams; import os, sys; prepare_streams(); "
        "f = open(sys.argv[1], 'w'); os.write(2, b'a complaint'); f.write(str(f.fileno() > 2))"
    )
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", code, str(work / "out")]
    path = os.pathsep.join(filter(None, sys.path))
    subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=True, timeout=600)
    assert (work / "out").read_text() == "True"


@pytest.mark.parametrize("stream", [lambda: None, closed, Full])
@pytest.mark.parametrize(
    "arguments",
    [
        ["info", "MODEL"],
        ["similarity", "MODEL", "a boat", "two boats", "--threads", "1"],
        ["explain", "MODEL", "snow", "--threads", "1"],
        ["encode", "MODEL", "IN", "-o", "OUT", "--progress", "--threads", "1"],
    ],
)
def test_commands_without_streams(
    model: Path, work: Path, arguments: list[str], stream: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under a Windows service; stdout is missing, stderr missing, closed or full."""
    names = {"MODEL": str(model), "IN": str(work / "in.txt"), "OUT": str(work / "out.npy")}
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", stream())
    assert main([names.get(argument, argument) for argument in arguments]) == 0
    assert (work / "out.npy").exists() == ("OUT" in arguments)


def test_what_needs_a_stream_says_so(
    model: Path, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["encode", str(model), "-", "-o", str(work / "out.npy")]) == 1
    assert "stdin is closed, so that no texts come from there. Name a file" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["encode", str(model), str(work / "in.txt"), "-o", "-"]) == 1
    assert "stdout is closed, so that no vectors can go there. Name a file: -o vectors.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_prompt_that_stdout_cannot_encode(model: Path, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (["info", str(model)], ["info", str(model), "--json"]):
        written = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
        assert main(arguments) == 0
        text = written.getvalue().decode(encoding)
        if "--json" in arguments:
            assert json.loads(text)["prompts"] == {"query": PROMPT}
        else:
            (line,) = (line for line in text.splitlines() if line.startswith("prompt"))
            assert json.loads(line.partition("query: ")[2]) == PROMPT
            assert ("\\u4e3a" in line) == (encoding != "utf-8")


def test_bytes_of_a_path_are_printed_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="utf-8"))
    prepare_streams()
    print(os.fsdecode(b"caf\xe9"), "caf\ud800", flush=True)
    assert written.getvalue() == b"caf\xe9 caf\\ud800\n"


def test_a_locale_without_utf8(model: Path, work: Path) -> None:
    out = work / "größe.jsonl"
    arguments = ("encode", model, work / "in.txt", "-o", out, "--prompt", "雪 ", "--threads", "1")
    done = run("", *arguments, **NO_UTF8)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    with trivec.load(model, device="cpu", threads=1) as encoder:
        expected = encoder.encode(TEXTS, prompt="雪 ")
    rows = [json.loads(line)["embedding"] for line in out.read_text(encoding="utf-8").splitlines()]
    np.testing.assert_allclose(rows, expected, rtol=1e-6)


def test_a_folder_whose_name_is_no_text(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / os.fsdecode(b"m\xff")
    shutil.copytree(model, folder)
    assert main(["similarity", str(folder), "a", "b", "--threads", "1"]) == 1
    assert "is not UTF-8, and onnxruntime and tokenizers open no others. Rename the folder." in capsys.readouterr().err


@pytest.mark.parametrize("stream", [lambda: None, closed, Full])
def test_progress_bars_and_lines_of_the_library(
    model: Path, stream: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with trivec.load(model, device="cpu", threads=1) as encoder:
        expected = encoder.encode(TEXTS)
        monkeypatch.setattr(sys, "stderr", stream())
        assert_array_equal(encoder.encode(TEXTS, show_progress_bar=True), expected)
        tell("a line for nobody")
        assert capsys.readouterr().out == ""
