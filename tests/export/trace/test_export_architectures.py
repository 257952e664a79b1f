"""Every architecture, from a checkpoint over its export to vectors that equal sentence-transformers'."""

from pathlib import Path

import numpy as np
import pytest
from tests.support.architectures import ARCHITECTURES, make
from tests.support.oracle import least_cosine, reference
from transformers import AutoTokenizer

import trivec


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_vectors_and_ids_equal_the_reference(name: str, tmp_path: Path, texts: list[str]) -> None:
    checkpoint = make(name, tmp_path / "checkpoint")
    folder = trivec.export(checkpoint, tmp_path / "model", precision=["fp32"], max_texts=64, quiet=True)
    oracle = reference(checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    with trivec.load(folder, device="cpu") as encoder:
        texts = [text for text in texts if text or ARCHITECTURES[name].special.end is not None]
        ids = [tokenizer(t, truncation=True, max_length=encoder.max_seq_length)["input_ids"] for t in texts]
        assert encoder.tokenize(texts) == ids
        vectors = encoder.encode(texts)
        assert least_cosine(vectors, oracle.encode(texts, batch_size=7)) >= 0.99999
        assert least_cosine(vectors, oracle.encode(texts, batch_size=1)) >= 0.99999
        alone = np.stack([encoder.encode(text) for text in texts[:8]])
        np.testing.assert_allclose(alone, vectors[:8], atol=1e-5)
        assert vectors.shape[1] == encoder.dim == oracle.get_embedding_dimension()
