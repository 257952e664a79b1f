"""What everything that `trivec.load` returns has: routes, settings, a device, processes, and a pickle."""

import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np

from trivec._encoders.load_options import LoadOptions
from trivec._encoders.pipeline import Pipeline
from trivec._engine.engine_name import numpy_name
from trivec._errors import InputError
from trivec._model.manifest import Manifest
from trivec._system.forks import afresh_in_children

if TYPE_CHECKING:
    from trivec._concurrency.pool import WorkerPool


class LoadedModel:
    """An open model; safe to use from many threads.

    Attributes:
        manifest: what the model folder says of itself.
    """

    def __init__(self, manifest: Manifest, pipelines: Mapping[str, Pipeline], options: LoadOptions) -> None:
        self.manifest = manifest
        self._options = options
        self._pipelines: Mapping[str, Pipeline] | None = pipelines
        self._truncated = 0
        self.start_afresh()
        afresh_in_children(self)

    def start_afresh(self) -> None:
        """In a forked child: nobody holds the lock."""
        self._lock = threading.Lock()

    # ---- what it is ----------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The model's folder, or its name on the Hub."""
        return self._options.name

    @property
    def opened_for(self) -> str | None:
        """The one task that it was loaded for ("query", "document"); None: all that it has."""
        return self._options.task

    @property
    def device(self) -> str:
        """Where the graph really runs: "cpu", "cuda:0"."""
        return next((str(p.session.device) for p in self._open().values() if p.session is not None), "cpu")

    @property
    def precision(self) -> str:
        """The variant that runs: "fp32", "bf16", "fp16" or "int8"."""
        return self._options.precision

    @property
    def engine(self) -> str:
        """What runs the graph: "onnxruntime" or "openvino"; "numpy" where there is none."""
        names = {p.session.name.lower() for p in self._open().values() if p.session is not None}
        return next(iter(names), "numpy")

    @property
    def engine_fingerprint(self) -> str:
        """What computes here, in words: onnxruntime's version, provider, layout, numpy's version, kind of processor.

        Where this and `fingerprint` are equal, vectors are equal to the bit. Where `fingerprint` alone is, they are
        equal within what `trivec verify` tells. Static models, and tables of term weights, have numpy alone.
        """
        pipelines = self._open().values()
        names = {numpy_name() if p.session is None else p.session.engine for p in pipelines}
        return "; ".join(sorted(names))

    @property
    def max_seq_length(self) -> int | None:
        """Tokens a text is cut to; None: never cut. Can be set, up to the positions that the model has."""
        lengths = [p.tokenizer.max_seq_length for p in self._open().values()]
        return min((n for n in lengths if n is not None), default=None)

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        self._check_length(value)
        for pipeline in self._open().values():
            pipeline.tokenizer.max_seq_length = value

    @property
    def truncated(self) -> int:
        """Texts that this encoder has cut at max_seq_length so far."""
        return self._truncated

    @property
    def routes(self) -> Mapping[str, Pipeline]:
        """The open pipelines, by the names that the manifest gives them."""
        return self._open()

    def load_arguments(self) -> dict[str, Any]:
        """The arguments of `trivec.load` that were given and decide vectors: to open the model again.

        The revision is the commit that was opened. Nothing of the machine (device, threads, cache_dir) is among them,
        and no token; `precision` is a property of its own.
        """
        limits = ("truncate_dim", "max_active_dims")
        names = (
            "revision",
            "prompts",
            "default_prompt_name",
            *limits,
            "similarity_fn_name",
            "task",
            "file_name",
            "pooling",
            "expect",
        )
        found = {name: getattr(self._options, name) for name in names}
        found["engine"] = None if self._options.engine == "auto" else self._options.engine
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in found.items() if value}

    def route(self, task: str | None = None) -> Pipeline:
        """The pipeline that reads a task ("query", "document"); None: the model's own choice.

        Raises:
            InputError: the model has no such route, or is closed.
        """
        return self._open()[self._route(task)]

    # ---- its end, and its copies ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Free the graph's memory, and close its files. Encoding afterwards raises."""
        self._pipelines = None
        self._options = replace(self._options, files=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        lengths = {name: pipeline.tokenizer.max_seq_length for name, pipeline in self._open().items()}
        return self._options.reopen, (self._options.portable(), self._state(), lengths)

    def restore(self, lengths: Mapping[str, int | None]) -> None:
        """Set max_seq_length route by route, as unpickling needs it: routes may differ, and be None."""
        for name, pipeline in self._open().items():
            pipeline.tokenizer.max_seq_length = lengths[name]

    # ---- several processes ---------------------------------------------------------------------------------------

    def start_multi_process_pool(self, target_devices: Sequence[str] | None = None) -> "WorkerPool":
        """Start processes that each open this encoder again, for `encode(pool=...)`; stops them as a context manager.

        Args:
            target_devices: a process for each: "cpu", "cuda:0", ... The "cpu" ones share out the cores that this
                process may use. None: every CUDA device where the encoder runs on CUDA, else up to four times "cpu".

        Raises:
            InputError: target_devices is no list of devices, or this process may start none.
            WorkerError: a worker died while it started.
        """
        from trivec._concurrency.pool import WorkerPool  # multiprocessing costs 20 ms

        return WorkerPool(self, target_devices)

    @staticmethod
    def stop_multi_process_pool(pool: "WorkerPool") -> None:
        """End the processes of a pool. The same as `pool.close()`."""
        pool.close()

    def _workers(self, stack: ExitStack, pool: object, devices: object) -> "WorkerPool":
        """The pool, if it is this encoder's, or one on these devices, which ends with the stack."""
        from trivec._concurrency.pool import WorkerPool

        if pool is None:
            return stack.enter_context(WorkerPool(self, cast("Sequence[str]", devices)))
        if not isinstance(pool, WorkerPool):
            raise InputError(
                f"pool must come from start_multi_process_pool(), got {type(pool).__name__}. Where it is "
                "sentence-transformers' own, start one from this encoder."
            )
        pool.check(self)
        return pool

    # ---- helpers -------------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        """The settings that a pickle has to carry: names are those of `load`'s arguments, or of `restore`'s."""
        return {}

    def _open(self) -> Mapping[str, Pipeline]:
        if self._pipelines is None:
            raise InputError(f"this encoder is closed. Load it again: trivec.load({self._options.name!r})")
        return self._pipelines

    def _route(self, task: str | None) -> str:
        routes = self._open()
        if list(routes) == ["default"]:  # a model without a Router reads every task alike
            return "default"
        if self._options.task is not None and len(routes) == 1 and task in (None, self._options.task):
            return next(iter(routes))
        route = self.manifest.default_route if task is None else task
        if route is None or route not in routes:
            raise InputError(f"task {task!r} is no route of this model. Expected one of {sorted(routes)}.")
        return route

    def _check_run(self, device: object, batch_size: int) -> None:
        if device is not None and device != [] and str(device) not in (self.device, self.device.partition(":")[0]):
            raise InputError(
                f"this encoder runs on {self.device}, not {str(device)!r}. "
                f"Type: trivec.load(..., device={str(device)!r})"
            )
        if not isinstance(batch_size, int | np.integer) or batch_size < 1:
            raise InputError(f"batch_size must be a positive integer, got {batch_size!r}.")

    def _check_length(self, value: int | None) -> None:
        """InputError where the model has fewer positions than texts are to keep tokens."""
        positions = (p.encoder.max_positions for p in self._open().values())
        limit = min((n for n in positions if n is not None), default=None)
        if limit is not None and (value is None or (isinstance(value, int) and value > limit)):
            raise InputError(f"max_seq_length can be at most {limit}, the positions of this model; got {value}.")

    def _add_truncated(self, count: int) -> None:
        with self._lock:
            self._truncated += count
