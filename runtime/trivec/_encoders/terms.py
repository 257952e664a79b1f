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
