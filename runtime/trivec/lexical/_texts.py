"""Texts to terms, in this process or in several; what is no text is named with its place."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any

from trivec._errors import InputError, WorkerError
from trivec._system.background import is_ending
from trivec._tokens.inputs import hint_of, one_by_one

AnalyzerLike = Callable[[str], Sequence[str]]
_AT_ONCE = 4096  # texts that wait for a process
_FEW = 256  # texts that no process is started for


def analyzed(analyzer: AnalyzerLike, texts: Iterable[str], what: str, workers: int = 1) -> Iterator[Sequence[str]]:
    """The terms of each text, in order.

    Args:
        analyzer: from a text to its terms; with workers it must be picklable.
        texts: read as they are needed.
        what: "document" or "query", for messages.
        workers: processes that analyze; 1: this one.

    Raises:
        InputError: texts is no collection of texts, or the analyzer gives no list of strings.
        WorkerError: a process died.
    """
    checked = _texts(texts, what)
    some = list(islice(checked, _FEW))
    yield from _checked(map(analyzer, some), what, "the analyzer gave")
    if workers == 1 or is_ending():
        yield from _checked(map(analyzer, checked), what, "the analyzer gave", len(some))
        return
    found = _in_processes(analyzer, checked, workers)
    yield from _checked(found, what, "the analyzer gave", len(some))


def tokenized(documents: Iterable[Sequence[str]], what: str) -> Iterator[Sequence[str]]:
    """Documents that are split already.

    Raises:
        InputError: one is no list of strings.
    """
    expected = f"expected a list of token lists, one for each {what}"
    if isinstance(documents, str):
        raise InputError(f"{expected}, got {_shown(documents)}.")
    return _checked(one_by_one(documents, expected), what, "got")


def _checked(found: Iterable[Any], what: str, got: str, first: int = 0) -> Iterator[Sequence[str]]:
    for i, tokens in enumerate(found, first):
        if not isinstance(tokens, list | tuple):  # what is in it is looked at where it is read anyway
            raise InputError(f"expected a list of strings for {what} {i}, {got} {_shown(tokens)}.")
        yield tokens


def _texts(texts: Iterable[str], what: str) -> Iterator[str]:
    expected = f"expected a list of texts, one for each {what}"
    if isinstance(texts, str):
        raise InputError(f"{expected}, got {_shown(texts)}. For a single one type: [text]")
    for i, text in enumerate(one_by_one(texts, expected)):
        if not isinstance(text, str):
            raise InputError(f"expected a text for {what} {i}, got {_shown(text)}.{hint_of(text)}")
        yield text


def _in_processes(analyzer: AnalyzerLike, texts: Iterator[str], workers: int) -> Iterator[Sequence[str]]:
    context = multiprocessing.get_context("spawn")  # a fork would copy locks that onnxruntime's threads hold
    try:
        with ProcessPoolExecutor(workers, context) as pool:
            while some := list(islice(texts, _AT_ONCE)):  # bounded: map takes all that it is given
                yield from pool.map(analyzer, some, chunksize=-(-len(some) // (4 * workers)))
    except BrokenProcessPool as error:
        raise WorkerError(
            "a process that analyzes texts died. A script that starts processes must do so under "
            'if __name__ == "__main__":  ; or do without them: workers=1'
        ) from error


def _shown(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
