"""The model of late interaction that is measured, and everybody who runs it.

No trained one comes with a package. So MiniLM's own vectors of tokens stand in, projected to 128 numbers by their
principal components: the products and the tokens of a small ColBERT, in PyLate's layout, whose retrieval says
something, though less than training would.
"""

import importlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import models
from benchmarks.harness.contest import Field
from benchmarks.harness.models import MINILM
from benchmarks.harness.stats import Shape
from benchmarks.harness.venvs import Failed
from benchmarks.harness.worker import Contender
from tokenizers import AddedToken, Tokenizer

ENGINES = "benchmarks.harness.late_interaction"
TORCH, PYLATE, FASTEMBED = "sentence-transformers", "PyLate", "FastEmbed"
DIM, QUERY_LENGTH, DOCUMENT_LENGTH = 128, 32, 180
MARKS = ("[Q] ", "[D] ")
_PCA_TEXTS = 400
_TYPES = "token_type_ids"


class Late(NamedTuple):
    """A checkpoint, trivec's folder of it, and its matrix products."""

    checkpoint: Path
    folder: Path
    shape: Shape


def late_model(checkpoint: Path | None, work: Path) -> Late:
    """The model that is measured; None: the stand-in, made here if need be.

    Raises:
        Failed: it cannot be made or exported.
    """
    made = checkpoint or work / "late-minilm"
    if checkpoint is None and not (made / "modules.json").is_file():
        models._python(["-m", "benchmarks.harness.late_models", str(made)])
    return Late(made, models._exported(made, work / f"{made.name}-trivec", ()), replace_head(MINILM))


def replace_head(shape: Shape) -> Shape:
    """The products with those of the projection."""
    return shape._replace(head=shape.hidden * DIM)


def stand_in(folder: Path) -> None:
    """Write the stand-in: files as PyLate has them, by hand, so that every version of every library reads them."""
    numpy, torch_files = importlib.import_module("safetensors.numpy"), importlib.import_module("safetensors.torch")
    source = models.checkpoint()
    folder.mkdir(parents=True)
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken(mark, normalized=True) for mark in MARKS])
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(folder / "tokenizer.json"))
    for name in ("tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        if (source / name).is_file():
            shutil.copy(source / name, folder / name)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    _write(folder / "config.json", {**config, "vocab_size": tokenizer.get_vocab_size(True)})
    torch = importlib.import_module("torch")
    weights = torch_files.load_file(source / "model.safetensors")
    (name,) = (each for each in weights if each.endswith("word_embeddings.weight"))
    table = weights[name]  # (V, H)
    weights[name] = torch.cat([table, table.mean(0, keepdim=True).repeat(len(MARKS), 1)])
    torch_files.save_file(weights, folder / "model.safetensors", {"format": "pt"})
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    modules.append({"idx": 1, "name": "1", "path": "1_Dense", "type": "pylate.models.Dense.Dense"})
    identity = "torch.nn.modules.linear.Identity"
    dense = {"in_features": 384, "out_features": DIM, "bias": False, "activation_function": identity}
    settings: dict[str, object] = {
        "model_type": "ColBERT",
        "prompts": {},
        "default_prompt_name": None,
        "similarity_fn_name": "MaxSim",
        "query_prefix": MARKS[0],
        "document_prefix": MARKS[1],
        "query_length": QUERY_LENGTH,
        "document_length": DOCUMENT_LENGTH,
        "attend_to_expansion_tokens": False,
        "do_query_expansion": True,
    }
    (folder / "1_Dense").mkdir()
    numpy.save_file({"linear.weight": _components(source)}, folder / "1_Dense/model.safetensors", {"format": "pt"})
    _write(folder / "1_Dense/config.json", dense)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": 512, "do_lower_case": False})
    _write(folder / "config_sentence_transformers.json", settings)
    _write(folder / "modules.json", modules)  # last: it tells that the folder is whole


def _components(source: Path) -> "object":
    """(128, 384) float32: the directions in which vectors of tokens vary most."""
    np, library = importlib.import_module("numpy"), importlib.import_module("sentence_transformers")
    from trivec._gate.texts import verification_texts

    texts = [text.text for text in verification_texts()][:_PCA_TEXTS]
    model = library.SentenceTransformer(str(source), device="cpu")
    found = model.encode(texts, output_value="token_embeddings", show_progress_bar=False)
    states = np.concatenate([each.numpy() for each in found]).astype(np.float64)  # (T, H)
    _, vectors = np.linalg.eigh(states.T @ states)
    return np.ascontiguousarray(vectors[:, ::-1][:, :DIM].T.astype(np.float32))


def contenders(late: Late, place: Field, limit: int, wanted: Sequence[str]) -> list[Contender]:
    """Everybody, with documents cut at a limit: trivec's variants, then the peers with one of some words in them."""
    common = {"threads": place.threads, "tokens": limit}
    ours = [
        Contender(
            f"trivec {p}",
            f"{ENGINES}:trivec",
            "trivec",
            {"folder": str(late.folder), "precision": p} | common,
            precision=p,
        )
        for p in ("fp32", "int8")
    ]
    made = {"folder": str(late.checkpoint)} | common
    peers = [
        Contender(TORCH, f"{ENGINES}:sentence_transformers", TORCH, made, (32,)),
        Contender(PYLATE, f"{ENGINES}:pylate", "pylate", made, (32,)),
        Contender(FASTEMBED, f"{ENGINES}:fastembed", "fastembed", common, (8, 32, 64)),
    ]
    kept = [c for c in peers if not wanted or any(part in c.name.lower() for part in wanted)]
    for row, contender in enumerate(kept):
        if contender.name == FASTEMBED:
            try:
                kept[row] = replace(contender, options={**contender.options, **_fastembed(late, place, limit)})
            except Failed as error:
                place.fail(contender, error)
    return [*ours, *kept]


def _fastembed(late: Late, place: Field, limit: int) -> dict[str, object]:
    """FastEmbed's options: a folder with the graph that sentence-transformers exports, and the projection behind it."""
    settings = json.loads((late.checkpoint / "config_sentence_transformers.json").read_text(encoding="utf-8"))
    bare, exported = (
        place.work / f"models/{late.checkpoint.name}-bare",
        place.work / f"models/{late.checkpoint.name}-onnx",
    )
    if not (exported / "projected/onnx/model.onnx").is_file():
        shutil.copytree(late.checkpoint, bare, dirs_exist_ok=True, ignore=shutil.ignore_patterns("modules.json"))
        (bare / "config_sentence_transformers.json").unlink()
        log = place.work / "logs/export.log"
        models.onnx_checkpoint(place.pythons("onnx-4.57"), exported, place.threads, log, bare)
        _project(exported / "onnx/model.onnx", late.checkpoint, exported / "projected/onnx/model.onnx")
    folder = place.work / f"models/{late.checkpoint.name}-fastembed-{limit}"
    models.fastembed_folder(exported / "projected", folder, limit, late.checkpoint)
    tokenizer = Tokenizer.from_file(str(late.checkpoint / "tokenizer.json"))
    marks = [tokenizer.token_to_id(settings[f"{side}_prefix"]) for side in ("query", "document")]
    return {"folder": str(folder), "marks": marks, "query_length": settings["query_length"]}


def _project(graph: Path, checkpoint: Path, out: Path) -> None:
    """The graph with the projection and vectors of length 1 behind its states.

    FastEmbed puts its marks into the ids and the mask alone, so that types of tokens become zeros in the graph.
    """
    onnx, numpy = importlib.import_module("onnx"), importlib.import_module("safetensors.numpy")
    model = onnx.load(graph)
    states, given = model.graph.output[0].name, {value.name: value for value in model.graph.input}
    if _TYPES in given:
        model.graph.input.remove(given[_TYPES])
        model.graph.node.insert(0, onnx.helper.make_node("Sub", ["input_ids", "input_ids"], [_TYPES]))
    weight = numpy.load_file(checkpoint / "1_Dense/model.safetensors")["linear.weight"]  # (D, H)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight.T.copy(), "projection"))
    model.graph.node.append(onnx.helper.make_node("MatMul", [states, "projection"], ["projected"]))
    model.graph.node.append(onnx.helper.make_node("LpNormalization", ["projected"], ["vectors"], axis=-1, p=2))
    del model.graph.output[:]
    shape = ["batch", "tokens", int(weight.shape[0])]
    model.graph.output.append(onnx.helper.make_tensor_value_info("vectors", onnx.TensorProto.FLOAT, shape))
    out.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, out)


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


if __name__ == "__main__":
    import sys

    stand_in(Path(sys.argv[1]))
