"""A checkpoint's tokenizer as transformers makes it, and as the runtime reads it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from trivec._errors import ModelFormatError
from trivec._model.modules import NO_LIMIT, TransformerSpec
from trivec_export._temporary import quiet


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
