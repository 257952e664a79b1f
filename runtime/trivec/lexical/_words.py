"""The words of an English text, as the Penn Treebank splits them: equal to NLTK's `word_tokenize`.

Reference implementation: nltk.tokenize.destructive.NLTKWordTokenizer of NLTK 3.10 (Apache-2.0). Its rules rewrite a
whole sentence, one after the other. What they make of a chunk between two spaces depends on the chunk alone, but for
the end of the sentence, where the period splits off, and for some quotes. `pieces` says which is which, so that a
caller can remember what became of a piece.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from trivec.lexical._sentences import sentences

_LETTER = r"[\w\u0300-\u036f]"  # accents that follow their letter are letters to NLTK, which does not use `re` here


class _Rule(NamedTuple):
    """A pattern and what takes its place."""

    needs: frozenset[str]
    """It changes nothing, or nothing that matters, in a sentence that has none of these characters at the beginning."""
    sub: Callable[[str, str], str]
    new: str


def _rule(needs: str, pattern: str, new: str) -> _Rule:
    return _Rule(frozenset(needs), re.compile(pattern).sub, new)


_RULES = (
    # quotes that open
    _rule("«“‘„`", "([«“‘„]|[`]+)", r" \1 "),
    _rule('"', r"^\"", "``"),
    _rule('"`', r"(``)", r" \1 "),
    _rule("\"'", r"([ \(\[{<])(\"|\'{2})", r"\1 `` "),
    _rule("'", rf"(?i)(?<!{_LETTER})(')(?!(?:re|ve|ll|m|t|s|d|n)\b)(?={_LETTER})", r"\1 "),
    # punctuation
    _rule(".", r"""([^\.])(\.)([\]\)}>"'»”’ ]*+)\s*$""", r"\1 \2 \3 "),
    _rule(":,", r"([:,])([^\d])", r" \1 \2"),
    _rule(":,", r"([:,])$", r" \1 "),
    _rule(".", r"\.{2,}", r" \g<0> "),
    _rule(";@#$%&", r"[;@#$%&]", r" \g<0> "),
    _rule("\u2012\u2013\u2014\u2015", "[\u2012-\u2015]", r" \g<0> "),
    _rule(".", r"""([^\.])(\.)([\]\)}>"']*)\s*$""", r"\1 \2\3 "),
    _rule("?!", r"[?!]", r" \g<0> "),
    _rule("'", r"([^'])' ", r"\1 ' "),
    _rule("*", r"[*]", r" \g<0> "),
    _rule("][(){}<>", r"[\]\[\(\)\{\}\<\>]", r" \g<0> "),
    _rule("-", r"--", r" -- "),
    # quotes that close, and what follows an apostrophe
    _rule("»”’", "([»”’])", r" \1 "),
    _rule("'", r"''", " '' "),
    _rule('"', r'"', " '' "),
    _rule("'", r"^|$|\s+", " "),
    _rule("'", r"([^' ])('[sS]|'[mM]|'[dD]|') ", r"\1 \2 "),
    _rule("'", r"([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", r"\1 \2 "),
)
_CONTRACTIONS = [
    re.compile(pattern)
    for pattern in (
        r"(?i)\b(can)(not)\b",
        r"(?i)\b(d)('ye)\b",
        r"(?i)\b(gim)(me)\b",
        r"(?i)\b(gon)(na)\b",
        r"(?i)\b(got)(ta)\b",
        r"(?i)\b(lem)(me)\b",
        r"(?i)\b(more)('n)\b",
        r"(?i)\b(wan)(na)(?=\s|$)",
        r"(?i)(?<!\S)('t)(is)\b",
        r"(?i)(?<!\S)('t)(was)\b",
    )
]
_CONTRACTED = re.compile(r"(?i)can|d'ye|gim|gon|got|lem|more|wan|'t")  # without these no contraction can follow
_PLAIN = re.compile(r"[\w-]+", re.ASCII)  # nothing here but "--" and contractions is split
_CLOSERS = re.compile(r"""[\]\)}>"'»”’]+""")
_NO_BLANK = re.compile(r"[^\S ]")  # a space that is none of " ", which some rules tell apart


def words(sentence: str) -> list[str]:
    """The words of a sentence."""
    letters = set(sentence)
    for needs, sub, new in _RULES:
        if not needs.isdisjoint(letters):
            sentence = sub(new, sentence)
    if _CONTRACTED.search(sentence):
        for pattern in _CONTRACTIONS:
            sentence = pattern.sub(r" \1 \2 ", sentence)
    return sentence.split()


def pieces(text: str) -> list[str]:
    """A text in pieces that can be split each for itself: `piece_words` of all of them are its words.

    A piece without a space stands inside of a sentence, between two spaces. One that begins with a space is the end of
    a sentence, and one that begins with a line break a whole sentence, whose parts depend on each other.
    """
    only_blanks = _NO_BLANK.search(text) is None
    found: list[str] = []
    for sentence in sentences(text):
        parts = sentence.split()
        end = len(parts) - 1
        while end > 0 and _CLOSERS.fullmatch(parts[end]):
            end -= 1
        quoted = '"' in sentence or "'" in sentence
        whole = end <= 0 or (quoted and sentence.startswith(('"', "''")))
        if not whole and not only_blanks and (quoted or end < len(parts) - 1):
            whole = _NO_BLANK.search(sentence) is not None
        if whole:
            found.append(f"\n{sentence}")
        else:
            found += parts[:end]
            found.append(f" {' '.join(parts[end:])}")
    return found


def piece_words(piece: str) -> list[str]:
    """The words of a piece that `pieces` has made."""
    if piece.startswith("\n"):
        return words(piece[1:])
    if piece.startswith(" "):
        return words(f"a{piece}")[1:]
    body = piece.removesuffix(",")
    if _PLAIN.fullmatch(body) and "--" not in body and not _CONTRACTED.search(body):
        return [body] if len(body) == len(piece) else [body, ","]
    return words(f"a {piece} a")[1:-1]
