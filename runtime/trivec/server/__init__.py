"""An HTTP server for embeddings: the dialects of OpenAI, TEI, Cohere and vLLM (`pip install "trivec[serve,cpu]"`).

    import trivec.server

    app = trivec.server.app({"minilm": trivec.load("minilm")})  # an ASGI application, to mount or to test

`trivec serve minilm=FOLDER` is the same as a process of its own, with everything that a process needs.
"""

from collections.abc import Mapping
from typing import Any

from trivec._errors import MissingExtraError

try:
    import httptools  # noqa: F401
    import msgspec  # noqa: F401
    import orjson  # noqa: F401
    import prometheus_client  # noqa: F401
    import starlette  # noqa: F401
    import uvicorn  # noqa: F401
except ImportError as error:
    raise MissingExtraError(
        f'trivec.server needs packages of its own ({error}). Type: pip install "trivec[serve]"'
    ) from error

from trivec.server._app import App
from trivec.server._models import Model, Scorer
from trivec.server._settings import Settings

__all__ = ["App", "Scorer", "Settings", "app"]

for _value in (App, Scorer, Settings):
    _value.__module__ = __name__  # repr and tracebacks show trivec.server.App


def app(encoders: Mapping[str, Any], *, aliases: Mapping[str, str] | None = None, **limits: Any) -> App:  # noqa: ANN401
    """An ASGI application that serves open encoders.

    Args:
        encoders: what `trivec.load` returns, or a Scorer, by the name under which it is served. They stay the caller's
            to close; `App.close(encoders=False)` ends what the application has started.
        aliases: more names, each of a name that is served.
        limits: fields of Settings.

    Raises:
        InputError: a name or a limit that cannot be used.
        TypeError: a limit that there is not.
    """
    settings = Settings(**limits)
    made = App({name: Model(name, settings) for name in encoders}, aliases or {}, settings)
    for name, encoder in encoders.items():
        made.open(name, encoder)
    for model in made.registry.models.values():
        model.warm_up()
    made.begin()
    return made
