"""The reference: the checkpoint's own tokenizer and its torch model in float32."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer, normalizers
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from trivec._checkpoint import NO_LIMIT, TransformerSpec
from trivec._errors import ModelFormatError
from trivec._plan import plan
from trivec_export._load import quiet

_TOKENS = 4096  # a torch run holds up to so many


def read_tokenizer(folder: Path, spec: TransformerSpec, *, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """AutoTokenizer with the module's settings, as sentence-transformers' Transformer makes it.

    Raises:
        ModelFormatError: there is no fast tokenizer.
    """
    place = folder / spec.folder
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(str(place), trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ModelFormatError(f"{place} has no tokenizer that transformers can load: {error}") from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise ModelFormatError(
            f"{place} has the tokenizer {type(tokenizer).__name__}, which runs in Python; trivec's runtime reads "
            "tokenizer.json. Use sentence-transformers for this model."
        )
    if spec.lower_case:
        parts = [normalizers.Lowercase(), *([backend.normalizer] if backend.normalizer is not None else [])]
        backend.normalizer = normalizers.Sequence(parts)
    tokenizer.model_max_length = NO_LIMIT if spec.max_seq_length is None else spec.max_seq_length
    tokenizer.truncation_side = spec.truncation_side
    return tokenizer


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """Write tokenizer.json without padding and truncation: the manifest has the length."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_padding()
    backend.no_truncation()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(backend.to_str(pretty=False), encoding="utf-8")


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[npt.NDArray[np.int64]]:
    """Ids (S,) of each text, special tokens included, cut at the model's length."""
    limited = tokenizer.model_max_length < NO_LIMIT
    ids = [
        tokenizer(text, truncation="longest_first" if limited else False, verbose=False)["input_ids"] for text in texts
    ]
    return [np.asarray(row, dtype=np.int64) for row in ids]


def usable_positions(model: PreTrainedModel) -> int | None:
    """Tokens that the model can be given, or None where there is no limit.

    A learned position table has as many rows as max_position_embeddings says, but a RoBERTa starts counting behind its
    padding id. How many rows are skipped is seen by looking which ones a short text reads.
    """
    limit = getattr(model.config, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit < 1:
        return None
    first_rows: list[int] = []

    def watch(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        rows = inputs[0].flatten().tolist() if inputs and isinstance(inputs[0], torch.Tensor) else []
        if len(rows) == length and rows == list(range(rows[0], rows[0] + length)):
            first_rows.append(int(rows[0]))

    length = min(8, limit // 2)
    pad = getattr(model.config, "pad_token_id", None) or 0
    tables = [m for m in model.modules() if isinstance(m, nn.Embedding) and m.num_embeddings == limit]
    hooks = [table.register_forward_pre_hook(watch) for table in tables]
    try:
        with torch.no_grad():
            model(input_ids=torch.full((1, length), pad + 1), attention_mask=torch.ones(1, length, dtype=torch.int64))
    finally:
        for hook in hooks:
            hook.remove()
    return limit - max(first_rows, default=0)


def states(model: PreTrainedModel, ids: Sequence[npt.NDArray[np.int64]]) -> list[npt.NDArray[np.float32]]:
    """Token embeddings (S, H) of each text by torch, in batches of equal length; every text has a token."""
    found: list[npt.NDArray[np.float32]] = [np.zeros((0, 0), dtype=np.float32)] * len(ids)
    for rows in plan([len(row) for row in ids], _TOKENS):
        batch = torch.from_numpy(np.stack([ids[row] for row in rows]))  # (B, S)
        with torch.no_grad():
            out = model(input_ids=batch, attention_mask=torch.ones_like(batch)).last_hidden_state  # (B, S, H)
        for row, state in zip(rows, out.float().numpy(), strict=True):
            found[row] = state
    return found
