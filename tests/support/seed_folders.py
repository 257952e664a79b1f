"""One small, honest folder of each layout that trivec reads: what the corpus of hostile ones and the fuzzer change."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file
from tests.support import static_models, tiny_heads
from tests.support.tiny_model import write_tiny_model

from trivec.lexical import BM25

_LIBRARY = "sentence_transformers.models."
_CARD = '---\nbase_model: someone/something\n---\n# A model\n```python\nmodel = f(x, pooling="mean")\n```\n'
_VOCABULARY = 24


def write_seed_folders(root: Path) -> dict[str, Path]:
    """Write them all below a folder: by name, where each is."""
    tiny = write_tiny_model(root / "exported")
    tiny_heads.splade(root / "splade", tiny, tiny_heads.random_logits(), tiny_heads.random_weights())
    tiny_heads.hybrid(root / "hybrid", tiny)
    _sentence_transformers(root / "modules", tiny.folder / "tokenizer.json")
    _router(root / "router", tiny.folder / "tokenizer.json")
    _bare(root / "bare", tiny.folder / "tokenizer.json")
    static_models.model2vec_folder(root / "model2vec", normalize=True)
    _static_embedding(root / "static")
    (root / "bm25").mkdir()
    bm25 = BM25(str.split)
    bm25.fit(["the cat sat on the mat", "a dog ran up the hill", "rivers and boats"])
    bm25.save(root / "bm25/bm25.json")
    return {path.name: path for path in sorted(root.iterdir())}


def write_graph(path: Path, output: str, dim: int = 6) -> None:
    """input_ids and attention_mask (B, S) to rows of a table (B, S, dim), the weights inside."""
    table = np.random.default_rng(5).normal(size=(_VOCABULARY, dim)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
        helper.make_node("Mul", ["rows", "wide"], [output]),
    ]
    graph = helper.make_graph(
        nodes,
        "seed",
        [helper.make_tensor_value_info(n, TensorProto.INT64, ["b", "s"]) for n in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["b", "s", dim])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([2], np.int64), "last")],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def _write(folder: Path, files: dict[str, Any]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def _modules(*kinds: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"idx": i, "name": str(i), "path": path, "type": _LIBRARY + kind} for i, (kind, path) in enumerate(kinds)]


def _checkpoint(tokenizer: Path) -> dict[str, Any]:
    """What a transformers checkpoint has beside its weights."""
    return {
        "config.json": {"model_type": "bert", "architectures": ["BertModel"], "max_position_embeddings": 32},
        "tokenizer_config.json": {"model_max_length": 32, "truncation_side": "right", "padding_side": "right"},
        "tokenizer.json": tokenizer.read_text(encoding="utf-8"),
    }


def _sentence_transformers(folder: Path, tokenizer: Path) -> None:
    """Modules with a Dense layer, as SentenceTransformer.save_pretrained writes them with backend="onnx"."""
    _write(
        folder,
        {
            **_checkpoint(tokenizer),
            "modules.json": _modules(
                ("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense"), ("Normalize", "3_Normalize")
            ),
            "sentence_bert_config.json": {"max_seq_length": 16, "do_lower_case": False},
            "config_sentence_transformers.json": {"prompts": {"query": "find "}, "similarity_fn_name": "cosine"},
            "1_Pooling/config.json": {"word_embedding_dimension": 6, "pooling_mode_mean_tokens": True},
            "2_Dense/config.json": {
                "in_features": 6,
                "out_features": 4,
                "bias": True,
                "activation_function": "torch.nn.modules.activation.Tanh",
            },
        },
    )
    write_graph(folder / "onnx/model.onnx", "token_embeddings")
    rng = np.random.default_rng(6)
    weights = {
        "linear.weight": rng.normal(size=(4, 6)).astype(np.float32),
        "linear.bias": rng.normal(size=4).astype(np.float32),
    }
    save_file(weights, folder / "2_Dense/model.safetensors")


def _router(folder: Path, tokenizer: Path) -> None:
    """A Router with a transformer for queries and one for documents."""
    chain = ["query_0_Transformer", "query_1_Pooling"], ["document_0_Transformer", "document_1_Pooling"]
    kinds = {name: _LIBRARY + name.rpartition("_")[2] for names in chain for name in names}
    _write(
        folder,
        {
            "modules.json": _modules(("Router", "")),
            "router_config.json": {
                "types": kinds,
                "structure": {"query": chain[0], "document": chain[1]},
                "parameters": {
                    "default_route": "document",
                    "allow_empty_key": True,
                    "route_mappings": {"('ask', 'text')": "query"},
                },
            },
            "config.json": {},
        },
    )
    for names in chain:
        files = {f"{names[0]}/{name}": content for name, content in _checkpoint(tokenizer).items()}
        _write(folder, {**files, f"{names[1]}/config.json": {"pooling_mode": "mean"}})
        write_graph(folder / names[0] / "onnx/model.onnx", "token_embeddings")


def _bare(folder: Path, tokenizer: Path) -> None:
    """What Optimum writes, with a model card."""
    _write(folder, {**_checkpoint(tokenizer), "README.md": _CARD})
    write_graph(folder / "model.onnx", "last_hidden_state")


def _static_embedding(folder: Path) -> None:
    """A StaticEmbedding module as sentence-transformers writes it."""
    place = folder / "0_StaticEmbedding"
    place.mkdir(parents=True)
    save_file({"embedding.weight": static_models.table()}, place / "model.safetensors")
    static_models.bert_tokenizer().save(str(place / "tokenizer.json"))
    _write(
        folder,
        {
            "modules.json": static_models.modules(
                ("StaticEmbedding", "0_StaticEmbedding"), ("Normalize", "1_Normalize")
            ),
            "config_sentence_transformers.json": {"prompts": {"query": "q: "}, "default_prompt_name": None},
        },
    )
