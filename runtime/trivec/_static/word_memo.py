"""Token ids of words that came before: BERT's kind of tokenizer cuts texts into words that do not see each other.

BertPreTokenizer splits at white space and around punctuation, and BertNormalizer looks at no more than a character and
the accents behind it. So a text's ids are those of its words, one after the other, where it is cut at ASCII white space
and around ASCII punctuation; what is not ASCII stays inside of a word, for the tokenizer itself to judge. A word's ids
are asked of the tokenizer once, and a model that has no more to do than to add up vectors becomes several times as
fast.
"""

import re
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import normalizers, pre_tokenizers

Ids = npt.NDArray[np.int64]
Read = Callable[[list[str]], list[list[int]]]
_PIECES = re.compile(r"[^ \t\n\r!-/:-@\[-`{-~]+|[!-/:-@\[-`{-~]")
_LONGEST, _MOST = 32, 1 << 17  # characters of a word that is kept, and words: 40 MB or so
_RARE = 1000  # words, of which more than half are new: then the texts are not worth cutting up
_PROBE = "Don't  stop:\tTGF-β1\u00a0(naïve, 3.14) x\u0301?! 漢字 UNKNOWNZZZQ \x01a\x7fb [x]\n"


class WordMemo:
    """Remembers what a tokenizer made of each word; safe to use from many threads.

    Args:
        read: ids of texts, by the tokenizer itself.
        added: the tokens that are looked for in a text before it is cut into words.
    """

    def __init__(self, read: Read, added: Sequence[str]) -> None:
        self._read, self._known = read, dict[str, tuple[int, ...]]()
        self._special = re.compile("|".join(map(re.escape, added))) if added else None

    def ids(self, texts: Sequence[str]) -> tuple[Ids, Ids]:
        """(T,) ids of N texts, end to end, and (N,) how many each has."""
        known = self._known
        words = [self._words(text) for text in texts]
        flat = list(chain.from_iterable(words))
        found: list[tuple[int, ...] | None] = list(map(known.get, flat))
        if None in found:
            new = list(dict.fromkeys(word for word, ids in zip(flat, found, strict=True) if ids is None))
            if len(flat) > _RARE and 2 * len(new) > len(flat):
                return joined(self._read(list(texts)))
            fresh = dict(zip(new, map(tuple, self._read(new)), strict=True))
            self._keep(fresh)
            found = [fresh[word] if ids is None else ids for word, ids in zip(flat, found, strict=True)]
        ids, lengths = joined([each for each in found if each is not None])
        ends = offsets_of(lengths)[
            offsets_of(np.fromiter(map(len, words), dtype=np.int64, count=len(words)))
        ]  # (N + 1,)
        return ids, ends[1:] - ends[:-1]

    def _words(self, text: str) -> list[str]:
        """A text in pieces; in one where it holds an added token, which may lie across several."""
        if self._special is not None and self._special.search(text):
            return [text]
        return _PIECES.findall(text)

    def _keep(self, fresh: dict[str, tuple[int, ...]]) -> None:
        kept = {word: ids for word, ids in fresh.items() if len(word) <= _LONGEST}
        if len(self._known) + len(kept) > _MOST:
            self._known = {}  # another thread may still read the old one
        self._known.update(kept)


def word_memo(tokenizer: Any, read: Read) -> WordMemo | None:  # noqa: ANN401 - tokenizers has no types
    """A memo for a tokenizer whose words are independent of each other; None for any other one.

    Args:
        tokenizer: the tokenizer.
        read: ids of texts, by the tokenizer itself, without special tokens.
    """
    added = tokenizer.get_added_tokens_decoder().values()
    if (
        not isinstance(tokenizer.normalizer, normalizers.BertNormalizer)
        or not isinstance(tokenizer.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
        or any(token.normalized for token in added)  # looked for in what the normalizer makes of a text
    ):
        return None
    memo = WordMemo(read, [token.content for token in added])
    ids, _ = memo.ids([_PROBE])
    return memo if ids.tolist() == read([_PROBE])[0] else None  # a post-processor may do anything


def offsets_of(lengths: Ids) -> Ids:
    """(N + 1,) where each of N rows of these lengths starts, and where the last one ends."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def joined(lists: Sequence[Sequence[int]]) -> tuple[Ids, Ids]:
    """Ids of N lists, end to end (T,), and their lengths (N,)."""
    lengths = np.fromiter(map(len, lists), dtype=np.int64, count=len(lists))
    return np.fromiter(chain.from_iterable(lists), dtype=np.int64, count=int(lengths.sum())), lengths
