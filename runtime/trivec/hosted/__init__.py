"""Hosted models behind the interface of local ones (`pip install "trivec[hosted]"`).

    import trivec.hosted

    encoder = trivec.hosted.open("voyage:voyage-4", dimensions=512)  # the key from VOYAGE_API_KEY
    encoder.encode_document(["a text", "another"])  # (2, 512) float32
    encoder = trivec.hosted.open("openai:any-model", base_url="http://127.0.0.1:8080/v1", api_key=None)

Providers are openai (and every server that speaks its API), voyage, cohere, mistral, jina, nomic, gemini and tei. No
model's name is known here.
"""

import os
from collections.abc import Mapping
from typing import Any, Literal

from trivec._errors import MissingExtraError

try:
    import httpx2  # noqa: F401
except ImportError as error:
    raise MissingExtraError(f'trivec.hosted needs httpx2 ({error}). Type: pip install "trivec[hosted]"') from error

from trivec.hosted._encoder import HostedEncoder, encoder_of
from trivec.hosted._http import Usage
from trivec.hosted._key import FROM_ENVIRONMENT, FromEnvironment
from trivec.hosted._options import Options, options_of
from trivec.hosted._rerank import HostedReranker, reranker_of

__all__ = ["FROM_ENVIRONMENT", "HostedEncoder", "HostedReranker", "Usage", "open", "open_reranker"]


def open(  # noqa: A001 - called as trivec.hosted.open
    name: str,
    *,
    api_key: str | FromEnvironment | None = FROM_ENVIRONMENT,
    base_url: str | None = None,
    dimensions: int | None = None,
    output_dtype: Literal["float32", "int8", "uint8", "binary", "ubinary"] = "float32",
    truncate_dim: int | None = None,
    similarity_fn_name: str | None = None,
    blank: Literal["error", "zeros"] = "error",
    extra_body: Mapping[str, Any] | None = None,
    cache: str | os.PathLike[str] | None = None,
    concurrency: int = 4,
    timeout: float = 60.0,
    max_retries: int = 5,
    max_wait: float = 60.0,
) -> HostedEncoder:
    """Open a hosted model. Nothing is sent before texts are.

    Args:
        name: "provider:model", with options of this function behind it or not:
            "voyage:voyage-4?dimensions=512&concurrency=8".
        api_key: the key. FROM_ENVIRONMENT reads it from the service's own variable (OPENAI_API_KEY, VOYAGE_API_KEY,
            CO_API_KEY, ...). None: none is sent, as to a server of your own. It goes over https, or to this machine.
        base_url: where the service is, as its SDK takes it; None: where its maker runs it. No proxy is used where that
            is this machine.
        dimensions: numbers of a vector, where the service can be asked for fewer.
        output_dtype: the type that the service is asked for: (N, dim) int8 or uint8, or bits packed eight to a byte,
            int8 (binary) or uint8 (ubinary). To compare with a local model, take float32 and `precision=` of encode.
        truncate_dim: vectors are cut here to their first so many numbers.
        similarity_fn_name: "cosine", "dot", "euclidean" or "manhattan"; None: cosine.
        blank: texts without a letter are an error, or have a vector of "zeros" and are not sent.
        extra_body: further fields of each request, as the service's documentation has them; none that an argument, of
            this function or of encode, decides.
        cache: a file that keeps vectors: what was paid for once is not asked for again. Where it
            can no longer be written, the log warns once, and the run goes on. None: none.
        concurrency: requests under way at a time.
        timeout: seconds without a byte of an answer, after which a request is tried again; connecting has 5.
        max_retries: tries after the first one, where another may help.
        max_wait: seconds: a service that asks for a longer pause raises at once.

    Raises:
        InputError: no such provider, no key, an address that the key must not go to, or an option that this service
            does not have.
    """
    given = {**locals(), "cache": None if cache is None else os.fspath(cache)}
    return encoder_of(_options(given), api_key)


def open_reranker(
    name: str,
    *,
    api_key: str | FromEnvironment | None = FROM_ENVIRONMENT,
    base_url: str | None = None,
    concurrency: int = 4,
    timeout: float = 60.0,
    max_retries: int = 5,
    max_wait: float = 60.0,
) -> HostedReranker:
    """Open a hosted reranker: of voyage, cohere, jina or tei. The arguments are those of `open`.

    Raises:
        InputError: as of `open`, and where the provider has none.
    """
    return reranker_of(_options({**locals()}), api_key)


def _options(arguments: dict[str, Any]) -> Options:
    """From all arguments: what stands behind the name wins over an argument's default."""
    name = arguments.pop("name")
    del arguments["api_key"]
    return options_of(name, {n: value for n, value in arguments.items() if value != getattr(Options, n)})
