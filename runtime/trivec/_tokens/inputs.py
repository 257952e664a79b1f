"""What callers hand over, checked: texts and the options that name an output."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from trivec._errors import InputError


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


def check_encodable(text: str, what: str) -> None:
    """Raise InputError if a text holds half a surrogate pair."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{what} holds a lone surrogate (U+{ord(text[error.start]):04X} at character "
            f"{error.start}), which is no valid Unicode text. Repair it: "
            "text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')"
        ) from error


def check_all_encodable(texts: Sequence[str], prompt: str, first: int) -> None:
    """Raise InputError if the prompt or a text holds half a surrogate pair; `first` is the index of the first text."""
    check_encodable(prompt, "the prompt")
    for index, text in enumerate(texts):
        check_encodable(text, f"the text at index {first + index}")


def check_texts(texts: Sequence[object]) -> None:
    """Raise InputError, naming the index, if anything but a string is among the texts."""
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            hint = " Decode it first: text.decode('utf-8')." if isinstance(text, bytes) else ""
            raise InputError(
                f"expected strings, got {type(text).__name__} at index {index}: {str(text)[:40]!r}.{hint} "
                "Nothing was encoded."
            )
