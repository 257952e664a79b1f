"""What callers hand over, checked: texts, pairs of texts, and the options that name an output."""

import math
from collections.abc import Iterable, Mapping, MappingView, Sequence, Set
from typing import Any

import numpy as np

from trivec._errors import InputError


def as_texts(inputs: object, sentences: object) -> tuple[list[str], bool]:
    """A list of checked texts, and whether one text came alone."""
    if sentences is not None:
        if inputs is not None:
            raise InputError("pass the texts as inputs or as sentences, not both.")
        inputs = sentences
    if isinstance(inputs, np.ndarray) and inputs.ndim == 0:
        inputs = inputs.item()
    if isinstance(inputs, str):
        return [inputs], True
    texts = list(one_by_one(inputs, "expected a text or an iterable of texts"))
    check_texts(texts)
    return texts, False


def as_pairs(inputs: object) -> tuple[list[tuple[str, str]], bool]:
    """A list of checked pairs, and whether one pair came alone."""
    if isinstance(inputs, str):
        raise InputError(f"expected a pair of texts or an iterable of pairs, got one text: {inputs[:40]!r}.{_PAIRS}")
    if isinstance(inputs, np.ndarray) and inputs.ndim == 2:
        inputs = inputs.tolist()
    items = list(one_by_one(inputs, "expected a pair of texts or an iterable of pairs"))
    if items and isinstance(items[0], str):
        return [checked_pair(items, "the pair")], True
    return checked_pairs(items), False


_PAIRS = " Type: [(query, document), ...]"


def checked_pairs(items: Iterable[object]) -> list[tuple[str, str]]:
    """Pairs as tuples; InputError, naming the index, for anything else among them."""
    return [checked_pair(item, f"the pair at index {index}") for index, item in enumerate(items)]


def checked_pair(item: object, what: str) -> tuple[str, str]:
    """A pair as a tuple; InputError unless it is two texts."""
    item = item.tolist() if isinstance(item, np.ndarray) else item
    if not isinstance(item, list | tuple):
        raise InputError(
            f"expected two texts for {what}, got {type(item).__name__}: {str(item)[:40]!r}.{_PAIRS} Nothing was scored."
        )
    if len(item) != 2:
        raise InputError(f"expected two texts for {what}, got {len(item)}.{_PAIRS} Nothing was scored.")
    for text, name in zip(item, ("first", "second"), strict=True):
        if not isinstance(text, str):
            raise InputError(
                f"expected two texts for {what}, got {type(text).__name__} as the {name}: {str(text)[:40]!r}. "
                "Nothing was scored."
            )
    return (item[0], item[1])


def one_by_one(inputs: object, expected: str) -> Iterable[Any]:
    """The items, in order, of a sequence, an iterator, a 1-d array or a Series (of numpy, pandas, polars, pyarrow ...).

    What a container is shows in its shape and its methods: none of these packages is imported.

    Args:
        inputs: what a caller gives for texts; a lone string is the caller's to look at.
        expected: what the error's message begins with.

    Raises:
        InputError: no container, one without an order, or one with several columns; the message says what to type.
    """
    if isinstance(inputs, list | tuple):
        return inputs
    shape = getattr(inputs, "shape", None)
    flat = not isinstance(shape, tuple) or len(shape) == 1
    unordered = isinstance(inputs, Set) and not isinstance(inputs, MappingView)
    if unordered or not flat or isinstance(inputs, bytes | bytearray | Mapping) or not isinstance(inputs, Iterable):
        raise InputError(f"{expected}, got {type(inputs).__name__}.{_way_in(inputs)}")
    if isinstance(inputs, np.ndarray):
        return list(inputs.tolist())  # Python's own strings and numbers
    if hasattr(inputs, "to_pylist"):
        return (item.as_py() for item in inputs)  # pyarrow's are scalars of its own
    return inputs


def _way_in(inputs: object) -> str:
    """What to type for the texts of such a thing."""
    if isinstance(inputs, bytes | bytearray):
        return " Decode it first: texts.decode('utf-8')."
    if isinstance(inputs, Mapping):
        return " Its values in order: list(texts.values())."
    if isinstance(inputs, Set):
        return " It has no order, and row i is text i. Type: sorted(texts)."
    for attribute in ("column_names", "columns"):  # pyarrow's and datasets', then pandas' and polars'
        columns = getattr(inputs, attribute, None)
        names = list(columns) if isinstance(columns, Iterable) else []
        if names:
            return f" Take one column: texts[{('text' if 'text' in names else names[0])!r}]."
    shape = getattr(inputs, "shape", None)
    return f" Its shape is {tuple(shape)}; expected one text a row: texts[:, 0]." if isinstance(shape, tuple) else ""


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


def check_texts(texts: Sequence[object], expected: str = "expected strings") -> None:
    """Raise InputError, naming the index, if anything but a string is among the texts."""
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(
                f"{expected}, got {type(text).__name__} at index {index}: {str(text)[:40]!r}.{hint_of(text)} "
                "Nothing was encoded."
            )


def hint_of(item: object) -> str:
    """What to type for an item that is no text, after a space; nothing where that is anyone's guess."""
    if isinstance(item, bytes | bytearray):
        return " Decode it first: text.decode('utf-8')."
    if isinstance(item, Mapping) and item:
        key = "text" if "text" in item else next(iter(item))
        return f" Take one column: [row[{key!r}] for row in texts]."
    if isinstance(item, list | tuple):
        return " Rows of several texts need a call for each column: [row[0] for row in texts]."
    nan = isinstance(item, float) and math.isnan(item)
    if item is None or nan or type(item).__name__ in ("NAType", "NaTType"):  # pandas' own, known by name
        return " Fill or drop missing values first: texts.fillna('') or texts.dropna() of a Series."
    return ""
