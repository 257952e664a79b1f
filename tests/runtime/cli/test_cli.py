"""The command line against vectors computed in numpy from the tiny model's weights."""

import csv
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tests.support.tiny_model import TinyModel

import trivec._export
from trivec import DenseEncoder, __version__
from trivec._cli import encode as encode_module
from trivec._cli.main import main
from trivec._encoders.dense import OutputPrecision

TEXTS = ["the cat sat on the mat", "", "A small red boat", "un mot inconnu: 東京", "dog " * 40]
CPU = ("--device", "cpu", "--threads", "1")
SetStdin = Callable[[bytes], None]


@pytest.fixture
def set_stdin(monkeypatch: pytest.MonkeyPatch) -> SetStdin:
    return lambda data: monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder that holds nothing but what the test and the command put there."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def encode(model: "TinyModel", *arguments: object) -> int:
    return main(["encode", str(model.folder), *map(str, arguments), *CPU])


def environment() -> dict[str, str]:
    """This process's own, with its import path and with buffered output, as in a plain shell."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def python(*arguments: str, **options: Any) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment(), capture_output=True, timeout=600, check=False, **options)


# ---- encode: what goes in --------------------------------------------------------------------------------------------


def test_text_file_to_npy_has_one_row_a_line(
    tiny_model: "TinyModel", work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = work / "in.txt"
    source.write_bytes("\n".join(TEXTS).encode() + b"\n")
    assert encode(tiny_model, source, "-o", work / "out.npy") == 0
    vectors = np.load(work / "out.npy")
    assert vectors.dtype == np.float32
    assert_allclose(vectors, tiny_model.expected(TEXTS), atol=1e-6)
    assert files(work) == ["in.txt", "out.npy"]
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("5 texts, dim 12 float32, ")
    assert err.splitlines()[0].endswith("texts/s (fp32 on cpu)")
    assert err.splitlines()[1:] == ["1 of 5 texts were longer than 16 tokens and were cut"]


@pytest.mark.parametrize(
    "data",
    [
        "\n".join(TEXTS).encode(),  # no line feed at the end
        "\r\n".join(TEXTS).encode() + b"\r\n",
        b"\xef\xbb\xbf" + "\n".join(TEXTS).encode(),
    ],
)
def test_stdin_is_read_where_no_input_is_named(
    tiny_model: "TinyModel", work: Path, set_stdin: SetStdin, data: bytes
) -> None:
    set_stdin(data)
    assert encode(tiny_model, "-o", work / "out.npy") == 0
    assert_allclose(np.load(work / "out.npy"), tiny_model.expected(TEXTS), atol=1e-6)


def test_stdin_lines_end_at_line_feeds_only(tiny_model: "TinyModel", work: Path, set_stdin: SetStdin) -> None:
    set_stdin("cat\u2028dog\x0bbird\n\nhouse".encode())
    assert encode(tiny_model, "-", "-o", work / "out.npy") == 0
    assert_allclose(np.load(work / "out.npy"), tiny_model.expected(["cat\u2028dog\x0bbird", "", "house"]), atol=1e-6)


def test_no_texts_give_an_empty_array(tiny_model: "TinyModel", work: Path, set_stdin: SetStdin) -> None:
    set_stdin(b"")
    assert encode(tiny_model, "-o", work / "out.npy") == 0
    vectors = np.load(work / "out.npy")
    assert (vectors.shape, vectors.dtype) == ((0, 12), np.dtype(np.float32))


def test_jsonl_takes_strings_and_objects(tiny_model: "TinyModel", work: Path) -> None:
    rows = [json.dumps({"id": 1, "body": TEXTS[0]}), "", json.dumps(TEXTS[1]), json.dumps({"body": TEXTS[3]})]
    (work / "in.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    assert encode(tiny_model, work / "in.jsonl", "--column", "body", "-o", work / "out.npy") == 0
    expected = tiny_model.expected([TEXTS[0], TEXTS[1], TEXTS[3]])
    assert_allclose(np.load(work / "out.npy"), expected, atol=1e-6)


def test_csv_takes_a_column(tiny_model: "TinyModel", work: Path) -> None:
    texts = ["the cat, the dog", 'a "red" house', "two\nlines", "", "tree" * 50_000]
    with (work / "in.CSV").open("w", encoding="utf-8-sig", newline="") as stream:
        csv.writer(stream).writerows([("id", "title"), *enumerate(texts)])
    assert encode(tiny_model, work / "in.CSV", "--column", "title", "-o", work / "out.npy") == 0
    assert_allclose(np.load(work / "out.npy"), tiny_model.expected(texts), atol=1e-6)


BAD_ROWS = {
    "latin1": ("in.txt", b"cat\ndog\nol\xe9\n", "line 3 is not UTF-8: byte 0xe9 at position 2"),
    "json": ("in.jsonl", b'"cat"\n\n{"text": \n', "line 3 is not valid JSON"),
    "number": ("in.jsonl", b'"cat"\n{"text": 3}\n', "line 2: expected a string, got 3."),
    "null": ("in.jsonl", b'{"text": null}\n', "line 1: expected a string, got null."),
    "column": ("in.jsonl", b'"cat"\n{"id": 1, "title": "x"}\n', "line 2 has no 'text'; it has: id, title."),
    "surrogate": ("in.jsonl", b'"cat"\n"\\ud800"\n', "line 2 holds a lone surrogate"),
    "header": ("in.csv", b"id,title\n1,x\n", "has no column 'text'; it has: id, title. Type: --column NAME"),
    "nothing": ("in.csv", b"", "is empty; expected a header line"),
    "comma": ("in.csv", b'id,text\n1,"two\nlines"\n2,a cat, a dog\n', "line 4 has 3 fields; the header has 2."),
    "short": ("in.csv", b"id,text\n1\n", "line 2 has 1 fields; the header has 2."),
    "quote": ("in.csv", b'id,text\n1,"open\n2,cat\n', "line 3 is not valid CSV"),
    "csv bytes": ("in.csv", b"id,text\n1,\xff\n", "line 2 is not UTF-8"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_row_is_named_and_nothing_is_lost(
    tiny_model: "TinyModel", work: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    name, data, message = BAD_ROWS[case]
    (work / name).write_bytes(data)
    (work / "out.npy").write_bytes(b"older")
    assert encode(tiny_model, work / name, "-o", work / "out.npy", "--force") == 1
    assert files(work) == [name, "out.npy"]
    assert (work / name).read_bytes() == data
    assert (work / "out.npy").read_bytes() == b"older"
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"trivec: error: {work / name}")
    assert message in err
    assert err.count("\n") == 1


def test_a_bad_line_of_stdin_leaves_what_was_done(
    tiny_model: "TinyModel",
    work: Path,
    set_stdin: SetStdin,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(encode_module, "WINDOW", 2)
    set_stdin(b"a\nb\nc\nd\n\xff\n")
    assert encode(tiny_model, "-o", work / "out.npy") == 1
    assert files(work) == ["out.npy.partial"]
    assert "stdin, line 5 is not UTF-8" in capsys.readouterr().err


# ---- encode: windows, interruption -----------------------------------------------------------------------------------


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of texts of each call of `DenseEncoder.encode`."""
    sizes: list[int] = []
    original = DenseEncoder.encode

    def recorded(self: DenseEncoder, inputs: Sequence[str], *rest: Any, **options: Any) -> Any:
        sizes.append(len(inputs))
        if inputs == ["stop", "here"]:
            raise KeyboardInterrupt
        return original(self, inputs, *rest, **options)

    monkeypatch.setattr(DenseEncoder, "encode", recorded)
    return sizes


@pytest.mark.parametrize("suffix", ["npy", "jsonl"])
def test_memory_holds_one_window(
    tiny_model: "TinyModel", work: Path, blocks: list[int], monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(encode_module, "WINDOW", 3)
    texts = [" ".join(["cat", "hill", "old"][: i % 4] + ["bird"] * (i % 7)) for i in range(11)]
    (work / "in.txt").write_text("\n".join(texts), encoding="utf-8")
    assert encode(tiny_model, work / "in.txt", "-o", work / f"out.{suffix}") == 0
    assert blocks == [0, 3, 3, 3, 2]
    if suffix == "npy":
        vectors = np.load(work / "out.npy")
    else:
        rows = [json.loads(line) for line in (work / "out.jsonl").read_text(encoding="utf-8").splitlines()]
        assert [row["text"] for row in rows] == texts
        vectors = np.array([row["embedding"] for row in rows])
    assert_allclose(vectors, tiny_model.expected(texts), atol=1e-6)


def test_ctrl_c_leaves_what_was_done(
    tiny_model: "TinyModel",
    work: Path,
    blocks: list[int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(encode_module, "WINDOW", 2)
    (work / "in.txt").write_text("cat\ndog\nstop\nhere\n", encoding="utf-8")
    assert encode(tiny_model, work / "in.txt", "-o", work / "out.npy") == 130
    assert blocks == [0, 2, 2]
    assert files(work) == ["in.txt", "out.npy.partial"]
    kept = f"trivec: 2 texts are done and kept in {work / 'out.npy.partial'}: the same call goes on from there.\n"
    assert capsys.readouterr().err == f"trivec: interrupted\n{kept}"


def test_a_text_too_long_names_its_block(
    tiny_model: "TinyModel", work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(encode_module, "WINDOW", 2)
    (work / "in.txt").write_text(f"cat\ndog\nbird\n{'cat ' * 30}\n", encoding="utf-8")
    assert encode(tiny_model, work / "in.txt", "-o", work / "out.npy", "--on-overflow", "error") == 1
    assert files(work) == ["in.txt", "out.npy.partial"]
    error = capsys.readouterr().err
    assert "in the block that starts at text 2 (counted from 0): 1 of 2 texts are longer than 16 tokens" in error


def test_progress_bar_is_shown_when_asked(
    tiny_model: "TinyModel", work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "in.txt").write_text("cat\ndog\n", encoding="utf-8")
    assert encode(tiny_model, work / "in.txt", "-o", work / "a.npy", "--progress") == 0
    assert "2/2" in capsys.readouterr().err
    assert encode(tiny_model, work / "in.txt", "-o", work / "b.npy") == 0  # pytest's stderr is no terminal
    assert "2/2" not in capsys.readouterr().err


# ---- encode: what comes out ------------------------------------------------------------------------------------------


def run(model: "TinyModel", work: Path, *arguments: str) -> Any:
    (work / "in.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    assert encode(model, work / "in.txt", "-o", work / "out.npy", "--force", *arguments) == 0
    return np.load(work / "out.npy")


def test_int8_variant(tiny_model: "TinyModel", work: Path) -> None:
    vectors = run(tiny_model, work, "--precision", "int8")
    assert_allclose(vectors, tiny_model.expected(TEXTS, "int8"), atol=1e-6)
    assert np.abs(vectors - tiny_model.expected(TEXTS)).max() > 1e-4  # the two variants differ


def test_normalize_and_truncate(tiny_model: "TinyModel", work: Path) -> None:
    cut = tiny_model.expected(TEXTS)[:, :5]
    assert_allclose(run(tiny_model, work, "--truncate-dim", "5"), cut, atol=1e-6)
    unit = cut / np.linalg.norm(cut, axis=1, keepdims=True)
    assert_allclose(run(tiny_model, work, "--truncate-dim", "5", "--normalize"), unit, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "prompt"),
    [
        (("--task", "query"), "find the "),
        (("--task", "document"), ""),
        (("--prompt-name", "query"), "find the "),
        (("--prompt", "old "), "old "),
        (("--task", "query", "--prompt", "old "), "old "),
    ],
)
def test_prompts(tiny_model: "TinyModel", work: Path, arguments: tuple[str, ...], prompt: str) -> None:
    expected = tiny_model.expected([prompt + text for text in TEXTS])
    assert_allclose(run(tiny_model, work, *arguments), expected, atol=1e-6)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
def test_output_precisions(tiny_model: "TinyModel", work: Path, precision: OutputPrecision, *, normalize: bool) -> None:
    found = run(tiny_model, work, "--output-precision", precision, *(["--normalize"] if normalize else []))
    vectors = tiny_model.expected(TEXTS)
    if normalize:
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    if precision.endswith("binary"):
        padded = np.pad(vectors > 0, ((0, 0), (0, 4)))  # (N, 16)
        octets = (padded.reshape(len(TEXTS), 2, 8) * 2 ** np.arange(7, -1, -1)).sum(-1)  # (N, 2)
        expected = octets if precision == "ubinary" else octets - 128
        assert_array_equal(found, expected)
    else:
        low, high = tiny_model.normalized_ranges if normalize else tiny_model.ranges
        levels = np.clip((vectors - low) / (high - low) * 255, 0, 255) - (128 if precision == "int8" else 0)
        assert_allclose(found, np.floor(levels), atol=1)  # a value on a step's edge may fall to either side
        assert (found == np.floor(levels)).mean() > 0.9
    assert found.dtype == (np.uint8 if precision.startswith("u") else np.int8)


def test_jsonl_gives_every_float_back(
    tiny_model: "TinyModel", work: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    vectors = run(tiny_model, work)
    capsysbinary.readouterr()
    assert encode(tiny_model, work / "in.txt", "-o", "-") == 0
    out, err = capsysbinary.readouterr()
    rows = [json.loads(line) for line in out.decode("utf-8").splitlines()]
    assert [row["text"] for row in rows] == TEXTS
    assert "東京".encode() in out
    assert_array_equal(np.array([row["embedding"] for row in rows], dtype=np.float32), vectors)
    assert err.startswith(b"5 texts, ")


def test_jsonl_holds_integers_for_integer_vectors(tiny_model: "TinyModel", work: Path) -> None:
    packed = run(tiny_model, work, "--output-precision", "ubinary")
    assert encode(tiny_model, work / "in.txt", "-o", work / "out.jsonl", "--output-precision", "ubinary") == 0
    first, second = (work / "out.jsonl").read_text(encoding="utf-8").splitlines()[:2]
    assert second == f'{{"text": "{TEXTS[1]}", "embedding": [{packed[1, 0]}, {packed[1, 1]}]}}'
    assert first.startswith(f'{{"text": "{TEXTS[0]}", "embedding": [{packed[0, 0]}, {packed[0, 1]}], "trivec": {{')


# ---- encode: files ---------------------------------------------------------------------------------------------------


def test_an_existing_output_is_kept_without_force(
    tiny_model: "TinyModel", work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "in.txt").write_text("cat\n", encoding="utf-8")
    (work / "out.npy").write_bytes(b"older")
    assert encode(tiny_model, work / "in.txt", "-o", work / "out.npy") == 1
    assert (work / "out.npy").read_bytes() == b"older"
    assert "Choose another name, or replace it: --force" in capsys.readouterr().err
    assert encode(tiny_model, work / "in.txt", "-o", work / "out.npy", "--force") == 0
    assert np.load(work / "out.npy").shape == (1, 12)


def test_the_input_is_never_the_output(tiny_model: "TinyModel", work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "in.jsonl").write_text('"cat"\n', encoding="utf-8")
    assert encode(tiny_model, work / "in.jsonl", "-o", work / "." / "in.jsonl", "--force") == 1
    assert (work / "in.jsonl").read_text(encoding="utf-8") == '"cat"\n'
    assert "is the input; it is not overwritten" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "out", "message"),
    [
        ("in.txt", "out.csv", "is neither .npy, .npz (sparse), .jsonl nor .parquet, nor - for jsonl on stdout."),
        ("in.txt", "no/out.npy", "there is no folder"),
        ("in.md", "out.npy", "is none of .txt, .jsonl, .ndjson, .json, .csv, .tsv, nor one"),
        ("absent.txt", "out.npy", "there is no file"),
    ],
)
def test_names_that_cannot_be_used(
    tiny_model: "TinyModel", work: Path, capsys: pytest.CaptureFixture[str], source: str, out: str, message: str
) -> None:
    for name in ("in.txt", "in.md"):
        (work / name).write_text("cat\n", encoding="utf-8")
    assert encode(tiny_model, work / source, "-o", work / out) == 1
    assert message in capsys.readouterr().err
    assert files(work) == ["in.md", "in.txt"]


def test_a_wrong_option_stops_before_anything_is_read(
    tiny_model: "TinyModel", work: Path, capsys: pytest.CaptureFixture[str], set_stdin: SetStdin
) -> None:
    set_stdin(b"cat\n")
    assert encode(tiny_model, "-o", work / "out.npy", "--truncate-dim", "13") == 1
    assert capsys.readouterr().err == (
        "trivec: error: truncate_dim must be between 1 and 12, this model's dim; got 13.\n"
    )
    assert sys.stdin.buffer.read() == b"cat\n"
    assert files(work) == []


# ---- similarity ------------------------------------------------------------------------------------------------------


def test_similarity_of_two_texts(tiny_model: "TinyModel", work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = tiny_model.expected(["the cat", "a dog ran"])
    cosine = float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    (work / "b.txt").write_text("a dog ran\n", encoding="utf-8")
    folder = str(tiny_model.folder)
    assert main(["similarity", folder, "the cat", "a dog ran", *CPU]) == 0
    assert main(["similarity", folder, "the cat", f"@{work / 'b.txt'}", *CPU]) == 0
    assert capsys.readouterr().out == f"{cosine:.4f}\n" * 2


def test_similarity_by_the_models_own_function(
    tiny_model: "TinyModel", work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = work / "model"
    shutil.copytree(tiny_model.folder, folder)
    manifest = (folder / "trivec.json").read_text(encoding="utf-8")
    assert '"cosine"' in manifest
    (folder / "trivec.json").write_text(manifest.replace('"cosine"', '"euclidean"'), encoding="utf-8")
    a, b = tiny_model.expected(["the cat", "a dog ran"])
    assert main(["similarity", str(folder), "the cat", "a dog ran", *CPU]) == 0
    assert main(["similarity", str(folder), "the cat", "the cat", *CPU]) == 0
    assert capsys.readouterr().out == f"{-np.linalg.norm(a - b):.4f}\n0.0000\n"


def test_similarity_with_a_file_that_is_not_there(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["similarity", str(tiny_folder), "@absent", "x", *CPU]) == 1
    assert "there is no file 'absent'; an argument that starts with @ names a file" in capsys.readouterr().err


# ---- info ------------------------------------------------------------------------------------------------------------


def test_info_prints_the_manifest(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = sum((tiny_folder / "onnx" / name).stat().st_size for name in ("model.onnx", "model.onnx.data"))
    assert main(["info", str(tiny_folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    digest = hashlib.sha256((tiny_folder / "trivec.json").read_bytes()).hexdigest()
    assert lines[:3] == [f"model        {tiny_folder}", f"digest       sha256:{digest}", "family       dense"]
    gate = "gate passed: cosine_min 0.98765, cosine_mean 0.999, texts 1,234"
    for expected in (
        "source       name tests/tiny, revision 0123abc",
        "dim          12",
        "similarity   cosine",
        'prompt       query: "find the "',
        "route        default: main -> mean",
        "encoder      main: max_seq_length 16 tokens, positions 32, tokenizer.json",
        f"  fp32       {size / 1e6:,.1f} MB, opset 17; {gate}",
        f"  int8       {size / 1e6:,.1f} MB, opset 17, for cpu; {gate}",
    ):
        assert expected in lines


def test_info_json_is_the_manifest_itself(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(tiny_folder), "--json"]) == 0
    assert capsys.readouterr().out == (tiny_folder / "trivec.json").read_text(encoding="utf-8")


def test_info_derives_a_missing_manifest(tiny_folder: Path, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = work / "model"
    shutil.copytree(tiny_folder, folder)
    (folder / "trivec.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 16}', encoding="utf-8")
    assert main(["info", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "manifest     none: derived from the folder's JSON files; no variant has a gate on record\n" in text
    assert "encoder      main: max_seq_length 16 tokens, tokenizer.json\n" in text
    assert "  int8       0.0 MB, for cpu; no gate on record\n" in text
    assert main(["info", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["encoders"]["main"]["max_seq_length"] == 16


def test_info_names_missing_files(tiny_folder: Path, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(tiny_folder, work / "model")
    (work / "model" / "onnx" / "model.onnx.data").unlink()
    assert main(["info", str(work / "model")]) == 0
    assert "  fp32       0.0 MB, MISSING: onnx/model.onnx.data, opset 17; gate" in capsys.readouterr().out


def test_info_needs_no_onnxruntime(tiny_folder: Path) -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = None; from trivec._cli.main import main; "
        f"sys.exit(main(['info', {str(tiny_folder)!r}]))"
    )
    done = python("-c", code)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"dim          12" in done.stdout


# ---- export ----------------------------------------------------------------------------------------------------------


def test_export_passes_its_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def export(*arguments: Any, **options: Any) -> Path:
        calls.append((arguments, options))
        return Path("out")

    monkeypatch.setattr(trivec._export, "export", export)
    assert main(["export", "name", "out"]) == 0
    options = "--family dense --precision int8,fp32,int8 --calibration c.txt --revision r1"
    options += " --trust-remote-code --max-texts 99 --tasks retrieval.query,separation --name mine --version 7 --quiet"
    assert main(["export", "name", "out", *options.split()]) == 0
    plain = {
        "family": "auto",
        "precision": ("fp32", "fp16", "int8"),
        "calibration": None,
        "revision": None,
        "trust_remote_code": False,
        "max_texts": None,
        "tasks": None,
        "name": None,
        "version": None,
        "quiet": False,
    }
    given = {
        "family": "dense",
        "precision": ("int8", "fp32"),
        "calibration": Path("c.txt"),
        "revision": "r1",
        "trust_remote_code": True,
        "max_texts": 99,
        "tasks": ["retrieval.query", "separation"],
        "name": "mine",
        "version": "7",
        "quiet": True,
    }
    assert calls == [(("name", Path("out")), plain), (("name", Path("out")), given)]


# ---- the command itself ----------------------------------------------------------------------------------------------


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"trivec {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["encode", "m"], "the following arguments are required: -o/--output"),
        (["encode", "m", "-o", "x.npy", "--precision", "float32"], "argument --precision: invalid choice: 'float32'"),
        (["export", "m", "o", "--precision", "fp32,fp8"], "unknown variant 'fp8' (choose from fp32, fp16, int8)"),
        (["export", "m", "o", "--family", "bert"], "argument --family: invalid choice: 'bert'"),
    ],
)
def test_a_wrong_command_line_ends_with_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_an_error_is_one_line_unless_debugging(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"trivec: error: there is no folder {str(work / 'absent')!r}. Expected a model folder or a Hub repository.\n"
    assert main(["info", str(work / "absent")]) == 1
    assert capsys.readouterr() == ("", line)
    monkeypatch.setenv("TRIVEC_DEBUG", "1")
    assert main(["info", str(work / "absent")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Traceback (most recent call last):\n")
    assert error.endswith(line)


def test_help_loads_neither_engine_nor_hub_client() -> None:
    code = (
        "import sys\nfrom trivec._cli.main import main\n"
        "try: main(['encode', '--help'])\n"
        "except SystemExit: print({'onnxruntime', 'huggingface_hub', 'torch'} & set(sys.modules))"
    )
    done = python("-c", code)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == b"set()"


def test_python_m_trivec(tiny_model: "TinyModel") -> None:
    arguments = ("-m", "trivec", "encode", str(tiny_model.folder), "-o", "-", *CPU)
    done = python(*arguments, input="\n".join(TEXTS).encode())
    assert done.returncode == 0
    rows = [json.loads(line)["embedding"] for line in done.stdout.splitlines()]
    assert_allclose(np.array(rows), tiny_model.expected(TEXTS), atol=1e-6)


@pytest.mark.parametrize("command", ["encode", "info"])  # one fails while writing, one when its output is flushed
def test_a_closed_pipe_is_silent(tiny_model: "TinyModel", work: Path, command: str) -> None:
    (work / "in.txt").write_text("the cat sat\n" * 4000, encoding="utf-8")  # more than a pipe holds
    rest = [str(work / "in.txt"), "-o", "-", *CPU] if command == "encode" else []
    arguments = [sys.executable, "-m", "trivec", command, str(tiny_model.folder), *rest]
    with subprocess.Popen(arguments, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
