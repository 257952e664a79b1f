"""`trivec explain`: what a model makes of a text, or of two."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from trivec._encoders.named_call import Method, fingerprint_of_call, spelled_out
from trivec._encoders.pipeline import Pipeline
from trivec._encoders.text_encoder import TextEncoder
from trivec._pooling.heads import has_vector
from trivec._tokens.tokenizer import TokenReader
from trivec._vectors.arrays import Array
from trivec._vectors.heads import HybridVectors, concatenated
from trivec._vectors.sparse import SparseVector, SparseVectors

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Token:
    """A token as the model reads it."""

    id: int
    token: str
    special: bool


@dataclass(frozen=True)
class Term:
    """A term of the vocabulary with its weight in a text."""

    id: int
    token: str
    weight: float


@dataclass(frozen=True)
class Dense:
    """A dense vector."""

    norm: float
    values: list[float]


@dataclass(frozen=True)
class Explained:
    """What a model makes of a text; None for what it does not give."""

    text: str
    prompt: str
    tokens: list[Token]
    """Those that the model reads, the prompt's too."""
    cut: list[Token]
    """Those that it does not: the text is longer than the model reads."""
    dense: Dense | None
    terms: list[Term] | None
    """Heaviest first."""
    sparse_dim: int | None
    """Terms of the vocabulary."""
    colbert: tuple[int, int] | None
    """Vectors of tokens, and numbers in each."""


@dataclass(frozen=True)
class SharedTerm:
    """A term that two texts have, and what it adds to their dot product."""

    id: int
    token: str
    a: float
    b: float
    product: float


@dataclass(frozen=True)
class Match:
    """A token of a query, and the token of a document whose vector is nearest to its own."""

    a: Token
    b: Token
    score: float
    """The dot product, which is what the token adds to MaxSim."""


@dataclass(frozen=True)
class Similarities:
    """How alike two texts are, by each representation; None for what there is none of."""

    dense: dict[str, float] | None
    """By function: the model's own, and cosine."""
    sparse: dict[str, float] | None
    """By function: the model's own, and dot."""
    shared: list[SharedTerm] | None
    """What makes up the dot product, the largest first."""
    colbert: float | None
    """MaxSim of the first text's vectors in the second's, their mean; of a late-interaction model by its function."""
    matches: list[Match] | None = None
    """Of a late-interaction model, which token of the first text met which of the second, in the first one's order."""
    function: str | None = None
    """What a late-interaction model compares by: "maxsim", the sum, or "meanmaxsim"."""


@dataclass(frozen=True)
class Explanation:
    """A model, one or two texts, and of two their similarities."""

    model: str
    kind: str
    fingerprint: str
    max_seq_length: int | None
    texts: list[Explained]
    similarity: Similarities | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def explain(
    encoder: TextEncoder[Any],
    texts: Sequence[str],
    *,
    method: Method = "encode",
    prompt_name: str | None = None,
    prompt: str | None = None,
) -> Explanation:
    """Look at one or two texts through a model's eyes.

    Args:
        encoder: from `trivec.load`.
        texts: one or two.
        method: "encode", "encode_query" or "encode_document".
        prompt_name: one of the model's prompts.
        prompt: a text to put before each text.

    Raises:
        InputError: an unknown prompt, or a model without a route for that method.
    """
    said = {"prompt_name": prompt_name, "prompt": prompt}
    options = spelled_out(encoder, method, said)
    sides, late = [options] * len(texts), encoder.heads == ("colbert",)
    if late and len(texts) == 2 and method == "encode":  # a query, and a document
        sides = [spelled_out(encoder, side, said) for side in ("encode_query", "encode_document")]
        parts = concatenated([encoder.represent([text], **side) for text, side in zip(texts, sides, strict=True)])
    else:
        parts = encoder.represent(list(texts), **options)
    tasks = [{"task": side.get("task")} if late else {} for side in sides]
    routes = [encoder.route(side.get("task")) for side in sides]
    explained = [
        _explained(
            encoder,
            routes[row].tokenizer,
            text,
            encoder.prompt_text(prompt, sides[row]["prompt_name"], **tasks[row]),
            parts.take(slice(row, row + 1)),
        )
        for row, text in enumerate(texts)
    ]
    similarity = _similarities(encoder, parts) if len(texts) == 2 else None
    if late and similarity is not None:
        similarity = _late(encoder, similarity, parts, routes, explained)
    return Explanation(
        model=encoder.name,
        kind=f"{encoder.precision} on {encoder.device}",
        fingerprint=fingerprint_of_call(encoder, options),
        max_seq_length=routes[-1].tokenizer.max_seq_length,
        texts=explained,
        similarity=similarity,
    )


# ---- a text ----------------------------------------------------------------------------------------------------------


def _explained(
    encoder: TextEncoder[Any], tokenizer: TokenReader, text: str, prompt: str, parts: HybridVectors
) -> Explained:
    """A text and its vectors: parts of one row."""
    read, cut = _read_and_cut(tokenizer, text, prompt)
    special = tokenizer.special_ids
    dense, rows, colbert = parts.parts()
    return Explained(
        text=text,
        prompt=prompt,
        tokens=_tokens(tokenizer, read, special),
        cut=_tokens(tokenizer, cut, special),
        dense=None if dense is None else Dense(float(np.linalg.norm(dense[0])), dense[0].tolist()),
        terms=None if rows is None else _terms(encoder, rows[0]),
        sparse_dim=None if rows is None else rows.dim,
        colbert=None if colbert is None else (len(colbert.vectors), colbert.dim),
    )


def _read_and_cut(tokenizer: TokenReader, text: str, prompt: str) -> tuple[Ids, Ids]:
    """Ids that the model reads, and those that are cut."""
    found = tokenizer([text], prompt)
    read = found.of(0)
    limit = tokenizer.max_seq_length
    if not found.truncated[0] or limit is None:
        return read, read[:0]
    tokenizer.max_seq_length = None
    try:
        whole = tokenizer([text], prompt).of(0)
    finally:
        tokenizer.max_seq_length = limit
    common = min(len(read), len(whole))
    different = np.flatnonzero(read[:common] != whole[:common])
    start = int(different[0]) if len(different) else common
    behind = len(read) - start  # tokens that are read behind the cut
    if behind and not np.array_equal(read[start:], whole[-behind:]):  # characters were cut first, and so a word
        behind = 0
    return read, whole[start : len(whole) - behind]


def _tokens(tokenizer: TokenReader, ids: Ids, special: frozenset[int]) -> list[Token]:
    return [Token(i, tokenizer.token(i), i in special) for i in ids.tolist()]


def _terms(encoder: TextEncoder[Any], row: SparseVector) -> list[Term]:
    order = np.argsort(-row.values, kind="stable")
    ids, weights = row.indices[order].tolist(), row.values[order].tolist()
    return [Term(i, encoder.token(i), weight) for i, weight in zip(ids, weights, strict=True)]


# ---- two texts -------------------------------------------------------------------------------------------------------


def _similarities(encoder: TextEncoder[Any], parts: HybridVectors) -> Similarities:
    """Of the two rows of these parts."""
    (a_dense, a_sparse, a_colbert), (b_dense, b_sparse, b_colbert) = (
        parts.take(slice(row, row + 1)).parts() for row in (0, 1)
    )
    dense, sparse, shared, colbert = None, None, None, None
    if a_dense is not None:
        dense = _dense(encoder, a_dense, b_dense)
    if a_sparse is not None:
        sparse = {"dot": float(a_sparse.row_dot(b_sparse)[0])}
        if encoder.heads == ("sparse",):
            own = encoder.similarity_fn_name
            sparse = {own: float(encoder.similarity_pairwise(a_sparse, b_sparse)[0]), **sparse}
        shared = _shared(encoder, a_sparse, b_sparse)
    if a_colbert is not None:
        colbert = float(a_colbert.maxsim_pairs(b_colbert)[0])
    return Similarities(dense, sparse, shared, colbert)


def _late(
    encoder: TextEncoder[Any],
    found: Similarities,
    parts: HybridVectors,
    routes: Sequence[Pipeline],
    texts: Sequence[Explained],
) -> Similarities:
    """The score by the model's own function, and which tokens it comes from."""
    queries, documents = (parts.colbert[row : row + 1] for row in (0, 1))  # type: ignore[index]
    sides = [_with_vectors(route, text.tokens) for route, text in zip(routes, texts, strict=True)]
    products = queries[0] @ documents[0].T  # (S, T)
    best = products.argmax(1) if products.shape[1] else np.zeros(0, dtype=np.int64)  # (S,)
    matches = [Match(sides[0][i], sides[1][j], float(products[i, j])) for i, j in enumerate(best.tolist())]
    score = float(encoder.similarity_pairwise(queries, documents)[0])
    return replace(found, colbert=score, matches=matches, function=encoder.similarity_fn_name)


def _with_vectors(route: Pipeline, tokens: Sequence[Token]) -> list[Token]:
    """Those of a text's tokens that have a vector."""
    ids = np.array([token.id for token in tokens], dtype=np.int64)
    kept = (
        np.ones(len(ids), dtype=np.bool_) if route.multi is None else has_vector(route.multi, ids, np.arange(len(ids)))
    )
    return [token for token, stays in zip(tokens, kept, strict=True) if stays]


def _dense(encoder: TextEncoder[Any], first: Array, second: Array) -> dict[str, float]:
    """By the model's own function, and cosine; of two rows (1, D)."""
    dot, norms = float(first[0] @ second[0]), float(np.linalg.norm(first[0]) * np.linalg.norm(second[0]))
    if encoder.heads != ("dense",):
        return {"dot": dot}  # as `compute_score` has it
    own = {encoder.similarity_fn_name: float(encoder.similarity_pairwise(first, second)[0])}
    own.setdefault("cosine", dot / norms if norms else 0.0)
    return own


def _shared(encoder: TextEncoder[Any], first: SparseVectors, second: SparseVectors) -> list[SharedTerm]:
    a, b = first[0].to_dict(), second[0].to_dict()
    terms = [SharedTerm(i, encoder.token(i), a[i], b[i], a[i] * b[i]) for i in a.keys() & b.keys()]
    return sorted(terms, key=lambda term: (-term.product, term.id))
