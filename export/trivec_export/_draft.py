"""One transformer or table of a checkpoint on its way to an encoder: what torch says, and the traced graph."""

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import onnx
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trivec._encoders.pipeline import Pipeline
from trivec._engine.session import Session
from trivec._errors import ModelFormatError, NonFiniteError
from trivec._gate.texts import Text
from trivec._model.integrity import describe
from trivec._model.manifest import EncoderSpec, Multi, Route
from trivec._model.modules import TransformerSpec
from trivec._tokens.tokenizer import TextTokenizer
from trivec._vectors.arrays import Floats, normalize
from trivec._vectors.heads import HybridVectors
from trivec_export._checkpoint import adapters
from trivec_export._checkpoint.published import gte
from trivec_export._checkpoint.published.layouts import convert, is_published
from trivec_export._checkpoint.tokenizer import read_tokenizer, save_tokenizer, token_ids
from trivec_export._reference.heads import (
    COLBERT_VECS,
    Head,
    Hybrid,
    PooledLogits,
    TokenEmbeddings,
    linear,
    read_linear,
)
from trivec_export._reference.torch_model import load
from trivec_export._reference.torch_vectors import TorchSession, usable_positions, vectors
from trivec_export._trace.trace import trace

Ids = list[npt.NDArray[np.int64]]


class Tokenized(NamedTuple):
    """Texts that have at least one token, with their ids."""

    texts: list[Text]
    ids: Ids


@dataclass(frozen=True)
class Draft:
    """An encoder in the making."""

    name: str
    encoder: EncoderSpec
    routes: Mapping[str, Route]
    """Those of the checkpoint that read this encoder, with the sizes of their heads."""
    verification: Tokenized
    calibration: Tokenized
    reference: Mapping[str, HybridVectors]
    """What torch says of the verification texts, by route."""
    ranges: Mapping[str, tuple[Floats, Floats]]
    """Least and greatest values (2, D) of torch's dense vectors of the calibration texts, raw and normalized."""
    graph: onnx.ModelProto

    def without_graph(self) -> "Draft":
        """The same once its graph is written: a checkpoint may have many, of gigabytes each."""
        return dataclasses.replace(self, graph=onnx.ModelProto())


def make_draft(
    name: str,
    checkpoint: Path,
    spec: TransformerSpec,
    routes: Mapping[str, Route],
    arrays: Mapping[str, Floats],
    folder: Path,
    texts: tuple[Sequence[Text], Sequence[Text]],
    *,
    family: str,
    trust_remote_code: bool,
    adapter: str | None = None,
) -> Draft:
    """Load one transformer, take torch's vectors of the (calibration, verification) texts, trace it.

    Writes the tokenizer into `folder`. The torch model is gone when this returns. Of routes that differ in their name
    alone, the reference has the first.

    Raises:
        ModelFormatError: the checkpoint cannot be translated.
    """
    tokenizer = read_tokenizer(checkpoint, spec, trust_remote_code=trust_remote_code)
    model = _load(checkpoint / spec.folder, spec, adapter, folder, trust_remote_code=trust_remote_code)
    head = _head(model, checkpoint, spec, family)
    positions = usable_positions(model)
    limits = [n for n in (spec.max_seq_length, positions) if n is not None]
    length = min(limits, default=None)
    if length is not None:
        tokenizer.model_max_length = length
    path = "tokenizer.json" if name == "main" or adapter else f"{name}/tokenizer.json"  # adapters share one
    save_tokenizer(tokenizer, folder / path)
    calibration, verification = (_tokenize(token_ids(tokenizer, [t.text for t in part]), part) for part in texts)
    encoder = EncoderSpec(
        tokenizer=describe(folder, path),
        max_seq_length=length,
        max_positions=positions,
        variants={},
        truncation_side=spec.truncation_side,
        special_ids=tuple(sorted(tokenizer.all_special_ids)),
    )
    complete = {key: _complete(route, head, tokenizer) for key, route in routes.items()}
    first: dict[Route, str] = {}
    for key, route in complete.items():
        first.setdefault(route, key)
    wanted = {key: _vectors(head, encoder, verification, route, arrays) for route, key in first.items()}
    found = {}
    for route in first:
        if route.pooling is not None:
            alone = dataclasses.replace(route, sparse=None, multi=None)
            dense = _vectors(TokenEmbeddings(model), encoder, calibration, alone, arrays).dense
            found[route] = _ranges(cast("Floats", dense))
    ranges = {key: found[route] for key, route in complete.items() if route in found}
    graph = trace(head, max_length=positions)
    return Draft(name, encoder, complete, verification, calibration, wanted, ranges, graph)


def _load(
    place: Path, spec: TransformerSpec, adapter: str | None, out: Path, *, trust_remote_code: bool
) -> PreTrainedModel:
    """The model, with the adapter of a task merged into it.

    Published layouts that transformers has a class for are turned into its layout first, in a folder below `out` that
    does not stay: no remote code runs.
    """
    if is_published(spec.config):
        with tempfile.TemporaryDirectory(dir=out) as scratch:
            convert(place, Path(scratch), adapter)
            return load(scratch, task=spec.task)
    model = load(place, trust_remote_code=trust_remote_code, task=spec.task)
    if adapter is not None:
        adapters.merge(model, adapters.adapter_folders(place)[adapter])
    return model


def _head(model: PreTrainedModel, checkpoint: Path, spec: TransformerSpec, family: str) -> Head:
    """What the graph is to compute.

    Raises:
        ModelFormatError: the weights of a head are missing or misshapen.
    """
    if spec.splade is not None:
        return PooledLogits(model, *spec.splade).eval()
    if family == "bge-m3":
        hidden = int(model.config.hidden_size)
        sparse = read_linear(checkpoint / "sparse_linear.pt", hidden, 1)
        return Hybrid(model, sparse, read_linear(checkpoint / "colbert_linear.pt", hidden, None)).eval()
    if family == "mgte":
        found = gte.token_weights_head(checkpoint / spec.folder)
        if found is None:
            raise ModelFormatError(
                f"{checkpoint} has no token classifier (classifier.weight), whose weights make mGTE's sparse vectors. "
                "For dense vectors alone: --family dense"
            )
        return Hybrid(model, linear(*(torch.from_numpy(array) for array in found)), None).eval()
    return TokenEmbeddings(model).eval()


def _complete(route: Route, head: Head, tokenizer: PreTrainedTokenizerBase) -> Route:
    """The route with what only the loaded model tells: sizes of heads, what the graph leaves to the runtime."""
    sparse, multi = route.sparse, route.multi
    if isinstance(head, PooledLogits) and sparse is not None:
        size = head.first(torch.zeros((1, 1), dtype=torch.int64)).shape[-1]
        sparse = dataclasses.replace(sparse, dim=size, activation=head.left)
    elif sparse is not None:
        # as FlagEmbedding's _process_token_weights; a mask token counts there
        names = ("cls_token_id", "eos_token_id", "pad_token_id", "unk_token_id")
        ids = {getattr(tokenizer, name, None) for name in names} - {None}
        sparse = dataclasses.replace(sparse, dropped_ids=tuple(sorted(cast("set[int]", ids))))
    if isinstance(head, Hybrid) and head.colbert_linear is not None:
        multi = Multi(COLBERT_VECS, head.colbert_linear.out_features)
    return dataclasses.replace(route, sparse=sparse, multi=multi)


def _tokenize(ids: Ids, texts: Sequence[Text]) -> Tokenized:
    """Without the texts that have no token: the reference has no vector for them."""
    kept = [(text, row) for text, row in zip(texts, ids, strict=True) if len(row)]
    return Tokenized([text for text, _ in kept], [row for _, row in kept])


def _vectors(
    head: Head, encoder: EncoderSpec, tokenized: Tokenized, route: Route, arrays: Mapping[str, Floats]
) -> HybridVectors:
    """Torch's outputs, pooled and finished in numpy."""
    pipeline = Pipeline(
        encoder,
        cast("TextTokenizer", None),  # the ids are there
        cast("Session", TorchSession(head)),
        head.outputs[0],
        route.pooling,
        route.steps,
        arrays,
        route.sparse,
        route.multi,
    )
    found, finite = vectors(pipeline, tokenized.ids)
    if not finite.all():
        text = tokenized.texts[int(np.flatnonzero(~finite)[0])].text
        raise NonFiniteError(
            f"torch itself gives NaN or infinity for the text {text[:60]!r}: the checkpoint's weights are damaged."
        )
    return found


def _ranges(vectors: Floats) -> tuple[Floats, Floats]:
    unit = normalize(vectors)
    return np.stack([vectors.min(0), vectors.max(0)]), np.stack([unit.min(0), unit.max(0)])
