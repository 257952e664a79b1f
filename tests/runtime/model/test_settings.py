"""Every setting of a checkpoint is used, known to do nothing, or refused by its name and value."""

import json
from pathlib import Path
from typing import Any

import pytest

from trivec import ModelFormatError
from trivec._model.checkpoint import Checkpoint, read_checkpoint
from trivec._model.derived import derive
from trivec._model.source import Folder

LIBRARY = "sentence_transformers.models"
MODULES = (("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense"), ("Normalize", "3_Normalize"))


def write(folder: Path, files: dict[str, Any]) -> Folder:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return Folder(folder)


def files(**changes: Any) -> dict[str, Any]:
    """A checkpoint's JSON files, some of them with further settings."""
    listed = [{"idx": i, "name": str(i), "path": p, "type": f"{LIBRARY}.{k}"} for i, (k, p) in enumerate(MODULES)]
    found: dict[str, Any] = {
        "modules.json": listed,
        "config.json": {"model_type": "bert", "max_position_embeddings": 64, "vocab_size": 9},
        "sentence_bert_config.json": {"max_seq_length": 32, "do_lower_case": False},
        "config_sentence_transformers.json": {"__version__": {"sentence_transformers": "2.2.2"}},
        "1_Pooling/config.json": {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True},
        "2_Dense/config.json": {"in_features": 8, "out_features": 4, "bias": True},
        "3_Normalize/config.json": {},
    }
    for name, more in changes.items():
        path = next(key for key in found if key.split("/")[0].split(".")[0].lower().endswith(name))
        found[path] = found[path] | more
    return found


def read(folder: Path, **changes: Any) -> Checkpoint:
    return read_checkpoint(write(folder, files(**changes)))


@pytest.mark.parametrize(
    ("file", "settings"),
    [
        ("bert_config", {"pooling_of_layers": "last4"}),
        ("bert_config", {"query_expansion": {"strategy": "fixed", "length": 32}}),
        ("bert_config", {"tokenizer_name_or_path": "bert-base-cased"}),
        ("bert_config", {"document_length": 180}),
        ("pooling", {"pooling_mode_attention": True}),
        ("pooling", {"attention_dim": 64}),
        ("dense", {"dropout": 0.1}),
        ("normalize", {"epsilon": 0.5}),
        ("config_sentence_transformers", {"query_prefix": "[Q] "}),
    ],
)
def test_an_unknown_setting_is_refused_by_name_and_value(file: str, settings: dict[str, Any], tmp_path: Path) -> None:
    (key, value), *_ = settings.items()
    with pytest.raises(ModelFormatError) as caught:
        read(tmp_path, **{file: settings})
    assert f"{key} = {value!r}" in str(caught.value)


@pytest.mark.parametrize("value", [None, "", [], {}])
def test_a_setting_that_says_nothing_is_none(value: Any, tmp_path: Path) -> None:
    assert read(tmp_path, bert_config={"a_new_one": value}) == read(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [("model_args", "model_kwargs"), ("config_args", "config_kwargs"), ("tokenizer_args", "processor_kwargs")],
)
def test_arguments_of_both_generations_reach_what_loads(old: str, new: str, tmp_path: Path) -> None:
    found = [
        read(tmp_path / name, bert_config={name: {"some": 3, "trust_remote_code": True}}).transformers["main"]
        for name in (old, new)
    ]
    for spec in found:
        given = {"model": spec.model_kwargs, "config": spec.config_kwargs, "processor": spec.tokenizer_kwargs}
        assert given[new.removesuffix("_kwargs")] == {"some": 3}
    assert found[0] == found[1]


def test_arguments_of_the_config_change_what_is_read_of_it(tmp_path: Path) -> None:
    spec = read(tmp_path, bert_config={"config_kwargs": {"vocab_size": 7}}).transformers["main"]
    assert spec.config["vocab_size"] == 7


def test_the_length_by_every_way_to_say_it(tmp_path: Path) -> None:
    def length(**settings: Any) -> int | None:
        return read(tmp_path, bert_config=settings).transformers["main"].max_seq_length

    assert length() == 32
    assert length(processor_kwargs={"model_max_length": 20}) == 20
    assert length(processing_kwargs={"text": {"max_length": 12, "truncation": True}}) == 12
    assert length(processing_kwargs={"image": {"size": 224}}) == 32
    with pytest.raises(ModelFormatError, match="truncation = False"):
        length(processing_kwargs={"text": {"truncation": False}})


@pytest.mark.parametrize("kind", ["custom_st.Transformer", "custom_pooling.Pooling", "other.models.Normalize"])
def test_a_class_of_the_repositorys_own_is_not_the_librarys(kind: str, tmp_path: Path) -> None:
    content = files()
    place = next(i for i, (name, _) in enumerate(MODULES) if name == kind.rpartition(".")[2])
    content["modules.json"][place]["type"] = kind
    source = write(tmp_path, content)
    with pytest.raises(ModelFormatError, match=rf"is {kind}, code of the repository's own.*--trust-remote-code"):
        read_checkpoint(source)
    assert read_checkpoint(source, own_code=True) == read(tmp_path / "again")


def test_arguments_of_forward_are_refused(tmp_path: Path) -> None:
    content = files()
    content["modules.json"][0]["kwargs"] = ["task"]
    with pytest.raises(ModelFormatError, match=r"kwargs = \['task'\]"):
        read_checkpoint(write(tmp_path, content))


@pytest.mark.parametrize(
    ("modalities", "said"),
    [
        ({"text": {"method": "forward", "method_output_name": ["hidden_states", -2]}}, "hidden_states"),
        ({"text": {"method": "encode", "method_output_name": "last_hidden_state"}}, "'encode'"),
    ],
)
def test_another_output_of_the_model(modalities: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=f"modality_config has text = .*{said}"):
        read(tmp_path, bert_config={"modality_config": modalities})


def with_graph(folder: Path, **settings: Any) -> Folder:
    write(folder, files(bert_config=settings))
    for name in ("onnx/model.onnx", "tokenizer.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"{}")
    return Folder(folder)


def test_of_a_folder_of_graphs_what_the_graph_holds_may_be_said(tmp_path: Path) -> None:
    assert derive(with_graph(tmp_path, config_kwargs={"num_hidden_layers": 3}, model_kwargs={"x": 1})).encoders
    with pytest.raises(ModelFormatError, match="add_eos_token = True"):
        derive(with_graph(tmp_path / "eos", processor_kwargs={"add_eos_token": True}))
    usual = {"method": "forward", "method_output_name": "last_hidden_state"}
    chat = {"text": usual, "message": {**usual, "format": "flat"}}
    with pytest.raises(ModelFormatError, match="chat template, which only an export writes down"):
        derive(with_graph(tmp_path / "chat", modality_config=chat))
