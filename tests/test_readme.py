"""Every snippet of the README runs as it stands, in one folder, top to bottom."""

import builtins
import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import trivec

if TYPE_CHECKING:
    from tests.conftest import Readme

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


SPARSE = "Sparse, and BGE-M3"  # in test_readme_sparse.py, and so in another process
SHARED = ("Milvus", "Static vectors")  # which read what lies beside the checkout


def test_every_snippet_runs(readme: "Readme") -> None:
    assert len(readme.sections) >= 12
    assert {SPARSE, *SHARED} < readme.sections.keys()
    for title, snippets in readme.sections.items():
        for language, code in snippets[title == "trivec" :]:  # the first has run: it made `minilm`
            if title not in (SPARSE, *SHARED):
                readme.run(language, code)
    assert (readme.work / "vectors.npy").exists()


@pytest.mark.parametrize("title", SHARED)
def test_snippets_on_shared_data(readme: "Readme", shared: Path, title: str) -> None:
    assert readme.sections[title]
    for language, code in readme.sections[title]:
        readme.run(language, code)


def test_the_example_is_short_and_comes_first() -> None:
    example = next(code for code in re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL))
    assert len(example.splitlines()) <= 10
    assert TEXT.index("trivec export") < TEXT.index(example) < TEXT.index("\n## ")


def test_the_extras_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {extra for group in re.findall(r"trivec\[([a-z,-]+)\]", TEXT) for extra in group.split(",")}
    assert named <= set(project["optional-dependencies"])


def test_the_errors_are_the_ones_there_are() -> None:
    found = re.findall(r"`(\w+Error)\((\w+)\)`", TEXT)
    assert len(found) == 11
    for name, builtin in found:
        assert issubclass(getattr(trivec, name), trivec.TrivecError)
        assert issubclass(getattr(trivec, name), getattr(builtins, builtin))


def test_the_scripts_exist() -> None:
    for name in set(re.findall(r"`scripts/([\w-]+)`", TEXT)):
        assert os.access(ROOT / "scripts" / name, os.X_OK), name
