"""mGTE checkpoints in their published layout, against a reference written from the published modeling.py."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from tests.support.published_gte import (
    _BASE_SIZE,
    MODELS,
    MULTILINGUAL,
    PUBLISHED,
    SIZES,
    Published,
    State,
    batch,
    close,
    draw,
    native,
    prefixed,
    write,
)

from trivec._errors import InputError, ModelFormatError, ModelNotFoundError
from trivec_export._checkpoint.published.gte import (
    is_original,
    native_config,
    native_state,
    token_weights_head,
)
from trivec_export._checkpoint.published.layouts import convert
from trivec_export._reference.torch_model import load

# ------------------------------------------------------------------------------------------------------- reference


# ----------------------------------------------------------------------------------------------------------- states


@pytest.mark.parametrize("name", MODELS)
def test_hidden_states_are_those_of_the_published_code(name: str, tmp_path: Path) -> None:
    config = MODELS[name]
    state = draw(config)
    convert(write(tmp_path / "published", config, state), tmp_path / "native")
    # In float64 the order of a sum does not show; angles are of float32 in both.
    model = native(hf.AutoModel, tmp_path / "native").double()
    assert type(model) is hf.GteModel
    reference = Published({key: x.double() for key, x in state.items()}, config)
    for rows, length in SIZES:
        ids, mask = batch(rows, length)
        with torch.no_grad():
            got = model(input_ids=ids, attention_mask=mask).last_hidden_state
        close(got, reference.states(ids, mask), mask, atol=1e-10)


def test_token_types(tmp_path: Path) -> None:
    config = MODELS["gte-large-en-v1.5"]
    state = draw(config)
    convert(write(tmp_path / "published", config, state), tmp_path / "native")
    ids, mask = batch(2, 9)
    types = (torch.arange(9) > 3).long().expand(2, 9)
    with torch.no_grad():
        got = native(hf.AutoModel, tmp_path / "native")(ids, mask, types).last_hidden_state
    close(got, Published(state, config).states(ids, mask, types), mask)


@pytest.mark.parametrize("length", [5, 50])
@pytest.mark.parametrize("what", ["scaling", "theta alone", "factor alone", "gate", "q and k", "epsilon", "types", "v"])
def test_the_reference_depends_on_every_part_that_could_be_mapped_wrongly(what: str, length: int) -> None:
    """Else agreement with it would say nothing, for a text within the known positions as for one beyond."""
    config, state = dict(MULTILINGUAL), draw(MULTILINGUAL)
    ids, mask = batch(2, length)
    right = Published(dict(state), dict(config)).states(ids, mask)
    head = 16
    changes: dict[str, Callable[[], object]] = {
        "scaling": lambda: config.update(rope_scaling=None),
        "theta alone": lambda: config.update(rope_scaling=None, rope_theta=8 * 20000),
        "factor alone": lambda: config.update(rope_theta=20000 / 8),
        "gate": lambda: reorder("mlp.up_gate_proj", [1, 0]),
        "q and k": lambda: reorder("attention.qkv_proj", [1, 0, 2]),
        "v": lambda: reorder("attention.qkv_proj", [2, 1, 0]),
        "epsilon": lambda: config.update(layer_norm_eps=1e-2),
        "types": state["embeddings.token_type_embeddings.weight"].zero_,
    }

    def reorder(module: str, order: list[int]) -> None:
        for key, value in state.items():
            if module in key:
                parts = value.chunk(len(order))
                state[key] = torch.cat([parts[i] for i in order])

    changes[what]()
    assert head * config["num_attention_heads"] == config["hidden_size"]
    wrong = Published(state, config).states(ids, mask)
    assert (wrong - right)[mask.bool()].abs().max() > 3e-3


@pytest.mark.parametrize("name", PUBLISHED)
def test_rotary_frequencies_of_the_published_sizes_to_the_last_bit(name: str) -> None:
    config = PUBLISHED[name]
    made = native_config(config)
    size = config["hidden_size"] // config["num_attention_heads"]
    small = {"hidden_size": size, "num_attention_heads": 1, "num_hidden_layers": 1, "vocab_size": 5}
    kept = {k: v for k, v in made.items() if k not in ("model_type", "architectures", "dtype")}
    model = hf.GteModel(hf.GteConfig(**{**kept, **small}))
    for length in (1, 8192, 8193, 70000):
        assert torch.equal(model.rotary_emb.inv_freq, Published({}, config).frequencies(length))


# ------------------------------------------------------------------------------------------------------------ heads
def test_token_classification(tmp_path: Path) -> None:
    config, state = MULTILINGUAL, draw(MULTILINGUAL, "classifier")
    folder = write(tmp_path / "published", config, state)
    convert(folder, tmp_path / "native")
    reference = Published(state, config)
    ids, mask = batch(3, 40)
    states = reference.states(ids, mask)  # (B, S, H)
    model = native(hf.AutoModelForTokenClassification, tmp_path / "native")
    with torch.no_grad():
        close(model(ids, mask).logits, reference.token_logits(states), mask)
        alone = native(hf.AutoModel, tmp_path / "native", ("classifier.",))(ids, mask).last_hidden_state
    close(alone, states, mask)
    for place in (folder, tmp_path / "native"):
        head = token_weights_head(place)
        assert head is not None
        weight, bias = head
        assert weight.dtype == bias.dtype == np.float32
        logits = states.numpy() @ weight.T + bias  # (B, S, 1)
        close(torch.from_numpy(logits), reference.token_logits(states), mask)


@pytest.mark.parametrize("tied", [True, False, None])
def test_masked_language_model(tmp_path: Path, tied: bool | None) -> None:
    named = {} if tied is None else {"tie_word_embeddings": tied}
    config = {**MULTILINGUAL, "architectures": ["NewForMaskedLM"], **named}
    state = draw(config, "lm_head")
    convert(write(tmp_path / "published", config, state), tmp_path / "native")
    if tied is not False:
        # NewForMaskedLM ties the decoder to the embeddings when it is loaded, whatever the file says.
        state["lm_head.decoder.weight"] = state["embeddings.word_embeddings.weight"]
    ids, mask = batch(2, 40)
    reference = Published(state, config)
    with torch.no_grad():
        got = native(hf.AutoModelForMaskedLM, tmp_path / "native")(ids, mask).logits
    states = reference.states(ids, mask)
    expected = reference.language_logits(states)
    scale = float(expected.abs().max())
    close(got / scale * 2, expected / scale * 2, mask)


def test_more_labels_and_no_names_for_them(tmp_path: Path) -> None:
    config = {k: v for k, v in MULTILINGUAL.items() if k not in ("id2label", "label2id")}
    state = draw({**config, "id2label": "12345"}, "classifier")
    convert(write(tmp_path / "published", config, state), tmp_path / "native")
    ids, mask = batch(2, 5)
    reference = Published(state, config)
    with torch.no_grad():
        got = native(hf.AutoModelForTokenClassification, tmp_path / "native")(ids, mask).logits
    assert got.shape == (2, 5, 5)
    close(got, reference.token_logits(reference.states(ids, mask)), mask)


@pytest.mark.parametrize(
    ("heads", "make"),
    [
        ((), hf.GteModel),
        (("classifier",), hf.GteForTokenClassification),
        (("lm_head",), hf.GteForMaskedLM),
        (("pooler", "classifier"), hf.GteForSequenceClassification),
    ],
)
def test_names_are_those_of_the_native_model_in_memory(heads: tuple[str, ...], make: Any) -> None:
    state = draw(MULTILINGUAL, *heads)
    kept = {k: v for k, v in native_config(MULTILINGUAL).items() if k not in ("model_type", "architectures", "dtype")}
    model = make(hf.GteConfig(**kept))
    converted = native_state(prefixed(state), MULTILINGUAL)
    model.load_state_dict(converted, strict=True)
    torch.testing.assert_close(converted, native_state(state, MULTILINGUAL), rtol=0, atol=0)


def test_a_tied_decoder_is_the_embeddings() -> None:
    state = draw(MULTILINGUAL, "lm_head")
    words = state["embeddings.word_embeddings.weight"]
    assert native_state(state, MULTILINGUAL)["lm_head.decoder.weight"] is words
    decoder = state.pop("lm_head.decoder.weight")
    assert native_state(state, MULTILINGUAL)["lm_head.decoder.weight"] is words
    own = {**MULTILINGUAL, "tie_word_embeddings": False}
    with pytest.raises(ModelFormatError, match=r"missing: lm_head\.decoder\.weight\."):
        native_state(state, own)
    assert native_state({**state, "lm_head.decoder.weight": decoder}, own)["lm_head.decoder.weight"] is decoder


def test_a_transformers_without_gte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf, "GteConfig", None)
    with pytest.raises(ModelFormatError, match=r"has no GteConfig, expected.*pip install -U transformers"):
        native_state(draw(MULTILINGUAL), MULTILINGUAL)


# ------------------------------------------------------------------------------------------------------------ files
def _to_pickle(folder: Path) -> None:
    """With columns in memory where rows are expected, as a pickle may have them."""
    state = {
        name: x.mT.contiguous().mT if x.dim() == 2 else x for name, x in load_file(folder / "model.safetensors").items()
    }
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _to_shards(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    shards = {"a.safetensors": names[:7], "b.safetensors": names[7:]}
    for file, part in shards.items():
        save_file({name: state[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _to_pickled_shards(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    shards = {"a.bin": names[:7], "b.bin": names[7:]}
    for file, part in shards.items():
        torch.save({name: state[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def _tied_pickle(folder: Path) -> None:
    """Two names of one piece of memory, which safetensors does not store."""
    state = load_file(folder / "model.safetensors")
    state["lm_head.decoder.weight"] = state["new.embeddings.word_embeddings.weight"]
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize("store", [_to_pickle, _to_shards, _to_pickled_shards])
def test_every_form_of_weights_gives_the_same_files(store: Callable[[Path], None], tmp_path: Path) -> None:
    folder = write(tmp_path / "published", MULTILINGUAL, draw(MULTILINGUAL, "classifier"))
    convert(folder, tmp_path / "one")
    expected = token_weights_head(folder)
    store(folder)
    convert(folder, tmp_path / "two")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    head = token_weights_head(folder)
    assert head is not None
    assert expected is not None
    np.testing.assert_array_equal(head.weight, expected.weight)
    np.testing.assert_array_equal(head.bias, expected.bias)


def test_a_pickle_with_a_tied_decoder(tmp_path: Path) -> None:
    config = {**MULTILINGUAL, "architectures": ["NewForMaskedLM"]}
    folder = write(tmp_path / "published", config, draw(config, "lm_head"))
    convert(folder, tmp_path / "one")
    _tied_pickle(folder)
    convert(folder, tmp_path / "two")
    first, second = (tmp_path / name / "model.safetensors" for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()


def test_half_precision_stays_as_it_was(tmp_path: Path) -> None:
    state = {name: x.half() for name, x in draw(MULTILINGUAL, "classifier").items()}
    folder = write(tmp_path / "published", MULTILINGUAL, state)
    convert(folder, tmp_path / "native")
    assert {x.dtype for x in load_file(tmp_path / "native" / "model.safetensors").values()} == {torch.float16}
    assert json.loads((tmp_path / "native" / "config.json").read_text())["dtype"] == "float16"
    head = token_weights_head(folder)
    assert head is not None
    assert head.weight.dtype == np.float32
    np.testing.assert_array_equal(head.weight, state["classifier.weight"].float().numpy())


def test_buffers_of_old_checkpoints_are_left_behind(tmp_path: Path) -> None:
    state = draw(MODELS["gte-base-en-v1.5"])
    buffers = {"embeddings.position_ids": torch.arange(32), "embeddings.rotary_emb.inv_freq": torch.ones(8)}
    unused = {"embeddings.token_type_embeddings.weight": torch.ones(1, 48)}  # with type_vocab_size 0
    got = native_state(prefixed({**state, **buffers, **unused}), MODELS["gte-base-en-v1.5"])
    torch.testing.assert_close(got, native_state(state, MODELS["gte-base-en-v1.5"]), rtol=0, atol=0)


def test_the_exporter_loads_what_was_converted(tmp_path: Path) -> None:
    state = draw(MULTILINGUAL, "classifier")
    convert(write(tmp_path / "published", MULTILINGUAL, state), tmp_path / "native")
    ids, mask = batch(2, 41)
    with torch.no_grad():
        got = load(tmp_path / "native").model(input_ids=ids, attention_mask=mask).last_hidden_state
    close(got, Published(state, MULTILINGUAL).states(ids, mask), mask)


# ----------------------------------------------------------------------------------------------------------- config
def test_which_configs_are_original() -> None:
    assert is_original(MULTILINGUAL)
    assert not is_original({"model_type": "gte"})
    assert not is_original({})


def test_the_published_config_of_gte_multilingual_base() -> None:
    assert native_config(PUBLISHED["gte-multilingual-base"]) == {
        **_BASE_SIZE,
        "model_type": "gte",
        "architectures": ["GteModel", "GteForTokenClassification"],
        "attention_probs_dropout_prob": 0.0,
        "classifier_dropout": 0.0,
        "dtype": "float16",
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "id2label": {"0": "LABEL_0"},
        "initializer_range": 0.02,
        "label2id": {"LABEL_0": 0},
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 8192,
        "pad_token_id": 1,
        "rope_parameters": {"rope_type": "linear", "rope_theta": 160000.0, "factor": 8.0 ** (2 / 64)},
        "tie_word_embeddings": True,
        "type_vocab_size": 1,
        "vocab_size": 250048,
    }


def test_what_new_config_takes_where_a_key_is_left_out() -> None:
    made = native_config({"model_type": "new"})
    assert made["rope_parameters"] == {"rope_type": "default", "rope_theta": 10000.0}
    assert (made["vocab_size"], made["max_position_embeddings"], made["type_vocab_size"]) == (30528, 2048, 1)
    assert made["pad_token_id"] is None


def test_a_factor_of_one_scales_nothing() -> None:
    made = native_config({**MULTILINGUAL, "rope_scaling": {"type": "ntk", "factor": 1}})
    assert made["rope_parameters"] == {"rope_type": "default", "rope_theta": 20000}


def test_a_config_that_transformers_5_saved() -> None:
    """It renames rope_scaling, which NewModel then does not find: the model was trained with it all the same."""
    plain = {k: v for k, v in MULTILINGUAL.items() if k not in ("rope_scaling", "torch_dtype")}
    rope = {"factor": 8.0, "rope_theta": 20000, "rope_type": "ntk", "type": "ntk"}
    saved = {**plain, "rope_parameters": rope, "dtype": "float16", "label2id": None}
    assert native_config(saved) == {k: v for k, v in native_config(MULTILINGUAL).items() if k != "label2id"}
    assert native_config({**saved, "rope_parameters": None})["rope_parameters"] == {
        "rope_type": "default",
        "rope_theta": 20000,
    }
    default = {"rope_type": "default", "rope_theta": 700.0}
    assert native_config({**saved, "rope_parameters": default})["rope_parameters"] == default
    # NewModel reads rope_scaling where it is there.
    both = native_config({**MULTILINGUAL, "rope_parameters": default})
    assert both == native_config(MULTILINGUAL)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("model_type", "bert", "model_type is 'bert', expected \"new\""),
        ("position_embedding_type", "absolute", 'position_embedding_type = "absolute", expected "rope"'),
        ("layer_norm_type", "rms_norm", 'layer_norm_type = "rms_norm", expected "layer_norm"'),
        ("logn_attention_scale", True, "logn_attention_scale = true, expected false"),
        ("quantization_config", {"load_in_8bit": True}, 'quantization_config = {"load_in_8bit": true}, expected null'),
        ("hidden_act", "gelu_of_tomorrow", 'hidden_act = "gelu_of_tomorrow", expected the name of an activation'),
        ("hidden_act", None, "hidden_act = null, expected the name of an activation"),
        ("architectures", ["NewForQuestionAnswering"], r'architectures = ["NewForQuestionAnswering"], expected a list'),
        ("architectures", "NewModel", 'architectures = "NewModel", expected a list of NewModel, NewForMaskedLM'),
        ("rope_theta", 0, "rope_theta = 0, expected a positive number"),
        ("rope_theta", "1e4", 'rope_theta = "1e4", expected a positive number'),
        ("rope_scaling", {"type": "linear", "factor": 8.0}, 'rope_scaling = {"type": "linear", "factor": 8.0}'),
        ("rope_scaling", {"type": "ntk", "factor": 8.0, "mixed_b": 0.6}, "without mixed_b"),
        ("rope_scaling", {"type": "ntk", "factor": 0.5}, "expected a factor from 1"),
        ("rope_scaling", {"type": "ntk"}, 'rope_scaling = {"type": "ntk"}, expected a factor from 1'),
        ("rope_scaling", 8.0, "rope_scaling = 8.0, expected null or"),
        (
            "rope_scaling",
            {"type": "ntk", "rope_type": "yarn", "factor": 8.0},
            '"rope_type": "yarn", "factor": 8.0}, exp',
        ),
        ("hidden_size", 50, "hidden_size = 50, expected a multiple of 6: 3 heads of even size"),
        ("hidden_size", "48", 'hidden_size = "48", expected an integer from 1'),
        ("num_hidden_layers", 0, "num_hidden_layers = 0, expected an integer from 1"),
        ("type_vocab_size", -1, "type_vocab_size = -1, expected an integer from 0"),
        ("pad_token_id", 97, "pad_token_id = 97, expected null or a row of the vocabulary"),
    ],
)
def test_configs_that_the_native_model_does_not_compute(key: str, value: Any, expected: str) -> None:
    with pytest.raises(ModelFormatError, match=re.escape(expected)):
        native_config({**MULTILINGUAL, key: value})


@pytest.mark.parametrize("architectures", [["NewForMaskedLM"], ["NewModel"]])
def test_a_language_model_head_with_another_activation(architectures: list[str]) -> None:
    config = {**MULTILINGUAL, "architectures": architectures, "hidden_act": "silu"}
    with pytest.raises(ModelFormatError, match=r'hidden_act = "silu", expected "gelu", for there is a language model'):
        native_state(draw(config, "lm_head"), config)


def test_a_value_of_another_type_is_refused() -> None:
    with pytest.raises(ModelFormatError, match=r"config\.json has a value that transformers refuses.*layer_norm_eps"):
        native_state(draw(MULTILINGUAL), {**MULTILINGUAL, "layer_norm_eps": "small"})


# ------------------------------------------------------------------------------------------------------ bad weights
def _without(state: State, *parts: str) -> State:
    return {name: x for name, x in state.items() if not any(part in name for part in parts)}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda s: _without(s, "layer.1.attn_ln"), "missing: layers.1.post_attention_layernorm.bias, layers.1.post"),
        (lambda s: _without(s, "0.attention.qkv_proj.bias"), "missing: layers.0.self_attn.k_proj.bias, layers.0."),
        (lambda s: _without(s, "token_type"), "missing: embeddings.token_type_embeddings.weight."),
        (lambda s: {**s, "embeddings.position_embeddings.weight": torch.ones(32, 48)}, "left over: embeddings.posit"),
        (lambda s: {**s, "encoder.layer.0.attention.k_norm.weight": torch.ones(48)}, "left over: new.encoder.layer.0."),
        (lambda s: {**s, "encoder.layer.7.mlp_ln.bias": torch.ones(48)}, "left over: layers.7.post_mlp_layernorm.bias"),
        (lambda s: {**s, "encoder.layer.0.attention.q_proj.bias": torch.ones(48)}, "left over: new.encoder.layer.0.at"),
        (lambda s: {**s, "qa_outputs.weight": torch.ones(2, 48)}, "left over: qa_outputs.weight"),
        (
            lambda s: {**s, "encoder.layer.0.attention.qkv_proj.bias": torch.ones(143)},
            "of another shape: layers.0.self_attn.v_proj.bias (47,), expected (48,)",
        ),
        (
            lambda s: {**s, "encoder.layer.1.mlp.up_gate_proj.weight": torch.ones(72, 48)},
            "layers.1.mlp.gate_proj.weight (36, 48), expected (72, 48)",
        ),
        (
            lambda s: {**s, "classifier.weight": torch.ones(2, 48), "classifier.bias": torch.ones(2)},
            "classifier.weight (2, 48), expected (1, 48)",
        ),
        (lambda _: {}, "missing: embeddings.LayerNorm.bias, embeddings.LayerNorm.weight"),
    ],
)
def test_weights_of_another_model(change: Callable[[State], State], expected: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "published", MULTILINGUAL, change(draw(MULTILINGUAL)))
    with pytest.raises(ModelFormatError, match=re.escape(expected)) as caught:
        convert(folder, tmp_path / "native")
    assert str(caught.value).startswith(f"{folder}: the weights are not those that config.json describes")
    assert not (tmp_path / "native").exists()


def test_two_names_of_one_parameter() -> None:
    state = draw(MULTILINGUAL)
    with pytest.raises(ModelFormatError, match=r"left over: new\.encoder\.layer\.0\.mlp_ln\.bias\."):
        native_state({**state, "new.encoder.layer.0.mlp_ln.bias": torch.ones(48)}, MULTILINGUAL)


class _Touch:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_pickles_that_are_no_state_dict(tmp_path: Path) -> None:
    folder = write(tmp_path / "published", MULTILINGUAL, draw(MULTILINGUAL, "classifier"))
    (folder / "model.safetensors").unlink()
    file, mark = folder / "pytorch_model.bin", tmp_path / "ran"
    torch.save({"weight": _Touch(mark)}, file)
    with pytest.raises(ModelFormatError, match=r"pytorch_model\.bin holds more than tensors, or is damaged"):
        convert(folder, tmp_path / "native")
    with pytest.raises(ModelFormatError, match=r"pytorch_model\.bin holds more than tensors, or is damaged"):
        token_weights_head(folder)
    assert not mark.exists()
    torch.save({"state_dict": {"weight": torch.ones(2)}}, file)
    with pytest.raises(ModelFormatError, match=r"pytorch_model\.bin is no state dict, expected tensors by their names"):
        convert(folder, tmp_path / "native")
    file.write_bytes(b"")
    with pytest.raises(ModelFormatError, match=r"pytorch_model\.bin holds more than tensors, or is damaged"):
        convert(folder, tmp_path / "native")


def test_damaged_files(tmp_path: Path) -> None:
    folder = write(tmp_path / "published", MULTILINGUAL, draw(MULTILINGUAL))
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelFormatError, match=r"model\.safetensors is no safetensors file.*Fetch it again"):
        convert(folder, tmp_path / "native")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match=r"has no model\.safetensors and no pytorch_model\.bin"):
        convert(folder, tmp_path / "native")
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelFormatError, match=r"config\.json is not valid JSON"):
        convert(folder, tmp_path / "native")
    (folder / "config.json").write_text("[]")
    with pytest.raises(ModelFormatError, match=r"config\.json holds list, expected an object"):
        convert(folder, tmp_path / "native")
    (folder / "config.json").unlink()
    with pytest.raises(ModelNotFoundError, match=r"no config\.json"):
        token_weights_head(folder)


@pytest.mark.parametrize(
    ("index", "error", "expected"),
    [
        ("{", ModelFormatError, "has no weight_map of names"),
        ("{}", ModelFormatError, "has no weight_map of names"),
        ('{"weight_map": []}', ModelFormatError, "has no weight_map of names"),
        ('{"weight_map": {"a": "../model.safetensors"}}', ModelFormatError, "expected files of the same folder"),
        (
            '{"weight_map": {"a": "x.safetensors"}}',
            ModelNotFoundError,
            "lacks x.safetensors, which model.safetensors.i",
        ),
    ],
)
def test_indices_of_shards(index: str, error: type[Exception], expected: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "published", MULTILINGUAL, draw(MULTILINGUAL))
    (folder / "model.safetensors").rename(tmp_path / "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(error, match=re.escape(expected)):
        convert(folder, tmp_path / "native")


def test_the_checkpoint_is_not_overwritten(tmp_path: Path) -> None:
    folder = write(tmp_path / "published", MULTILINGUAL, draw(MULTILINGUAL))
    with pytest.raises(InputError, match="the folder of the checkpoint itself"):
        convert(folder, tmp_path / "published" / ".." / "published")
    assert json.loads((folder / "config.json").read_text()) == MULTILINGUAL


# --------------------------------------------------------------------------------------------------------- the head
@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ({"weight": (5, 48), "bias": (5,)}, "the shapes {'bias': (5,), 'weight': (5, 48)}, expected weight (1, 48)"),
        ({"weight": (1, 64), "bias": (1,)}, "the shapes {'bias': (1,), 'weight': (1, 64)}, expected weight (1, 48)"),
        ({"weight": (48,), "bias": (1,)}, "the shapes {'bias': (1,), 'weight': (48,)}, expected weight (1, 48)"),
        ({"weight": (1, 48)}, "the shapes {'weight': (1, 48)}, expected weight (1, 48) and bias (1,)"),
    ],
)
@pytest.mark.parametrize("model_type", ["new", "gte"])
def test_heads_that_give_no_token_weights(
    head: dict[str, tuple[int, ...]], expected: str, model_type: str, tmp_path: Path
) -> None:
    parts = {f"classifier.{name}": torch.ones(shape) for name, shape in head.items()}
    folder = write(tmp_path, {**MULTILINGUAL, "model_type": model_type}, {**draw(MULTILINGUAL), **parts})
    with pytest.raises(ModelFormatError, match=re.escape(expected)):
        token_weights_head(folder)


def test_checkpoints_without_a_head(tmp_path: Path) -> None:
    assert token_weights_head(write(tmp_path / "a", MULTILINGUAL, draw(MULTILINGUAL))) is None
    reranker = draw(MULTILINGUAL, "pooler", "classifier")
    assert token_weights_head(write(tmp_path / "b", MULTILINGUAL, reranker)) is None
    convert(tmp_path / "b", tmp_path / "c")
    assert token_weights_head(tmp_path / "c") is None
    bert = {**MULTILINGUAL, "model_type": "bert"}
    assert token_weights_head(write(tmp_path / "d", bert, draw(MULTILINGUAL, "classifier"))) is None


def test_the_head_of_what_transformers_saved(tmp_path: Path) -> None:
    kept = {k: v for k, v in native_config(MULTILINGUAL).items() if k not in ("model_type", "architectures", "dtype")}
    model = hf.GteForTokenClassification(hf.GteConfig(**kept))
    model.save_pretrained(tmp_path)
    head = token_weights_head(tmp_path)
    assert head is not None
    np.testing.assert_array_equal(head.weight, model.classifier.weight.detach().numpy())
    np.testing.assert_array_equal(head.bias, model.classifier.bias.detach().numpy())
