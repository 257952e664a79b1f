"""SPLADE and its inference-free kin: weights of vocabulary terms for each text."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

import numpy as np

from trivec._encoders.calls import TOKENS_PER_ROW, Overflow, check_finite, in_processes
from trivec._encoders.pipeline import Pipeline
from trivec._encoders.terms import TermsEncoder
from trivec._system.progress import progress_bar
from trivec._tokens.inputs import as_texts
from trivec._vectors.arrays import Floats, Rows
from trivec._vectors.heads import Heads
from trivec._vectors.similarity import similarity, similarity_pairwise
from trivec._vectors.sparse import SparseVector, SparseVectors
from trivec._vectors.torch_tensors import as_sparse_tensor, as_tensor

if TYPE_CHECKING:
    from trivec._concurrency.pool import WorkerPool

_ROW_NUMBERS = 1 << 23  # pooled numbers that a run may return: 32 MB
Sparse = SparseVectors | SparseVector


class SparseOptions(TypedDict, total=False):
    """Keyword options of `SparseEncoder.encode`, shared by the methods that end in it."""

    batch_size: int
    show_progress_bar: bool | None
    convert_to_tensor: bool
    convert_to_sparse_tensor: bool
    save_to_cpu: bool
    device: str | list[str] | None
    max_active_dims: int | None
    pool: "WorkerPool | None"
    chunk_size: int | None
    task: str | None
    threshold: float
    on_overflow: Overflow
    sentences: str | Iterable[str] | None


class PromptedSparseOptions(SparseOptions, total=False):
    """SparseOptions with the prompt, for methods that do not name it themselves."""

    prompt_name: str | None
    prompt: str | None


class SparseEncoder(TermsEncoder):
    """Weights of vocabulary terms for each text. Made by `trivec.load`; safe to use from many threads.

    Queries of an inference-free model come from a table of weights: no graph runs for them.

    Attributes:
        prompts: texts that are put before an input, by name ("query", "document", ...).
        default_prompt_name: the prompt of `encode` where a call names none.
        max_active_dims: terms that a row keeps at most, where a call does not say; None: all.
        similarity_fn_name: "dot" unless the model says another.
        manifest: what the model folder says of itself.
    """

    def encode(
        self,
        inputs: str | Iterable[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        convert_to_tensor: bool = False,
        convert_to_sparse_tensor: bool = True,
        save_to_cpu: bool = False,  # noqa: ARG002 - vectors are on the CPU in any case
        device: str | list[str] | None = None,
        max_active_dims: int | None = None,
        pool: "WorkerPool | None" = None,
        chunk_size: int | None = None,
        *,
        task: str | None = None,
        threshold: float = 0.0,
        on_overflow: Literal["truncate", "error"] = "truncate",
        sentences: str | Iterable[str] | None = None,
    ) -> Any:  # noqa: ANN401
        """Encode texts. Takes what `SparseEncoder.encode` of sentence-transformers 6.2 takes.

        Args:
            inputs: one text, or any iterable of texts. `sentences` is its older name.
            prompt_name: a key of `prompts`.
            prompt: a text to put before each input; wins over prompt_name.
            batch_size: work of one run: up to batch_size * 64 tokens, on CUDA batch_size * 512. Vectors do not depend
                on it beyond what kernels of other shapes round differently on CUDA.
            show_progress_bar: None shows one where the "trivec" logger is at INFO or DEBUG.
            convert_to_tensor: True gives a torch tensor; needs torch. (The default there, where torch is at hand.)
            convert_to_sparse_tensor: whether that tensor is sparse (COO).
            save_to_cpu: accepted; vectors are on the CPU in any case.
            device: the encoder's own, which `load` has chosen; or a list (["cuda:0", "cuda:1"], ["cpu", "cpu"]), for
                which processes are started for this call.
            max_active_dims: keep the heaviest so many terms of a row; of equal weights the lower term. None: the
                encoder's `max_active_dims`.
            pool: processes from `start_multi_process_pool`.
            chunk_size: texts that a process takes at a time; None: a tenth of its share, of at most 5,000.
            task: the route of a model with a Router ("query", "document").
            threshold: keep weights above it.
            on_overflow: "error" raises where a text is longer than max_seq_length instead of cutting it.
            sentences: older name of `inputs`.

        Returns:
            SparseVectors of N rows; a SparseVector for one text.

        Raises:
            InputError: something that is no text (its index is named), an unknown prompt or task, a max_active_dims
                below 1, a negative threshold. Nothing is encoded.
            TruncationError: a text is too long and on_overflow is "error".
            NonFiniteError: a weight is NaN or infinite; the text is named.
            WorkerError: a process of the pool died.
        """
        if in_processes(pool, device):
            options: dict[str, Any] = {
                "prompt_name": prompt_name,
                "prompt": prompt,
                "batch_size": batch_size,
                "task": task,
            }
            options |= {"max_active_dims": max_active_dims, "threshold": threshold, "on_overflow": on_overflow}
            texts, single = as_texts(inputs, sentences)
            made = [self.encode([], **options)]  # checks the options
            made += self._with_pool(texts, pool, device, chunk_size, show_progress_bar, options)
            return _converted(SparseVectors.concatenate(made), single, convert_to_tensor, convert_to_sparse_tensor)
        self._check_run(device, batch_size)
        select = self._selection(threshold, max_active_dims)
        route, prompt = self._route(task), self._prompt(prompt, prompt_name)
        pipeline = self._open()[route]
        ready, single = self._ready(inputs, sentences, route, prompt)
        self._count_truncated(ready, on_overflow)
        tokens, most = ready.tokens, max(1, _ROW_NUMBERS // self.dim)
        finite = np.ones(len(tokens.truncated), dtype=np.bool_)  # (U,)
        bar = progress_bar(len(finite), show_progress_bar)
        parts, order = [SparseVectors.empty(0, self.dim)], []

        def run(pipeline: Pipeline, rows: Rows) -> Heads:
            return pipeline.heads(tokens.take(rows), sparse=select)

        for rows, found in pipeline.each(run, tokens.lengths, batch_size * TOKENS_PER_ROW, most):
            finite[rows] = found.finite
            parts += [found.sparse] if found.sparse is not None else []
            order.append(rows)
            bar.update(len(rows))
        bar.close()
        check_finite(ready.spread(finite), ready.texts, self.precision)
        back = ready.spread(np.argsort(np.concatenate(order))) if order else None  # (N,)
        vectors = parts[0] if back is None else SparseVectors.concatenate(parts)[back]
        return _converted(vectors, single, convert_to_tensor, convert_to_sparse_tensor)

    def encode_query(
        self,
        inputs: str | Iterable[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        **options: Unpack[SparseOptions],
    ) -> Any:  # noqa: ANN401
        """`encode` with task "query" and, unless a prompt is given, the "query" prompt."""
        options.setdefault("task", "query")
        return self.encode(inputs, self._query_prompt(prompt, prompt_name), prompt, **options)

    def encode_document(
        self,
        inputs: str | Iterable[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        **options: Unpack[SparseOptions],
    ) -> Any:  # noqa: ANN401
        """`encode` with task "document" and, unless a prompt is given, the first of document, passage, corpus."""
        options.setdefault("task", "document")
        return self.encode(inputs, self._document_prompt(prompt, prompt_name), prompt, **options)

    encode_queries = encode_query
    encode_documents = encode_document

    def encode_iter(
        self, texts: Iterable[str], *, window: int = 1024, **options: Unpack[PromptedSparseOptions]
    ) -> Iterator[SparseVectors]:
        """Encode any number of texts in bounded memory: yields SparseVectors of up to `window` rows, in order."""
        return self._stream(self.encode, texts, window, options)

    async def aencode(self, inputs: str | Iterable[str], **options: Unpack[PromptedSparseOptions]) -> Any:  # noqa: ANN401
        """`encode` in a worker thread, so that an event loop goes on meanwhile."""
        import asyncio

        return await asyncio.to_thread(lambda: self.encode(inputs, **options))

    def decode(self, embeddings: Sparse, top_k: int | None = None) -> list[Any]:
        """Terms with their weights, heaviest first: [(token, weight), ...] for each row, or for the one row.

        As `SparseEncoder.decode` of sentence-transformers, for people who look.
        """
        return embeddings.to_tokens(self.token, top_k)

    def similarity(self, embeddings1: Sparse, embeddings2: Sparse) -> Floats:
        """(N, M) float32, by `similarity_fn_name`; one row counts as N = 1."""
        return similarity(self._checked_similarity(), _rows(embeddings1), _rows(embeddings2))

    def similarity_pairwise(self, embeddings1: Sparse, embeddings2: Sparse) -> Floats:
        """(N,) float32: row i against row i."""
        return similarity_pairwise(self._checked_similarity(), _rows(embeddings1), _rows(embeddings2))


def _rows(embeddings: Sparse) -> SparseVectors:
    return SparseVectors.of(embeddings) if isinstance(embeddings, SparseVector) else embeddings


def _converted(vectors: SparseVectors, single: bool, tensor: bool, sparse: bool) -> Any:  # noqa: ANN401
    """Rows in the type that was asked for; of a single text, its row."""
    if tensor:
        made = as_sparse_tensor(vectors) if sparse else as_tensor(vectors.to_dense())
        return made[0] if single else made
    return vectors[0] if single else vectors
