"""Every architecture, from a checkpoint over its export to vectors that equal sentence-transformers'."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.support.architectures import ARCHITECTURES, make
from tests.support.oracle import least_cosine, reference
from transformers import AutoTokenizer

import trivec
from trivec_export._graph import head_groups, row_slices


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_vectors_and_ids_equal_the_reference(
    name: str, tmp_path: Path, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for passes in (row_slices, head_groups):  # as a model has them that reads long texts
        monkeypatch.setattr(passes, "_LEAST_BYTES", 1)
    checkpoint = make(name, tmp_path / "checkpoint")
    folder = trivec.export(checkpoint, tmp_path / "model", precision=["fp32"], max_texts=64, quiet=True)
    graph = onnx.load(folder / "onnx/model.onnx", load_external_data=False).graph
    assert sum(node.op_type == "Scan" for node in graph.node) >= 2  # one for each layer
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
