"""Fine-tune there, run here: train with sentence-transformers, save, export, encode."""

import warnings
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tests.support.architectures import make
from tests.support.oracle import least_cosine

import trivec


def test_a_model_trained_for_a_few_steps_gives_its_own_vectors(tmp_path: Path) -> None:
    pairs = [("a red apple", "a green apple"), ("rain in may", "snow in june"), ("fast train", "slow bus")]
    modules = [Transformer(str(make("distilbert", tmp_path / "base"))), Pooling(64)]
    model = SentenceTransformer(modules=modules, device="cpu")
    texts = [text for pair in pairs for text in pair]
    before = model.encode(texts)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    for _ in range(4):  # in-batch negatives: each text should find its partner
        left, right = (model(model.preprocess(list(side)))["sentence_embedding"] for side in zip(*pairs, strict=True))
        scores = torch.nn.functional.normalize(left) @ torch.nn.functional.normalize(right).T * 20  # (3, 3)
        loss = torch.nn.functional.cross_entropy(scores, torch.arange(len(pairs)))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    model.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(str(tmp_path / "tuned"), create_model_card=False)
    after = model.encode(texts)
    trivec.export(tmp_path / "tuned", tmp_path / "model", precision=["fp32"], max_texts=64, quiet=True)
    with trivec.load(tmp_path / "model") as encoder:
        ours = encoder.encode(texts)
    assert least_cosine(ours, after) >= 0.99999
    assert least_cosine(ours, before) < 0.999
    np.testing.assert_allclose(ours, after, atol=1e-4)
