"""Texts to the token ids of a static model, by the rules of Model2Vec or of sentence-transformers."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers import Tokenizer

from trivec._errors import InputError
from trivec._model.static_model import MODEL2VEC
from trivec._static.word_memo import Ids, joined, offsets_of, word_memo
from trivec._system.threads import available_threads
from trivec._tokens.batch import Tokens
from trivec._tokens.inputs import check_all_encodable
from trivec._tokens.tokenizer import is_failure, open_tokenizer, readable_tokenizer, untokenized


class StaticTokenizer:
    """A tokenizer.json without special tokens.

    By Model2Vec's rules a text is first cut to max_seq_length times the vocabulary's median token length in
    characters, then tokenized, cut to max_seq_length tokens, and only then loses its unknown tokens
    (`StaticModel.encode` and `tokenize` of model2vec 0.10). By sentence-transformers' rules it is cut where
    tokenizer.json says so, and keeps its unknown tokens.

    Attributes:
        tokens: how many the vocabulary has.
        last_id: the largest id.
        unknown: the id that is dropped; None: none is.
        special_ids: none, whatever tokenizer.json says.
    """

    special_ids: frozenset[int] = frozenset()

    def __init__(self, path: Path, rules: str, max_seq_length: int | None, threads: int | None = None) -> None:
        """Open a tokenizer.

        Args:
            path: the tokenizer.json.
            rules: MODEL2VEC or SENTENCE_TRANSFORMERS.
            max_seq_length: tokens a text is cut to; by sentence-transformers' rules None takes what tokenizer.json
                says.
            threads: texts that are tokenized at a time; None: as many as the tokenizers library has threads.

        Raises:
            ModelFormatError: the file cannot be read.
        """
        with readable_tokenizer(path):
            self._open(path, rules, max_seq_length, threads)

    def _open(self, path: Path, rules: str, max_seq_length: int | None, threads: int | None) -> None:
        self._tokenizer = open_tokenizer(path)
        cut: dict[str, Any] = self._tokenizer.truncation or {}
        self._tokenizer.no_truncation()  # ids are cut here: the library would copy what is left over
        self._side = "right"
        self._letters: int | None = None
        self.unknown: int | None = None
        vocabulary: dict[str, int] = self._tokenizer.get_vocab()
        self.tokens, self.last_id = len(vocabulary), max(vocabulary.values(), default=-1)
        if rules == MODEL2VEC:
            self._letters = int(np.median([len(token) for token in vocabulary])) if vocabulary else 0
            self.unknown = _unknown_id(self._tokenizer, path)
        elif max_seq_length is None and cut:
            max_seq_length, self._side = int(cut["max_length"]), str(cut.get("direction", "right")).lower()
        # Each text is one task of the library's threads, so that a call with few texts keeps few of them busy.
        self._at_a_time = threads if threads is not None and threads < available_threads().count else None
        self.threads = threads
        self.max_seq_length = max_seq_length
        self._words = word_memo(self._tokenizer, self._listed)

    @property
    def max_seq_length(self) -> int | None:
        """Tokens a text is cut to; None: never cut."""
        return self._max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        if value is not None and (not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1):
            raise InputError(f"max_seq_length must be a whole number above 0, or None; got {value!r}.")
        self._max_seq_length = value

    def cut_at(self, length: int) -> "StaticTokenizer":
        """The same with another max_seq_length."""
        found = copy.copy(self)
        found.max_seq_length = length
        return found

    def cut_from(self, side: Literal["left", "right"]) -> "StaticTokenizer":
        """The same with texts cut on this side.

        Raises:
            InputError: Model2Vec's own cut, of characters, has one side.
        """
        if side == self._side:
            return self
        if self._letters is not None:
            raise InputError("Model2Vec's models cut texts at their end. Leave the direction out.")
        found = copy.copy(self)
        found._side = side
        return found

    def of_ids(self, rows: Sequence[Sequence[int]]) -> Tokens:  # noqa: ARG002 - as TextTokenizer's
        """Refused.

        Raises:
            InputError: in any case.
        """
        raise InputError("a static model takes no token ids. Send texts.")

    def copy(self) -> Tokenizer:
        """The tokenizer of the tokenizers library: a copy."""
        return copy.deepcopy(self._tokenizer)

    @property
    def truncation_side(self) -> str:
        """Where a text that is too long is cut: "right" or "left"."""
        return self._side

    @property
    def max_characters(self) -> int | None:
        """Characters a text is cut to before it is tokenized; None: it is not."""
        if self._letters is None or self._max_seq_length is None:
            return None
        return self._letters * self._max_seq_length

    def __call__(self, texts: Sequence[str], prompt: str = "", first: int = 0) -> Tokens:
        """Tokenize texts, each behind the prompt; `first` is the index of the first one, for messages.

        Raises:
            InputError: a text (its index is named) or the prompt holds a lone surrogate, or the tokenizer has neither
                a token for a character nor one for what is unknown.
        """
        characters, most = self.max_characters, self._max_seq_length
        prompted = [prompt + text for text in texts] if prompt else list(texts)
        truncated = np.zeros(len(prompted), dtype=np.bool_)  # (N,)
        if characters is not None:
            truncated |= np.fromiter(map(len, prompted), dtype=np.int64, count=len(prompted)) > characters
            prompted = [text[:characters] for text in prompted]
        try:
            memo = self._words
            ids, lengths = memo.ids(prompted) if memo else joined(self._listed(prompted))  # (T,), (N,)
        except BaseException as error:  # of no other class, whatever the library cannot do; a panic not even of that
            if not is_failure(error):
                raise
            check_all_encodable(texts, prompt, first)
            raise untokenized(error, first, len(texts)) from error
        if most is not None and (lengths > most).any():
            truncated |= lengths > most
            ids, lengths = _cut(ids, lengths, most, self._side)
        return self._without_unknown(Tokens(ids, offsets_of(lengths), truncated))

    def prompt_length(self, prompt: str) -> int:  # noqa: ARG002 - as TextTokenizer's
        """0: a prompt's tokens count as any others do."""
        return 0

    def token(self, token_id: int) -> str:
        """The token behind an id."""
        return str(self._tokenizer.id_to_token(token_id))

    def _listed(self, texts: list[str]) -> list[list[int]]:
        """The ids of texts, by the tokenizers library."""
        step = self._at_a_time or len(texts) or 1
        if step >= len(texts):
            return [e.ids for e in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))  # those side by side end at about one time
        found: list[list[int]] = [[]] * len(texts)
        for start in range(0, len(order), step):
            rows = order[start : start + step]
            encodings = self._tokenizer.encode_batch_fast([texts[row] for row in rows], add_special_tokens=False)
            for row, encoding in zip(rows, encodings, strict=True):
                found[row] = encoding.ids
        return found

    def _without_unknown(self, tokens: Tokens) -> Tokens:
        if self.unknown is None:
            return tokens
        kept = tokens.ids != self.unknown  # (T,)
        if kept.all():
            return tokens
        return Tokens(tokens.ids[kept], offsets_of(kept)[tokens.offsets], tokens.truncated)


def _cut(ids: Ids, lengths: Ids, most: int, side: str) -> tuple[Ids, Ids]:
    """Ids (T,) of texts of these lengths (N,), and their lengths, without what is beyond `most`."""
    ends = np.cumsum(lengths)  # (N,)
    place = np.arange(len(ids)) - np.repeat(ends - lengths, lengths)  # (T,) of each token in its text
    if side == "left":
        place = np.repeat(lengths, lengths) - 1 - place
    return ids[place < most], np.minimum(lengths, most)


def _unknown_id(tokenizer: Any, path: Path) -> int | None:  # noqa: ANN401 - tokenizers has no types
    """The id of the unknown token, as Model2Vec finds it: by its name, or in a Unigram model by its number."""
    model = tokenizer.model
    if hasattr(model, "unk_token"):
        name = model.unk_token
        found = None if name is None else tokenizer.token_to_id(name)
    else:
        found = json.loads(path.read_text(encoding="utf-8"))["model"].get("unk_id")
    return None if found is None else int(found)
