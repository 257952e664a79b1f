"""What the LlamaIndex classes have in common."""

import os
from typing import cast

from trivec.integrations._adapter import Encoder, Model, TextModel

BATCH = 256
"""Texts that LlamaIndex hands over at a time; its own 10 leave too few of one length to run together."""


class OfModel:
    """What a pydantic class with a TextModel in `_model` says of it."""

    @property
    def query_fingerprint(self) -> str:
        """sha256 of everything that decides the vectors of queries."""
        return self._text_model().fingerprint("query")

    @property
    def encoder(self) -> Encoder:
        """The encoder; `encoder.close()` frees its memory."""
        return self._text_model().encoder

    @property
    def truncated(self) -> int:
        """Texts that were longer than the model reads, so far."""
        return self.encoder.truncated

    def _text_model(self) -> TextModel:
        return cast("TextModel", self._model)  # type: ignore[attr-defined]  # pydantic has it


def name_of(model: Model, encoder: Encoder) -> str:
    """What to open again: the name as the user gave it, or that of an encoder that was open."""
    return os.fspath(model) if isinstance(model, str | os.PathLike) else encoder.name
