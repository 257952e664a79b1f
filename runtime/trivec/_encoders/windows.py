"""Any number of texts in bounded memory: a window is encoded while the next one is tokenized."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from trivec._errors import InputError, NonFiniteError, TruncationError
from trivec._system.background import Background, Job
from trivec._tokens.inputs import one_by_one

Ready = TypeVar("Ready")
Block = TypeVar("Block")


def blocks(
    texts: Iterable[Any], window: int, read: Callable[[list[Any]], Ready], encode: Callable[[Ready], Block]
) -> Iterator[Block]:
    """`encode(read(part))` of `window` texts at a time, in order, for any number of texts.

    `read` runs in a thread of its own, one window ahead; `texts` is asked from the caller's thread alone, and at most
    two windows are held.

    Raises:
        InputError: at the call: window is below 1, or one text came where an iterable of texts was expected. In the
            iterator, an error of `read` or `encode` names the text at which its block starts. Whatever goes wrong, in
            `texts` itself too, is raised after the blocks of the texts before it.
    """
    return _blocks(iter(stream(texts, window)), window, read, encode)


def stream(
    texts: object, window: object, *, taker: str = "encode_iter", alone: str = "encode(text)", items: str = "texts"
) -> Iterable[Any]:
    """The texts, or pairs, one by one; InputError unless these are some in an iterable, and a size."""
    if not isinstance(window, int) or window < 1:
        raise InputError(f"window must be a whole number of at least 1, got {window!r}.")
    if isinstance(texts, str):
        raise InputError(f"{taker} takes an iterable of {items}, got one text. Type: {alone}")
    return one_by_one(texts, f"{taker} takes an iterable of {items}")


def windows(texts: Iterable[Any], window: int) -> Iterator[list[Any]]:
    """Lists of `window` texts, the last one shorter; what the source raises comes after the texts before it."""
    source, failure = iter(texts), None
    while failure is None:
        part, failure = _pull(source, window)
        if not part:
            break
        yield part
    if failure is not None:
        raise failure


def _blocks(
    texts: Iterator[Any], window: int, read: Callable[[list[Any]], Ready], encode: Callable[[Ready], Block]
) -> Iterator[Block]:
    done = 0
    with Background(1, "trivec-tokenizer") as ahead:  # leaving it waits for one window
        part, failure = _pull(texts, window)
        reading: Job[Ready] | None = ahead.submit(read, part) if part else None
        while reading is not None:
            current, count = reading, len(part)
            part, failure = _pull(texts, window) if failure is None else ([], failure)
            reading = ahead.submit(read, part) if part else None
            try:
                block = encode(current.result())
            except (InputError, NonFiniteError, TruncationError) as error:
                raise type(error)(f"in the block that starts at text {done}: {error}") from error
            yield block
            done += count
    if failure is not None:
        raise failure


def _pull(texts: Iterator[Any], window: int) -> tuple[list[Any], Exception | None]:
    """Up to `window` texts, and what their source raised after them."""
    part: list[Any] = []
    try:
        part.extend(islice(texts, window))  # keeps what came before an error
    except Exception as error:  # noqa: BLE001 - raised again, when the texts before it are through
        return part, error
    return part, None
