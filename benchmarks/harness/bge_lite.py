"""bge-m3-lite with a checkpoint's own weights: the graph that it runs, made by its `fuse`, and the engine.

    python -m benchmarks.harness.bge_lite export CHECKPOINT OUT   with torch: model.onnx as the Hub has BGE-M3's
    python -m benchmarks.harness.bge_lite fuse OUT                in its environment: model_fused.onnx beside it

It runs on token ids: its tokenizer reads a SentencePiece file, and has no part in what is measured.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.harness.engines import Arrays, Engine, Options

DATA = "model.onnx_data"
"""Where `fuse` looks for the weights."""


def export(checkpoint: Path, out: Path) -> None:
    """Write the backbone as torch's exporter does it, which `fuse` knows: token ids and mask to states.

    Args:
        checkpoint: of BGE-M3's kind.
        out: a folder that is made; model.onnx and the weights are in it afterwards.
    """
    import onnx
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(checkpoint, attn_implementation="eager").eval()

    class Backbone(torch.nn.Module):
        def forward(self, input_ids: "torch.Tensor", attention_mask: "torch.Tensor") -> "torch.Tensor":
            states: torch.Tensor = model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            return states  # (B, S, H)

    backbone = Backbone()
    backbone.model = model
    ids = torch.arange(5, 19).reshape(2, 7)  # (B, S)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    axes, several = {0: "batch", 1: "tokens"}, out / "several"
    several.mkdir(parents=True, exist_ok=True)
    names = ["input_ids", "attention_mask"], ["token_embeddings"]
    settings = {"dynamic_axes": dict.fromkeys((*names[0], *names[1]), axes), "opset_version": 14, "dynamo": False}
    with torch.no_grad():
        torch.onnx.export(
            backbone,
            (ids, mask),
            str(several / "model.onnx"),
            input_names=names[0],
            output_names=names[1],
            **settings,  # type: ignore[arg-type]
        )
    onnx.save_model(
        onnx.load(str(several / "model.onnx")), str(out / "model.onnx"), save_as_external_data=True, location=DATA
    )
    for file in several.iterdir():  # above 2 GB, a file for each tensor
        file.unlink()
    several.rmdir()


def fuse(out: Path) -> None:
    """Let the library make the graph that it ships."""
    importlib.import_module("bge_m3_lite.fuse").fuse(out / "model.onnx")


def engine(options: Options) -> Engine:
    """The embedder on the fused graph of "graph", with the heads of "folder"; "ids" is a file of tokens by text."""
    library = importlib.import_module("bge_m3_lite.embedder")
    read = importlib.import_module("bge_m3_lite._torch_pickle").load_state_dict
    np = importlib.import_module("numpy")
    heads = {name: read(Path(options["folder"]) / f"{name}_linear.pt") for name in ("sparse", "colbert")}
    # As its __init__ does, which fetches the published files by their hashes.
    model = library.BGEM3Embedder.__new__(library.BGEM3Embedder)
    model.tokenizer = _Tokens(json.loads(Path(options["ids"]).read_text(encoding="utf-8")))
    settings = {"num_threads": options["threads"], "low_memory": options.get("low_memory", False)}
    model.backbone = library.OnnxBackbone(options["graph"], **settings)
    model.max_length = library.MAX_LENGTH
    for name, state in heads.items():
        setattr(model, f"{name}_w", np.ascontiguousarray(state["weight"].T, dtype=np.float32))
        setattr(model, f"{name}_b", state["bias"].astype(np.float32))

    def encode(texts: list[str], _: int) -> Any:  # noqa: ANN401
        return model.encode(texts, return_dense=True, return_sparse=True, return_colbert_vecs=True)

    def parts(found: Any) -> Arrays:  # noqa: ANN401
        return {"dense": found["dense_vecs"], "colbert": np.concatenate(found["colbert_vecs"])}

    return Engine(encode, lambda text: encode([text], 0), parts)


class _Tokens:
    """What its embedder asks of a tokenizer."""

    PAD_ID = 1
    special_ids = frozenset((0, 1, 2, 3))

    def __init__(self, ids: dict[str, list[int]]) -> None:
        self._ids = ids

    def encode(self, text: str, max_length: int) -> list[int]:
        """The ids of a text that was read before."""
        return self._ids[text][:max_length]


def main() -> None:
    """Run one step."""
    step, *folders = sys.argv[1:]
    {"export": export, "fuse": fuse}[step](*map(Path, folders))  # type: ignore[operator]


if __name__ == "__main__":
    main()
