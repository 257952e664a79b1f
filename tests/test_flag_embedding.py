"""The process that answers for FlagEmbedding: what goes to it and back, and what is said where it cannot."""

import sys
from pathlib import Path

import numpy as np
import pytest
from tests.support.flag_embedding import FlagEmbedding, read, write


def environment(folder: Path, python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose Python is a script of the shell."""
    (folder / "bin").mkdir()
    (folder / "bin/python").write_text(f"#!/bin/sh\n{python}\n")
    (folder / "bin/python").chmod(0o755)
    monkeypatch.setenv("TRIVEC_ORACLE_VENV", str(folder))


def test_numbers_come_through_as_they_are(tmp_path: Path) -> None:
    weight = np.float32(0.1)
    given = {
        "texts": ["a", "\0 東京 \ud800"],
        "rows": [{"7": weight}],
        "arrays": [np.eye(3, 2, dtype=np.float32)],
        "no": None,
    }
    write(tmp_path / "x.npz", given)
    found = read(tmp_path / "x.npz")
    (array,) = found.pop("arrays")
    assert (array.dtype, array.tolist()) == (np.float32, [[1, 0], [0, 1], [0, 0]])
    assert found == {"texts": given["texts"], "rows": [{"7": float(weight)}], "no": None}


def test_without_the_environment_it_is_said_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIVEC_ORACLE_VENV", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"there is no .*bin/python: .* Type: scripts/setup oracle$"):
        FlagEmbedding()


def test_a_process_that_ends_is_an_error_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment(tmp_path, "read line; echo no module of that name >&2", monkeypatch)
    with FlagEmbedding() as process, pytest.raises(RuntimeError, match=r"it ended.*scripts/setup oracle\nno module of"):
        process.ask("tokens")


def test_an_error_there_is_one_here_and_the_next_question_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "FlagEmbedding/inference/embedder/encoder_only"
    package.mkdir(parents=True)
    (package / "m3.py").write_text(
        "class M3Embedder:\n"
        "    def colbert_score(self, query, passage):\n"
        "        print('noise')\n"
        "        return (query @ passage.T).max()\n"
    )
    path = f"import runpy, sys; sys.path.insert(0, '{tmp_path}'); runpy.run_path(sys.argv[2], run_name='__main__')"
    environment(tmp_path, f'exec "{sys.executable}" -c "{path}" "$@"', monkeypatch)
    one = np.full((1, 2), 0.5, dtype=np.float32)
    with FlagEmbedding() as process:
        with pytest.raises(RuntimeError, match=r"no_such raised KeyError(?s:.*)KeyError: 'no_such'"):
            process.ask("no_such")
        assert process.ask("colbert_scores", queries=[one], passages=[one, -one]) == [[0.5, -0.5]]
