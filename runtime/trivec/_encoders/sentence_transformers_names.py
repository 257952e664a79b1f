"""What callers of sentence-transformers know by other names, for all kinds of encoders alike."""

from collections.abc import Mapping
from functools import cached_property
from typing import Protocol, Self

from tokenizers import Tokenizer

from trivec._encoders.loaded_model import LoadedModel


class _Known(Protocol):
    """An encoder, by what names it."""

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...


class ModelCardData:
    """What sentence-transformers' evaluators and miners ask of a model's card. There is no card to write here."""

    def __init__(self, model: _Known) -> None:
        self._model = model

    @property
    def base_model(self) -> str:
        """The model's name and its fingerprint: by this `mine_hard_negatives(cache_folder=...)` tells models apart."""
        return f"{self._model.name} {self._model.fingerprint}"

    def set_evaluation_metrics(
        self, evaluator: object, metrics: Mapping[str, object], epoch: int = 0, step: int = 0
    ) -> None:
        """Nothing: an evaluator returns its metrics to whoever calls it."""


class SentenceTransformersNames(LoadedModel):
    """A LoadedModel with sentence-transformers' names for what it has, and for what is settled when it is loaded."""

    def get_max_seq_length(self) -> int | None:
        """`max_seq_length`."""
        return self.max_seq_length

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizers library's, to look at: a copy, made once, so that what is set on it changes no vector.

        `encoder.tokenize(texts)` gives the ids that the model reads.
        """
        return next(iter(self._open().values())).tokenizer.copy()

    @property
    def model_card_data(self: _Known) -> ModelCardData:
        """What evaluators of sentence-transformers write their metrics to."""
        return ModelCardData(self)

    def eval(self) -> Self:
        """Itself: there is no training."""
        return self

    def to(self, device: object) -> Self:
        """Itself.

        Raises:
            InputError: it runs on another device, which is chosen at `load`.
        """
        self._check_run(device, 1)
        return self
