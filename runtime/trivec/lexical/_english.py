"""The English stemmer: M. Porter's "Porter2" in the revision that NLTK has, equal to it word for word.

Later revisions of Snowball, which PyStemmer and snowballstemmer have, stem some common words in another way
("organization", "international", "biologist", "added"): vectors and stored vocabularies of the two would not meet.
NLTK's own is not imported because `import nltk` takes seconds, and brings scipy, pandas and scikit-learn along where
they are installed.

Source: https://snowballstem.org/algorithms/english/stemmer.html, and nltk.stem.snowball.EnglishStemmer of NLTK 3.10
(Apache-2.0), whose results decide where it departs from the description.
"""

import re
from typing import NamedTuple

_VOWELS = frozenset("aeiouy")
_DOUBLES = ("bb", "dd", "ff", "gg", "mm", "nn", "pp", "rr", "tt")
_BEFORE_LI = frozenset("cdeghkmnrt")
_VOWEL = re.compile("[aeiouy]")
_REGION = re.compile("[aeiouy][^aeiouy]")
_APOSTROPHES = str.maketrans("‘’‛", "'''")
# fmt: off
_WHOLE = {
    "skis": "ski", "skies": "sky", "dying": "die", "lying": "lie", "tying": "tie", "idly": "idl", "gently": "gentl",
    "ugly": "ugli", "early": "earli", "only": "onli", "singly": "singl", "sky": "sky", "news": "news", "howe": "howe",
    "atlas": "atlas", "cosmos": "cosmos", "bias": "bias", "andes": "andes", "inning": "inning", "innings": "inning",
    "outing": "outing", "outings": "outing", "canning": "canning", "cannings": "canning", "herring": "herring",
    "herrings": "herring", "earring": "earring", "earrings": "earring", "proceed": "proceed", "proceeds": "proceed",
    "proceeded": "proceed", "proceeding": "proceed", "exceed": "exceed", "exceeds": "exceed", "exceeded": "exceed",
    "exceeding": "exceed", "succeed": "succeed", "succeeds": "succeed", "succeeded": "succeed", "succeeding": "succeed",
}
# fmt: on


class _Word(NamedTuple):
    """A word and its regions: R1 after the first vowel and consonant, R2 after the next ones, both up to its end."""

    text: str
    r1: str
    r2: str

    def cut(self, count: int) -> "_Word":
        """Without its last letters."""
        return _Word(self.text[:-count], self.r1[:-count], self.r2[:-count])

    def swap(self, suffix: str, new: str, *, short_r2: str = "") -> "_Word":
        """With another suffix; a region that does not hold the whole suffix is given up (R2: is `short_r2`)."""
        size = len(suffix)
        r1 = self.r1[:-size] + new if len(self.r1) >= size else ""
        r2 = self.r2[:-size] + new if len(self.r2) >= size else short_r2
        return _Word(self.text[:-size] + new, r1, r2)


class _Rule(NamedTuple):
    """What becomes of a suffix: so many letters are cut, or it is swapped where `new` is given."""

    cut: int = 0
    new: str | None = None
    short_r2: str = ""

    def of(self, word: _Word, suffix: str) -> _Word:
        """The word after it."""
        if self.new is not None:
            return word.swap(suffix, self.new, short_r2=self.short_r2)
        return word.cut(self.cut) if self.cut else word


# Longest suffix first: the first that the word ends in decides, whether or not it lies in the region.
_STEP2 = {
    "ization": _Rule(new="ize"),
    "ational": _Rule(new="ate", short_r2="e"),
    "fulness": _Rule(4),
    "ousness": _Rule(new="ous"),
    "iveness": _Rule(new="ive", short_r2="e"),
    "tional": _Rule(2),
    "biliti": _Rule(new="ble"),
    "lessli": _Rule(2),
    "entli": _Rule(2),
    "ation": _Rule(new="ate", short_r2="e"),
    "alism": _Rule(new="al"),
    "aliti": _Rule(new="al"),
    "ousli": _Rule(new="ous"),
    "iviti": _Rule(new="ive", short_r2="e"),
    "fulli": _Rule(2),
    "enci": _Rule(),  # the four without a rule here have one of their own in _step2
    "anci": _Rule(),
    "abli": _Rule(),
    "izer": _Rule(new="ize"),
    "ator": _Rule(new="ate", short_r2="e"),
    "alli": _Rule(new="al"),
    "bli": _Rule(new="ble"),
    "ogi": _Rule(1),
    "li": _Rule(2),
}
_STEP3 = {
    "ational": _Rule(new="ate"),
    "tional": _Rule(2),
    "alize": _Rule(3),
    "icate": _Rule(new="ic"),
    "iciti": _Rule(new="ic"),
    "ative": _Rule(5),
    "ical": _Rule(new="ic"),
    "ness": _Rule(4),
    "ful": _Rule(3),
}
_SUFFIXES2, _SUFFIXES3 = tuple(_STEP2), tuple(_STEP3)
# fmt: off
_STEP4 = ("ement", "ance", "ence", "able", "ible", "ment", "ant", "ent", "ism", "ate", "iti", "ous", "ive", "ize",
          "ion", "al", "er", "ic")
# fmt: on


def stem(word: str) -> str:
    """The stem of an English word: "organizations" -> "organ"; in lower case."""
    word = word.lower()
    if len(word) <= 2:
        return word
    if word in _WHOLE:
        return _WHOLE[word]
    found = _step1b(_step1a(_step0(_regions(word.translate(_APOSTROPHES).removeprefix("'")))))
    found = _step4(_step3(_step2(_step1c(found))))
    return _step5(found).replace("Y", "y")


def _regions(word: str) -> _Word:
    """The word with each y that is a consonant as Y, and its regions."""
    if "y" in word:
        letters = list(word)
        for i, letter in enumerate(letters):
            if letter == "y" and (i == 0 or letters[i - 1] in _VOWELS):
                letters[i] = "Y"
        word = "".join(letters)
    if word.startswith(("gener", "arsen")):
        r1 = word[5:]
    elif word.startswith("commun"):
        r1 = word[6:]
    else:
        r1 = _after_region(word)
    return _Word(word, r1, _after_region(r1))


def _after_region(part: str) -> str:
    found = _REGION.search(part)
    return part[found.end() :] if found else ""


def _step0(word: _Word) -> _Word:
    for suffix in ("'s'", "'s", "'"):
        if word.text.endswith(suffix):
            return word.cut(len(suffix))
    return word


def _step1a(word: _Word) -> _Word:
    """Plurals."""
    text = word.text
    if text.endswith("sses"):
        return word.cut(2)
    if text.endswith(("ied", "ies")):
        return word.cut(2 if len(text) > 4 else 1)
    if text.endswith("s") and not text.endswith(("us", "ss")) and _VOWEL.search(text[:-2]):
        return word.cut(1)
    return word


def _step1b(word: _Word) -> _Word:
    """-eed, -ed, -ing and their adverbs."""
    text = word.text
    suffix = _first_suffix(text, ("eedly", "ingly", "edly", "eed", "ing", "ed"))
    if suffix in ("eed", "eedly"):
        return word.swap(suffix, "ee") if word.r1.endswith(suffix) else word
    if not suffix or not _VOWEL.search(text[: -len(suffix)]):
        return word
    word = word.cut(len(suffix))
    text, r1, r2 = word
    if text.endswith(("at", "bl", "iz")):
        r1 += "e"
        return _Word(text + "e", r1, r2 + "e" if len(text) > 4 or len(r1) >= 3 else r2)
    if text.endswith(_DOUBLES):
        return word.cut(1)
    return _Word(text + "e", r1, r2 + "e" if r2 else r2) if r1 == "" and _is_short(text) else word


def _is_short(text: str) -> bool:
    """Whether it ends in consonant, vowel, consonant (no w, x, Y), or is a vowel and a consonant."""
    if len(text) == 2:
        return text[0] in _VOWELS and text[1] not in _VOWELS
    if len(text) < 3 or text[-1] in _VOWELS or text[-1] in "wxY":
        return False
    return text[-2] in _VOWELS and text[-3] not in _VOWELS


def _last(word: _Word, letter: str) -> _Word:
    """With another last letter."""
    return _Word(*(part[:-1] + letter if part else "" for part in word))


def _step1c(word: _Word) -> _Word:
    """A last y after a consonant."""
    text = word.text
    if len(text) > 2 and text[-1] in "yY" and text[-2] not in _VOWELS:
        return _last(word, "i")
    return word


def _first_suffix(text: str, suffixes: tuple[str, ...]) -> str:
    if not text.endswith(suffixes):  # as of most words; said at once
        return ""
    return next(suffix for suffix in suffixes if text.endswith(suffix))


def _step2(word: _Word) -> _Word:
    suffix = _first_suffix(word.text, _SUFFIXES2)
    if not suffix or not word.r1.endswith(suffix):
        return word
    if suffix in ("enci", "anci", "abli"):
        return _last(word, "e")
    if (suffix == "ogi" and word.text[-4] != "l") or (suffix == "li" and word.text[-3] not in _BEFORE_LI):
        return word
    return _STEP2[suffix].of(word, suffix)


def _step3(word: _Word) -> _Word:
    suffix = _first_suffix(word.text, _SUFFIXES3)
    if not suffix or not word.r1.endswith(suffix) or (suffix == "ative" and not word.r2.endswith(suffix)):
        return word
    return _STEP3[suffix].of(word, suffix)


def _step4(word: _Word) -> _Word:
    suffix = _first_suffix(word.text, _STEP4)
    if not suffix or not word.r2.endswith(suffix) or (suffix == "ion" and word.text[-4] not in "st"):
        return word
    return word.cut(len(suffix))


def _step5(word: _Word) -> str:
    """Without a last e or one of two last l."""
    text, r1, r2 = word
    if (r2.endswith("l") and text[-2] == "l") or r2.endswith("e"):
        return text[:-1]
    if r1.endswith("e") and len(text) >= 4:
        after_short = text[-2] not in _VOWELS and text[-2] not in "wxY" and text[-3] in _VOWELS
        if not after_short or text[-4] in _VOWELS:
            return text[:-1]
    return text
