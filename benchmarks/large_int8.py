"""int8 of a model of BGE-M3's shape with random weights: seconds, peak memory, and size on disk.

    python benchmarks/large_int8.py [--layers 24] [--texts 64] [--fp32-share 0]

Needs about 12 GB of memory. The size depends on the shape alone, but for the layers that stay float32: with
--fp32-share 0.1, as an export allows, up to 14 of the 144 may, and the search for them takes long.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from transformers import XLMRobertaConfig, XLMRobertaModel

from trivec_export._graph.save import save_graph
from trivec_export._trace.trace import trace
from trivec_export._variants.int8.calibrate import pooled
from trivec_export._variants.int8.quantize import quantize

LONGEST = 128


def build(layers: int) -> XLMRobertaModel:
    """An XLM-RoBERTa of BGE-M3's sizes."""
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=250002,
        hidden_size=1024,
        num_hidden_layers=layers,
        num_attention_heads=16,
        intermediate_size=4096,
        max_position_embeddings=8194,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        attn_implementation="eager",
    )
    return XLMRobertaModel(config, add_pooling_layer=False).eval()


def random_ids(texts: int, vocabulary: int) -> list[npt.NDArray[np.int64]]:
    """Rows (1, S) of random ids between <s> and </s>, S up to LONGEST."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(texts):
        ids = rng.integers(5, vocabulary, (1, int(rng.integers(4, LONGEST + 1))))
        ids[0, 0], ids[0, -1] = 0, 2
        rows.append(ids)
    return rows


def main() -> None:
    """Trace, quantize, save, and print a line for each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--fp32-share", type=float, default=0.0)
    options = parser.parse_args()
    start = time.perf_counter()

    def say(what: str) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{time.perf_counter() - start:7.1f} s, peak {peak:5.2f} GB: {what}", flush=True)

    model = build(options.layers)
    ids = random_ids(options.texts, model.config.vocab_size)
    graph = trace(model, max_length=8192)
    del model
    say("traced")
    quantized = quantize(graph, ids, max_fp32_share=options.fp32_share)
    worst = max(quantized.layers, key=lambda layer: layer.error)
    kept = sum(layer.precision == "fp32" for layer in quantized.layers)
    say(f"quantized {len(quantized.layers)} layers, {kept} stay float32; worst: {worst.name} {worst.error:.3f}")
    with tempfile.TemporaryDirectory() as folder:
        files = save_graph(quantized.model, Path(folder) / "model_int8.onnx")
        say(f"int8 is {sum(file.stat().st_size for file in files) / 1e6:.1f} MB")
    cosines = (pooled(quantized.model, ids[:8]) * pooled(graph, ids[:8])).sum(1)  # (8,)
    say(f"cosine of mean-pooled vectors to float32: min {cosines.min():.5f}, mean {cosines.mean():.5f}")


if __name__ == "__main__":
    main()
