"""What splits a text into tokens: the rules of English, and the segmenters of Chinese, Japanese and Korean.

Names are those of pymilvus.model. A segmenter's package is looked for when the tokenizer is made, and never installed
or downloaded here.
"""

from functools import cached_property
from typing import Any

from trivec._errors import MissingExtraError
from trivec.lexical import _words
from trivec.lexical._optional import require


class StandardTokenizer:
    """Words and punctuation as NLTK's `word_tokenize` splits English; it does for other languages with spaces."""

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a text."""
        return [word for piece in _words.pieces(text) for word in _words.piece_words(piece)]


class JiebaTokenizer:
    """Chinese words, by jieba."""

    def __init__(self) -> None:
        self._jieba = require("jieba", "JiebaTokenizer", '"trivec[lexical-zh]"')

    def __reduce__(self) -> tuple[type["JiebaTokenizer"], tuple[()]]:
        return JiebaTokenizer, ()

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a text."""
        return list(self._jieba.lcut(text))


class MecabTokenizer:
    """Japanese words, by MeCab with the dictionary that is installed for it."""

    def __init__(self) -> None:
        mecab = require("MeCab", "MecabTokenizer", '"trivec[lexical-ja]"')
        try:
            self._tagger = mecab.Tagger("-Owakati")
        except RuntimeError as error:
            raise MissingExtraError(
                'MecabTokenizer needs a dictionary, which MeCab does not find. Type: pip install "trivec[lexical-ja]"'
            ) from error

    def __reduce__(self) -> tuple[type["MecabTokenizer"], tuple[()]]:
        return MecabTokenizer, ()

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a text."""
        return (self._tagger.parse(text) or "").split()


class KonlpyTokenizer:
    """Korean nouns, by KoNLPy's Kkma, which needs Java."""

    def __init__(self) -> None:
        self._tag = require("konlpy.tag", "KonlpyTokenizer", '"trivec[lexical-ko]"')

    def __reduce__(self) -> tuple[type["KonlpyTokenizer"], tuple[()]]:
        return KonlpyTokenizer, ()

    @cached_property
    def _kkma(self) -> Any:  # noqa: ANN401 - konlpy has no types
        """It starts a Java machine: on the first text."""
        return self._tag.Kkma()

    def tokenize(self, text: str) -> list[str]:
        """The nouns of a text."""
        return list(self._kkma.nouns(text))


class KiwiTokenizer:
    """Korean morphemes, by Kiwi."""

    def __init__(self) -> None:
        self._kiwi = require("kiwipiepy", "KiwiTokenizer", "kiwipiepy").Kiwi()

    def __reduce__(self) -> tuple[type["KiwiTokenizer"], tuple[()]]:
        return KiwiTokenizer, ()

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a text."""
        return [token.form for token in self._kiwi.tokenize(text, normalize_coda=True)]
