"""What the backends of BERTopic and KeyBERT have in common: a model behind `embed`, and no other in its place."""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from trivec._encoders.calls import Overflow
from trivec._encoders.protocol import is_encoder
from trivec._errors import InputError
from trivec.integrations._adapter import Model, ModelOptions, OfModel

Matrix = npt.NDArray[np.float32]
"""(N, D)"""


class Backend(OfModel):
    """Dense vectors by `embed`; safe to use from many threads, and pickles."""

    def __init__(
        self,
        model: Model,
        *,
        device: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
        on_overflow: Overflow | None = None,
        load_options: Mapping[str, Any] | None = None,
        encode_options: Mapping[str, Any] | None = None,
        query_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Open the model.

        Args:
            model: a folder written by `trivec export`, a name on the Hub, "provider:model" of a hosted one, or what
                `trivec.load` returns.
            device: as of `trivec.load`, as are precision and threads; None: its default.
            precision: the variant.
            threads: CPU threads.
            on_overflow: "error" raises for a text that is longer than the model reads; None cuts it, and counts it in
                `truncated`.
            load_options: further arguments of `trivec.load`, such as {"truncate_dim": 128}.
            encode_options: options of `encode_document`, and of `encode_query` as well.
            query_options: options of `encode_query` alone, which win over those.

        Raises:
            InputError: no model, one of another kind, or an argument that is unknown or out of range.
            Whatever `trivec.load` raises.
        """
        options = (load_options, encode_options, query_options)
        self._model = ModelOptions(model, device, precision, threads, on_overflow, *options).open()
        self.embedding_model, self.word_embedding_model = self.encoder, None  # as the frameworks name them

    def embed(self, documents: Any, verbose: bool = False) -> Matrix:  # noqa: ANN401 - lists and arrays of texts
        """(N, D) float32 of N texts; `verbose` shows how far it is.

        Raises:
            InputError: no list of texts; the index of what is no text is named, and nothing is encoded.
            TruncationError: a text is too long, with on_overflow="error".
            NonFiniteError: a vector is NaN or infinite; the text is named.
        """
        return self._model.documents(documents, bar=verbose).dense  # type: ignore[return-value]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._model.encoder!r})"


def refuse_encoders(places: Sequence[ModuleType], instead: str, module: str) -> None:
    """Have a framework's `select_backend` raise InputError for a bare encoder, which it would replace by another model.

    Args:
        places: the modules in which it is looked up.
        instead: what to type.
        module: where TrivecBackend is.
    """
    select: Callable[..., Any] = places[0].select_backend

    @wraps(select)
    def refusing(embedding_model: Any, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        if is_encoder(embedding_model):
            raise InputError(
                f"{embedding_model!r} is no backend, and another model would be fetched in its place. Type: {instead}, "
                f"with: from {module} import TrivecBackend"
            )
        return select(embedding_model, *arguments, **options)

    for place in places:
        place.select_backend = refusing  # type: ignore[attr-defined]
