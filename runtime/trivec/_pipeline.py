"""One route of a model, open: tokenizer, session, pooling and what follows, and the sparse and multi-vector heads."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from trivec._errors import InputError, ModelFormatError
from trivec._manifest import Encoder, Multi, Pooling, Sparse, Step
from trivec._multi import MultiVectors
from trivec._plan import Rows, plan
from trivec._pool import Floats, apply_steps, normalize, pool
from trivec._select import lexical_rows, sparse_rows, table_rows, top_active
from trivec._session import Session
from trivec._sparse import SparseVectors
from trivec._tokenize import TokenReader

Result = TypeVar("Result")
_LANE = 512  # tokens of a run beside others, at least, where its texts have so many


class Selection(NamedTuple):
    """Which terms of a sparse row are kept."""

    threshold: float = 0.0
    """Weights must be above it."""
    max_active_dims: int | None = None
    """The heaviest so many; None: all."""


class Heads(NamedTuple):
    """What one run gives of B texts; None where it was not asked for."""

    dense: Floats | None
    """(B, D)."""
    sparse: SparseVectors | None
    multi: MultiVectors | None
    finite: npt.NDArray[np.bool_]
    """(B,) whether everything of a text is finite."""


@dataclass(frozen=True)
class Pipeline:
    """From token ids to vectors."""

    encoder: Encoder
    tokenizer: TokenReader
    session: Session | None
    """None for a route that needs no graph: a table of weights."""
    output: str
    pooling: Pooling | None
    steps: tuple[Step, ...]
    arrays: Mapping[str, Floats]
    sparse: Sparse | None = None
    multi: Multi | None = None

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return int(self.finish(np.zeros((1, self._pooled_width()), dtype=np.float32)).shape[1])

    def unnormalized(self) -> "Pipeline":
        """The same without the last step that gives dense vectors, and those of tokens, length 1."""
        steps = self.steps[:-1] if self.steps and self.steps[-1].kind == "normalize" else self.steps
        return replace(self, steps=steps, multi=self.multi and replace(self.multi, normalize=False))

    def prompt_length(self, prompt: str) -> int:
        """Tokens of a prompt that pooling leaves out; not counted where it leaves none out."""
        if self.pooling is None or self.pooling.include_prompt:
            return 0
        return self.tokenizer.prompt_length(prompt)

    def states(self, ids: npt.NDArray[np.int64]) -> Floats:
        """Token embeddings (B, S, H) of rows of one length (B, S)."""
        if self.pooling is None:
            raise InputError(
                "this graph gives sentence embeddings only, so there are no token embeddings. Export the checkpoint "
                "with: trivec export"
            )
        if ids.shape[1] == 0:
            return np.zeros((*ids.shape, self._output_width()), dtype=np.float32)
        return self._run(ids, self.output)[0]

    def vectors(self, ids: npt.NDArray[np.int64], prompt_length: int) -> Floats:
        """Vectors (B, D) of rows of one length (B, S); a row without tokens pools to zeros."""
        if ids.shape[1] == 0:
            return self.finish(np.zeros((len(ids), self._pooled_width()), dtype=np.float32))
        output = self._run(ids, self.output)[0]
        return self.finish(output if self.pooling is None else pool(output, self.pooling, prompt_length))

    def heads(
        self,
        ids: npt.NDArray[np.int64],
        *,
        dense: bool = False,
        sparse: Selection | None = None,
        multi: bool = False,
        prompt_length: int = 0,
    ) -> Heads:
        """What is asked for of rows of one length (B, S), in one run; a row without tokens has no terms and vectors."""
        head, tokens = self.sparse, self.multi
        wanted = [self.output] if dense else []
        wanted += [head.output] if sparse is not None and head is not None and head.output else []
        wanted += [tokens.output] if multi and tokens is not None else []
        if ids.shape[1] == 0:
            return self._of_nothing(len(ids), dense=dense, sparse=sparse is not None, multi=multi)
        made = dict(zip(wanted, self._run(ids, *wanted), strict=True)) if wanted else {}
        finite = np.ones(len(ids), dtype=np.bool_)  # (B,)
        vectors, rows, several = None, None, None
        if dense:
            states = made[self.output]
            vectors = self.finish(states if self.pooling is None else pool(states, self.pooling, prompt_length))
            finite &= np.isfinite(vectors).all(1)
        if sparse is not None and head is not None:
            if head.output:
                finite &= np.isfinite(made[head.output].max(1))  # numpy's maximum of a row with a NaN is NaN
            rows = _sparse(head, ids, made.get(head.output), self.arrays.get(head.array), sparse)
        if multi and tokens is not None:
            kept = made[tokens.output][:, tokens.skip :]  # (B, S', D)
            flat = kept.reshape(-1, tokens.dim)  # (B * S', D)
            finite &= np.isfinite(kept).all((1, 2))
            offsets = np.arange(len(ids) + 1, dtype=np.int64) * kept.shape[1]
            several = MultiVectors._trusted(normalize(flat) if tokens.normalize else flat, offsets)
        return Heads(vectors, rows, several, finite)

    def _of_nothing(self, count: int, *, dense: bool, sparse: bool, multi: bool) -> Heads:
        """What rows without tokens give."""
        empty = np.zeros((count, 0), dtype=np.int64)
        return Heads(
            self.vectors(empty, 0) if dense else None,
            SparseVectors.empty(count, self.sparse.dim) if sparse and self.sparse else None,
            MultiVectors.empty(count, self.multi.dim) if multi and self.multi else None,
            np.ones(count, dtype=np.bool_),
        )

    def each(
        self,
        work: Callable[["Pipeline", Rows], Result],
        lengths: npt.NDArray[np.int64],
        budget: int,
        most: int | None = None,
    ) -> Iterator[tuple[Rows, Result]]:
        """`work(pipeline, rows)` of each batch of texts of these lengths (N,), longest texts first.

        Args:
            work: one run, and what follows it.
            lengths: tokens of each text.
            budget: tokens of all runs that are under way.
            most: rows of a run; None: any number.
        """
        session = self.session
        if session is not None and session.lanes > 1:
            share = min(budget, int(lengths.sum())) // session.lanes  # tokens
            batches = plan(lengths, min(budget, max(_LANE, share)), most)
            if len(batches) >= session.lanes:
                results = session.side_by_side(lambda narrow, rows: work(replace(self, session=narrow), rows), batches)
                return zip(batches, results, strict=True)
        return ((rows, work(self, rows)) for rows in plan(lengths, budget, most))

    def finish(self, pooled: Floats) -> Floats:
        """What follows pooling: (B, H * modes) to (B, D)."""
        return apply_steps(pooled, self.steps, self.arrays)

    def _pooled_width(self) -> int:
        return self._output_width() * (len(self.pooling.modes) if self.pooling else 1)

    def _output_width(self) -> int:
        width = None if self.session is None else self.session.outputs.get(self.output)
        return self._run(np.ones((1, 1), dtype=np.int64), self.output)[0].shape[-1] if width is None else width

    def _run(self, ids: npt.NDArray[np.int64], *outputs: str) -> list[Floats]:
        if self.session is None:
            raise InputError("this route runs no graph, so there are no token embeddings.")
        return self.session.run_all(ids, outputs)


def _sparse(
    head: Sparse, ids: npt.NDArray[np.int64], made: Floats | None, table: Floats | None, select: Selection
) -> SparseVectors:
    """Weights of terms for rows of ids (B, S), from what the graph made (B, V) or (B, S), or from a table (V,)."""
    if head.kind == "splade" and made is not None:
        return sparse_rows(made, head.activation, select.threshold, select.max_active_dims)
    if head.kind == "lexical" and made is not None:
        rows = lexical_rows(ids, made, head.dim, frozenset(head.dropped_ids))
    elif table is not None:
        rows = table_rows(ids.ravel(), np.arange(len(ids) + 1, dtype=np.int64) * ids.shape[1], table)
    else:
        raise ModelFormatError(f"the array {head.array!r} of a sparse head is missing.")
    if select.threshold > 0:
        rows = rows.above(select.threshold)
    return rows if select.max_active_dims is None else top_active(rows, select.max_active_dims)


def check_arrays(steps: tuple[Step, ...], arrays: Mapping[str, Floats]) -> None:
    """Raise ModelFormatError if a step's arrays are not there."""
    for step in steps:
        needed = {"dense": ("weight",), "layer_norm": ("weight", "bias")}.get(step.kind, ())
        missing = [f"{step.arrays}.{name}" for name in needed if f"{step.arrays}.{name}" not in arrays]
        if missing:
            raise ModelFormatError(f"the arrays {', '.join(missing)} of a {step.kind} layer are missing.")
