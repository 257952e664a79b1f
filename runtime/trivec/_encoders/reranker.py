"""Scores of pairs of texts: how relevant a document is to a query, or which label a pair has."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from trivec._encoders.calls import Call, Ready, defaults_of, in_thread, known_options
from trivec._encoders.fingerprint import scores_fingerprint
from trivec._encoders.load_options import LoadOptions
from trivec._encoders.pipeline import Pipeline
from trivec._encoders.row_model import RowModel
from trivec._encoders.windows import stream
from trivec._errors import InputError
from trivec._model.manifest import Manifest, Score
from trivec._pooling.heads import Wanted
from trivec._pooling.ranks import Ranked, check_top_k, documents_of, ranked
from trivec._pooling.scores import Activation, activation_of, scores_of
from trivec._tokens.batch import Tokens
from trivec._tokens.inputs import as_pairs, checked_pairs
from trivec._tokens.pair_tokenizer import Pair, PairTokenizer
from trivec._tokens.plan import distinct
from trivec._vectors.arrays import Floats
from trivec._vectors.heads import Head, HybridVectors
from trivec._vectors.torch_tensors import as_tensor

if TYPE_CHECKING:
    from trivec._concurrency.pool import WorkerPool

_MEANINGLESS = ("truncate_dim", "max_active_dims", "similarity_fn_name")


class ScoreForm(NamedTuple):
    """What becomes of the logits of a call."""

    activation: Activation
    sums_to_one: bool
    to_numpy: bool
    to_tensor: bool


class Reranker(RowModel[Any]):
    """Scores pairs of texts: a cross-encoder. Made by `trivec.load`; safe to use from many threads.

    Pairs run in batches of equal token length: a score does not depend on its neighbours. The same pair twice in a call
    runs once.

    Attributes:
        prompts: texts that are put before the first text of a pair, by name.
        default_prompt_name: the prompt of calls that name none.
        manifest: what the model folder says of itself.
    """

    heads: tuple[Head, ...] = ("score",)
    """What it gives, where encoders give representations."""
    _made, _item = "scores", "pair"

    def __init__(self, manifest: Manifest, pipelines: Mapping[str, Pipeline], options: LoadOptions) -> None:
        super().__init__(manifest, pipelines, options)
        given = [name for name in _MEANINGLESS if getattr(options, name) is not None]
        if given:
            raise InputError(f"{given[0]} is for vectors; this model gives scores of pairs. Leave it out.")
        self._score = next(iter(cast("Mapping[str, Score]", {k: p.score for k, p in pipelines.items()}).values()))

    # ---- what it is ----------------------------------------------------------------------------------------------

    @property
    def labels(self) -> tuple[str, ...]:
        """What each number of a pair is of, such as "contradiction"; empty where there is one, a relevance."""
        return self._score.labels if self.num_labels > 1 else ()

    @property
    def num_labels(self) -> int:
        """Numbers that it gives of a pair."""
        return len(self._score.labels)

    @property
    def activation(self) -> str:
        """What `predict` makes of the model's logits where a call does not say: "sigmoid", "identity", ..."""
        return self._score.activation

    def fingerprint_of(
        self,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *,
        activation_fn: str | None = None,
        apply_softmax: bool = False,
    ) -> str:
        """sha256 of everything that decides the scores of a `predict` call: equal fingerprints, equal scores.

        Hashed: tokenizer and variant files (by their sha256), truncation, max_seq_length, output, labels, the prompt's
        text, activation, softmax.
        """
        activation_of(activation_fn, self.activation)
        softens = bool(apply_softmax) and self.num_labels > 1
        return scores_fingerprint(
            self.route(),
            variant=self.precision,
            digest=self._options.digest,
            prompt=self.prompt_text(prompt, prompt_name),
            settings={"activation": activation_fn or self.activation, "softmax": softens},
        )

    # ---- scores --------------------------------------------------------------------------------------------------

    def predict(
        self,
        inputs: Iterable[Sequence[str]] | Sequence[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Any = None,  # noqa: ANN401 - see below
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | list[str] | None = None,
        pool: "WorkerPool | None" = None,
        chunk_size: int | None = None,
        *,
        on_overflow: Literal["truncate", "error"] = "truncate",
        sentences: Iterable[Sequence[str]] | Sequence[str] | None = None,
    ) -> Any:  # noqa: ANN401 - see below
        """Score pairs. Takes what `CrossEncoder.predict` of sentence-transformers 6.2 takes.

        Args:
            inputs: one pair (query, document), or any iterable of pairs. `sentences` is its older name.
            prompt_name: a key of `prompts`.
            prompt: a text to put before the first text of each pair; wins over prompt_name.
            batch_size: work of one run: up to batch_size * 32 tokens, on CUDA batch_size * 512.
            show_progress_bar: None shows one where the "trivec" logger is at INFO or DEBUG and stderr is a terminal.
            activation_fn: what makes scores of logits: None for the model's own (`activation`), "sigmoid", "identity"
                or another name of torch.nn's, an instance of such a class, or a function of arrays (N, L).
            apply_softmax: of several labels, let each pair's scores sum to 1, after the activation.
            convert_to_numpy: False gives a list of torch tensors.
            convert_to_tensor: True gives a torch tensor.
            device: the model's own, which `load` has chosen; or a list (["cuda:0", "cuda:1"], ["cpu", "cpu"]), for
                which processes are started for this call.
            pool: processes from `start_multi_process_pool`.
            chunk_size: pairs that a process takes at a time; None: a tenth of its share, of at most 5,000.
            on_overflow: "error" raises where a pair is longer than max_seq_length instead of cutting its longer text.
            sentences: older name of `inputs`.

        Returns:
            (N,) float32 of a model of one label, (N, L) of several; a number, or (L,), of one pair.

        Raises:
            InputError: something that is no pair of texts (its index is named), or an option that cannot be used.
                Nothing is scored.
            TruncationError: a pair is too long and on_overflow is "error".
            NonFiniteError: a logit is NaN or infinite; the pair is named.
            WorkerError: a process of the pool died.
        """
        call = self._call(
            prompt_name=prompt_name,
            prompt=prompt,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            activation_fn=activation_fn,
            apply_softmax=apply_softmax,
            convert_to_numpy=convert_to_numpy,
            convert_to_tensor=convert_to_tensor,
            device=device,
            pool=pool,
            chunk_size=chunk_size,
            on_overflow=on_overflow,
        )
        if inputs is not None and sentences is not None:
            raise InputError("pass the pairs as inputs or as sentences, not both.")
        pairs, single = as_pairs(sentences if inputs is None else inputs)
        return self._formed(self._run(pairs, call), call, pairs, single)

    def rank(
        self,
        query: str,
        documents: Iterable[str],
        top_k: int | None = None,
        return_documents: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Any = None,  # noqa: ANN401 - as of `predict`
        device: str | list[str] | None = None,
        pool: "WorkerPool | None" = None,
        chunk_size: int | None = None,
        *,
        on_overflow: Literal["truncate", "error"] = "truncate",
    ) -> list[Ranked]:
        """Documents by their score for a query, best first; equal ones in their order.

        Takes what `CrossEncoder.rank` of sentence-transformers 6.2 takes.

        Args:
            query: one text.
            documents: N texts, in any iterable.
            top_k: how many of them to give; None: all.
            return_documents: whether each comes with its text.
            prompt_name: this and what follows are as of `predict`.
            prompt: a text to put before the query.
            batch_size: work of one run.
            show_progress_bar: None, True or False.
            activation_fn: what makes scores of logits.
            device: the model's own, or a list.
            pool: processes.
            chunk_size: pairs that a process takes at a time.
            on_overflow: "truncate" or "error".

        Returns:
            For each document its index `corpus_id`, its `score` and, where asked for, its `text`.

        Raises:
            InputError: a model of several labels, a query or document that is no text (its index is named), or an
                option that cannot be used. Nothing is scored.
            Whatever `predict` raises.
        """
        pairs = self.pairs_to_rank(query, documents, top_k)
        scores: npt.NDArray[np.float32] = self.predict(
            pairs,
            prompt_name,
            prompt,
            batch_size,
            show_progress_bar,
            activation_fn,
            device=device,
            pool=pool,
            chunk_size=chunk_size,
            on_overflow=on_overflow,
        )  # (N,)
        return ranked(scores, [text for _, text in pairs], top_k, return_documents)

    def pairs_to_rank(self, query: object, documents: object, top_k: object = None) -> list[Pair]:
        """The pairs whose scores `rank` puts in order, checked; raises what it raises of them."""
        self._check_one_label("rank")
        check_top_k(top_k)
        return [(cast("str", query), text) for text in documents_of(query, documents)]

    def compute_score(
        self,
        sentence_pairs: Iterable[Sequence[str]] | Sequence[str],
        batch_size: int = 128,
        query_max_length: int | None = None,
        max_length: int | None = None,
        normalize: bool = False,
        device: str | None = None,
    ) -> list[float]:
        """Score pairs as `FlagReranker.compute_score` of FlagEmbedding 1.4 does, which cuts long ones by other rules.

        The query is cut to query_max_length, then the document alone to what is left of max_length; `predict` cuts
        whichever is longer.

        Args:
            sentence_pairs: one pair (query, document), or any iterable of pairs.
            batch_size: see `predict`.
            query_max_length: tokens of a query; None: three quarters of max_length.
            max_length: tokens of a pair; None: 512, or what the model reads where that is less.
            normalize: whether the logits are put through a sigmoid.
            device: see `predict`.

        Returns:
            A number for each pair.

        Raises:
            InputError: see `predict`; or lengths that leave no token for a document.
        """
        self._check_one_label("compute_score")
        call = self._call(**{**self.predict_options(), "batch_size": batch_size, "device": device, "prompt": ""})
        pairs, _ = as_pairs(sentence_pairs)
        most = min(512, self.max_seq_length or 512) if max_length is None else max_length
        self._check_length(most)
        different, row_of = distinct(pairs)
        tokenizer = cast("PairTokenizer", self.route().tokenizer)
        lengths = most * 3 // 4 if query_max_length is None else query_max_length, most
        try:
            tokens = tokenizer.query_first(different, *lengths)
        except InputError:
            tokenizer.query_first(pairs, *lengths)  # fails as well, and names the index that the caller knows
            raise
        logits = cast("Floats", self._run(Ready(pairs, tokens, row_of), call).dense)  # (N, 1)
        found: list[float] = activation_of("sigmoid" if normalize else "identity", "")(logits)[:, 0].tolist()
        return found

    apredict = in_thread(predict)
    arank = in_thread(rank)

    def predict_iter(self, pairs: Iterable[Sequence[str]], *, window: int = 1024, **options: Any) -> Iterator[Any]:  # noqa: ANN401
        """Score any number of pairs in bounded memory: yields what `predict` gives of up to `window` pairs, in order.

        A window is tokenized while the one before it is scored, so `pairs` is read one window ahead. Where a pair or
        the source of the pairs fails, the blocks before it come first. The options are those of `predict`.
        """
        call = self._call(**known_options(self.predict_options(), options, "predict_iter"))
        source = stream(pairs, window, taker="predict_iter", alone="predict([(query, document)])", items="pairs")
        return self._windows(source, window, call, checked_pairs)

    @classmethod
    def predict_options(cls) -> Mapping[str, Any]:
        """The options of `predict` beside the pairs, with their defaults."""
        return defaults_of(cls.predict)

    def represent(self, inputs: Iterable[Sequence[str]], **options: Any) -> HybridVectors:  # noqa: ANN401
        """The logits of N pairs, (N, L), as `dense` of the record in which any model gives what it makes."""
        call = self._call(**{**self.predict_options(), **options})
        return self._run(as_pairs(inputs)[0], call)

    def tokenize(self, pairs: Iterable[Sequence[str]], *, prompt: str = "", task: str | None = None) -> list[list[int]]:
        """Token ids of each pair as the model reads them: behind the prompt, cut at max_seq_length."""
        listed, _ = as_pairs(pairs)
        tokens = self.route(task).tokenizer(cast("Any", listed), prompt)
        return [tokens.of(row).tolist() for row in range(len(listed))]

    # ---- rows of token ids, for whoever gathers those of many callers --------------------------------------------

    def read_pairs(self, pairs: Sequence[Pair], *, side: Literal["left", "right"] | None = None) -> Ready:
        """Pairs tokenized behind the default prompt, each that differs once; `side`: where too long ones are cut.

        Raises:
            InputError: a text holds a lone surrogate (the pair's index is named).
        """
        model = self if side is None else self.reading(side=side)
        return model._ready(pairs, Call(self._route(None), self.prompt_text(), Wanted(score=True), 1, "truncate"))

    def run_rows(self, tokens: Tokens, call: object, /) -> tuple[HybridVectors, npt.NDArray[np.bool_]]:  # noqa: ARG002
        """Logits (N, L) as `dense`, and whether those of a pair are finite, (N,); no error is raised over one."""
        return self._rows(tokens, self._route(None), Wanted(score=True), 0)

    # ---- helpers -------------------------------------------------------------------------------------------------

    def _call(self, **options: Any) -> Call:  # noqa: ANN401
        form = ScoreForm(
            activation_of(options["activation_fn"], self.activation),
            bool(options["apply_softmax"]),
            options["convert_to_numpy"],
            options["convert_to_tensor"],
        )
        return self._checked(Wanted(score=True), {**options, "task": None}, form)

    def _formed(self, vectors: HybridVectors, call: Call, texts: Sequence[Any], single: bool) -> Any:  # noqa: ANN401, ARG002
        form: ScoreForm = call.form
        logits = cast("Floats", vectors.dense)  # (N, L)
        scores = scores_of(logits, form.activation, sums_to_one=form.sums_to_one)
        if form.to_tensor:
            return as_tensor(scores[0] if single else scores)
        if not form.to_numpy:
            return as_tensor(scores[0]) if single else [as_tensor(row) for row in scores]
        return scores[0] if single else scores

    def _ready(self, texts: Sequence[Any], call: Call) -> Ready:
        ready = super()._ready(texts, call)
        empty = ready.spread(ready.tokens.lengths) == 0  # (N,)
        if empty.any():
            raise InputError(f"the pair at index {int(empty.argmax())} has no token, so there is nothing to score.")
        return ready

    def _check_one_label(self, method: str) -> None:
        if self.num_labels != 1:
            raise InputError(
                f"{method} is for models of one label, and this one has {self.num_labels}: {', '.join(self.labels)}. "
                "Type: predict([(query, document), ...])"
            )

    def __repr__(self) -> str:
        state = "closed" if self._pipelines is None else self.device
        return f"{type(self).__name__}({self._options.name!r}, labels={self.num_labels}, {self.precision}, {state})"
