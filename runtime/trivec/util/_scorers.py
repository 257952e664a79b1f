"""Scores of blocks of a corpus for chunks of queries: by matrix products, from sparse rows, or by any function."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np

from trivec._errors import InputError
from trivec._system.background import Background
from trivec._system.threads import default_threads
from trivec._vectors.rows import BLOCK_BYTES, EPSILON, Array, block_of, slices, squares, unit, work_type
from trivec._vectors.scores import (
    SPARSE_ROWS,
    cos_sim,
    dot_score,
    euclidean_sim,
    manhattan_into,
    manhattan_sim,
)
from trivec._vectors.similarity import similarity
from trivec._vectors.sparse import SparseVectors
from trivec.util._candidates import Doubles, Exact, Ids, Keys

Score = Callable[[Any, Any], Any]
"""Blocks (Q, D) and (B, D) of the queries and of the corpus, as arrays or SparseVectors, to (Q, B) scores."""
NAMES: tuple[tuple[Score, str], ...] = (
    (cos_sim, "cosine"),
    (dot_score, "dot"),
    (euclidean_sim, "euclidean"),
    (manhattan_sim, "manhattan"),
)
_FUNCTION_BYTES = 1 << 25  # what a user's function returns at a time: each call of it has its cost


class Names(NamedTuple):
    """What messages call both sides."""

    queries: str = "query_embeddings"
    corpus: str = "corpus_embeddings"


_NAMES = Names()


class Scorer(Protocol):
    """How queries and rows of a corpus are compared."""

    query_bytes: int
    """What a query that is ready takes."""

    def step(self, queries: int) -> int:
        """Rows of the corpus that a block has for so many queries at a time."""

    def chunk(self, some: slice) -> Any:  # noqa: ANN401 - what `keys` takes
        """Queries, made ready."""

    def block(self, some: slice) -> Any:  # noqa: ANN401
        """Rows of the corpus, made ready."""

    def keys(self, chunk: Any, block: Any) -> Keys:  # noqa: ANN401
        """What the rows are ranked by, (Q, B)."""

    def exact(self, some: slice) -> Exact | None:
        """What gives the keys of single pairs of these queries; None: those of `keys` are exact."""

    def shown(self, keys: Doubles) -> Array:
        """Scores from exact keys."""


def scorer(
    queries: Array | SparseVectors, corpus: Array | SparseVectors, function: Score, names: Names = _NAMES
) -> Scorer:
    """What compares such rows by one of our own functions, or by any other."""
    name = next((name for own, name in NAMES if own is function), None)
    if name is None:
        return ByFunction(queries, corpus, function, names)
    if isinstance(queries, SparseVectors) or isinstance(corpus, SparseVectors):
        rows = SPARSE_ROWS if name == "manhattan" else None
        return ByFunction(queries, corpus, lambda a, b: similarity(name, a, b), names, rows)
    if name == "manhattan":
        return ByDifferences(queries, corpus, names)
    return ByProducts(name, queries, corpus, names)


class Chunk(NamedTuple):
    """Queries for matrix products."""

    rows: Array
    """(Q, D) what the corpus is multiplied with."""
    sizes: Doubles
    """(Q,) their norms."""
    offset: Doubles
    """(Q,) what is added to the keys of each."""


class Block(NamedTuple):
    """Rows of the corpus for matrix products."""

    rows: Array
    """(B, D) as they came: a copy of the corpus, normalized, would cost more than its products with a few queries."""
    scale: Array | None
    """(B,) what products are multiplied with: one over the norms, for the cosine."""
    squares: Array | None
    """(B,) what is subtracted from products, for the Euclidean distance."""
    reach: float
    """The greatest norm of a row, after the scale."""


class ByProducts:
    """Cosine, dot product and Euclidean distance: ranked by q . c, and for the latter by 2 q . c - |c|^2 - |q|^2.

    A sum of D rounded products is within (D - 1) u / (1 - (D - 1) u) times the sum of their absolute values of the
    exact one, in any order (Higham, Accuracy and Stability of Numerical Algorithms, 4.2), and that is at most |q| |c|.
    """

    def __init__(self, name: str, queries: Array, corpus: Array, names: Names) -> None:
        self._name = name
        self._names = names
        self._queries = queries
        self._corpus = corpus
        self._dtype = work_type(queries, corpus)
        self.query_bytes = queries.shape[1] * self._dtype.itemsize
        self._relative = (corpus.shape[1] + 8) * float(np.finfo(self._dtype).eps)  # eps is 2 u: twice the bound

    def step(self, queries: int) -> int:
        """As many as keep rows and scores of a block within bounds."""
        return _step(self._corpus.shape[1], queries, self._dtype)

    def chunk(self, some: slice) -> Chunk:
        """Queries, normalized or doubled."""
        rows = block_of(self._queries, some, self._dtype)
        if self._name == "cosine":
            rows = unit(rows, self._names.queries, some.start)
        lengths = squares(rows, self._names.queries, some.start).astype(np.float64)  # (Q,)
        offset = np.zeros(len(rows))
        if self._name == "euclidean":
            rows, offset = 2 * rows, -lengths
        return Chunk(rows, np.sqrt(lengths), offset)

    def block(self, some: slice) -> Block:
        """Rows of the corpus, checked, and what their products need."""
        rows = block_of(self._corpus, some, self._dtype)
        lengths = squares(rows, self._names.corpus, some.start)  # (B,)
        norms = np.sqrt(lengths)
        if self._name == "cosine":
            return Block(rows, 1 / np.maximum(norms, self._dtype.type(EPSILON)), None, 1.0)
        return Block(rows, None, lengths if self._name == "euclidean" else None, float(norms.max(initial=0)))

    def keys(self, chunk: Chunk, block: Block) -> Keys:
        """By matrix product, with the bound of what it rounds."""
        values = chunk.rows @ block.rows.T  # (Q, B)
        if block.scale is not None:
            values *= block.scale
        if block.squares is None:
            return Keys(values, self._relative * chunk.sizes * block.reach, chunk.offset)
        values -= block.squares
        return Keys(values, self._relative * np.square(chunk.sizes + block.reach), chunk.offset)

    def exact(self, some: slice) -> Exact:
        """Each pair by itself, in float64."""

        def of(rows: Ids, ids: Ids) -> Doubles:
            asked = block_of(self._queries, some, np.dtype(np.float64))  # (Q, D)
            found = np.empty(len(ids))
            for pairs in slices(len(ids), 8 * asked.shape[1]):
                a, b = asked[rows[pairs]], block_of(self._corpus, ids[pairs], np.dtype(np.float64))  # (S, D)
                found[pairs] = exact_keys(self._name, a, b)
            return found

        return of

    def shown(self, keys: Doubles) -> Array:
        """Rounded to the type of the vectors; distances from their squares."""
        scores = -np.sqrt(-keys) if self._name == "euclidean" else keys
        return np.asarray(scores.astype(self._dtype))


def exact_keys(name: str, a: Doubles, b: Doubles) -> Doubles:
    """(S,) keys of rows side by side; each depends on its own two rows only, and is the same with the sides changed."""
    if name == "euclidean":
        differences = a - b
        distances: Doubles = np.einsum("sd,sd->s", differences, differences)
        return -distances
    products: Doubles = np.einsum("sd,sd->s", a, b)
    if name == "dot":
        return products
    norms = np.maximum(np.sqrt(np.einsum("sd,sd->s", a, a)), EPSILON)
    norms = norms * np.maximum(np.sqrt(np.einsum("sd,sd->s", b, b)), EPSILON)
    return np.asarray(products / norms)


class ByDifferences:
    """Manhattan distance: no product gives it, and sums of one row at a time are the same in every block."""

    def __init__(self, queries: Array, corpus: Array, names: Names) -> None:
        self._names = names
        self._queries = queries
        self._corpus = corpus
        self._dtype = work_type(queries, corpus)
        self._threads = default_threads().count
        self.query_bytes = queries.shape[1] * self._dtype.itemsize

    def step(self, queries: int) -> int:
        """As many as keep rows and scores of a block within bounds."""
        return _step(self._corpus.shape[1], queries, self._dtype)

    def chunk(self, some: slice) -> Array:
        """Queries, checked."""
        return _checked(self._queries, some, self._dtype, self._names.queries)

    def block(self, some: slice) -> Array:
        """Rows of the corpus, checked."""
        return _checked(self._corpus, some, self._dtype, self._names.corpus)

    def keys(self, chunk: Array, block: Array) -> Keys:
        """The negative distances."""
        values = np.empty((len(chunk), len(block)), dtype=self._dtype)
        # numpy's loops run on one thread each, and let others run meanwhile; a matrix product takes all by itself
        parts = [slice(*both) for both in pairwise(np.linspace(0, len(block), self._threads + 1, dtype=int).tolist())]
        with Background(self._threads, "trivec-distances") as threads:
            list(threads.map(lambda some: manhattan_into(chunk, block[some], values[:, some]), parts))
        return _exactly(values)

    def exact(self, some: slice) -> None:
        """Keys are exact."""

    def shown(self, keys: Doubles) -> Array:
        """In the type that they were computed in."""
        return np.asarray(keys.astype(self._dtype))


class Part(NamedTuple):
    """Rows as they came, from row `start` on."""

    rows: Array | SparseVectors
    start: int


class ByFunction:
    """Whatever a function of two blocks gives."""

    query_bytes = 0  # a view

    def __init__(
        self,
        queries: Array | SparseVectors,
        corpus: Array | SparseVectors,
        function: Score,
        names: Names,
        most: int | None = None,
    ) -> None:
        self._names = names
        self._queries = queries
        self._corpus = corpus
        self._function = function
        self._most = most
        self._dtype: np.dtype[Any] = np.dtype(np.float32)

    def step(self, queries: int) -> int:
        """Many: a call costs."""
        rows = max(1, _FUNCTION_BYTES // (8 * max(queries, 1)))
        return rows if self._most is None else min(rows, self._most)

    def chunk(self, some: slice) -> Part:
        """Queries, checked."""
        return Part(_rows(self._queries, some, self._names.queries), some.start)

    def block(self, some: slice) -> Part:
        """Rows of the corpus, checked."""
        return Part(_rows(self._corpus, some, self._names.corpus), some.start)

    def keys(self, chunk: Part, block: Part) -> Keys:
        """The scores."""
        values = np.asarray(self._function(chunk.rows, block.rows))
        if values.shape != (len(chunk.rows), len(block.rows)) or values.dtype.kind not in "fiub":
            raise InputError(
                "score_function is called with blocks (Q, D) and (B, D) of both sides, and must give (Q, B) scores; "
                f"of {len(chunk.rows)} and {len(block.rows)} rows it gave {values.dtype} of shape {values.shape}."
            )
        if values.dtype not in (np.float32, np.float64):
            values = values.astype(np.float32 if values.dtype == np.float16 else np.float64)
        if np.isnan(values).any():
            row, column = (int(place) for place in np.argwhere(np.isnan(values))[0])
            raise InputError(
                f"score_function gave nan for query {chunk.start + row} and row {block.start + column} of the corpus."
            )
        self._dtype = np.promote_types(self._dtype, values.dtype)
        return _exactly(values)

    def exact(self, some: slice) -> None:
        """Keys are exact."""

    def shown(self, keys: Doubles) -> Array:
        """As they came."""
        return np.asarray(keys.astype(self._dtype))


def _step(dim: int, queries: int, dtype: np.dtype[Any]) -> int:
    """Rows of a block: its scores within BLOCK_BYTES, itself, which may be a view, within twice that."""
    return max(1, min(BLOCK_BYTES // max(queries, 1), 2 * BLOCK_BYTES // max(dim, 1)) // dtype.itemsize)


def _checked(rows: Array, some: slice, dtype: np.dtype[Any], name: str) -> Array:
    found = block_of(rows, some, dtype)
    squares(found, name, some.start)
    return found


def _rows(rows: Array | SparseVectors, some: slice, name: str) -> Array | SparseVectors:
    """A slice as it came, in its own number type; dense rows are checked for numbers that are not finite."""
    if isinstance(rows, SparseVectors):
        return rows[some]
    for part in slices(some.stop, 4 * rows.shape[1], start=some.start):
        _checked(rows, part, work_type(rows), name)
    return rows[some]


def _exactly(values: Array) -> Keys:
    nothing = np.zeros(len(values))
    return Keys(values, nothing, nothing)
