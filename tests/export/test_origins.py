"""What an exported folder knows of itself, and that two equal exports are equal to the byte."""

import getpass
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.architectures import make
from tests.support.hub import Hub
from threadpoolctl import threadpool_limits

import trivec
from trivec._inspect.info import info
from trivec._model import manifest_file
from trivec._model.manifest import Manifest
from trivec_export._checkpoint.fetch import fetch

CARD = """---
license: other
license_name: own-terms
license_link: https://example.org/terms
base_model: [lab/base, lab/second]
date: 2026-01-01
---
# The model\r
As somebody wrote it: \u00fc.
"""
OPTIONS = ["--max-texts", "64", "--calibration", "extra.txt", "--name", "support search", "--version", "2026.1"]
SECRET = "hf_TheTokenOfSomebody"


def checkpoint(folder: Path) -> Path:
    made = make("bert", folder / "own" / "checkpoint")
    (made / "README.md").write_bytes(CARD.encode())
    (made / "pytorch_model.bin").write_bytes(b"the same weights, which nothing reads")
    (folder / "extra.txt").write_text("a line of one's own\nand another\n")
    return made


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A checkpoint, its export here, and the same in another process: home, hashes and clock differ.

    Numpy's BLAS has one thread in both: with AVX2 alone it cuts sums by their number, and this process counted its
    cores before it was given one of them.
    """
    work = tmp_path_factory.mktemp("twice")
    made = checkpoint(work)
    with threadpool_limits(1, user_api="blas"):
        first = trivec.export(
            made,
            work / "first",
            max_texts=64,
            calibration=work / "extra.txt",
            name="support search",
            version="2026.1",
            token=SECRET,
            quiet=True,
        )
    there = work / "elsewhere" / "deeper"
    shutil.copytree(made, there / "checkpoint", copy_function=shutil.copyfile)  # with dates of its own
    shutil.copyfile(work / "extra.txt", there / "extra.txt")
    environment = {**os.environ, "PYTHONHASHSEED": "7", "HOME": str(there), "USER": "nobody", "TZ": "Asia/Tokyo"}
    environment["OPENBLAS_NUM_THREADS"] = "1"
    command = [sys.executable, "-m", "trivec", "export", "./checkpoint", "out/second", *OPTIONS, "--quiet"]
    subprocess.run(command, cwd=there, env=environment, check=True, capture_output=True, timeout=1800)
    return made, first, there / "out" / "second"


def manifest(folder: Path) -> Manifest:
    return manifest_file.read(folder)


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_equal_exports_are_equal_to_the_byte(twice: tuple[Path, Path, Path]) -> None:
    _, first, second = twice
    assert (first / "trivec.json").read_text() == (second / "trivec.json").read_text()
    ours, theirs = digests(first), digests(second)
    assert {"trivec.json", "README.md", "SOURCE_README.md", "onnx/model_int8.onnx.data"} < set(ours)
    del ours["REPORT.md"], theirs["REPORT.md"]
    assert ours == theirs


def test_times_are_in_the_report_alone(twice: tuple[Path, Path, Path]) -> None:
    _, first, _ = twice
    assert "ms_per_text" not in (first / "trivec.json").read_text()
    report = (first / "REPORT.md").read_text(encoding="utf-8")
    header, _, fp32, fp16, int8 = [re.split(r" ?\| ?", line) for line in report.splitlines() if line.startswith("|")][
        :5
    ]
    column = header.index("ms a text")
    assert float(fp32[column]) > 0
    assert float(int8[column]) > 0
    assert fp16[column] == ""  # another graph stood for it
    assert re.search(r"^Made on \d{4}-\d\d-\d\d: Python 3[\d.]+, \w+ \w+, \d+ threads\.", report, flags=re.MULTILINE)


def test_nothing_of_the_machine_is_in_any_file(twice: tuple[Path, Path, Path]) -> None:
    made, *exports = twice
    work = made.parents[1]
    never = [
        str(work),
        str(Path.home()),
        str(Path(sys.prefix)),
        SECRET,
        socket.gethostname(),
        os.sep + getpass.getuser(),
    ]
    for folder in exports:
        for path in (path for path in folder.rglob("*") if path.is_file()):
            content = path.read_bytes()
            assert not [text for text in never if len(text) > 4 and text.encode() in content], path


def test_what_it_was_made_of_and_how(twice: tuple[Path, Path, Path]) -> None:
    made, first, _ = twice
    found = manifest(first)
    (origin,) = found.origins
    read = {name: digest for name, digest in digests(made).items() if name != "pytorch_model.bin"}
    assert origin.files == read
    assert {"model.safetensors", "tokenizer.json", "README.md"} < read.keys()
    assert (origin.name, origin.revision) == ("checkpoint", None)
    assert origin.license == "other, own-terms, https://example.org/terms"
    assert origin.base_model == ("lab/base", "lab/second")
    assert (found.name, found.version) == ("support search", "2026.1")
    assert found.command == (
        "trivec export checkpoint OUT --calibration extra.txt --max-texts 64 --name 'support search' --version 2026.1"
    )
    extra = hashlib.sha256((made.parents[1] / "extra.txt").read_bytes()).hexdigest()
    assert found.source["calibration_sha256"] == extra
    assert {"trivec", "torch", "transformers", "onnx", "onnxruntime"} <= found.tools.keys()
    lines = info(str(first)).splitlines()
    assert "origin       checkpoint, a local folder" in lines
    assert "license      other, own-terms, https://example.org/terms" in lines


def test_the_card_travels_as_it_is(twice: tuple[Path, Path, Path]) -> None:
    made, first, _ = twice
    found = manifest(first)
    assert (first / "SOURCE_README.md").read_bytes() == (made / "README.md").read_bytes() == CARD.encode()
    assert found.card is not None
    assert (found.card.path, found.card.sha256) == ("SOURCE_README.md", found.origins[0].files["README.md"])
    own = (first / "README.md").read_text(encoding="utf-8")
    assert "# support search 2026.1 as ONNX graphs for trivec" in own
    assert "[SOURCE_README.md](SOURCE_README.md)" in own


def test_a_name_and_a_version_are_no_part_of_the_fingerprint(twice: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, first, _ = twice
    nameless = Path(shutil.copytree(first, tmp_path / "nameless"))
    said = json.loads((nameless / "trivec.json").read_text())
    for field in ("name", "version", "card", "origins", "command", "source", "tools"):
        del said[field]
    (nameless / "trivec.json").write_text(json.dumps(said))
    with trivec.load(first, device="cpu") as one, trivec.load(nameless, device="cpu") as other:
        assert one.fingerprint == other.fingerprint


@pytest.mark.parametrize("wrong", ["", "two\nlines", "x" * 101, "\x1b[31m", 7])
@pytest.mark.parametrize("what", ["name", "version"])
def test_names_that_are_none(what: str, wrong: object, tmp_path: Path) -> None:
    options: dict[str, object] = {what: wrong}
    with pytest.raises(trivec.InputError, match=f"^{what} .*: expected 1 to 100 letters"):
        trivec.export("checkpoint", tmp_path / "out", **options)  # type: ignore[arg-type]  # planted


def test_a_checkpoint_whose_files_are_links_out_of_it(tmp_path: Path) -> None:
    """Whatever they lead to would end up in a folder that is meant to be handed on."""
    made = make("bert", tmp_path / "checkpoint")
    (tmp_path / "secret").write_text("{}")
    (made / "added_tokens.json").symlink_to(tmp_path / "secret")
    with pytest.raises(trivec.ModelFormatError, match=r"added_tokens\.json leads to .*secret, out of the model folder"):
        trivec.export(made, tmp_path / "out", precision=["fp32"], max_texts=64, quiet=True)
    assert not (tmp_path / "out").exists()


def test_the_heads_of_bge_m3_are_fetched_with_the_rest(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    read = ("README.md", "colbert_linear.pt", "config.json", "model.safetensors", "sparse_linear.pt", "tokenizer.json")
    others = ("flax_model.msgpack", "onnx/config.json", "optimizer.pt", "pytorch_model.bin", "training.py")
    repository = hub.add("lab/m3", {name: name.encode() for name in (*read, *others)})
    found = fetch("lab/m3", revision=None, token=None, with_code=False)
    assert sorted(found.files) == sorted(hub.files()) == list(read)
    assert (found.name, found.revision) == ("lab/m3", repository.refs["main"])
