"""The models that are served: names, what each has, and what a request is in its terms."""

import threading
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import numpy as np
import numpy.typing as npt

from trivec._concurrency.row_queue import Observer, RowQueue
from trivec._concurrency.turn import Turn
from trivec._encoders.calls import Ready, Side
from trivec._errors import InputError
from trivec._tokens.batch import Tokens
from trivec._tokens.tokenizer import TextTokenizer
from trivec._vectors.heads import HEADS, HybridVectors
from trivec.server._settings import Settings

Kind = Literal["dense", "sparse", "colbert", "score"]
_MOST_CPU, _MOST_CUDA = 16_384, 262_144  # tokens of a window
_READINGS = 8  # other cuts of a model that are kept: each may hold a vocabulary


class Scorer(Protocol):
    """What a server asks of a model that scores pairs of texts."""

    heads: tuple[str, ...]
    """("score",)."""
    name: str
    device: str
    precision: str
    fingerprint: str
    max_seq_length: int | None
    labels: Sequence[str]
    """Of each number that it gives of a pair; empty: one number, a relevance."""

    def read_pairs(self, pairs: Sequence[tuple[str, str]], *, side: str | None = None) -> Ready:
        """Pairs tokenized, each that differs once."""

    def run_rows(self, tokens: Tokens, call: Hashable, /) -> tuple[HybridVectors, npt.NDArray[np.bool_]]:
        """Logits (N, L) as `dense`, and whether those of a pair are finite, (N,)."""

    def close(self) -> None:
        """Free what it holds."""


@dataclass(frozen=True)
class Ask:
    """Texts, and what a model is to make of them."""

    texts: Sequence[Any]
    """Texts, pairs of texts, or rows of token ids."""
    heads: tuple[Kind, ...] = ("dense",)
    field: str = "input"
    """What the texts are called in the request."""
    is_ids: bool = False
    task: Side | None = None
    prompt_name: str | None = None
    truncate: bool | None = None
    """None: as the server is told."""
    max_length: int | None = None
    side: Literal["left", "right"] | None = None
    states: bool = False
    """Vectors of all tokens."""


class Model:
    """A model under a name; while it loads, it has no encoder yet."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.name, self.settings = name, settings
        self.encoder: Any = None
        self.queue: Any = None
        self.heads: tuple[Kind, ...] = ()
        """What it has of a text, or of a pair."""
        self.longest: int | None = None
        """Tokens that it reads of a text."""
        self.tokens_per_byte = 0.5
        """Of the texts read lately; a first guess errs upwards."""
        self._readings: dict[tuple[int | None, str | None], Any] = {}
        self._fingerprints: dict[Hashable, str] = {}
        self._whole: dict[int, Any] = {}
        self._lock = threading.Lock()

    def open(self, encoder: Any, observer: Observer, turn: Turn) -> None:  # noqa: ANN401 - an encoder or a Scorer
        """Serve an encoder from now on.

        Raises:
            InputError: max_batch_tokens below the longest text, or a model that runs elsewhere.
        """
        if not hasattr(encoder, "run_rows"):
            raise InputError(
                f"{self.name!r} is a {type(encoder).__name__}: a server runs models itself. Pass those of trivec.load."
            )
        longest = encoder.max_seq_length or 512
        most = self.settings.max_batch_tokens
        if most is not None and most < longest:
            raise InputError(
                f"max_batch_tokens {most} is below the {longest} tokens that {self.name!r} reads of a text."
            )
        ceiling = most or max(longest, _MOST_CUDA if encoder.device.startswith("cuda") else _MOST_CPU)
        self.queue = RowQueue(encoder, observer, turn=turn, least=most or longest, most=ceiling)
        self.heads, self.longest = cast("tuple[Kind, ...]", tuple(encoder.heads)), encoder.max_seq_length
        self.encoder = encoder

    def warm_up(self) -> None:
        """Run once, and measure how fast it is."""
        if self.settings.warm_up == "none":
            return
        lengths = [*range(2, 18), *([self.encoder.max_seq_length or 512] if self.settings.warm_up == "full" else [])]
        texts: Any = ["a " * words for words in lengths]
        if self.heads == ("score",):
            texts = [(text, text) for text in texts]
        ready, call = self.read(Ask(texts, self.heads))
        self.encoder.run_rows(ready.tokens, call)  # rows of many lengths: whatever runs side by side is open then
        batch = Tokens.of_ids([ready.tokens.of(15)] * 16)
        self.encoder.run_rows(batch, call)
        started = time.monotonic()
        self.encoder.run_rows(batch, call)
        self.queue.seed(len(batch.ids), time.monotonic() - started)

    # ---- a request ---------------------------------------------------------------------------------------------------

    def reading(self, ask: Ask) -> Any:  # noqa: ANN401
        """The encoder that cuts texts where a request wants it."""
        key = (ask.max_length, ask.side)
        if key == (None, None):
            return self.encoder
        with self._lock:
            if key not in self._readings:
                if len(self._readings) >= _READINGS:
                    self._readings.pop(next(iter(self._readings)))
                self._readings[key] = self.encoder.reading(ask.max_length, ask.side)
            return self._readings[key]

    def prompt_of(self, ask: Ask) -> str:
        """The text before each text."""
        name = ask.prompt_name
        if name is None and ask.task is not None:
            name = self.encoder.prompt_name_of(ask.task)
        return str(self.encoder.prompt_text(None, name, task=ask.task))

    def read(self, ask: Ask) -> tuple[Ready, Hashable]:
        """Tokens, and the key under which they run.

        Raises:
            InputError: a prompt, task or text that cannot be used.
        """
        if ask.heads == ("score",):
            return self.encoder.read_pairs(ask.texts, side=ask.side), ("score",)
        encoder = self.reading(ask)
        prompt = self.prompt_of(ask)
        heads = tuple(head for head in HEADS if head in ask.heads)
        call: Hashable = encoder.row_call(heads, prompt=prompt, task=ask.task, states=ask.states)
        if ask.is_ids:
            return Ready.of_rows(encoder.route(ask.task).tokenizer.of_ids(ask.texts)), call
        return encoder.read_rows(ask.texts, prompt=prompt, task=ask.task), call

    def fingerprint(self, ask: Ask, **options: Any) -> str:  # noqa: ANN401
        """Of the vectors of a call; 16 digits."""
        if ask.heads == ("score",):
            return str(self.encoder.fingerprint)[:16]
        key = (ask.task, ask.prompt_name, ask.max_length, ask.side, *sorted(options.items()))
        found = self._fingerprints.get(key)
        if found is None:
            name = ask.prompt_name
            if name is None and ask.task is not None:
                name = self.encoder.prompt_name_of(ask.task)
            encoder = self.reading(ask)
            found = str(encoder.fingerprint_of(prompt_name=name, task=ask.task, **options))[:16]
            if len(self._fingerprints) > 256:
                self._fingerprints.clear()
            self._fingerprints[key] = found
        return found

    def length_of(self, text: str, ask: Ask) -> int:
        """Tokens of a text that is cut nowhere, for a message."""
        prompt = "" if ask.heads == ("score",) else self.prompt_of(ask)
        return len(self.whole_tokenizer(ask.task).encode(prompt + text).ids)

    def whole_tokenizer(self, task: Side | None = None) -> Any:  # noqa: ANN401 - tokenizers has no types
        """The tokenizer of a side without truncation: a copy, made at the first need."""
        own = self.encoder.route(task).tokenizer
        with self._lock:
            whole = self._whole.get(id(own))
            if whole is None:
                whole = self._whole[id(own)] = own.copy()
                whole.no_truncation()
            return whole

    def ends_normalized(self, task: Side | None) -> bool:
        """Whether its dense vectors have length 1 already."""
        steps = self.encoder.route(task).steps
        return bool(steps) and steps[-1].kind == "normalize"

    @property
    def truncation_direction(self) -> str | None:
        """Where a text that is too long is cut: "left" or "right" of what stands between its special tokens.

        None: by other rules, or by others on each side of a search.
        """
        if self.heads == ("score",):
            return None
        first, *rest = self.encoder.routes.values()
        spec = first.encoder
        plain = isinstance(first.tokenizer, TextTokenizer) and spec.add_special_tokens and spec.template is None
        return str(spec.truncation_side) if plain and all(route.encoder == spec for route in rest) else None

    @property
    def is_dense_only(self) -> bool:
        """Whether it is a model of dense vectors alone, which can be cut, and be of other number types."""
        return self.heads == ("dense",)

    def described(self) -> dict[str, Any]:
        """Of /v1/models."""
        capabilities = {"dense": "embed", "sparse": "sparse", "colbert": "colbert", "score": "rerank"}
        encoder = self.encoder
        return {
            "id": self.name,
            "object": "model",
            "created": 0,
            "owned_by": "trivec",
            "max_model_len": encoder.max_seq_length,
            "capabilities": [capabilities[head] for head in self.heads],
            "dim": getattr(encoder, "dim", None),
            "fingerprint": encoder.fingerprint,
            "precision": encoder.precision,
            "device": encoder.device,
            "similarity": getattr(encoder, "similarity_fn_name", None),
            "truncation_direction": self.truncation_direction,
            "prompts": sorted(getattr(encoder, "prompts", ())),
        }
