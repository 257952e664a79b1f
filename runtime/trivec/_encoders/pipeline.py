"""One route of a model, open: tokenizer, session, pooling and what follows; sparse, multi-vector and score heads."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from trivec._engine.graph_session import GraphSession
from trivec._engine.mixed_feeds import POOLED, run_mixed
from trivec._engine.row_feeds import SEEN
from trivec._errors import InputError, ModelFormatError
from trivec._model.manifest import ROWS, EncoderSpec, Multi, Pooling, Score, Sparse, Step
from trivec._pooling.dense import apply_steps, pool_weights
from trivec._pooling.heads import Wanted, finite_texts, pool_batch, term_weights, token_vectors, vector_counts
from trivec._tokens.batch import Batch, Tokens
from trivec._tokens.plan import plan, plan_mixed
from trivec._tokens.tokenizer import TokenReader
from trivec._vectors.arrays import Floats, Rows
from trivec._vectors.heads import HybridVectors
from trivec._vectors.multi import MultiVectors
from trivec._vectors.sparse import SparseVectors

_DENSE = ""  # no output of a graph is called so
_ROW_NUMBERS = 1 << 23  # pooled logits that a run may return: 32 MB
_ON_CUDA = 16  # times the tokens of runs on a CPU: 16,384 at the default batch_size of 32
_LANE = 512  # tokens of a run beside others, at least, where its texts have so many


@dataclass(frozen=True)
class Pipeline:
    """From token ids to vectors."""

    encoder: EncoderSpec
    tokenizer: TokenReader
    session: GraphSession | None
    """None for a route that needs no graph: a table of weights."""
    output: str
    pooling: Pooling | None
    steps: tuple[Step, ...]
    arrays: Mapping[str, Floats]
    sparse: Sparse | None = None
    multi: Multi | None = None
    score: Score | None = None

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

    def represent(
        self, batch: Batch, wanted: Wanted, prompt_length: int = 0
    ) -> tuple[HybridVectors, npt.NDArray[np.bool_]]:
        """What is wanted of B texts in one run, and whether everything of a text is finite, (B,).

        All or none of the texts have tokens; those without have no terms, and pool to zeros. Logits of pairs (B, L)
        are `dense` in the record.
        """
        if wanted.score:
            return self._logits(batch)
        head, tokens = self.sparse if wanted.sparse is not None else None, self._tokens_head(wanted)
        if not len(batch.ids):
            return self._of_nothing(len(batch), wanted, tokens), np.ones(len(batch), dtype=np.bool_)
        made = self._outputs(batch, wanted.dense, head, tokens, prompt_length)
        dense, terms, several = None, None, None
        finite: list[npt.NDArray[np.bool_]] = []  # each (B,)
        if wanted.dense:
            dense = self.finish(made[_DENSE])[:, : wanted.width]
            finite.append(np.asarray(np.isfinite(dense).all(1)))
        if wanted.sparse is not None and head is not None:
            if head.output:
                finite.append(finite_texts(made[head.output], batch.offsets if head.kind == "lexical" else None))
            terms = term_weights(head, batch, made.get(head.output), self.arrays.get(head.array), wanted.sparse)
        if tokens is not None:
            several = token_vectors(tokens, batch, made[tokens.output], wanted.token_width)
            finite.append(finite_texts(several.vectors, several.offsets))
        if len(finite) == 1:
            return HybridVectors(dense, terms, several), finite[0]
        return HybridVectors(dense, terms, several), np.all([np.ones(len(batch), dtype=np.bool_), *finite], axis=0)

    def each(
        self, tokens: Tokens, wanted: Wanted, prompt_length: int, budget: int
    ) -> Iterator[tuple[Rows, tuple[HybridVectors, npt.NDArray[np.bool_]]]]:
        """`represent` of all texts in batches, longest texts first: which texts, and what was made of them.

        Args:
            tokens: the texts.
            wanted: of each of them.
            prompt_length: tokens of the prompt that pooling leaves out.
            budget: tokens of all runs that are under way.
        """
        session, lengths = self.session, tokens.lengths
        parts = tokens.second if session is not None and SEEN in session.inputs else None
        most = None  # rows of a run
        if wanted.sparse is not None and self.sparse is not None and self.sparse.kind == "splade":
            most = max(1, _ROW_NUMBERS // self.sparse.dim)
        run = partial(_represent_rows, tokens, wanted, prompt_length)
        if session is None:
            batches = plan(lengths, budget, most)
            return zip(batches, map(partial(run, self), batches), strict=True)
        budget = session.budget.of(budget * _ON_CUDA if session.device.kind == "cuda" else budget)
        if session.lanes > 1:
            share = min(budget, int(lengths.sum())) // session.lanes  # tokens
            batches = plan(lengths, min(budget, max(_LANE, share)), most, parts)
            if len(batches) >= session.lanes:
                results = session.side_by_side(lambda narrow, rows: run(replace(self, session=narrow), rows), batches)
                return zip(batches, results, strict=True)
        if session.layout == ROWS:
            batches = plan(lengths, budget, most, parts)
        else:
            batches = plan_mixed(lengths, budget, most, session.layout, self.encoder.max_positions)
        if session.ahead > 1 and len(batches) > 1:
            return zip(batches, session.overlapped(partial(run, self), batches), strict=True)
        return zip(batches, map(partial(run, self), batches), strict=True)

    def vector_counts(self, tokens: Tokens, wanted: Wanted) -> npt.NDArray[np.int64] | None:
        """(N,) how many vectors of tokens `each` makes of each text; None where none are wanted."""
        head = self._tokens_head(wanted)
        return None if head is None else vector_counts(head, tokens)

    def finish(self, pooled: Floats) -> Floats:
        """What follows pooling: (B, H * modes) to (B, D)."""
        return apply_steps(pooled, self.steps, self.arrays)

    def _logits(self, batch: Batch) -> tuple[HybridVectors, npt.NDArray[np.bool_]]:
        """What the graph makes of B pairs, (B, L), and whether all of a pair's is finite, (B,)."""
        session, head = self.session, self.score
        if session is None or head is None:
            raise InputError("this route scores no pairs.")
        logits = np.zeros((0, len(head.labels)), dtype=np.float32)
        if len(batch):
            (logits,) = session.run_all(batch.rows(), (head.output,), batch.second)  # (B, L)
        if logits.shape != (len(batch), len(head.labels)):
            raise ModelFormatError(
                f"the graph gives {head.output} of the shape {logits.shape} for {len(batch)} pairs; expected "
                f"{len(head.labels)} numbers for each. Export the model again: trivec export"
            )
        return HybridVectors(logits), np.asarray(np.isfinite(logits).all(1))

    def _tokens_head(self, wanted: Wanted) -> Multi | None:
        """How vectors of tokens are made, where they are wanted."""
        if not wanted.states:
            return self.multi if wanted.multi else None
        if self.pooling is None:
            raise InputError(
                "this graph gives sentence embeddings only, so there are no token embeddings. Export the checkpoint "
                "with: trivec export"
            )
        return Multi(self.output, self._output_width(), skip=0, normalize=False)

    def _of_nothing(self, count: int, wanted: Wanted, tokens: Multi | None) -> HybridVectors:
        """What texts without tokens give."""
        dense = None
        if wanted.dense:
            dense = self.finish(np.zeros((count, self._pooled_width()), dtype=np.float32))[:, : wanted.width]
        return HybridVectors(
            dense,
            SparseVectors.empty(count, self.sparse.dim) if wanted.sparse is not None and self.sparse else None,
            MultiVectors.empty(count, wanted.token_width or tokens.dim) if tokens is not None else None,
        )

    def _outputs(
        self, batch: Batch, dense: bool, sparse: Sparse | None, tokens: Multi | None, prompt_length: int
    ) -> dict[str, Floats]:
        """What the graph makes of B texts in one run, by name; `_DENSE` is what dense vectors are finished from.

        Outputs of tokens are (T, ...), of texts (B, ...), `_DENSE` is (B, H * modes). A rows graph's token embeddings
        are pooled here. A graph for CUDA pools by itself where it can: what is copied back is a text's vector then, and
        not one for each of its tokens.
        """
        session, pooled, weights = self.session, self.output, None
        wanted: dict[str, bool] = {}  # outputs, and whether they have something for each token
        rest: dict[str, tuple[int | None, ...]] = {}  # and the numbers of each token or text; None: any
        if dense:
            pooled, weights = self._pooled(batch, prompt_length)
            wanted[pooled], rest[pooled] = self.pooling is not None and weights is None, (None,)
        if sparse is not None and sparse.output:
            by_token = sparse.kind == "lexical"
            wanted[sparse.output], rest[sparse.output] = by_token, () if by_token else (sparse.dim,)
        if tokens is not None:
            wanted[tokens.output], rest[tokens.output] = True, (tokens.dim,)
        if not wanted:
            return {}
        if session is None:
            raise InputError("this route runs no graph, so there are no token embeddings.")
        if session.layout != ROWS:
            made = run_mixed(session, batch, wanted, weights, self.encoder.max_positions)
        else:
            ids = batch.rows()  # (B, S)
            more = () if batch.second is None else (batch.second,)
            arrays = session.run_all(ids, tuple(wanted), *more)
            made = {
                name: _by_row(name, array, ids, by_token)
                for (name, by_token), array in zip(wanted.items(), arrays, strict=True)
            }
        for name, array in made.items():
            _check_numbers(name, array, rest[name])
        if dense and wanted[pooled] and self.pooling is not None:
            made[_DENSE] = pool_batch(made[pooled], batch, self.pooling, prompt_length)
        elif dense:
            made[_DENSE] = made[pooled]
        return made

    def _pooled(self, batch: Batch, prompt_length: int) -> tuple[str, Floats | None]:
        """The output that dense vectors come from, and the weights (K, T) with which the graph itself pools it."""
        session = self.session
        if self.pooling is None or session is None or session.layout == ROWS or POOLED not in session.outputs:
            return self.output, None
        weights = pool_weights(self.pooling, batch.lengths, prompt_length)
        return (self.output, None) if weights is None else (POOLED, weights)

    def _pooled_width(self) -> int:
        return self._output_width() * (len(self.pooling.modes) if self.pooling else 1)

    def _output_width(self) -> int:
        width = None if self.session is None else self.session.outputs.get(self.output)
        if width is not None:
            return width
        if self.session is None:
            raise InputError("this route runs no graph, so there are no token embeddings.")
        one = np.ones((1, 1), dtype=np.int64)
        return int(self.session.run_all(one, (self.output,))[0].shape[-1])


def _by_row(name: str, array: Floats, ids: npt.NDArray[np.int64], by_token: bool) -> Floats:
    """An output of texts (B, S) with a row for each token (B * S, ...), or each text (B, ...)."""
    expected = ids.shape if by_token else ids.shape[:1]
    if array.shape[: len(expected)] != expected:
        raise ModelFormatError(
            f"the graph gives {name} of the shape {array.shape} for {ids.shape[0]} texts of {ids.shape[1]} tokens; "
            f"expected one row for each {'token' if by_token else 'text'}. Export the model again: trivec export"
        )
    return array.reshape(ids.size, *array.shape[2:]) if by_token else array


def _check_numbers(name: str, array: Floats, rest: tuple[int | None, ...]) -> None:
    """ModelFormatError where a token or text has other numbers than the manifest says: they would be read wrongly."""
    found = array.shape[1:]
    if len(found) != len(rest) or any(count not in (None, given) for count, given in zip(rest, found, strict=True)):
        expected = " x ".join("any number" if count is None else str(count) for count in rest) or "one number"
        raise ModelFormatError(
            f"the graph gives {name} of the shape {array.shape}; expected {expected} in each row. Export the model "
            "again: trivec export"
        )


def _represent_rows(
    tokens: Tokens, wanted: Wanted, prompt_length: int, pipeline: Pipeline, rows: Rows
) -> tuple[HybridVectors, npt.NDArray[np.bool_]]:
    return pipeline.represent(tokens.take(rows), wanted, prompt_length)


def check_arrays(steps: tuple[Step, ...], arrays: Mapping[str, Floats]) -> None:
    """Raise ModelFormatError if a step's arrays are not there."""
    for step in steps:
        needed = {"dense": ("weight",), "layer_norm": ("weight", "bias")}.get(step.kind, ())
        missing = [f"{step.arrays}.{name}" for name in needed if f"{step.arrays}.{name}" not in arrays]
        if missing:
            raise ModelFormatError(f"the arrays {', '.join(missing)} of a {step.kind} layer are missing.")
