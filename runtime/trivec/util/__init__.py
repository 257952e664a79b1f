"""Similarities, search, mining and clustering of vectors that are there already, in numpy and in bounded memory.

    from trivec.util import cos_sim, semantic_search

    hits = semantic_search(encoder.encode_query(questions), encoder.encode_document(texts), top_k=5)
    hits[0]  # [{"corpus_id": 17, "score": 0.83}, ...] for the first question

Names, parameters, defaults and results are those of sentence_transformers.util 6.2, which has no `rerank`: torch
tensors where an argument is one, numpy arrays otherwise. Vectors come as arrays (memory maps among them), lists of
vectors or of numbers, columns of a table, SparseVectors, scipy.sparse matrices or torch tensors; torch itself is never
imported. What is computed from them does not depend on the sizes of chunks: equal rows have equal scores, and of equal
scores the lower index comes first.
"""

from trivec._vectors.quantize import quantize_embeddings
from trivec._vectors.scores import (
    cos_sim,
    dot_score,
    euclidean_sim,
    manhattan_sim,
    pairwise_cos_sim,
    pairwise_dot_score,
    pairwise_euclidean_sim,
    pairwise_manhattan_sim,
)
from trivec.util._communities import community_detection
from trivec.util._embeddings import normalize_embeddings, select_max_active_dims, truncate_embeddings
from trivec.util._maxsim import maxsim, maxsim_pairwise, mean_maxsim, mean_maxsim_pairwise
from trivec.util._mining import paraphrase_mining, paraphrase_mining_embeddings
from trivec.util._rerank import rerank
from trivec.util._search import semantic_search

pytorch_cos_sim = cos_sim
"""Its older name."""

__all__ = [
    "community_detection",
    "cos_sim",
    "dot_score",
    "euclidean_sim",
    "manhattan_sim",
    "maxsim",
    "maxsim_pairwise",
    "mean_maxsim",
    "mean_maxsim_pairwise",
    "normalize_embeddings",
    "pairwise_cos_sim",
    "pairwise_dot_score",
    "pairwise_euclidean_sim",
    "pairwise_manhattan_sim",
    "paraphrase_mining",
    "paraphrase_mining_embeddings",
    "pytorch_cos_sim",
    "quantize_embeddings",
    "rerank",
    "select_max_active_dims",
    "semantic_search",
    "truncate_embeddings",
]

for _name in set(__all__) - {"quantize_embeddings"}:  # that one is trivec's own name already
    globals()[_name].__module__ = __name__
