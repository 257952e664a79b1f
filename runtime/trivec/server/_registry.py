"""Models by the names that requests give: theirs, aliases, and either with a side of a search behind it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from trivec._encoders.calls import Side
from trivec._errors import InputError
from trivec.server._errors import ApiError
from trivec.server._models import Kind, Model


class Named(NamedTuple):
    """A model, and the side of a search that its name asks for."""

    model: Model
    side: Side | None


@dataclass
class Registry:
    """Models by their names."""

    models: Mapping[str, Model]
    aliases: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for alias, name in self.aliases.items():
            if name not in self.models:
                raise InputError(f"alias {alias!r}: there is no model {name!r}, only {', '.join(self.models)}.")
            if alias in self.models:
                raise InputError(f"alias {alias!r} is a model's name already.")
        for name in (*self.models, *self.aliases):
            if not name or name.endswith((":query", ":document")):
                raise InputError(f"a model cannot be called {name!r}: {name}:query is its side of a search.")

    def names(self) -> list[str]:
        """All of them, without sides."""
        return [*self.models, *self.aliases]

    def named(self, name: str) -> Named:
        """A model by its name, an alias, or either with ":query" or ":document" behind it.

        Raises:
            ApiError: there is none.
        """
        bare: str = name
        side: Side | None = None
        sides: tuple[Side, ...] = ("query", "document")
        for each in sides:
            if name.endswith(f":{each}"):
                bare, side = name.removesuffix(f":{each}"), each
        model = self.models.get(self.aliases.get(bare, bare))
        if model is None:
            raise ApiError(
                "model_not_found",
                f"The model {name[:100]!r} is not served here. Served are: {', '.join(self.names())}.",
                param="model",
            )
        return Named(model, side)

    def find(self, name: str | None, heads: Sequence[Kind], *, first: bool = False) -> Named:
        """The model of a request.

        Args:
            name: what the request says; None or "": the only one that has these heads.
            heads: what it has to have.
            first: without a name, of several take the first.

        Raises:
            ApiError: there is none, it has no such head, or a name is needed.
        """
        if name:
            found = self.named(name)
            _check_loaded(found.model)
            if not set(heads) <= set(found.model.heads):
                have = ", ".join(found.model.heads)
                raise ApiError(
                    "wrong_model_kind",
                    f"The model {found.model.name!r} has no {', '.join(heads)}: it has {have}.{_way(found.model)}",
                    param="model",
                )
            return found
        for model in self.models.values():
            _check_loaded(model)
        fitting = [model for model in self.models.values() if set(heads) <= set(model.heads)]
        if not fitting:
            have = "; ".join(f"{model.name} has {', '.join(model.heads)}" for model in self.models.values())
            way = _way(next(iter(self.models.values()))) if len(self.models) == 1 else ""
            raise ApiError("wrong_model_kind", f"No model here has {', '.join(heads)}: {have}.{way}")
        if len(fitting) > 1 and not first:
            names = ", ".join(model.name for model in fitting)
            raise ApiError("bad_value", f"Name a model, one of {names}.", param="model")
        return Named(fitting[0], None)


def _check_loaded(model: Model) -> None:
    if model.encoder is None:
        raise ApiError("loading", f"The model {model.name!r} is loading. Ask again.", retry_after=1)


def _way(model: Model) -> str:
    if model.heads == ("sparse",):
        return ' For its sparse vectors say "outputs": ["sparse"], or ask /embed_sparse.'
    if model.heads == ("score",):
        return " It scores pairs: ask /rerank, or /score."
    if model.heads == ("colbert",):
        return ' For its vectors of tokens say "outputs": ["colbert"], or ask /embed_all; for scores, /score.'
    return ""
