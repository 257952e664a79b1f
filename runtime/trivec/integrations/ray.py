"""A callable class for `ray.data.Dataset.map_batches`: one encoder in each actor of a pool, on any number of machines.

    import ray
    from trivec.integrations.ray import Encode

    (
        ray.data.read_parquet("documents/")
        .map_batches(
            Encode,
            fn_constructor_args=("minilm",),  # a folder that every machine has, or a name on the Hub
            fn_constructor_kwargs={"column": "text", "precision": "int8"},
            compute=ray.data.ActorPoolStrategy(size=4),
            num_cpus=2,  # cores of an actor, and so the threads of its encoder
            batch_size=1024,
        )
        .write_parquet("vectors/")
    )

Nothing here imports Ray: the class is plain Python, and can be called and tested without it.
"""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from trivec._encoders.named_call import METHODS, Method
from trivec._errors import InputError, MissingExtraError
from trivec._loading.load_keywords import Precision
from trivec._open import is_hosted, open_encoder
from trivec._system.threads import default_threads
from trivec._vectors.heads import HybridVectors
from trivec._vectors.multi import MultiVectors
from trivec._vectors.sparse import SparseVectors

Batch = dict[str, Any]
"""Columns of N rows: numpy arrays, or what Ray takes as such."""


class Encode:
    """Adds vectors to batches of a dataset; other columns stay as they are.

    What a batch of N rows gets, with output="embedding":

        dense models    embedding: (N, D) float32, or the number type of `precision` among encode_options
        sparse models   embedding_indices: lists of int32 term ids, ascending; embedding_values: lists of float32
        hybrid models   all of these; with {"return_colbert_vecs": True} also embedding_colbert: lists of D float32

    Lists are Arrow's own, so that every reader of Parquet knows them.
    """

    def __init__(
        self,
        model: str,
        *,
        column: str = "text",
        output: str = "embedding",
        method: Method = "encode",
        device: str = "auto",
        precision: Precision = "auto",
        threads: int | None = None,
        load_options: Mapping[str, Any] | None = None,
        encode_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Open the model; Ray does this once in each actor.

        Args:
            model: a folder, which every machine must have, a name on the Hub, or "provider:model" of a hosted one, for
                which the actors have the key in their environment.
            column: where the texts are.
            output: the column of the vectors, and what the names of several begin with.
            method: "encode", "encode_query" or "encode_document".
            device: as of `trivec.load`. Give the actors `num_gpus=` as well, or Ray hides the GPUs from them.
            precision: the variant, as of `trivec.load`.
            threads: CPU threads. None: the CPUs that Ray has given the actor (`num_cpus=` of map_batches, rounded down,
                at least 1), and no more than the machine lets it use; outside Ray as of `trivec.load`.
            load_options: further arguments of `trivec.load`, or of `trivec.hosted.open`.
            encode_options: arguments of the method, such as {"normalize_embeddings": True}.

        Raises:
            InputError: the method is unknown, or the options hold what has a name of its own here.
            Whatever `trivec.load` raises.
        """
        if method not in METHODS.values():
            raise InputError(f"method {method!r} is not one of {', '.join(METHODS.values())}.")
        if twice := sorted({"device", "precision", "threads"} & set(load_options or {})):
            raise InputError(f"{', '.join(twice)} among load_options: Encode has arguments of that name.")
        self._column, self._output = column, output
        self._options = dict(encode_options or {})
        self._threads = assigned_threads() if threads is None and not is_hosted(model) else threads
        given = {"device": device, "precision": precision, "threads": self._threads}
        self._encoder = open_encoder(model, **given, **(load_options or {}))
        self._encode = getattr(self._encoder, method)

    def __call__(self, batch: Batch) -> Batch:
        """The batch with the vectors of its texts.

        Raises:
            InputError: there is no such column, or a row of it is no text; the row is named by its other columns.
            TruncationError, NonFiniteError, ProviderError: as of the encoder.
        """
        if self._column not in batch:
            raise InputError(
                f"the dataset has no column {self._column!r}; it has {', '.join(map(repr, batch)) or 'none'}. "
                'Name the column of the texts: fn_constructor_kwargs={"column": ...}'
            )
        texts = np.asarray(batch[self._column], dtype=object).tolist()
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(_no_text(batch, self._column, row, text))
        return {**batch, **columns(self._encode(texts, **self._options), self._output)}

    def __repr__(self) -> str:
        return f"Encode({self._encoder!r}, column={self._column!r}, output={self._output!r}, threads={self._threads})"


def columns(vectors: Any, output: str) -> Batch:  # noqa: ANN401 - the encoder decides
    """Vectors of N texts as columns of N rows.

    Args:
        vectors: (N, D) array, SparseVectors, MultiVectors or HybridVectors.
        output: the name of the dense column, and what the others begin with.

    Returns:
        As `Encode` describes them: a numpy array, and Arrow's ListArrays.

    Raises:
        InputError: vectors of another kind, such as tensors, which no column holds.
        MissingExtraError: lists are needed, and pyarrow, which `ray[data]` brings, is not installed.
    """
    if isinstance(vectors, np.ndarray):
        return {output: vectors}
    if isinstance(vectors, SparseVectors):
        return {
            f"{output}_indices": _lists(vectors.indptr, vectors.indices),
            f"{output}_values": _lists(vectors.indptr, vectors.values),
        }
    if isinstance(vectors, MultiVectors):
        return {f"{output}_colbert": _lists(vectors.offsets, vectors.vectors)}
    if isinstance(vectors, HybridVectors):
        parts = (part for part in (vectors.dense, vectors.sparse, vectors.colbert) if part is not None)
        return {name: column for part in parts for name, column in columns(part, output).items()}
    raise InputError(
        f"{type(vectors).__name__} does not go into a column: leave tensors and output_value out of encode_options."
    )


def assigned_threads() -> int | None:
    """Threads for the CPUs that Ray has given this actor or task; None outside Ray.

    Ray counts CPUs and binds nothing to them: without this, each of N actors on a machine would start as many threads
    as the machine has cores.
    """
    ray = sys.modules.get("ray")  # in an actor it is there; nobody else needs it imported
    if ray is None or not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    if context.get_actor_id() is None and context.get_task_id() is None:  # the driver, which Ray gives nothing
        return None
    cpus = context.get_assigned_resources().get("CPU", 0)
    return max(1, min(int(cpus), default_threads().count))


def _lists(offsets: npt.NDArray[np.int64], values: npt.NDArray[Any]) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Values (nnz,) or (T, D), end to end, as an Arrow array of N lists; offsets (N + 1,).

    Numpy's ragged rows would not do: Ray writes them as structs of data and shape.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise MissingExtraError('lists in a column need pyarrow. Type: pip install "ray[data]"') from error
    flat = pa.array(np.ascontiguousarray(values).ravel())
    items = flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return pa.ListArray.from_arrays(pa.array(offsets, type=pa.int32()), items)


def _no_text(batch: Batch, column: str, row: int, text: object) -> str:
    """What is wrong with a row, and how to find it in the dataset: a batch has no place of its own there."""
    others = {name: values[row] for name, values in batch.items() if name != column}
    known = f", where {', '.join(f'{name} is {str(value)[:40]!r}' for name, value in others.items())}" if others else ""
    hint = " Drop or fill such rows first: dataset.filter(...)." if text is None or text != text else ""
    return (
        f"expected a text in column {column!r}, got {type(text).__name__} {str(text)[:40]!r} in row {row} of the "
        f"batch{known}.{hint}"
    )
