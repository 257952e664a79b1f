"""A tiny late-interaction folder, made without torch, and what it must give, computed text by text in numpy."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from tests.support.tiny_model import MAX_TOKENS, SPECIAL, WORDS, _write_tokenizer

from trivec._model import manifest as manifest_module
from trivec._model import manifest_file
from trivec._model.integrity import describe
from trivec._model.manifest import EncoderSpec, Expansion, Manifest, Multi, Route, Variant

Floats = npt.NDArray[np.float32]
DIM = 6
QUERY_MARK, DOCUMENT_MARK, MASK = 22, 23, 0  # "tree", "bird", "[PAD]"
QUERY_LENGTH, DOCUMENT_LENGTH = 8, 12
DROPPED = (4, 6)  # "find", "the"


@dataclass(frozen=True)
class TinyLate:
    """A token's vector is that of its id plus the mean of those that are seen."""

    folder: Path
    table: Floats
    """(V, D)."""
    expansion: Expansion | None

    def ids(self, text: str, task: str) -> tuple[list[int], int]:
        """[CLS] mark words [SEP], cut, and filled up where it is a query; and how many of them are seen."""
        vocabulary = {word: i for i, word in enumerate((*SPECIAL, *WORDS))}
        words = [vocabulary.get(word, 1) for word in re.findall(r"\w+|[^\w\s]+", text.lower())]
        mark, length = (QUERY_MARK, QUERY_LENGTH) if task == "query" else (DOCUMENT_MARK, DOCUMENT_LENGTH)
        ids = [2, mark, *words[: length - 3], 3]
        if task != "query" or self.expansion is None:
            return ids, len(ids)
        full = ids + [self.expansion.token_id] * (self.expansion.length - len(ids))
        return full, len(full) if self.expansion.attended else len(ids)

    def vectors(self, texts: Sequence[str], task: str, width: int = DIM) -> list[Floats]:
        """(t, D) of each text, of length 1."""
        found = []
        for text in texts:
            ids, seen = self.ids(text, task)
            states = self.table[ids] + self.table[ids[:seen]].mean(0)  # (S, D)
            kept = states[[i not in DROPPED or task == "query" for i in ids]][:, :width]
            found.append((kept / np.linalg.norm(kept, axis=1, keepdims=True)).astype(np.float32))
        return found

    def scores(self, queries: Sequence[str], documents: Sequence[str]) -> Floats:
        """(N, M), by definition."""
        q, d = self.vectors(queries, "query"), self.vectors(documents, "document")
        return np.array([[(one @ other.T).max(1).sum() for other in d] for one in q], dtype=np.float32)


UNSEEN = Expansion(MASK, QUERY_LENGTH)


def write_tiny_late(folder: Path, expansion: Expansion | None = UNSEEN, **changes: Any) -> TinyLate:
    """A model folder of one tiny graph, which reads what is seen."""
    table = np.random.default_rng(5).normal(size=(len(SPECIAL) + len(WORDS), DIM)).astype(np.float32)
    (folder / "onnx").mkdir(parents=True)
    _write_tokenizer(folder / "tokenizer.json")
    _write_graph(folder / "onnx/model.onnx", table)
    variant = Variant(
        (describe(folder, "onnx/model.onnx"),), ("input_ids", "seen"), "token_vectors", 17, gate={"status": "none"}
    )
    encoder = EncoderSpec(
        describe(folder, "tokenizer.json"), MAX_TOKENS, 2 * MAX_TOKENS, {"fp32": variant}, special_ids=(2, 3)
    )
    query = Multi("token_vectors", DIM, skip=0, prefix_ids=(QUERY_MARK,), expansion=expansion)
    document = Multi("token_vectors", DIM, skip=0, prefix_ids=(DOCUMENT_MARK,), dropped_ids=DROPPED)
    manifest = Manifest(
        family="late",
        dim=DIM,
        encoders={"main": encoder},
        routes={
            "query": Route("main", None, multi=query, max_seq_length=QUERY_LENGTH),
            "document": Route("main", None, multi=document, max_seq_length=DOCUMENT_LENGTH),
        },
        default_route="document",
        prompts={"query": "", "document": "", "wanted": "the "},
        similarity="maxsim",
        source={"name": "tests/tiny-late", "revision": "0123abc"},
    )
    text = manifest_file.dumps(replace(manifest, **changes))
    (folder / manifest_module.FILE_NAME).write_text(text, encoding="utf-8")
    return TinyLate(folder, table, expansion)


def _write_graph(path: Path, table: Floats) -> None:
    """input_ids (B, S), seen (n,) -> token_vectors (B, S, D)."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"], axis=0),
        helper.make_node("Gather", ["embedded", "seen"], ["known"], axis=1),  # (B, n, D)
        helper.make_node("ReduceMean", ["known"], ["context"], axes=[1], keepdims=1),
        helper.make_node("Add", ["embedded", "context"], ["token_vectors"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"]),
            helper.make_tensor_value_info("seen", TensorProto.INT64, ["seen"]),
        ],
        [helper.make_tensor_value_info("token_vectors", TensorProto.FLOAT, ["batch", "tokens", DIM])],
        [numpy_helper.from_array(table, "table")],
    )
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
