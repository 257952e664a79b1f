"""The real all-MiniLM-L6-v2, all three variants of it, against sentence-transformers in torch."""

import json
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tests.support.on_cpu import mixed_on_cpu
from tests.support.oracle import least_cosine, reference

import trivec
from trivec._engine import approvals
from trivec._engine.devices import Device
from trivec._gate import verify
from trivec._gate.figures import BOUNDS, HEADS
from trivec._gate.texts import verification_texts
from trivec._inspect.info import info
from trivec._loading import choice
from trivec._model import manifest_file
from trivec_export._variants.cuda.check import difference
from trivec_export._variants.cuda.graph import CudaGraph

TEXTS = [text.text for text in verification_texts()]


def size(folder: Path, name: str) -> float:
    """MB of a graph with its data."""
    return sum(p.stat().st_size for p in (folder / "onnx").glob(f"{name}*")) / 1e6


def test_fp32_equals_the_reference_on_every_verification_text(minilm: Path, minilm_checkpoint: Path) -> None:
    oracle = reference(minilm_checkpoint)
    with trivec.load(minilm, device="cpu") as encoder:
        assert encoder.precision == "fp32"
        vectors = encoder.encode(TEXTS)
        assert least_cosine(vectors, oracle.encode(TEXTS)) >= 0.99999
        assert encoder.dim == 384
        assert encoder.max_seq_length == oracle.max_seq_length == 256
        np.testing.assert_allclose(
            encoder.similarity(vectors[:5], vectors), oracle.similarity(vectors[:5], vectors), atol=1e-6
        )


def test_int8_keeps_its_gate_and_does_not_change_with_the_batch(minilm: Path, minilm_checkpoint: Path) -> None:
    expected = reference(minilm_checkpoint).encode(TEXTS)
    with trivec.load(minilm, precision="int8") as encoder:
        vectors = encoder.encode(TEXTS)
        cosines = (vectors * expected).sum(1)
        assert cosines.min() >= BOUNDS["int8"].cosine_min
        assert cosines.mean() >= 0.995
        text = "the same text in any company"
        alone = encoder.encode(text)
        np.testing.assert_allclose(encoder.encode([text] * 64), np.tile(alone, (64, 1)), atol=1e-5)
        np.testing.assert_allclose(encoder.encode([*TEXTS[:40], text])[-1], alone, atol=1e-5)


def test_the_adapters_give_the_references_vectors(minilm: Path, minilm_checkpoint: Path) -> None:
    from trivec.integrations.langchain import TrivecEmbeddings
    from trivec.integrations.llama_index import TrivecEmbedding
    from trivec.integrations.qdrant import QdrantEncoder

    texts, query = TEXTS[:20], "What do stem cells become?"
    oracle = reference(minilm_checkpoint)
    documents, question = oracle.encode_document(texts), oracle.encode_query(query)
    encoder = trivec.load(minilm, device="cpu")
    langchain, llama_index, qdrant = TrivecEmbeddings(encoder), TrivecEmbedding(encoder), QdrantEncoder(encoder)
    points: list[Any] = [*qdrant.points(texts)]
    found: list[tuple[Any, Any]] = [
        (langchain.embed_documents(texts), langchain.embed_query(query)),
        (llama_index.get_text_embedding_batch(texts), llama_index.get_query_embedding(query)),
        ([point.vector["dense"] for point in points], qdrant.query(query)["query"]),
    ]
    for rows, row in found:
        assert least_cosine(np.array(rows, np.float32), documents) >= 0.99999
        np.testing.assert_allclose(rows, documents, atol=1e-5)
        np.testing.assert_allclose(row, question, atol=1e-5)


def test_an_exported_folder_names_its_graph_for_cuda(minilm: Path) -> None:
    manifest = manifest_file.read(minilm)
    encoder = manifest.encoders["main"]
    cuda, half = encoder.cuda, encoder.variants["fp16"]
    assert cuda is not None
    assert (cuda.layout, cuda.needs, cuda.gate, cuda.output) == ("packed", ("cuda",), None, "token_embeddings")
    assert [ref.path for ref in cuda.files] == ["onnx/model_fp16_cuda.onnx", "onnx/model_fp16.onnx.data"]
    assert cuda.files[1] == half.files[1]
    assert {ref.path for ref in manifest.files("fp16")} >= {ref.path for ref in (*cuda.files, *half.files)}
    assert cuda.files[0] not in manifest.files("fp32")
    graph = onnx.load(minilm / cuda.files[0].path, load_external_data=False)
    assert cuda.inputs == tuple(value.name for value in graph.graph.input)
    rng = np.random.default_rng(0)
    rows = [rng.integers(999, 30000, n) for n in (40, 3, 12, 25, 33)]
    assert difference(CudaGraph(graph, cuda.layout), minilm / half.files[0].path, rows) == ""
    assert "Layout: packed." in (minilm / "REPORT.md").read_text(encoding="utf-8")


def test_texts_of_all_lengths_in_one_run(
    minilm: Path, minilm_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [*TEXTS[::20], "", "one two three"]
    expected = reference(minilm_checkpoint).encode(texts)
    encoder = mixed_on_cpu(minilm, tmp_path, monkeypatch)
    session = encoder._open()["default"].session
    assert session.layout == "packed"
    runs: list[int] = []
    original = session.run_feeds

    def counted(feeds: Any, outputs: Any) -> Any:
        runs.append(feeds["token_offset"].shape[0])
        return original(feeds, outputs)

    session.run_feeds = counted
    vectors = encoder.encode(texts, batch_size=64)
    assert max(runs) > 10  # texts of many lengths together
    assert sum(runs) == len(texts)
    assert least_cosine(vectors, expected) >= BOUNDS["fp16"].cosine_min
    np.testing.assert_allclose(encoder.encode(texts[3]), vectors[3], atol=1e-3)  # half has 11 bits
    rows = trivec.load(tmp_path / "mixed", device="cpu", threads=1, precision="fp16", layout="rows")
    np.testing.assert_allclose(rows.encode(texts), vectors, atol=2e-3)
    assert rows.fingerprint != encoder.fingerprint
    again = pickle.loads(pickle.dumps(encoder))
    assert again._open()["default"].session.layout == "packed"
    assert again.fingerprint == encoder.fingerprint
    tokens = encoder.encode(texts[:3], output_value="token_embeddings")
    for ours, theirs in zip(tokens, rows.encode(texts[:3], output_value="token_embeddings"), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-2)


def test_the_graph_for_cuda_is_not_taken_before_it_has_passed(
    minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIVEC_HOME", str(tmp_path / "home"))
    with pytest.raises(trivec.InputError, match=r'layout="mixed" is for fp16, and .* is opened in fp32 on cpu'):
        trivec.load(minilm, device="cpu", layout="mixed")
    mixed_on_cpu(minilm, tmp_path, monkeypatch).close()
    folder, opened = tmp_path / "mixed", trivec.load(tmp_path / "mixed", device="cpu", precision="fp16")
    assert opened._open()["default"].session.layout == "rows"
    assert re.search(
        r"fp16 CUDA +45\.\d MB, packed; proven on a machine by: trivec verify --device cuda", info(str(folder))
    )
    cuda = manifest_file.read(folder).encoders["main"].cuda
    assert cuda is not None
    digests, device = [ref.sha256 or "" for ref in cuda.files], Device("cuda")
    monkeypatch.setattr(approvals, "cuda_name", lambda index: f"GPU {index}")
    chosen = partial(choice.graph_for, manifest_file.read(folder).encoders["main"], "fp16")
    assert chosen(device, "auto").variants["fp16"].layout == "rows"
    note = approvals.approve(digests, device, {"cosine_min": 0.9999})
    assert note is not None
    assert json.loads(note.read_text())["device"] == "GPU 0"
    assert chosen(device, "auto").variants["fp16"] == cuda
    assert chosen(device, "rows").variants["fp16"].layout == "rows"
    assert chosen(Device("cuda", 1), "auto").variants["fp16"].layout == "rows"  # another GPU
    assert not approvals.is_approved([*digests[:1], "0" * 64], device)  # other weights
    monkeypatch.setattr(approvals, "engine_versions", lambda: {"onnxruntime-gpu": "99"})
    assert chosen(device, "auto").variants["fp16"].layout == "rows"  # another onnxruntime


def test_verify_passes_the_graph_for_cuda_and_notes_it(
    minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIVEC_HOME", str(tmp_path / "home"))
    mixed_on_cpu(minilm, tmp_path, monkeypatch).close()
    folder, texts = tmp_path / "mixed", verification_texts()[::40]
    monkeypatch.setattr(verify, "_runs", lambda *_: [("fp16", "cpu", "rows"), ("fp16", "cpu", "mixed")])
    assert not (tmp_path / "home/approved").exists()
    checks = verify.verify(folder, texts=texts, threads=1)
    assert [(check.layout, check.failed) for check in checks] == [("rows", []), ("mixed", [])]
    assert "fp16 mixed" in verify.report(checks)
    (note,) = (tmp_path / "home/approved").iterdir()
    figures = json.loads(note.read_text())["figures"]["checks"]
    assert figures[0]["cosine_min"] >= BOUNDS["fp16"].cosine_min
    note.unlink()
    monkeypatch.setitem(HEADS["dense"], "fp16", replace(BOUNDS["fp16"], cosine_min=1.1))
    assert all(check.failed for check in verify.verify(folder, texts=texts, threads=1))
    assert not note.exists()


def test_sizes(minilm: Path) -> None:
    manifest = json.loads((minilm / "trivec.json").read_text())
    graph = onnx.load(minilm / "onnx" / "model_int8.onnx", load_external_data=False).graph
    in_float = sum(node.op_type in ("MatMul", "Gemm", "FusedMatMul") for node in graph.node)
    assert size(minilm, "model_int8.onnx") <= (27 if in_float else 24)
    assert size(minilm, "model_fp16.onnx") <= 46
    assert set(manifest["encoders"]["main"]["variants"]) == {"fp32", "fp16", "int8"}


def test_the_manifest_records_the_gates(minilm: Path) -> None:
    variants = json.loads((minilm / "trivec.json").read_text())["encoders"]["main"]["variants"]
    assert variants["fp32"]["gate"]["status"] == "measured"
    assert variants["fp16"]["gate"]["status"] == "emulated"
    assert variants["fp32"]["gate"]["cosine_min"] >= 0.99999
    assert variants["fp16"]["gate"]["cosine_min"] >= 0.9995
    assert variants["int8"]["gate"]["top10_overlap"] >= 0.9
    for variant in variants.values():
        assert variant["gate"]["texts"] == len(TEXTS)
        assert set(variant["gate"]["by_kind"]) >= {"thai", "code", "emoji", "special", "empty"}


def test_fp16_is_not_run_on_a_cpu_and_int8_not_taken_by_itself(minilm: Path) -> None:
    with pytest.raises(trivec.ProviderError, match="fp16 is not run on cpu: onnxruntime computes fp16 graphs on a CPU"):
        trivec.load(minilm, precision="fp16", device="cpu")
    with trivec.load(minilm, device="cpu") as encoder:
        assert encoder.precision == "fp32"


def test_graphs_hold_no_paths_and_no_stack_traces(minilm: Path) -> None:
    for path in (minilm / "onnx").glob("*.onnx"):
        content = path.read_bytes()
        home = str(Path.home()).encode()
        for trace in (home, b"site-packages", b"/home/", b"/tmp/", b"/usr/", b'File "', b".py", b"stack_trace"):
            assert trace not in content, (path.name, trace)
    assert not re.search(r'"/', (minilm / "trivec.json").read_text())


def test_output_precisions_use_the_stored_ranges(minilm: Path) -> None:
    from sentence_transformers.util import quantize_embeddings

    with trivec.load(minilm, device="cpu") as encoder, np.load(minilm / "arrays.npz") as arrays:
        vectors = encoder.encode(TEXTS[:50])
        for precision in ("int8", "uint8", "binary", "ubinary"):
            expected = quantize_embeddings(vectors, precision, ranges=arrays["default.ranges"])
            np.testing.assert_array_equal(encoder.encode(TEXTS[:50], precision=precision), expected)
            np.testing.assert_array_equal(encoder.encode(TEXTS[7], precision=precision), expected[7])


def test_the_report_says_what_became_of_every_layer(minilm: Path) -> None:
    report = (minilm / "REPORT.md").read_text(encoding="utf-8")
    manifest = json.loads((minilm / "trivec.json").read_text())
    gate = manifest["encoders"]["main"]["variants"]["int8"]["gate"]
    assert f"| int8 | {size(minilm, 'model_int8.onnx'):.1f} | {gate['cosine_min']:.6f} |" in report
    layers = re.findall(r"^\| `([^`]+)` \| (int8|fp32) \| (0\.\d{4}) \|", report, flags=re.MULTILINE)
    assert len(layers) == 36  # six layers of query, key, value, attention output and two of the feed-forward
    assert [float(error) for *_, error in layers] == sorted((float(error) for *_, error in layers), reverse=True)
    for kind in gate["by_kind"]:
        assert re.search(rf"^\| {kind} \| \S+ / \S+ \| \S+ / \S+ \| \S+ / \S+ \|$", report, flags=re.MULTILINE)
    assert "no node stayed fp32" in report


def test_no_file_of_another_kind_is_in_the_folder(minilm: Path) -> None:
    found = {p.relative_to(minilm).as_posix() for p in minilm.rglob("*") if p.is_file()}
    graphs = {f"onnx/model{s}.onnx{d}" for s in ("", "_fp16", "_int8") for d in ("", ".data")}
    graphs.add("onnx/model_fp16_cuda.onnx")  # over the weights of model_fp16.onnx
    assert found == {
        "trivec.json",
        "tokenizer.json",
        "arrays.npz",
        "REPORT.md",
        "README.md",
        "SOURCE_README.md",
        *graphs,
    }


def test_exporting_is_quiet_and_ends_in_a_table(minilm_checkpoint: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trivec", "export", str(minilm_checkpoint), str(tmp_path / "out")]
    command += ["--precision", "fp32", "--max-texts", "64"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["variant", "MB", "cosine", "min", "mean", "top-10", "ms", "a", "text", "gate"]
    assert re.fullmatch(r"fp32 +90\.\d +1\.0+ +1\.0+ +1\.0000 +\d+\.\d\d +passed", lines[1])
    assert len(lines) == 2
    for line in done.stderr.splitlines():
        assert re.match(r"(fetch|family:|reference|write|verify|wrote|not used: a pooler)", line), line
