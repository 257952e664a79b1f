"""Vectors of a hosted model, under the names of a local one."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from trivec._encoders.calls import Overflow, defaults_of, for_task, known_options
from trivec._encoders.windows import stream, windows
from trivec._errors import InputError
from trivec._system.progress import progress_bar
from trivec._tokens.inputs import as_texts
from trivec._vectors.arrays import Array, Floats
from trivec._vectors.heads import HybridVectors, record_of
from trivec.hosted._answers import PACKED
from trivec.hosted._cache import Cache
from trivec.hosted._calls import HostedCall, checked_width, form_of, formed
from trivec.hosted._hosted_model import HostedModel
from trivec.hosted._key import FromEnvironment
from trivec.hosted._options import Options, fingerprint_of
from trivec.hosted._requests import Embeddings, Wish, width_asked

OutputPrecision = Literal["float32", "int8", "uint8", "binary", "ubinary"]
PROBES = (
    "The quick brown fox jumps over the lazy dog.",
    "Wie setze ich mein Passwort zurück?",
    "def add(a, b):\n    return a + b",
)
"""What `probe` encodes: for ever the same."""


class HostedEncoder(HostedModel):
    """One vector a text, from a service. Made by `trivec.hosted.open`; safe to use from many threads and coroutines.

    Attributes:
        prompts: texts that are put before an input, by name; none, unless you set some.
        default_prompt_name: the prompt of `encode` where a call names none.
        truncate_dim: vectors are cut here to their first so many numbers; None: not cut.
        opened_for: None: queries and documents alike.
        heads: ("dense",).
        truncated: None: services do not say how many texts they cut.
    """

    # ---- encoding ------------------------------------------------------------------------------------------------

    def encode(
        self,
        inputs: str | Iterable[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding",
        precision: OutputPrecision | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: object = None,
        chunk_size: int | None = None,
        *,
        task: str | None = None,
        on_overflow: Overflow = "truncate",
        sentences: str | Iterable[str] | None = None,
    ) -> Any:  # noqa: ANN401 - by precision and convert_to_*
        """Ask the service for the vectors of texts.

        Args:
            inputs: one text, or any iterable of texts; equal ones are asked for once. `sentences` is its older name.
            prompt_name: a key of `prompts`.
            prompt: a text to put before each input; wins over prompt_name.
            batch_size: most texts of a request; None: as many as the service takes.
            show_progress_bar: None shows one where the "trivec" logger is at INFO or DEBUG and stderr is a terminal.
            output_value: "sentence_embedding" alone.
            precision: number type of the vectors, made here from float32: "float32" (or None), "binary", "ubinary"; for
                "int8" and "uint8" pass float32 to `trivec.quantize_embeddings`, with ranges of your corpus.
            convert_to_numpy: False gives a list of torch tensors.
            convert_to_tensor: True gives one torch tensor; needs torch.
            device: None alone: the service runs where it runs.
            normalize_embeddings: divide vectors by their L2 norm.
            truncate_dim: keep the first so many numbers of a vector (before normalize_embeddings); `dimensions` of
                `open` has the service do it.
            pool: None alone.
            chunk_size: None alone.
            task: "query" or "document", in the service's own words for them, or one of its own words.
            on_overflow: "truncate" has the service cut long texts where it can; "error" has it refuse them.
            sentences: older name of `inputs`.

        Returns:
            (N, dim) float32 (or the type that `precision` or `output_dtype` names); (dim,) for one text; (0, dim) for
            no texts.

        Raises:
            InputError: something that is no text or is blank (its index is named), or an option that this service does
                not have. Nothing is sent.
            ServiceError: the service refuses, goes on failing, or answers with something else than such vectors;
                `error.done` texts were answered before, and with `cache=` are not asked for again.
            TruncationError: a text is too long; its index is named.
            NonFiniteError: a vector is NaN or infinite; the text is named.
        """
        call = self._call(
            prompt_name=prompt_name,
            prompt=prompt,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            output_value=output_value,
            precision=precision,
            convert_to_numpy=convert_to_numpy,
            convert_to_tensor=convert_to_tensor,
            device=device,
            normalize_embeddings=normalize_embeddings,
            truncate_dim=truncate_dim,
            pool=pool,
            chunk_size=chunk_size,
            task=task,
            on_overflow=on_overflow,
        )
        texts, single = as_texts(inputs, sentences)
        bar = progress_bar(len(texts), call.show_progress_bar)
        try:
            *_, vectors = self._embeddings.blocks(iter([texts]), call.wish, bar.update)
        finally:
            bar.close()
        return formed(vectors, call.form, single)

    encode_query = encode_queries = for_task(encode, "query")
    encode_document = encode_documents = encode_corpus = for_task(encode, "document")

    async def aencode(self, inputs: str | Iterable[str], **options: Any) -> Any:  # noqa: ANN401
        """`encode` for coroutines, with its options: no thread waits, and the event loop goes on."""
        call = self._call(**known_options(self.encode_options(), options, "aencode"))
        texts, single = as_texts(inputs, None)
        return formed(await self._embeddings.block(texts, call.wish), call.form, single)

    def encode_iter(self, texts: Iterable[str], *, window: int = 1024, **options: Any) -> Iterator[Array]:  # noqa: ANN401
        """Encode any number of texts in bounded memory: yields what `encode` gives of up to `window` texts, in order.

        A few requests are under way at a time, so `texts` is read ahead. Where a text, the source of the texts or the
        service fails, all rows before it come first, the last block shorter: what is paid for is not lost.
        """
        call = self._call(**known_options(self.encode_options(), options, "encode_iter"))
        parts = windows(iter(stream(texts, window)), window)
        return (formed(vectors, call.form, False) for vectors in self._embeddings.blocks(parts, call.wish))

    def represent(
        self,
        inputs: str | Iterable[str],
        heads: Sequence[str] | None = None,
        *,
        whole: bool = False,
        **options: Any,  # noqa: ANN401 - those of `encode`
    ) -> HybridVectors:
        """`encode` in the record that every kind of encoder gives; `whole` cuts nothing off the vectors.

        Raises:
            InputError: heads other than "dense". Whatever `encode` raises.
        """
        if heads is not None and tuple(heads) != self.heads:
            raise InputError(f"heads {list(heads)}: expected some of dense.")
        uncut = {"truncate_dim": self._width()} if whole and self.truncate_dim is not None else {}
        return record_of(self.encode(inputs, **{**uncut, **options}))

    def check_call(self, heads: Sequence[str] | None = None, **options: Any) -> None:  # noqa: ARG002, ANN401
        """Raise where an option of `encode` has a wrong value; nothing is sent."""
        self._call(**known_options(self.encode_options(), options, "encode"))

    def probe(self) -> Floats:
        """Vectors (3, dim) float32 of three fixed texts, asked for anew: whether a model has changed under its name.

        The same model gives a cosine above 0.9999 to an earlier probe, though seldom the same bits.
        """
        self._check_open()
        plain = Embeddings(self._embeddings.service, width=self._options.dimensions, extra=self._options.extra_body)
        ask = self._options.ask(None, "truncate")._replace(dtype="float32")  # bits and small integers would say less
        *_, vectors = plain.blocks(iter([list(PROBES)]), Wish(ask, "", None))
        return np.asarray(vectors, dtype=np.float32)

    # ---- what it is ----------------------------------------------------------------------------------------------

    @property
    def dim(self) -> int:
        """Numbers in a vector, after truncate_dim. Where nothing says so yet, one word is sent to see."""
        width = self._width()
        return width if self.truncate_dim is None else checked_width(self.truncate_dim, width)

    @property
    def fingerprint(self) -> str:
        """sha256 of what a plain `encode(texts)` asks for: it marks the request, `probe` the model behind it."""
        return self.fingerprint_of()

    def fingerprint_of(
        self,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *,
        task: str | None = None,
        precision: OutputPrecision | None = "float32",
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> str:
        """sha256 of everything that decides the request of an `encode` call, and what becomes of its vectors here."""
        ask = self._options.ask(task, "truncate")
        cut = self.truncate_dim if truncate_dim is None else truncate_dim
        return fingerprint_of(
            self._embeddings.request(ask),
            prompt=self.prompt_text(prompt, prompt_name),
            precision=precision or "float32",
            normalize=bool(normalize_embeddings),
            truncate_dim=cut,
        )

    @classmethod
    def encode_options(cls) -> Mapping[str, Any]:
        """The options of `encode` beside the texts, with their defaults."""
        return defaults_of(cls.encode)

    def __reduce__(self) -> tuple[Any, ...]:
        self._check_open()
        state = {name: getattr(self, name) for name in ("prompts", "default_prompt_name", "truncate_dim")}
        return _reopen, (self._options.portable(), {**state, "similarity_fn_name": self.similarity_fn_name})

    # ---- helpers -------------------------------------------------------------------------------------------------

    def _call(self, **options: Any) -> HostedCall:  # noqa: ANN401
        """All options of `encode`, checked. Raises InputError before any text is looked at."""
        self._check_open()
        known = self._known_width()
        cut = self.truncate_dim if options["truncate_dim"] is None else options["truncate_dim"]
        form = form_of({**options, "truncate_dim": cut}, self._options.output_dtype, known)
        ask = self._options.ask(options["task"], options["on_overflow"])
        wish = Wish(ask, self.prompt_text(options["prompt"], options["prompt_name"]), options["batch_size"])
        return HostedCall(wish, form, options["show_progress_bar"])

    def _known_width(self) -> int | None:
        """Numbers of a vector as it comes; None: nothing says so yet."""
        if self._options.dimensions is not None:
            return self._options.dimensions
        width = self._embeddings.width
        return width if width is None or self._options.output_dtype not in PACKED else 8 * width

    def _width(self) -> int:
        known = self._known_width()
        if known is None:
            self._embeddings.learn_width(self._call(**self.encode_options()).wish)
            known = self._known_width()
        return known or 0


def encoder_of(options: Options, api_key: str | FromEnvironment | None) -> HostedEncoder:
    """An encoder; raises as `Options.connected`."""
    found, service = options.connected(api_key)
    embeddings = Embeddings(
        service,
        width=width_asked(options.dimensions, options.output_dtype),
        extra=options.extra_body,
        cache=None if options.cache is None else Cache(options.cache),
        zeros=options.blank == "zeros",
    )
    return HostedEncoder(found, embeddings)


def _reopen(options: Options, state: Mapping[str, Any]) -> HostedEncoder:
    encoder = encoder_of(options, options.api_key)
    for name, value in state.items():
        setattr(encoder, name, value)
    return encoder
