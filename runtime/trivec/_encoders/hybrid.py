"""BGE-M3 and mGTE: dense, sparse and multi-vector representations of a text from one run of one graph."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from trivec._encoders.calls import Call, for_task, in_thread
from trivec._encoders.flag_embedding_names import FlagEmbeddingNames
from trivec._encoders.terms import TermsEncoder
from trivec._errors import InputError
from trivec._pooling.heads import Wanted
from trivec._tokens.inputs import as_texts
from trivec._vectors.arrays import Floats
from trivec._vectors.heads import HEADS, HybridVectors
from trivec._vectors.multi import MultiVectors
from trivec._vectors.sparse import SparseVectors

if TYPE_CHECKING:
    from trivec._concurrency.pool import WorkerPool

_RETURNS = {"dense": "return_dense", "sparse": "return_sparse", "colbert": "return_colbert_vecs"}


class HybridEncoder(FlagEmbeddingNames, TermsEncoder[HybridVectors]):
    """Dense, sparse and multi-vector representations from one run. Made by `trivec.load`; safe from many threads.

    Attributes:
        prompts: texts that are put before an input, by name ("query", "document", ...).
        default_prompt_name: the prompt of `encode` where a call names none.
        max_active_dims: terms that a sparse row keeps at most, where a call does not say; None: all.
        manifest: what the model folder says of itself.
    """

    def encode(
        self,
        inputs: str | Iterable[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        device: str | list[str] | None = None,
        return_dense: bool = True,
        return_sparse: bool = True,
        return_colbert_vecs: bool = False,
        *,
        normalize_embeddings: bool = True,
        max_active_dims: int | None = None,
        threshold: float = 0.0,
        task: str | None = None,
        on_overflow: Literal["truncate", "error"] = "truncate",
        pool: "WorkerPool | None" = None,
        chunk_size: int | None = None,
        max_length: int | None = None,
        sentences: str | Iterable[str] | None = None,
    ) -> HybridVectors:
        """Encode texts; what is not asked for is not computed.

        Args:
            inputs: one text, or any iterable of texts.
            prompt_name: a key of `prompts`.
            prompt: a text to put before each input; wins over prompt_name.
            batch_size: work of one run: up to batch_size * 32 tokens, on CUDA batch_size * 512. Vectors do not depend
                on it beyond what kernels of other shapes round differently on CUDA.
            show_progress_bar: None shows one where the "trivec" logger is at INFO or DEBUG and stderr is a terminal.
            device: the encoder's own, which `load` has chosen; or a list (["cuda:0", "cuda:1"], ["cpu", "cpu"]), for
                which processes are started for this call.
            return_dense: the first token's state, normalized.
            return_sparse: relu of the sparse head, the largest weight of a term counting; special tokens left out.
            return_colbert_vecs: a normalized vector for each token but the first: 4 KB a token, so off by default.
            normalize_embeddings: False leaves dense and ColBERT vectors at the length that the model gives them, as
                FlagEmbedding's argument of that name.
            max_active_dims: keep the heaviest so many terms of a row. None: the encoder's `max_active_dims`.
            threshold: keep weights above it.
            task: the route of a model with several.
            on_overflow: "error" raises where a text is longer than max_seq_length instead of cutting it.
            pool: processes from `start_multi_process_pool`.
            chunk_size: texts that a process takes at a time; None: a tenth of its share, of at most 5,000.
            max_length: tokens the texts of this call are cut to, FlagEmbedding's name; None: `max_seq_length`.
            sentences: older name of `inputs`.

        Returns:
            HybridVectors: dense (N, D) float32, sparse SparseVectors, colbert MultiVectors; of one text (D,),
            SparseVector and (T, D).

        Raises:
            InputError: something that is no text (its index is named), nothing asked for, ColBERT vectors of a model
                that has none, an argument out of range. Nothing is encoded.
            TruncationError: a text is too long and on_overflow is "error".
            NonFiniteError: a number is NaN or infinite; the text is named.
            WorkerError: a process of the pool died.
        """
        call = self._call(
            prompt_name=prompt_name,
            prompt=prompt,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            device=device,
            return_dense=return_dense,
            return_sparse=return_sparse,
            return_colbert_vecs=return_colbert_vecs,
            normalize_embeddings=normalize_embeddings,
            max_active_dims=max_active_dims,
            threshold=threshold,
            task=task,
            on_overflow=on_overflow,
            pool=pool,
            chunk_size=chunk_size,
            max_length=max_length,
        )
        texts, single = as_texts(inputs, sentences)
        return self._formed(self._run(texts, call), call, texts, single)

    encode_query = encode_queries = for_task(encode, "query")
    encode_document = encode_documents = encode_corpus = for_task(encode, "document")
    aencode = in_thread(encode)

    def fingerprint_of(
        self,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *,
        task: str | None = None,
        threshold: float = 0.0,
        max_active_dims: int | None = None,
        normalize_embeddings: bool = True,
        max_length: int | None = None,
    ) -> str:
        """sha256 of everything that decides the vectors of an `encode` call: equal fingerprints, equal vectors."""
        pipeline = self.route(task)
        made = pipeline if normalize_embeddings else pipeline.unnormalized()
        if max_length is not None:
            self._check_length(max_length)
            made = replace(made, tokenizer=made.tokenizer.cut_at(max_length))
        return self._fingerprint(made, self.prompt_text(prompt, prompt_name), threshold, max_active_dims)

    def compute_score(
        self,
        sentence_pairs: Sequence[tuple[str, str]] | tuple[str, str],
        batch_size: int = 32,
        weights_for_different_modes: Sequence[float] | None = None,
    ) -> dict[str, Any]:
        """Scores of pairs (query, passage) by each head and by weighted sums, as FlagEmbedding's `compute_score`.

        dense and sparse are dot products, colbert the mean over the query's vectors of the largest dot product with
        one of the passage's (late interaction). The sums are divided by the sum of their weights.

        Args:
            sentence_pairs: pairs of texts, or one pair.
            batch_size: as in `encode`.
            weights_for_different_modes: of dense, sparse and colbert, in this order; None: 1 each. For a model without
                a ColBERT head only the first two count.

        Returns:
            "dense", "sparse", "colbert", "sparse+dense" and "colbert+sparse+dense", each a list of floats, or a float
            for one pair; without those of colbert where the model has no such head.

        Raises:
            InputError: something that is no pair of texts, or not three weights.
        """
        if not isinstance(sentence_pairs, Sequence):
            raise InputError(
                f"expected a list of pairs (query, passage), got {type(sentence_pairs).__name__}. "
                "Type: list(zip(queries, passages))"
            )
        single = len(sentence_pairs) == 2 and isinstance(sentence_pairs[0], str)
        pairs: list[Any] = [sentence_pairs] if single else list(sentence_pairs)
        for index, pair in enumerate(pairs):
            if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
                raise InputError(f"expected pairs (query, passage), got {pair!r} at index {index}.")
        weights = [1.0, 1.0, 1.0] if weights_for_different_modes is None else list(weights_for_different_modes)
        if len(weights) != len(HEADS) or not weights[0] + weights[1] or not sum(weights):
            raise InputError(f"expected three weights, for {', '.join(HEADS)}, whose sums are not 0; got {weights}.")
        colbert = self.route().multi is not None
        scores = self._scores(pairs, batch_size, colbert)  # each (N,)
        both = scores["dense"] * weights[0] + scores["sparse"] * weights[1]  # (N,)
        every: dict[str, Floats] = {**scores}
        every["sparse+dense"] = np.asarray(both / (weights[0] + weights[1]), dtype=np.float32)
        if colbert:
            total = both + scores["colbert"] * weights[2]  # (N,)
            every["colbert+sparse+dense"] = np.asarray(total / sum(weights), dtype=np.float32)
        found: dict[str, list[float]] = {name: score.tolist() for name, score in every.items()}
        return {name: score[0] for name, score in found.items()} if single else found

    def _scores(self, pairs: Sequence[tuple[str, str]], batch_size: int, colbert: bool) -> dict[str, Floats]:
        """Each head's score of each pair, (N,), in the order of HEADS."""
        found: dict[str, Floats] = {}
        a, b = (
            self.encode([pair[side] for pair in pairs], prompt="", batch_size=batch_size, return_colbert_vecs=colbert)
            for side in (0, 1)
        )
        if a.dense is not None and b.dense is not None:
            found["dense"] = np.einsum("nd,nd->n", a.dense, b.dense)
        if isinstance(a.sparse, SparseVectors) and isinstance(b.sparse, SparseVectors):
            found["sparse"] = a.sparse.row_dot(b.sparse)
        if isinstance(a.colbert, MultiVectors) and isinstance(b.colbert, MultiVectors):
            found["colbert"] = a.colbert.maxsim_pairs(b.colbert)
        return found

    # ---- helpers -------------------------------------------------------------------------------------------------

    def _call(self, **options: Any) -> Call:  # noqa: ANN401
        dense, sparse = bool(options["return_dense"]), bool(options["return_sparse"])
        multi = bool(options["return_colbert_vecs"])
        select = self._selection(options["threshold"], options["max_active_dims"])
        if not (dense or sparse or multi):
            raise InputError("nothing is asked for: set return_dense, return_sparse or return_colbert_vecs.")
        if multi and self.route(options["task"]).multi is None:
            raise InputError("this model has no ColBERT head: leave return_colbert_vecs at False.")
        wanted = Wanted(dense, select if sparse else None, multi)
        if options["max_length"] is not None:
            self._check_length(options["max_length"])
            self.route(options["task"]).tokenizer.cut_at(options["max_length"])  # raises before a text is looked at
        call = self._checked(wanted, options, unnormalized=not options["normalize_embeddings"])
        return call._replace(max_length=options["max_length"])

    def _formed(self, vectors: HybridVectors, call: Call, texts: Sequence[str], single: bool) -> HybridVectors:  # noqa: ARG002
        return vectors.take(0) if single else vectors

    def _returning(self, heads: Sequence[str]) -> dict[str, Any]:
        return {_RETURNS[head]: head in heads for head in HEADS}
