"""One transformer of a checkpoint on its way to an encoder: what torch says, and the traced graph."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from transformers import PreTrainedModel

from trivec._checkpoint import TransformerSpec
from trivec._errors import NonFiniteError
from trivec._integrity import describe
from trivec._manifest import Encoder, Pooling, Route
from trivec._pool import Floats, apply_steps, normalize, pool
from trivec._texts import Text
from trivec_export._load import load
from trivec_export._reference import read_tokenizer, save_tokenizer, states, token_ids, usable_positions
from trivec_export._trace import trace

Ids = list[npt.NDArray[np.int64]]


class Tokenized(NamedTuple):
    """Texts that have at least one token, with their ids."""

    texts: list[Text]
    ids: Ids


@dataclass(frozen=True)
class Part:
    """An encoder in the making."""

    name: str
    encoder: Encoder
    verification: Tokenized
    calibration: Tokenized
    reference: Mapping[str, Floats]
    """Torch's vectors (N, D) of the verification texts, by route."""
    ranges: Mapping[str, tuple[Floats, Floats]]
    """Least and greatest values (2, D) of torch's vectors of the calibration texts, raw and normalized, by route."""
    graph: onnx.ModelProto


def make_part(
    name: str,
    checkpoint: Path,
    spec: TransformerSpec,
    routes: Mapping[str, Route],
    arrays: Mapping[str, Floats],
    folder: Path,
    texts: tuple[Sequence[Text], Sequence[Text]],
    *,
    trust_remote_code: bool,
) -> Part:
    """Load one transformer, take torch's vectors of the (calibration, verification) texts, trace it.

    Writes the tokenizer into `folder`. The torch model is gone when this returns.
    """
    tokenizer = read_tokenizer(checkpoint, spec, trust_remote_code=trust_remote_code)
    model = load(checkpoint / spec.folder, trust_remote_code=trust_remote_code)
    positions = usable_positions(model)
    limits = [n for n in (spec.max_seq_length, positions) if n is not None]
    length = min(limits, default=None)
    if length is not None:
        tokenizer.model_max_length = length
    path = "tokenizer.json" if name == "main" else f"{name}/tokenizer.json"
    save_tokenizer(tokenizer, folder / path)
    calibration, verification = (_tokenize(token_ids(tokenizer, [t.text for t in part]), part) for part in texts)
    encoder = Encoder(
        tokenizer=describe(folder, path),
        max_seq_length=length,
        max_positions=positions,
        variants={},
        truncation_side=spec.truncation_side,
        special_ids=tuple(sorted(tokenizer.all_special_ids)),
    )
    wanted = _vectors(model, verification, routes, arrays)
    ranges = {route: _ranges(vectors) for route, vectors in _vectors(model, calibration, routes, arrays).items()}
    graph = trace(model, max_length=positions)
    return Part(name, encoder, verification, calibration, wanted, ranges, graph)


def _tokenize(ids: Ids, texts: Sequence[Text]) -> Tokenized:
    """Without the texts that have no token: the reference has no vector for them."""
    kept = [(text, row) for text, row in zip(texts, ids, strict=True) if len(row)]
    return Tokenized([text for text, _ in kept], [row for _, row in kept])


def _vectors(
    model: PreTrainedModel, tokenized: Tokenized, routes: Mapping[str, Route], arrays: Mapping[str, Floats]
) -> dict[str, Floats]:
    """Torch's token embeddings, pooled and finished in numpy: (N, D) for each route."""
    rows = states(model, tokenized.ids)
    found = {}
    for name, route in routes.items():
        pooled = np.concatenate([pool(state[None], route.pooling or Pooling()) for state in rows])  # (N, H * modes)
        vectors = apply_steps(pooled, route.steps, arrays)
        finite = np.isfinite(vectors).all(1)  # (N,)
        if not finite.all():
            text = tokenized.texts[int(np.flatnonzero(~finite)[0])].text
            raise NonFiniteError(
                f"torch itself gives NaN or infinity for the text {text[:60]!r}: the checkpoint's weights are damaged."
            )
        found[name] = vectors
    return found


def _ranges(vectors: Floats) -> tuple[Floats, Floats]:
    unit = normalize(vectors)
    return np.stack([vectors.min(0), vectors.max(0)]), np.stack([unit.min(0), unit.max(0)])
