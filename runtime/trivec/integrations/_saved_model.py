"""Adapters that a framework writes down as JSON and makes again: what is written, and that it gives the same vectors.

name_of             what opens a model again
check_fingerprint   that a model gives the vectors that were stored
SavedModel          what a class on a TextModel needs for both
"""

import json
import os
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

from trivec._encoders.calls import Side
from trivec._encoders.protocol import Encoder
from trivec._encoders.ranking import RankingModel
from trivec._errors import InputError
from trivec._open import is_hosted
from trivec._vectors.heads import Head
from trivec.integrations._adapter import ModelOptions, OfModel
from trivec.integrations._text_model import TextModel

_OF_THE_MACHINE = ("token", "cache_dir", "cache_folder", "local_files_only")
"""Arguments of `trivec.load` that are not written down: secrets, and what another machine has elsewhere."""


def name_of(model: object, opened: Encoder | RankingModel) -> str:
    """What to open again: the name as the user gave it, or the model's own; a hosted one's says its options."""
    if not isinstance(model, str | os.PathLike) or is_hosted(model):
        return opened.name
    found: str = os.fspath(model)
    return found


def without_machine(load: Mapping[str, Any] | None) -> dict[str, Any]:
    """Arguments of `trivec.load` that are written down as they were given."""
    return {name: value for name, value in (load or {}).items() if name not in _OF_THE_MACHINE}


def check_fingerprint(model: TextModel, expected: str | None, side: Side = "document") -> None:
    """Raise InputError where a model gives other vectors, of documents or of queries, than those of a fingerprint."""
    found = model.fingerprint(side) if expected is not None else None
    if found != expected:
        raise InputError(
            f"{model.encoder!r} gives other vectors than those that were stored: its fingerprint is {found}, and "
            f"{expected} was expected. Take the same model with the same settings, or leave out fingerprint and encode "
            "everything again."
        )


class SavedModel(OfModel):
    """A class of a framework that is made again from its `arguments()`. The model opens when it is first asked for."""

    _needs: ClassVar[Head] = "dense"
    _side: ClassVar[Side] = "document"
    _options: ModelOptions
    _expected: str | None

    def _keep(self, options: ModelOptions, fingerprint: str | None) -> None:
        """Remember what it was made with; an open encoder of the wrong kind raises at once."""
        self._options, self._expected = options, fingerprint
        if not isinstance(options.model, str | os.PathLike):
            self._model  # noqa: B018 - opens

    @cached_property
    def _model(self) -> TextModel:  # type: ignore[override]
        """The model, opened; InputError where it has another fingerprint than the one that was written down."""
        model = self._options.open(self._needs)
        try:
            check_fingerprint(model, self._expected, self._side)
        except InputError:
            if model.encoder is not self._options.model:
                model.encoder.close()
            raise
        return model

    def arguments(self) -> dict[str, Any]:
        """What makes it again, for JSON: nothing of the machine (device, threads), no token; the fingerprint once open.

        Raises:
            InputError: an option that JSON does not know.
        """
        made, opened = self._options, vars(self).get("_model")
        load = without_machine(made.load)
        found = {
            "model": os.fspath(made.model) if isinstance(made.model, os.PathLike) else made.model,
            "precision": made.precision,
            "on_overflow": made.on_overflow,
            "load_options": load,
            "encode_options": dict(made.document or {}),
            "query_options": dict(made.query or {}),
            "fingerprint": self._expected,
        }
        if opened is not None:
            encoder = opened.encoder
            exports = {"export": True} if load.get("export") else {}
            found |= {
                "model": name_of(made.model, encoder),
                "precision": encoder.precision,
                "load_options": {**encoder.load_arguments(), **exports},
                "fingerprint": opened.fingerprint(self._side),
            }
        found = {name: value for name, value in found.items() if value not in (None, {})}
        try:
            json.dumps(found)
        except TypeError as error:
            raise InputError(
                f"the options are written down as JSON, and {error}. Give numbers, texts, lists and dicts; got "
                f"{found!r:.200}"
            ) from error
        return found
