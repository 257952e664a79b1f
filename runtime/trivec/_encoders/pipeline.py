"""One route of a model, open: tokenizer, session, pooling and what follows, and the sparse and multi-vector heads."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from trivec._engine.mixed_feeds import POOLED, run_mixed
from trivec._engine.session import Session
from trivec._errors import InputError, ModelFormatError
from trivec._model.manifest import ROWS, Encoder, Multi, Pooling, Sparse, Step
from trivec._pooling.dense import apply_steps, pool_weights
from trivec._pooling.heads import Selection, finite_texts, pool_batch, term_weights, token_vectors
from trivec._tokens.batch import Batch
from trivec._tokens.plan import plan, plan_mixed
from trivec._tokens.tokenizer import TokenReader
from trivec._vectors.arrays import Floats, Rows
from trivec._vectors.heads import Heads
from trivec._vectors.multi import MultiVectors
from trivec._vectors.sparse import SparseVectors

Result = TypeVar("Result")
_ON_CUDA = 8  # times the tokens of a run on a CPU, whose caches want few: 16,384 at the default batch_size of 32
_LANE = 512  # tokens of a run beside others, at least, where its texts have so many


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

    def states(self, batch: Batch) -> list[Floats]:
        """Token embeddings (S, H) of each text."""
        if self.pooling is None:
            raise InputError(
                "this graph gives sentence embeddings only, so there are no token embeddings. Export the checkpoint "
                "with: trivec export"
            )
        if not len(batch.ids):
            return [np.zeros((0, self._output_width()), dtype=np.float32)] * len(batch)
        found = self._run(batch, {self.output: True})[self.output]  # (T, H)
        return np.split(found, batch.offsets[1:-1])

    def vectors(self, batch: Batch, prompt_length: int) -> Floats:
        """Vectors (B, D) of texts, all or none of which have tokens; a text without tokens pools to zeros."""
        if not len(batch.ids):
            return self.finish(np.zeros((len(batch), self._pooled_width()), dtype=np.float32))
        return self.finish(self._pooled(batch, {}, prompt_length)[0])

    def heads(
        self,
        batch: Batch,
        *,
        dense: bool = False,
        sparse: Selection | None = None,
        multi: bool = False,
        prompt_length: int = 0,
    ) -> Heads:
        """What is asked for of B texts in one run; all or none of them have tokens, and those without have no terms."""
        head, tokens = self.sparse, self.multi
        wanted: dict[str, bool] = {}
        if sparse is not None and head is not None and head.output:
            wanted[head.output] = head.kind == "lexical"
        if multi and tokens is not None:
            wanted[tokens.output] = True
        if not len(batch.ids):
            return self._of_nothing(len(batch), dense=dense, sparse=sparse is not None, multi=multi)
        vectors, rows, several = None, None, None
        finite = np.ones(len(batch), dtype=np.bool_)  # (B,)
        if dense:
            pooled, made = self._pooled(batch, wanted, prompt_length)
            vectors = self.finish(pooled)
            finite &= np.isfinite(vectors).all(1)
        else:
            made = self._run(batch, wanted) if wanted else {}
        if sparse is not None and head is not None:
            if head.output:
                finite &= finite_texts(made[head.output], batch.offsets if wanted[head.output] else None)
            rows = term_weights(head, batch, made.get(head.output), self.arrays.get(head.array), sparse)
        if multi and tokens is not None:
            several = token_vectors(tokens, batch, made[tokens.output])
            finite &= finite_texts(several.vectors, several.offsets)
        return Heads(vectors, rows, several, finite)

    def _of_nothing(self, count: int, *, dense: bool, sparse: bool, multi: bool) -> Heads:
        """What texts without tokens give."""
        empty = Batch.of_rows(np.zeros((count, 0), dtype=np.int64))
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
        if session is None:
            return ((rows, work(self, rows)) for rows in plan(lengths, budget, most))
        budget = session.budget.of(budget * _ON_CUDA if session.device.kind == "cuda" else budget)
        if session.lanes > 1:
            share = min(budget, int(lengths.sum())) // session.lanes  # tokens
            batches = plan(lengths, min(budget, max(_LANE, share)), most)
            if len(batches) >= session.lanes:
                results = session.side_by_side(lambda narrow, rows: work(replace(self, session=narrow), rows), batches)
                return zip(batches, results, strict=True)
        if session.layout == ROWS:
            batches = plan(lengths, budget, most)
        else:
            batches = plan_mixed(lengths, budget, most, session.layout, self.encoder.max_positions)
        if session.ahead > 1 and len(batches) > 1:
            return zip(batches, session.overlapped(lambda rows: work(self, rows), batches), strict=True)
        return ((rows, work(self, rows)) for rows in batches)

    def finish(self, pooled: Floats) -> Floats:
        """What follows pooling: (B, H * modes) to (B, D)."""
        return apply_steps(pooled, self.steps, self.arrays)

    def _pooled_width(self) -> int:
        return self._output_width() * (len(self.pooling.modes) if self.pooling else 1)

    def _output_width(self) -> int:
        width = None if self.session is None else self.session.outputs.get(self.output)
        if width is not None:
            return width
        one = Batch.of_rows(np.ones((1, 1), dtype=np.int64))
        return int(self._run(one, {self.output: self.pooling is not None})[self.output].shape[-1])

    def _pooled(self, batch: Batch, wanted: Mapping[str, bool], prompt_length: int) -> tuple[Floats, dict[str, Floats]]:
        """What dense vectors are finished from, (B, H * modes), and the other outputs that are wanted, in one run.

        A rows graph's token embeddings are pooled here. A graph for CUDA pools by itself where it can: what is copied
        back is a text's vector then, and not one for each of its tokens.
        """
        if self.pooling is None:
            made = self._run(batch, {self.output: False, **wanted})
            return made[self.output], made
        session, weights = self.session, None
        if session is not None and session.layout != ROWS and POOLED in session.outputs:
            weights = pool_weights(self.pooling, batch.lengths, prompt_length)
        if weights is not None:
            made = self._run(batch, {POOLED: False, **wanted}, weights)
            return made[POOLED], made
        made = self._run(batch, {self.output: True, **wanted})
        return pool_batch(made[self.output], batch, self.pooling, prompt_length), made

    def _run(self, batch: Batch, wanted: Mapping[str, bool], weights: Floats | None = None) -> dict[str, Floats]:
        """Outputs, and whether each has something for each token: (T, ...) then, else (B, ...)."""
        if self.session is None:
            raise InputError("this route runs no graph, so there are no token embeddings.")
        if self.session.layout != ROWS:
            return run_mixed(self.session, batch, wanted, weights, self.encoder.max_positions)
        made = self.session.run_all(batch.rows(), tuple(wanted))
        return {
            name: array.reshape(-1, *array.shape[2:]) if by_token else array
            for (name, by_token), array in zip(wanted.items(), made, strict=True)
        }


def check_arrays(steps: tuple[Step, ...], arrays: Mapping[str, Floats]) -> None:
    """Raise ModelFormatError if a step's arrays are not there."""
    for step in steps:
        needed = {"dense": ("weight",), "layer_norm": ("weight", "bias")}.get(step.kind, ())
        missing = [f"{step.arrays}.{name}" for name in needed if f"{step.arrays}.{name}" not in arrays]
        if missing:
            raise ModelFormatError(f"the arrays {', '.join(missing)} of a {step.kind} layer are missing.")
