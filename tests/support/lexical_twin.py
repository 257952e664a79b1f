"""The oracle of the lexical tests: pymilvus.model's BM25, and NLTK with its data."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

AnalyzerLike = Callable[[str], list[str]]


def nltk_with_data() -> Any:
    """NLTK, and the stop words and the Punkt model that the wheel of llama-index-core has."""
    import nltk

    spec = importlib.util.find_spec("llama_index.core")  # not imported: that takes long
    assert spec is not None and spec.submodule_search_locations, "pip install llama-index-core"
    data = str(Path(spec.submodule_search_locations[0]) / "_static/nltk_cache")
    if data not in nltk.data.path:
        nltk.data.path.insert(0, data)
    return nltk


def twin() -> Any:
    """pymilvus.model.sparse.bm25; its installer of packages raises."""
    nltk_with_data()
    from pymilvus.model import utils
    from pymilvus.model.utils import dependency_control

    def refuse(package: str, warn: bool = False) -> None:
        raise AssertionError(f"pymilvus.model wants to install {package}")

    for module in (utils, dependency_control):
        module.prompt_install = refuse
    from pymilvus.model.sparse import bm25

    return bm25
