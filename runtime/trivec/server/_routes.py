"""Which path is answered by what."""

OPEN = ("/health", "/health/ready", "/health/live", "/ping")
TEI_PATHS = ("/", "/invocations", "/embed", "/embed_all", "/embed_sparse", "/similarity", "/tokenize", "/decode",
        "/predict", "/info")  # fmt: skip
_TEI_NAMES = ("embed_sparse", "embed_all", "similarity", "tokenize", "decode", "predict")
_RERANK = ("/rerank", "/v1/rerank", "/v2/rerank", "/reranking", "/v1/reranking")
NOT_SERVED = {
    "/pooling": "Ask /v1/embeddings with outputs, or /embed_all.",
    "/v1/completions": "This server embeds: /v1/embeddings.",
    "/v1/chat/completions": "This server embeds: /v1/embeddings.",
}


def handlers() -> list[tuple[str, str, tuple[str, str]]]:
    """Path, method, and whose method answers; the busiest first, since they are looked through in order."""
    posts = {
        "/v1/embeddings": ("openai", "embeddings"),
        "/embed": ("tei", "embed"),
        "/": ("tei", "root"),
        **dict.fromkeys(_RERANK, ("rerankers", "rerank")),
        "/embeddings": ("openai", "embeddings"),
        "/invocations": ("tei", "root"),
        **{f"/{name}": ("tei", name) for name in _TEI_NAMES},
        "/score": ("rerankers", "score"),
        "/v1/score": ("rerankers", "score"),
    }
    gets = {
        "/health": ("app", "ready"),
        "/health/ready": ("app", "ready"),
        "/ping": ("app", "ready"),
        "/health/live": ("app", "live"),
        "/metrics": ("app", "exposition"),
        "/": ("app", "page"),
        "/v1/models": ("openai", "models"),
        "/v1/models/{name:path}": ("openai", "models"),
        "/models": ("openai", "models"),
        "/info": ("tei", "info"),
        "/openapi.json": ("app", "openapi"),
    }
    return [(path, "POST", of) for path, of in posts.items()] + [(path, "GET", of) for path, of in gets.items()]
