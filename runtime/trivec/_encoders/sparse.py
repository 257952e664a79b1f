"""SPLADE and its inference-free kin: weights of vocabulary terms for each text."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, overload

from trivec._encoders.calls import Call, for_task, in_thread
from trivec._encoders.terms import TermsEncoder
from trivec._pooling.heads import Wanted
from trivec._tokens.inputs import as_texts
from trivec._vectors.heads import HybridVectors
from trivec._vectors.sparse import SparseVector, SparseVectors
from trivec._vectors.torch_tensors import as_sparse_tensor, as_tensor

if TYPE_CHECKING:
    from trivec._concurrency.pool import WorkerPool


class SparseForm(NamedTuple):
    """What becomes of the rows of a call."""

    to_tensor: bool
    to_sparse_tensor: bool


class SparseEncoder(TermsEncoder[SparseVectors]):
    """Weights of vocabulary terms for each text. Made by `trivec.load`; safe to use from many threads.

    Queries of an inference-free model come from a table of weights: no graph runs for them.

    Attributes:
        prompts: texts that are put before an input, by name ("query", "document", ...).
        default_prompt_name: the prompt of `encode` where a call names none.
        max_active_dims: terms that a row keeps at most, where a call does not say; None: all.
        similarity_fn_name: "dot" unless the model says another.
        manifest: what the model folder says of itself.
    """

    @overload  # one text is itself an iterable of texts, so these overlap, and the first counts
    def encode(  # type: ignore[overload-overlap]
        self,
        inputs: str,
        prompt_name: str | None = ...,
        prompt: str | None = ...,
        batch_size: int = ...,
        show_progress_bar: bool | None = ...,
        convert_to_tensor: Literal[False] = ...,
        convert_to_sparse_tensor: bool = ...,
        save_to_cpu: bool = ...,
        device: str | list[str] | None = ...,
        max_active_dims: int | None = ...,
        pool: "WorkerPool | None" = ...,
        chunk_size: int | None = ...,
        *,
        task: str | None = ...,
        threshold: float = ...,
        on_overflow: Literal["truncate", "error"] = ...,
        sentences: str | Iterable[str] | None = ...,
    ) -> SparseVector: ...
    @overload
    def encode(
        self,
        inputs: Iterable[str],
        prompt_name: str | None = ...,
        prompt: str | None = ...,
        batch_size: int = ...,
        show_progress_bar: bool | None = ...,
        convert_to_tensor: Literal[False] = ...,
        convert_to_sparse_tensor: bool = ...,
        save_to_cpu: bool = ...,
        device: str | list[str] | None = ...,
        max_active_dims: int | None = ...,
        pool: "WorkerPool | None" = ...,
        chunk_size: int | None = ...,
        *,
        task: str | None = ...,
        threshold: float = ...,
        on_overflow: Literal["truncate", "error"] = ...,
        sentences: str | Iterable[str] | None = ...,
    ) -> SparseVectors: ...
    @overload
    def encode(
        self,
        inputs: str | Iterable[str] | None = ...,
        prompt_name: str | None = ...,
        prompt: str | None = ...,
        batch_size: int = ...,
        show_progress_bar: bool | None = ...,
        convert_to_tensor: bool = ...,
        convert_to_sparse_tensor: bool = ...,
        save_to_cpu: bool = ...,
        device: str | list[str] | None = ...,
        max_active_dims: int | None = ...,
        pool: "WorkerPool | None" = ...,
        chunk_size: int | None = ...,
        *,
        task: str | None = ...,
        threshold: float = ...,
        on_overflow: Literal["truncate", "error"] = ...,
        sentences: str | Iterable[str] | None = ...,
    ) -> Any: ...  # noqa: ANN401

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
    ) -> Any:
        """Encode texts. Takes what `SparseEncoder.encode` of sentence-transformers 6.2 takes.

        Args:
            inputs: one text, or any iterable of texts. `sentences` is its older name.
            prompt_name: a key of `prompts`.
            prompt: a text to put before each input; wins over prompt_name.
            batch_size: work of one run: up to batch_size * 32 tokens, on CUDA batch_size * 512. Vectors do not depend
                on it beyond what kernels of other shapes round differently on CUDA.
            show_progress_bar: None shows one where the "trivec" logger is at INFO or DEBUG and stderr is a terminal.
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
        call = self._call(
            prompt_name=prompt_name,
            prompt=prompt,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            convert_to_tensor=convert_to_tensor,
            convert_to_sparse_tensor=convert_to_sparse_tensor,
            device=device,
            max_active_dims=max_active_dims,
            pool=pool,
            chunk_size=chunk_size,
            task=task,
            threshold=threshold,
            on_overflow=on_overflow,
        )
        texts, single = as_texts(inputs, sentences)
        return self._formed(self._run(texts, call), call, texts, single)

    encode_query = encode_queries = for_task(encode, "query")
    encode_document = encode_documents = encode_corpus = for_task(encode, "document")
    aencode = in_thread(encode)

    # ---- helpers -------------------------------------------------------------------------------------------------

    def _call(self, **options: Any) -> Call:  # noqa: ANN401
        select = self._selection(options["threshold"], options["max_active_dims"])
        form = SparseForm(options["convert_to_tensor"], options["convert_to_sparse_tensor"])
        return self._checked(Wanted(sparse=select), options, form=form)

    def _formed(self, vectors: HybridVectors, call: Call, texts: Sequence[str], single: bool) -> Any:  # noqa: ANN401, ARG002
        rows, form = cast("SparseVectors", vectors.sparse), cast("SparseForm", call.form)
        if form.to_tensor:
            made = as_sparse_tensor(rows) if form.to_sparse_tensor else as_tensor(rows.to_dense())
            return made[0] if single else made
        return rows[0] if single else rows
