"""Tiny models of every kind, served."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.chromium import Chromium, Page, find
from tests.support.on_port import on_port
from tests.support.server_pages import done, opened
from tests.support.serving import Client, WordScorer
from tests.support.static_models import model2vec_folder
from tests.support.tiny_heads import hybrid, random_logits, random_weights, splade
from tests.support.tiny_model import TinyModel

import trivec
import trivec.server


@pytest.fixture(scope="session")
def folders(tiny_model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model folders, by the names under which they are served."""
    base = tmp_path_factory.mktemp("served")
    return {
        "tiny": tiny_model.folder,
        "m3": hybrid(base / "m3", tiny_model).folder,
        "splade": splade(base / "splade", tiny_model, random_logits(), random_weights()).folder,
        "static": model2vec_folder(base / "static"),
    }


@pytest.fixture(scope="module")
def client(folders: dict[str, Path]) -> Iterator[Client]:
    """An application that serves one of each kind."""
    encoders = {name: trivec.load(folder, device="cpu", threads=1) for name, folder in folders.items()}
    scorers = {"words": WordScorer(), "labels": WordScorer(("yes", "no"))}
    made = Client(trivec.server.app({**encoders, **scorers}, aliases={"text-embedding-3-small": "tiny"}))
    yield made
    made.close()


@pytest.fixture(scope="module")
def alone(folders: dict[str, Path]) -> Iterator[Client]:
    """An application with one dense model."""
    made = Client(trivec.server.app({"tiny": trivec.load(folders["tiny"], device="cpu", threads=1)}))
    yield made
    made.close()


# ---- the page --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    executable = find()
    if executable is None:
        pytest.fail("there is no Chromium. Type: scripts/chromium, or name one: TRIVEC_CHROMIUM=/path", pytrace=False)
    with Chromium(executable) as found:
        yield found


@pytest.fixture(scope="module")
def page_encoders(folders: dict[str, Path]) -> Iterator[dict[str, Any]]:
    made = {name: trivec.load(folder, device="cpu", threads=1) for name, folder in folders.items()}
    yield {**made, "left": made["tiny"].reading(side="left"), "words": WordScorer()}
    for encoder in made.values():
        encoder.close()


@pytest.fixture(scope="module")
def url(page_encoders: dict[str, Any]) -> Iterator[str]:
    """A server of every kind of model."""
    app = trivec.server.app(page_encoders)
    with on_port(app) as address:
        yield address
    app.close(encoders=False)


@pytest.fixture
def page(browser: Chromium, url: str) -> Iterator[Page]:
    with opened(browser, url) as found:
        done(found, "similarity")
        yield found
