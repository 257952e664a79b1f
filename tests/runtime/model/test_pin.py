"""A model that is pinned by its manifest's digest, and manifests that leave digests out."""

import hashlib
import json
import logging
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.hub import Hub, files_of
from tests.support.tiny_model import TinyModel

import trivec
from trivec import InputError, IntegrityError, ModelFormatError
from trivec._cli.main import main
from trivec._gate.verify import verify
from trivec._inspect.info import info
from trivec._loading import choice

GOLDEN = Path(__file__).parents[2] / "golden"
OTHER = f"sha256:{'0' * 64}"
TEXTS = ["the cat sat", "a red boat"]


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def sha256(folder: Path) -> str:
    """What `sha256sum trivec.json` says, as `expect=` takes it."""
    return f"sha256:{hashlib.sha256((folder / 'trivec.json').read_bytes()).hexdigest()}"


def rewrite(folder: Path, **fields: Any) -> None:
    """Other fields in trivec.json; without any, the same in other bytes."""
    path = folder / "trivec.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **fields}))


def without_digests(folder: Path, *names: str) -> None:
    path = folder / "trivec.json"
    text = path.read_text()
    for name in names:
        text, count = re.subn(rf'("path": "{re.escape(name)}",\s*"bytes": \d+),\s*"sha256": "[0-9a-f]+"', r"\1", text)
        assert count >= 1
    path.write_text(text)


def load(folder: Path | str, **options: Any) -> trivec.DenseEncoder:
    encoder: trivec.DenseEncoder = trivec.load(folder, **{"device": "cpu", "threads": 1, **options})
    return encoder


# ---- the pin ---------------------------------------------------------------------------------------------------------


def test_info_prints_what_expect_takes(folder: Path, tiny_model: TinyModel) -> None:
    (digest,) = re.findall(r"^digest +(\S+)$", info(str(folder)), flags=re.MULTILINE)
    assert digest == sha256(folder)
    with load(folder, expect=digest) as encoder:
        np.testing.assert_allclose(encoder.encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)
        assert encoder.load_arguments()["expect"] == digest
    assert hashlib.sha256(info(str(folder), as_json=True).encode()).hexdigest() == digest.removeprefix("sha256:")


def test_another_model_is_refused(folder: Path) -> None:
    digest = sha256(folder)
    rewrite(folder)
    with pytest.raises(IntegrityError) as caught:
        load(folder, expect=digest)
    assert str(caught.value) == (
        f"{folder} is another model than the one that was expected: its trivec.json is {sha256(folder)}, and "
        f"expect={digest!r}. Fetch the right one; or, where this one is right, type: expect={sha256(folder)!r}"
    )


def test_of_a_repository_nothing_but_the_manifest_is_fetched(hub: Hub, tiny_folder: Path, tmp_path: Path) -> None:
    hub.add("lab/tiny", files_of(tiny_folder))
    with pytest.raises(IntegrityError, match=f"its trivec.json is {sha256(tiny_folder)}, and expect='{OTHER}'"):
        load("lab/tiny", cache_dir=tmp_path, expect=OTHER)
    assert hub.files() == ["trivec.json"]
    load("lab/tiny", cache_dir=tmp_path, expect=sha256(tiny_folder)).close()
    assert "onnx/model.onnx" in hub.files()


@pytest.mark.parametrize("wrong", ["", "0" * 64, f"sha256:{'A' * 64}", f"sha256:{'0' * 63}", f"{OTHER}\n", 5, False])
def test_what_is_no_digest(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"is no digest of a trivec\.json\. Expected 'sha256:' and 64 digits"):
        load("nowhere", expect=wrong)


def test_a_model_without_a_manifest_cannot_be_pinned(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(
        IntegrityError, match=rf"has no trivec\.json, .* model of {OTHER} .*; trivec export makes one\."
    ):
        load(GOLDEN / "static", expect=OTHER)
    hub.add("lab/static", files_of(GOLDEN / "static"))
    with pytest.raises(IntegrityError, match="; revision=COMMIT pins a repository"):
        load("lab/static", expect=OTHER, cache_dir=tmp_path)
    assert hub.files() == []


@pytest.mark.parametrize("pinned", [True, False])
def test_a_pickle_keeps_its_pin(folder: Path, pinned: bool) -> None:
    """The same files under another manifest: the digests that every pickle holds do not tell."""
    digest = sha256(folder)
    with load(folder, expect=digest if pinned else None) as encoder:
        expected, pickled = encoder.encode(TEXTS), pickle.dumps(encoder)
    rewrite(folder)
    if pinned:
        with pytest.raises(IntegrityError, match=f"expect='{digest}'"):
            pickle.loads(pickled)
        return
    with pickle.loads(pickled) as again:
        np.testing.assert_array_equal(again.encode(TEXTS), expected)


@pytest.mark.parametrize("command", ["encode", "similarity", "explain", "verify", "info", "doctor"])
def test_commands_that_open_a_model(command: str, folder: Path, tmp_path: Path, capfd: Any) -> None:
    (tmp_path / "texts.txt").write_text("the cat sat\na red boat\n")
    rest = {
        "encode": [str(tmp_path / "texts.txt"), "-o", str(tmp_path / "out.npy")],
        "similarity": ["a cat", "a dog"],
        "explain": ["a cat"],
        "verify": ["--texts", str(tmp_path / "texts.txt")],
        "info": [],
        "doctor": [],
    }
    arguments = [command, str(folder), *rest[command], "--expect"]
    assert main([*arguments, OTHER]) == 1
    assert f"expect='{OTHER}'" in "".join(capfd.readouterr())
    assert main([*arguments, sha256(folder)]) == 0


# ---- digests are mandatory -------------------------------------------------------------------------------------------

LEFT_OUT = [("tokenizer.json",), ("onnx/model_int8.onnx.data", "arrays.npz")]


@pytest.mark.parametrize("names", LEFT_OUT)
def test_a_manifest_without_digests_is_refused(folder: Path, names: tuple[str, ...]) -> None:
    """Of the variant that is opened or of another one."""
    without_digests(folder, *names)
    expected = (
        f"{folder / 'trivec.json'} has no sha256 of {', '.join(sorted(names))}, so nothing says whether these are the "
        "files that were exported. Export the model again: trivec export; or open it as it is: expect='unverified', of "
        "commands --expect unverified"
    )
    for expect in (None, sha256(folder)):  # a pin of a manifest that says nothing of its files is none
        with pytest.raises(ModelFormatError) as caught:
            load(folder, expect=expect)
        assert str(caught.value) == expected
        with pytest.raises(ModelFormatError, match="has no sha256 of"):
            verify(folder, expect=expect)


@pytest.mark.parametrize("names", LEFT_OUT)
def test_the_one_way_that_asks_for_it(
    folder: Path,
    names: tuple[str, ...],
    tiny_model: TinyModel,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choice, "_warned", set())
    without_digests(folder, *names)
    listed = ", ".join(sorted(names))
    with caplog.at_level(logging.WARNING, "trivec"), load(folder, expect="unverified") as encoder:
        np.testing.assert_allclose(encoder.encode(TEXTS), tiny_model.expected(TEXTS), atol=1e-6)
    assert caplog.messages == [f"{folder} is unverified: its trivec.json has no sha256 of {listed}."]
    assert f"\nUNVERIFIED   no sha256 of {listed}; opens only with expect='unverified'\n" in info(str(folder))
    with pytest.raises(ModelFormatError, match="of commands --expect unverified"):
        info(str(folder), fingerprints=True)
    assert "\nfingerprint  fp32: " in info(str(folder), fingerprints=True, expect="unverified")


def test_a_whole_folder_says_nothing_of_the_kind(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    load(folder, expect="unverified").close()
    assert caplog.messages == []
    assert "UNVERIFIED" not in info(str(folder))


def test_what_is_unverified_is_checked_all_the_same_where_it_can_be(folder: Path) -> None:
    without_digests(folder, "arrays.npz")
    data = bytearray((folder / "tokenizer.json").read_bytes())
    data[-5] ^= 1
    (folder / "tokenizer.json").write_bytes(data)
    with pytest.raises(IntegrityError, match="It was altered"):
        load(folder, expect="unverified")


# ---- what a folder says of itself ------------------------------------------------------------------------------------


def test_names_and_origins_are_said_and_decide_nothing(folder: Path) -> None:
    with load(folder) as encoder:
        before = encoder.fingerprint
    origin = {"name": "lab/base", "revision": "a" * 40, "files": {"config.json": "c" * 64}, "license": "mit"}
    local: dict[str, Any] = {"name": "mine", "revision": None, "files": {}, "base_model": ["lab/base"]}
    rewrite(folder, name="support", version="7", origins=[local, origin], command="trivec export mine OUT")
    with load(folder) as encoder:
        assert encoder.fingerprint == before
        assert (encoder.manifest.name, encoder.manifest.version) == ("support", "7")
    lines = info(str(folder)).splitlines()
    assert "called       name support, version 7" in lines
    start = lines.index("origin       mine, a local folder")
    assert lines[start : start + 6] == [
        "origin       mine, a local folder",
        "license      not stated by its card",
        "base model   lab/base",
        f"origin       lab/base, {'a' * 40}",
        "license      mit",
        f"  sha256     {'c' * 64}  config.json",
    ]
    assert "command      trivec export mine OUT" in lines


def test_what_a_card_says_is_one_line(folder: Path) -> None:
    said = f"mit\ndigest       {OTHER}\x1b[31m"
    rewrite(folder, origins=[{"name": "x", "revision": None, "files": {}, "license": said}])
    found = info(str(folder))
    assert re.findall(r"^digest +(\S+)$", found, flags=re.MULTILINE) == [sha256(folder)]
    assert "\x1b" not in found


@pytest.mark.parametrize("card", ["/etc/passwd", "../README.md"])
def test_the_card_is_a_file_of_the_folder(folder: Path, card: str) -> None:
    rewrite(folder, card={"path": card, "bytes": 1, "sha256": "0" * 64})
    with pytest.raises(ModelFormatError, match="leaves the model folder"):
        load(folder)


def test_verify_looks_at_the_card_and_load_does_not(folder: Path) -> None:
    (folder / "SOURCE_README.md").write_text("licence: mine\n")
    rewrite(folder, card={"path": "SOURCE_README.md", "bytes": 14, "sha256": "0" * 64})
    load(folder).close()
    with pytest.raises(IntegrityError, match=r"SOURCE_README\.md has sha256"):
        verify(folder)
