"""A service's key: where it comes from, where it may go, and that it is shown nowhere."""

import ipaddress
import os
from collections.abc import Generator
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2

from trivec._errors import InputError
from trivec.hosted._provider import Provider


class FromEnvironment:
    """The key is in an environment variable, if it is anywhere."""

    def __repr__(self) -> str:
        return "FROM_ENVIRONMENT"


FROM_ENVIRONMENT: Final = FromEnvironment()


class Key:
    """A key that no repr, log or pickle has."""

    def __init__(self, value: str | None, variable: str | None = None) -> None:
        self._value = value
        self.variable = variable
        """Where it was found; None: it was given, or there is none."""

    def __bool__(self) -> bool:
        return self._value is not None

    def __repr__(self) -> str:
        return "***" if self else "no key"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a key is not pickled")

    def starts_with(self, beginning: str) -> bool:
        """Whether it is of such a kind."""
        return self._value is not None and self._value.startswith(beginning)

    def auth(self, header: tuple[str, str]) -> httpx2.Auth | None:
        """What puts it on a request."""
        return None if self._value is None else _Auth(self, *header)

    def hidden_in(self, text: str) -> str:
        """A text of the service's, with the key crossed out where the service repeats it."""
        return text if self._value is None else text.replace(self._value, "***")


class _Auth(httpx2.Auth):
    """Puts the key on each request by itself: a client's own headers show in its repr."""

    def __init__(self, key: Key, name: str, before: str) -> None:
        self._key, self._name, self._before = key, name, before

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        request.headers[self._name] = f"{self._before}{self._key._value}"
        yield request


def key_of(row: Provider, given: str | FromEnvironment | None, *, own_host: bool) -> Key:
    """The key to take.

    Args:
        row: the service.
        given: as of `open`.
        own_host: whether requests go to the service itself; a server elsewhere may need none.

    Raises:
        InputError: the service needs one, and there is none; or what is given cannot be one.
    """
    if isinstance(given, str):
        return Key(_checked(given, "api_key"))
    if given is None:
        return Key(None)
    if not isinstance(given, FromEnvironment):
        raise InputError(f"api_key must be a string or None, got {type(given).__name__}.")
    for variable in row.keys:
        if found := os.environ.get(variable):
            return Key(_checked(found, variable), variable)
    if own_host and row.keys:
        raise InputError(f"{row.name} needs a key. Set {row.variables}, or pass api_key=.")
    return Key(None)


def _checked(value: str, name: str) -> str:
    """A key that a header can hold; nothing of it is in the error."""
    found = value.strip()
    if not found or not found.isascii() or not found.isprintable():
        raise InputError(f"{name} is empty or holds what no key does: line breaks, or letters beyond ASCII.")
    return found


def check_address(url: str, key: Key) -> str:
    """An address to which requests, and the key where there is one, may go; without a last slash.

    Raises:
        InputError: no http:// or https:// address, or one that would show a key to whoever listens.
    """
    if not isinstance(url, str):
        raise InputError(f"base_url must be a string or None, got {type(url).__name__}.")
    if any(mark in url for mark in "@?#"):
        raise InputError("base_url must hold no user, password, ? or #: a key in an address shows in logs.")
    try:
        parts = urlsplit(url)
        _ = parts.port, httpx2.URL(url)
    except (ValueError, httpx2.InvalidURL) as error:
        raise InputError(f"base_url={url!r} is no address: {error}.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or " " in url:
        raise InputError(f"base_url={url!r} must begin with https:// or http:// and name a host.")
    if key and parts.scheme == "http" and not is_loopback(parts.hostname):
        raise InputError(
            f"a key goes over https:// alone, or to this machine, and base_url={url!r} is neither. A server that needs "
            "no key: api_key=None."
        )
    return url.rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
