"""Real clients against `trivec serve`: what they get back, as JSON.

The tests import `ask`; the environment that `scripts/setup sdks` makes runs this file as a script, which has neither
pytest nor our packages.
"""

import json
import os
import sys
from typing import Any

TEXTS = ["the cat sat on the mat", "", "un mot inconnu: 東京"]
KEY = "sk-loopback-0123456789abcdef"


def ask(url: str) -> dict[str, Any]:
    """What each client gives, by its name.

    Raises:
        FileNotFoundError: there is no such environment.
        RuntimeError: the process ended, with what it said last.
    """
    from tests.support.environments import asked  # the other environment, which runs this file, has no tests

    found: dict[str, Any] = asked(__file__, "sdks", "the SDKs", url, os.environ, 400)
    return found


def openai(url: str) -> dict[str, Any]:
    """The openai package: base64 unless told otherwise, errors by their status, models."""
    from openai import BadRequestError, NotFoundError, OpenAI

    client = OpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=0)
    found = client.embeddings.create(model="tiny", input=TEXTS)
    plain = client.embeddings.create(model="tiny", input=TEXTS, encoding_format="float", dimensions=4)
    errors = {}
    try:
        client.embeddings.create(model="none", input="a")
    except NotFoundError as error:
        errors["model"] = [error.code, error.type, error.param, bool(error.request_id)]
    try:
        client.embeddings.create(model="tiny", input=[[15339, 1917], [5269]])
    except BadRequestError as error:
        errors["ids"] = [error.code, str(error)]
    return {
        "base64": [item.embedding for item in found.data],
        "float": [item.embedding for item in plain.data],
        "usage": [found.usage.prompt_tokens, found.usage.total_tokens],
        "models": [model.id for model in client.models.list().data],
        "model": client.models.retrieve("tiny").id,
        "errors": errors,
    }


def cohere(url: str) -> dict[str, Any]:
    """The cohere package: both of its rerank APIs."""
    import cohere as sdk

    asked = {"model": "words", "query": "a cat", "documents": ["a dog", "a red cat", "nothing"], "top_n": 2}
    second = sdk.ClientV2(api_key=KEY, base_url=url).rerank(**asked)
    first = sdk.Client(api_key=KEY, base_url=url).rerank(**asked, return_documents=True)
    return {
        "v2": [[result.index, result.relevance_score] for result in second.results],
        "v1": [[result.index, result.document.text] for result in first.results],
    }


def main() -> None:
    """All of them."""
    url = sys.stdin.read()
    print(json.dumps({"openai": openai(url), "cohere": cohere(url)}))


if __name__ == "__main__":
    main()
