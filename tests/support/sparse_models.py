"""Checkpoints of sparse and hybrid models: tiny, random, with weights large enough to matter."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Router
from sentence_transformers.base.modules.transformer import Transformer
from sentence_transformers.sparse_encoder.modules import MLMTransformer, SparseStaticEmbedding, SpladePooling
from tests.support.architectures import make
from tokenizers import Tokenizer
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    XLMRobertaConfig,
    XLMRobertaModel,
)

XLM_R = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "cls_token": "<s>"}
BERT = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}


def scatter(model: PreTrainedModel, seed: int, std: float = 0.25) -> None:
    """Give every weight, norms and biases included, a random value that shows in the output."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "LayerNorm.weight" in name or "layer_norm.weight" in name:
                parameter.uniform_(0.7, 1.3)
            else:
                parameter.normal_(0, std if parameter.ndim > 1 else 0.1)
    model.tie_weights()


def masked_lm(
    kind: str, folder: Path, tokenizer: PreTrainedTokenizerFast, *, length: int = 64, bias: float = 0.0
) -> Path:
    """A bare masked language model of `kind` over the tokenizer's vocabulary: `length` positions, 2 layers.

    The bias is added to all logits: without it nearly every term has a weight.
    """
    size = len(tokenizer)
    pad = tokenizer.pad_token_id
    shape = {"vocab_size": size, "pad_token_id": pad}
    wide = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    if kind == "bert":
        model: PreTrainedModel = BertForMaskedLM(BertConfig(**shape, **wide, max_position_embeddings=length))
    elif kind == "roberta":
        positions = length + pad + 1
        model = RobertaForMaskedLM(RobertaConfig(**shape, **wide, max_position_embeddings=positions, type_vocab_size=1))
    else:
        small = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
        model = DistilBertForMaskedLM(DistilBertConfig(**shape, **small, max_position_embeddings=length))
    scatter(model, seed=len(kind))
    with torch.no_grad():
        model.get_output_embeddings().bias += bias
    model.save_pretrained(folder)
    tokenizer.model_max_length = length
    tokenizer.save_pretrained(folder)
    return folder


def small_tokenizer(kind: str, folder: Path) -> PreTrainedTokenizerFast:
    """The 300 pieces that `architectures` has for "bert", "distilbert" and "roberta"."""
    return AutoTokenizer.from_pretrained(make(kind, folder))


def idf_tokenizer(shared: Path) -> PreTrainedTokenizerFast:
    """The real tokenizer of the real idf.json."""
    path = shared / "models/inference-free-idf-en/tokenizer.json"
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_file(str(path)), **BERT)


def splade(folder: Path, mlm: Path, strategy: str = "max", activation: str = "relu", **settings: Any) -> Path:
    """A masked language model as SparseEncoder saves it, with its settings (prompts, max_active_dims, ...)."""
    modules = [Transformer(str(mlm), transformer_task="fill-mask"), SpladePooling(strategy, activation)]
    SparseEncoder(modules=modules, device="cpu", **settings).save(str(folder), create_model_card=False)
    return folder


def inference_free(folder: Path, mlm: Path, table: SparseStaticEmbedding, **settings: Any) -> Path:
    """Queries from a table of weights, documents from a masked language model, as SparseEncoder saves them."""
    documents = [Transformer(str(mlm), transformer_task="fill-mask"), SpladePooling("max")]
    router = Router.for_query_document(query_modules=[table], document_modules=documents)
    SparseEncoder(modules=[router], device="cpu", **settings).save(str(folder), create_model_card=False)
    return folder


def splade_minilm(folder: Path, shared: Path, minilm: Path, *, max_seq_length: int) -> Path:
    """The real SPLADE, joined as its build.py does: the MLM head on the weights of all-MiniLM-L6-v2."""
    model = BertForMaskedLM.from_pretrained(minilm)
    model.load_state_dict(load_file(shared / "models/splade-minilm/head.safetensors"), strict=False)
    model.tie_weights()
    mlm = folder.with_name(f"{folder.name}-mlm")
    model.save_pretrained(mlm)
    AutoTokenizer.from_pretrained(minilm).save_pretrained(mlm)
    modules = [MLMTransformer(str(mlm), max_seq_length=max_seq_length), SpladePooling("max")]
    SparseEncoder(modules=modules, device="cpu").save(str(folder), create_model_card=False)
    return folder


def bge_m3(folder: Path, tokenizer_json: Path, *, colbert: int = 32, layers: int = 2, hidden: int = 32) -> Path:
    """A folder as BAAI/bge-m3 has it, with modules.json, pickled heads and the real tokenizer."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_file(str(tokenizer_json)), **XLM_R)
    tokenizer.model_max_length = 128
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=130,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    model = XLMRobertaModel(config)
    scatter(model, seed=3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config_file = folder / "tokenizer_config.json"
    named = json.loads(config_file.read_text(encoding="utf-8"))  # a class that transformers 4 knows as well
    _write(config_file, {**named, "tokenizer_class": "PreTrainedTokenizerFast"})
    torch.manual_seed(4)
    for name, size, bias in (("sparse_linear", 1, 1.5), ("colbert_linear", colbert, 0.0)):
        state = {"weight": torch.randn(size, hidden) * 0.3, "bias": torch.randn(size) * 0.1 + bias}
        torch.save(state, folder / f"{name}.pt")
    cls_modules(folder, hidden, 128)
    return folder


def cls_modules(folder: Path, hidden: int, max_seq_length: int) -> None:
    """Write modules.json and what it names, as BAAI/bge-m3 and gte-multilingual-base have it: CLS, normalized."""
    listed = [
        {
            "idx": i,
            "name": str(i),
            "path": "" if i == 0 else f"{i}_{name}",
            "type": f"sentence_transformers.models.{name}",
        }
        for i, name in enumerate(["Transformer", "Pooling", "Normalize"])
    ]
    _write(folder / "modules.json", listed)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": max_seq_length, "do_lower_case": False})
    (folder / "1_Pooling").mkdir(exist_ok=True)
    _write(folder / "1_Pooling/config.json", {"word_embedding_dimension": hidden, "pooling_mode_cls_token": True})


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
