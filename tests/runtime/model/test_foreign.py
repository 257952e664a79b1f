"""Folders without a manifest against SentenceTransformer(folder) in torch, on the same tiny random checkpoint.

The weights are large (initializer_range 0.2), so that a wrong mask, position or token type shows; the graph comes from
a plain torch.onnx.export with attention_mask and token_type_ids, as Optimum and sentence-transformers write it.
"""

import functools
import io
import json
import logging
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers
from onnx import TensorProto, helper, numpy_helper
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm, Pooling
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

import trivec
from trivec import InputError, ModelFormatError, ModelNotFoundError
from trivec._model.manifest import POOLING_MODES

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [*"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?-'äöüé東京"]
WIDTH, POSITIONS, TOKENIZER_LIMIT = 32, 64, 48
TEXTS = ["Hello, World", "", "a", "東京 äöü é", "[MASK] Upper UPPER upper", "one two three four five " * 9, "?! ..."]
OLD = "sentence_transformers.models."
NEW = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
}


# ---- the checkpoint --------------------------------------------------------------------------------------------------


def write_tokenizer(folder: Path) -> None:
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *LETTERS, *("##" + letter for letter in LETTERS)])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_truncation(10)  # as MiniLM's tokenizer.json: neither is what the model reads
    tokenizer.enable_padding(length=12)
    names = {f"{name.strip('[]').lower()}_token": name for name in SPECIAL}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=TOKENIZER_LIMIT, **names)
    fast.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))


def export(model: torch.nn.Module) -> onnx.ModelProto:
    class Wrapper(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> Any:
            return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state

    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    program = torch.onnx.export(
        Wrapper(),
        tuple(torch.full((2, 7), fill, dtype=torch.int64) for fill in (5, 1, 0)),
        input_names=["input_ids", "attention_mask", "token_type_ids"],
        output_names=["last_hidden_state"],
        dynamo=True,
        dynamic_shapes=(sizes, sizes, sizes),
        verbose=False,
    )
    assert program is not None
    return program.model_proto


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with random weights: config.json, model.safetensors, the tokenizer, and model.onnx beside them."""
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(SPECIAL) + 2 * len(LETTERS),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=POSITIONS,
        initializer_range=0.2,
    )
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.BertModel(config, add_pooling_layer=False).eval()
        model.save_pretrained(folder)
        write_tokenizer(folder)
        onnx.save_model(export(model), folder / "model.onnx")
    logging.getLogger("torch.onnx").setLevel(level)
    return folder


# ---- graphs: the exported one with other inputs and outputs ----------------------------------------------------------


def with_token_embeddings(model: onnx.ModelProto) -> None:
    """The output under sentence-transformers' name."""
    model.graph.node.append(helper.make_node("Identity", ["last_hidden_state"], ["token_embeddings"]))
    model.graph.output[0].name = "token_embeddings"


def with_ids_only(model: onnx.ModelProto) -> None:
    """Mask and token types made from input_ids: neither is an input any more."""
    zero, one = (numpy_helper.from_array(np.array(value), name) for value, name in ((0, "zero_"), (1, "one_")))
    model.graph.initializer.extend([zero, one])
    made = [
        helper.make_node("Mul", ["input_ids", "zero_"], ["token_type_ids"]),
        helper.make_node("Add", ["token_type_ids", "one_"], ["attention_mask"]),
    ]
    for i, node in enumerate(made):
        model.graph.node.insert(i, node)
    del model.graph.input[1:]


def with_int32_inputs(model: onnx.ModelProto) -> None:
    for i, value in enumerate(model.graph.input):
        name, wide = value.name, f"{value.name}_wide"
        for node in model.graph.node:
            node.input[:] = [wide if found == name else found for found in node.input]
        value.type.tensor_type.elem_type = TensorProto.INT32
        model.graph.node.insert(i, helper.make_node("Cast", [name], [wide], to=TensorProto.INT64))


def with_sentence_embedding(model: onnx.ModelProto, *, alone: bool) -> None:
    """Mean and normalization in the graph, as Optimum exports a sentence-transformers model."""
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "axis_"))
    model.graph.node.extend(
        [
            helper.make_node("ReduceMean", ["last_hidden_state", "axis_"], ["mean_"], keepdims=0),
            helper.make_node("LpNormalization", ["mean_"], ["sentence_embedding"], axis=1, p=2),
        ]
    )
    with_token_embeddings(model)
    sentence = helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", WIDTH])
    if alone:
        del model.graph.output[:]
    model.graph.output.append(sentence)


def with_other_output(model: onnx.ModelProto) -> None:
    with_token_embeddings(model)
    model.graph.node[-1].output[0] = model.graph.output[0].name = "logits"


def with_pixels(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, [1]))


# ---- folders ---------------------------------------------------------------------------------------------------------

Change = Callable[[onnx.ModelProto], None]
Json = Mapping[str, Any]


@pytest.fixture
def make(checkpoint: Path, tmp_path: Path) -> Callable[..., Path]:
    """Make a folder from the checkpoint: JSON files by their path (merged with what is there), and a graph."""

    def build(files: Json = {}, change: Change | None = None, graph: str = "onnx/model.onnx") -> Path:  # noqa: B006
        folder = tmp_path / "model"
        shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns("model.onnx"))
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            before = json.loads(path.read_text()) if path.exists() and isinstance(content, dict) else None
            path.write_text(json.dumps(content if before is None else {**before, **content}))
        put_graph(checkpoint, folder / graph, change)
        return folder

    return build


def put_graph(checkpoint: Path, path: Path, change: Change | None = None) -> None:
    model = onnx.load(checkpoint / "model.onnx")
    if change is not None:
        change(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(model, path)


def modules(*kinds: str, prefix: str = OLD) -> list[dict[str, object]]:
    """modules.json: Transformer at the root, the others in folders of their own."""
    return [
        {"idx": i, "name": str(i), "path": "" if i == 0 else f"{i}_{kind}", "type": f"{prefix}{kind}"}
        for i, kind in enumerate(kinds)
    ]


def old_pooling(*modes: str, **more: object) -> dict[str, object]:
    keys = {
        "cls": "pooling_mode_cls_token",
        "max": "pooling_mode_max_tokens",
        "mean": "pooling_mode_mean_tokens",
        "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
        "weightedmean": "pooling_mode_weightedmean_tokens",
        "lasttoken": "pooling_mode_lasttoken",
    }
    return {"word_embedding_dimension": WIDTH, **{key: mode in modes for mode, key in keys.items()}, **more}


def quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*args, **kwargs)

    return wrapped


@quiet
def reference(folder: Path, **options: Any) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu", **options)


def load(folder: Path, **options: Any) -> trivec.DenseEncoder:
    encoder: trivec.DenseEncoder = trivec.load(folder, device="cpu", threads=1, **options)
    return encoder


def assert_close(found: Any, expected: Any) -> None:
    found, expected = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    assert found.shape == expected.shape
    norms = np.linalg.norm(found, axis=-1) * np.linalg.norm(expected, axis=-1)
    assert ((found * expected).sum(-1) / norms).min() >= 0.99999
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def compare(folder: Path, texts: Sequence[str] = TEXTS, *, options: Json = {}, **encode: Any) -> None:  # noqa: B006
    theirs, ours = reference(folder, **options), load(folder, **options)
    assert_close(ours.encode(texts, **encode), theirs.encode(texts, show_progress_bar=False, **encode))


# ---- the first generation of keys ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_old_keys_every_pooling_mode(make: Callable[..., Path], mode: str) -> None:
    files = {"modules.json": modules("Transformer", "Pooling"), "1_Pooling/config.json": old_pooling(mode)}
    compare(make(files))


@pytest.mark.parametrize("modes", [("cls", "mean"), ("mean", "max", "lasttoken"), ()])
def test_old_keys_several_modes_and_none(make: Callable[..., Path], modes: tuple[str, ...]) -> None:
    compare(make({"modules.json": modules("Transformer", "Pooling"), "1_Pooling/config.json": old_pooling(*modes)}))


@pytest.mark.parametrize("prompt", ["query: ", "Represent this: [SEP]", "", "x " * 60])
@pytest.mark.parametrize("mode", ["mean", "cls", "weightedmean"])
def test_old_keys_include_prompt_false(make: Callable[..., Path], mode: str, prompt: str) -> None:
    folder = make(
        {
            "modules.json": modules("Transformer", "Pooling"),
            "1_Pooling/config.json": old_pooling(mode, include_prompt=False),
        }
    )
    compare(folder, ["a text", "b", "Longer text with several words"], prompt=prompt)


def test_old_keys_length_and_lower_case(make: Callable[..., Path]) -> None:
    files = {
        "modules.json": modules("Transformer", "Pooling", "Normalize"),
        "sentence_bert_config.json": {"max_seq_length": 17, "do_lower_case": True},
        "1_Pooling/config.json": old_pooling("mean"),
    }
    folder = make(files)
    compare(folder)
    encoder = load(folder)
    assert encoder.max_seq_length == reference(folder).max_seq_length == 17
    assert encoder.tokenize(["ABC", "abc"])[0] == encoder.tokenize(["ABC", "abc"])[1]


@pytest.mark.parametrize("name", ["sentence_roberta_config.json", "sentence_xlnet_config.json"])
def test_old_names_of_the_transformer_config(make: Callable[..., Path], name: str) -> None:
    files = {
        "modules.json": modules("Transformer", "Pooling"),
        name: {"max_seq_length": 9},
        "1_Pooling/config.json": old_pooling("mean"),
    }
    folder = make(files)
    compare(folder)
    assert load(folder).max_seq_length == 9


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, TOKENIZER_LIMIT),
        ({"tokenizer_config.json": {"model_max_length": 10**30}}, POSITIONS),
        ({"tokenizer_config.json": {"model_max_length": 512}}, POSITIONS),
        ({"sentence_bert_config.json": {"max_seq_length": None}}, TOKENIZER_LIMIT),
        ({"sentence_bert_config.json": {"max_seq_length": 20, "tokenizer_args": {"model_max_length": 11}}}, 11),
        ({"sentence_bert_config.json": {"processor_kwargs": {"model_max_length": 12}}}, 12),
    ],
)
def test_max_seq_length_is_found_where_sentence_transformers_finds_it(
    make: Callable[..., Path], files: Json, expected: int
) -> None:
    common = {"modules.json": modules("Transformer", "Pooling"), "1_Pooling/config.json": old_pooling("mean")}
    folder = make({**common, **files})
    assert load(folder).max_seq_length == reference(folder).max_seq_length == expected
    compare(folder, [TEXTS[5]])


@pytest.mark.parametrize(
    "config",
    [
        {"tokenizer_config.json": {"truncation_side": "left"}},
        {"sentence_bert_config.json": {"tokenizer_args": {"truncation_side": "left"}}},
    ],
)
def test_truncation_side(make: Callable[..., Path], config: Json) -> None:
    common = {"modules.json": modules("Transformer", "Pooling"), "1_Pooling/config.json": old_pooling("mean")}
    folder = make({**common, **config})
    compare(folder, ["x y z " * 30 + "the end", "start " + "a b c " * 30])


@pytest.mark.parametrize("has_lowercase", [True, False])
def test_lower_case_is_added_only_where_the_tokenizer_lacks_it(make: Callable[..., Path], has_lowercase: bool) -> None:
    files = {
        "modules.json": modules("Transformer", "Pooling"),
        "sentence_bert_config.json": {"do_lower_case": True},
        "1_Pooling/config.json": old_pooling("mean"),
    }
    folder = make(files)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    # "X" becomes "A" before lower-casing: whether a second one is put in front decides about both
    parts = [normalizers.Replace("X", "A"), *([normalizers.Lowercase()] if has_lowercase else [])]
    tokenizer.normalizer = normalizers.Sequence(parts)
    tokenizer.save(str(folder / "tokenizer.json"))
    compare(folder, ["aXb", "AxB X", "xx"])


def test_old_keys_dense_layer_norm_and_normalize(make: Callable[..., Path], checkpoint: Path) -> None:
    folder = make({"1_Pooling/config.json": old_pooling("mean")})
    torch.manual_seed(1)
    dense, norm = Dense(WIDTH, 11, activation_function=torch.nn.GELU()), LayerNorm(11)
    torch.nn.init.normal_(norm.norm.weight)
    for i, module in ((2, dense), (3, norm)):
        path = folder / f"{i}_{type(module).__name__}"
        path.mkdir()
        module.save(str(path))
    kinds = modules("Transformer", "Pooling", "Dense", "LayerNorm", "Normalize")
    (folder / "modules.json").write_text(json.dumps(kinds))
    compare(folder)
    assert load(folder).dim == 11


# ---- the second generation: what sentence-transformers 6.2 saves -----------------------------------------------------


@quiet
def save(folder: Path, checkpoint: Path, *tail: Any, change: Change | None = None, **options: Any) -> Path:
    bert = Transformer(str(checkpoint))
    SentenceTransformer(modules=[bert, *tail], device="cpu", **options).save(str(folder), create_model_card=False)
    put_graph(checkpoint, folder / "onnx" / "model.onnx", change)
    return folder


def test_new_keys_are_the_ones_saved_now(tmp_path: Path, checkpoint: Path) -> None:
    folder = save(tmp_path / "m", checkpoint, Pooling(WIDTH, ("cls", "mean")))
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text())
    assert pooling == {"embedding_dimension": WIDTH, "pooling_mode": ["cls", "mean"], "include_prompt": True}
    compare(folder)


@pytest.mark.parametrize("mode", [*POOLING_MODES, ("weightedmean", "cls", "max")])
def test_new_keys_every_pooling_mode(tmp_path: Path, checkpoint: Path, mode: Any) -> None:
    compare(save(tmp_path / "m", checkpoint, Pooling(WIDTH, mode)))


def test_new_keys_dense_with_residual_layer_norm_dropout_and_normalize(tmp_path: Path, checkpoint: Path) -> None:
    torch.manual_seed(2)
    narrow = Dense(WIDTH, 9, bias=False, activation_function=torch.nn.Identity(), use_residual=True)
    same = Dense(9, 9, activation_function=torch.nn.SiLU(), use_residual=True)
    folder = save(tmp_path / "m", checkpoint, Pooling(WIDTH), Dropout(), narrow, LayerNorm(9), same, Normalize())
    compare(folder)
    compare(folder, truncate_dim=5)
    compare(folder, truncate_dim=5, normalize_embeddings=True)


def test_prompts_by_name_default_prompt_and_no_prompt(tmp_path: Path, checkpoint: Path) -> None:
    prompts = {"query": "search: ", "passage": "text: "}
    tail = Pooling(WIDTH, "mean", include_prompt=False)
    folder = save(tmp_path / "m", checkpoint, tail, prompts=prompts, default_prompt_name="passage")
    theirs, ours = reference(folder), load(folder)
    assert ours.prompts == theirs.prompts
    assert ours.default_prompt_name == theirs.default_prompt_name == "passage"
    calls: list[dict[str, Any]] = [{}, {"prompt_name": "query"}, {"prompt": "other: "}, {"prompt": ""}]
    for options in calls:
        assert_close(ours.encode(TEXTS, **options), theirs.encode(TEXTS, **options))
    assert_close(ours.encode_query(TEXTS), theirs.encode_query(TEXTS))
    assert_close(ours.encode_document(TEXTS), theirs.encode_document(TEXTS))
    compare(folder, options={"prompts": {"query": "Q "}, "default_prompt_name": "query"})


def test_truncate_dim_and_similarity_of_the_checkpoint(tmp_path: Path, checkpoint: Path) -> None:
    folder = save(tmp_path / "m", checkpoint, Pooling(WIDTH), truncate_dim=10, similarity_fn_name="manhattan")
    theirs, ours = reference(folder), load(folder)
    assert ours.dim == theirs.get_embedding_dimension() == 10
    compare(folder)
    assert ours.similarity_fn_name == theirs.similarity_fn_name == "manhattan"
    vectors = theirs.encode(TEXTS)
    expected = theirs.similarity(vectors, vectors).numpy()
    np.testing.assert_allclose(ours.similarity(vectors, vectors), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours.similarity_pairwise(vectors, vectors), np.diag(expected), atol=1e-5)
    compare(folder, options={"truncate_dim": 4})


def test_a_router_with_an_encoder_for_each_task(tmp_path: Path, checkpoint: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    with_quiet = quiet(Router.for_query_document)
    queries = [Transformer(str(checkpoint), max_seq_length=9), Pooling(WIDTH, "cls")]
    documents = [Transformer(str(other)), Pooling(WIDTH, "mean")]
    router = with_quiet(query_modules=queries, document_modules=documents)
    folder = tmp_path / "m"
    quiet(SentenceTransformer(modules=[router, Normalize()], device="cpu").save)(str(folder), create_model_card=False)
    for name in ("query_0_Transformer", "document_0_Transformer"):
        put_graph(checkpoint, folder / name / "onnx" / "model.onnx")
    theirs, ours = reference(folder), load(folder)
    assert_close(ours.encode_query(TEXTS), theirs.encode_query(TEXTS))
    assert_close(ours.encode_document(TEXTS), theirs.encode_document(TEXTS))
    assert np.abs(ours.encode_query(TEXTS) - ours.encode_document(TEXTS)).max() > 0.1
    with pytest.raises(
        InputError, match=r"task 'passage' is no route of this model. Expected one of \['document', 'qu"
    ):
        ours.encode(TEXTS, task="passage")


# ---- graphs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [with_token_embeddings, with_ids_only, with_int32_inputs])
@pytest.mark.parametrize("place", ["onnx/model.onnx", "model.onnx"])
def test_inputs_and_outputs_under_their_usual_names(make: Callable[..., Path], change: Change, place: str) -> None:
    files = {"modules.json": modules("Transformer", "Pooling"), "1_Pooling/config.json": old_pooling("mean")}
    compare(make(files, change, place))


@pytest.mark.parametrize("alone", [True, False])
def test_a_graph_that_pools_and_normalizes_by_itself(make: Callable[..., Path], alone: bool) -> None:
    files = {
        "modules.json": modules("Transformer", "Pooling", "Normalize"),
        "1_Pooling/config.json": old_pooling("mean"),
    }
    folder = make(files, functools.partial(with_sentence_embedding, alone=alone))
    compare(folder)
    if alone:
        with pytest.raises(InputError, match="this graph gives sentence embeddings only"):
            load(folder).encode("a", output_value="token_embeddings")


def test_modules_win_over_the_pooling_of_a_graph_that_has_both(make: Callable[..., Path]) -> None:
    files = {"modules.json": modules("Transformer", "Pooling"), "1_Pooling/config.json": old_pooling("cls")}
    compare(make(files, functools.partial(with_sentence_embedding, alone=False)))


def test_the_sentence_embedding_of_a_folder_without_modules(make: Callable[..., Path], checkpoint: Path) -> None:
    folder = make({}, functools.partial(with_sentence_embedding, alone=False), "model.onnx")
    found = load(folder).encode(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert_close(found, reference(checkpoint).encode(TEXTS, normalize_embeddings=True))


def test_what_optimum_writes_mean_pooling_without_modules(make: Callable[..., Path]) -> None:
    compare(make({}, None, "model.onnx"))


@pytest.mark.parametrize(
    ("config", "mode"),
    [
        ({"architectures": ["BertForCausalLM"]}, "lasttoken"),
        ({"architectures": ["BertForCausalLM"], "is_causal": False}, "mean"),
        ({"architectures": ["BertForMaskedLM"]}, "mean"),
        ({"architectures": None}, "mean"),
    ],
)
def test_pooling_without_modules(make: Callable[..., Path], config: Json, mode: str) -> None:
    folder = make({"config.json": config})
    theirs = reference(folder)
    assert theirs[1].pooling_mode == mode
    assert_close(load(folder).encode(TEXTS), theirs.encode(TEXTS))


def test_token_embeddings_and_everything_of_a_text(make: Callable[..., Path]) -> None:
    folder = make({"modules.json": modules("Transformer", "Pooling"), "1_Pooling/config.json": old_pooling("mean")})
    theirs, ours = reference(folder), load(folder)
    found, expected = (m.encode(TEXTS, output_value="token_embeddings") for m in (ours, theirs))
    assert isinstance(found, list)
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other)
    single = ours.encode("Hello", output_value="token_embeddings")
    assert_close(single, theirs.encode("Hello", output_value="token_embeddings"))
    item, other = (m.encode("Hello", output_value=None, truncate_dim=7) for m in (ours, theirs))
    assert set(item) == {"input_ids", "attention_mask", "token_embeddings", "sentence_embedding"}
    for name in ("input_ids", "attention_mask"):
        assert item[name].tolist() == other[name].tolist()
    assert_close(item["sentence_embedding"], other["sentence_embedding"])


@pytest.mark.parametrize("name", ["model_quantized.onnx", "model_qint8_avx512_vnni.onnx", "model_int8.onnx"])
def test_names_of_int8_graphs(make: Callable[..., Path], checkpoint: Path, name: str) -> None:
    folder = make({}, None, f"onnx/{name}")
    encoder = load(folder)
    assert encoder.precision == "int8"
    assert_close(encoder.encode(TEXTS), reference(checkpoint).encode(TEXTS))
    with pytest.raises(ModelNotFoundError, match=r"has no fp32 variant; it has: int8. Export one from the checkpoint"):
        load(folder, precision="fp32")


def test_fp32_is_taken_where_int8_lies_beside_it(make: Callable[..., Path], checkpoint: Path) -> None:
    folder = make()
    put_graph(checkpoint, folder / "onnx" / "model_quantized.onnx", with_pixels)  # opening it would raise
    assert load(folder).precision == "fp32"
    with pytest.raises(ModelFormatError, match=r"has the inputs .*'pixel_values'"):
        load(folder, precision="int8")


def test_external_data_under_the_hub_s_usual_name(make: Callable[..., Path]) -> None:
    folder = make()
    graph = onnx.load(folder / "onnx" / "model.onnx")
    (folder / "onnx" / "model.onnx").unlink()
    onnx.save_model(graph, folder / "onnx" / "model.onnx", save_as_external_data=True, location="model.onnx_data")
    assert (folder / "onnx" / "model.onnx_data").stat().st_size > 10_000
    compare(folder)


# ---- an encoder with attention: neighbours, and the fingerprint ------------------------------------------------------


def test_a_text_s_vector_does_not_depend_on_its_neighbours(make: Callable[..., Path]) -> None:
    encoder = load(make())
    letters = np.random.default_rng(0).choice(list("abc def ghi"), size=(63, 90))
    others = ["".join(row[: 1 + i]) for i, row in enumerate(letters)]
    for text in ("a few words", "", "x"):
        alone = encoder.encode(text)
        for batch_size in (1, 3, 64):
            among = encoder.encode([*others[:31], text, *others[31:]], batch_size=batch_size)[31]
            np.testing.assert_allclose(among, alone, rtol=0, atol=1e-5)


def test_the_fingerprint_of_a_folder_without_digests_covers_its_files(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make()
    before = load(folder).fingerprint
    assert load(shutil.copytree(folder, tmp_path / "copy")).fingerprint == before
    model = onnx.load(folder / "onnx" / "model.onnx")
    model.producer_name = "somebody else"
    onnx.save_model(model, folder / "onnx" / "model.onnx")
    assert load(folder).fingerprint != before


def test_repr_and_dim_of_a_folder_without_manifest(make: Callable[..., Path]) -> None:
    folder = make()
    encoder = load(folder)
    assert encoder.dim == WIDTH
    assert repr(encoder) == f"DenseEncoder({str(folder)!r}, dim={WIDTH}, fp32, cpu)"


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_more_tokens_than_positions_is_one_error_of_trivec(make: Callable[..., Path]) -> None:
    files = {
        "modules.json": modules("Transformer", "Pooling"),
        "1_Pooling/config.json": old_pooling("mean"),
        "sentence_bert_config.json": {"max_seq_length": 2 * POSITIONS},
    }
    with pytest.raises(trivec.ProviderError, match=r"^onnxruntime cannot run 1 texts of 102 tokens: .*max_seq_length"):
        load(make(files)).encode("a " * 100)


def test_a_graph_without_a_known_output(make: Callable[..., Path]) -> None:
    with pytest.raises(
        ModelFormatError, match="the graph has the outputs logits; expected one of token_embeddings, la"
    ):
        load(make({}, with_other_output))


def test_a_checkpoint_without_graphs(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns("*.onnx"))
    with pytest.raises(ModelNotFoundError) as caught:
        load(folder)
    assert str(caught.value) == (
        f"{folder} is a checkpoint without ONNX graphs. Type: trivec export {folder} OUT   "
        "(or load(..., export=True) where trivec[export] is installed)"
    )


LIBRARY = "sentence_transformers.models"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"modules.json": modules("Transformer", "Pooling", "CNN")}, "has the module CNN"),
        ({"modules.json": modules("Pooling", "Transformer")}, "a dense model starts with Transformer, Pooling"),
        ({"modules.json": {"a": 1}}, "modules.json holds no list of modules"),
        ({"1_Pooling/config.json": {"pooling_mode": "median"}}, "pooling mode 'median' is none of cls, max"),
        ({"config_sentence_transformers.json": {"model_type": "SparseEncoder"}}, "is a SparseEncoder checkpoint"),
        ({"sentence_bert_config.json": {"query_length": 32}}, "has query_length = 32, which trivec does not follow"),
        ({"sentence_bert_config.json": {"transformer_task": "fill-mask"}}, "transformer_task = 'fill-mask'"),
        (
            {
                "modules.json": [
                    {"type": f"{LIBRARY}.Transformer", "path": "../up"},
                    {"type": f"{LIBRARY}.Pooling", "path": "1"},
                ]
            },
            r"the module path '\.\./up' leaves the model folder",
        ),
    ],
)
def test_modules_and_settings_that_trivec_does_not_run(make: Callable[..., Path], files: Json, message: str) -> None:
    common = {"modules.json": modules("Transformer", "Pooling"), "1_Pooling/config.json": old_pooling("mean")}
    with pytest.raises(ModelFormatError, match=message):
        load(make({**common, **files}))


def test_json_that_cannot_be_read(make: Callable[..., Path]) -> None:
    folder = make()
    (folder / "modules.json").write_bytes(b"\xff[")
    with pytest.raises(ModelFormatError, match=r"modules\.json is not valid JSON"):
        load(folder)


def test_a_dense_layer_without_safetensors_weights(make: Callable[..., Path]) -> None:
    files = {
        "modules.json": modules("Transformer", "Pooling", "Dense"),
        "1_Pooling/config.json": old_pooling("mean"),
        "2_Dense/config.json": {"in_features": WIDTH, "out_features": 3},
    }
    folder = make(files)
    torch.save({}, folder / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(
        ModelFormatError, match=r"2_Dense has no model\.safetensors. Export the checkpoint instead: triv"
    ):
        load(folder)


def test_an_unknown_activation(make: Callable[..., Path]) -> None:
    files = {
        "modules.json": modules("Transformer", "Pooling", "Dense"),
        "1_Pooling/config.json": old_pooling("mean"),
        "2_Dense/config.json": {"activation_function": "torch.nn.modules.activation.Softshrink"},
    }
    with pytest.raises(
        ModelFormatError, match="Dense in '2_Dense' has the activation Softshrink; known: identity, tanh"
    ):
        load(make(files))


def test_no_fast_tokenizer(make: Callable[..., Path]) -> None:
    folder = make()
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelFormatError, match=r"has no tokenizer\.json; trivec reads fast tokenizers only"):
        load(folder)


def test_a_tokenizer_that_gives_token_types(make: Callable[..., Path]) -> None:
    folder = make()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:1 $A:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(ModelFormatError, match="gives token types other than 0 to a single text"):
        load(folder)


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(
        ModelNotFoundError, match=r"is no model: it has neither a trivec\.json nor a config\.json with o"
    ):
        load(tmp_path)


def test_graphs_that_onnxruntime_cannot_read(make: Callable[..., Path]) -> None:
    folder = make()
    (folder / "onnx" / "model.onnx").write_bytes(io.BytesIO(b"no graph").getvalue())
    with pytest.raises(ModelFormatError, match=r"^onnxruntime [0-9.]+ cannot read .*model\.onnx: "):
        load(folder)
