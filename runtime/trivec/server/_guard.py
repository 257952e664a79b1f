"""Who may ask: keys, and the pages and names that a browser may use."""

import hmac
import ipaddress
from collections.abc import Mapping

from trivec.server._errors import ApiError
from trivec.server._settings import Settings

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def check_key(headers: Mapping[str, str], keys: Mapping[str, str]) -> str:
    """The name of the key that a request has; "-" where the server is open.

    Raises:
        ApiError: a key is needed, and this is none.
    """
    if not keys:
        return "-"
    scheme, _, given = headers.get("authorization", "").partition(" ")
    found = None
    sent = given.strip().encode("latin-1", "replace") if scheme.lower() == "bearer" else b""
    for key, name in keys.items():
        if hmac.compare_digest(sent, key.encode()):  # of all of them, so that time tells nothing
            found = name
    if found is None:
        raise ApiError("invalid_api_key", "This server wants a key: Authorization: Bearer KEY.")
    return found


def check_host(headers: Mapping[str, str], settings: Settings) -> None:
    """Raise unless Host is a name that is this server's: else any page could have its own name lead here."""
    allowed = settings.allow_hosts
    name = _host_name(headers.get("host", ""))
    if "*" in allowed or name in LOOPBACK or name in allowed or _is_address(name):
        return
    raise ApiError("host_not_allowed", "The name in Host is none of this server's. Start it with --allow-host NAME.")


def check_origin(headers: Mapping[str, str], settings: Settings) -> str | None:
    """The origin of a page that may ask, where it is another than the server's own; None: no page asks.

    Raises:
        ApiError: a page of another origin.
    """
    origin = headers.get("origin")
    if origin is None:
        return None
    host = headers.get("host", "")
    if origin in (f"http://{host}", f"https://{host}"):
        return None
    if origin in settings.cors_origins or "*" in settings.cors_origins:
        return origin
    raise ApiError(
        "origin_not_allowed", "Pages of this origin may not ask. Start the server with --cors-origin ORIGIN."
    )


def cors_headers(origin: str | None) -> list[tuple[str, str]]:
    """What lets a page of another origin read an answer."""
    if origin is None:
        return []
    return [("access-control-allow-origin", origin), ("vary", "origin")]


def preflight_headers() -> list[tuple[str, str]]:
    """What a browser wants to know before it asks."""
    return [
        ("access-control-allow-methods", "GET, POST"),
        ("access-control-allow-headers", "authorization, content-type, x-request-id"),
        ("access-control-max-age", "600"),
    ]


def _host_name(host: str) -> str:
    """Without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _is_address(name: str) -> bool:
    """Whether it is an address, which nobody can have lead elsewhere."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
