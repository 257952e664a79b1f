"""Texts to token ids, equal to the reference tokenizer's."""

import contextlib
import copy
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, normalizers

from trivec._errors import InputError, ModelFormatError, TrivecError
from trivec._model.manifest import EncoderSpec, Template
from trivec._system.native_text import native_path
from trivec._tokens.batch import Tokens
from trivec._tokens.inputs import check_all_encodable

_MOST_BYTES = 256 << 20  # of a tokenizer.json; the largest that are known have 35 MB
_CHUNK = 256  # texts whose Encoding objects are alive at once: 60 bytes a token, and what was cut off as well


class TokenReader(Protocol):
    """What an encoder needs of a tokenizer."""

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of tokens that stand for no piece of a text, such as [CLS]."""

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

    def cut_at(self, length: int) -> "TokenReader":
        """The same with another max_seq_length."""

    def cut_from(self, side: Literal["left", "right"]) -> "TokenReader":
        """The same with texts cut on this side."""

    def of_ids(self, rows: Sequence[Sequence[int]]) -> Tokens:
        """Ids of this very vocabulary in the place of texts."""

    def copy(self) -> Tokenizer:
        """The tokenizer of the tokenizers library, to do anything with: a copy."""


class TextTokenizer:
    """A tokenizer.json with padding off and truncation at the model's length."""

    _pairs = False
    """Whether it reads two texts at a time."""
    _types = False
    """Whether it says of each pair where the tokens of type 1 start."""
    _inserted = 0
    """Tokens that are put into every text afterwards."""

    def __init__(self, path: Path, encoder: EncoderSpec) -> None:
        with readable_tokenizer(path):
            self._open(path, encoder)

    def _open(self, path: Path, encoder: EncoderSpec) -> None:
        self._tokenizer = open_tokenizer(path)
        self._side = encoder.truncation_side
        self._adds_special = encoder.add_special_tokens
        self._template = encoder.template
        added = self._tokenizer.get_added_tokens_decoder()
        self.special_ids = frozenset(encoder.special_ids or (i for i, token in added.items() if token.special))
        if encoder.lower_case and not _lowers(self._tokenizer.normalizer):
            own = self._tokenizer.normalizer
            self._tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *([own] if own else [])])
        self._check_types(path)
        self._cut: TextTokenizer | None = None
        self._mirrored: TextTokenizer | None = None
        self.max_seq_length = encoder.max_seq_length

    @property
    def max_seq_length(self) -> int | None:
        """Tokens a text is cut to, special tokens included; None: never cut."""
        return self._max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        special = self._tokenizer.num_special_tokens_to_add(self._pairs) if self._adds_special else 0
        special += (len(self._template.last_ids) if self._template else 0) + self._inserted
        if value is None:
            self._tokenizer.no_truncation()
        elif not isinstance(value, int) or value <= special:
            raise InputError(
                f"max_seq_length must be a whole number above the {special} special tokens of this tokenizer, or None; "
                f"got {value!r}."
            )
        else:
            self._tokenizer.enable_truncation(value - self._inserted, direction=self._side)
        self._max_seq_length = value

    def __call__(self, texts: Sequence[str], prompt: str = "") -> Tokens:
        """Tokenize texts, each behind the prompt.

        Raises:
            InputError: a text (its index is named) or the prompt holds a lone surrogate, or the tokenizer fails.
        """
        ids: list[npt.NDArray[np.int64]] = []
        lengths = np.zeros(len(texts) + 1, dtype=np.int64)
        truncated = np.zeros(len(texts), dtype=np.bool_)
        second = np.zeros(len(texts), dtype=np.int64) if self._types else None
        for start in range(0, len(texts), _CHUNK):
            part = texts[start : start + _CHUNK]
            encodings = self._encode(part, prompt, start)
            rows = [e.ids for e in encodings]
            if self._template is not None:
                rows = [_ended(e, self._template.last_ids) for e in encodings]
            lengths[start + 1 : start + 1 + len(part)] = [len(row) for row in rows]
            truncated[start : start + len(part)] = [bool(e.overflowing) for e in encodings]
            if second is not None:
                second[start : start + len(part)] = [len(e) - sum(e.type_ids) for e in encodings]
            count = int(lengths[start + 1 : start + 1 + len(part)].sum())
            ids.append(np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=count))
        flat = ids[0] if len(ids) == 1 else np.concatenate(ids or [np.zeros(0, dtype=np.int64)])
        return Tokens(flat, lengths.cumsum(), truncated, second)

    def prompt_length(self, prompt: str) -> int:
        """Tokens of a prompt without a trailing special token, as sentence-transformers counts them."""
        if not prompt or self._template is not None:  # in a message of its own it always counts, as there
            return 0
        ids = self([prompt]).of(0)
        return len(ids) - int(len(ids) > 0 and int(ids[-1]) in self.special_ids)

    def token(self, token_id: int) -> str:
        """The token behind an id."""
        return str(self._tokenizer.id_to_token(token_id))

    def cut_at(self, length: int) -> "TextTokenizer":
        """The same with another max_seq_length; the last one is kept, since a vocabulary may take 100 MB.

        Raises:
            InputError: length is not above the number of special tokens.
        """
        if length == self.max_seq_length:
            return self
        found = self._cut
        if found is None or found.max_seq_length != length:
            found = self._other(length, self._side)
            self._cut = found
        return found

    def cut_from(self, side: Literal["left", "right"]) -> "TextTokenizer":
        """The same with texts cut on this side; the other one is kept."""
        if side == self._side:
            return self
        found = self._mirrored
        if found is None or found.max_seq_length != self.max_seq_length:
            self._mirrored = found = self._other(self.max_seq_length, side)
        return found

    def of_ids(self, rows: Sequence[Sequence[int]]) -> Tokens:
        """Ids of this very vocabulary, cut as texts are, between its special tokens unless the first id is one.

        Raises:
            InputError: an id that is none of the vocabulary (the row is named), or a model that reads chat messages.
        """
        if self._template is not None:
            raise InputError("this model puts texts into a chat template, so that it takes no token ids. Send texts.")
        size = self._tokenizer.get_vocab_size(True)
        for index, row in enumerate(rows):
            wrong = next((i for i in row if not 0 <= i < size), None)
            if wrong is not None:
                raise InputError(
                    f"the token id {wrong} at index {index} is none of this model's {size}: 0 to {size - 1}."
                )
        first, last = self._around()
        made, truncated = [], []
        for row in rows:
            bare = not self._adds_special or (len(row) > 0 and row[0] in self.special_ids)
            before, behind = ([], []) if bare else (first, last)
            most = self.max_seq_length
            room = len(row) if most is None else max(0, most - len(before) - len(behind))
            kept = row[:room] if self._side == "right" else row[max(0, len(row) - room) :]
            made.append([*before, *kept, *behind])
            truncated.append(len(kept) < len(row))
        return Tokens.of_ids(made)._replace(truncated=np.array(truncated, dtype=np.bool_))

    def _around(self) -> tuple[list[int], list[int]]:
        """The special tokens before a text, and behind it."""
        found = self._tokenizer.encode("a", add_special_tokens=True)
        bare = [i for i, special in enumerate(found.special_tokens_mask) if not special]
        if not bare:
            return list(found.ids), []
        return list(found.ids[: bare[0]]), list(found.ids[bare[-1] + 1 :])

    def _other(self, length: int | None, side: str) -> "TextTokenizer":
        found = copy.copy(self)
        found._tokenizer, found._side = self.copy(), side
        found._cut = found._mirrored = None
        found.max_seq_length = length
        return found

    def copy(self) -> Tokenizer:
        """The tokenizer of the tokenizers library: a copy."""
        return copy.deepcopy(self._tokenizer)

    def _encode(self, texts: Sequence[str], prompt: str, start: int) -> list[Any]:
        try:
            prompted = self._prompted(texts, prompt)
            return list(self._tokenizer.encode_batch_fast(prompted, add_special_tokens=self._adds_special))
        except BaseException as error:  # a panic of the library is no Exception
            if not is_failure(error):
                raise
            self._check_encodable(texts, prompt, start)
            raise untokenized(error, start, len(texts)) from error

    def _prompted(self, texts: Sequence[str], prompt: str) -> list[Any]:
        """What the library tokenizes: each text behind the prompt."""
        if self._template is not None:
            return [rendered(self._template, prompt, (text,)) for text in texts]
        return [prompt + text for text in texts] if prompt else list(texts)

    def _check_encodable(self, texts: Sequence[str], prompt: str, start: int) -> None:
        """InputError where the prompt or a text is no valid Unicode; `start` is the index of the first."""
        check_all_encodable(texts, prompt, start)

    def _check_types(self, path: Path) -> None:
        """ModelFormatError where a text gets token types that nothing here feeds."""
        if any(self._tokenizer.encode("a").type_ids):
            raise ModelFormatError(
                f"{path} gives token types other than 0 to a single text; trivec's graphs read none. "
                "Use sentence-transformers for this model."
            )


def rendered(template: Template, prompt: str, texts: Sequence[str]) -> str:
    """A text, or the texts of a pair, and the prompt if there is one, inside the chat template."""
    said = [prompt, *texts] if prompt else list(texts)
    pieces = template.prompted if prompt else template.text
    if pieces is None:
        raise InputError("this model's chat template takes no prompt. Pass prompt='' or put it into the text.")
    if template.strip:
        said = [part.strip() for part in said]
    return "".join(chain.from_iterable(zip(pieces, [*said, ""], strict=True)))


def _ended(encoding: Any, last: tuple[int, ...]) -> list[int]:  # noqa: ANN401 - tokenizers has no types
    """The ids of a text; they end its message even where it was cut (`Transformer._restore_chat_template_suffix`)."""
    ids: list[int] = encoding.ids
    return [*ids[: len(ids) - len(last)], *last] if last and encoding.overflowing else ids


def open_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer.json, with padding off.

    Raises:
        ModelFormatError: it cannot be read.
        InputError: its path is not UTF-8.
    """
    name = native_path(path)
    with readable_tokenizer(path):
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it has over {_MOST_BYTES >> 20} MB")
        tokenizer = Tokenizer.from_file(name)
        tokenizer.no_padding()
        return tokenizer


@contextlib.contextmanager
def readable_tokenizer(path: Path) -> Iterator[None]:
    """Raise ModelFormatError for whatever the tokenizers library raises over a file."""
    try:
        yield
    except TrivecError:
        raise
    except BaseException as error:
        if not is_failure(error):
            raise
        raise ModelFormatError(f"{path} is not a readable tokenizer.json: {error}") from error


def is_failure(error: BaseException) -> bool:
    """Whether it is the tokenizers library's: an Exception, or what a panic of its Rust code becomes, which is none."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def untokenized(error: BaseException, first: int, count: int) -> InputError:
    """What to raise where the library failed over some texts."""
    return InputError(f"a text among those at index {first} to {first + count - 1} cannot be tokenized: {error}.")


def _lowers(normalizer: Any) -> bool:  # noqa: ANN401 - tokenizers has no types
    """Whether a normalizer lower-cases already, as sentence-transformers' `_has_lowercase` asks."""
    parts: Iterable[Any] = [normalizer]
    if isinstance(normalizer, normalizers.Sequence):
        parts = cast("Iterable[Any]", normalizer)
    return any(isinstance(part, normalizers.Lowercase) for part in parts)
