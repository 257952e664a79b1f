"""`diff`: from two sides to what changes between them."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trivec._errors import InputError
from trivec._gate.figures import kept_neighbours, multi_cosine, sparse_cosine
from trivec._gate.texts import verification_texts
from trivec._tokens.inputs import as_texts
from trivec._vectors.arrays import Floats, normalize
from trivec._vectors.heads import HEADS, Head, HybridVectors
from trivec._vectors.multi import MultiVectors
from trivec._vectors.similarity import similarity
from trivec._vectors.sparse import SparseVectors
from trivec.compare._difference import Difference, HeadDifference, Moved
from trivec.compare._judged import Judged, Ndcg, ranked, read_judged
from trivec.compare._metrics import cosines, ndcg
from trivec.compare._sides import (
    Given,
    RunningSide,
    Side,
    StoredSide,
    as_stored,
    check_model,
    is_stored,
    norms_of,
    opened,
    width_of,
)
from trivec.store import Method

_BLOCK = 256  # texts whose scores with all others are in memory at once
_COUNTED = 2000  # texts, at most, whose neighbours are counted: each is compared with all
_MAXSIM = 100  # the same where each token is compared with all tokens
_LISTED = 5
Doubles = npt.NDArray[np.float64]


def diff(
    a: Given,
    b: Given,
    *,
    texts: Iterable[str] | None = None,
    judged: str | os.PathLike[str] | None = None,
    heads: Sequence[Head] | None = None,
    method: Method = "encode",
    **options: Any,  # noqa: ANN401 - the encoders' own, which check them
) -> Difference:
    """Compare what two sides make of the same texts.

    Args:
        a: what there is: a folder, a name on the Hub, "provider:model", an encoder (of another variant, say), or a file
            that `trivec.store` or `trivec encode` wrote. A file's engine may be one that is not installed any more;
            where a hosted model has changed since under its name, the log warns.
        b: what is to take its place.
        texts: N texts, at least two; None: those of a file that keeps its own, the documents of `judged`, else the
            verification texts that come with trivec.
        judged: a folder in BEIR's layout (corpus.jsonl, queries.jsonl, qrels/test.tsv), whose documents are compared,
            and whose queries are searched for, for nDCG@10.
        heads: which kinds of vectors; None: those that both have, but ColBERT's, a vector for each token, only where
            there are no others.
        method: how both are called: "encode", "encode_query" or "encode_document". Where a side is a file, the other
            one is called as the file was written, if one of these, normalized or not, has its fingerprint. Documents
            and queries of `judged` are encoded as such.
        options: of `encode`, for both: prompt, prompt_name, normalize_embeddings ...

    Returns:
        Figures by kind of vectors, and the verdict. Neighbours are those of cosine, of ColBERT's MaxSim; of more than
        2,000 texts (100 for ColBERT's) those of an even sample are counted, each among all. Neighbours of one score are
        exchangeable.

    Raises:
        InputError: neither a path, a name nor an encoder; nothing that both have, vectors that are no floats, fewer
            than two texts, files without texts or of others, two files with `judged` or options, a folder in another
            layout.
        Whatever `trivec.load`, `trivec.store.read` and `encode` raise.
    """
    if texts is not None and judged is not None:
        raise InputError("texts and judged both say what is compared. Leave one out.")
    corpus = None if judged is None else read_judged(Path(judged))
    if options and is_stored(a) and is_stored(b):
        raise InputError(f"two files are compared as they are. Leave out {', '.join(options)}.")
    with ExitStack() as stack:
        called: Method = method if corpus is None else "encode_document"
        sides = [stack.enter_context(opened(given, called, options)) for given in (a, b)]
        sides = [_matched(side, other, options) for side, other in zip(sides, reversed(sides), strict=True)]
        check_model(*sorted(sides, key=lambda side: isinstance(side, RunningSide)))
        if corpus is not None and all(isinstance(side, StoredSide) for side in sides):
            raise InputError("two files have no vectors of queries, so judgements say nothing. Leave out judged.")
        listed = _texts(sides, texts, corpus)
        wanted = _heads(sides, heads)
        made = [_vectors(side, listed, wanted) for side in sides]
        found: dict[str, HeadDifference] = {}
        for head in wanted:
            x, y = (getattr(vectors, head) for vectors in made)
            found[head] = _compared(x, y, listed, None if corpus is None else _judge(sides, head, (x, y), corpus))
        return Difference(sides[0].facts(), sides[1].facts(), made[0].rows, found)


# ---- what is compared --------------------------------------------------------------------------------------------


def _matched(side: Side, other: Side, options: Any) -> Side:  # noqa: ANN401 - keyword options
    if isinstance(side, RunningSide) and isinstance(other, StoredSide):
        return as_stored(side, other, options)
    return side


def _texts(sides: Sequence[Side], texts: Iterable[str] | None, corpus: Judged | None) -> list[str] | None:
    """The texts; None where two files have none, and are compared row by row.

    Raises:
        InputError: there are none, or the sides have others.
    """
    given = None if texts is None else as_texts(texts, None)[0]
    found = given if corpus is None else list(corpus.documents.values())
    stored = [side for side in sides if isinstance(side, StoredSide)]
    for side in stored:
        own = side.stored.texts
        if own is not None and found is not None and own != found:
            both = given is None and corpus is None
            whose = f"{stored[0].name} does; expected the same" if both else "are to be compared: leave those out"
            raise InputError(f"{side.name} keeps other texts than {whose}.")
        found = own if found is None else found
    if found is None and len(stored) == 1:
        raise InputError(f"{stored[0].name} keeps no texts. Say which were encoded: --texts FILE (texts=...)")
    if found is None and not stored:
        found = [text.text for text in verification_texts()]
    counts = {side.name: side.vectors.rows for side in stored} | ({} if found is None else {"the texts": len(found)})
    if len(set(counts.values())) > 1:
        raise InputError(
            f"row i is compared with row i: {', '.join(f'{name} has {count:,}' for name, count in counts.items())}."
        )
    if min(counts.values()) < 2:  # one text has no neighbours
        raise InputError("texts are compared with their neighbours: expected at least two.")
    return found


def _heads(sides: Sequence[Side], heads: Sequence[Head] | None) -> list[Head]:
    both = [head for head in HEADS if all(head in side.heads for side in sides)]
    if heads is not None and (not isinstance(heads, Sequence) or not heads or any(head not in both for head in heads)):
        raise InputError(f"heads {heads!r}: expected some of {', '.join(both) or 'none: nothing is common'}.")
    if not both:
        has = " and ".join(f"{side.name} gives {', '.join(side.heads)}" for side in sides)
        raise InputError(f"{has}: there is nothing to compare.")
    return list(heads) if heads is not None else [head for head in both if head != "colbert"] or both


def _vectors(side: Side, texts: Sequence[str] | None, heads: Sequence[Head]) -> HybridVectors:
    if isinstance(side, StoredSide):
        return side.vectors
    return side.represent(texts or [], heads)


# ---- figures -----------------------------------------------------------------------------------------------------


def _compared(x: Any, y: Any, texts: Sequence[str] | None, judged: Ndcg | None) -> HeadDifference:  # noqa: ANN401
    """Figures of one kind of vectors of N texts: arrays (N, D), SparseVectors or MultiVectors."""
    dims = width_of(x), width_of(y)
    with np.errstate(invalid="ignore"):  # a file may hold numbers that are not finite: nothing is close to them
        angles = _cosines(x, y) if dims[0] == dims[1] else None
        kept, norm_change = _kept(x, y), _norm_change(x, y) if isinstance(x, np.ndarray) else 0.0
    moved: tuple[Moved, ...] = ()
    if angles is not None:
        order = np.argsort(angles, kind="stable")[:_LISTED].tolist()
        moved = tuple(Moved(float(angles[i]), "" if texts is None else texts[i][:200]) for i in order)
    return HeadDifference(
        dims,
        angles is not None and _equal(x, y),
        None if angles is None else float(angles.min()),
        None if angles is None else float(angles.mean()),
        float(kept.mean()),
        float((kept < 1).mean()),
        judged,
        moved,
        norm_change,
    )


def _cosines(x: Any, y: Any) -> Doubles | None:  # noqa: ANN401 - vectors of any kind
    """Text by text (N,); None where texts have other tokens."""
    if isinstance(x, SparseVectors):
        return sparse_cosine(x, y)
    if isinstance(x, MultiVectors):
        return multi_cosine(x, y) if np.array_equal(x.offsets, y.offsets) else None
    return cosines(x, y)


def _norm_change(x: Floats, y: Floats) -> float:
    """The most by which the norm of a row of x (N, D) and of y (N, E) differ, as a share of the larger one."""
    norms = np.stack([norms_of(x), norms_of(y)])  # (2, N)
    changes = np.ptp(norms, axis=0) / np.maximum(norms.max(axis=0), 1e-300)  # (N,)
    return float(np.nan_to_num(changes, nan=1.0).max(initial=0.0))


def _equal(x: Any, y: Any) -> bool:  # noqa: ANN401 - vectors of any kind
    return bool(np.array_equal(x, y)) if isinstance(x, np.ndarray) else bool(x.equals(y))


def _kept(x: Any, y: Any) -> Doubles:  # noqa: ANN401 - vectors of any kind
    """The share of neighbours that stay, of each of some texts (M,)."""
    most = _MAXSIM if isinstance(x, MultiVectors) else _COUNTED
    rows = np.unique(np.linspace(0, len(x) - 1, min(most, len(x))).astype(np.intp))  # (M,)
    if isinstance(x, MultiVectors):
        x, y, rows = x[rows], y[rows], np.arange(len(rows))
    ours, theirs = _scores(x), _scores(y)
    blocks = [rows[i : i + _BLOCK] for i in range(0, len(rows), _BLOCK)]
    return np.concatenate([kept_neighbours(ours(block), theirs(block), block.tolist()) for block in blocks])


def _scores(x: Any) -> Callable[[npt.NDArray[np.intp]], Floats]:  # noqa: ANN401 - vectors of any kind
    """Scores (B, N) of some texts (B,) with all."""
    if isinstance(x, SparseVectors):
        return lambda rows: similarity("cosine", x[rows], x)
    if isinstance(x, MultiVectors):
        return lambda rows: x[rows].maxsim(x)
    unit = normalize(x.astype(np.float32, copy=False))  # (N, D)
    return lambda rows: unit[rows] @ unit.T


def _judge(sides: Sequence[Side], head: Head, documents: tuple[Any, Any], corpus: Judged) -> Ndcg:
    """nDCG@10 of each side's own queries, and of B's (of A's where B is a file) on the other's documents."""
    asked = list(corpus.queries.values())
    vectors: list[Any] = []
    names: list[str] = []
    for side in sides:
        if isinstance(side, StoredSide):
            vectors.append(None)
            names.append("")
            continue
        vectors.append(getattr(side.called("encode_query").represent(asked, [head]), head))
        several: Mapping[Head, str] = {"sparse": "dot", "colbert": "meanmaxsim"} if len(side.heads) > 1 else {}
        names.append(several.get(head, side.encoder.similarity_fn_name))
    own = [
        None if queries is None else _ndcg(corpus, queries, found, name)
        for queries, found, name in zip(vectors, documents, names, strict=True)
    ]
    asking = 1 if vectors[1] is not None else 0
    other = documents[1 - asking]
    mixed = None
    if width_of(documents[0]) == width_of(documents[1]):
        mixed = _ndcg(corpus, vectors[asking], other, names[asking])
    return Ndcg(own[0], own[1], mixed)


def _ndcg(corpus: Judged, queries: Any, documents: Any, similarity: str) -> float:  # noqa: ANN401 - of any kind
    """The mean nDCG@10 of ranking the documents for each query."""
    found = ranked(corpus, queries, documents, similarity, 10)
    return float(ndcg(found.reached, found.possible).mean())
