"""Groups of vectors that are near a common one."""

import math

import numpy as np
import numpy.typing as npt

from trivec._errors import InputError
from trivec._system.progress import progress_bar
from trivec._vectors.rows import EPSILON, Array, Vectors, block_of, check_count, slices, squares, take_dense, work_type
from trivec.util._candidates import Ids
from trivec.util._scorers import exact_keys

_MOST_ROWS = 1024  # of a block: its scores with as many others are 4 MB
_NEIGHBOURS = 1 << 20  # that are looked at together: a few arrays of 8 MB
_FIRST_CENTRES, _FEWEST_CENTRES = 32, 8  # fewer at a time are no faster


def community_detection(
    embeddings: Vectors,
    threshold: float = 0.75,
    min_community_size: int = 10,
    batch_size: int = 1024,
    show_progress_bar: bool = False,
) -> list[list[int]]:
    """Groups of vectors whose cosine similarity with a central one is at least `threshold`.

    The call and the communities of sentence_transformers.util.community_detection 6.2. Each vector with enough others
    near it is the centre of a community; from the largest one on (of equal ones the lower centre), a community gives up
    what a larger one has taken, and counts if it is large enough still and its centre was not taken. Here neither the
    scores nor the communities of all vectors are ever in memory: neighbours are counted first, half of the matrix
    block by block, and looked up again for those centres only that are still free when their turn comes.

    Args:
        embeddings: (N, D) dense vectors: see `trivec.util` for what vectors may be.
        threshold: least cosine similarity with the centre; compared in float32.
        min_community_size: least number of vectors in a community.
        batch_size: rows that are compared at a time, at most 1,024.
        show_progress_bar: whether to show how many rows are compared.

    Returns:
        The communities, the largest one first. In each its centre first, then the other rows by falling similarity
        with it, equal ones by lower row.

    Raises:
        InputError: no dense vectors, a number that is not finite (its row is named), a size below 1, or a threshold
            that is no finite number.
    """
    check_count("min_community_size", min_community_size)
    check_count("batch_size", batch_size)
    real = isinstance(threshold, int | float | np.integer | np.floating) and not isinstance(threshold, bool)
    if not real or not math.isfinite(threshold):
        raise InputError(f"threshold must be a finite number, a cosine from -1 to 1, got {threshold!r}.")
    rows = take_dense(embeddings, "embeddings")
    if len(rows) < max(min_community_size, 1):
        return []
    near = _Near(rows, float(np.float32(threshold)))
    block = min(batch_size, _MOST_ROWS)
    counts = _count(near, block, show_progress_bar)
    communities = _disjoint(near, counts, min_community_size, block)
    return sorted((near.by_similarity(centre, members) for centre, members in communities), key=len, reverse=True)


class _Near:
    """Which rows have a cosine of at least a threshold: decided in float64 where products in float32 leave it open."""

    def __init__(self, rows: Array, threshold: float) -> None:
        self._dtype = work_type(rows)
        self._rows = rows
        self._threshold = threshold
        self._error = (rows.shape[1] + 8) * float(np.finfo(self._dtype).eps)  # see ByProducts
        self._norms = np.empty((len(rows), 1), dtype=self._dtype)  # (N, 1)
        for some in self.blocks(len(rows), _MOST_ROWS):
            block = block_of(rows, some, self._dtype)
            self._norms[some, 0] = np.maximum(np.sqrt(squares(block, "embeddings", some.start)), EPSILON)

    def __len__(self) -> int:
        return len(self._rows)

    def blocks(self, count: int, most: int) -> list[slice]:
        """Slices over so many rows."""
        return [*slices(count, self._rows.shape[1] * self._dtype.itemsize, most)]

    def unit(self, some: slice | Ids) -> Array:
        """(B, D) normalized rows."""
        return np.asarray(block_of(self._rows, some, self._dtype) / self._norms[some])

    def pairs(self, one: Array, first: slice | Ids, other: Array, second: slice | Ids) -> tuple[Ids, Ids]:
        """Positions in two blocks of normalized rows, first and second of all, of rows that are near each other."""
        scores = one @ other.T  # (A, B)
        places = np.flatnonzero(scores >= self._dtype.type(self._threshold - self._error))
        i, j = np.divmod(places, scores.shape[1])
        open_ones = np.flatnonzero(scores.ravel()[places] < self._dtype.type(self._threshold + self._error))
        if not len(open_ones):
            return i, j
        a, b = _ids(first)[i[open_ones]], _ids(second)[j[open_ones]]
        kept = np.ones(len(places), dtype=np.bool_)
        kept[open_ones] = self._cosines(a, b) >= self._threshold
        return i[kept], j[kept]

    def by_similarity(self, centre: int, members: Ids) -> list[int]:
        """The centre, then the other members by falling similarity."""
        others = members[members != centre]
        cosines = self._cosines(np.full(len(others), centre), others)
        return [centre, *others[np.lexsort((others, -cosines))].tolist()]

    def _cosines(self, a: Ids, b: Ids) -> Array:
        """(S,) of single pairs, rounded as the vectors are."""
        found = np.empty(len(a), dtype=self._dtype)
        for some in slices(len(a), 8 * self._rows.shape[1]):
            one, other = (block_of(self._rows, ids[some], np.dtype(np.float64)) for ids in (a, b))
            found[some] = exact_keys("cosine", one, other)
        return found


def _ids(some: slice | Ids) -> Ids:
    return np.arange(some.start, some.stop) if isinstance(some, slice) else some


def _count(near: _Near, rows: int, show_progress_bar: bool) -> Ids:
    """(N,) how many rows are near each row, itself among them."""
    counts = np.zeros(len(near), dtype=np.int64)
    blocks = near.blocks(len(near), rows)
    bar = progress_bar(len(near), show_progress_bar)
    for number, first in enumerate(blocks):
        one = near.unit(first)
        for second in blocks[number:]:
            other = one if second == first else near.unit(second)
            i, j = near.pairs(one, first, other, second)
            counts[first] += np.bincount(i, minlength=len(one))
            if second != first:
                counts[second] += np.bincount(j, minlength=len(other))
        bar.update(len(one))
    bar.close()
    return counts


def _disjoint(near: _Near, counts: Ids, least: int, rows: int) -> list[tuple[int, Ids]]:
    """Centres and members of communities without overlap, in the order of the counts."""
    used = np.zeros(len(near), dtype=np.bool_)
    order = np.argsort(-counts, kind="stable")
    order = order[: np.count_nonzero(counts >= least)]
    found: list[tuple[int, Ids]] = []
    size = min(_FIRST_CENTRES, rows)
    while len(order := order[~used[order]]):
        centres = order[:size]
        centres = centres[: max(1, np.count_nonzero(np.cumsum(counts[centres]) <= _NEIGHBOURS))]
        order = order[len(centres) :]
        tried = 0
        for centre, members in zip(centres.tolist(), _members(near, centres, used, rows), strict=True):
            if used[centre]:
                continue
            tried += 1
            free = members[~used[members]]
            if len(free) >= least:
                found.append((centre, free))
                used[free] = used[centre] = True
        size = min(2 * size, rows) if 2 * tried > len(centres) else max(size // 2, _FEWEST_CENTRES)
    return found


def _members(near: _Near, centres: Ids, used: npt.NDArray[np.bool_], rows: int) -> list[Ids]:
    """For each centre the rows near it that are not used, ascending."""
    one = near.unit(centres)
    free = np.flatnonzero(~used)
    whose, members = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for some in near.blocks(len(free), rows):
        second = free[some]
        i, j = near.pairs(one, centres, near.unit(second), second)
        whose.append(i)
        members.append(second[j])
    centre = np.concatenate(whose)
    by_centre = np.concatenate(members)[np.argsort(centre, kind="stable")]
    ends = np.cumsum(np.bincount(centre, minlength=len(centres)))
    return np.split(by_centre, ends[:-1])
