"""Clients that people have in their programs ask a server unchanged, offline: `scripts/test-clients`.

They live in an environment of their own; what each has read is compared with what the encoder gives here.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tests.support import clients
from tests.support.chromium import Chromium, find
from tests.support.clients import KEY, MODEL, QUERY, RANKINGS, REFUSED, RERANKER, TEXTS, VECTORS
from tests.support.environments import python_of
from tests.support.on_port import on_port
from tests.support.server_pages import code, done, matrix, opened, put, rankings, submit
from tests.support.serving import WordScorer
from tests.support.tiny_model import TinyModel

import trivec
import trivec.server
from trivec._vectors.arrays import normalize


@pytest.fixture(scope="module")
def url(tiny_model: TinyModel) -> Iterator[str]:
    """A server of a dense model and of a scorer, with a key."""
    encoder = trivec.load(tiny_model.folder, device="cpu", threads=1, precision="fp32")
    app = trivec.server.app({MODEL: encoder, RERANKER: WordScorer()}, keys={KEY: "clients"})
    with on_port(app) as address:
        yield address
    app.close(encoders=True)


@pytest.fixture(scope="module")
def found(url: str) -> dict[str, Any]:
    """What every client gave."""
    return clients.ask(url)


@pytest.mark.parametrize("client", [client.__name__ for client in VECTORS])
def test_vectors(client: str, found: dict[str, Any], tiny_model: TinyModel) -> None:
    with trivec.load(tiny_model.folder, device="cpu", threads=1, precision="fp32") as encoder:
        expected = normalize(encoder.encode(TEXTS))
    assert isinstance(found[client], list), found[client]
    np.testing.assert_allclose(np.asarray(found[client], np.float64), expected, atol=2e-7)


@pytest.mark.parametrize("client", [client.__name__ for client in RANKINGS])
def test_rankings(client: str, found: dict[str, Any]) -> None:
    assert isinstance(found[client], list), found[client]
    words = [len(set(QUERY.split()) & set(text.split())) - 1.0 for text in TEXTS]  # the scorer's logits
    order = sorted(range(len(TEXTS)), key=lambda i: (-words[i], i))[:3]
    assert [index for index, _ in found[client]] == order
    assert [score for _, score in found[client]] == pytest.approx([1 / (1 + np.exp(-words[i])) for i in order])


def test_errors_are_their_classes(found: dict[str, Any]) -> None:
    status, code, message = found["openai_unknown_model"]
    assert (status, code) == (404, "model_not_found")
    assert MODEL in message
    assert found["openai_wrong_key"] == 401
    code, message = found["langchain_openai_ids"]
    assert code == "foreign_token_ids"
    assert "check_embedding_ctx_length=False" in message
    assert {client.__name__ for client in REFUSED} == {
        "openai_unknown_model",
        "openai_wrong_key",
        "langchain_openai_ids",
    }


@pytest.mark.parametrize("side", ["", ":query"])
def test_what_the_page_copies_for_langchain(url: str, side: str) -> None:
    executable = find()
    assert executable is not None, "there is no Chromium. Type: scripts/chromium"
    python = python_of("clients", "clients")
    wants_key = "document.querySelector('#news')?.textContent.includes('wants a key')"
    with Chromium(executable) as browser, opened(browser, url, ready=wants_key) as page:
        put(page, "#key", KEY)
        done(page, "similarity")
        submit(page, "similarity", texts="\n".join(TEXTS), side=side)
        submit(page, "search", texts="\n".join(TEXTS), question=QUERY)
        snippets = [code(page, tab, "langchain") for tab in ("similarity", "search")]
        shown, ranking = matrix(page), rankings(page)["Dense"]
    environment = {**os.environ, "TRIVEC_API_KEY": KEY}
    run = [[str(python), "-Ic", snippet] for snippet in snippets]
    cosines, ranked = (subprocess.check_output(one, env=environment, text=True, timeout=1800) for one in run)
    numbers = [float(number) for number in re.sub(r"[\[\]]", " ", cosines).split()]
    np.testing.assert_allclose(numbers, shown.ravel(), atol=6e-3)
    lines = [line.partition(" ") for line in ranked.splitlines()]
    assert [text for _, _, text in lines] == [text for text, _ in ranking]
    assert [float(score) for score, _, _ in lines] == pytest.approx([score for _, score in ranking], abs=2e-4)


def test_an_environment_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIVEC_CLIENTS_VENV", "nowhere")
    with pytest.raises(FileNotFoundError, match=r"there is no .*bin/python: .* Type: scripts/setup clients$"):
        clients.ask("http://127.0.0.1:1")
