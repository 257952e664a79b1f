"""Checkpoints of full size with random weights, for memory and speed: what a model says does not matter there.

python -m benchmarks._make_models bge-m3 OUT --tokenizer ../shared/models/xlm-roberta-tokenizer [--layers 24]
python -m benchmarks._make_models splade OUT --tokenizer FOLDER_WITH_TOKENIZER_JSON
"""

import argparse
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaModel,
)

XLM_R = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "cls_token": "<s>"}
BERT = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}


def bge_m3(folder: Path, tokenizer_json: Path, layers: int = 24) -> None:
    """BAAI/bge-m3's layout and sizes: XLM-R-large with 8,194 positions, modules.json, pickled heads."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_file(str(tokenizer_json)), **XLM_R)
    tokenizer.model_max_length = 8192
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=250002,
        hidden_size=1024,
        num_hidden_layers=layers,
        num_attention_heads=16,
        intermediate_size=4096,
        max_position_embeddings=8194,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    _save(XLMRobertaModel(config, add_pooling_layer=False), tokenizer, folder)
    for name, size in (("sparse_linear", 1), ("colbert_linear", 1024)):
        layer = torch.nn.Linear(1024, size)
        with torch.no_grad():  # a trained head gives most tokens some weight; an untrained one is noise about zero
            layer.bias.fill_(1.5 if size == 1 else 0.0)
        torch.save({"weight": layer.weight.detach(), "bias": layer.bias.detach()}, folder / f"{name}.pt")
    places = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(places.items())
    ]
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "2_Normalize").mkdir(exist_ok=True)
    files = {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": 8192, "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": 1024, "pooling_mode_cls_token": True},
    }
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value), encoding="utf-8")


def bert_base(folder: Path, tokenizer_json: Path, layers: int = 12) -> None:
    """A bert-base with mean pooling, as a sentence-transformers checkpoint."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_file(str(tokenizer_json)), **BERT)
    tokenizer.model_max_length = 512
    torch.manual_seed(0)
    config = BertConfig(num_hidden_layers=layers)
    _save(BertModel(config, add_pooling_layer=False), tokenizer, folder)
    places = {"Transformer": "", "Pooling": "1_Pooling"}
    (folder / "1_Pooling").mkdir(exist_ok=True)
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(places.items())
    ]
    pooling = {"word_embedding_dimension": 768, "pooling_mode_mean_tokens": True}
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling), encoding="utf-8")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 512}', encoding="utf-8")


def splade(folder: Path, tokenizer_json: Path) -> None:
    """A bare bert-base with its masked-language-model head and 30,522 terms."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_file(str(tokenizer_json)), **BERT)
    tokenizer.model_max_length = 512
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig())
    with torch.no_grad():  # an untrained head is positive everywhere: a bias like this leaves some hundred terms
        model.cls.predictions.bias.fill_(-1.5)
    _save(model, tokenizer, folder)


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Write one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("bge-m3", "bert-base", "splade"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True, help="a folder with tokenizer.json")
    parser.add_argument(
        "--layers", type=int, default=24, help="of bge-m3 and bert-base; fewer are quicker, each of the same shape"
    )
    args = parser.parse_args()
    tokenizer = args.tokenizer / "tokenizer.json"
    if args.kind == "bge-m3":
        bge_m3(args.out, tokenizer, args.layers)
    elif args.kind == "bert-base":
        bert_base(args.out, tokenizer, args.layers)
    else:
        splade(args.out, tokenizer)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
