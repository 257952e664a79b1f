"""The snippets on frameworks of their own environment run as they stand; tests/test_readme.py has the others."""

from pathlib import Path

import pytest
from tests.conftest import Readme
from tests.test_readme import ELSEWHERE

README = "runtime/trivec/integrations/README.md"
SECTIONS = [title for readme, title in ELSEWHERE if readme == README]


@pytest.fixture(scope="module")
def reader(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Readme:
    base = tmp_path_factory.mktemp("readme")
    found = Readme(base, base / "hub")
    found.has = {"minilm": minilm}
    return found


@pytest.mark.parametrize("title", SECTIONS)
def test_every_snippet_runs(reader: Readme, title: str) -> None:
    reader.follow(README, title)
