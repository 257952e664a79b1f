"""A sentence-transformers model saved without a word."""

import warnings
from pathlib import Path

from sentence_transformers import SentenceTransformer


def save_model(model: SentenceTransformer, folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(str(folder), create_model_card=False)
    return folder
