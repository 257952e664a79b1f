"""Tiny random checkpoints of every architecture that the exporter claims, each with a tokenizer of its kind.

Weights are drawn large, so that attention, windows and positions matter: with the usual initializer_range of 0.02 a
model whose mask is wrong still agrees with the right one to seven digits.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

VOCAB = 300
POSITIONS = 128
WINDOW = 16
SIZES = ((1, 1), (1, 2), (4, 1), (3, 16), (5, 61))
"""(rows, tokens) at which a graph is compared: ones, odd numbers, and more than three windows."""

_BASE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": POSITIONS,
}


@dataclass(frozen=True)
class Special:
    """Special tokens of a family of tokenizers: ids are the order in `tokens`."""

    tokens: tuple[str, ...]
    pad: str
    start: str | None
    end: str | None
    side: str = "right"


BERT = Special(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), "[PAD]", "[CLS]", "[SEP]")
ROBERTA = Special(("<s>", "<pad>", "</s>", "<unk>", "<mask>"), "<pad>", "<s>", "</s>")
T5 = Special(("<pad>", "</s>", "<unk>"), "<pad>", None, "</s>")
QWEN = Special(("<|endoftext|>", "<|im_end|>", "<unk>"), "<|endoftext|>", None, "<|endoftext|>", side="left")
GEMMA = Special(("<pad>", "<eos>", "<bos>", "<unk>"), "<pad>", "<bos>", "<eos>")


@dataclass(frozen=True)
class Architecture:
    """One row of the table."""

    model: type[hf.PreTrainedModel]
    config: Callable[[], hf.PretrainedConfig]
    special: Special
    max_length: int | None
    """Tokens that the model can be given; None where its positions have no end."""
    mutations: tuple[str, ...] = field(default=())
    """What the vectors depend on besides the words: a test takes each out of the graph, which must show."""
    atol: float = 3e-5  # 2.3e-5 of 1.36 was seen of T5 with AVX2 alone
    """Largest difference to torch that float32 explains: torch is 1.4e-5 from float64 on albert, electra and T5."""
    embedding: float = 1.0
    """Scale of the embedding tables."""


def _rope(**more: Any) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 10000.0, **more}


def _special_ids(special: Special) -> dict[str, int]:
    ids = {"pad_token_id": special.tokens.index(special.pad)}
    if special.start is not None:
        ids["bos_token_id"] = special.tokens.index(special.start)
    if special.end is not None:
        ids["eos_token_id"] = special.tokens.index(special.end)
    return ids


def _gemma(**more: Any) -> hf.PretrainedConfig:
    return hf.Gemma3TextConfig(
        **{**_BASE, "num_hidden_layers": 3},
        **_special_ids(GEMMA),
        num_key_value_heads=1,
        head_dim=32,
        query_pre_attn_scalar=32,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        **more,
    )


def _roberta(config: type[hf.PretrainedConfig]) -> Callable[[], hf.PretrainedConfig]:
    # Positions start after the padding id: two rows of the table are never used.
    base = {**_BASE, "max_position_embeddings": POSITIONS + 2}
    return lambda: config(**base, type_vocab_size=1, **_special_ids(ROBERTA))


def _deberta(**more: Any) -> hf.PretrainedConfig:
    return hf.DebertaV2Config(
        **_BASE, relative_attention=True, position_biased_input=False, type_vocab_size=0, pad_token_id=0, **more
    )


_LEARNED, _ROTARY, _BIAS = ("positions",), ("rotary",), ("bias",)

ARCHITECTURES: dict[str, Architecture] = {
    "bert": Architecture(hf.BertModel, lambda: hf.BertConfig(**_BASE), BERT, POSITIONS, _LEARNED),
    "roberta": Architecture(hf.RobertaModel, _roberta(hf.RobertaConfig), ROBERTA, POSITIONS, _LEARNED),
    "xlm_roberta": Architecture(hf.XLMRobertaModel, _roberta(hf.XLMRobertaConfig), ROBERTA, POSITIONS, _LEARNED),
    "camembert": Architecture(hf.CamembertModel, _roberta(hf.CamembertConfig), ROBERTA, POSITIONS, _LEARNED),
    "distilbert": Architecture(
        hf.DistilBertModel,
        lambda: hf.DistilBertConfig(
            vocab_size=VOCAB, dim=64, n_layers=2, n_heads=4, hidden_dim=96, max_position_embeddings=POSITIONS
        ),
        BERT,
        POSITIONS,
        _LEARNED,
    ),
    "mpnet": Architecture(
        hf.MPNetModel,
        lambda: hf.MPNetConfig(**{**_BASE, "max_position_embeddings": POSITIONS + 2}, **_special_ids(ROBERTA)),
        ROBERTA,
        POSITIONS,
        ("positions", "bias"),
    ),
    "albert": Architecture(
        hf.AlbertModel, lambda: hf.AlbertConfig(**_BASE, embedding_size=32), BERT, POSITIONS, _LEARNED, atol=1e-4
    ),
    "electra": Architecture(
        hf.ElectraModel, lambda: hf.ElectraConfig(**_BASE, embedding_size=32), BERT, POSITIONS, _LEARNED, atol=1e-4
    ),
    # As v3: shared projections, logarithmic buckets.
    "deberta_v2": Architecture(
        hf.DebertaV2Model,
        lambda: _deberta(
            pos_att_type=["c2p", "p2c"],
            position_buckets=16,
            max_relative_positions=-1,
            share_att_key=True,
            norm_rel_ebd="layer_norm",
        ),
        BERT,
        POSITIONS,
        _BIAS,
    ),
    # As v2-xlarge: a convolution; own projections, and distances beyond the last one that is told apart.
    "deberta_v2_conv": Architecture(
        hf.DebertaV2Model,
        lambda: _deberta(
            pos_att_type=["c2p", "p2c"],
            max_relative_positions=24,
            share_att_key=False,
            conv_kernel_size=3,
            conv_act="gelu",
        ),
        BERT,
        POSITIONS,
        _BIAS,
    ),
    "modernbert": Architecture(
        hf.ModernBertModel,
        lambda: hf.ModernBertConfig(
            **{**_BASE, "num_hidden_layers": 3},
            local_attention=WINDOW,
            layer_types=["full_attention", "sliding_attention", "sliding_attention"],
            pad_token_id=0,
            bos_token_id=2,
            eos_token_id=3,
            cls_token_id=2,
            sep_token_id=3,
        ),
        BERT,
        POSITIONS,
        ("window", "rotary"),
    ),
    "nomic_bert": Architecture(hf.NomicBertModel, lambda: hf.NomicBertConfig(**_BASE), BERT, POSITIONS, _ROTARY),
    "gte": Architecture(
        hf.GteModel, lambda: hf.GteConfig(**_BASE, **_special_ids(ROBERTA)), ROBERTA, POSITIONS, _ROTARY
    ),
    "jina_embeddings_v3": Architecture(
        hf.JinaEmbeddingsV3Model,
        lambda: hf.JinaEmbeddingsV3Config(**_BASE, **_special_ids(ROBERTA)),
        ROBERTA,
        POSITIONS,
        _ROTARY,
    ),
    "t5": Architecture(
        hf.T5EncoderModel,
        lambda: hf.T5Config(
            vocab_size=VOCAB, d_model=64, d_kv=16, d_ff=96, num_layers=2, num_heads=4, pad_token_id=0, eos_token_id=1
        ),
        T5,
        None,
        _BIAS,
    ),
    # A whole encoder-decoder, as google/t5 is stored: the decoder has to be left behind.
    "t5_gated": Architecture(
        hf.T5Model,
        lambda: hf.T5Config(
            vocab_size=VOCAB,
            d_model=64,
            d_kv=8,
            d_ff=96,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            relative_attention_max_distance=20,
            relative_attention_num_buckets=12,
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
        ),
        T5,
        None,
        _BIAS,
        atol=1e-4,
    ),
    "eurobert": Architecture(
        hf.EuroBertModel,
        lambda: hf.EuroBertConfig(**_BASE, num_key_value_heads=2, mask_token_id=4, **_special_ids(BERT)),
        BERT,
        POSITIONS,
        _ROTARY,
    ),
    "qwen3": Architecture(
        hf.Qwen3ForCausalLM,
        lambda: hf.Qwen3Config(**_BASE, num_key_value_heads=2, head_dim=32, **_special_ids(QWEN)),
        QWEN,
        POSITIONS,
        ("causal", "rotary"),
    ),
    "gemma3_bidirectional": Architecture(
        hf.Gemma3TextModel,
        lambda: _gemma(use_bidirectional_attention=True),
        GEMMA,
        POSITIONS,
        ("window", "rotary"),
        embedding=0.02,  # Gemma multiplies them by sqrt(H), and what attention adds to that must not drown
    ),
    "gemma3_causal": Architecture(
        hf.Gemma3TextModel, _gemma, GEMMA, POSITIONS, ("causal", "window", "rotary"), embedding=0.02
    ),
}


def make(name: str, folder: Path) -> Path:
    """Write config.json, model.safetensors and a tokenizer of an architecture into a folder, and return the folder.

    The same name gives the same files: weights come from a fixed seed.
    """
    row = ARCHITECTURES[name]
    model = row.model(row.config()).eval()
    draw(model, row.embedding)
    model.save_pretrained(folder)
    _tokenizer(row.special, row.max_length or 512).save_pretrained(folder)
    return folder


def draw(model: torch.nn.Module, embedding: float) -> None:
    """Large random weights: attention is far from uniform, biases and norms are not neutral."""
    generator = torch.Generator().manual_seed(0)

    def normal(parameter: torch.Tensor, scale: float) -> torch.Tensor:
        return torch.randn(parameter.shape, generator=generator) * scale

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2:
                scale = 1.6 * parameter[0].numel() ** -0.5
                if "relative" in name:
                    scale = 3.0
                elif "embed" in name or "shared" in name:
                    scale = embedding
                parameter.copy_(normal(parameter, scale))
            elif name.endswith("bias"):
                parameter.copy_(normal(parameter, 0.1))
            else:
                parameter.add_(normal(parameter, 0.1))


def _tokenizer(special: Special, max_length: int) -> hf.PreTrainedTokenizerFast:
    """A WordPiece tokenizer of letters, two-letter pieces and the architecture's special tokens."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?-'"
    unknown = next(token for token in special.tokens if "unk" in token.lower())
    pieces = [*special.tokens, *letters, *(f"##{letter}" for letter in letters)]
    pairs = (a + b for a in "etaoinshr" for b in "etaoinshrdlu")
    pieces += [f"{mark}{pair}" for pair in pairs for mark in ("", "##")]
    vocabulary = {piece: i for i, piece in enumerate(pieces[:VOCAB])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown, max_input_chars_per_word=40))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    start = [special.start] if special.start is not None else []
    end = [special.end] if special.end is not None else []
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[*start, "$A", *end],
        pair=[*start, "$A", *end, "$B:0", *end],
        special_tokens=[(token, vocabulary[token]) for token in {*start, *end}],
    )
    named = {"pad_token": special.pad, "unk_token": unknown}
    if special.start is not None:
        named |= {"bos_token": special.start, "cls_token": special.start}
    if special.end is not None:
        named |= {"eos_token": special.end, "sep_token": special.end}
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, padding_side=special.side, model_max_length=max_length, **named
    )
