"""The query side of an inference-free sparse model: a tokenizer, and a weight for each of its tokens."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from trivec._errors import ModelFormatError
from trivec._model.checkpoint import TableSpec
from trivec._model.integrity import describe
from trivec._model.manifest import EncoderSpec
from trivec._model.modules import FEATURES, NO_LIMIT, TransformerSpec
from trivec._vectors.arrays import Floats
from trivec_export._checkpoint.tokenizer import read_tokenizer, save_tokenizer
from trivec_export._checkpoint.weights import read_weights


class Table(NamedTuple):
    """An encoder without a graph, and its weights (V,)."""

    encoder: EncoderSpec
    weights: Floats


def make_table(name: str, checkpoint: Path, spec: TableSpec, dim: int, folder: Path) -> Table:
    """Read the weights and write the tokenizer, as sentence-transformers' SparseStaticEmbedding does.

    Args:
        name: of the encoder.
        checkpoint: its folder.
        spec: where the module is, and where its weights are.
        dim: terms that a row of the document side has.
        folder: the model folder in the making.

    Raises:
        ModelFormatError: there are no weights, one is not a finite number, or they are of another vocabulary.
    """
    plain = TransformerSpec(spec.folder, None, None, False, "right", {}, FEATURES)
    tokenizer = read_tokenizer(checkpoint, plain, trust_remote_code=False).tokenizer
    length = _length(checkpoint / spec.folder)
    size = len(tokenizer.get_vocab())
    weights = (
        _from_json(checkpoint / spec.weights, tokenizer, size) if spec.weights else _tensors(checkpoint / spec.folder)
    )
    source = checkpoint / (spec.weights or spec.folder)
    if weights.shape != (dim,):
        raise ModelFormatError(
            f"{source} has weights of shape {weights.shape} for a tokenizer of {size} tokens, but the documents' model "
            f"has {dim} terms: they are of different vocabularies."
        )
    if not np.isfinite(weights).all():
        raise ModelFormatError(f"{source} holds {int((~np.isfinite(weights)).sum())} weights that are NaN or infinite.")
    path = f"{name}/tokenizer.json"
    save_tokenizer(tokenizer, folder / path)
    encoder = EncoderSpec(
        tokenizer=describe(folder, path),
        max_seq_length=length,
        max_positions=None,
        variants={},
        truncation_side=str(tokenizer.truncation_side),
        special_ids=tuple(sorted(tokenizer.all_special_ids)),
        add_special_tokens=False,
    )
    return Table(encoder, weights)


def _length(folder: Path) -> int | None:
    """Tokens that the tokenizer cuts a query to: SparseStaticEmbedding truncates at model_max_length."""
    path = folder / "tokenizer_config.json"
    found = json.loads(path.read_text(encoding="utf-8")).get("model_max_length") if path.is_file() else None
    return int(found) if isinstance(found, int | float) and found < NO_LIMIT else None


def _from_json(path: Path, tokenizer: PreTrainedTokenizerBase, size: int) -> Floats:
    """A JSON object of tokens and weights, such as OpenSearch's idf.json, as an array (V,)."""
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelFormatError(f"{path} is not valid JSON ({error}).") from error
    numbers = isinstance(given, dict) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in given.values()
    )
    if not given or not numbers:
        raise ModelFormatError(f"{path} holds no JSON object of tokens and weights.")
    vocabulary = tokenizer.get_vocab()
    unknown = [token for token in given if token not in vocabulary]
    if unknown:
        raise ModelFormatError(
            f"{path} has weights for {len(unknown)} of {len(given)} tokens that the tokenizer does not have, such as "
            f"{unknown[0]!r}: it belongs to another vocabulary."
        )
    weights = np.zeros(size, dtype=np.float32)
    try:
        weights[[vocabulary[token] for token in given]] = list(given.values())
    except OverflowError as error:
        raise ModelFormatError(f"{path} holds a weight that is no float32 number: {error}.") from error
    return weights


def _tensors(folder: Path) -> Floats:
    """The module's own weights (V,)."""
    state = read_weights(folder)
    if state.keys() != {"weight"}:
        raise ModelFormatError(f"{folder} has the tensors {sorted(state)}, expected one of shape (tokens,), weight.")
    weights: Floats = state["weight"].float().numpy()
    return weights
