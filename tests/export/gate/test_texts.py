"""The texts that ship with the exporter: how many, in which scripts, how long, and in one set only."""

import json
import re
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from trivec import InputError
from trivec._gate.texts import verification_texts
from trivec_export._gate.texts import calibration_texts, sample

SCRIPTS = {
    "cyrillic": "CYRILLIC",
    "greek": "GREEK",
    "arabic": "ARABIC",
    "hebrew": "HEBREW",
    "devanagari": "DEVANAGARI",
    "bengali": "BENGALI",
    "tamil": "TAMIL",
    "thai": "THAI",
    "han": "CJK",
    "kana": "CJK|HIRAGANA|KATAKANA",  # a Japanese word may be all kanji
    "hangul": "HANGUL",
    "georgian": "GEORGIAN",
    "armenian": "ARMENIAN",
    "ethiopic": "ETHIOPIC",
}
FORMS = {"english", "latin", "code", "emoji", "repeats", "special", "symbols"}


def test_counts_and_kinds() -> None:
    calibration, verification = calibration_texts(), verification_texts()
    assert len(calibration) >= 400
    assert len(verification) >= 500
    assert {t.kind for t in calibration} == set(SCRIPTS) | FORMS
    assert {t.kind for t in verification} == set(SCRIPTS) | FORMS | {"empty"}
    assert min(Counter(t.kind for t in calibration).values()) >= 10
    assert min(c for kind, c in Counter(t.kind for t in verification).items() if kind != "empty") >= 14


@pytest.mark.parametrize(("kind", "script"), SCRIPTS.items())
def test_scripts_are_what_they_say(kind: str, script: str) -> None:
    for text in (*calibration_texts(), *verification_texts()):
        if text.kind == kind:
            assert any(re.search(script, unicodedata.name(c, "")) for c in text.text), text


def test_sets_are_disjoint_and_no_text_comes_twice() -> None:
    def key(text: str) -> str:
        return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text).casefold())

    calibration = [key(t.text) for t in calibration_texts()]
    verification = [key(t.text) for t in verification_texts()]
    assert len(set(calibration)) == len(calibration)
    assert len(set(verification)) == len(verification)
    assert not set(calibration) & set(verification)


def test_no_text_is_a_template_of_another() -> None:
    """No run of eight words stands in two texts, in either set."""
    seen: dict[tuple[str, ...], str] = {}
    for text in (*calibration_texts(), *verification_texts()):
        words = text.text.casefold().split()
        for run in {tuple(words[i : i + 8]) for i in range(len(words) - 7)} if text.kind != "repeats" else ():
            assert run not in seen, (run, text.text, seen[run])
            seen[run] = text.text


def test_lengths_reach_from_one_word_to_512_tokens(minilm_checkpoint: Path) -> None:
    tokenizer = Tokenizer.from_file(str(minilm_checkpoint / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for texts in (calibration_texts(), verification_texts()):
        lengths = sorted(len(tokenizer.encode(t.text).ids) for t in texts)
        assert lengths[0] <= 3
        assert sum(n >= 512 for n in lengths) >= 10
        assert sum(100 <= n < 512 for n in lengths) >= 14


def test_own_texts_are_added_without_those_that_verify(tmp_path: Path) -> None:
    held_out = verification_texts()[3].text
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(json.dumps({"text": t}) for t in ("my own text", held_out)), encoding="utf-8")
    own = [t.text for t in calibration_texts(path) if t.kind == "user"]
    assert own == ["my own text"]
    (tmp_path / "own.txt").write_text("first\n\nsecond\n", encoding="utf-8")
    assert [t.text for t in calibration_texts(tmp_path / "own.txt") if t.kind == "user"] == ["first", "second"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "x"}\n{"text": 3}', r"a\.jsonl, line 2: expected a string"),
        ("a.jsonl", '{"text": ', r"a\.jsonl, line 1 is not valid JSON"),
        ("a.txt", "\n\n", r"a\.txt holds no text"),
    ],
)
def test_bad_calibration_files(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        calibration_texts(tmp_path / name)
    with pytest.raises(InputError, match="there is no file"):
        calibration_texts(tmp_path / "absent.txt")


def test_a_sample_keeps_the_kinds_apart() -> None:
    texts = verification_texts()
    assert sample(texts, None) == texts
    assert len(sample(texts, 100)) == 100
    assert len({t.kind for t in sample(texts, 100)}) >= 18
