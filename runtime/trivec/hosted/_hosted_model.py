"""What a hosted encoder is, beside encoding: names, prompts, similarity, what was used, and its end."""

from collections.abc import Sequence
from typing import Any, NoReturn, Self
from urllib.parse import urlsplit

from trivec._encoders.calls import Side
from trivec._errors import InputError
from trivec._model.manifest import similarity_name
from trivec._tokens.plan import distinct
from trivec._vectors.heads import Head
from trivec._vectors.rows import Vectors
from trivec._vectors.scores import all_pairs, side_by_side
from trivec.hosted._batches import estimated_tokens
from trivec.hosted._http import Usage
from trivec.hosted._options import Options
from trivec.hosted._requests import Embeddings

_CALLED = ("embeddings1", "embeddings2")


class HostedModel:
    """An open hosted model; a kind adds `encode` and what goes with it."""

    opened_for: str | None = None
    heads: tuple[Head, ...] = ("dense",)
    truncated: int | None = None

    def __init__(self, options: Options, embeddings: Embeddings) -> None:
        self._options, self._embeddings = options, embeddings
        self._closed = False
        self.prompts: dict[str, str] = {}
        self.default_prompt_name: str | None = None
        self.truncate_dim = options.truncate_dim
        self.similarity_fn_name = options.similarity_fn_name

    @property
    def name(self) -> str:
        """What opens it again: "provider:model", with the options that decide vectors behind a "?"."""
        return self._options.spec

    @property
    def device(self) -> str:
        """The service's host."""
        return urlsplit(self._options.url).hostname or self._options.url

    @property
    def precision(self) -> str:
        """The number type that the service gives."""
        return self._options.output_dtype

    @property
    def engine_fingerprint(self) -> str:
        """The service, which does not tell what computes there: where it is equal, bits need not be. See `probe`."""
        return f"hosted at {self.device}"

    @property
    def usage(self) -> Usage:
        """Requests, texts, tokens, retries and seconds waited, so far."""
        return self._embeddings.service.usage

    def cost(self, price_per_million: float) -> float:
        """What the tokens so far cost, at a price for a million of them; in its currency."""
        return self.usage.tokens * price_per_million / 1e6

    def estimate(self, texts: Sequence[str]) -> Usage:
        """What `encode(texts)` would ask for, about: requests, texts that differ and tokens; nothing is sent.

        Tokens are estimated by bytes, mostly above what tokenizers make of prose. What a cache has is not left out.
        """
        asked, _ = distinct(texts)
        requests = sum(1 for _ in self._embeddings.budget.parts(asked, range(len(asked))))
        return Usage(requests, len(asked), round(sum(map(estimated_tokens, asked))))

    def load_arguments(self) -> dict[str, Any]:
        """Nothing: `name` says all that decides vectors."""
        return {}

    def prompt_name_of(self, side: Side) -> str | None:
        """The prompt that `encode_query` or `encode_document` takes where a call gives none; None: there is none."""
        return side if side in self.prompts else None

    def prompt_text(self, prompt: str | None = None, prompt_name: str | None = None) -> str:
        """What is put before each input; "" for nothing. InputError: no string, or none of `prompts`."""
        if prompt is not None:
            if not isinstance(prompt, str):
                raise InputError(f"prompt must be a string, got {type(prompt).__name__}.")
            return prompt
        name = self.default_prompt_name if prompt_name is None else prompt_name
        if name is not None and name not in self.prompts:
            raise InputError(f"prompt_name {name!r} is none of this encoder's prompts {sorted(self.prompts)}.")
        return "" if name is None else self.prompts[name]

    @property
    def similarity_fn_name(self) -> str:
        """How `similarity` compares: "cosine" (also by None), "dot", "euclidean" or "manhattan"; can be set."""
        return self._similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, value: object) -> None:
        self._similarity_fn_name = "cosine" if value is None else similarity_name(value)

    def similarity(self, embeddings1: Vectors, embeddings2: Vectors) -> Any:  # noqa: ANN401
        """Each vector against each, by `similarity_fn_name`: (N, M) float32, as of a local encoder."""
        return all_pairs(self.similarity_fn_name, embeddings1, embeddings2, _CALLED)

    def similarity_pairwise(self, embeddings1: Vectors, embeddings2: Vectors) -> Any:  # noqa: ANN401
        """Row i against row i: (N,)."""
        return side_by_side(self.similarity_fn_name, embeddings1, embeddings2, _CALLED)

    # ---- what it has not -----------------------------------------------------------------------------------------

    def tokenize(self, *_: object, **__: object) -> NoReturn:
        """InputError: the tokenizer is at the service."""
        raise InputError("the tokens of a hosted model are its service's: there is no tokenizer here. See `usage`.")

    @property
    def max_seq_length(self) -> int | None:
        """None: the service knows how much it reads. InputError where it is set."""
        return None

    @max_seq_length.setter
    def max_seq_length(self, value: object) -> NoReturn:
        raise InputError(
            f"max_seq_length={value!r}: the service decides how much it reads. See on_overflow= of encode."
        )

    # ---- its end, and its copies ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the connections and the cache's file. Encoding afterwards raises."""
        self._closed = True
        self._embeddings.service.close()
        if self._embeddings.cache is not None:
            self._embeddings.cache.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {'closed' if self._closed else self.device})"

    def _check_open(self) -> None:
        if self._closed:
            raise InputError(f"this encoder is closed. Open it again: trivec.hosted.open({self.name!r})")
