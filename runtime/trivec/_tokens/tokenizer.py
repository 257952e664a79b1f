"""Texts to token ids, equal to the reference tokenizer's."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, normalizers

from trivec._errors import InputError, ModelFormatError
from trivec._model.manifest import Encoder
from trivec._vectors.ragged import row_numbers, take_rows

_CHUNK = 256  # texts whose Encoding objects are alive at once: 60 bytes a token, and what was cut off as well


@dataclass(frozen=True, slots=True)
class Batch:
    """Token ids of B texts that run together."""

    ids: npt.NDArray[np.int64]
    """(T,) of all texts, end to end."""
    offsets: npt.NDArray[np.int64]
    """(B + 1,) where each text starts."""

    @classmethod
    def of_rows(cls, ids: npt.NDArray[np.int64]) -> "Batch":
        """Rows of one length (B, S)."""
        return cls(ids.reshape(-1), np.arange(len(ids) + 1, dtype=np.int64) * ids.shape[1])

    def __len__(self) -> int:
        """Texts."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(B,) tokens of each text."""
        lengths: npt.NDArray[np.int64] = self.offsets[1:] - self.offsets[:-1]
        return lengths

    def part(self, some: slice) -> "Batch":
        """Texts that lie side by side."""
        offsets = self.offsets[some.start : some.stop + 1]
        return Batch(self.ids[offsets[0] : offsets[-1]], offsets - offsets[0])

    def rows(self) -> npt.NDArray[np.int64]:
        """(B, S) where all texts have one length, as a rows graph wants them."""
        return self.ids.reshape(len(self), len(self.ids) // len(self) if len(self) else 0)

    def positions(self) -> npt.NDArray[np.int64]:
        """(T,) the place of each token in its text."""
        return np.arange(len(self.ids)) - np.repeat(self.offsets[:-1], self.lengths)

    def texts(self) -> npt.NDArray[np.int64]:
        """(T,) the text of each token."""
        return row_numbers(self.offsets)


class Tokens(NamedTuple):
    """Token ids of N texts, end to end."""

    ids: npt.NDArray[np.int64]
    """(T,) ids of all texts."""
    offsets: npt.NDArray[np.int64]
    """(N + 1,) where each text starts in `ids`."""
    truncated: npt.NDArray[np.bool_]
    """(N,) whether a text was longer than the model reads."""

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(N,) tokens of each text."""
        lengths: npt.NDArray[np.int64] = self.offsets[1:] - self.offsets[:-1]  # np.diff takes ten times as long for one
        return lengths

    def take(self, rows: npt.NDArray[np.intp]) -> Batch:
        """The ids of some texts, at least one."""
        if len(rows) == 1:
            ids = self.of(int(rows[0]))
            return Batch(ids, np.array([0, len(ids)]))
        offsets, entries = take_rows(self.offsets, rows)
        return Batch(self.ids[entries], offsets)

    def of(self, row: int) -> npt.NDArray[np.int64]:
        """(S,) ids of one text."""
        return self.ids[self.offsets[row] : self.offsets[row + 1]]


class TokenReader(Protocol):
    """What an encoder needs of a tokenizer."""

    @property
    def max_seq_length(self) -> int | None:
        """Tokens a text is cut to; None: never cut."""

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None: ...

    def __call__(self, texts: Sequence[str], prompt: str = "") -> Tokens:
        """Tokenize texts, each behind the prompt."""

    def prompt_length(self, prompt: str) -> int:
        """Tokens of a prompt, where pooling leaves them out."""

    def token(self, token_id: int) -> str:
        """The token behind an id."""


class TextTokenizer:
    """A tokenizer.json with padding off and truncation at the model's length."""

    def __init__(self, path: Path, encoder: Encoder) -> None:
        self._tokenizer = open_tokenizer(path)
        self._side = encoder.truncation_side
        self._adds_special = encoder.add_special_tokens
        added = self._tokenizer.get_added_tokens_decoder()
        self._special = frozenset(encoder.special_ids or (i for i, token in added.items() if token.special))
        if encoder.lower_case and not _lowers(self._tokenizer.normalizer):
            own = self._tokenizer.normalizer
            self._tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *([own] if own else [])])
        if any(self._tokenizer.encode("a").type_ids):
            raise ModelFormatError(
                f"{path} gives token types other than 0 to a single text; trivec's graphs read none. "
                "Use sentence-transformers for this model."
            )
        self.max_seq_length = encoder.max_seq_length

    @property
    def max_seq_length(self) -> int | None:
        """Tokens a text is cut to, special tokens included; None: never cut."""
        return self._max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        special = self._tokenizer.num_special_tokens_to_add(False) if self._adds_special else 0
        if value is None:
            self._tokenizer.no_truncation()
        elif not isinstance(value, int) or value <= special:
            raise InputError(
                f"max_seq_length must be a whole number above the {special} special tokens of this tokenizer, or None; "
                f"got {value!r}."
            )
        else:
            self._tokenizer.enable_truncation(value, direction=self._side)
        self._max_seq_length = value

    def __call__(self, texts: Sequence[str], prompt: str = "") -> Tokens:
        """Tokenize texts, each behind the prompt.

        Raises:
            InputError: a text (its index is named) or the prompt holds a lone surrogate.
        """
        ids: list[npt.NDArray[np.int64]] = []
        lengths = np.zeros(len(texts) + 1, dtype=np.int64)
        truncated = np.zeros(len(texts), dtype=np.bool_)
        for start in range(0, len(texts), _CHUNK):
            part = texts[start : start + _CHUNK]
            encodings = self._encode(part, prompt, start)
            lengths[start + 1 : start + 1 + len(part)] = [len(e.ids) for e in encodings]
            truncated[start : start + len(part)] = [bool(e.overflowing) for e in encodings]
            count = int(lengths[start + 1 : start + 1 + len(part)].sum())
            ids.append(np.fromiter(chain.from_iterable(e.ids for e in encodings), dtype=np.int64, count=count))
        flat = ids[0] if len(ids) == 1 else np.concatenate(ids or [np.zeros(0, dtype=np.int64)])
        return Tokens(flat, lengths.cumsum(), truncated)

    def prompt_length(self, prompt: str) -> int:
        """Tokens of a prompt without a trailing special token, as sentence-transformers counts them."""
        if not prompt:
            return 0
        ids = self([prompt]).of(0)
        return len(ids) - int(len(ids) > 0 and int(ids[-1]) in self._special)

    def token(self, token_id: int) -> str:
        """The token behind an id."""
        return str(self._tokenizer.id_to_token(token_id))

    def _encode(self, texts: Sequence[str], prompt: str, start: int) -> list[Any]:
        try:
            prompted = [prompt + text for text in texts] if prompt else list(texts)
            return list(self._tokenizer.encode_batch_fast(prompted, add_special_tokens=self._adds_special))
        except TypeError:
            check_all_encodable(texts, prompt, start)
            raise


def open_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer.json, with padding off.

    Raises:
        ModelFormatError: it cannot be read.
    """
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        raise ModelFormatError(f"{path} is not a readable tokenizer.json: {error}") from error
    tokenizer.no_padding()
    return tokenizer


def _lowers(normalizer: Any) -> bool:  # noqa: ANN401 - tokenizers has no types
    """Whether a normalizer lower-cases already, as sentence-transformers' `_has_lowercase` asks."""
    parts: Iterable[Any] = [normalizer]
    if isinstance(normalizer, normalizers.Sequence):
        parts = cast("Iterable[Any]", normalizer)
    return any(isinstance(part, normalizers.Lowercase) for part in parts)


def check_encodable(text: str, what: str) -> None:
    """Raise InputError if a text holds half a surrogate pair."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{what} holds a lone surrogate (U+{ord(text[error.start]):04X} at character "
            f"{error.start}), which is no valid Unicode text. Repair it: "
            "text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')"
        ) from error


def check_all_encodable(texts: Sequence[str], prompt: str, first: int) -> None:
    """Raise InputError if the prompt or a text holds half a surrogate pair; `first` is the index of the first text."""
    check_encodable(prompt, "the prompt")
    for index, text in enumerate(texts):
        check_encodable(text, f"the text at index {first + index}")


def check_texts(texts: Sequence[object]) -> None:
    """Raise InputError, naming the index, if anything but a string is among the texts."""
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            hint = " Decode it first: text.decode('utf-8')." if isinstance(text, bytes) else ""
            raise InputError(
                f"expected strings, got {type(text).__name__} at index {index}: {str(text)[:40]!r}.{hint} "
                "Nothing was encoded."
            )
