"""`trivec explain` against the tiny models' tables, computed in numpy."""

import io
import json
import math
import re
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from tests.support.tiny_heads import TERMS, Tiny, hybrid, random_logits, random_weights, splade
from tests.support.tiny_model import TinyModel

import trivec
from trivec._cli.main import main
from trivec._inspect.explain import explain
from trivec._inspect.explain_text import render

CPU = ("--device", "cpu", "--threads", "1")
A, B = "the cat sat on the mat", "a cat under the old tree"


@pytest.fixture
def tiny_splade(tiny_model: "TinyModel", tmp_path: Path) -> "Tiny":
    return splade(tmp_path / "splade", tiny_model, random_logits(), random_weights())


@pytest.fixture
def tiny_hybrid(tiny_model: "TinyModel", tmp_path: Path) -> "Tiny":
    return hybrid(tmp_path / "hybrid", tiny_model)


def columns(text: str) -> int:
    """Of a terminal."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def shown(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> list[str]:
    """What is printed; never wider than 80 columns."""
    assert main(["explain", str(folder), *arguments, *CPU]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(columns, lines)) <= 80
    assert lines == [line.rstrip() for line in lines]
    return lines[next(i for i, line in enumerate(lines) if line.startswith("fingerprint")) + 1 :]


def as_json(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> Any:
    assert main(["explain", str(folder), *arguments, "--json", *CPU]) == 0
    return json.loads(capsys.readouterr().out)


# ---- dense -----------------------------------------------------------------------------------------------------------


def test_a_text(tiny_model: "TinyModel", capsys: pytest.CaptureFixture[str]) -> None:
    vector = tiny_model.expected([A])[0]
    numbers = " ".join(f"{x:.4f}" for x in vector[:7])
    assert shown(capsys, tiny_model.folder, A) == [
        "",
        f'text: "{A}"',
        "  tokens    8, 2 of them special (*)",
        "             2 [CLS]*   6 the      7 cat      9 sat     11 on       6 the",
        "            13 mat      3 [SEP]*",
        f"  vector    12 numbers, norm {np.linalg.norm(vector):.4f}:",
        f"            {numbers} …",
    ]


def test_json_holds_everything(tiny_model: "TinyModel", capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, tiny_model.folder, A)
    text = found["texts"][0]
    assert [token["id"] for token in text["tokens"]] == tiny_model.ids(A)
    assert [token["token"] for token in text["tokens"]] == ["[CLS]", *A.split(), "[SEP]"]
    assert [token["special"] for token in text["tokens"]] == [True, *[False] * 6, True]
    assert_allclose(text["dense"]["values"], tiny_model.expected([A])[0], atol=1e-6)
    assert_allclose(text["dense"]["norm"], np.linalg.norm(tiny_model.expected([A])[0]), rtol=1e-6)
    assert (text["terms"], text["colbert"], text["cut"], found["similarity"]) == (None, None, [], None)
    assert found["max_seq_length"] == 16
    with trivec.load(tiny_model.folder, device="cpu", threads=1) as encoder:
        assert found["fingerprint"] == encoder.fingerprint


@pytest.mark.parametrize("side", ["right", "left"])
def test_what_is_cut(tiny_model: "TinyModel", tmp_path: Path, capsys: pytest.CaptureFixture[str], side: str) -> None:
    import shutil

    folder = Path(shutil.copytree(tiny_model.folder, tmp_path / "model"))
    manifest = json.loads((folder / "trivec.json").read_text(encoding="utf-8"))
    manifest["encoders"]["main"]["truncation_side"] = side
    (folder / "trivec.json").write_text(json.dumps(manifest), encoding="utf-8")
    words = ("cat dog mat hill red blue small old house river boat tree bird sat ran on under the a find " * 20).split()
    text = as_json(capsys, folder, " ".join(words[:30]))["texts"][0]
    kept, cut = (words[:14], words[14:30]) if side == "right" else (words[16:30], words[:16])
    assert [token["token"] for token in text["tokens"]] == ["[CLS]", *kept, "[SEP]"]
    assert [token["token"] for token in text["cut"]] == cut
    lines = shown(capsys, folder, " ".join(words[:30]))
    place = lines.index("  cut off   16 more tokens, which the model does not read:")
    assert " ".join(lines[place + 1 : place + 3]).split() == cut
    many = as_json(capsys, folder, "dog " * 40)["texts"][0]
    assert [token["token"] for token in many["cut"]] == ["dog"] * 26
    assert as_json(capsys, folder, " ".join(words[:14]))["texts"][0]["cut"] == []


def test_two_texts(tiny_model: "TinyModel", tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = tiny_model.expected([A, B])
    cosine = float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    lines = shown(capsys, tiny_model.folder, A, B)
    assert lines[-3:] == ["", "A and B", f"  dense     cosine {cosine:.4f}"]
    assert [line for line in lines if line[:1] in ("A", "B")] == [f'A: "{A}"', f'B: "{B}"', "A and B"]
    (tmp_path / "b.txt").write_text(f"{B}\n", encoding="utf-8")
    assert shown(capsys, tiny_model.folder, A, f"@{tmp_path / 'b.txt'}") == lines
    found = as_json(capsys, tiny_model.folder, A, B)["similarity"]
    assert_allclose(found["dense"]["cosine"], cosine, rtol=1e-5)
    assert (found["sparse"], found["shared"], found["colbert"]) == (None, None, None)


def test_the_models_own_similarity_comes_first(tiny_model: "TinyModel") -> None:
    a, b = tiny_model.expected([A, B])
    with trivec.load(tiny_model.folder, device="cpu", threads=1, similarity_fn_name="euclidean") as encoder:
        found = explain(encoder, [A, B]).similarity
        assert explain(encoder, [A, B]).fingerprint == encoder.fingerprint
    assert found is not None
    assert found.dense is not None
    assert list(found.dense) == ["euclidean", "cosine"]
    assert_allclose(found.dense["euclidean"], -np.linalg.norm(a - b), rtol=1e-5)
    assert_allclose(found.dense["cosine"], a @ b / np.linalg.norm(a) / np.linalg.norm(b), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "prompt"),
    [
        (("--task", "query"), "find the "),
        (("--task", "document"), ""),
        (("--prompt-name", "query"), "find the "),
        (("--prompt", "old "), "old "),
    ],
)
def test_prompts_are_tokens_too(
    tiny_model: "TinyModel", capsys: pytest.CaptureFixture[str], options: tuple[str, ...], prompt: str
) -> None:
    found = as_json(capsys, tiny_model.folder, A, *options)["texts"][0]
    assert found["prompt"] == prompt
    assert [token["id"] for token in found["tokens"]] == tiny_model.ids(prompt + A)
    assert_allclose(found["dense"]["values"], tiny_model.expected([prompt + A])[0], atol=1e-6)
    lines = shown(capsys, tiny_model.folder, A, *options)
    assert ([line for line in lines if line.startswith("  prompt")] or [""]) == [
        f'  prompt    "{prompt}"' * bool(prompt)
    ]


# ---- sparse, hybrid --------------------------------------------------------------------------------------------------


def test_the_heaviest_terms_are_bars(tiny_splade: "Tiny", capsys: pytest.CaptureFixture[str]) -> None:
    weights = tiny_splade.expected([A])[0]
    order = [int(i) for i in np.argsort(-weights, kind="stable") if weights[i] > 0]
    lines = shown(capsys, tiny_splade.folder, A, "--top", "4")
    place = next(i for i, line in enumerate(lines) if line.startswith("  terms"))
    assert lines[place] == f"  terms     {len(order)} of {TERMS}, the 4 heaviest:"
    bars = lines[place + 1 :]
    assert len(bars) == 4
    assert [float(bar.split()[1]) for bar in bars] == [round(float(weights[i]), 4) for i in order[:4]]
    full = [len(bar.split()[2].rstrip("▏▎▍▌▋▊▉")) for bar in bars]
    assert columns(bars[0]) == 80
    assert full == [math.floor(full[0] * weights[i] / weights[order[0]] + 1 / 16) for i in order[:4]]
    found = as_json(capsys, tiny_splade.folder, A)["texts"][0]
    assert [term["id"] for term in found["terms"]] == order
    assert_allclose([term["weight"] for term in found["terms"]], weights[order], rtol=1e-5)
    assert found["sparse_dim"] == TERMS


def test_shared_terms_make_up_the_product(tiny_splade: "Tiny", capsys: pytest.CaptureFixture[str]) -> None:
    a, b = tiny_splade.expected([A, B])
    found = as_json(capsys, tiny_splade.folder, A, B)["similarity"]
    assert list(found["sparse"]) == ["dot"]
    assert_allclose(found["sparse"]["dot"], a @ b, rtol=1e-5)
    assert {term["id"] for term in found["shared"]} == set(np.flatnonzero(a * b).tolist())
    assert_allclose(sum(term["product"] for term in found["shared"]), a @ b, rtol=1e-5)
    assert_allclose([term["product"] for term in found["shared"]], sorted((a * b)[a * b > 0], reverse=True), rtol=1e-5)
    lines = shown(capsys, tiny_splade.folder, A, B, "--top", "3")
    count = int((a * b > 0).sum())
    assert lines[-4] == f"  sparse    dot {a @ b:.4f}; {count} shared terms, the 3 heaviest"
    best = int(np.argmax(a * b))
    assert f"{a[best]:.3f} x {b[best]:.3f} = {'':>2}" in lines[-3]
    assert f"{(a * b)[best]:.4f} █" in lines[-3]


def test_queries_of_a_table(tiny_splade: "Tiny", capsys: pytest.CaptureFixture[str]) -> None:
    weights = random_weights()
    found = as_json(capsys, tiny_splade.folder, "cat dog", "boat", "--task", "query", "--prompt", "")
    terms = {term["token"]: term["weight"] for term in found["texts"][0]["terms"]}
    expected = {word: float(weights[tiny_splade.term(word)]) for word in ("cat", "dog")}
    assert terms == pytest.approx({word: weight for word, weight in expected.items() if weight})
    assert found["max_seq_length"] is None
    assert found["similarity"]["shared"] == []
    lines = shown(capsys, tiny_splade.folder, "cat dog", "boat", "--task", "query", "--prompt", "")
    assert lines[-1] == "  sparse    dot 0.0000; no shared terms"
    assert not any("█" in line for line in lines if re.search(r" -\d", line))  # a negative weight has no bar


def test_all_three_of_a_hybrid_model(tiny_hybrid: "Tiny", capsys: pytest.CaptureFixture[str]) -> None:
    with trivec.load(tiny_hybrid.folder, device="cpu", threads=1) as encoder:
        scores = encoder.compute_score((A, B))
    found = as_json(capsys, tiny_hybrid.folder, A, B)
    assert_allclose(found["similarity"]["dense"]["dot"], scores["dense"], rtol=1e-5)
    assert_allclose(found["similarity"]["sparse"]["dot"], scores["sparse"], rtol=1e-5)
    assert_allclose(found["similarity"]["colbert"], scores["colbert"], rtol=1e-5)
    assert found["texts"][0]["colbert"] == [7, 3]
    assert len(found["texts"][0]["dense"]["values"]) == 5
    lines = shown(capsys, tiny_hybrid.folder, A, B)
    assert "  colbert   7 vectors of 3 numbers, one a token" in lines
    assert lines[-1] == f"  colbert   {scores['colbert']:.4f}, the mean of each token of A's best match in B"


# ---- columns ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "cat",
        "x" * 500,
        "東京" * 100,
        "cat " * 300,
        'tabs\tand\nlines\u2028and \x1b[31m "quotes" \\ 👍🏽 e\u0301\u0301',
        "a " * 33 + "y" * 200,
    ],
)
def test_any_text_fits(tiny_model: "TinyModel", capsys: pytest.CaptureFixture[str], text: str) -> None:
    lines = shown(capsys, tiny_model.folder, text, "the cat")
    assert not any("\x1b" in line or "\u2028" in line for line in lines)
    assert lines[1].startswith('A: "')


def test_of_many_tokens_the_first_and_the_last(tiny_model: "TinyModel") -> None:
    with trivec.load(tiny_model.folder, device="cpu", threads=1) as encoder:
        encoder.max_seq_length = 32
        few = explain(encoder, ["cat " * 30])
        tokens = few.texts[0].tokens
        many = few.texts[0].__class__(**{**few.texts[0].__dict__, "tokens": [*tokens[:-1] * 20, tokens[-1]]})
    text = render(few.__class__(**{**few.__dict__, "texts": [many]}))
    assert "  tokens    621, 21 of them special (*)" in text
    assert "… 561 more …" in text
    assert max(map(columns, text.splitlines())) <= 80
    assert text.count("7 cat") == 46 + 11  # 48 and 12, and of them three special ones


def test_a_terminal_without_blocks(tiny_splade: "Tiny", monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding="ascii"))
    assert main(["explain", str(tiny_splade.folder), "the cat 東京", *CPU]) == 0
    assert main(["explain", str(tiny_splade.folder), "the cat 東京", "--json", *CPU]) == 0
    text, _, data = buffer.getvalue().decode("ascii").partition("\n{")
    assert "#######" in text
    assert '"the cat ??"' in text
    assert json.loads("{" + data)["texts"][0]["text"] == "the cat 東京"


# ---- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cat", "--prompt-name", "none"), "prompt_name 'none' is none of this model's prompts"),
        (("@absent",), "there is no file 'absent'; an argument that starts with @ names a file"),
        (("cat", "--precision", "fp16"), "fp16"),
        (("\ud800",), "lone surrogate"),
    ],
)
def test_what_is_refused(
    tiny_folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert main(["explain", str(tiny_folder), *arguments, *CPU]) == 1
    out, error = capsys.readouterr()
    assert out == ""
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [("--top", "0"), ("--top", "x"), ("a", "b", "c"), ()])
def test_a_wrong_command_line(
    tiny_folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    texts = () if arguments and arguments[0] != "--top" else ("cat",) * bool(arguments)
    with pytest.raises(SystemExit) as stopped:
        main(["explain", str(tiny_folder), *texts, *arguments])
    assert stopped.value.code == 2


def test_a_static_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.support.static_models import model2vec_folder, table

    folder = model2vec_folder(tmp_path / "static", max_length=4)
    found = as_json(capsys, folder, "the cat xyz sat on the old mat")["texts"][0]
    assert [token["token"] for token in found["tokens"]] == ["the", "cat"]  # of 12 characters, the unknown one dropped
    assert [token["token"] for token in found["cut"]] == ["sat", "on", "the", "old", "mat"]
    ids = [token["id"] for token in found["tokens"]]
    assert_allclose(found["dense"]["values"], table()[ids].mean(0), rtol=1e-5)
