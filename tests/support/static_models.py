"""Static models for tests: small ones with random numbers, in the layouts of Model2Vec and sentence-transformers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

Arrays = Mapping[str, npt.NDArray[Any]]
WORDS = ("the", "cat", "dog", "sat", "on", "mat", "river", "old", "red", "boat", "un", "##known", "##s", "!", "'", "-")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
SIZE = len(SPECIAL) + len(WORDS)
DIM = 7  # odd, and no multiple of what a vector register holds
MODULE = "sentence_transformers.models."  # as sentence-transformers up to 5 and Model2Vec write it


def bert_tokenizer() -> Tokenizer:
    """A WordPiece tokenizer as BERT's, which wraps texts in [CLS] and [SEP] where it is let."""
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *WORDS))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def unigram_tokenizer(unknown: int | None = 0) -> Tokenizer:
    """A Unigram tokenizer as XLM-R's; its unknown token has a number and no name."""
    pieces = [("<unk>", 0.0), *((f"▁{word}", -1.0 - i) for i, word in enumerate(WORDS)), ("▁", -30.0)]
    pieces += [(letter, -31.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
    tokenizer = Tokenizer(models.Unigram(pieces, unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def table(rows: int = SIZE, dim: int = DIM, dtype: str = "float32", seed: int = 3) -> npt.NDArray[Any]:
    """Random vectors (rows, dim)."""
    numbers = np.random.default_rng(seed).normal(size=(rows, dim))
    return (numbers * 40).astype(dtype) if dtype == "int8" else numbers.astype(dtype)


def model2vec_folder(
    folder: Path, tensors: Arrays | None = None, tokenizer: Tokenizer | None = None, **config: Any
) -> Path:
    """What Model2Vec writes; `config` is added to its config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors or {"embeddings": table()}), folder / "model.safetensors")
    (tokenizer or bert_tokenizer()).save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": "model2vec", **config}), encoding="utf-8")
    return folder


def modules(*kinds: tuple[str, str]) -> str:
    """A modules.json of these (class, path)."""
    listed = [{"idx": i, "name": str(i), "path": path, "type": MODULE + kind} for i, (kind, path) in enumerate(kinds)]
    return json.dumps(listed)
