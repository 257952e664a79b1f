"""Jina v3: adapters merged task by task, against a forward of the published code, and PEFT on transformers' class."""

import json
import pickle
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from tests.support.architectures import make
from tests.support.oracle import least_cosine
from tests.support.published import (
    JINA,
    LENGTH,
    ROBERTA,
    Published,
    norm_shapes,
    random_state,
    tokenizer,
    unit,
    write_checkpoint,
)
from torch import Tensor

import trivec
from trivec._model.checkpoint import check_name, read_checkpoint
from trivec._model.manifest import Route
from trivec._model.source import Folder
from trivec.integrations import milvus
from trivec_export._checkpoint import adapters as adapters_module
from trivec_export._checkpoint.published import jina, layouts
from trivec_export._checkpoint.tasks import split_tasks
from trivec_export._reference.torch_model import load as load_model

TASKS = ("retrieval.query", "retrieval.passage", "text-matching")
RETRIEVAL = TASKS[:2]
INSTRUCTIONS = {"retrieval.query": "find what answers: ", "retrieval.passage": "read this: ", "text-matching": ""}
VOCAB, SIZE, INNER, LAYERS, RANK = 300, 64, 96, 2, 4

# config.json of jina-embeddings-v3, but for the sizes, the tasks and alpha, which is 1 there: a tiny model shows more
CONFIG: dict[str, Any] = {
    "_name_or_path": "jinaai/jina-embeddings-v3",
    "architectures": ["XLMRobertaModel"],
    "attention_probs_dropout_prob": 0.1,
    "auto_map": {
        "AutoConfig": "jinaai/xlm-roberta-flash-implementation--configuration_xlm_roberta.XLMRobertaFlashConfig",
        "AutoModel": "jinaai/xlm-roberta-flash-implementation--modeling_lora.XLMRobertaLoRA",
    },
    "bos_token_id": 0,
    "classifier_dropout": None,
    "eos_token_id": 2,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": SIZE,
    "initializer_range": 0.02,
    "intermediate_size": INNER,
    "layer_norm_eps": 1e-05,
    "load_trained_adapters": True,
    "lora_adaptations": list(TASKS),
    "lora_alpha": 2,
    "lora_dropout_p": 0.0,
    "lora_main_params_trainable": False,
    "lora_rank": RANK,
    "matryoshka_dimensions": [32, 64],
    "max_position_embeddings": 130,
    "model_type": "xlm-roberta",
    "num_attention_heads": 4,
    "num_hidden_layers": LAYERS,
    "output_past": True,
    "pad_token_id": 1,
    "position_embedding_type": "rotary",
    "rotary_emb_base": 20000.0,
    "task_instructions": INSTRUCTIONS,
    "torch_dtype": "bfloat16",
    "truncate_dim": None,
    "type_vocab_size": 1,
    "use_cache": True,
    "use_flash_attn": True,
    "vocab_size": VOCAB,
}
SHORT = {"num_hidden_layers": 1}
SETTINGS = {"prompts": INSTRUCTIONS, "default_prompt_name": None, "similarity_fn_name": "cosine"}


def state(adapters: bool = True, dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    """Random weights by the published names."""
    tables = {"embeddings.word_embeddings": (VOCAB, SIZE), "embeddings.token_type_embeddings": (1, SIZE)}
    linears = {"pooler.dense": (SIZE, SIZE)}
    norms = ["emb_ln"]
    for i in range(LAYERS):
        layer = f"encoder.layers.{i}"
        linears |= {f"{layer}.mixer.Wqkv": (3 * SIZE, SIZE), f"{layer}.mixer.out_proj": (SIZE, SIZE)}
        linears |= {f"{layer}.mlp.fc1": (INNER, SIZE), f"{layer}.mlp.fc2": (SIZE, INNER)}
        norms += [f"{layer}.norm1", f"{layer}.norm2"]
    shapes: dict[str, tuple[int, ...]] = norm_shapes(norms, SIZE)
    for module, (rows, columns) in {**tables, **linears}.items():
        stem = f"{module}.parametrizations.weight"
        shapes[f"{stem}.original" if adapters else f"{module}.weight"] = (rows, columns)
        if module in linears:
            shapes[f"{module}.bias"] = (rows,)
        if adapters:
            a, b = ((rows, RANK), (RANK, columns)) if module in tables else ((RANK, columns), (rows, RANK))
            shapes |= {f"{stem}.0.lora_A": (len(TASKS), *a), f"{stem}.0.lora_B": (len(TASKS), *b)}
    return {f"roberta.{name}": tensor.to(dtype) for name, tensor in random_state(shapes).items()}


def write(folder: Path, weights: dict[str, Tensor] | None = None, **changed: Any) -> Path:
    modules = (
        "custom_st.Transformer",
        "sentence_transformers.models.Pooling",
        "sentence_transformers.models.Normalize",
    )
    weights = state() if weights is None else weights
    write_checkpoint(folder, CONFIG | changed, weights, ROBERTA, modules=modules, settings=SETTINGS)
    listed = json.loads((folder / "modules.json").read_text())
    listed[0]["kwargs"] = ["task"]
    (folder / "modules.json").write_text(json.dumps(listed))
    return folder


def bare(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("roberta."): tensor for name, tensor in weights.items()}


def without(name: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda weights: {key: tensor for key, tensor in weights.items() if name not in key}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# -------------------------------------------------------------------------------------------------- published layout
@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published layout: two of its three tasks, exported; a layer less, which halves the time."""
    work = tmp_path_factory.mktemp("jina")
    checkpoint, out = write(work / "jina", without("layers.1.")(state()), **SHORT), work / "model"
    return trivec.export(checkpoint, out, tasks=RETRIEVAL, precision=["fp32", "int8"], max_texts=64, quiet=True)


def published(texts: list[str], task: str | None, prompt: str = "") -> Any:
    model = Published(JINA, bare(state()), CONFIG | SHORT, None if task is None else TASKS.index(task))
    return unit(model.vectors(tokenizer(ROBERTA), [prompt + text for text in texts]))


def test_every_task_equals_the_published_code(folder: Path, texts: list[str]) -> None:
    with trivec.load(folder, device="cpu") as encoder:
        assert encoder.max_seq_length == LENGTH
        assert encoder.dim == SIZE
        assert {task: encoder.prompts[task] for task in TASKS} == INSTRUCTIONS
        for task in RETRIEVAL:
            ours = encoder.encode(texts, task=task, prompt_name=task)
            assert least_cosine(ours, published(texts, task, INSTRUCTIONS[task])) >= 0.99999
            assert least_cosine(encoder.encode(texts[:9], task=task), published(texts[:9], task)) >= 0.99999
            # an adapter that was left out, or another one, would show
            assert least_cosine(ours, published(texts, None, INSTRUCTIONS[task])) < 0.9
        assert len({encoder.fingerprint_of(task=task, prompt="") for task in RETRIEVAL}) == 2


def test_int8_of_every_task_went_through_the_gate(folder: Path, texts: list[str]) -> None:
    with trivec.load(folder, device="cpu", precision="int8") as encoder:
        for task in RETRIEVAL:
            gate = encoder.manifest.encoders[task].variants["int8"].gate
            assert gate is not None
            assert gate["status"] == "measured"
            assert least_cosine(encoder.encode(texts, task=task), published(texts, task)) >= 0.97


def test_queries_and_documents_take_their_task_and_instruction(folder: Path, texts: list[str]) -> None:
    with trivec.load(folder, device="cpu") as encoder:
        query = published(texts, "retrieval.query", INSTRUCTIONS["retrieval.query"])
        document = published(texts, "retrieval.passage", INSTRUCTIONS["retrieval.passage"])
        assert least_cosine(encoder.encode_query(texts), query) >= 0.99999
        assert least_cosine(encoder.encode_document(texts), document) >= 0.99999
        with pytest.raises(trivec.InputError, match=r"task None is no route.*'retrieval.passage', 'retrieval.query'"):
            encoder.encode("a")
        with pytest.raises(trivec.InputError, match=r"task 'text-matching' is no route of this model"):
            encoder.encode("a", task="text-matching")


def test_one_task_alone_needs_only_its_own_files(folder: Path) -> None:
    with trivec.load(folder, device="cpu", task="retrieval.passage") as encoder:
        assert least_cosine(encoder.encode(["a dog"]), published(["a dog"], "retrieval.passage")) >= 0.99999
        again = pickle.loads(pickle.dumps(encoder))
        np.testing.assert_array_equal(again.encode("a dog"), encoder.encode("a dog"))
        refs = encoder.manifest.files("fp32")
    assert {ref.path for ref in refs} == {
        "arrays.npz",
        "tokenizer.json",
        "retrieval.passage/onnx/model.onnx",
        "retrieval.passage/onnx/model.onnx.data",
    }
    with trivec.load(folder, device="cpu", task="query") as encoder:
        wanted = published(["a dog"], "retrieval.query", INSTRUCTIONS["retrieval.query"])
        assert least_cosine(encoder.encode_query(["a dog"]), wanted) >= 0.99999


def test_matryoshka_is_truncate_dim(folder: Path) -> None:
    with trivec.load(folder, device="cpu", task="retrieval.query", truncate_dim=32) as encoder:
        whole = published(["a dog", "a cat"], "retrieval.query")
        assert least_cosine(encoder.encode(["a dog", "a cat"], normalize_embeddings=True), whole[:, :32]) >= 0.99999


@pytest.mark.parametrize("dimensions", [None, 32])
def test_the_milvus_function_equals_the_published_code(dimensions: int | None, folder: Path, texts: list[str]) -> None:
    """Its twin asks the hosted API."""
    ours = milvus.JinaEmbeddingFunction(folder, dimensions=dimensions, threads=1)
    assert ours.dim == (dimensions or SIZE)
    for encode, task in (
        (ours.encode_queries, "retrieval.query"),
        (ours.encode_documents, "retrieval.passage"),
        (ours, "retrieval.passage"),
    ):
        found = encode(texts[::3])
        wanted = published(texts[::3], task, INSTRUCTIONS[task])[:, :dimensions]
        assert {(vector.dtype, vector.shape) for vector in found} == {(np.dtype(np.float32), (ours.dim,))}
        assert least_cosine(np.stack(found), wanted) >= 0.99999
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_which_routes_a_checkpoint_gets(tmp_path: Path) -> None:
    checkpoint = write(tmp_path / "jina")
    read = read_checkpoint(Folder(checkpoint), own_code=True)
    whole, adapters = split_tasks(read, checkpoint)
    assert list(whole.routes) == [*TASKS, "query", "document"]
    assert whole.routes["document"] == whole.routes["retrieval.passage"]
    assert adapters == {task: task for task in TASKS}
    assert whole.default_route is None
    one, _ = split_tasks(read, checkpoint, ["text-matching"])
    assert list(one.routes) == [one.default_route] == ["text-matching"]
    with pytest.raises(trivec.InputError, match=r"tasks 'separation': this checkpoint has adapters for retrieval\."):
        split_tasks(read, checkpoint, ["separation"])


def test_adapters_behind_a_router_are_refused(tmp_path: Path) -> None:
    read = read_checkpoint(Folder(write(tmp_path / "jina")), own_code=True)
    plain = replace(read.transformers["main"], config={"model_type": "bert"})
    routes = {"query": Route("main"), "document": Route("other")}
    router = replace(read, transformers={"main": plain, "other": read.transformers["main"]}, routes=routes)
    expected = (
        r"has adapters \(retrieval.query, .*\) and is dense with the routes query, document; trivec runs adapters"
    )
    with pytest.raises(trivec.ModelFormatError, match=expected):
        split_tasks(router, tmp_path / "jina")
    with pytest.raises(trivec.ModelFormatError, match=r"and is bge-m3 with the routes default"):
        split_tasks(replace(read, family="bge-m3"), tmp_path / "jina")


@pytest.mark.parametrize("name", ["../a", "a/b", "a\\b", ".hidden", "a..b", "", "C:x", "x" * 101])
def test_names_that_lead_out_of_the_folder(name: str) -> None:
    with pytest.raises(trivec.ModelFormatError, match="has a name that no folder can have"):
        check_name(name, "route")


def test_a_checkpoint_without_adapters_is_a_plain_model(tmp_path: Path) -> None:
    weights, ids = state(adapters=False), torch.arange(30)[None]
    checkpoint = write(tmp_path / "jina", weights, lora_adaptations=None)
    split, adapters = split_tasks(read_checkpoint(Folder(checkpoint), own_code=True), checkpoint)
    assert list(split.routes) == ["default"]
    assert not adapters
    layouts.convert(checkpoint, tmp_path / "native", None)
    with torch.no_grad():
        states = load_model(tmp_path / "native").model(input_ids=ids).last_hidden_state
        torch.testing.assert_close(states, Published(JINA, bare(weights), CONFIG).states(ids), rtol=0, atol=2e-5)
    with pytest.raises(trivec.InputError, match=r"tasks 'a': this checkpoint has adapters for none"):
        split_tasks(read_checkpoint(Folder(checkpoint), own_code=True), checkpoint, ["a"])


def test_hidden_states_of_the_native_model(tmp_path: Path) -> None:
    weights, ids = state(), torch.arange(3 * 61).reshape(3, 61) % VOCAB
    checkpoint = write(tmp_path / "jina", weights)
    for i, task in enumerate((*TASKS, None)):
        layouts.convert(checkpoint, tmp_path / f"native{i}", task)
        model = load_model(tmp_path / f"native{i}").model
        with torch.no_grad():
            states = model(input_ids=ids).last_hidden_state
            wanted = Published(JINA, bare(weights), CONFIG, i if task else None).states(ids)
        torch.testing.assert_close(states, wanted, rtol=0, atol=2e-5)


def cut(name: str, rows: int, axis: int = 0) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda weights: {
        key: tensor.narrow(axis, 0, rows).contiguous() if name in key else tensor for key, tensor in weights.items()
    }


FC1, WQKV = "1.mlp.fc1.parametrizations.weight.0.lora_B", "0.mixer.Wqkv.parametrizations.weight.0.lora_A"
ALIEN = "roberta.encoder.layers.0.mixer.extra.weight"


@pytest.mark.parametrize(
    ("change", "config", "expected"),
    [
        (without("lora_"), {}, r"roberta.embeddings.word_embeddings lacks A, B"),
        (lambda _: state(adapters=False), {}, r"names the adapters retrieval.query, .*but the weights hold none"),
        (dict, {"lora_adaptations": None}, r"the weights hold adapters, such as .*but config.json has no lora_adapt"),
        (dict, {"lora_rank": 8}, r"word_embeddings has lora_A \(3, 300, 4\), expected \(3, 300, 8\)"),
        (cut(FC1, 2), {}, r"fc1 has lora_B \(2, 96, 4\), expected \(3, 96, 4\)"),
        (cut(WQKV, 9, 2), {}, r"Wqkv has lora_A \(3, 4, 9\), expected \(3, 4, 64\)"),
        (dict, {"lora_adaptations": ["a", "a"]}, r'adaptations = \["a", "a"\], expected a list of different names'),
        (dict, {"lora_adaptations": ["../../a", "b", "c"]}, r"adapter '../../a' has a name that no folder can have"),
        (dict, {"lora_alpha": "1"}, r'lora_alpha = "1", expected a positive number'),
        (dict, {"lora_rank": 0}, r"lora_rank = 0, expected an integer from 1"),
        (dict, {"position_embedding_type": "absolute"}, r'position_embedding_type = "absolute", expected "rotary"'),
        (dict, {"hidden_act": "relu"}, r'hidden_act = "relu", expected one of gelu'),
        (dict, {"num_attention_heads": 3}, r"hidden_size = 64, expected a multiple of 6, for 3 heads"),
        (dict, {"intermediate_size": 100}, r"another shape: layers.0.mlp.fc1.weight \(96, 64\), expected \(100, 64\)"),
        (dict, {"num_hidden_layers": 1}, r"left over: layers.1.mlp.fc1.bias"),
        (without("1.norm2"), {}, r"missing: layers.1.post_mlp_layernorm.bias"),
        (lambda weights: weights | {ALIEN: torch.ones(3)}, {}, rf"left over: {ALIEN}"),
    ],
)
def test_what_does_not_fit_is_named(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], config: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    checkpoint = write(tmp_path / "jina", change(state()), **config)
    with pytest.raises(trivec.ModelFormatError, match=expected):
        trivec.export(checkpoint, tmp_path / "model", precision=["fp32"], max_texts=64, quiet=True)
    assert not (tmp_path / "model").exists()


def test_the_merge_asks_for_a_task_that_is_there() -> None:
    lora = jina.read_lora(CONFIG)
    with pytest.raises(trivec.InputError, match=r"task 'separation' is none of this checkpoint's adapters: retrieval"):
        jina.merged(state(), lora, "separation")


# ------------------------------------------------------------------------------------- PEFT on transformers' own class
ADAPTERS: dict[str, dict[str, Any]] = {
    "retrieval_query": {"lora_alpha": 6},
    "text_matching": {"lora_alpha": 3, "use_rslora": True},
}
TARGETS = ["q_proj", "v_proj", "o_proj", "fc1", "fc2", "word_embeddings", "token_type_embeddings", "dense"]


@pytest.fixture(scope="module")
def peft_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """transformers' class with two adapters that add_adapter made and save_pretrained wrote."""
    import peft  # takes its time

    checkpoint = make("jina_embeddings_v3", tmp_path_factory.mktemp("peft") / "jina")
    model = hf.AutoModel.from_pretrained(checkpoint)
    generator = torch.Generator().manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, options in ADAPTERS.items():
            model.add_adapter(peft.LoraConfig(r=4, target_modules=TARGETS, **options), adapter_name=name)
            with torch.no_grad():
                for key, parameter in model.named_parameters():
                    if "lora_" in key and name in key:
                        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
            model.set_adapter(name)
            model.save_pretrained(checkpoint / name)
    prompts = {"retrieval.query": "find what answers: "}
    (checkpoint / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    return checkpoint


def peft_vectors(checkpoint: Path, name: str | None, texts: list[str]) -> Any:
    """PEFT's own forward, not merged; mean over the tokens."""
    model = hf.AutoModel.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager").eval()
    if name is not None:
        model.load_adapter(str(checkpoint / name), adapter_name=name)
        model.set_adapter(name)
    ids = [tokenizer(ROBERTA)(text, truncation=True, max_length=128)["input_ids"] for text in texts]
    with torch.no_grad():
        return np.stack([model(input_ids=torch.tensor([row])).last_hidden_state[0].mean(0).numpy() for row in ids])


def test_adapters_of_the_native_class_equal_peft(peft_checkpoint: Path, tmp_path: Path, texts: list[str]) -> None:
    out, name = tmp_path / "model", "retrieval_query"
    trivec.export(peft_checkpoint, out, tasks=[name], precision=["fp32"], max_texts=64, quiet=True)
    with trivec.load(out, device="cpu") as encoder:
        expected = peft_vectors(peft_checkpoint, name, texts)
        assert least_cosine(encoder.encode(texts, task=name), expected) >= 0.99999
        assert least_cosine(encoder.encode(texts), expected) >= 0.99999  # there is no other task
        assert least_cosine(expected, peft_vectors(peft_checkpoint, None, texts)) < 0.9  # the adapter matters
        prompted = peft_vectors(peft_checkpoint, "retrieval_query", ["find what answers: a dog"])
        assert encoder.prompts["retrieval_query"] == "find what answers: "
        dotted = encoder.encode(["a dog"], task="retrieval.query", prompt_name="retrieval.query")
        assert least_cosine(dotted, prompted) >= 0.99999
        assert least_cosine(encoder.encode_query(["a dog"]), prompted) >= 0.99999


def test_rank_stabilized_adapters_equal_peft(peft_checkpoint: Path) -> None:
    """use_rslora; and both adapters, hidden state by hidden state."""
    ids = torch.arange(2 * 61).reshape(2, 61) % 300
    for name in ADAPTERS:
        reference = hf.AutoModel.from_pretrained(peft_checkpoint, attn_implementation="eager").eval()
        reference.load_adapter(str(peft_checkpoint / name), adapter_name=name)
        reference.set_adapter(name)
        model = load_model(peft_checkpoint).model
        adapters_module.merge(model, peft_checkpoint / name)
        with torch.no_grad():
            states, wanted = model(input_ids=ids)[0], reference(input_ids=ids)[0]
        torch.testing.assert_close(states, wanted, rtol=0, atol=5e-5)


def edit(**changed: Any) -> Callable[[Path], None]:
    def change(adapter: Path) -> None:
        path = adapter / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))

    return change


def rewrite(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Callable[[Path], None]:
    def rewritten(adapter: Path) -> None:
        save_file(change(load_file(adapter / "adapter_model.safetensors")), adapter / "adapter_model.safetensors")

    return rewritten


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (edit(r=8), r"embeddings.token_type_embeddings has A \(4, 1\) and B \(64, 4\), expected \(8, 1\), \(64, 8\)"),
        (edit(r="4"), r"has r = '4' and lora_alpha = 6, expected numbers above 0"),
        (edit(use_dora=True), r"has use_dora = true, expected false: trivec merges plain LoRA"),
        (edit(rank_pattern={"fc1": 2}), r'has rank_pattern = \{"fc1": 2\}, expected null'),
        (edit(init_lora_weights="pissa"), r'has init_lora_weights = "pissa", expected true'),
        (edit(peft_type="LOHA"), r'has peft_type = "LOHA", expected "LORA"'),
        (lambda a: (a / "adapter_config.json").write_text("{"), r"adapter_config.json is not valid JSON"),
        (lambda a: (a / "adapter_config.json").write_text("[]"), r"adapter_config.json holds list, expected an object"),
        (
            lambda a: (a / "adapter_model.safetensors").unlink(),
            r"neither adapter_model.safetensors nor adapter_model.bin",
        ),
        (lambda a: (a / "adapter_model.safetensors").write_bytes(b"x" * 20), r"is no safetensors file"),
        (rewrite(without("fc1.lora_B")), r"layers.0.mlp.fc1 has lora_A, expected A and B once"),
        (rewrite(cut("fc2.lora_A", 3)), r"layers.0.mlp.fc2 has A \(3, 96\) and B \(64, 4\), expected \(4, 96\)"),
        (
            rewrite(lambda s: {k.replace("layers.1", "layers.7"): t for k, t in s.items()}),
            r"there is no layers.7.mlp.fc1",
        ),
        (rewrite(lambda s: {**s, "base_model.model.x.bias": torch.ones(2)}), r"x.bias is no part of a LoRA adapter"),
        (rewrite(lambda _: {}), r"it has no weights"),
    ],
)
def test_adapters_that_do_not_fit(
    change: Callable[[Path], object], expected: str, peft_checkpoint: Path, tmp_path: Path
) -> None:
    adapter = tmp_path / "retrieval_query"
    adapter.mkdir()
    for path in (peft_checkpoint / "retrieval_query").iterdir():
        (adapter / path.name).write_bytes(path.read_bytes())
    change(adapter)
    model = load_model(peft_checkpoint).model
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    with pytest.raises(trivec.ModelFormatError, match=expected):
        adapters_module.merge(model, adapter)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_an_adapter_of_a_masked_language_model(peft_checkpoint: Path, tmp_path: Path) -> None:
    """Its names begin with the prefix of the model in it."""
    adapter = tmp_path / "retrieval_query"
    adapter.mkdir()
    for path in (peft_checkpoint / "retrieval_query").iterdir():
        (adapter / path.name).write_bytes(path.read_bytes())
    rewrite(lambda s: {k.replace("base_model.model.", "base_model.model.roberta."): t for k, t in s.items()})(adapter)
    one, two = load_model(peft_checkpoint).model, load_model(peft_checkpoint).model
    adapters_module.merge(one, adapter)
    adapters_module.merge(two, peft_checkpoint / "retrieval_query")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_two_adapters_of_one_name(peft_checkpoint: Path, tmp_path: Path) -> None:
    for place in ("a/same", "same"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "adapter_config.json").write_text("{}")
    with pytest.raises(trivec.ModelFormatError, match="has two adapters of the name 'same'"):
        adapters_module.adapter_folders(tmp_path)
