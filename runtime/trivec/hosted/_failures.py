"""What a service means where it does not answer with what was asked for: again, shorter, or not at all."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from trivec._errors import ServiceError
from trivec.hosted._key import Key
from trivec.hosted._provider import Provider

_AGAIN = {408, 409, 425, 429}
_TOO_LONG = re.compile(
    r"too (many|long|large)|context length|token limit|batch size|split into|"
    r"tokens?\b.{0,60}\b(max|limit|exceed|less than|allowed)|\b(max|limit|exceed|allowed)\w*\b.{0,60}\btokens?\b",
    re.IGNORECASE | re.DOTALL,
)
_COUNT = re.compile(r"(too many|number of) (inputs|texts|documents|items)|batch size", re.IGNORECASE)
_MONEY = re.compile(r"insufficient|quota|balance|billing|payment|credits?\b", re.IGNORECASE)
_SHOWN = 200  # characters of what a service says
_BEGINNING = 2_000  # of them that are looked at for the key


class TryAgainError(Exception):
    """Worth another try."""

    def __init__(self, error: ServiceError, delay: float | None, *, for_all: bool) -> None:
        super().__init__(str(error))
        self.error, self.delay, self.for_all = error, delay, for_all


class TooLongError(Exception):
    """More texts or tokens than the service takes at once."""

    def __init__(self, error: ServiceError, *, by_count: bool) -> None:
        super().__init__(str(error))
        self.error, self.by_count = error, by_count


@dataclass(frozen=True, slots=True, repr=False)
class Found:
    """An answer, read. It holds nothing of the request, and its repr nothing of the answer: both may have the key."""

    status: int
    reason: str
    headers: Mapping[str, str]
    """By name, in whatever case."""
    content: bytes
    is_whole: bool
    """Whether there was no more than was to be read."""

    @property
    def text(self) -> str:
        """The content, whatever it is."""
        return self.content.decode(errors="replace")


class _Said(NamedTuple):
    """An error's body."""

    message: str
    """All of it: what tells money from time may come late."""
    code: str | None
    delay: float | None
    """Seconds that Google's RetryInfo asks for."""


def answer_of(found: Found | Exception, row: Provider, key: Key, max_wait: float) -> Any:  # noqa: ANN401
    """The JSON of an answer. What is raised instead holds nothing of the request.

    Args:
        found: the answer, or why there is none.
        row: the service.
        key: crossed out where the service repeats it.
        max_wait: seconds: a longer pause is not waited for.

    Raises:
        TryAgainError: another try may help.
        TooLongError: the request holds more than the service takes.
        ServiceError: anything else that is no JSON.
    """
    if not isinstance(found, Found):
        why = key.hidden_in(str(found))
        text = f"{row.name} did not answer ({type(found).__name__}{': ' if why else ''}{why})."
        raise TryAgainError(ServiceError(text, provider=row.name), None, for_all=False)
    if found.status != 200:
        raise _failure_of(found, row, key, max_wait)
    if not found.is_whole:
        raise ServiceError(
            f"{row.name} answered with more than {len(found.content):,} bytes, and no answer to this request is that "
            f"long; it begins with {key.hidden_in(found.text[:_BEGINNING])[:_SHOWN]!r}. Is base_url= the service's?",
            provider=row.name,
            status=200,
        )
    try:
        return json.loads(found.content)
    except (ValueError, RecursionError) as error:
        why = str(error)
    raise ServiceError(
        f"{row.name} answered 200 with no JSON ({why}): {key.hidden_in(found.text)[:_SHOWN]!r}. Is base_url= the "
        "service's?",
        provider=row.name,
        status=200,
    )


def _failure_of(found: Found, row: Provider, key: Key, max_wait: float) -> Exception:
    said = _said(found, key)
    delay = _delay_of(found, said)
    error = _error(found, row, said, delay, key)
    refused = found.status in (400, 422) and (said.code == "3210" or _TOO_LONG.search(said.message))
    if found.status == 413 or refused:
        return TooLongError(error, by_count=bool(_COUNT.search(said.message)))
    if not _is_passing(found, said, delay):
        return error
    if delay is not None and delay > max_wait:
        error.args = (f"{error.args[0]} That is more than max_wait={max_wait:g}: call again later.",)
        return error
    return TryAgainError(error, delay, for_all=found.status == 429 or delay is not None)


def _is_passing(found: Found, said: _Said, delay: float | None) -> bool:
    """Whether the same request may go through later."""
    if found.status not in _AGAIN and found.status < 500:
        return False
    if found.headers.get("x-should-retry") == "false" or said.code == "insufficient_quota":
        return False
    return not (found.status == 429 and delay is None and _MONEY.search(said.message))


def _error(found: Found, row: Provider, said: _Said, delay: float | None, key: Key) -> ServiceError:
    hint = ""
    if found.status in (401, 402, 403):
        where = f"came from {key.variable}" if key.variable else "was given as api_key=" if key else "is not there"
        hint = f" The key {where}. Set {row.variables}, or pass api_key=." if row.keys else f" The key {where}."
    elif 300 <= found.status < 400 and "location" in found.headers:
        place = key.hidden_in(found.headers.get("location", ""))[:_SHOWN]
        hint = f" Redirects, here to {place!r}, are not followed: give the address itself as base_url=."
    elif found.status == 404:
        hint = " Does the service have this model, and is base_url= its address?"
    elif delay is not None:
        hint = f" It asks for a pause of {delay:g} s."
    request_id = next((v for n in ("x-request-id", "request-id", "x-trace-id") if (v := found.headers.get(n))), None)
    return ServiceError(
        f"{row.name} answered {found.status}: {said.message[:_SHOWN].rstrip('.')}.{hint}",
        provider=row.name,
        status=found.status,
        code=said.code,
        request_id=None if request_id is None else key.hidden_in(request_id),
        retry_after=delay,
    )


def _said(found: Found, key: Key) -> _Said:
    """What the body tells, in any of the shapes that services have."""
    try:
        body: Any = json.loads(found.content)
    except (ValueError, RecursionError):
        body = None
    whole = body
    code, delay = None, None
    if isinstance(body, dict) and isinstance(body.get("error"), dict):
        body = body["error"]
    if isinstance(body, dict):
        code = next((key.hidden_in(str(body[n])) for n in ("code", "type", "error_type") if body.get(n)), None)
        delay = _retry_info(body.get("details"))
        body = next((body[name] for name in ("message", "detail", "error") if body.get(name)), body)
    shown = found.text if whole is None else json.dumps(body, ensure_ascii=False)
    message = body if isinstance(body, str) else shown
    return _Said(" ".join(key.hidden_in(message).split()) or found.reason, code, delay)


def _retry_info(details: Any) -> float | None:  # noqa: ANN401 - JSON
    for each in details if isinstance(details, list) else ():
        asked = each.get("retryDelay") if isinstance(each, dict) else None
        if isinstance(asked, str) and re.fullmatch(r"\d+(\.\d+)?s", asked):
            return float(asked[:-1])
    return None


def _delay_of(found: Found, said: _Said) -> float | None:
    """Seconds that the service wants to be left alone."""
    milliseconds, asked = found.headers.get("retry-after-ms", ""), found.headers.get("retry-after", "")
    for text, scale in ((milliseconds, 1e-3), (asked, 1.0)):
        if re.fullmatch(r"\d+(\.\d+)?", text.strip()):
            return float(text) * scale
    try:
        date = parsedate_to_datetime(asked)
    except (ValueError, OverflowError):
        return said.delay
    date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())
