"""The README's snippets on sparse models, as they stand."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conftest import Readme


def test_every_sparse_snippet_runs(sparse_readme: "Readme") -> None:
    snippets = sparse_readme.sections["Sparse, and BGE-M3"]
    assert len(snippets) == 2
    for language, code in snippets:
        sparse_readme.run(language, code)
    assert (sparse_readme.work / "rows.npz").exists()
