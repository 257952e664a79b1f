"""Frameworks without an extra: where one is missing, the error names it and the least version that the tests run."""

import importlib
import re
import sys
import tomllib
from pathlib import Path

import pytest

from trivec import MissingExtraError

ROOT = Path(__file__).resolve().parents[3]
FRAMEWORKS = {
    "chroma": ("chromadb", "chromadb"),
    "haystack": ("haystack", "haystack-ai"),
    "bertopic": ("bertopic", "bertopic"),
    "keybert": ("keybert", "keybert"),
    "lancedb": ("lancedb", "lancedb"),
    "mteb": ("mteb", "mteb"),
}
"""By our module: theirs, and the package."""


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_missing_framework(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, package = FRAMEWORKS[name]
    group = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]["frameworks"]
    tested = next(found[1] for wanted in group if (found := re.match(rf"{package}>=([\d.]+)", wanted)))
    for imported in [other for other in sys.modules if other.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, imported)
    for ours in [other for other in sys.modules if other.startswith(f"trivec.integrations.{name}")]:
        monkeypatch.delitem(sys.modules, ours)
    monkeypatch.setitem(sys.modules, module, None)
    told = f'this adapter needs {package}; {package} is not installed. Type: pip install "{package}>={tested}"'
    with pytest.raises(MissingExtraError, match=f"^{re.escape(told)}$"):
        importlib.import_module(f"trivec.integrations.{name}")
