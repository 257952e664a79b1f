"""What the adapters have in common: a model, opened and checked, with the options of its calls.

open_model      a name, a folder or an open encoder to an encoder of the right kind
TextModel       the encoder, called for documents and for queries, from threads and from coroutines
"""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Self, TypeVar, cast

import numpy as np

from trivec._concurrency.batcher import Batcher
from trivec._encoders.calls import Overflow, Side
from trivec._encoders.dense import DenseEncoder
from trivec._encoders.hybrid import HybridEncoder
from trivec._encoders.named_call import fingerprint_of_call, spelled_out
from trivec._encoders.sparse import SparseEncoder
from trivec._encoders.text_encoder import TextEncoder
from trivec._errors import InputError, MissingExtraError
from trivec._load import load
from trivec._tokens.inputs import as_texts
from trivec._vectors.heads import Head, HybridVectors
from trivec._vectors.sparse import SparseVector, SparseVectors

Encoder = DenseEncoder | SparseEncoder | HybridEncoder
Model = str | os.PathLike[str] | Encoder
"""What an adapter is made from: a folder, a name on the Hub, or an encoder that is open already."""
T = TypeVar("T")
_NOT_TAKEN = {"output_value", "save_to_cpu", "return_dense", "return_sparse", "return_colbert_vecs"}
_NOT_TAKEN |= {"convert_to_numpy", "convert_to_tensor", "convert_to_sparse_tensor"}
_PROCESSES = {"device", "pool", "chunk_size"}
_OF_MANY = {*_PROCESSES, "show_progress_bar"}
"""What makes no sense for one text."""
_PROMPTS = {"prompt", "prompt_name"}
_LOAD = tuple(load.__kwdefaults__ or ())


def missing(package: str, install: str, error: ImportError) -> MissingExtraError:
    """The error for an adapter whose framework cannot be imported; `install` is what follows `pip install`."""
    why = f"{package} is not installed" if isinstance(error, ModuleNotFoundError) else f"{package} fails: {error}"
    return MissingExtraError(f"this adapter needs {package}; {why}. Type: pip install {install}")


# ---- opening ---------------------------------------------------------------------------------------------------------


def open_model(
    model: object, kinds: Sequence[type], wanted: str, given: Mapping[str, Any], *more: Mapping[str, Any] | None
) -> Any:  # noqa: ANN401 - one of `kinds`
    """An encoder, opened here unless it is open already.

    Args:
        model: a folder, a name on the Hub, or an encoder.
        kinds: what the encoder may be.
        wanted: what such a model is, in words.
        given: arguments of `trivec.load` that the adapter names itself; None is not said.
        more: further arguments of `trivec.load`, as the user wrote them.

    Raises:
        InputError: no model, one of another kind, an unknown argument, one that is given twice, or arguments for a
            model that is open already.
        Whatever `trivec.load` raises.
    """
    options = {name: value for name, value in given.items() if value is not None}
    for written, value in (item for mapping in more for item in (mapping or {}).items()):
        name = {"cache_folder": "cache_dir"}.get(written, written)
        if name == "trust_remote_code":  # accepted: no code of a model repository is ever run here
            continue
        if name not in _LOAD:
            raise InputError(f"{name}={value!r} is no argument of trivec.load. Expected some of: {', '.join(_LOAD)}.")
        if name in options:
            raise InputError(f"{name} is given twice: {options[name]!r} and {value!r}.")
        options[name] = value
    if isinstance(model, TextEncoder):
        if options:
            raise InputError(
                f"{', '.join(options)}: for models that are opened here, and {model!r} is open already. "
                "Give them to trivec.load."
            )
        return _of_kind(model, kinds, wanted)
    if not isinstance(model, str | os.PathLike):
        raise InputError(
            f"expected a model's folder, its name on the Hub, or what trivec.load returns, got {type(model).__name__}."
        )
    encoder = load(model, **options)
    try:
        return _of_kind(encoder, kinds, wanted)
    except InputError:
        encoder.close()
        raise


def _of_kind(encoder: TextEncoder[Any], kinds: Sequence[type], wanted: str) -> TextEncoder[Any]:
    if not isinstance(encoder, tuple(kinds)):
        raise InputError(f"{encoder.name} is a {type(encoder).__name__}, and this adapter needs {wanted}.")
    return encoder


# ---- calling ---------------------------------------------------------------------------------------------------------


class _Lines(NamedTuple):
    """How callers come to the encoder; of one process, since threads stay behind in a fork."""

    process: int
    batcher: Batcher
    """Single texts of many threads and coroutines, together where they meet."""
    thread: ThreadPoolExecutor
    """Lists of texts of coroutines, one list at a time: it has all the cores then, and no other thread waits."""


class TextModel:
    """An encoder with the options of its calls; safe to use from many threads, and pickles with its encoder.

    Attributes:
        encoder: what `trivec.load` returned.
        heads: the kinds of vectors that are asked for.
    """

    def __init__(
        self,
        encoder: Encoder,
        heads: Sequence[Head],
        document: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        on_overflow: Overflow | None = None,
    ) -> None:
        """Check the options, by encoding no texts with them.

        Args:
            encoder: what `trivec.load` returns.
            heads: the kinds of vectors.
            document: options of `encode_document`, and of `encode_query` as well.
            query: options of `encode_query`, which win over those. A prompt here replaces any prompt there.
            on_overflow: for both; None: as the options say, else "truncate".

        Raises:
            InputError: an option that is not known, does not apply here, or has a wrong value.
        """
        self.encoder, self.heads = encoder, tuple(heads)
        of_both, of_query = dict(document or {}), dict(query or {})
        for options, refused in ((of_both, set[str]()), (of_query, _OF_MANY)):
            if on_overflow is not None and options.setdefault("on_overflow", on_overflow) != on_overflow:
                raise InputError(f"on_overflow is given twice: {on_overflow!r} and {options['on_overflow']!r}.")
            check_options(encoder, options, refused)
        prompted = not _PROMPTS.isdisjoint(of_query)
        left_out = _OF_MANY | (_PROMPTS if prompted else set())
        self._document = of_both
        self._query = {**{k: v for k, v in of_both.items() if k not in left_out}, **of_query}
        self._try()
        self._held: _Lines | None = None
        self._lines()

    def documents(self, texts: object) -> HybridVectors:
        """Vectors of N texts.

        Raises:
            InputError: no list of texts.
            TruncationError, NonFiniteError: as of the encoder.
        """
        return self.encoder.represent(as_list(texts), self.heads, **self._options("document"))

    def queries(self, texts: object) -> HybridVectors:
        """Vectors of N queries."""
        return self.encoder.represent(as_list(texts), self.heads, **self._options("query"))

    def query(self, text: object) -> HybridVectors:
        """Vectors of one query; queries that are asked for at the same time run together."""
        return self._lines().batcher.represent(one(text), heads=self.heads, **self._options("query"))

    async def aquery(self, text: object) -> HybridVectors:
        """`query`, while the event loop goes on."""
        options = self._options("query")
        found: HybridVectors = await self._lines().batcher.aencode(
            one(text), method="represent", heads=self.heads, **options
        )
        return found

    async def apart(self, work: Callable[..., T], *arguments: object) -> T:
        """What `work(*arguments)` returns, while the event loop goes on; one such work at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._lines().thread, work, *arguments)

    def fingerprint(self, side: Side) -> str:
        """sha256 of everything that decides the vectors of documents or of queries."""
        return fingerprint_of_call(self.encoder, self._options(side))

    def of_none(self) -> HybridVectors:
        """No vectors, of the right widths."""
        plain = {name: value for name, value in self._options("document").items() if name not in _PROCESSES}
        return self.encoder.represent([], self.heads, **plain)

    def __reduce__(self) -> tuple[Any, ...]:
        return TextModel, (self.encoder, self.heads, self._document, self._query)

    def __deepcopy__(self, _: object) -> Self:
        return self  # a copy would open the graph again, for the same vectors

    # ---- helpers -------------------------------------------------------------------------------------------------

    def _try(self) -> None:
        """Encode no texts, which raises where an option's value is wrong."""
        only = self.encoder.opened_for  # a model may be open for its queries alone
        if only in (None, "document"):
            self.of_none()
        if only in (None, "query"):
            self.queries([])

    def _options(self, side: Side) -> dict[str, Any]:
        """Options with which `encode` does what `encode_document` or `encode_query` does."""
        options = self._document if side == "document" else self._query
        return spelled_out(self.encoder, f"encode_{side}", options)

    def _lines(self) -> _Lines:
        lines = self._held
        if lines is None or lines.process != os.getpid():
            thread = ThreadPoolExecutor(1, thread_name_prefix="trivec-documents")  # starts with its first list
            lines = self._held = _Lines(os.getpid(), Batcher(self.encoder), thread)
        return lines


def check_options(encoder: Encoder, options: Mapping[str, Any], refused: set[str]) -> None:
    """Raise InputError for an option that an adapter's calls do not take."""
    known = sorted(encoder.encode_options().keys() - _NOT_TAKEN - refused)
    for name, value in options.items():
        if name in _NOT_TAKEN:
            raise InputError(f"{name}={value!r} is not taken here: the adapter decides what comes out.")
        if name not in known:
            why = "does not apply to a query, which is one text" if name in refused else "is no option of this model"
            raise InputError(f"{name}={value!r} {why}. Expected some of: {', '.join(known)}.")
        if name == "precision" and value != "float32":
            raise InputError(
                f"precision={value!r} among the options of encode is the number type of the vectors, and they are "
                "floats here. The model's variant is an argument of the adapter: precision='int8'."
            )


def as_list(texts: object) -> list[str]:
    """Texts as a list; a lone string, which would be read letter by letter, and what is no text are refused."""
    if isinstance(texts, str | bytes):
        raise InputError(f"expected a list of texts, got one {type(texts).__name__}. Type: [{texts[:20]!r}]")
    return as_texts(texts, None)[0]


def one(text: object) -> str:
    """A single text, or InputError."""
    if not isinstance(text, str):
        hint = " Decode it first: text.decode('utf-8')." if isinstance(text, bytes) else ""
        raise InputError(f"expected one text, got {type(text).__name__} {str(text)[:40]!r}.{hint}")
    return text


# ---- what comes out --------------------------------------------------------------------------------------------------


def dense_lists(vectors: HybridVectors) -> Any:  # noqa: ANN401 - (N, D) or (D,) as nested lists
    """Dense vectors as lists of Python's floats: one list of a single text."""
    return cast("np.ndarray[Any, Any]", vectors.dense).tolist()


def sparse_row(vectors: HybridVectors) -> SparseVector:
    """The sparse vector of a single text."""
    return cast("SparseVector", vectors.sparse)


def sparse_rows(vectors: HybridVectors) -> SparseVectors:
    """The sparse vectors of N texts."""
    return cast("SparseVectors", vectors.sparse)
