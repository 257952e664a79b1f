"""Families of models: what each gives, and what is taken where its checkpoint does not say. One row is one family."""

from collections.abc import Mapping
from typing import NamedTuple

from trivec._model.manifest import LATE_SIMILARITIES, SIMILARITIES
from trivec._vectors.heads import Head


class Family(NamedTuple):
    """What models of one kind have in common."""

    encoder: str
    """What `load` returns, as MODULE:CLASS below `trivec._encoders`."""
    heads: tuple[Head, ...]
    """What a route may give of a text ("colbert" where its manifest has such a head), or "score" of a pair of texts."""
    similarity: str = "cosine"
    """Where the checkpoint names none."""
    similarities: tuple[str, ...] = SIMILARITIES
    """Those that its vectors can be compared by."""
    exported: bool = True
    """Whether `trivec export` makes model folders of it, with a manifest that names it."""


FAMILIES: Mapping[str, Family] = {
    "dense": Family("dense:DenseEncoder", ("dense",)),
    "splade": Family("sparse:SparseEncoder", ("sparse",), "dot"),
    "bge-m3": Family("hybrid:HybridEncoder", ("dense", "sparse", "colbert")),
    "mgte": Family("hybrid:HybridEncoder", ("dense", "sparse", "colbert")),
    "late": Family("late:LateEncoder", ("colbert",), "maxsim", LATE_SIMILARITIES),
    "rerank": Family("reranker:Reranker", ("score",)),
    "static": Family("static:StaticEncoder", ("dense",), exported=False),
}


def scores_pairs(family: str) -> bool:
    """Whether its models read pairs of texts, and give scores in the place of vectors."""
    return FAMILIES[family].heads == ("score",)


def exported_families() -> tuple[str, ...]:
    """Those that a manifest may name, and `trivec export --family`."""
    return tuple(name for name, family in FAMILIES.items() if family.exported)
