"""Texts to token ids for late interaction: behind the mark of their side, queries filled up."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trivec._errors import InputError
from trivec._model.manifest import EncoderSpec, Expansion, Multi, Route
from trivec._tokens.batch import Tokens
from trivec._tokens.tokenizer import TextTokenizer

Ids = npt.NDArray[np.int64]


class LateTokenizer(TextTokenizer):
    """A tokenizer.json for one side of a late-interaction model.

    Its `Tokens.second` says where the tokens begin that nobody attends to, of a model whose expansion is not attended.
    """

    def __init__(self, path: Path, encoder: EncoderSpec, multi: Multi) -> None:
        """Open a file.

        Args:
            path: of the tokenizer.json.
            encoder: its settings, with the max_seq_length of this side.
            multi: what stands before a text, and what it is filled up with.
        """
        self._prefix_ids, self._expansion = multi.prefix_ids, multi.expansion
        self._inserted = len(multi.prefix_ids)
        super().__init__(path, encoder)
        self._place = len(self._around()[0])

    @property
    def expansion(self) -> Expansion | None:
        """What texts are filled up with: an exact one to `max_seq_length`, wherever that is set."""
        if self._expansion is None or not self._expansion.exact:
            return self._expansion
        return replace(self._expansion, length=self.max_seq_length or self._expansion.length)

    def __call__(self, texts: Sequence[str], prompt: str = "") -> Tokens:
        """Tokenize texts, each behind the mark and the prompt.

        Raises:
            InputError: see `TextTokenizer`.
        """
        return self._completed(super().__call__(texts, prompt))

    def of_ids(self, rows: Sequence[Sequence[int]]) -> Tokens:
        """Ids of this very vocabulary, without the mark and the expansion, which they get as texts do.

        Raises:
            InputError: the mark is there already (the row is named); else see `TextTokenizer`.
        """
        tokens, mark = super().of_ids(rows), self._prefix_ids
        for index in range(len(rows) if mark else 0):
            if tuple(tokens.of(index)[self._place : self._place + len(mark)]) == mark:
                raise InputError(
                    f"the token ids at index {index} begin with the mark {list(mark)}, which this model puts there by "
                    "itself. Send the ids of the text alone."
                )
        return self._completed(tokens)

    def prompt_length(self, prompt: str) -> int:  # noqa: ARG002 - of one vector a token, none is left out for a prompt
        """0: nothing is pooled."""
        return 0

    def cut_at(self, length: int) -> TextTokenizer:
        """The same with another max_seq_length; one that is filled up to a length gets no longer by it."""
        exact = self._expansion is not None and self._expansion.exact
        return super().cut_at(min(length, self.max_seq_length or length) if exact else length)

    def _completed(self, tokens: Tokens) -> Tokens:
        tokens = inserted(tokens, self._place, self._prefix_ids)
        return tokens if self.expansion is None else expanded(tokens, self.expansion)


def late_encoder(encoder: EncoderSpec, route: Route) -> EncoderSpec:
    """The encoder's settings with the length of one side, up to the positions that there are."""
    length = encoder.max_seq_length if route.max_seq_length is None else route.max_seq_length
    lengths = [n for n in (length, encoder.max_positions) if n is not None]
    return replace(encoder, max_seq_length=min(lengths, default=None))


def inserted(tokens: Tokens, place: int, ids: Sequence[int]) -> Tokens:
    """The same N texts with some ids more, put at one place in each; a shorter text has them at its end."""
    if not ids:
        return tokens
    places = np.minimum(tokens.offsets[:-1] + place, tokens.offsets[1:])  # (N,)
    made = np.insert(tokens.ids, np.repeat(places, len(ids)), np.tile(np.array(ids, dtype=np.int64), len(places)))
    return tokens._replace(ids=made, offsets=tokens.offsets + np.arange(len(tokens.offsets)) * len(ids))


def expanded(tokens: Tokens, expansion: Expansion) -> Tokens:
    """The same N texts with the expansion's token behind those that are shorter than its length."""
    lengths = tokens.lengths
    offsets = np.concatenate([[0], np.cumsum(np.maximum(lengths, expansion.length))]).astype(np.int64)
    ids: Ids = np.full(int(offsets[-1]), expansion.token_id, dtype=np.int64)
    places = np.arange(len(tokens.ids)) + np.repeat(offsets[:-1] - tokens.offsets[:-1], lengths)  # (T,)
    ids[places] = tokens.ids
    return tokens._replace(ids=ids, offsets=offsets, second=None if expansion.attended else lengths)
