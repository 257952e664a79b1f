"""The READMEs' snippets on sparse models and on ColBERT, as they stand."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conftest import Readme


def test_every_sparse_snippet_runs(sparse_readme: "Readme") -> None:
    section = ("runtime/README.md", "Sparse, and BGE-M3")
    assert len(sparse_readme.sections[section]) == 2
    assert (sparse_readme.follow(*section) / "rows.npz").exists()


def test_the_late_snippet_runs(sparse_readme: "Readme") -> None:
    section = ("runtime/README.md", "Late interaction")
    assert (sparse_readme.follow(*section) / "colbert/trivec.json").exists()
