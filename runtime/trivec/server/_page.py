"""The page at `/`: its text, put together of what lies beside this module, and the headers that it comes with.

The content security policy lets the page's own script and style run, by their sha256, lets it ask its own server, and
forbids the rest.
"""

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

from trivec._version import __version__

_PARTS = ("page_ask.js", "page_similarity.js", "page_search.js", "page.js")


@cache
def page(*, wants_key: bool) -> bytes:
    """The page, in UTF-8.

    Args:
        wants_key: whether requests need a key; the page then asks for one before it asks the server.
    """
    values = {
        "key": "wanted" if wants_key else "",
        "generator": f"trivec {__version__}",
        "style": _style(),
        "script": _script(),
    }
    # One pass: what is put in is not looked at again.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], _source("page.html")).encode("utf-8")


@cache
def headers() -> tuple[tuple[str, str], ...]:
    """The page's own headers: what it may do, and that no other page shows it in a frame."""
    policy = (
        "default-src 'none'", f"style-src {_hash(_style())}", f"script-src {_hash(_script())}", "connect-src 'self'",
        "img-src data:", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )  # fmt: skip
    return (
        ("content-security-policy", "; ".join(policy)),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-cache"),
    )


def _style() -> str:
    return _source("page.css")


def _script() -> str:
    """One module: what a part declares, those behind it use."""
    return "\n".join(map(_source, _PARTS))


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _source(name: str) -> str:
    """A file beside this module, with line feeds, which the hashes of the policy are of."""
    return files("trivec.server").joinpath(name).read_text(encoding="utf-8")
