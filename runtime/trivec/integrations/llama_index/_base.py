"""What the LlamaIndex classes have in common."""

import os

from trivec.integrations._adapter import Model
from trivec.integrations._text_model import Encoder

BATCH = 256
"""Texts that LlamaIndex hands over at a time; its own 10 leave too few of one length to run together."""


def name_of(model: Model, encoder: Encoder) -> str:
    """What to open again: the name as the user gave it, or that of an encoder that was open."""
    return os.fspath(model) if isinstance(model, str | os.PathLike) else encoder.name
