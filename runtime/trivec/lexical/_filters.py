"""What an analyzer does to a text before it is split, and to its tokens afterwards.

Names and parameters are those of pymilvus.model, so that its YAML files name classes that are here. None of them can be
changed once made: analyzers remember what became of a token.
"""

import json
import re
import string
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache
from importlib import import_module
from importlib.resources import files

from trivec._errors import InputError
from trivec.lexical import _english
from trivec.lexical._optional import require

_REMEMBERED = 1 << 16  # stems, of some 200 bytes each


class CharacterfilterPreprocessor:
    """Puts a space in place of each of some characters."""

    def __init__(self, chars_to_replace: Iterable[str]) -> None:
        chars = list(chars_to_replace)
        if wrong := [char for char in chars if not isinstance(char, str) or len(char) != 1]:
            raise InputError(f"chars_to_replace must be single characters, got {wrong[0]!r} among them.")
        self._table = str.maketrans(dict.fromkeys(chars, " "))

    def apply(self, text: str) -> str:
        """The text with spaces."""
        return text.translate(self._table)


class ReplacePreprocessor:
    """Replaces strings by others."""

    def __init__(self, replacement_mapping: Mapping[str, str]) -> None:
        pairs = dict(replacement_mapping)
        if wrong := [pair for pair in pairs.items() if not all(isinstance(part, str) for part in pair) or not pair[0]]:
            raise InputError(f"replacement_mapping must map strings to strings, got {wrong[0][0]!r}: {wrong[0][1]!r}.")
        self._mapping = pairs
        self._pattern = re.compile("|".join(map(re.escape, pairs)) or r"(?!)")

    def apply(self, text: str) -> str:
        """The text with the replacements; of two that begin at the same place, the one that was named first."""
        return self._pattern.sub(lambda match: self._mapping[match[0]], text)


class LowercaseFilter:
    """Lower case."""

    def apply(self, tokens: list[str]) -> list[str]:
        """The tokens in lower case."""
        return [token.lower() for token in tokens]


class PunctuationFilter:
    """Drops tokens that are a single ASCII punctuation mark, or one of `extras`."""

    def __init__(self, extras: str = "") -> None:
        if not isinstance(extras, str):
            raise InputError(f"extras must be a string of characters, got {type(extras).__name__} {extras!r}.")
        self.punctuation = frozenset(string.punctuation + extras)

    def apply(self, tokens: list[str]) -> list[str]:
        """The other tokens."""
        return [token for token in tokens if token not in self.punctuation]


class StopwordFilter:
    """Drops the stop words of a language, and further ones.

    Args:
        language: as NLTK names it, such as "english"; None for no list but the own. Lists that are not here, such as
            "chinese", are taken from NLTK's data where these are installed.
        stopword_list: further words.

    Raises:
        InputError: there is no list for the language.
    """

    def __init__(self, language: str | None = "english", stopword_list: Iterable[str] | None = None) -> None:
        own = [] if stopword_list is None else stopword_list
        if not isinstance(own, list | tuple | set | frozenset) or not all(isinstance(word, str) for word in own):
            raise InputError(f"stopword_list must be a list of strings, got {own!r}.")
        self.stopwords = frozenset(own).union(_stopwords(language) if language is not None else ())

    def apply(self, tokens: list[str]) -> list[str]:
        """The other tokens."""
        return [token for token in tokens if token not in self.stopwords]


class StemmingFilter:
    """The Snowball stemmer of a language: of trivec for English, of NLTK for the others.

    Args:
        language: as NLTK names it, such as "english".

    Raises:
        InputError: there is no stemmer for the language.
        MissingExtraError: the language is another than English, and NLTK is not installed.
    """

    def __init__(self, language: str = "english") -> None:
        self._language = language
        self._stem = lru_cache(_REMEMBERED)(_stemmer(language))

    def __reduce__(self) -> tuple[type["StemmingFilter"], tuple[str]]:
        return StemmingFilter, (self._language,)

    def apply(self, tokens: list[str]) -> list[str]:
        """The stems."""
        return [self._stem(token) for token in tokens]


def _stopwords(language: str) -> list[str]:
    """The list that is here; else the one of NLTK's data, where a user has them."""
    lists = _stopword_lists()
    if language in lists:
        return lists[language].split()
    try:
        found: list[str] = import_module("nltk.corpus").stopwords.words(language)
    except (ImportError, LookupError, OSError, ValueError) as error:
        raise InputError(
            f"there are no stop words for the language {language!r}; there are for {', '.join(lists)}, and for what "
            "NLTK's data have where these are installed: pip install nltk, then python -m nltk.downloader stopwords. "
            "Type one of them, or: language=None, stopword_list=[...]"
        ) from error
    return found


@cache
def _stopword_lists() -> Mapping[str, str]:
    """Language to its words; data/stopwords.json says where they come from."""
    stored = json.loads(files("trivec.lexical").joinpath("data/stopwords.json").read_text(encoding="utf-8"))
    words: dict[str, str] = stored["words"]
    return words


def _stemmer(language: str) -> Callable[[str], str]:
    if language == "english":
        return _english.stem
    snowball = require("nltk.stem.snowball", f"the stemmer for {language!r}", '"trivec[lexical]"').SnowballStemmer
    if language not in snowball.languages:
        raise InputError(
            f"there is no stemmer for the language {language!r}; there are for {', '.join(snowball.languages)}."
        )
    stem: Callable[[str], str] = snowball(language).stem
    return stem
