"""What must not change from one version to the next: tests/golden was written by the code of commit c7a87c8.

golden.json has the fingerprints that its four tiny models (dense, splade, hybrid, static) gave for each set of options,
the texts of its stores, and the options they were written with. A store named half-* was interrupted when 4 texts were
done. late.json has the same of a tiny model of late interaction: fingerprints that the code of commit 09c963c gave, but
for those of float16 and int8, which came later, as the stores did.
"""

import hashlib
import json
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trivec
from trivec import store

GOLDEN = Path(__file__).parents[1] / "golden"
SAID: dict[str, Any] = json.loads((GOLDEN / "golden.json").read_text(encoding="utf-8"))
LATE: dict[str, Any] = json.loads((GOLDEN / "late.json").read_text(encoding="utf-8"))
FINGERPRINTS, STORES = SAID["fingerprints"] | LATE["fingerprints"], SAID["stores"] | LATE["stores"]


def load(kind: str, **options: Any) -> Any:
    return trivec.load(GOLDEN / kind, device="cpu", threads=1, **options)


@pytest.mark.parametrize("kind", FINGERPRINTS)
def test_fingerprints(kind: str) -> None:
    assert len(FINGERPRINTS[kind]) > 20
    for case in FINGERPRINTS[kind]:
        with load(kind, **case["load"]) as encoder:
            if "max_seq_length" in case:
                encoder.max_seq_length = case["max_seq_length"]
            assert encoder.fingerprint_of(**case["call"]) == case["fingerprint"], case


def test_the_fingerprint_of_ranks() -> None:
    with load("late") as late:
        assert late.fingerprint_of_ranks() == LATE["ranks"]


@pytest.mark.parametrize("name", STORES)
def test_a_store_is_read_and_an_interrupted_one_goes_on(name: str, tmp_path: Path) -> None:
    whole = store.read(GOLDEN / "stores" / name)
    target = tmp_path / name
    shutil.copy(GOLDEN / "stores" / f"half-{name}.partial", f"{target}.partial")
    with load(name.partition(".")[0]) as encoder:
        written = store.write(target, encoder, SAID["texts"], window=4, **STORES[name])
    assert (written.rows, written.resumed) == (len(SAID["texts"]), 4)
    again = store.read(target)
    assert again.texts == whole.texts
    assert whole.texts in (SAID["texts"], None)
    assert whole.fingerprint in (again.fingerprint, None)  # .npy and .jsonl did not say it then
    for part in ("dense", "sparse", "colbert"):
        np.testing.assert_allclose(numbers(again.vectors, part), numbers(whole.vectors, part), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["dense", "splade", "hybrid"])
def test_the_oldest_store_holds_what_the_oldest_folder_gives_now(kind: str) -> None:
    """Read without trivec.store, so that a change of both sides shows."""
    manifest = json.loads((GOLDEN / kind / "trivec.json").read_text(encoding="utf-8"))
    assert manifest["format"] == 1
    name = f"{kind}.jsonl"
    rows = [json.loads(line) for line in (GOLDEN / "stores" / name).read_text(encoding="utf-8").splitlines()]
    assert [row["text"] for row in rows] == SAID["texts"]
    with load(kind) as encoder:
        made = encoder.encode(SAID["texts"], **SAID["stores"][name])
    if kind != "splade":
        dense = made.dense if kind == "hybrid" else made
        np.testing.assert_allclose(dense, [row["embedding"] for row in rows], rtol=1e-5, atol=1e-6)
    if kind != "dense":
        sparse = made.sparse if kind == "hybrid" else made
        for row, found in zip(rows, sparse.to_dense(), strict=True):
            expected = np.zeros(row["sparse_dim"], np.float32)
            expected[[int(term) for term in row["sparse"]]] = list(row["sparse"].values())
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def numbers(vectors: Any, part: str) -> Any:
    """One kind of vectors as an array; empty where there is none."""
    found = vectors if not isinstance(vectors, trivec.HybridVectors) else getattr(vectors, part)
    if isinstance(found, trivec.SparseVectors):
        return found.to_dense() if part == "sparse" else np.zeros(0)
    if isinstance(found, trivec.MultiVectors):
        return found.quantize("float32").vectors if part == "colbert" else np.zeros(0)
    return np.zeros(0) if found is None or part != "dense" else found


def test_vectors_and_errors_that_were_pickled() -> None:
    found = pickle.loads((GOLDEN / "vectors.pickle").read_bytes())
    assert isinstance(found["error"], trivec.InputError)
    assert str(found["error"]) == "what came"
    with load("hybrid") as encoder:
        made = encoder.encode(SAID["texts"][:3], return_colbert_vecs=True)
        one = encoder.encode(SAID["texts"][0], return_colbert_vecs=True)
    for part in ("dense", "sparse", "colbert"):
        np.testing.assert_allclose(numbers(found["hybrid"], part), numbers(made, part), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["sparse"].to_dense(), made.sparse.to_dense(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["colbert"].offsets, made.colbert.offsets)
    np.testing.assert_allclose(found["one"].dense, one.dense, rtol=1e-5, atol=1e-6)


def test_an_encoder_in_a_fresh_process(tmp_path: Path) -> None:
    code = """
import pickle, sys
encoder = pickle.load(open(sys.argv[1], "rb"))
print(encoder.fingerprint, encoder.max_seq_length, type(encoder).__name__)
"""
    for kind in FINGERPRINTS:
        with load(kind, prompts={"query": "ask: "}, default_prompt_name="query") as encoder:
            encoder.max_seq_length = 8
            expected = [encoder.fingerprint, "8", type(encoder).__name__]
            (tmp_path / kind).write_bytes(pickle.dumps(encoder))
        command = [sys.executable, "-c", code, str(tmp_path / kind)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert done.stdout.split() == expected, done.stderr


def test_notes_below_trivec_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their digests hash what they are about, so a note of an earlier version still counts."""
    monkeypatch.setenv("TRIVEC_HOME", str(tmp_path / "home"))
    folder = shutil.copytree(GOLDEN / "dense", tmp_path / "model")
    trivec.load(folder, device="cpu", threads=1, precision="fp32").close()
    expected = set()
    for name in ("tokenizer.json", "arrays.npz", "onnx/model.onnx", "onnx/model.onnx.data"):
        path = (folder / name).resolve()
        stat, digest = path.stat(), hashlib.sha256(path.read_bytes()).hexdigest()
        note = f"{path}\n{stat.st_size}\n{stat.st_mtime_ns}\n{digest}"
        expected.add(hashlib.sha256(note.encode()).hexdigest())
    assert {path.name for path in (tmp_path / "home").iterdir()} == {"checked"}
    assert {path.name for path in (tmp_path / "home" / "checked").iterdir()} == expected


PUBLIC = """
Batcher BusyError DenseEncoder GateError HybridEncoder HybridVectors InputError IntegrityError MissingExtraError
ModelFormatError ModelNotFoundError MultiVectors NonFiniteError ProviderError SparseEncoder SparseVector SparseVectors
StaticEncoder TrivecError TruncationError WorkerError __version__ dequantize_embeddings export hamming_distance
int8_scores load quantize_embeddings rescore search_quantized
"""


def test_public_names_are_still_there() -> None:
    assert set(PUBLIC.split()) <= set(trivec.__all__)


@pytest.mark.parametrize("command", SAID["options"])
def test_options_of_the_command_line(command: str) -> None:
    arguments = [sys.executable, "-m", "trivec", *command.split(), "--help"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=600, check=True)
    assert set(SAID["options"][command]) <= set(re.findall(r"--[a-z][a-z0-9-]*", done.stdout))
