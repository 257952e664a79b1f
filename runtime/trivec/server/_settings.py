"""What a server is told: limits, times, keys and names. Every field is a flag of `trivec serve`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from trivec._errors import InputError


@dataclass(frozen=True)
class Settings:
    """Limits in texts, tokens, bytes and seconds."""

    on_overflow: Literal["truncate", "error"] = "truncate"
    """What becomes of a text that is longer than the model reads, where a request does not say."""
    max_texts: int = 2048
    """Texts or documents of a request."""
    max_body: int = 16 << 20
    """Bytes of a request's body."""
    max_request_tokens: int = 300_000
    """Tokens of a request's texts, as the model reads them."""
    max_batch_tokens: int | None = None
    """Tokens of a window; None: what runs in 50 ms, within bounds."""
    max_wait: float = 30.0
    """A request that would wait longer is refused with 429."""
    timeout: float = 120.0
    """A request that has waited so long is given up with 503."""
    max_connections: int = 1024
    header_timeout: float = 10.0
    """From the first byte, or the connection, to the last header."""
    body_timeout: float = 30.0
    keep_alive: float = 75.0
    drain_delay: float = 0.0
    """From SIGTERM to the end of accepting, for whoever still routes requests here."""
    drain_timeout: float = 25.0
    warm_up: Literal["none", "short", "full"] = "short"
    token_ids: Literal["refuse", "own"] = "refuse"  # noqa: S105 - no password
    """Whether ids in the place of texts are taken for the model's own."""
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Names of the keys that are accepted, by key; none: the server is open."""
    cors_origins: tuple[str, ...] = ()
    """Origins beside the server's own whose pages may ask; "*" is any."""
    allow_hosts: tuple[str, ...] = ()
    """Names in Host beside those of loopback and addresses; "*" is any."""
    open_metrics: bool = True
    """Whether /metrics needs no key."""
    root_path: str = ""
    """What a proxy keeps before each path."""
    ui: bool = True
    """Whether / is a page."""

    def __post_init__(self) -> None:
        counts = ("max_texts", "max_body", "max_request_tokens", "max_connections")
        times = ("max_wait", "timeout", "header_timeout", "body_timeout", "keep_alive", "drain_timeout")
        for name in (*counts, *times, *(("max_batch_tokens",) if self.max_batch_tokens is not None else ())):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not value > 0:
                raise InputError(f"{name} must be above 0, got {value!r}.")
        if not self.drain_delay >= 0:
            raise InputError(f"drain_delay must be at least 0, got {self.drain_delay!r}.")
        choices = {"on_overflow": ("truncate", "error"), "warm_up": ("none", "short", "full")}
        for name, known in {**choices, "token_ids": ("refuse", "own")}.items():
            if getattr(self, name) not in known:
                raise InputError(f"{name} {getattr(self, name)!r} is not one of {', '.join(known)}.")
