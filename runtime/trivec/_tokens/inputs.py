"""What callers hand over, checked: texts and the options that name an output."""

from collections.abc import Iterable, Mapping

import numpy as np

from trivec._errors import InputError
from trivec._tokens.tokenizer import check_texts


def as_texts(inputs: object, sentences: object) -> tuple[list[str], bool]:
    """A list of checked texts, and whether one text came alone."""
    if sentences is not None:
        if inputs is not None:
            raise InputError("pass the texts as inputs or as sentences, not both.")
        inputs = sentences
    if isinstance(inputs, np.ndarray):
        inputs = inputs.tolist()
    if isinstance(inputs, str):
        return [inputs], True
    if isinstance(inputs, bytes | bytearray | Mapping) or not isinstance(inputs, Iterable):
        raise InputError(f"expected a text or an iterable of texts, got {type(inputs).__name__}.")
    texts = list(inputs)
    check_texts(texts)
    return texts, False


def check_output_value(output_value: object) -> None:
    """Raise InputError unless it is one that `encode` knows."""
    if output_value not in (None, "sentence_embedding", "token_embeddings"):
        raise InputError(
            f"output_value {output_value!r} is not one of 'sentence_embedding', 'token_embeddings' or None."
        )
