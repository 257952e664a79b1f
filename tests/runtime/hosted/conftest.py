"""A loopback server for each test, and encoders that ask it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.support.loopback import KEY, PROVIDERS, Loopback

import trivec.hosted
from trivec.hosted import HostedEncoder
from trivec.hosted._providers import PROVIDERS as ROWS

Open = Callable[..., HostedEncoder]


@pytest.fixture
def server() -> Iterator[Loopback]:
    """The server."""
    with Loopback() as loopback:
        yield loopback


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> str:
    """Each row of the table."""
    return str(request.param)


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every service's variable has a key."""
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    for row in ROWS.values():
        for variable in row.keys:
            monkeypatch.delenv(variable, raising=False)
        if row.keys:
            monkeypatch.setenv(row.keys[0], KEY)


@pytest.fixture
def opened(server: Loopback) -> Iterator[Open]:
    """`open`, with the server for each service; what was opened is closed."""
    made: list[HostedEncoder] = []

    def open_(provider: str, **options: Any) -> HostedEncoder:
        encoder = trivec.hosted.open(f"{provider}:any-model", base_url=server.base(provider), **options)
        made.append(encoder)
        return encoder

    yield open_
    for encoder in made:
        encoder.close()
