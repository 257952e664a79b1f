"""Where English sentences end: the Punkt algorithm with NLTK's model, equal to its `sent_tokenize`.

T. Kiss and J. Strunk, "Unsupervised Multilingual Sentence Boundary Detection", Computational Linguistics 32 (2006);
numbers of sections in the comments are the paper's. Reference implementation: nltk.tokenize.punkt of NLTK 3.10
(Apache-2.0). The model is in data/sentences_english.json, which says where it comes from.
"""

import json
import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import NamedTuple

_MULTI = r"(?:-{2,}|\.{2,}|(?:\.\s){2,}\.)"
_NO_WORD = r"""[)";}\]*:@'({\[‘’“”«»?!]"""
_TOKEN = re.compile(
    rf"""{_MULTI}
    | (?=[^("`{{\[:;&\#*@)}}\]\-,]) \S+?  # a word, up to where it ends:
      (?= \s | $ | {_NO_WORD} | {_MULTI} | ,(?=$|\s|{_NO_WORD}|{_MULTI}) )
    | \S""",
    re.VERBOSE,
)
_CANDIDATE = re.compile(rf"[.?!](?={_NO_WORD}|\s+(?P<next>\S+))")
_CLOSERS = re.compile(r"""["')\]}‘’“”«»]+?(?:\s+|(?=--)|$)""", re.MULTILINE)
_LETTERS = re.compile(r"[^\W\d_]{2,}")
_NUMBER = re.compile(r"^-?[.,]?\d[\d,.-]*\.?$")
_INITIAL = re.compile(r"(?:[^\W\d]|[\u0300-\u036f])\.$")  # NLTK counts accents as letters
_ELLIPSIS = re.compile(r"\.\.+$")
_SPACES = " \t\n\r\x0b\x0c"
_PUNCTUATION = frozenset(";:,.!?")


class Model(NamedTuple):
    """What Punkt has learned of a language; words in lower case, numbers as ##number##."""

    abbreviations: frozenset[str]
    """Without their final period."""
    collocations: frozenset[tuple[str, str]]
    """Words around a period that ends no sentence."""
    before: frozenset[str]
    """The first words of the collocations."""
    starters: frozenset[str]
    """Words that often begin a sentence."""
    ordinary: frozenset[str]
    """Seen in lower case, and capitalized nowhere but at the beginning of a sentence."""
    either: frozenset[str]
    """Seen in lower case, and capitalized inside of sentences as well."""
    uncapitalized: frozenset[str]
    """Seen in lower case at the beginning of a sentence, and never capitalized."""


class _Token(NamedTuple):
    """A token with what Punkt's first pass says of it (section 3)."""

    text: str
    kind: str
    """Its type: in lower case, ##number## for numbers."""
    ends: bool
    """Whether it ends a sentence as far as its type goes."""
    abbreviated: bool
    """An abbreviation or an ellipsis."""

    @property
    def bare(self) -> str:
        """The type without a final period."""
        return self.kind[:-1] if len(self.kind) > 1 and self.kind.endswith(".") else self.kind

    @property
    def next_kind(self) -> str:
        """The type as the word after a period: without a period that ends a sentence."""
        return self.bare if self.ends else self.kind


@cache
def english() -> Model:
    """The English model."""
    stored = json.loads(files("trivec.lexical").joinpath("data/sentences_english.json").read_text(encoding="utf-8"))
    collocations = frozenset((first, second) for first, second in (pair.split() for pair in stored["collocations"]))
    return Model(
        abbreviations=frozenset(stored["abbreviations"].split()),
        collocations=collocations,
        before=frozenset(first for first, _ in collocations),
        starters=frozenset(stored["starters"].split()),
        ordinary=frozenset(stored["lower_and_never_capitalized_inside"].split()),
        either=frozenset(stored["lower_and_capitalized_inside"].split()),
        uncapitalized=frozenset(stored["only_lower_and_first"].split()),
    )


def sentences(text: str) -> Iterator[str]:
    """The sentences of a text, with the spaces inside them."""
    model = english()
    pieces: list[slice] = []
    start = 0
    for end, after, context in _candidates(text):
        if context is None or _breaks(context, model):
            pieces.append(slice(start, end))
            start = after
    pieces.append(slice(start, len(text.rstrip())))
    shift = 0
    for i, piece in enumerate(pieces):
        begin = piece.start + shift
        following = pieces[i + 1] if i + 1 < len(pieces) else None
        closers = _CLOSERS.match(text[following]) if following else None
        shift = 0
        if following and closers:  # brackets and quotes that close go with the sentence before
            shift = closers.end()
            yield text[begin : following.start + len(closers[0].rstrip())]
        elif begin < piece.stop:
            yield text[begin : piece.stop]


def _candidates(text: str) -> Iterator[tuple[int, int, str | None]]:
    """Each period, question or exclamation mark that may end a sentence.

    Yields:
        Where it ends, where the next sentence would begin, and the words around it; None for these where they need not
        be looked at: marks, and periods after plain words, always end a sentence.

    Of several within one word, the last one counts.
    """
    model = english()
    spaces = _SPACES if any(c in text for c in _SPACES[1:]) else " "
    before = slice(0, 0)  # the word before the last match
    last: re.Match[str] | None = None
    for match in _CANDIDATE.finditer(text):
        space = max(text.rfind(c, before.stop, match.start()) for c in spaces)
        # NLTK takes a space at the very beginning of where it looks for none.
        word = slice(space + 1 if space > before.stop else before.start, match.start())
        if last and before.stop <= word.start:
            yield _candidate(text, before, last, model)
        last, before = match, word
    if last:
        yield _candidate(text, before, last, model)


def _candidate(text: str, before: slice, match: re.Match[str], model: Model) -> tuple[int, int, str | None]:
    end = match.end()
    after = match.start("next") if match["next"] else end
    word = text[before]
    if match[0] != ".":
        return end, after, None
    lower = word.lower()
    if _LETTERS.fullmatch(word) and lower not in model.abbreviations and lower not in model.before:
        return end, after, None
    stop = match.end("next") if match["next"] else end + 1
    return end, after, text[before.start : stop]


def _breaks(context: str, model: Model) -> bool:
    """Whether a sentence ends within some words, before their last."""
    tokens = [_token(found, model) for line in context.split("\n") for found in _TOKEN.findall(line)]
    return any(_ends(token, tokens[i + 1], model) for i, token in enumerate(tokens[:-1]))


def _token(text: str, model: Model) -> _Token:
    kind = _NUMBER.sub("##number##", text.lower())
    if text in (".", "?", "!"):
        return _Token(text, kind, ends=True, abbreviated=False)
    if _ELLIPSIS.match(text):
        return _Token(text, kind, ends=False, abbreviated=True)
    if not text.endswith(".") or text.endswith(".."):
        return _Token(text, kind, ends=False, abbreviated=False)
    word = text[:-1].lower()
    known = word in model.abbreviations or word.rpartition("-")[2] in model.abbreviations
    return _Token(text, kind, ends=not known, abbreviated=known)


def _ends(token: _Token, following: _Token, model: Model) -> bool:
    """Whether a sentence ends after a token: Punkt's second pass (section 4)."""
    if not token.text.endswith("."):
        return token.ends
    kind, next_kind = token.bare, following.next_kind
    if (kind, next_kind) in model.collocations:  # 4.1.2
        return False
    initial = _INITIAL.match(token.text) is not None
    starts = _starts_sentence(following, model)
    upper = following.text[0].isupper()
    if token.abbreviated and not initial and (starts or (upper and next_kind in model.starters)):  # 4.2, 4.1.3
        return True
    if initial or kind == "##number##":  # 4.3
        if starts is False:
            return False
        lowered = next_kind in model.ordinary or next_kind in model.either
        if starts is None and initial and upper and not lowered:
            return False
    return token.ends


def _starts_sentence(token: _Token, model: Model) -> bool | None:
    """Whether the spelling of a word shows that a sentence begins with it (section 4.1.1); None: it does not show."""
    if token.text in _PUNCTUATION:
        return False
    first, kind = token.text[0], token.next_kind
    if first.isupper() and kind in model.ordinary:
        return True
    if first.islower() and kind not in model.uncapitalized:
        return False
    return None
