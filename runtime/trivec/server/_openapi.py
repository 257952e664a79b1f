"""GET /openapi.json: the routes and their bodies, from the types that read them."""

from functools import cache
from typing import Any

import msgspec

from trivec._version import __version__
from trivec.server import _bodies

_POSTS = {
    "/v1/embeddings": _bodies.Embeddings,
    "/embed": _bodies.Embed,
    "/embed_all": _bodies.Embed,
    "/embed_sparse": _bodies.Embed,
    "/similarity": _bodies.Similarity,
    "/tokenize": _bodies.Tokenize,
    "/decode": _bodies.Decode,
    "/predict": _bodies.Predict,
    "/rerank": _bodies.Rerank,
    "/v1/rerank": _bodies.Rerank,
    "/v2/rerank": _bodies.Rerank,
    "/score": _bodies.Score,
}
_GETS = ("/v1/models", "/info", "/health", "/health/ready", "/health/live", "/metrics")


@cache
def schema() -> dict[str, Any]:
    """OpenAPI 3.1."""
    kinds = list(dict.fromkeys(_POSTS.values()))
    _, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    answers = {"200": {"description": "done"}, "default": {"description": "an error, in JSON"}}
    paths: dict[str, Any] = {}
    for path, kind in _POSTS.items():
        body = {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}
        content = {"required": True, "content": {"application/json": body}}
        summary = (kind.__doc__ or "").splitlines()[0]
        paths[path] = {"post": {"summary": summary, "requestBody": content, "responses": answers}}
    for path in _GETS:
        paths[path] = {"get": {"responses": answers}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "trivec", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }
