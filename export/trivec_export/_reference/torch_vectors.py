"""The reference: the checkpoint's own tokenizer and its torch model in float32."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import PreTrainedModel

from trivec._encoders.pipeline import Pipeline
from trivec._engine.row_feeds import SEEN, feed
from trivec._model.manifest import ROWS
from trivec._pooling.heads import Selection, Wanted
from trivec._tokens.batch import Batch, Tokens
from trivec._tokens.plan import plan
from trivec._vectors.heads import Collector, HybridVectors
from trivec_export._reference.heads import Head, Late

_TOKENS = 4096  # a torch run holds up to so many
_NUMBERS = 1 << 25  # logits that a torch run makes: 128 MB


def usable_positions(model: PreTrainedModel) -> int | None:
    """Tokens that the model can be given, or None where there is no limit.

    A learned position table has as many rows as max_position_embeddings says, but a RoBERTa starts counting behind its
    padding id. How many rows are skipped is seen by looking which ones a short text reads.
    """
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if hasattr(model.config, "vision_config"):  # a text tower counts from 0
        return limit
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


class TorchSession:
    """Torch in the place of a graph: what the runtime pools is the reference's own output."""

    layout = ROWS

    def __init__(self, head: Head) -> None:
        self._head = head

    def run_all(
        self, ids: npt.NDArray[np.int64], outputs: Sequence[str], second: npt.NDArray[np.int64] | None = None
    ) -> list[npt.NDArray[np.float32]]:
        """Rows of equal length (B, S) to some of the head's outputs, float32; `second` as of the runtime's session."""
        names = (*self._head.inputs, *([SEEN] if second is not None and isinstance(self._head, Late) else []))
        given = (torch.from_numpy(np.ascontiguousarray(feed(name, ids, second))) for name in names)
        with torch.no_grad():
            made = self._head(*given)
        made = made if isinstance(made, tuple) else (made,)
        named = dict(zip(self._head.outputs, made, strict=True))
        return [named[name].float().numpy() for name in outputs]


def vectors(
    pipeline: Pipeline, ids: Sequence[npt.NDArray[np.int64]], second: npt.NDArray[np.int64] | None = None
) -> tuple[HybridVectors, npt.NDArray[np.bool_]]:
    """What a pipeline over torch says of each text, and whether all of it is finite (N,); every text has a token.

    `second` (N,) has where the second part of each starts: see `Tokens`.
    """
    heads = (pipeline.sparse, pipeline.multi, pipeline.score)
    wanted = Wanted(
        dense=pipeline.pooling is not None or heads == (None, None, None),
        sparse=Selection() if pipeline.sparse else None,
        multi=pipeline.multi is not None,
        score=pipeline.score is not None,
    )
    collector = Collector(len(ids), pipeline.vector_counts(Tokens.of_ids(ids), wanted))
    width = 1 if pipeline.sparse is None or pipeline.sparse.kind != "splade" else pipeline.sparse.dim
    most = max(1, _NUMBERS // (width * 64))  # logits of 64 tokens a row; longer texts come one at a time anyway
    kinds = None if pipeline.multi is None else second
    for rows in plan([len(row) for row in ids], min(_TOKENS, max(1, _NUMBERS // width)), most, kinds):
        batch = np.stack([ids[row] for row in rows])  # (B, S)
        types = None if second is None else second[rows]
        collector.add(rows, *pipeline.represent(dataclasses.replace(Batch.of_rows(batch), second=types), wanted))
    return collector.vectors(None), collector.finite
