"""What encoders with weights of vocabulary terms have in common."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from trivec._encoders.fingerprint import heads_fingerprint
from trivec._encoders.load_options import LoadOptions
from trivec._encoders.pipeline import Pipeline
from trivec._encoders.text_encoder import TextEncoder, V
from trivec._errors import InputError
from trivec._model.manifest import Manifest
from trivec._pooling.heads import Selection
from trivec._pooling.sparse import check_max_active_dims
from trivec._vectors.rows import Vectors, take_terms
from trivec._vectors.sparse import SparseVector, SparseVectors, shared
from trivec._vectors.torch_tensors import tensors_for_tensors


class TermsEncoder(TextEncoder[V]):
    """A TextEncoder whose sparse rows can be limited.

    Attributes:
        max_active_dims: terms that a sparse row keeps at most, where a call does not say; None: all.
    """

    def __init__(self, manifest: Manifest, pipelines: Mapping[str, Pipeline], options: LoadOptions) -> None:
        super().__init__(manifest, pipelines, options)
        if options.truncate_dim is not None:
            raise InputError("truncate_dim is for models of dense vectors alone; sparse rows: see max_active_dims.")
        check_max_active_dims(options.max_active_dims)
        self.max_active_dims = manifest.max_active_dims if options.max_active_dims is None else options.max_active_dims

    def fingerprint_of(
        self,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *,
        task: str | None = None,
        threshold: float = 0.0,
        max_active_dims: int | None = None,
    ) -> str:
        """sha256 of everything that decides the rows of an `encode` call: equal fingerprints, equal rows."""
        return self._fingerprint(self.route(task), self.prompt_text(prompt, prompt_name), threshold, max_active_dims)

    def decode(self, embeddings: Vectors, top_k: int | None = None) -> list[Any]:
        """Terms with their weights, heaviest first: [(token, weight), ...] for each row, or for the one row.

        As `SparseEncoder.decode` of sentence-transformers, for people who look.

        Args:
            embeddings: (N, V) or (V,), sparse or dense: see `trivec.util` for what vectors may be.
            top_k: how many terms of a row at most; None: all.

        Raises:
            InputError: no vectors, or of another width than `dim`, or top_k is no whole number above 0.
        """
        rows, single = take_terms(embeddings, "embeddings")
        if rows.dim != self._terms:
            raise InputError(
                f"embeddings have {rows.dim} numbers a row, and this model has {self._terms} terms: they come from "
                "another vocabulary."
            )
        return rows[0].to_tokens(self.token, top_k) if single else rows.to_tokens(self.token, top_k)

    @staticmethod
    def sparsity(embeddings: Vectors) -> dict[str, float]:
        """How many terms rows have: sentence-transformers' `SparseEncoder.sparsity`.

        Args:
            embeddings: (N, V) or (V,), sparse or dense.

        Returns:
            "active_dims", the mean number of weights that are not 0, and "sparsity_ratio", the mean share of those
            that are.
        """
        rows = take_terms(embeddings, "embeddings").rows
        if not len(rows) or not rows.dim:
            return {"active_dims": 0.0, "sparsity_ratio": 1.0}
        active = np.count_nonzero(rows.values) / len(rows)
        return {"active_dims": active, "sparsity_ratio": 1.0 - active / rows.dim}

    @staticmethod
    @tensors_for_tensors
    def intersection(embeddings_1: Vectors, embeddings_2: Vectors) -> SparseVector | SparseVectors:
        """The terms that a row shares with others, each with the product of its weights where that is above 0.

        sentence-transformers' `SparseEncoder.intersection`.

        Args:
            embeddings_1: (V,), sparse or dense.
            embeddings_2: (N, V) or (V,).

        Returns:
            A row for each of embeddings_2; a sparse tensor where an argument is one.

        Raises:
            InputError: embeddings_1 has several rows, or the widths differ.
        """
        one, others = take_terms(embeddings_1, "embeddings_1"), take_terms(embeddings_2, "embeddings_2")
        if not one.single:
            raise InputError(f"embeddings_1 must be one row, got {len(one.rows)}. Type: embeddings_1[0]")
        found = shared(one.rows, others.rows)
        return found[0] if others.single else found

    @property
    def _terms(self) -> int:
        """Terms of the vocabulary."""
        return next((p.sparse.dim for p in self._open().values() if p.sparse is not None), self.dim)

    def _fingerprint(self, pipeline: Pipeline, prompt: str, threshold: float, max_active_dims: int | None) -> str:
        limit = self.max_active_dims if max_active_dims is None else max_active_dims
        settings = {"threshold": threshold, "max_active_dims": limit}
        return heads_fingerprint(
            pipeline, variant=self.precision, digest=self._options.digest, prompt=prompt, settings=settings
        )

    def _state(self) -> dict[str, Any]:
        return {**super()._state(), "max_active_dims": self.max_active_dims}

    def _uncut(self, task: str | None) -> dict[str, Any]:
        terms = self.route(task).sparse
        return {} if terms is None else {"max_active_dims": terms.dim}

    def _selection(self, threshold: float, max_active_dims: int | None) -> Selection:
        """The options of a call, checked, with the encoder's own limit where it names none."""
        check_max_active_dims(max_active_dims)
        if not isinstance(threshold, int | float | np.floating) or not threshold >= 0:
            raise InputError(f"threshold must be a number of at least 0, got {threshold!r}.")
        return Selection(float(threshold), self.max_active_dims if max_active_dims is None else int(max_active_dims))
