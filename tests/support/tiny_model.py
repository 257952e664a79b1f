"""A tiny model folder, made without torch, and what it must give, computed in numpy."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from trivec._model import manifest as manifest_module
from trivec._model import manifest_file
from trivec._model.integrity import describe
from trivec._model.manifest import EncoderSpec, FileRef, Manifest, Pooling, Route, Variant

Floats = npt.NDArray[np.float32]


SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


# fmt: off
WORDS = ("find", "a", "the", "cat", "dog", "sat", "ran", "on", "under", "mat", "hill", "red", "blue", "small", "old",
         "house", "river", "boat", "tree", "bird")
# fmt: on


# fmt: on
DIM = 12  # no multiple of 8: binary vectors end in a part of a byte


MAX_TOKENS = 16


PROMPTS = {"query": "find the ", "document": ""}


@dataclass(frozen=True)
class TinyModel:
    """The model: ids -> table[ids] @ weight -> tanh -> mean over the tokens."""

    folder: Path
    weights: dict[str, tuple[Floats, Floats]]
    """By precision: the embedding table (V, D) and the matrix (D, D)."""
    ranges: Floats
    """(2, D) least and greatest value of each dimension, as stored in the folder."""
    normalized_ranges: Floats

    def ids(self, text: str) -> list[int]:
        """[CLS] words [SEP], cut at MAX_TOKENS."""
        vocabulary = {word: i for i, word in enumerate((*SPECIAL, *WORDS))}
        words = [vocabulary.get(word, 1) for word in re.findall(r"\w+|[^\w\s]+", text.lower())]
        return [2, *words[: MAX_TOKENS - 2], 3]

    def expected(self, texts: Sequence[str], precision: str = "fp32") -> Floats:
        """(N, D) vectors, not normalized."""
        table, weight = self.weights[precision]
        rows = [np.tanh(table[self.ids(text)] @ weight).mean(0) for text in texts]  # (S, D) -> (D,)
        return np.stack(rows) if rows else np.zeros((0, DIM), dtype=np.float32)


def write_tiny_model(folder: Path) -> TinyModel:
    """Write a trivec folder with an fp32 and an int8 variant (the same graph with rounded weights)."""
    rng = np.random.default_rng(7)
    table = rng.normal(size=(len(SPECIAL) + len(WORDS), DIM)).astype(np.float32)
    weight = rng.normal(scale=0.5, size=(DIM, DIM)).astype(np.float32)
    weights = {"fp32": (table, weight), "int8": (_rounded(table), _rounded(weight))}
    (folder / "onnx").mkdir(parents=True)
    _write_tokenizer(folder / "tokenizer.json")
    variants = {
        precision: Variant(
            files=_write_graph(folder, f"onnx/model{suffix}.onnx", *weights[precision]),
            inputs=("input_ids",),
            output="token_embeddings",
            opset=17,
            needs=("cpu",) if precision == "int8" else (),
            gate={"status": "passed", "cosine_min": 0.98765, "cosine_mean": 0.999, "texts": 1234, "worst": "a text"},
        )
        for precision, suffix in (("fp32", ""), ("int8", "_int8"))
    }
    model = TinyModel(folder, weights, np.zeros((2, DIM), np.float32), np.zeros((2, DIM), np.float32))
    vectors = model.expected([f"{a} {b}" for a in WORDS for b in WORDS])  # (N, D)
    ranges, normalized = (np.stack([v.min(0), v.max(0)]) for v in (vectors, _unit(vectors)))  # (2, D)
    arrays: dict[str, Any] = {"default.ranges": ranges, "default.normalized_ranges": normalized}
    np.savez(folder / "arrays.npz", **arrays)
    manifest = Manifest(
        family="dense",
        dim=DIM,
        encoders={
            "main": EncoderSpec(
                describe(folder, "tokenizer.json"), MAX_TOKENS, 2 * MAX_TOKENS, variants, special_ids=(2, 3)
            )
        },
        routes={"default": Route("main", Pooling(("mean",)), ())},
        default_route="default",
        prompts=PROMPTS,
        arrays=describe(folder, "arrays.npz"),
        source={"name": "tests/tiny", "revision": "0123abc"},
        tools={"onnx": onnx.__version__},
    )
    (folder / manifest_module.FILE_NAME).write_text(manifest_file.dumps(manifest), encoding="utf-8")
    return TinyModel(folder, weights, ranges, normalized)


def _rounded(array: Floats) -> Floats:
    scale = np.abs(array).max() / 127
    rounded: Floats = (np.round(array / scale) * scale).astype(np.float32)
    return rounded


def _unit(vectors: Floats) -> Floats:
    norms: Floats = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / norms


def _write_tokenizer(path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate((*SPECIAL, *WORDS))}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(path))


def _write_graph(folder: Path, name: str, table: Floats, weight: Floats) -> tuple[FileRef, ...]:
    """input_ids (B, S) -> token_embeddings (B, S, D), the weights in a file beside the graph."""
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["embedded"], axis=0),
            helper.make_node("MatMul", ["embedded", "weight"], ["mixed"]),
            helper.make_node("Tanh", ["mixed"], ["token_embeddings"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
        [helper.make_tensor_value_info("token_embeddings", TensorProto.FLOAT, ["batch", "tokens", DIM])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data = f"{Path(name).name}.data"
    onnx.save_model(model, folder / name, save_as_external_data=True, location=data, size_threshold=0)
    return describe(folder, name), describe(folder, f"{name}.data")
