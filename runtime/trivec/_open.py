"""A name to an encoder or a reranker: a local model's, or a hosted one's as "provider:model"."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trivec._encoders.protocol import Encoder
from trivec._encoders.ranking import RankingModel, is_ranking_model
from trivec._errors import InputError
from trivec._load import load

_HOSTED = re.compile(r"[a-z]{2,}:(?!//)")  # no drive of Windows, no address


def is_hosted(name: object) -> bool:
    """Whether a name is a hosted model's, such as "voyage:voyage-4", and no folder's."""
    return isinstance(name, str) and _HOSTED.match(name) is not None and not Path(name).exists()


def open_encoder(name: str | os.PathLike[str], **options: Any) -> Encoder:  # noqa: ANN401 - of `load`, or of `open`
    """What `trivec.load` or `trivec.hosted.open` makes of a name.

    Args:
        name: a folder, a name on the Hub, or "provider:model".
        options: of the one or the other. Those of `load` are left out for a hosted model where they ask for nothing.

    Raises:
        InputError: an option that a hosted model does not have. Whatever the two raise.
    """
    if not isinstance(name, str) or not is_hosted(name):
        encoder: Encoder = load(name, **options)
        return encoder
    from trivec import hosted

    known = hosted_options()
    said = _said(options, known)
    precision = said.pop("precision", None)
    _check_known(name, said, known)
    found = hosted.open(name, **said)
    if precision not in (None, found.precision):
        found.close()
        raise InputError(f"precision={precision!r}: variants are of local models; {name!r} gives {found.precision}.")
    return found


def open_reranker(name: str | os.PathLike[str], **options: Any) -> RankingModel:  # noqa: ANN401 - as `open_encoder`
    """What `trivec.load` or `trivec.hosted.open_reranker` makes of a name; arguments and errors as of `open_encoder`.

    Raises:
        InputError: a model that ranks no documents: neither a reranker nor one of late interaction.
    """
    if not isinstance(name, str) or not is_hosted(name):
        found = load(name, **options)
        if not is_ranking_model(found):
            found.close()
            raise InputError(
                f"{name} is a {type(found).__name__}, which ranks no documents. Expected a reranker (a cross-encoder), "
                "or a model of late interaction (ColBERT): name the folder of one."
            )
        return found
    from trivec import hosted

    known = hosted_reranker_options()
    said = _said(options, known)
    _check_known(name, said, known)
    return hosted.open_reranker(name, **said)


def _said(options: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    """The options that ask for something, or that a hosted model has."""
    return {o: v for o, v in options.items() if o in known or (v is not None and v is not False and v != "auto")}


def _check_known(name: str, said: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for option, value in said.items():
        if option not in known:
            shown = option if option == "token" else f"{option}={value!r}"
            raise InputError(f"{shown}: a hosted model runs at its service. Options of {name!r}: {', '.join(known)}.")


def hosted_reranker_options() -> tuple[str, ...]:
    """The options of `trivec.hosted.open_reranker`."""
    from trivec import hosted

    return tuple(hosted.open_reranker.__kwdefaults__ or ())


def hosted_options() -> tuple[str, ...]:
    """The options of `trivec.hosted.open`."""
    from trivec import hosted

    return tuple(hosted.open.__kwdefaults__ or ())
