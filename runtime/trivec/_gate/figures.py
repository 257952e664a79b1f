"""Is a variant faithful to torch? Figures on the verification texts, and the bounds they must keep."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from trivec._vectors.arrays import normalize
from trivec._vectors.multi import MultiVectors
from trivec._vectors.similarity import similarity
from trivec._vectors.sparse import SparseVectors

_TERMS = 32
_FAINT = 0.1**2
_BLOCK = 32  # sparse rows that are made dense at once
_MAXSIM_TEXTS = 100  # MaxSim compares every token with every token: of so many texts it is a matter of seconds
LISTED = 5  # texts that are named as furthest off
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Bounds:
    """What a variant must reach; None: not asked."""

    cosine_min: float
    cosine_mean: float | None = None
    top10_overlap: float | None = None
    batch_diff: float = 1e-5
    terms_overlap: float | None = None
    """Of a sparse row's 32 heaviest terms."""
    max_diff: float | None = None

    def missed(self, figures: "Figures") -> list[str]:
        """Each bound that is not kept, as a phrase."""
        return failures(figures, self)

    def asked(self) -> str:
        """The bounds, for people."""
        parts = [f"min {self.cosine_min}"]
        parts += [f"mean {self.cosine_mean}"] if self.cosine_mean is not None else []
        parts += [f"top-10 {self.top10_overlap}"] if self.top10_overlap is not None else []
        parts += [f"terms {self.terms_overlap}"] if self.terms_overlap is not None else []
        parts += [f"differences {self.max_diff}"] if self.max_diff is not None else []
        return ", ".join(parts)


BOUNDS = {
    "fp32": Bounds(cosine_min=0.99999),
    "bf16": Bounds(cosine_min=0.9995),
    "fp16": Bounds(cosine_min=0.9995),
    "int8": Bounds(cosine_min=0.97, cosine_mean=0.995, top10_overlap=0.9),
}
# A sparse row is a few hundred of many thousand logits, cut off at zero: int8's noise shows more in it than in a dense
# vector, and ranking takes it better (nDCG of a SPLADE model is measured in benchmarks/sparse.py).
SPARSE_BOUNDS = {
    "fp32": Bounds(cosine_min=0.99999, terms_overlap=0.999, max_diff=1e-4),
    "bf16": Bounds(cosine_min=0.999, terms_overlap=0.95),
    "fp16": Bounds(cosine_min=0.999, terms_overlap=0.98),
    "int8": Bounds(cosine_min=0.9, cosine_mean=0.98, terms_overlap=0.9),
}
COLBERT_BOUNDS = {
    "fp32": Bounds(cosine_min=0.99999, max_diff=1e-4),
    "bf16": Bounds(cosine_min=0.9995),
    "fp16": Bounds(cosine_min=0.9995),
    "int8": Bounds(cosine_min=0.95, cosine_mean=0.985),
}
SEARCH_OVERLAP = {"int8": 0.9}
"""What a late-interaction model's queries must find again of their ten nearest documents, by MaxSim."""
HEADS = {"dense": BOUNDS, "sparse": SPARSE_BOUNDS, "colbert": COLBERT_BOUNDS}


@dataclass(frozen=True)
class Figures:
    """How close a variant's vectors are to the reference's."""

    cosine_min: float
    cosine_mean: float
    top10_overlap: float
    batch_diff: float
    by_kind: dict[str, dict[str, float]]
    worst: int
    """Index of the text with the least cosine."""
    lowest: tuple[tuple[int, float], ...] = ()
    """Index and cosine of the texts that are furthest off, worst first."""
    terms_overlap: float | None = None
    """Mean share of the 32 heaviest terms of the reference's rows."""
    max_diff: float | None = None
    """Largest difference of a number."""

    @property
    def badness(self) -> float:
        """The greater, the further off."""
        return -self.cosine_min

    def cells(self) -> dict[str, str]:
        """The figures of a table's row, by column."""
        return {
            "cosine min": f"{self.cosine_min:.6f}",
            "mean": f"{self.cosine_mean:.6f}",
            "top-10": f"{self.top10_overlap:.4f}",
        }

    def of_kind(self, kind: str) -> str:
        """Its figures of one kind of texts: the mean and the least cosine."""
        found = self.by_kind[kind]
        return f"{found['mean']:.4f} / {found['min']:.4f}"


def compare(vectors: Vectors, alone: Vectors, stride: int, reference: Vectors, kinds: Sequence[str]) -> Figures:
    """Figures of one variant.

    Args:
        vectors: (N, D) of the variant, all texts in one call.
        alone: (M, D) of the variant, every stride-th text in a call of its own.
        stride: see `alone`.
        reference: (N, D) of torch in float32.
        kinds: what each text stands for.
    """
    return _figures(
        cosine(vectors, reference),
        top_overlap(vectors, reference),
        float(np.abs(vectors[::stride] - alone).max(initial=0.0)),
        kinds,
    )


def compare_sparse(
    vectors: SparseVectors, alone: SparseVectors, stride: int, reference: SparseVectors, kinds: Sequence[str]
) -> Figures:
    """Figures of sparse rows (N, V); see `compare`. Neighbours are those of cosine similarity."""
    figures = _figures(
        sparse_cosine(vectors, reference),
        overlap(similarity("cosine", vectors, vectors), similarity("cosine", reference, reference)),
        _sparse_diff(vectors[::stride], alone),
        kinds,
    )
    return replace(figures, terms_overlap=_terms_overlap(vectors, reference), max_diff=_sparse_diff(vectors, reference))


def compare_multi(
    vectors: MultiVectors, alone: MultiVectors, stride: int, reference: MultiVectors, kinds: Sequence[str]
) -> Figures:
    """Figures of one vector a token; a text's cosine is the mean of its tokens'. Neighbours are those of MaxSim."""
    few = slice(None, None, max(1, len(reference) // _MAXSIM_TEXTS))
    figures = _figures(
        multi_cosine(vectors, reference),
        overlap(vectors[few].maxsim(vectors[few]), reference[few].maxsim(reference[few])),
        float(np.abs(vectors[::stride].vectors - alone.vectors).max(initial=0.0)),
        kinds,
    )
    return replace(figures, max_diff=float(np.abs(vectors.vectors - reference.vectors).max(initial=0.0)))


def search_overlap(ours: tuple[MultiVectors, MultiVectors], theirs: tuple[MultiVectors, MultiVectors]) -> float:
    """Mean share of each query's ten nearest documents that stay, by MaxSim; queries and documents are the same texts.

    Args:
        ours: queries and documents of the variant, N texts each.
        theirs: those of the reference.
    """
    few = slice(None, None, max(1, len(theirs[0]) // _MAXSIM_TEXTS))
    mine, wanted = (queries[few].maxsim(documents[few], "sum") for queries, documents in (ours, theirs))  # (n, n) each
    return overlap(mine, wanted)


def _figures(cosines: npt.NDArray[np.float64], top10: float, batch_diff: float, kinds: Sequence[str]) -> Figures:
    """Figures of the texts' cosines (N,)."""
    labels = np.asarray(kinds)
    by_kind = {}
    for kind in sorted(set(kinds)):
        of_kind = cosines[labels == kind]
        by_kind[kind] = {"min": round(float(of_kind.min()), 6), "mean": round(float(of_kind.mean()), 6)}
    return Figures(
        float(cosines.min()),
        float(cosines.mean()),
        top10,
        batch_diff,
        by_kind,
        int(cosines.argmin()),
        tuple((int(i), float(cosines[i])) for i in np.argsort(cosines, kind="stable")[:LISTED]),
    )


def failures(figures: Figures, bounds: Bounds) -> list[str]:
    """Each bound that is not kept, as a phrase."""
    found = []
    if not figures.cosine_min >= bounds.cosine_min:
        found.append(f"cosine min {figures.cosine_min:.6f} < {bounds.cosine_min}")
    if bounds.cosine_mean is not None and not figures.cosine_mean >= bounds.cosine_mean:
        found.append(f"cosine mean {figures.cosine_mean:.6f} < {bounds.cosine_mean}")
    if bounds.top10_overlap is not None and not figures.top10_overlap >= bounds.top10_overlap:
        found.append(f"top-10 overlap {figures.top10_overlap:.4f} < {bounds.top10_overlap}")
    if not figures.batch_diff <= bounds.batch_diff:
        found.append(f"alone and in a batch differ by {figures.batch_diff:.2e} > {bounds.batch_diff}")
    if bounds.terms_overlap is not None and not (figures.terms_overlap or 0.0) >= bounds.terms_overlap:
        found.append(f"overlap of the {_TERMS} heaviest terms {figures.terms_overlap:.4f} < {bounds.terms_overlap}")
    if bounds.max_diff is not None and not (figures.max_diff or 0.0) <= bounds.max_diff:
        found.append(f"largest difference {figures.max_diff:.2e} > {bounds.max_diff}")
    return found


def sparse_cosine(vectors: SparseVectors, reference: SparseVectors) -> npt.NDArray[np.float64]:
    """Row by row (N,), in float64.

    A text of which a model knows next to nothing has one or two faint terms, and their cosine would be chance. So the
    cosine is taken as if every row had one further term, the same for all: a tenth of the mean norm of the rows.
    """
    faint = _FAINT * float(reference.norms().mean(dtype=np.float64)) ** 2 if len(reference) else 0.0
    if not faint:
        return np.where(vectors.norms() > 0, 0.0, 1.0)
    squares = (
        np.square(vectors.norms(), dtype=np.float64) + faint,
        np.square(reference.norms(), dtype=np.float64) + faint,
    )
    products = vectors.row_dot(reference).astype(np.float64) + faint  # (N,)
    found: npt.NDArray[np.float64] = products / np.maximum(np.sqrt(squares[0] * squares[1]), 1e-300)
    return found


def multi_cosine(vectors: MultiVectors, reference: MultiVectors) -> npt.NDArray[np.float64]:
    """Text by text (N,), the mean of its tokens' cosines; 1 for a text without tokens."""
    tokens = cosine(vectors.vectors, reference.vectors)  # (T,)
    sums = np.concatenate([[0.0], np.cumsum(tokens)])  # (T + 1,)
    counts = np.diff(reference.offsets)  # (N,)
    found: npt.NDArray[np.float64] = np.where(counts > 0, np.diff(sums[reference.offsets]) / np.maximum(counts, 1), 1.0)
    return found


def cosine(a: Vectors, b: Vectors) -> npt.NDArray[np.float64]:
    """Row by row (N,), in float64; two zero rows count as equal, one as NaN-free 0."""
    x, y = a.astype(np.float64), b.astype(np.float64)  # (N, D)
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)  # (N,)
    both_zero = ~x.any(1) & ~y.any(1)
    result: npt.NDArray[np.float64] = np.where(both_zero, 1.0, (x * y).sum(1) / np.maximum(norms, 1e-300))
    return np.nan_to_num(result, nan=-1.0)


def top_overlap(vectors: Vectors, reference: Vectors, k: int = 10) -> float:
    """Mean share of each text's k nearest neighbours (by cosine, itself excluded) that the reference has too.

    A neighbour counts where the reference scores it no lower than its own k-th: texts of one score are exchangeable.
    """
    return overlap(_scores(vectors), _scores(reference), k)


def overlap(ours: Vectors, theirs: Vectors, k: int = 10) -> float:
    """The same of two score matrices (N, N), whose diagonals do not count."""
    return float(kept_neighbours(ours, theirs, range(len(theirs)), k).mean()) if len(theirs) else 1.0


def kept_neighbours(ours: Vectors, theirs: Vectors, rows: Sequence[int], k: int = 10) -> npt.NDArray[np.float64]:
    """The share of each text's neighbours that stay (B,), of scores (B, N) of the texts `rows` (B,) with all."""
    if theirs.shape[1] <= k:
        return np.ones(len(theirs))
    ours, theirs = ours.copy(), theirs.copy()
    for scores in (ours, theirs):
        scores[np.arange(len(scores)), rows] = -np.inf
    nearest = np.argpartition(-ours, k, axis=1)[:, :k]  # (B, k)
    threshold = -np.partition(-theirs, k - 1, axis=1)[:, k - 1 : k]  # (B, 1)
    kept = np.take_along_axis(theirs, nearest, axis=1) >= threshold - 1e-6  # (B, k)
    shares: npt.NDArray[np.float64] = kept.mean(axis=1)
    return shares


def _scores(vectors: Vectors) -> Vectors:
    unit = normalize(vectors)
    scores: Vectors = unit @ unit.T  # (N, N)
    return scores


def _terms_overlap(vectors: SparseVectors, reference: SparseVectors) -> float:
    """Mean share of each row's heaviest terms that are among the reference's; terms of one weight are exchangeable."""
    shares = []
    for ours, theirs in zip(vectors, reference, strict=True):
        count = min(_TERMS, len(theirs))
        if not count:
            shares.append(float(not len(ours)))
            continue
        weights = theirs.to_dense()  # (V,)
        least = np.partition(theirs.values, len(theirs) - count)[len(theirs) - count]
        top = ours.indices[np.argsort(-ours.values, kind="stable")[:count]]
        shares.append(float((weights[top] >= least - 1e-6).sum() / count))
    return float(np.mean(shares)) if shares else 1.0


def _sparse_diff(a: SparseVectors, b: SparseVectors) -> float:
    """Largest difference of a weight, in blocks of dense rows; relative to its row's largest where that is above 1.

    Sums over many tokens reach 80 and more, where float32 itself, and so torch, is uncertain by 1e-5.
    """
    found = 0.0
    for start in range(0, len(a), _BLOCK):
        x, y = a[start : start + _BLOCK].to_dense(), b[start : start + _BLOCK].to_dense()  # (block, V)
        scale = np.maximum(np.abs(y).max(1, initial=1.0), 1.0)  # (block,)
        found = max(found, float((np.abs(x - y).max(1, initial=0.0) / scale).max(initial=0.0)))
    return found
