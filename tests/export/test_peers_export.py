"""The pains that users of comparable libraries report, by their row in the survey of peers (section 3, 25 rows).

One test a row, from the user's end, for the rows that need a checkpoint; the others and what is left out are in
`tests/runtime/test_peers.py`.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import quantize_dynamic
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tests.support import sparse_models as made
from tests.support.architectures import make
from tests.support.oracle import least_cosine, reference
from tests.support.save_model import save_model
from transformers import AutoTokenizer, XLMRobertaModel

import trivec
from trivec._cli.main import main
from trivec._engine.session import Session
from trivec._gate.figures import BOUNDS, Bounds
from trivec._gate.texts import verification_texts
from trivec._loading.load_keywords import Precision

LENGTH = 24  # tokens that the tuned model reads; its BERT has 128 positions
PROMPTS = {"query": "query: ", "document": "passage: "}
TEXTS = [text.text for text in verification_texts()[::13]]


@dataclass(frozen=True)
class Tuned:
    """Somebody's own model: modules after the pooling, prompts, a length limit; in no list of names."""

    checkpoint: Path
    folder: Path
    oracle: SentenceTransformer

    def load(self, **options: Any) -> trivec.DenseEncoder:
        encoder: trivec.DenseEncoder = trivec.load(self.folder, **{"device": "cpu", "threads": 1, **options})
        return encoder


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """These models are too small for more; where the cores are busy, torch's threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """Exported to fp32 and int8 from a Hub cache, where every file is a link into another folder."""
    work = tmp_path_factory.mktemp("tuned")
    torch.manual_seed(1)
    modules = [
        Transformer(str(make("bert", work / "bert")), max_seq_length=LENGTH),
        Pooling(64, ("cls", "mean")),
        Dense(128, 48, activation_function=torch.nn.Tanh()),
        Normalize(),
    ]
    model = SentenceTransformer(modules=modules, device="cpu", prompts=PROMPTS)
    saved = save_model(model, work / "saved")
    links = work / "snapshots" / "main"
    for index, path in enumerate(p for p in saved.rglob("*") if p.is_file()):
        blob, link = work / "blobs" / str(index), links / path.relative_to(saved)
        for place in (blob, link):
            place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, blob)
        link.symlink_to(blob)
    trivec.export(links, work / "model", precision=["fp32", "int8"], max_texts=64, quiet=True)
    shutil.rmtree(links)  # the cache is cleared
    shutil.rmtree(work / "blobs")
    return Tuned(saved, work / "model", reference(saved))


# ---- speed and memory ------------------------------------------------------------------------------------------------


def test_row_02_the_same_vectors_from_fewer_tokens_than_sentence_transformers(
    tuned: Tuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2: an ONNX library that is slower than the torch one it replaces, for it computes padding."""
    rng = np.random.default_rng(0)
    words = ["the", "rain", "in", "spain", "hello", "world", "one", "two", "three"]
    texts = [" ".join(rng.choice(words, size=n)) for n in rng.integers(1, 40, size=256)]
    ours: list[int] = []
    theirs: list[int] = []
    run = Session.run_all

    def counted(self: Session, ids: Any, outputs: Any) -> Any:
        ours.append(ids.size)
        return run(self, ids, outputs)

    monkeypatch.setattr(Session, "run_all", counted)
    hook = tuned.oracle[0].register_forward_pre_hook(lambda _, given: theirs.append(given[0]["input_ids"].numel()))
    with tuned.load() as encoder:
        assert least_cosine(encoder.encode(texts), tuned.oracle.encode(texts)) >= 0.99999
        needed = sum(len(ids) for ids in encoder.tokenize(sorted(set(texts))))
    hook.remove()
    assert sum(ours) == needed < sum(theirs)


SPLADE = """
import json, random, re, sys, trivec

def mb(key):
    return int(re.search(key + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024

encoder = trivec.load(sys.argv[1], device="cpu", threads=1)
rng, words = random.Random(0), ["rain", "sun", "wind", "snow", "ice"]
texts = [" ".join(rng.choices(words, k=62)) for _ in range(96)]
encoder.encode("warm up")
before = mb("VmRSS")
rows = encoder.encode(texts)
assert len(set(texts)) == 96 and {len(ids) for ids in encoder.tokenize(texts)} == {64}
print(json.dumps([mb("VmHWM") - before, list(rows.shape), len(rows.values)]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_row_03_splade_never_holds_the_logits_of_every_token(minilm_checkpoint: Path, tmp_path: Path) -> None:
    """3: SPLADE that holds a number for every text, token and term, and runs out of memory at 16 texts."""
    tokenizer = AutoTokenizer.from_pretrained(minilm_checkpoint)
    checkpoint = made.masked_lm("bert", tmp_path / "splade", tokenizer, bias=-4.0)
    folder = trivec.export(checkpoint, tmp_path / "model", precision=["fp32"], max_texts=64, quiet=True)
    done = subprocess.run([sys.executable, "-c", SPLADE, str(folder)], capture_output=True, text=True, check=True)
    grown, shape, count = json.loads(done.stdout)
    assert shape == [96, 30522]
    assert count > 96
    logits = 64 * 30522 * 4 / 2**20  # MB a text
    assert grown < 32 * logits  # the numbers of a third of the texts; torch has several such arrays at once


# ---- int8 and fp16 ---------------------------------------------------------------------------------------------------


def test_row_06_int8_vectors_do_not_change_with_the_batch(tuned: Tuned, tmp_path: Path) -> None:
    """6: int8 vectors that change with the batch size, the padding and the neighbours, so that an index drifts."""
    order = np.random.default_rng(0).permutation(len(TEXTS))
    with tuned.load(precision="int8") as encoder:
        alone = np.stack([encoder.encode(text) for text in TEXTS])
        shuffled = np.empty_like(alone)
        shuffled[order] = encoder.encode([TEXTS[i] for i in order], batch_size=7)
        windows = np.concatenate(list(encoder.encode_iter(TEXTS, window=5)))
        for vectors in (encoder.encode(TEXTS), encoder.encode(TEXTS, batch_size=1), shuffled, windows):
            assert_allclose(vectors, alone, rtol=0, atol=1e-6)
        rows = np.array(encoder.tokenize([f"rain {i} in spain" for i in range(9)]))  # (9, S)
    quantize_dynamic(tuned.folder / "onnx/model.onnx", tmp_path / "theirs.onnx")
    theirs = onnxruntime.InferenceSession(tmp_path / "theirs.onnx", providers=["CPUExecutionProvider"])
    together, first = (theirs.run(["token_embeddings"], {"input_ids": ids})[0][0] for ids in (rows, rows[:1]))
    assert np.abs(together - first).max() > 1e-2  # what the libraries do whose users complain


def test_row_07_no_pair_of_int8_weights_saturates_16_bits(tuned: Tuned) -> None:
    """7: int8 graphs that give wrong numbers on AVX2 and AVX512 without VNNI.

    There a kernel adds two products of an unsigned and a signed byte in 16 bits, and cuts what does not fit.
    """
    graph = onnx.load(tuned.folder / "onnx/model_int8.onnx").graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    layers = [node for node in graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert len(layers) == 12
    for node in layers:
        weight = arrays[node.input[1]].astype(np.int32)  # (K, N)
        assert weight.any()
        pairs = np.pad(weight, ((0, len(weight) % 2), (0, 0))).reshape(-1, 2, weight.shape[1])  # (K / 2, 2, N)
        for signs in ((255, 255), (255, 0), (0, 255)):  # the activations that drive a sum furthest
            sums = pairs[:, 0] * signs[0] + pairs[:, 1] * signs[1]
            assert_array_equal(np.clip(sums, -(2**15), 2**15 - 1), sums)


def test_row_08_a_variant_that_is_not_faithful_ends_the_command_with_an_error(
    tuned: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """8: a quantized model that has lost its quality, and a validator that warns, of figures that nobody believes."""
    texts = verification_texts()
    expected = tuned.oracle.encode([text.text for text in texts], prompt="")
    with tuned.load(precision="int8") as encoder:
        gate = encoder.manifest.encoders["main"].variants["int8"].gate or {}
        cosines = (encoder.encode([text.text for text in texts], prompt="") * expected).sum(1)
        assert cosines.min() - 1e-6 <= gate["cosine_min"] <= 1  # it saw 64 of these texts
        assert abs(float(cosines.mean()) - gate["cosine_mean"]) < 2e-3
    monkeypatch.setitem(BOUNDS, "int8", Bounds(cosine_min=1.0, cosine_mean=1.0))  # no int8 reaches it
    out = tmp_path / "out"
    command = ["export", str(make("bert", tmp_path / "bert")), str(out), "--precision", "fp32,int8"]
    assert main([*command, "--max-texts", "64", "--quiet"]) == 1
    assert "int8 is not faithful to torch: cosine min 0.9" in capsys.readouterr().err
    with pytest.raises(trivec.ModelNotFoundError, match="has no int8 variant; it has: fp32"):
        trivec.load(out, device="cpu", precision="int8")


def every_value(path: Path, ids: list[int]) -> dict[str, Any]:
    """Each node's outputs for one text, as onnxruntime computes them node by node."""
    model = onnx.load(path)
    names = [name for node in model.graph.node for name in node.output if name]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = session.run(names, {"input_ids": np.array([ids])})
    return dict(zip(names, found, strict=True))


def test_row_10_activations_beyond_float16_stay_finite(tmp_path: Path) -> None:
    """10: Gemma's activations reach 800,000, and float16 ends at 65,504."""
    checkpoint = make("gemma3_bidirectional", tmp_path / "gemma")
    weights = load_file(checkpoint / "model.safetensors")
    (name,) = (key for key in weights if key.endswith("layers.1.mlp.down_proj.weight"))
    weights[name] *= 3e5  # the norm behind it undoes it
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    folder = trivec.export(checkpoint, tmp_path / "model", precision=["fp32", "fp16"], max_texts=64, quiet=True)
    with trivec.load(folder, device="cpu", threads=1) as encoder:
        gate = encoder.manifest.encoders["main"].variants["fp16"].gate or {}
        ids = encoder.tokenize("the rain in spain stays mainly in the plain")[0]
    exact, half = (every_value(folder / f"onnx/model{name}.onnx", ids) for name in ("", "_fp16"))
    assert max(np.abs(value).max() for value in exact.values() if value.dtype == np.float32) > 65504
    assert sum(value.dtype == np.float16 for value in half.values()) > len(half) / 2
    assert [name for name, value in half.items() if not np.isfinite(value).all()] == []
    assert least_cosine(half["token_embeddings"][0], exact["token_embeddings"][0]) >= 0.999
    assert gate["cosine_min"] >= 0.9995


# ---- models ----------------------------------------------------------------------------------------------------------


HYBRID = """
import json, sys
for name in ("torch", "transformers", "FlagEmbedding", "sentence_transformers"):
    sys.modules[name] = None
import onnxruntime, trivec
opened, real = [], onnxruntime.InferenceSession
onnxruntime.InferenceSession = lambda *args, **options: opened.append(args[0]) or real(*args, **options)
encoder = trivec.load(sys.argv[1], device="cpu", threads=1)
found = encoder.encode(json.loads(sys.argv[2]), return_colbert_vecs=True)
colbert = [vectors.tolist() for vectors in found.colbert]
print(json.dumps([len(opened), found.dense.tolist(), found.sparse.to_dicts(), colbert]))
"""


def test_row_15_bge_m3_gives_all_three_without_torch(minilm_checkpoint: Path, tmp_path: Path) -> None:
    """15: BGE-M3's sparse and ColBERT vectors, which only torch libraries give."""
    checkpoint = made.bge_m3(tmp_path / "m3", minilm_checkpoint / "tokenizer.json", colbert=24)
    folder = trivec.export(checkpoint, tmp_path / "model", precision=["fp32"], max_texts=64, quiet=True)
    texts = ["the rain in spain", "hello, world", "rain rain go away"]
    command = [sys.executable, "-c", HYBRID, str(folder), json.dumps(texts)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    sessions, dense, sparse, colbert = json.loads(done.stdout)
    assert sessions == 1
    tokenizer, model = AutoTokenizer.from_pretrained(checkpoint), XLMRobertaModel.from_pretrained(checkpoint).eval()
    terms, several = (torch.load(checkpoint / f"{name}_linear.pt") for name in ("sparse", "colbert"))
    special = set(tokenizer.all_special_ids)
    for i, text in enumerate(texts):  # as FlagEmbedding computes them
        given = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            states = model(**given).last_hidden_state[0]  # (S, H)
        expected: dict[str, float] = {}
        weights = torch.relu(states @ terms["weight"].T + terms["bias"])[:, 0]  # (S,)
        for token, weight in zip(given["input_ids"][0].tolist(), weights.tolist(), strict=True):
            if token not in special and weight > expected.get(str(token), 0.0):
                expected[str(token)] = weight
        assert sparse[i] == pytest.approx(expected, abs=1e-4)
        assert expected
        assert_allclose(dense[i], torch.nn.functional.normalize(states[0], dim=0), atol=1e-5)
        vectors = torch.nn.functional.normalize(states[1:] @ several["weight"].T + several["bias"], dim=1)
        assert_allclose(colbert[i], vectors, atol=1e-5)


def test_row_16_a_tuned_model_loads_from_any_folder_with_all_its_modules(tuned: Tuned, tmp_path: Path) -> None:
    """16: an ONNX file without pooling and norm, and local or fine-tuned models that are refused by their name."""
    moved = tmp_path / "Modèle à moi (v2)" / "été.final"
    shutil.copytree(tuned.folder, moved)
    expected = tuned.oracle.encode(TEXTS)
    with trivec.load(moved, device="cpu", threads=1) as encoder:
        vectors = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), 48)
    assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert_allclose(vectors, expected, atol=1e-5)
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, TEXTS)), encoding="utf-8")
    out = tmp_path / "out.npy"
    assert main(["encode", str(moved), str(tmp_path / "texts.jsonl"), "-o", str(out), "--device", "cpu"]) == 0
    assert_allclose(np.load(out), expected, atol=1e-5)


def test_row_17_the_folder_holds_its_weights_itself(tuned: Tuned, tmp_path: Path) -> None:
    """17: weights beside a graph that are lost when it is saved, and links of the Hub's cache that are refused."""
    files = [path for path in tuned.folder.rglob("*") if not path.is_dir()]
    assert [path.name for path in files if path.is_symlink()] == []  # the checkpoint was nothing but links
    graphs: dict[Precision, str] = {"fp32": "model.onnx", "int8": "model_int8.onnx"}
    for precision, name in graphs.items():
        graph = onnx.load(tuned.folder / "onnx" / name, load_external_data=False).graph
        places = {
            entry.value
            for tensor in graph.initializer
            if tensor.data_location == TensorProto.EXTERNAL
            for entry in tensor.external_data
            if entry.key == "location"
        }
        assert places == {f"{name}.data"}
        with tuned.load(precision=precision) as encoder:
            listed = {reference.path for reference in encoder.manifest.files(precision)}
        assert {f"onnx/{name}", f"onnx/{name}.data"} <= listed
        copy = Path(shutil.copytree(tuned.folder, tmp_path / precision))
        (copy / f"onnx/{name}.data").unlink()
        with pytest.raises(trivec.IntegrityError, match=rf"{name}\.data is missing; the manifest lists it"):
            trivec.load(copy, device="cpu", precision=precision)


def test_row_18_queries_and_passages_get_their_prompts(tuned: Tuned) -> None:
    """18: prompts that are ignored, so that a query and a passage of the same words have the same vector."""
    with tuned.load() as encoder:
        queries, passages = encoder.encode_query(TEXTS), encoder.encode_document(TEXTS)
        assert_allclose(queries, tuned.oracle.encode_query(TEXTS), atol=1e-5)
        assert_allclose(passages, tuned.oracle.encode_document(TEXTS), atol=1e-5)
        assert np.abs(queries - passages).max(1).min() > 1e-3  # every one of them differs
        assert_array_equal(encoder.encode(TEXTS, prompt_name="document"), passages)
        with pytest.raises(trivec.InputError, match=r"'querry' is none of this model's prompts .*'document', 'query'"):
            encoder.encode(TEXTS, prompt_name="querry")


def test_row_19_the_length_limit_is_the_models_and_what_is_cut_is_told(tuned: Tuned) -> None:
    """19: texts cut in silence, or at another length than the documentation says."""
    long = [" ".join(f"{word}{i}" for i in range(9)) for word in ("alpha", "beta", "gamma")]
    texts = ["short", *long, "a"]
    with tuned.load() as encoder:
        assert encoder.max_seq_length == tuned.oracle.max_seq_length == LENGTH
        assert [len(ids) for ids in encoder.tokenize(texts)][1:4] == [LENGTH] * 3
        cut = np.concatenate(list(encoder.encode_iter(texts, window=2)))
        assert_allclose(cut, tuned.oracle.encode(texts), atol=1e-5)
        assert encoder.truncated == 3
        with pytest.raises(
            trivec.TruncationError, match=r"3 of 5 texts are longer than 24 tokens, the first at index 1"
        ):
            encoder.encode(texts, on_overflow="error")
        encoder.max_seq_length = 128
        oracle = reference(tuned.checkpoint)
        oracle.max_seq_length = 128
        whole = encoder.encode(texts, on_overflow="error")
        assert_allclose(whole, oracle.encode(texts), atol=1e-5)
        assert np.abs(whole - cut).max(1)[1:4].min() > 1e-3  # what was cut had counted
        assert encoder.truncated == 3
        with pytest.raises(trivec.InputError, match="max_seq_length can be at most 128, the positions of this model"):
            encoder.max_seq_length = 512
