"""Late-interaction checkpoints for tests: tiny and random, in the layouts of PyLate, Stanford and ST 6."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file

from trivec._gate.texts import verification_texts

Floats = npt.NDArray[np.float32]
HIDDEN = 64  # of the tiny architectures


@dataclass(frozen=True)
class Layer:
    """A Dense module."""

    columns: int
    bias: bool = False
    activation: str = "torch.nn.modules.linear.Identity"
    use_residual: bool = False


ONE = (Layer(24),)
SEVERAL = (Layer(64, True, "torch.nn.modules.activation.Tanh", True), Layer(48, use_residual=True), Layer(24))
"""The first adds its input, the second a product of its own."""
ODD = [
    *("", "a", "?!...", "the same", "the same", "see [Q] and [D] , or [unused0] and [unused1]", "[MASK] [SEP] it"),
    *("over and over - " * 200, "\U0001f600 \u4f60\u597d", "[QueryMarker] who?"),
]


def some_texts() -> list[str]:
    """60 texts of all kinds, and odd ones."""
    every = [text.text for text in verification_texts()]
    return [*every[:: len(every) // 50][:50], *ODD]


TEXTS = some_texts()


def pylate(folder: Path, architecture: str = "bert", layers: Sequence[Layer] = ONE, **settings: Any) -> Path:
    """A folder as PyLate writes it; `settings` go into config_sentence_transformers.json."""
    _backbone(folder, architecture)
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    size = HIDDEN
    for number, layer in enumerate(layers, 1):
        path = f"{number}_Dense"
        _dense(folder / path, size, layer)
        modules.append({"idx": number, "name": str(number), "path": path, "type": "pylate.models.Dense.Dense"})
        size = layer.columns
    _write(folder / "modules.json", modules)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": 31, "do_lower_case": False})
    stated: dict[str, Any] = {
        "model_type": "ColBERT",
        "prompts": {},
        "default_prompt_name": None,
        "similarity_fn_name": "MaxSim",
        "query_prefix": "[Q] ",
        "document_prefix": "[D] ",
        "query_length": 32,
        "document_length": 100,
        "attend_to_expansion_tokens": False,
        "skiplist_words": list(",.!?-'"),
        "do_query_expansion": True,
    }
    given = {**stated, **settings}
    _write(folder / "config_sentence_transformers.json", {k: v for k, v in given.items() if v is not ...})
    return folder


def stanford(folder: Path, architecture: str = "bert", **metadata: Any) -> Path:
    """A folder as colbert-ai writes it: the projection among the weights, the settings in artifact.metadata."""
    _backbone(folder, architecture)
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text())
    prefix = {"bert": "bert", "xlm_roberta": "roberta"}[architecture]
    weights = {f"{prefix}.{name}": value for name, value in load_file(folder / "model.safetensors").items()}
    weights["linear.weight"] = _random(24, HIDDEN, seed=3)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    _write(folder / "config.json", {**config, "architectures": ["HF_ColBERT"]})
    if metadata:
        (folder / "artifact.metadata").write_text(json.dumps(metadata))
    return folder


def saved_again(checkpoint: Path, folder: Path, **transformer: Any) -> Path:
    """The folder that sentence-transformers 6 writes of a checkpoint; `transformer` sets keys of its Transformer."""
    oracle(checkpoint).save_pretrained(str(folder))
    path = folder / "sentence_bert_config.json"
    _write(path, {**json.loads(path.read_text()), **transformer})
    return folder


def oracle(checkpoint: Path) -> Any:
    """sentence-transformers' MultiVectorEncoder of a checkpoint, in float32 on the CPU."""
    from sentence_transformers import MultiVectorEncoder

    return MultiVectorEncoder(str(checkpoint), device="cpu", model_kwargs={"dtype": torch.float32})


def _backbone(folder: Path, architecture: str) -> None:
    """The transformer and its tokenizer, which has marks as added tokens, and Stanford's in its vocabulary."""
    from tests.support.architectures import ARCHITECTURES, _tokenizer, draw

    row = ARCHITECTURES[architecture]
    special = replace(row.special, tokens=(*row.special.tokens, "[unused0]", "[unused1]"))
    tokenizer = _tokenizer(special, row.max_length or 512)
    tokenizer.add_special_tokens({"mask_token": next(token for token in special.tokens if "mask" in token.lower())})
    tokenizer.add_tokens(["[Q] ", "[D] ", "[QueryMarker]", "[DocumentMarker]"])
    config = row.config()
    config.vocab_size = len(tokenizer)
    model = row.model(config).eval()
    draw(model, row.embedding)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _dense(folder: Path, size: int, layer: Layer) -> None:
    folder.mkdir(parents=True)
    weights = {"linear.weight": _random(layer.columns, size, seed=layer.columns)}
    if layer.bias:
        weights["linear.bias"] = _random(layer.columns, 1, seed=1)[:, 0]
    if layer.use_residual and layer.columns != size:
        weights["residual.weight"] = _random(layer.columns, size, seed=2)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    stated = {"in_features": size, "out_features": layer.columns, "bias": layer.bias}
    more = {"use_residual": True} if layer.use_residual else {}
    _write(folder / "config.json", {**stated, "activation_function": layer.activation, **more})


def _random(rows: int, columns: int, seed: int) -> torch.Tensor:
    drawn: torch.Tensor = torch.randn((rows, columns), generator=torch.Generator().manual_seed(seed)) * columns**-0.5
    return drawn


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))
