"""Pairs of similar texts in one collection."""

import os
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import numpy as np

from trivec._encoders.text_encoder import TextEncoder
from trivec._errors import InputError
from trivec._tokens.inputs import as_texts
from trivec._vectors.rows import Vectors, check_count, take
from trivec._vectors.scores import cos_sim
from trivec.util._candidates import Doubles, Ids
from trivec.util._scorers import Names, Score, scorer
from trivec.util._search import Part, Sizes, check_function, search


class Encodes(Protocol):
    """An encoder, trivec's or another."""

    def encode(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        """Vectors of texts."""


def paraphrase_mining(
    model: Encodes,
    sentences: Iterable[str],
    show_progress_bar: bool = False,
    batch_size: int = 32,
    query_chunk_size: int = 5000,
    corpus_chunk_size: int = 100000,
    max_pairs: int = 500000,
    top_k: int = 100,
    score_function: Score = cos_sim,
    truncate_dim: int | None = None,
    prompt_name: str | None = None,
    prompt: str | None = None,
) -> list[list[float | int]]:
    """Encode texts, compare all with all, and list the most similar pairs.

    The call and the results of sentence_transformers.util.paraphrase_mining 6.2.

    Args:
        model: an encoder of trivec, of any kind (of a HybridEncoder's vectors the dense ones count), or whatever has
            such an `encode`.
        sentences: the texts.
        show_progress_bar: of encoding.
        batch_size: of encoding.
        query_chunk_size: texts that are compared at a time, at most 1,024.
        corpus_chunk_size: texts that these are compared with at a time, at most; fewer where memory would not be
            bounded.
        max_pairs: how many pairs to list at most.
        top_k: how many others are looked for, for each text.
        score_function: as in `semantic_search`; assumed to be symmetric.
        truncate_dim: compare the first so many numbers of dense vectors.
        prompt_name: a key of the model's prompts.
        prompt: a text to put before each input; wins over prompt_name.

    Returns:
        [score, i, j] with i < j for each pair, the greatest score first, equal scores by lower i, then by lower j.

    Raises:
        InputError: something that is no encoder or no text, a size below 1, or truncate_dim for a model without it.
    """
    if isinstance(model, str | os.PathLike) or not callable(getattr(model, "encode", None)):  # a str has an `encode`
        name = f"{model!r:.60}" if isinstance(model, str | os.PathLike) else "name_or_folder"
        raise InputError(f"expected an encoder, got {type(model).__name__}. Type: trivec.load({name})")
    texts, single = as_texts(sentences, None)
    if single:
        raise InputError("sentences must be a list of texts, got one text. Pairs need two texts at least.")
    options: dict[str, Any] = {"show_progress_bar": show_progress_bar, "batch_size": batch_size}
    options |= {"prompt_name": prompt_name, "prompt": prompt}
    if truncate_dim is not None:
        if isinstance(model, TextEncoder) and "truncate_dim" not in model.encode_options():
            raise InputError(f"truncate_dim is for dense vectors, not for those of a {type(model).__name__}.")
        options["truncate_dim"] = truncate_dim
    if isinstance(model, TextEncoder):
        vectors: Any = next(
            part for part in model.represent(texts, model.heads[:1], **options).parts() if part is not None
        )
    else:
        vectors = model.encode(texts, **options)
    return paraphrase_mining_embeddings(
        vectors,
        query_chunk_size=query_chunk_size,
        corpus_chunk_size=corpus_chunk_size,
        max_pairs=max_pairs,
        top_k=top_k,
        score_function=score_function,
    )


def paraphrase_mining_embeddings(
    embeddings: Vectors,
    query_chunk_size: int = 5000,
    corpus_chunk_size: int = 100000,
    max_pairs: int = 500000,
    top_k: int = 100,
    score_function: Score = cos_sim,
) -> list[list[float | int]]:
    """Compare all vectors with all, and list the most similar pairs.

    The call and the results of sentence_transformers.util.paraphrase_mining_embeddings 6.2: the pairs are those of each
    row with its top_k nearest others.

    Args:
        embeddings: (N, D), dense or sparse: see `trivec.util` for what vectors may be.
        query_chunk_size: rows that are compared at a time, at most 1,024.
        corpus_chunk_size: rows that these are compared with at a time, at most.
        max_pairs: how many pairs to list at most.
        top_k: how many others are looked for, for each row.
        score_function: as in `semantic_search`; assumed to be symmetric.

    Returns:
        [score, i, j] with i < j for each pair, the greatest score first, equal scores by lower i, then by lower j.

    Raises:
        InputError: no vectors, a number that is not finite (its row is named), or a size below 1.
    """
    sizes = Sizes(
        check_count("query_chunk_size", query_chunk_size), check_count("corpus_chunk_size", corpus_chunk_size)
    )
    check_count("max_pairs", max_pairs)
    check_count("top_k", top_k)
    check_function(score_function)
    rows = take(embeddings, "embeddings").rows
    compared = scorer(rows, rows, score_function, Names("embeddings", "embeddings"))
    best, waiting = _Pairs.none(), _Pairs.none()
    for part in search(compared, len(rows), len(rows), top_k + 1, sizes):
        waiting = waiting.joined(_pairs_of(part, top_k))
        if len(waiting.scores) > max_pairs:
            best, waiting = best.joined(waiting).best(max_pairs, len(rows)), _Pairs.none()
    best = best.joined(waiting).best(max_pairs, len(rows))
    listed = zip(best.scores.tolist(), best.first.tolist(), best.second.tolist(), strict=True)
    return [[score, i, j] for score, i, j in listed]


class _Pairs(NamedTuple):
    """Pairs of rows."""

    scores: Doubles
    """(P,)"""
    first: Ids
    """(P,) the lower row."""
    second: Ids
    """(P,)"""

    @classmethod
    def none(cls) -> "_Pairs":
        nothing = np.zeros(0, dtype=np.int64)
        return cls(np.zeros(0), nothing, nothing)

    def joined(self, other: "_Pairs") -> "_Pairs":
        return _Pairs(*(np.concatenate(both) for both in zip(self, other, strict=True)))

    def best(self, count: int, rows: int) -> "_Pairs":
        """Each pair once, as it was found first; the greatest scores first, equal ones by lower rows."""
        _, places = np.unique(self.first * rows + self.second, return_index=True)  # by lower rows
        order = places[np.argsort(-self.scores[places], kind="stable")][:count]
        return _Pairs(self.scores[order], self.first[order], self.second[order])


def _pairs_of(part: Part, top_k: int) -> _Pairs:
    """Pairs of some rows and the top_k nearest others of each."""
    ids, scores = part.hits  # (Q, K)
    own = part.start + np.arange(len(ids))[:, None]  # (Q, 1)
    others = ids != own
    kept = others & (np.cumsum(others, axis=1) <= top_k)
    i, j = np.broadcast_to(own, ids.shape)[kept], ids[kept]  # (P,)
    return _Pairs(np.asarray(scores[kept], dtype=np.float64), np.minimum(i, j), np.maximum(i, j))
