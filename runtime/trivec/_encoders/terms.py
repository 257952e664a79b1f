"""What encoders with weights of vocabulary terms have in common."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from trivec._encoders.base import BaseEncoder
from trivec._encoders.fingerprint import heads_fingerprint
from trivec._encoders.load_options import LoadOptions
from trivec._encoders.pipeline import Pipeline
from trivec._errors import InputError
from trivec._model.manifest import Manifest
from trivec._pooling.heads import Selection
from trivec._pooling.sparse import check_max_active_dims


class TermsEncoder(BaseEncoder):
    """A BaseEncoder whose sparse rows can be limited.

    Attributes:
        max_active_dims: terms that a sparse row keeps at most, where a call does not say; None: all.
    """

    def __init__(self, manifest: Manifest, pipelines: Mapping[str, Pipeline], options: LoadOptions) -> None:
        super().__init__(manifest, pipelines, options)
        if options.truncate_dim is not None:
            raise InputError("truncate_dim is for models of dense vectors alone; sparse rows: see max_active_dims.")
        check_max_active_dims(options.max_active_dims)
        self.max_active_dims = manifest.max_active_dims if options.max_active_dims is None else options.max_active_dims

    def token(self, term: int) -> str:
        """The token of a term of the vocabulary."""
        return next(iter(self._open().values())).tokenizer.token(term)

    @property
    def dim(self) -> int:
        """Terms of the vocabulary; of a hybrid model the numbers in a dense vector."""
        return int(self.manifest.dim or 0)

    def get_embedding_dimension(self) -> int:
        """`dim`, under sentence-transformers' name."""
        return self.dim

    get_sentence_embedding_dimension = get_embedding_dimension

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
        pipeline = self._open()[self._route(task)]
        return self._fingerprint(pipeline, self._prompt(prompt, prompt_name), threshold, max_active_dims)

    def _fingerprint(self, pipeline: Pipeline, prompt: str, threshold: float, max_active_dims: int | None) -> str:
        limit = self.max_active_dims if max_active_dims is None else max_active_dims
        settings = {"threshold": threshold, "max_active_dims": limit}
        return heads_fingerprint(
            pipeline, variant=self.precision, digest=self._options.digest, prompt=prompt, settings=settings
        )

    def _state(self) -> dict[str, Any]:
        return {**super()._state(), "max_active_dims": self.max_active_dims}

    def __repr__(self) -> str:
        state = "closed" if self._pipelines is None else self.device
        return f"{type(self).__name__}({self._options.name!r}, dim={self.dim}, {self.precision}, {state})"

    def _selection(self, threshold: float, max_active_dims: int | None) -> Selection:
        """The options of a call, checked, with the encoder's own limit where it names none."""
        check_max_active_dims(max_active_dims)
        if not isinstance(threshold, int | float | np.floating) or not threshold >= 0:
            raise InputError(f"threshold must be a number of at least 0, got {threshold!r}.")
        return Selection(float(threshold), self.max_active_dims if max_active_dims is None else int(max_active_dims))
