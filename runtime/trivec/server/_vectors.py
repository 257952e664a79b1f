"""What the routes of every dialect have in common: texts of a request to vectors in the form that it asks for."""

import time
from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from trivec._errors import InputError
from trivec._pooling.sparse import top_active
from trivec._vectors.arrays import Floats, normalize
from trivec._vectors.quantize import check_ranges, quantize_vectors
from trivec._vectors.sparse import SparseVectors
from trivec.server._bodies import Texts
from trivec.server._errors import ApiError
from trivec.server._exchange import Exchange
from trivec.server._models import Ask, Model
from trivec.server._settings import Settings
from trivec.server._work import Answer, Work

_FOREIGN = (
    "These are token ids, and nothing says of which tokenizer: they look like ids of OpenAI's, which LangChain's "
    "OpenAIEmbeddings sends. Send texts: there, pass check_embedding_ctx_length=False. Where they are this model's own,"
    " start the server with --token-ids own."
)


async def answered(work: Work, exchange: Exchange, model: Model, ask: Ask) -> Answer:
    """`Work.represent`, with what it took told of the request."""
    facts = exchange.facts
    facts.model, facts.texts = model.name, len(ask.texts)
    facts.characters = 0 if ask.is_ids else sum(len(t) if isinstance(t, str) else sum(map(len, t)) for t in ask.texts)
    answer = await work.represent(model, ask, exchange.receive)
    facts.tokens, facts.truncated = answer.tokens, len(answer.cut)
    facts.tokenize_seconds, facts.queue_seconds = answer.tokenize_seconds, answer.queue_seconds
    facts.run_seconds = answer.run_seconds
    return answer


def texts_of(given: Texts, field: str, settings: Settings) -> tuple[Sequence[Any], bool]:
    """Texts of a request, or rows of token ids, and whether it is those.

    Raises:
        ApiError: nothing, too many, a mixture, or ids that nobody wants.
    """
    if isinstance(given, str):
        return [given], False
    if not given:
        raise ApiError("empty_input", f"{field} is empty. Send a text, or a list of texts.", param=field)
    kinds = {type(item) for item in given}
    if len(kinds) > 1:
        index = next(i for i, item in enumerate(given) if type(item) is not type(given[0]))
        raise ApiError(
            "bad_value",
            f"{field}.{index} is a {_called(given[index])}, and the first is a {_called(given[0])}. Send one kind.",
            param=f"{field}.{index}",
        )
    if kinds == {str}:
        check_count(len(given), field, settings)
        return given, False
    if settings.token_ids == "refuse":  # noqa: S105 - no password
        raise ApiError("foreign_token_ids", _FOREIGN, param=field)
    rows = cast("list[list[int]]", [given] if kinds == {int} else given)
    check_count(len(rows), field, settings)
    return rows, True


def check_count(count: int, field: str, settings: Settings) -> None:
    """ApiError where a request has no texts, or too many."""
    if not count:
        raise ApiError("empty_input", f"{field} is empty. Send at least one text.", param=field)
    if count > settings.max_texts:
        raise ApiError(
            "too_many_texts",
            f"{field} has {count} texts, and --max-texts is {settings.max_texts}. Send several requests.",
            param=field,
        )


def side_of(direction: str | None) -> Literal["left", "right"] | None:
    """Where texts are cut."""
    return None if direction is None else cast('Literal["left", "right"]', direction.lower())


def length_of(length: int | None) -> int | None:
    """Tokens of a text; None: as the model reads them."""
    if length is None or length == -1:
        return None
    if not 1 <= length < 1 << 31:
        raise ApiError(
            "bad_value",
            f"truncate_prompt_tokens must be above 0, or -1 for the model's own length; got {length}.",
            param="truncate_prompt_tokens",
        )
    return length


def dense_of(
    model: Model, ask: Ask, answer: Answer, *, unit: bool, dimensions: int | None, dtype: str = "float32"
) -> tuple[npt.NDArray[Any], str]:
    """Dense vectors (N, D), and the fingerprint of a call that gives them.

    Args:
        model: whose they are.
        ask: what it was asked.
        answer: what it gave.
        unit: whether they are to have length 1; what has it already is not divided again.
        dimensions: numbers that are kept; None: as many as `encode` gives.
        dtype: their number type.

    Raises:
        ApiError: dimensions or a number type that the model does not have.
    """
    vectors = cast("Floats", answer.vectors.dense)
    if not model.is_dense_only:
        _check_plain(model, vectors.shape[1], dimensions, dtype)
        return vectors, model.fingerprint(ask)
    full, width = vectors.shape[1], model.encoder.dim
    if dimensions is not None:
        if not 1 <= dimensions <= full:
            raise ApiError(
                "bad_value", f"dimensions must be between 1 and {full}, got {dimensions}.", param="dimensions"
            )
        width = dimensions
    again = unit and (not model.ends_normalized(ask.task) or (dimensions is not None and width < full))
    vectors = np.ascontiguousarray(vectors[:, :width])
    vectors = normalize(vectors) if again else vectors
    mark = model.fingerprint(ask, normalize_embeddings=again, truncate_dim=width, precision=dtype)
    if dtype == "float32":
        return vectors, mark
    ranges = model.encoder.output_ranges(task=ask.task, truncate_dim=width, normalize_embeddings=again)
    try:
        if dtype in ("int8", "uint8"):
            check_ranges(ranges, dtype)
        return quantize_vectors(vectors, dtype, ranges), mark
    except InputError as error:
        raise ApiError("bad_value", str(error), param="output_dtype") from None


def _check_plain(model: Model, dim: int, dimensions: int | None, dtype: str) -> None:
    """ApiError where a model whose vectors are neither cut nor of other types is asked for that."""
    if dtype == "float32" and dimensions in (None, dim):
        return
    param = "dimensions" if dtype == "float32" else "output_dtype"
    raise ApiError("bad_value", f"{model.name!r} has dense vectors of {dim} float numbers, and no others.", param=param)


def sparse_of(
    model: Model, ask: Ask, answer: Answer, *, threshold: float = 0.0, max_active_dims: int | None = None
) -> tuple[SparseVectors, str]:
    """Sparse rows, and the fingerprint of a call that gives them.

    Raises:
        ApiError: a threshold below 0, or fewer terms than one.
    """
    if threshold < 0:
        raise ApiError("bad_value", f"threshold must be at least 0, got {threshold}.", param="threshold")
    if max_active_dims is not None and max_active_dims < 1:
        raise ApiError("bad_value", f"max_active_dims must be above 0, got {max_active_dims}.", param="max_active_dims")
    rows = cast("SparseVectors", answer.vectors.sparse)
    most = model.encoder.max_active_dims if max_active_dims is None else max_active_dims
    if threshold > 0:
        rows = rows.above(threshold)
    if most is not None:
        rows = top_active(rows, most)
    return rows, model.fingerprint(ask, threshold=threshold, max_active_dims=max_active_dims)


def usage(answer: Answer) -> dict[str, Any]:
    """Tokens as the model read them, and the texts that were cut."""
    found: dict[str, Any] = {"prompt_tokens": answer.tokens, "total_tokens": answer.tokens}
    if answer.cut:
        found["truncated"] = answer.cut
    return found


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())


def _called(item: object) -> str:
    return {str: "text", int: "number", list: "list"}.get(type(item), type(item).__name__)
