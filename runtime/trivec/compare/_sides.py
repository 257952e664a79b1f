"""The two sides of a comparison: an encoder that runs, or a file that was stored."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from trivec import store
from trivec._encoders.named_call import METHODS, fingerprint_of_call, spelled_out
from trivec._encoders.protocol import Encoder, is_encoder
from trivec._errors import InputError
from trivec._open import open_encoder
from trivec._vectors.heads import HEADS, Head, HybridVectors, record_of
from trivec._vectors.multi import MultiVectors
from trivec.compare._difference import SideFacts
from trivec.store import Method, Stored
from trivec.store._formats import FORMATS
from trivec.store._probe import check_probe, probe_of

_BLOCK = 1 << 14  # vectors that are float64 at once
_UNIT = 2e-3  # how far from 1 the norm of a normalized vector may be: float16 rounds by a 1000th
Given = str | os.PathLike[str] | Encoder
"""A folder, a name on the Hub, "provider:model", a file of `trivec.store`, or what `trivec.load` and
`trivec.hosted.open` return."""


@dataclass(frozen=True)
class StoredSide:
    """Vectors that were computed before."""

    name: str
    stored: Stored

    @property
    def vectors(self) -> HybridVectors:
        """Of all rows."""
        return record_of(self.stored.vectors)

    @property
    def heads(self) -> tuple[Head, ...]:
        """The kinds of vectors that there are."""
        return tuple(head for head, part in zip(HEADS, self.vectors.parts(), strict=True) if part is not None)

    def facts(self) -> SideFacts:
        """What it is."""
        return SideFacts(self.name, "stored", self.stored.fingerprint, self.stored.engine)


@dataclass(frozen=True)
class RunningSide:
    """An encoder, and how it is called."""

    encoder: Encoder
    options: Mapping[str, Any]
    """Of `encode`."""

    @property
    def name(self) -> str:
        """The model's."""
        return self.encoder.name

    @property
    def heads(self) -> tuple[Head, ...]:
        """The kinds of vectors that there are."""
        return self.encoder.heads

    def represent(self, texts: Sequence[str], heads: Sequence[Head]) -> HybridVectors:
        """Vectors of N texts.

        Raises:
            InputError: the options ask for numbers that are no floats.
        """
        found = self.encoder.represent(texts, heads, **self.options)
        _check_floats(f"{self.name} gives, with these options,", found)
        return found

    def called(self, method: Method) -> "RunningSide":
        """The same, for another side of a search."""
        given = {k: v for k, v in self.options.items() if k not in ("task", "prompt", "prompt_name")}
        return RunningSide(self.encoder, spelled_out(self.encoder, method, given))

    def facts(self) -> SideFacts:
        """What it is."""
        encoder = self.encoder
        what = f"{encoder.precision} on {encoder.device}"
        return SideFacts(encoder.name, what, fingerprint_of_call(encoder, self.options), encoder.engine_fingerprint)


Side = StoredSide | RunningSide


def is_stored(given: object) -> TypeGuard[str | os.PathLike[str]]:
    """Whether it names a file of vectors, and no model."""
    return isinstance(given, str | os.PathLike) and Path(given).suffix.lower() in FORMATS and not Path(given).is_dir()


@contextmanager
def opened(given: Given, method: Method, options: Mapping[str, Any]) -> Iterator[Side]:
    """A side; an encoder that is opened here is closed afterwards.

    Raises:
        InputError: neither a path, a name nor an encoder; a file whose vectors are no floats.
        Whatever `trivec.load` and `trivec.store.read` raise.
    """
    if is_encoder(given):
        yield RunningSide(given, spelled_out(given, method, options))
        return
    if is_stored(given):
        path = Path(given)
        stored = store.read(path)
        _check_floats(f"{path} holds", record_of(stored.vectors))
        yield StoredSide(str(path), stored)
        return
    if not isinstance(given, str | os.PathLike):
        raise InputError(
            f"expected a folder, a name, a file of vectors or an encoder, got {type(given).__name__} "
            f"{given!r:.60}. Type: trivec.load(folder_or_name)"
        )
    with closing(open_encoder(given)) as encoder:
        yield RunningSide(encoder, spelled_out(encoder, method, options))


def as_stored(side: RunningSide, stored: StoredSide, options: Mapping[str, Any]) -> RunningSide:
    """The encoder, called as a file was written, where one of the usual calls has the file's fingerprint.

    Usual is `encode`, `encode_query` or `encode_document`, normalized or not, cut to the file's width or not, vectors
    of tokens in the file's number type. Where none has it, as with a file of another model: `options`, cut to that
    width, normalized where the file's vectors are.
    """
    encoder, dense, tokens = side.encoder, stored.vectors.dense, stored.vectors.colbert
    width = None if dense is None else int(dense.shape[1])
    kept = {}
    if encoder.heads == ("colbert",) and isinstance(tokens, MultiVectors):
        width, kept = tokens.dim, {"precision": tokens.precision}
    cut: dict[str, Any] = {**kept, **({} if width is None or width >= encoder.dim else {"truncate_dim": width})}
    known = encoder.encode_options()
    for method, more in product(METHODS.values(), ({}, {"normalize_embeddings": True})):
        extra = {name: value for name, value in {**cut, **more}.items() if name in known}
        try:
            called = spelled_out(encoder, method, {**options, **extra})
            if fingerprint_of_call(encoder, called) == stored.stored.fingerprint:
                return RunningSide(encoder, called)
        except InputError:  # a model without that route
            continue
    more = {"normalize_embeddings": True} if dense is not None and _is_normalized(dense) else {}
    called = {**more, **side.options, **cut}
    return RunningSide(encoder, {k: v for k, v in called.items() if k in side.options or k in known})


def check_model(side: Side, other: Side) -> None:
    """Warn where a file is of a hosted model that has changed under its name: one request asks what it gives now."""
    if isinstance(side, StoredSide) and side.stored.probe and side.facts().fingerprint == other.facts().fingerprint:
        here = other.stored.probe if isinstance(other, StoredSide) else probe_of(other.encoder)
        check_probe(side.name, side.stored.probe, here)


def _check_floats(what: str, vectors: HybridVectors) -> None:
    if vectors.dense is not None and vectors.dense.dtype.kind != "f":
        raise InputError(
            f"{what} {vectors.dense.dtype} numbers, whose cosines say nothing of the texts. Compare floats: encode "
            "with --output-precision float32 (precision='float32')."
        )


def norms_of(dense: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Of each vector (N,) of an array (N, D), in blocks, so that little is in memory as float64."""
    blocks = range(0, len(dense), _BLOCK)
    return np.concatenate(
        [np.zeros(0), *(np.linalg.norm(dense[i : i + _BLOCK].astype(np.float64), axis=1) for i in blocks)]
    )


def _is_normalized(dense: npt.NDArray[Any]) -> bool:
    """Whether all vectors of an array (N, D) have the norm 1, but those of no token, which have 0."""
    norms = norms_of(dense)  # (N,)
    return bool(norms.any() and (np.abs(norms[norms > 0] - 1) < _UNIT).all())


def width_of(part: Any) -> int:  # noqa: ANN401 - an array, SparseVectors or MultiVectors
    """Numbers of a vector, or terms."""
    return int(part.shape[1]) if isinstance(part, np.ndarray) else int(part.dim)
