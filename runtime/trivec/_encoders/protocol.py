"""What adapters, stores and the command line ask of an encoder, wherever its vectors come from."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeGuard

from trivec._encoders.calls import Side
from trivec._vectors.heads import Head, HybridVectors


class Encoder(Protocol):
    """The public face of every encoder: those that `trivec.load` returns, and those of `trivec.hosted`."""

    @property
    def encode(self) -> Callable[..., Any]:
        """Vectors of texts; `encode_query` and `encode_document` those of one side of a search."""

    @property
    def name(self) -> str:
        """What opens it again."""

    @property
    def heads(self) -> tuple[Head, ...]:
        """The representations that it has of a text."""

    @property
    def dim(self) -> int:
        """Numbers in a vector, or terms of a sparse row."""

    @property
    def device(self) -> str:
        """Where it runs."""

    @property
    def precision(self) -> str:
        """The variant that runs."""

    @property
    def opened_for(self) -> str | None:
        """The one task that it was opened for; None: all that it has."""

    @property
    def truncated(self) -> int | None:
        """Texts that were cut so far; None: nobody knows."""

    @property
    def fingerprint(self) -> str:
        """sha256 of everything that decides the vectors of a plain call."""

    @property
    def engine_fingerprint(self) -> str:
        """What computes them, in words."""

    @property
    def fingerprint_of(self) -> Callable[..., str]:
        """sha256 of everything that decides the vectors of a call."""

    max_seq_length: int | None
    similarity_fn_name: str

    def represent(
        self,
        inputs: str | Iterable[str],
        heads: Sequence[str] | None = None,
        *,
        whole: bool = False,
        **options: Any,  # noqa: ANN401 - those of `encode`
    ) -> HybridVectors:
        """What any kind of encoder gives, in one kind of record."""

    def check_call(self, heads: Sequence[str] | None = None, **options: Any) -> None:  # noqa: ANN401
        """Raise where an option of `represent` has a wrong value; nothing is encoded."""

    def encode_iter(self, texts: Iterable[str], *, window: int = 1024, **options: Any) -> Iterator[Any]:  # noqa: ANN401
        """Any number of texts in bounded memory."""

    def encode_options(self) -> Mapping[str, Any]:
        """The options of `encode` beside the texts, with their defaults."""

    def load_arguments(self) -> dict[str, Any]:
        """What opens it again, beside its name."""

    def prompt_name_of(self, side: Side) -> str | None:
        """The prompt of one side of a search, where a call gives none."""

    def close(self) -> None:
        """Free what it holds."""


def is_encoder(thing: object) -> TypeGuard[Encoder]:
    """Whether it has an encoder's methods. Asked of its class: some properties cost a request, or raise when closed."""
    kind = type(thing)
    methods = ("encode", "represent", "encode_iter", "fingerprint_of", "prompt_name_of")
    return all(callable(getattr(kind, name, None)) for name in methods)
