"""Pairs of texts to token ids, equal to the reference tokenizer's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from trivec._errors import InputError, ModelFormatError
from trivec._model.manifest import EncoderSpec
from trivec._tokens.batch import Tokens
from trivec._tokens.inputs import check_encodable
from trivec._tokens.tokenizer import TextTokenizer, is_failure, rendered, untokenized

Pair = tuple[str, str]


class PairTokenizer(TextTokenizer):
    """A tokenizer.json for pairs: of one that is too long the longer text is cut first (`longest_first`).

    The methods of a TextTokenizer take pairs in the place of texts. A prompt stands before the first text of each. A
    pair that goes through a chat template is one text then, cut at its end, and ended as the template has it.
    """

    _pairs = True

    def __init__(self, path: Path, encoder: EncoderSpec, *, types: bool) -> None:
        """Open a file.

        Args:
            path: of the tokenizer.json.
            encoder: its settings.
            types: whether the graph reads token types.
        """
        self._types = types
        super().__init__(path, encoder)

    def query_first(self, pairs: Sequence[Pair], query_length: int, length: int) -> Tokens:
        """Pairs as FlagEmbedding's rerankers cut them: the first text to `query_length` tokens, then the second alone.

        Args:
            pairs: N pairs.
            query_length: tokens of the first text, without special ones.
            length: tokens of the whole, special ones included.

        Raises:
            InputError: query_length leaves no token for the second text, a text cannot be tokenized, or the model puts
                pairs into a chat template.
        """
        if self._template is not None:
            raise InputError("this model puts pairs into a chat template, which FlagEmbedding does not. Type: predict")
        whole = self.copy()
        whole.no_truncation()
        before, between, after = _around(whole) if self._adds_special else ((), (), ())
        special = len(before) + len(between) + len(after)
        if query_length < 1 or query_length + special >= length:
            raise InputError(
                f"query_max_length {query_length} and {special} special tokens leave nothing of max_length {length} "
                "for documents. Lower the one, or raise the other."
            )
        rows, second, truncated = [], [], []
        try:
            texts = [text for pair in pairs for text in pair]
            found = [encoding.ids for encoding in whole.encode_batch_fast(texts, add_special_tokens=False)]
        except BaseException as error:
            if not is_failure(error):
                raise
            self._check_encodable(pairs, "", 0)
            raise untokenized(error, 0, len(pairs)) from error
        for a, b in zip(found[::2], found[1::2], strict=True):
            query = self._kept(a, query_length)
            document = self._kept(b, length - special - len(query))
            rows.append([*before, *query, *between, *document, *after])
            second.append(len(before) + len(query) + len(between))
            truncated.append(len(query) < len(a) or len(document) < len(b))
        starts = np.array(second, dtype=np.int64) if self._types else None
        return Tokens.of_ids(rows)._replace(truncated=np.array(truncated, dtype=np.bool_), second=starts)

    def unread(self, pair: Pair, prompt: str = "") -> tuple[int, int]:
        """Tokens of the first text, prompt included, and of the second, that are cut off.

        In a chat template, what stands around the first text counts with it.
        """
        whole = self.copy()
        whole.no_truncation()
        if self._template is None:
            sides = [encoder.encode(prompt + pair[0], pair[1]).sequence_ids for encoder in (whole, self._tokenizer)]
            return sides[0].count(0) - sides[1].count(0), sides[0].count(1) - sides[1].count(1)
        text, most = rendered(self._template, prompt, pair), self.max_seq_length
        starts = [start for start, _ in whole.encode(text, add_special_tokens=False).offsets]
        if most is None or len(starts) <= most:
            return 0, 0
        ended = len(self._template.last_ids)
        gone = starts[most - ended : len(starts) - ended] if self._side == "right" else starts[: len(starts) - most]
        second = len(text) - len(self._template.text[-1]) - len(pair[1].strip() if self._template.strip else pair[1])
        of_second = sum(start >= second for start in gone)
        return len(gone) - of_second, of_second

    def _kept(self, ids: Sequence[int], most: int) -> Sequence[int]:
        return ids[:most] if self._side == "right" else ids[max(0, len(ids) - most) :]

    def of_ids(self, rows: Sequence[Sequence[int]]) -> Tokens:  # noqa: ARG002
        """Refused: which ids are of which text, none of them says."""
        raise InputError("this model reads pairs of texts, and takes no token ids. Send the texts.")

    def _prompted(self, texts: Sequence[Any], prompt: str) -> list[Any]:
        pairs = cast("Sequence[Pair]", texts)
        if self._template is not None:
            return [rendered(self._template, prompt, pair) for pair in pairs]
        return [(prompt + first, second) for first, second in pairs] if prompt else list(pairs)

    def _check_encodable(self, texts: Sequence[Any], prompt: str, start: int) -> None:
        check_encodable(prompt, "the prompt")
        for index, pair in enumerate(texts, start):
            for text, name in zip(pair, ("first", "second"), strict=True):
                check_encodable(text, f"the {name} text of the pair at index {index}")

    def _check_types(self, path: Path) -> None:
        """ModelFormatError where the token types of a pair are anything but 0 ... 0 1 ... 1, and the graph reads them.

        One number a pair tells them then.
        """
        for pair in (("a", "b"), ("a", ""), ("", "a")) if self._types else ():
            found = self._tokenizer.encode(*pair).type_ids
            if found != sorted(found) or not {0, 1} >= set(found):
                raise ModelFormatError(
                    f"{path} gives the token types {found} to the pair {pair}; expected 0 for one text, then 1 for the "
                    "other. Use sentence-transformers for this model."
                )


def _around(tokenizer: Any) -> tuple[list[int], list[int], list[int]]:  # noqa: ANN401 - tokenizers has no types
    """The special tokens before the first text of a pair, between the two, and behind the second."""
    found = tokenizer.encode("a", "b")
    first, second = ([i for i, text in enumerate(found.sequence_ids) if text == side] for side in (0, 1))
    if not first or not second:
        raise InputError("this tokenizer gives no token for the text 'a', so that pairs cannot be cut text by text.")
    ids: list[int] = found.ids
    return ids[: first[0]], ids[first[-1] + 1 : second[0]], ids[second[-1] + 1 :]
