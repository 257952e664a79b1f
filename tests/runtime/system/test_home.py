"""Where trivec keeps its notes, and that it does without on a machine that has no place for them."""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from tests.support.script import run_script
from tests.support.tiny_model import TinyModel

import trivec
from trivec._cli.main import main
from trivec._system.home import NoHomeError, home

BARE = """
import json, os, pwd, sys

def refuse(*_):
    raise KeyError("uid not found")

def watch(event, arguments):
    writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and arguments[0] != os.devnull
    if writes or event in ("os.mkdir", "os.rename", "os.remove", "os.link", "os.symlink"):
        raise OSError(30, "Read-only file system", str(arguments[0]))

pwd.getpwuid = refuse
for name in ("HOME", "TRIVEC_HOME", "XDG_CACHE_HOME", "TMPDIR"):
    os.environ.pop(name, None)
sys.addaudithook(watch)
import trivec
from trivec._cli.main import main
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files, of a user without a home."""

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.delenv("TRIVEC_HOME")
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_bare_machine(tiny_model: TinyModel) -> None:
    code = BARE + (
        "with trivec.load(sys.argv[1], device='cpu', threads=1) as encoder:\n"
        "    print(json.dumps(encoder.encode(['the cat sat', 'a red boat']).tolist()))\n"
    )
    vectors = np.array(json.loads(run_script(code, tiny_model.folder)))
    assert_allclose(vectors, tiny_model.expected(["the cat sat", "a red boat"]), atol=1e-6)


@pytest.mark.parametrize("command", ["info", "doctor"])
def test_commands_on_a_bare_machine(tiny_folder: Path, command: str) -> None:
    said = run_script(f"{BARE}\nassert main([{command!r}, sys.argv[1]]) == 0", tiny_folder)
    assert "fp32" in said
    if command == "doctor":
        assert "none: there is no home folder, and no temporary one that can be written (" in said


def test_lines_on_a_bare_machine(tiny_model: TinyModel, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("the cat\nbird\n", encoding="utf-8")
    code = BARE + "sys.stderr = None\nassert main(['encode', *sys.argv[1:], '-o', '-', '--threads', '1']) == 0"
    rows = [json.loads(line) for line in run_script(code, tiny_model.folder, tmp_path / "in.txt").splitlines()]
    vectors = np.array([row["embedding"] for row in rows])
    assert_allclose(vectors, tiny_model.expected(["the cat", "bird"]), atol=1e-6)


def test_a_folder_among_the_temporary_ones_is_private(temporary: Path) -> None:
    folder = temporary / f"trivec-{os.getuid()}"
    assert home() == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)  # as an earlier version left it: nobody else can have written there
    assert home() == folder
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("planted", ["writable", "link", "foreign", "file"])
def test_a_folder_that_others_made_is_not_used(
    temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: str
) -> None:
    folder, elsewhere = temporary / f"trivec-{os.getuid()}", tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    if planted == "link":
        folder.symlink_to(elsewhere)
    elif planted == "file":
        folder.write_bytes(b"")
    elif planted == "writable":
        folder.mkdir()
        folder.chmod(0o777)
    else:
        other = os.getuid() + 1
        monkeypatch.setattr(os, "getuid", lambda: other)
        (temporary / f"trivec-{os.getuid()}").mkdir(mode=0o700)
    with pytest.raises(
        NoHomeError, match=r"^there is no home folder, and .* Set TRIVEC_HOME to a folder of your own\.$"
    ):
        home()


def test_planted_notes_are_not_believed(temporary: Path, tiny_folder: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    weights = model / "onnx" / "model.onnx.data"
    data = bytearray(weights.read_bytes())
    data[9] ^= 1
    weights.write_bytes(data)
    known = json.loads((model / "trivec.json").read_text())["encoders"]["main"]["variants"]["fp32"]["files"]
    planted = temporary / f"trivec-{os.getuid()}"
    planted.mkdir()
    _plant(planted, weights, next(file["sha256"] for file in known if file["path"].endswith(".data")))
    with pytest.raises(trivec.IntegrityError, match="was altered"):
        _load_with(planted, 0o777, model)
    assert _load_with(planted, 0o700, model).dim == 12  # the note is the right one: a folder of one's own is believed


def _plant(folder: Path, file: Path, digest: str) -> None:
    """A note that the file is the one of that digest."""
    state = file.stat()
    note = f"{file.resolve()}\n{state.st_size}\n{state.st_mtime_ns}\n{digest}"
    (folder / "checked").mkdir()
    (folder / "checked" / hashlib.sha256(note.encode()).hexdigest()).touch()


def _load_with(folder: Path, mode: int, model: Path) -> trivec.DenseEncoder:
    folder.chmod(mode)
    encoder: trivec.DenseEncoder = trivec.load(model, device="cpu", threads=1)
    return encoder


def test_a_cache_of_an_unknown_user(tiny_folder: Path) -> None:
    for name in (str(tiny_folder), "lab/model"):
        with pytest.raises(
            trivec.InputError, match=r"^cache_dir='~no-such-user-here/hub': there is no such home folder"
        ):
            trivec.load(name, device="cpu", cache_dir="~no-such-user-here/hub", local_files_only=True)


def test_a_home_of_an_unknown_user(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_folder: Path
) -> None:
    monkeypatch.setenv("TRIVEC_HOME", "~no-such-user-here/trivec")
    assert trivec.load(tiny_folder, device="cpu").dim == 12
    assert main(["doctor"]) == 0
    assert str(temporary / f"trivec-{os.getuid()}") in capsys.readouterr().out
