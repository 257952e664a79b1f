"""From a text to its terms: preprocessors, a tokenizer, filters."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Protocol

from trivec._errors import InputError
from trivec.lexical._filters import LowercaseFilter, PunctuationFilter, StemmingFilter, StopwordFilter
from trivec.lexical._tokenizers import StandardTokenizer
from trivec.lexical._words import piece_words, pieces

_BY_TOKEN = (LowercaseFilter, PunctuationFilter, StemmingFilter, StopwordFilter)
_REMEMBERED = 1 << 17  # pieces, of some 300 bytes each
_LONGEST = 64  # characters: longer pieces hardly come again


class Preprocessor(Protocol):
    """Changes a text before it is split."""

    def apply(self, text: str) -> str:
        """The changed text."""


class Tokenizer(Protocol):
    """Splits a text."""

    def tokenize(self, text: str) -> list[str]:
        """The tokens."""


class Filter(Protocol):
    """Changes or drops tokens."""

    def apply(self, tokens: list[str]) -> list[str]:
        """The tokens that are left."""


class Analyzer:
    """A function from a text to its terms.

        analyzer = Analyzer("mine", StandardTokenizer(), filters=[LowercaseFilter(), StemmingFilter("english")])
        analyzer("The cells divided.")  # ["the", "cell", "divid", "."]

    Args:
        name: what it is called.
        tokenizer: an object with `tokenize(text)`, of trivec or the caller's own.
        preprocessors: objects with `apply(text)`, in this order.
        filters: objects with `apply(tokens)`, in this order.
    """

    def __init__(
        self,
        name: str,
        tokenizer: Tokenizer,
        preprocessors: Sequence[Preprocessor] | None = None,
        filters: Sequence[Filter] | None = None,
    ) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self.preprocessors = tuple(preprocessors or ())
        self.filters = tuple(filters or ())
        # A filter of the caller's own may look at a token's neighbours, or change its mind: nothing is remembered then.
        self._memory: _Memory | None = None
        if all(type(one) in _BY_TOKEN for one in self.filters):
            self._memory = _Memory(self._terms)

    def __reduce__(self) -> tuple[type["Analyzer"], tuple[object, ...]]:
        """Without its memory."""
        return Analyzer, (self.name, self.tokenizer, self.preprocessors, self.filters)

    def __repr__(self) -> str:
        steps = [*self.preprocessors, self.tokenizer, *self.filters]
        return f"Analyzer({self.name!r}: {', '.join(type(step).__name__ for step in steps)})"

    def __call__(self, text: str) -> list[str]:
        """The terms of a text.

        Raises:
            InputError: it is no text.
        """
        if not isinstance(text, str):
            raise InputError(f"an analyzer takes a text, got {type(text).__name__} {str(text)[:60]!r}.")
        for preprocessor in self.preprocessors:
            text = preprocessor.apply(text)
        if self._memory is None:
            return self._filtered(self.tokenizer.tokenize(text))
        parts = pieces(text) if type(self.tokenizer) is StandardTokenizer else self.tokenizer.tokenize(text)
        return list(chain.from_iterable(map(self._memory.__getitem__, parts)))

    def _terms(self, piece: str) -> list[str]:
        """The terms of a piece of a text: what the standard tokenizer calls one, or a token of another tokenizer."""
        return self._filtered(piece_words(piece) if type(self.tokenizer) is StandardTokenizer else [piece])

    def _filtered(self, tokens: list[str]) -> list[str]:
        for one in self.filters:
            tokens = one.apply(tokens)
        return tokens


class _Memory(dict[str, tuple[str, ...]]):
    """What became of pieces that were met before; it forgets all when it is full."""

    def __init__(self, terms: Callable[[str], list[str]]) -> None:
        super().__init__()
        self._terms = terms

    def __missing__(self, piece: str) -> tuple[str, ...]:
        terms = tuple(self._terms(piece))
        if len(piece) <= _LONGEST:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[piece] = terms
        return terms
