"""Tiny models with sparse and token heads, whose graphs look up rows of tables that the tests know."""

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from tests.support.tiny_model import TinyModel

from trivec._model import manifest as manifest_module
from trivec._model import manifest_file
from trivec._model.integrity import describe
from trivec._model.manifest import EncoderSpec, Manifest, Multi, Pooling, Route, Sparse, Step, Variant

Floats = npt.NDArray[np.float32]


TERMS, LIMIT = 24, 16  # the vocabulary of the tiny tokenizer, and how many tokens it reads


PROMPTS = {"query": "find the ", "document": "", "long": "small " * 20}


@dataclass(frozen=True)
class Tiny:
    """A folder, and what its graph looks up."""

    folder: Path
    source: "TinyModel"
    tables: dict[str, Floats]

    def ids(self, text: str) -> list[int]:
        """[CLS] words [SEP]."""
        return self.source.ids(text)

    def term(self, word: str) -> int:
        return self.ids(word)[1]

    def pooled(self, texts: Sequence[str]) -> Floats:
        """(N, V) greatest logits."""
        return np.stack([self.tables["pooled_logits"][self.ids(text)].max(0) for text in texts])

    def expected(self, texts: Sequence[str]) -> Floats:
        """(N, V) weights of documents."""
        return np.log1p(np.maximum(self.pooled(texts), 0))


def write(folder: Path, source: "TinyModel", tables: dict[str, Floats], pool: str = "ReduceMax") -> dict[str, Variant]:
    """A graph: for each name, rows of its table by token id; `pooled_logits` is reduced over the tokens."""
    (folder / "onnx").mkdir(parents=True)
    for name in ("tokenizer.json", "query.json"):
        shutil.copy(source.folder / "tokenizer.json", folder / name)
    nodes, outputs = [], []
    for name, table in tables.items():
        pooled = name == "pooled_logits"
        nodes.append(helper.make_node("Gather", [f"{name}.table", "input_ids"], ["rows" if pooled else name]))
        shape = ["batch", *([] if pooled else ["tokens"]), *table.shape[1:]]
        if pooled:
            nodes.append(helper.make_node(pool, ["rows", "axis"], [name], keepdims=0))
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    given = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])
    constants = [numpy_helper.from_array(table, f"{name}.table") for name, table in tables.items()]
    constants.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
    graph = helper.make_graph(nodes, "tiny", [given], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save_model(model, folder / "onnx/model.onnx")
    files = describe(folder, "onnx/model.onnx")
    return {"fp32": Variant((files,), ("input_ids",), next(iter(tables)), 18)}


def save(folder: Path, manifest: Manifest, arrays: dict[str, Floats] | None = None) -> None:
    if arrays:
        np.savez(folder / "arrays.npz", **arrays)  # type: ignore[arg-type]
        manifest = dataclasses.replace(manifest, arrays=describe(folder, "arrays.npz"))
    (folder / manifest_module.FILE_NAME).write_text(manifest_file.dumps(manifest), encoding="utf-8")


def splade(
    folder: Path, source: "TinyModel", logits: Floats, weights: Floats, *, pool: str = "ReduceMax", **changes: Any
) -> Tiny:
    """Documents from a graph, queries from a table."""
    tables = {"pooled_logits": logits}
    variants = write(folder, source, tables, pool)
    encoder = EncoderSpec(describe(folder, "tokenizer.json"), LIMIT, 2 * LIMIT, variants, special_ids=(2, 3))
    query = EncoderSpec(describe(folder, "query.json"), None, None, {}, add_special_tokens=False)
    activation = "relu" if pool == "ReduceMax" else "none"
    manifest = Manifest(
        family="splade",
        dim=TERMS,
        encoders={"main": encoder, "query": query},
        routes={
            "query": Route("query", None, sparse=Sparse("table", TERMS, array="query.weights")),
            "document": Route("main", None, sparse=Sparse("splade", TERMS, "pooled_logits", activation)),
        },
        default_route="document",
        prompts=PROMPTS,
        similarity="dot",
    )
    save(folder, dataclasses.replace(manifest, **changes), {"query.weights": weights})
    return Tiny(folder, source, tables)


def hybrid(folder: Path, source: "TinyModel", **changes: Floats) -> Tiny:
    """Three outputs."""
    rng = np.random.default_rng(4)
    tables = {
        "token_embeddings": rng.normal(size=(TERMS, 5)).astype(np.float32),
        "token_weights": np.maximum(rng.normal(size=TERMS), 0).astype(np.float32),
        "colbert_vecs": rng.normal(size=(TERMS, 3)).astype(np.float32),
    } | changes
    variants = write(folder, source, tables)
    encoder = EncoderSpec(describe(folder, "tokenizer.json"), LIMIT, None, variants, special_ids=(2, 3))
    route = Route(
        "main",
        Pooling(("cls",)),
        (Step("normalize"),),
        Sparse("lexical", TERMS, "token_weights", dropped_ids=(0, 1, 2, 3)),
        Multi("colbert_vecs", 3),
    )
    save(folder, Manifest("bge-m3", 5, {"main": encoder}, {"default": route}, "default", PROMPTS))
    return Tiny(folder, source, tables)


def random_logits() -> Floats:
    return np.random.default_rng(2).normal(size=(TERMS, TERMS)).astype(np.float32)


def random_weights() -> Floats:
    return np.random.default_rng(3).normal(size=TERMS).astype(np.float32)


def unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), dtype=np.float32)
