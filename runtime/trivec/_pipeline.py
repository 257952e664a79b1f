"""One route of a model, open: tokenizer, session, pooling and what follows."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trivec._errors import InputError, ModelFormatError
from trivec._manifest import Encoder, Pooling, Step
from trivec._pool import Floats, apply_steps, pool
from trivec._session import Session
from trivec._tokenize import TextTokenizer


@dataclass(frozen=True)
class Pipeline:
    """From token ids to vectors."""

    encoder: Encoder
    tokenizer: TextTokenizer
    session: Session
    output: str
    pooling: Pooling | None
    steps: tuple[Step, ...]
    arrays: Mapping[str, Floats]

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return int(self.finish(np.zeros((1, self._pooled_width()), dtype=np.float32)).shape[1])

    def prompt_length(self, prompt: str) -> int:
        """Tokens of a prompt that pooling leaves out; not counted where it leaves none out."""
        if self.pooling is None or self.pooling.include_prompt:
            return 0
        return self.tokenizer.prompt_length(prompt)

    def states(self, ids: npt.NDArray[np.int64]) -> Floats:
        """Token embeddings (B, S, H) of rows of one length (B, S)."""
        if self.pooling is None:
            raise InputError(
                "this graph gives sentence embeddings only, so there are no token embeddings. Export the checkpoint "
                "with: trivec export"
            )
        if ids.shape[1] == 0:
            return np.zeros((*ids.shape, self._output_width()), dtype=np.float32)
        return self.session.run(ids, self.output)

    def vectors(self, ids: npt.NDArray[np.int64], prompt_length: int) -> Floats:
        """Vectors (B, D) of rows of one length (B, S); a row without tokens pools to zeros."""
        if ids.shape[1] == 0:
            return self.finish(np.zeros((len(ids), self._pooled_width()), dtype=np.float32))
        output = self.session.run(ids, self.output)
        return self.finish(output if self.pooling is None else pool(output, self.pooling, prompt_length))

    def finish(self, pooled: Floats) -> Floats:
        """What follows pooling: (B, H * modes) to (B, D)."""
        return apply_steps(pooled, self.steps, self.arrays)

    def _pooled_width(self) -> int:
        return self._output_width() * (len(self.pooling.modes) if self.pooling else 1)

    def _output_width(self) -> int:
        width = self.session.outputs.get(self.output)
        if width is None:
            ids = np.ones((1, 1), dtype=np.int64)
            width = self.session.run(ids, self.output).shape[-1]
        return width


def check_arrays(steps: tuple[Step, ...], arrays: Mapping[str, Floats]) -> None:
    """Raise ModelFormatError if a step's arrays are not there."""
    for step in steps:
        needed = {"dense": ("weight",), "layer_norm": ("weight", "bias")}.get(step.kind, ())
        missing = [f"{step.arrays}.{name}" for name in needed if f"{step.arrays}.{name}" not in arrays]
        if missing:
            raise ModelFormatError(f"the arrays {', '.join(missing)} of a {step.kind} layer are missing.")
