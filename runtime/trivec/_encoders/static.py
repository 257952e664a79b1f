"""Static models: a vector a text from a table of token vectors, by numpy alone."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from trivec._encoders.calls import Call, Ready, RowCall, check_finite
from trivec._encoders.dense import DenseEncoder
from trivec._encoders.pipeline import Pipeline
from trivec._errors import InputError
from trivec._model.static_model import MODEL2VEC
from trivec._pooling.heads import Wanted
from trivec._static.table import StaticTable
from trivec._static.tokenizer import StaticTokenizer
from trivec._system.background import Background
from trivec._system.progress import progress_bar
from trivec._tokens.batch import Batch, Tokens
from trivec._vectors.arrays import Floats
from trivec._vectors.heads import HybridVectors
from trivec._vectors.multi import MultiVectors

_TEXTS, _CHARACTERS = 4096, 1 << 19  # that are tokenized at a time: 100,000 tokens or so, at 200 bytes each


@dataclass(frozen=True)
class StaticPipeline(Pipeline):
    """From token ids to the mean of their vectors; `output` names whose rules these are."""

    table: StaticTable = field(kw_only=True)

    def represent(
        self,
        batch: Batch,
        wanted: Wanted,
        prompt_length: int = 0,  # noqa: ARG002 - none is left out
    ) -> tuple[HybridVectors, npt.NDArray[np.bool_]]:
        """As a Pipeline's: means, and the vectors of which they are the means."""
        dense, several = None, None
        finite = np.ones(len(batch), dtype=np.bool_)  # (B,)
        if wanted.dense:
            dense = self.of_tokens(Tokens(batch.ids, batch.offsets, np.zeros(len(batch), dtype=np.bool_)))
            dense = dense[:, : wanted.width]
            finite &= np.isfinite(dense).all(1)
        if wanted.states:
            several = MultiVectors._trusted(np.asarray(self.table.of(batch.ids), dtype=np.float32), batch.offsets)
        return HybridVectors(dense, None, several), finite

    def vector_counts(self, tokens: Tokens, wanted: Wanted) -> npt.NDArray[np.int64] | None:
        """As a Pipeline's: every token has a vector."""
        return tokens.lengths if wanted.states else None

    def of_tokens(self, tokens: Tokens) -> Floats:
        """Vectors (N, D) of texts of any lengths; zeros, as they come out of the mean, for a text without tokens."""
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is an error of its own, with the text
            return self.finish(self.table.mean(tokens))

    def finish(self, pooled: Floats) -> Floats:
        """What follows the mean: (B, D) to (B, D')."""
        if self.output != MODEL2VEC:
            return super().finish(pooled)
        return _as_model2vec(pooled, normalized=bool(self.steps), half=self.table.is_half)

    def _output_width(self) -> int:
        return self.table.dim


def _as_model2vec(means: Floats, *, normalized: bool, half: bool) -> Floats:
    """The last lines of `StaticModel.encode` of model2vec 0.10: (B, D) to (B, D).

    A float16 table's means are rounded to float16 there, before and after they are divided by their norm; so they are
    here, and come out as float32 all the same.
    """
    if half:
        means = means.astype(np.float16).astype(np.float32)
    if normalized:
        means = means / (np.linalg.norm(means, axis=1, keepdims=True) + np.float32(1e-32))
        if half:
            means = means.astype(np.float16).astype(np.float32)
    return means


class StaticEncoder(DenseEncoder):
    """One vector a text, the mean of its tokens' vectors: Model2Vec and sentence-transformers' StaticEmbedding.

    Made by `trivec.load`; runs on the CPU, in numpy; safe to use from many threads. Everything is as of a DenseEncoder
    but for what follows:

    - Vectors are float32 whatever the table is, and equal to those of the program that wrote the model: for a float16
      table Model2Vec's are rounded to float16, and so are the numbers here.
    - A text of which no token is known, such as the empty one, gives zeros.
    - Model2Vec's models drop unknown tokens, and read 512 tokens of a text unless their config.json says another
      number (`max_seq_length`), of as many characters as 512 tokens of the vocabulary's median length have; longer
      texts count as truncated. Those of sentence-transformers keep unknown tokens and read everything.
    - output_value="token_embeddings" gives the vectors of which a sentence's is the mean: Model2Vec's
      `encode_as_sequence`, cut at max_seq_length (None: never).
    - batch_size is checked and makes no difference: memory beside the vectors is bounded in any case.
    """

    def _run(self, texts: Sequence[str] | Ready, call: Call) -> HybridVectors:
        """As any encoder's, but part by part, so that no more than a part's tokens are held; there are no batches."""
        if call.wanted.states or (call.in_processes and not isinstance(texts, Ready)):
            return super()._run(texts, call)
        pipeline, tokenizer = self._static(call.route)
        if isinstance(texts, Ready):  # encode_iter tokenizes ahead by itself
            self._count_truncated(texts, call)
            found = pipeline.of_tokens(texts.tokens)[:, : call.wanted.width]  # (U, width)
            check_finite(texts.spread(np.asarray(np.isfinite(found).all(axis=1))), texts.texts, self._blamed)
            return HybridVectors(found if texts.row_of is None else found[texts.row_of])
        vectors = np.empty((len(texts), call.wanted.width or self._dim), dtype=np.float32)
        parts = _parts(texts, tokenizer.max_characters, whole=call.on_overflow == "error")

        def read(part: slice) -> Tokens:
            return tokenizer(texts[part], call.prompt, part.start)

        bar = progress_bar(len(texts), call.show_progress_bar)
        for part, tokens in _ahead(read, parts, tokenizer.threads):
            self._count_truncated(Ready(texts[part], tokens, None), call)
            vectors[part] = pipeline.of_tokens(tokens)[:, : call.wanted.width]
            bar.update(part.stop - part.start)
        bar.close()
        check_finite(np.asarray(np.isfinite(vectors).all(axis=1)), texts, self._blamed)
        return HybridVectors(vectors)

    def run_rows(self, tokens: Tokens, call: RowCall, /) -> tuple[HybridVectors, npt.NDArray[np.bool_]]:
        """As any encoder's; rows of any lengths are averaged together."""
        if call.wanted.states:
            return super().run_rows(tokens, call)
        found = self._static(call.route)[0].of_tokens(tokens)
        return HybridVectors(found), np.asarray(np.isfinite(found).all(axis=1))

    @property
    def _blamed(self) -> str:
        return "fp32"  # no other variant could do better: what is not finite is in the file

    def set_pooling_include_prompt(self, include_prompt: bool) -> None:
        """Refused unless it changes nothing: every token counts in the mean.

        Raises:
            InputError: include_prompt is False.
        """
        if not include_prompt:
            raise InputError("a static model adds up all tokens alike, so those of a prompt cannot be left out.")

    def _static(self, route: str) -> tuple[StaticPipeline, StaticTokenizer]:
        """The table and the tokenizer."""
        pipeline = self._open()[route]
        if not isinstance(pipeline, StaticPipeline) or not isinstance(pipeline.tokenizer, StaticTokenizer):
            raise TypeError(f"a StaticEncoder was made with a {type(pipeline).__name__}")
        return pipeline, pipeline.tokenizer


def _parts(texts: Sequence[str], characters: int | None, *, whole: bool) -> list[slice]:
    """Texts that are tokenized together: as many as fit, or all of them where they must be known first."""
    if whole:
        return [slice(0, len(texts))]
    parts, start, held = [], 0, 0
    for row, text in enumerate(texts):
        size = len(text) if characters is None else min(len(text), characters)
        if row > start and (held + size > _CHARACTERS or row - start == _TEXTS):
            parts.append(slice(start, row))
            start, held = row, 0
        held += size
    return [*parts, slice(start, len(texts))] if texts else []


def _ahead(
    read: Callable[[slice], Tokens], parts: Sequence[slice], threads: int | None
) -> Iterator[tuple[slice, Tokens]]:
    """Each part with its tokens; the next one is tokenized meanwhile, where there is a thread to spare."""
    if len(parts) < 2 or threads == 1:
        yield from ((part, read(part)) for part in parts)
        return
    with Background(1, "trivec-tokenizer") as ahead:
        reading = ahead.submit(read, parts[0])
        for number, part in enumerate(parts, 1):
            tokens = reading.result()
            if number < len(parts):
                reading = ahead.submit(read, parts[number])
            yield part, tokens
