"""What the adapters have in common: their model, from a name, a folder or an open encoder.

open_model      an encoder with the right heads
ModelOptions    what an adapter is made with, to a TextModel
OfModel         what a class on a TextModel says of it
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trivec._encoders.calls import Overflow
from trivec._encoders.protocol import Encoder, is_encoder
from trivec._errors import InputError, MissingExtraError
from trivec._load import load
from trivec._open import hosted_options, is_hosted, open_encoder
from trivec._vectors.heads import Head
from trivec.integrations._text_model import TextModel

Model = str | os.PathLike[str] | Encoder
"""What an adapter is made from: a folder, a name on the Hub, or an encoder that is open already."""
LOAD_ARGUMENTS = tuple(load.__kwdefaults__ or ())
_HEADS = {"dense": "dense vectors", "sparse": "weights of terms: a SPLADE model, or BGE-M3"}


def missing(package: str, install: str, error: ImportError) -> MissingExtraError:
    """The error for an adapter whose framework cannot be imported; `install` is what follows `pip install`."""
    why = f"{package} is not installed" if isinstance(error, ModuleNotFoundError) else f"{package} fails: {error}"
    return MissingExtraError(f"this adapter needs {package}; {why}. Type: pip install {install}")


def open_model(
    model: object,
    fits: Callable[[Encoder], bool],
    need: str,
    given: Mapping[str, Any],
    more: Mapping[str, Any] | None,
) -> Any:  # noqa: ANN401 - the kind that fits
    """An encoder, opened here unless it is open already.

    Args:
        model: a folder, a name on the Hub, or an encoder.
        fits: whether an encoder gives what is needed; by its `heads`.
        need: what is needed, such as "this adapter needs dense vectors".
        given: arguments of `trivec.load` that the adapter names itself; None is not said.
        more: further arguments of `trivec.load`, as the user wrote them.

    Raises:
        InputError: no model, one that does not fit, an unknown argument, one that is given twice, or arguments for a
            model that is open already.
        Whatever `trivec.load` raises.
    """
    taker, known = ("trivec.hosted.open", hosted_options()) if is_hosted(model) else ("trivec.load", LOAD_ARGUMENTS)
    options = merged(given, more, taker, known)
    if is_encoder(model):
        check_open_already(model, options)
        encoder = model
    elif isinstance(model, str | os.PathLike):
        encoder = open_encoder(model, **options)
    else:
        raise InputError(
            "expected a model's folder, its name on the Hub, provider:model of a hosted one, or what trivec.load or "
            f"trivec.hosted.open returns, got {type(model).__name__}."
        )
    if not fits(encoder):
        if encoder is not model:
            encoder.close()
        raise InputError(f"{encoder.name} is a {type(encoder).__name__}, and {need}.")
    return encoder


def merged(
    given: Mapping[str, Any], more: Mapping[str, Any] | None, taker: str, known: Sequence[str]
) -> dict[str, Any]:
    """The arguments with which a model is opened: `taker` takes those of `known`. The others as of `open_model`."""
    options = {name: value for name, value in given.items() if value is not None}
    for written, value in (more or {}).items():
        name = {"cache_folder": "cache_dir"}.get(written, written)
        if name == "trust_remote_code":  # accepted: no code of a model repository is ever run here
            continue
        if name not in known:
            raise InputError(f"{name}= is no argument of {taker}. Expected some of: {', '.join(known)}.")
        if name in options:
            raise InputError(f"{name} is given twice: {options[name]!r} and {value!r}.")
        options[name] = value
    return options


def check_open_already(model: object, options: Mapping[str, Any]) -> None:
    """Raise InputError for arguments of a model that is open."""
    if options:
        raise InputError(
            f"{', '.join(options)}: for models that are opened here, and {model!r} is open already. "
            "Give them to trivec.load."
        )


@dataclass(frozen=True)
class ModelOptions:
    """What an adapter is made with; frameworks have names of their own for some of it."""

    model: Model | None
    """A folder written by `trivec export`, a name on the Hub, "provider:model", or an open encoder."""
    device: str | None = None
    precision: str | None = None
    threads: int | None = None
    """These three as of `trivec.load`, whose default None is."""
    on_overflow: Overflow | None = None
    """As of `encode`, for documents and queries."""
    load: Mapping[str, Any] | None = None
    """Further arguments of `trivec.load`."""
    document: Mapping[str, Any] | None = None
    """Options of `encode_document`, and of `encode_query` as well."""
    query: Mapping[str, Any] | None = None
    """Options of `encode_query` alone, which win over those."""
    cache_dir: str | None = None
    """Under this name or another, an argument of some."""

    def encoder(self, fits: Callable[[Encoder], bool], need: str) -> Encoder:
        """The encoder, as `open_model` opens it."""
        given = {name: getattr(self, name) for name in ("device", "precision", "threads", "cache_dir")}
        encoder: Encoder = open_model(self.model, fits, need, given, self.load)
        return encoder

    def calls(self, encoder: Encoder, heads: Sequence[Head]) -> TextModel:
        """The encoder with the options of its calls, which are checked; raises as TextModel."""
        return TextModel(encoder, heads, self.document, self.query, self.on_overflow)

    def open(self, needs: Head = "dense", elsewhere: str = "") -> TextModel:
        """A model that is asked for one kind of vectors; `elsewhere` says what takes models without them.

        Raises:
            InputError, and whatever `trivec.load` raises: as `open_model` and TextModel.
        """
        need = f"this adapter needs {_HEADS[needs]}" + (f". {elsewhere}" if elsewhere else "")
        return self.calls(self.encoder(lambda e: needs in e.heads, need), (needs,))


class OfModel:
    """What a framework's class with a TextModel says of it."""

    _model: TextModel

    @property
    def encoder(self) -> Encoder:
        """The encoder; `encoder.close()` frees its memory."""
        return self._model.encoder

    @property
    def fingerprint(self) -> str:
        """sha256 of everything that decides the vectors of documents, such as for the namespace of a cache of those."""
        return self._model.fingerprint("document")

    @property
    def query_fingerprint(self) -> str:
        """sha256 of everything that decides the vectors of queries; where it differs, they need their own cache."""
        return self._model.fingerprint("query")

    @property
    def engine_fingerprint(self) -> str:
        """What computes vectors here: where it differs, those of one model differ slightly, see `trivec diff`."""
        return self._model.encoder.engine_fingerprint

    @property
    def truncated(self) -> int | None:
        """Texts that were longer than the model reads, so far; None of a hosted model, which does not say."""
        return self._model.encoder.truncated
