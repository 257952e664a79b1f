"""What goes wrong with sparse and hybrid checkpoints ends in one clear error, and leaves nothing behind."""

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules.transformer import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder, SparseStaticEmbedding
from tests.support import sparse_models as made
from tests.support.architectures import make

import trivec
from trivec import ModelFormatError, ModelNotFoundError
from trivec._model import manifest_file
from trivec._model.checkpoint import TableSpec
from trivec_export._checkpoint.query_table import make_table
from trivec_export._reference.heads import read_linear

HIDDEN = 32


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints by name: bert, mlm, splade, router, m3. Not to be changed."""
    work = tmp_path_factory.mktemp("parts")
    make("bert", work / "bert")
    mlm = made.masked_lm("distilbert", work / "mlm", made.small_tokenizer("distilbert", work / "tokenizer"))
    made.splade(work / "splade", mlm)
    table = SparseStaticEmbedding(Transformer(str(mlm), transformer_task="fill-mask").tokenizer, torch.ones(300))
    made.inference_free(work / "router", mlm, table)
    made.small_tokenizer("roberta", work / "xlm-r")
    made.bge_m3(work / "m3", work / "xlm-r/tokenizer.json")
    return work


@pytest.fixture
def copy(parts: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a checkpoint, which may be changed."""
    return lambda name: Path(shutil.copytree(parts / name, tmp_path / name))


def refuse(folder: Path, message: str, family: str = "auto", error: type[Exception] = ModelFormatError) -> None:
    """The export raises, and no output folder nor any part of one is left."""
    with pytest.raises(error, match=message):
        trivec.export(folder, folder.with_name("made"), family=family, precision=("fp32",), max_texts=64, quiet=True)
    assert not [path for path in folder.parent.iterdir() if "made" in path.name]


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# ------------------------------------------------------------------------------------------- the language model head
def test_a_checkpoint_without_a_head(copy: Callable[[str], Path]) -> None:
    folder = copy("bert")
    message = "without its masked-language-model head it is no SPLADE model. For dense vectors: --family dense"
    refuse(folder, re.escape(message), family="splade")
    rewrite(folder / "config.json", architectures=["BertForMaskedLM"])
    refuse(folder, r"no weights for \d+ parameters of BertForMaskedLM, such as cls\.predictions")


@pytest.mark.parametrize("weight", ["vocab_projector.bias", "vocab_transform.weight", "vocab_layer_norm.bias"])
def test_nan_in_the_head_names_a_text(weight: str, copy: Callable[[str], Path]) -> None:
    folder = copy("mlm")
    state = load_file(folder / "model.safetensors")
    state[weight].view(-1)[7] = float("nan")
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    refuse(folder, "torch itself gives NaN or infinity for the text '", error=trivec.NonFiniteError)


def test_a_head_of_another_vocabulary(copy: Callable[[str], Path]) -> None:
    """transformers' own error would point to a report in its log."""
    folder = copy("mlm")
    state = load_file(folder / "model.safetensors")
    state["vocab_projector.bias"] = state["vocab_projector.bias"][:-1].clone()
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    refuse(folder, "vocab_projector.bias")


# ------------------------------------------------------------------------------------------------ SparseEncoder folders
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"pooling_strategy": "mean"},
            "SpladePooling has pooling_strategy 'mean' and activation_function 'relu'; known",
        ),
        (
            {"activation_function": "gelu"},
            "pooling_strategy 'max' and activation_function 'gelu'; known: max, sum; relu",
        ),
        ({"pooling_strategy": None}, "SpladePooling has pooling_strategy None"),
    ],
)
def test_poolings_that_are_not_known(change: dict[str, Any], message: str, copy: Callable[[str], Path]) -> None:
    folder = copy("splade")
    rewrite(folder / "1_SpladePooling/config.json", **change)
    refuse(folder, message)


def test_a_sparse_autoencoder(parts: Path, tmp_path: Path) -> None:
    """CSR models put an autoencoder behind a dense model."""
    transformer = Transformer(str(parts / "bert"))
    modules = [transformer, Pooling(64, "mean"), SparseAutoEncoder(input_dim=64, hidden_dim=96, k=8)]
    SparseEncoder(modules=modules, device="cpu").save(str(tmp_path / "csr"), create_model_card=False)
    refuse(
        tmp_path / "csr", "csr has the modules Transformer, Pooling, SparseAutoEncoder; trivec runs SparseEncoder mod"
    )


@pytest.mark.parametrize("family", ["dense", "bge-m3", "mgte"])
def test_a_sparse_encoder_under_another_family(family: str, copy: Callable[[str], Path]) -> None:
    refuse(copy("splade"), f"is a SparseEncoder checkpoint, not '{family}'. Use: --family splade", family=family)


def test_other_modules_in_a_sparse_encoder(copy: Callable[[str], Path]) -> None:
    folder = copy("router")
    config = json.loads((folder / "router_config.json").read_text())
    config["structure"]["query"].append("document_1_SpladePooling")
    (folder / "router_config.json").write_text(json.dumps(config))
    refuse(folder, "has the modules SparseStaticEmbedding, SpladePooling; trivec runs SparseStaticEmbedding alone")
    config["structure"] = {"query": ["query_0_SparseStaticEmbedding"]}
    (folder / "router_config.json").write_text(json.dumps(config))
    refuse(folder, "has no Transformer: a table of weights alone is not supported")


def test_a_family_without_its_head(copy: Callable[[str], Path]) -> None:
    folder = copy("bert")
    refuse(folder, "no token classifier .classifier.weight., whose weights make mGTE's sparse vectors", family="mgte")
    refuse(folder, r"sparse_linear\.pt does not exist, and BGE-M3 needs its weights", family="bge-m3")


# -------------------------------------------------------------------------------------------------- tables of weights
def table(folder: Path, tmp_path: Path, weights: str = "", dim: int = 300) -> None:
    """What the export does with the query side of a model, once the documents' model is traced."""
    make_table("query", folder, TableSpec("" if weights else "query_0_SparseStaticEmbedding", weights), dim, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"a": 1.0, "zebra": 2.0, "[PAD]": 0}',
            r"weights for 1 of 3 tokens that the tokenizer does not have, such as 'z",
        ),
        ('{"a": NaN}', "holds 1 weights that are NaN or infinite"),
        ('{"a": 1e400, "b": -Infinity}', "holds 2 weights that are NaN or infinite"),
        ('[["a", 1.0]]', "holds no JSON object of tokens and weights"),
        ('{"a": "1.0"}', "holds no JSON object of tokens and weights"),
        ('{"a": true}', "holds no JSON object of tokens and weights"),
        ('{"a": [1.0]}', "holds no JSON object of tokens and weights"),
        ("{}", "holds no JSON object of tokens and weights"),
        ('{"a": 1.0', r"idf\.json is not valid JSON"),
        ('"a"', "holds no JSON object of tokens and weights"),
        pytest.param('{"a": 1' + "0" * 400 + "}", "idf.json", id="a huge whole number"),
    ],
)
def test_json_files_of_no_weights(content: str, message: str, copy: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copy("mlm")
    (folder / "idf.json").write_text(content)
    with pytest.raises(ModelFormatError, match=message):
        table(folder, tmp_path, "idf.json")


def test_a_json_file_of_another_vocabulary_stops_the_export(copy: Callable[[str], Path]) -> None:
    folder = copy("mlm")
    (folder / "idf.json").write_text(json.dumps({"zebra": 1.5, "a": 1.0}))
    refuse(folder, r"idf\.json has weights for 1 of 2 tokens .* such as 'zebra': it belongs to another vocabulary")


def test_a_json_file_that_is_not_there(copy: Callable[[str], Path]) -> None:
    folder = copy("router")
    (folder / "query_0_SparseStaticEmbedding/config.json").write_text(json.dumps({"path": "weights.json"}))
    refuse(folder, r"SparseStaticEmbedding takes its weights from 'weights\.json', which is not there")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"weight": torch.ones(299)}, r"weights of shape \(299,\) for a tokenizer of 300 tokens, but .* has 300 terms"),
        ({"weight": torch.ones(301)}, r"weights of shape \(301,\) .* they are of different vocabularies"),
        ({"weight": torch.ones(1, 300)}, r"weights of shape \(1, 300\)"),
        ({"weight": torch.full((300,), float("nan"))}, "holds 300 weights that are NaN or infinite"),
        ({"weights": torch.ones(300)}, r"has the tensors \[.*\], expected one of shape \(tokens,\), weight"),
    ],
)
def test_tensors_of_no_weights(
    state: dict[str, torch.Tensor], message: str, copy: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = copy("router")
    place = folder / "query_0_SparseStaticEmbedding"
    save_file(state, place / "model.safetensors")
    with pytest.raises(ModelFormatError, match=message):
        table(folder, tmp_path)
    (place / "model.safetensors").unlink()
    torch.save(state, place / "pytorch_model.bin")
    with pytest.raises(ModelFormatError, match=message):
        table(folder, tmp_path)


def test_files_of_no_weights(copy: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copy("router")
    place = folder / "query_0_SparseStaticEmbedding"
    with pytest.raises(ModelFormatError, match="has 29 terms: they are of different vocabularies"):
        table(folder, tmp_path, dim=29)
    whole = (place / "model.safetensors").read_bytes()
    (place / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelFormatError, match="safetensors"):
        table(folder, tmp_path)
    (place / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match=r"has no model\.safetensors and no pytorch_model\.bin"):
        table(folder, tmp_path)
    torch.save([torch.ones(300)], place / "pytorch_model.bin")
    with pytest.raises(ModelFormatError, match=r"pytorch_model\.bin is no state dict, expected tensors by their names"):
        table(folder, tmp_path)
    torch.save({"weight": Touch(tmp_path / "ran")}, place / "pytorch_model.bin")
    with pytest.raises(ModelFormatError, match=r"pytorch_model\.bin holds more than tensors"):
        table(folder, tmp_path)
    assert not (tmp_path / "ran").exists()


# ----------------------------------------------------------------------------------------------------- BGE-M3's heads
class Touch:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("name", ["sparse_linear", "colbert_linear"])
def test_heads_that_are_missing(name: str, copy: Callable[[str], Path]) -> None:
    folder = copy("m3")
    (folder / f"{name}.pt").unlink()
    message = rf"{name}\.pt does not exist, and BGE-M3 needs its weights .*For dense vectors alone: --family dense"
    refuse(folder, message, family="bge-m3")


WRONG: list[tuple[str, Any, str]] = [
    (
        "sparse",
        {"weight": (2, HIDDEN), "bias": (2,)},
        r"weight \(2, 32\) and a bias \(2,\), expected \(weight \(1, 32\)",
    ),
    ("sparse", {"weight": (1, 31), "bias": (1,)}, r"weight \(1, 31\) and a bias \(1,\), expected \(weight \(1, 32\)"),
    ("sparse", {"weight": (1, HIDDEN), "bias": (2,)}, r"weight \(1, 32\) and a bias \(2,\)"),
    ("sparse", {"weight": (HIDDEN,), "bias": (1,)}, r"weight \(32,\) and a bias \(1,\)"),
    (
        "colbert",
        {"weight": (24, 31), "bias": (24,)},
        r"weight \(24, 31\) .* expected \(weight \(any, 32\) and its bias\)",
    ),
    ("colbert", {"weight": (24, HIDDEN), "bias": (25,)}, r"weight \(24, 32\) and a bias \(25,\)"),
    ("colbert", {"weight": (24, HIDDEN)}, r"holds \['weight'\], expected a state dict"),
    (
        "sparse",
        {"weight": (1, HIDDEN), "bias": (1,), "scale": (1,)},
        r"holds \['bias', 'scale', 'weight'\], expected a s",
    ),
]


@pytest.mark.parametrize(("head", "shapes", "message"), WRONG)
def test_heads_of_another_shape(head: str, shapes: dict[str, tuple[int, ...]], message: str, tmp_path: Path) -> None:
    path = tmp_path / f"{head}_linear.pt"
    torch.save({name: torch.ones(shape) for name, shape in shapes.items()}, path)
    with pytest.raises(ModelFormatError, match=rf"{head}_linear\.pt .*{message}"):
        read_linear(path, HIDDEN, 1 if head == "sparse" else None)


def test_a_misshapen_head_stops_the_export(copy: Callable[[str], Path]) -> None:
    folder = copy("m3")
    torch.save({"weight": torch.ones(3, HIDDEN), "bias": torch.ones(3)}, folder / "sparse_linear.pt")
    refuse(
        folder, r"sparse_linear\.pt has a weight \(3, 32\) and a bias \(3,\), expected \(weight \(1, 32\) and its bias"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1, HIDDEN), torch.ones(1)], "is no state dict, expected tensors by their names"),
        (torch.ones(1, HIDDEN), "is no state dict, expected tensors by their names"),
        ({"weight": 1.0, "bias": 2.0}, "is no state dict, expected tensors by their names"),
        ({"state_dict": {}}, "is no state dict, expected tensors by their names"),
        (
            torch.nn.Linear(HIDDEN, 1),
            "holds more than tensors, or is damaged. A pickle can run any code when it is opened",
        ),
    ],
)
def test_files_that_are_no_state_dict(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "sparse_linear.pt")
    with pytest.raises(ModelFormatError, match=rf"sparse_linear\.pt {message}"):
        read_linear(tmp_path / "sparse_linear.pt", HIDDEN, 1)


@pytest.mark.parametrize("content", [b"", b"not a pickle at all", pickle.dumps([1, 2], protocol=2)])
def test_files_that_are_no_torch_files(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "sparse_linear.pt").write_bytes(content)
    with pytest.raises(
        ModelFormatError, match=r"sparse_linear\.pt (holds more than tensors, or is damaged|is no state dict)"
    ):
        read_linear(tmp_path / "sparse_linear.pt", HIDDEN, 1)


@pytest.mark.parametrize("form", ["torch", "plain"])
def test_a_pickle_that_would_run_a_command(form: str, copy: Callable[[str], Path], tmp_path: Path) -> None:
    folder, mark = copy("m3"), tmp_path / "ran"
    state = {"weight": torch.ones(1, HIDDEN), "bias": Touch(mark)}
    if form == "torch":
        torch.save(state, folder / "colbert_linear.pt")
    else:
        (folder / "colbert_linear.pt").write_bytes(pickle.dumps(Touch(mark), protocol=2))
    refuse(
        folder,
        r"colbert_linear\.pt holds more than tensors, or is damaged\. A pickle can run any code when it is opened",
    )
    assert not mark.exists()


def test_nan_in_a_head(copy: Callable[[str], Path]) -> None:
    folder = copy("m3")
    for name in ("sparse_linear", "colbert_linear"):
        good = (folder / f"{name}.pt").read_bytes()
        state = torch.load(folder / f"{name}.pt", weights_only=True)
        state["bias"][0] = float("nan")
        torch.save(state, folder / f"{name}.pt")
        refuse(folder, "torch itself gives NaN or infinity for the text '", error=trivec.NonFiniteError)
        (folder / f"{name}.pt").write_bytes(good)


# ---------------------------------------------------------------------------------------------------------- manifests
SPLADE: dict[str, Any] = {"kind": "splade", "dim": 9, "output": "pooled_logits", "activation": "relu"}
TABLE: dict[str, Any] = {"kind": "table", "dim": 9, "array": "query.weights"}
LEXICAL: dict[str, Any] = {"kind": "lexical", "dim": 9, "output": "token_weights", "dropped_ids": [0, 1]}
MULTI: dict[str, Any] = {"output": "colbert_vecs", "dim": 4}


def manifest(family: str, sparse: Any = None, multi: Any = None, **changes: Any) -> str:
    variant = {"files": [{"path": "onnx/model.onnx"}], "inputs": ["input_ids"], "output": "x"}
    encoder = {
        "tokenizer": {"path": "tokenizer.json"},
        "max_seq_length": 8,
        "max_positions": 8,
        "variants": {"fp32": variant},
    }
    route = {"encoder": "main", "pooling": None, "steps": [], "sparse": sparse, "multi": multi}
    parts = {"family": family, "dim": 9, "encoders": {"main": encoder}, "routes": {"default": route}}
    return json.dumps({"format": 1, "default_route": "default", **parts, **changes})


def test_manifests_that_are_right() -> None:
    found = manifest_file.loads(manifest("splade", SPLADE, max_active_dims=8))
    assert found.max_active_dims == 8
    assert manifest_file.loads(manifest_file.dumps(found)) == found
    assert manifest_file.loads(manifest("splade", TABLE)).routes["default"].sparse is not None
    both = manifest_file.loads(manifest("bge-m3", LEXICAL, MULTI)).routes["default"]
    assert both.sparse is not None
    assert both.multi is not None
    assert both.sparse.dropped_ids == (0, 1)
    assert (both.multi.skip, both.multi.normalize) == (1, True)
    assert manifest_file.loads(manifest("mgte", LEXICAL)).routes["default"].multi is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("colbert", None), "the family 'colbert' is none of those that this trivec runs: dense, splade, bge-m3, mgte"),
        (("splade", None), r"routes\.default\.sparse is missing or of another kind"),
        (("splade", LEXICAL), r"routes\.default\.sparse is missing or of another kind"),
        (("bge-m3", None, MULTI), r"routes\.default\.sparse is missing or of another kind"),
        (("mgte", SPLADE), r"routes\.default\.sparse is missing or of another kind"),
        (("dense", SPLADE), r"routes\.default has heads that a dense model does not have"),
        (("dense", None, MULTI), r"routes\.default has heads that a dense model does not have"),
        (("splade", {**SPLADE, "kind": "bm25"}), r"routes\.default\.sparse\.kind 'bm25'; known: .*splade.*table"),
        (("splade", {**SPLADE, "activation": "gelu"}), "routes.default: unknown activation 'gelu'"),
        (("splade", {**SPLADE, "dim": 0}), r"routes\.default\.sparse\.dim must be between 1 and"),
        (("splade", {**SPLADE, "dim": "9"}), r"sparse\.dim: expected int, got \"9\""),
        (("splade", {**SPLADE, "output": ""}), r"routes\.default\.sparse names no output"),
        (("splade", {**TABLE, "array": ""}), r"routes\.default\.sparse names no array"),
        (("splade", {"kind": "splade"}), r"sparse: the field 'dim' is missing"),
        (("splade", [SPLADE]), r"sparse: expected an object, got"),
        (("bge-m3", {**LEXICAL, "dropped_ids": 1}), r"sparse\.dropped_ids: expected .*tuple.*, got 1"),
        (("bge-m3", {**LEXICAL, "dropped_ids": ["<s>"]}), r"sparse\.dropped_ids\[0\]: expected int, got \"<s>\""),
        (("bge-m3", LEXICAL, {**MULTI, "dim": 0}), r"routes\.default\.multi is out of range"),
        (("bge-m3", LEXICAL, {**MULTI, "output": ""}), r"routes\.default\.multi is out of range"),
        (("bge-m3", LEXICAL, {**MULTI, "skip": -1}), r"routes\.default\.multi is out of range"),
        (("bge-m3", LEXICAL, {"dim": 4}), r"multi: the field 'output' is missing"),
        (("bge-m3", LEXICAL, {**MULTI, "normalize": 1}), r"multi\.normalize: expected bool, got 1"),
    ],
)
def test_heads_that_a_manifest_cannot_have(given: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ModelFormatError, match=message):
        manifest_file.loads(manifest(*given))


@pytest.mark.parametrize("count", [0, -1, True, 2.5, "8"])
def test_counts_that_a_manifest_cannot_have(count: Any) -> None:
    with pytest.raises(ModelFormatError, match="max_active_dims"):
        manifest_file.loads(manifest("splade", SPLADE, max_active_dims=count))


def test_a_count_that_a_checkpoint_cannot_have(copy: Callable[[str], Path]) -> None:
    folder = copy("splade")
    rewrite(folder / "config_sentence_transformers.json", max_active_dims=0)
    refuse(folder, "max_active_dims must be a whole number above 0, got 0")
