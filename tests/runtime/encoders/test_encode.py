"""The methods of DenseEncoder, on the tiny model whose vectors numpy knows."""

import asyncio
import dataclasses
import inspect
import logging
import math
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from onnx import numpy_helper
from sentence_transformers import SentenceTransformer, SimilarityFunction
from sentence_transformers.util.quantization import quantize_embeddings
from tests.support.tiny_model import TinyModel
from tokenizers import Tokenizer

import trivec
from trivec import DenseEncoder, InputError, ModelFormatError, NonFiniteError, TruncationError
from trivec._model import manifest as manifest_module
from trivec._model import manifest_file
from trivec._model.integrity import describe
from trivec._model.manifest import EncoderSpec, FileRef, Manifest, Pooling, Route, Step
from trivec._tokens.tokenizer import TextTokenizer

TEXTS = ["the cat sat on the mat", "", "A small RED boat", "un mot inconnu: 東京", "dog " * 40, "a"]
LIMIT = 16  # the tiny model's max_seq_length


def load(folder: Path, **options: Any) -> DenseEncoder:
    encoder: DenseEncoder = trivec.load(folder, **{"device": "cpu", "threads": 1, **options})
    return encoder


@pytest.fixture
def encoder(tiny_folder: Path) -> DenseEncoder:
    return load(tiny_folder)


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


def rewrite(folder: Path, change: Callable[[Manifest], Manifest] = lambda manifest: manifest) -> Path:
    """Change a folder's manifest, and bring its digests up to date with the files."""
    manifest = change(manifest_file.read(folder))
    encoders = {name: _described(folder, encoder) for name, encoder in manifest.encoders.items()}
    arrays = None if manifest.arrays is None else describe(folder, manifest.arrays.path)
    manifest = dataclasses.replace(manifest, encoders=encoders, arrays=arrays)
    (folder / manifest_module.FILE_NAME).write_text(manifest_file.dumps(manifest), encoding="utf-8")
    return folder


def _described(folder: Path, encoder: EncoderSpec) -> EncoderSpec:
    variants = {
        name: dataclasses.replace(variant, files=tuple(describe(folder, ref.path) for ref in variant.files))
        for name, variant in encoder.variants.items()
    }
    return dataclasses.replace(encoder, tokenizer=describe(folder, encoder.tokenizer.path), variants=variants)


def with_encoder(**changes: Any) -> Callable[[Manifest], Manifest]:
    return lambda m: dataclasses.replace(m, encoders={"main": dataclasses.replace(m.encoders["main"], **changes)})


def with_route(**changes: Any) -> Callable[[Manifest], Manifest]:
    return lambda m: dataclasses.replace(m, routes={"default": dataclasses.replace(m.routes["default"], **changes)})


def with_table(folder: Path, change: Callable[[Any], None]) -> None:
    """Change the fp32 embedding table (V, D) in place."""
    path = folder / "onnx" / "model.onnx"
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name == "table":
            table = numpy_helper.to_array(tensor).copy()
            change(table)
            tensor.CopyFrom(numpy_helper.from_array(table, "table"))
    (folder / "onnx" / "model.onnx.data").unlink()
    onnx.save_model(model, path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)


# ---- the call --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
def test_parameters_are_those_of_sentence_transformers_with_their_defaults(method: str) -> None:
    theirs = inspect.signature(getattr(SentenceTransformer, method)).parameters
    ours = inspect.signature(getattr(DenseEncoder, method)).parameters
    positional = [p for p in ours.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    expected = [p for p in theirs.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [p.name for p in positional][: len(expected)] == [p.name for p in expected][: len(positional)]
    assert [p.name for p in positional] == [p.name for p in expected]
    for parameter in expected[2:]:  # after self and inputs, which sentences= may replace
        assert ours[parameter.name].default == parameter.default, parameter.name
    assert {"batch_size", "normalize_embeddings", "pool", "chunk_size"} <= set(ours)


def test_vectors(encoder: DenseEncoder, tiny_model: "TinyModel") -> None:
    found = encoder.encode(TEXTS)
    assert found.dtype == np.float32
    assert found.shape == (6, 12)
    assert_allclose(found, tiny_model.expected(TEXTS), atol=1e-6)


def test_every_parameter_by_position_and_by_name(encoder: DenseEncoder) -> None:
    by_position = encoder.encode(
        TEXTS, "query", None, 7, False, "sentence_embedding", "float32", True, False, "cpu", True, 5, None, None
    )
    by_name = encoder.encode(
        sentences=TEXTS,
        prompt_name="query",
        prompt=None,
        batch_size=7,
        show_progress_bar=False,
        output_value="sentence_embedding",
        precision="float32",
        convert_to_numpy=True,
        convert_to_tensor=False,
        device="cpu",
        normalize_embeddings=True,
        truncate_dim=5,
        pool=None,
        chunk_size=None,
        task=None,
        on_overflow="truncate",
    )
    assert by_position.shape == (6, 5)
    assert_array_equal(by_position, by_name)


def test_an_unknown_parameter_is_refused(encoder: DenseEncoder) -> None:
    with pytest.raises(TypeError, match="batchsize"):
        encoder.encode("a", batchsize=3)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="batchsize"):
        encoder.encode_query("a", batchsize=3)  # type: ignore[call-overload]


class Series:
    """As pandas': iterable, sized, no Sequence."""

    def __init__(self, values: list[str]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        np.array,
        lambda texts: np.array(texts, dtype=object),
        lambda texts: (text for text in texts),
        lambda texts: [np.str_(text) for text in texts],
        lambda texts: dict.fromkeys(texts).keys(),
        Series,
    ],
    ids=["list", "tuple", "array", "objects", "generator", "np.str_", "keys", "series"],
)
def test_inputs(encoder: DenseEncoder, make: Callable[[list[str]], Any]) -> None:
    assert_array_equal(encoder.encode(make(TEXTS)), encoder.encode(TEXTS))


def test_one_text_gives_one_vector(encoder: DenseEncoder, tiny_model: "TinyModel") -> None:
    found = encoder.encode("a red cat")
    assert found.shape == (12,)
    assert_allclose(found, tiny_model.expected(["a red cat"])[0], atol=1e-6)
    assert encoder.encode(np.str_("a red cat")).shape == (12,)
    assert encoder.encode(["a red cat"]).shape == (1, 12)


def test_no_texts_give_a_matrix_of_no_rows_unlike_sentence_transformers(encoder: DenseEncoder) -> None:
    empty: Any
    for empty in ([], (), np.array([]), iter([])):
        found = encoder.encode(empty)
        assert found.shape == (0, 12)
        assert found.dtype == np.float32
    assert encoder.encode([], truncate_dim=5).shape == (0, 5)
    assert encoder.encode([], precision="binary").shape == (0, 2)
    assert encoder.encode([], precision="uint8").shape == (0, 12)
    assert encoder.encode([], convert_to_tensor=True).shape == (0, 12)
    assert encoder.encode([], convert_to_numpy=False) == []
    assert encoder.encode([], output_value="token_embeddings") == []


def test_an_empty_text_is_its_special_tokens(encoder: DenseEncoder, tiny_model: "TinyModel") -> None:
    assert encoder.tokenize([""]) == [[2, 3]]
    assert_allclose(encoder.encode(""), tiny_model.expected([""])[0], atol=1e-6)


def test_a_text_without_any_token_pools_to_zeros(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    bare = Tokenizer(tokenizer.model)
    bare.pre_tokenizer, bare.normalizer = tokenizer.pre_tokenizer, tokenizer.normalizer
    bare.save(str(folder / "tokenizer.json"))
    encoder = load(rewrite(folder))
    assert encoder.tokenize(["", "cat"])[0] == []
    found = encoder.encode(["", "cat", " "])
    assert_array_equal(found[[0, 2]], np.zeros((2, 12)))
    assert np.abs(found[1]).max() > 0
    assert [array.shape for array in encoder.encode(["", "cat"], output_value="token_embeddings")] == [(0, 12), (1, 12)]


# ---- bad input -------------------------------------------------------------------------------------------------------

FILL = "Fill or drop missing values first: texts.fillna('') or texts.dropna() of a Series."
ROWS = "Rows of several texts need a call for each column: [row[0] for row in texts]."


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (3, "expected a text or an iterable of texts, got int."),
        (None, "expected a text or an iterable of texts, got NoneType."),
        (b"abc", "expected a text or an iterable of texts, got bytes. Decode it first: texts.decode('utf-8')."),
        (
            {"text": "abc"},
            "expected a text or an iterable of texts, got dict. Its values in order: list(texts.values()).",
        ),
        (["a", 3], "expected strings, got int at index 1: '3'. Nothing was encoded."),
        (["a", None], f"expected strings, got NoneType at index 1: 'None'. {FILL} Nothing was encoded."),
        (["a", math.nan], f"expected strings, got float at index 1: 'nan'. {FILL} Nothing was encoded."),
        (
            ["a", "b", b"c"],
            (
                "expected strings, got bytes at index 2: \"b'c'\". Decode it first: text.decode('utf-8'). "
                "Nothing was encoded."
            ),
        ),
        ([["a"], ["b"]], f"expected strings, got list at index 0: \"['a']\". {ROWS} Nothing was encoded."),
        (np.array([1.5]), "expected strings, got float at index 0: '1.5'. Nothing was encoded."),
        ([("a", "b")], f"expected strings, got tuple at index 0: \"('a', 'b')\". {ROWS} Nothing was encoded."),
    ],
)
def test_what_is_no_text(encoder: DenseEncoder, texts: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        encoder.encode(texts)
    assert str(caught.value) == message


def test_texts_under_both_names(encoder: DenseEncoder) -> None:
    with pytest.raises(InputError, match="pass the texts as inputs or as sentences, not both"):
        encoder.encode(["a"], sentences=["b"])


def test_a_lone_surrogate_is_named_by_its_index(encoder: DenseEncoder) -> None:
    texts = ["fine"] * 5000 + ["ab\udc80"]
    with pytest.raises(InputError) as caught:
        encoder.encode(texts)
    assert str(caught.value) == (
        "the text at index 5000 holds a lone surrogate (U+DC80 at character 2), which is no valid Unicode text. Repair "
        "it: text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')"
    )
    repaired = texts[-1].encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert encoder.encode(repaired).shape == (12,)


def test_a_lone_surrogate_in_a_prompt_is_said_to_be_there(encoder: DenseEncoder) -> None:
    with pytest.raises(InputError, match=r"^the prompt holds a lone surrogate \(U\+DC80 at character 1\)"):
        encoder.encode(["fine"], prompt="a\udc80: ")


@pytest.mark.parametrize("unit", ["cat sat on ", "x", "é", " \n"])
def test_five_megabytes_of_text(encoder: DenseEncoder, unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = unit * (5_000_000 // len(unit))
    pipeline = encoder.route()
    tokenizer, session = pipeline.tokenizer, pipeline.session
    assert isinstance(tokenizer, TextTokenizer)
    assert session is not None
    read: list[int] = []
    shapes: list[tuple[int, int]] = []
    tokenize, run = tokenizer._encode, session.run_all

    def reading(texts: Any, *rest: Any) -> Any:
        read.extend(map(len, texts))
        return tokenize(texts, *rest)

    def running(ids: Any, outputs: Any) -> Any:
        shapes.append(ids.shape)
        return run(ids, outputs)

    monkeypatch.setattr(tokenizer, "_encode", reading)
    monkeypatch.setattr(session, "run_all", running)
    found = encoder.encode(text)
    assert read == [len(text)]  # once: all else grows with what is left of it
    assert shapes == [(1, {"cat sat on ": LIMIT, " \n": 2}.get(unit, 3))]
    assert found.shape == (12,)
    assert_array_equal(found, encoder.encode(text[: 200 * len(unit)] if unit in ("cat sat on ", " \n") else text[:100]))
    assert encoder.truncated >= int(unit == "cat sat on ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt_name": "zz"}, "prompt_name 'zz' is none of this model's prompts ['document', 'query']."),
        ({"prompt": 3}, "prompt must be a string, got int."),
        ({"output_value": "tokens"}, "output_value 'tokens' is not one of 'sentence_embedding', 'token_embeddin"),
        ({"precision": "fp8"}, "precision 'fp8' is not one of float32, int8, uint8, binary, ubinary."),
        ({"precision": "fp16"}, "precision 'fp16' is not one of float32, int8, uint8, binary, ubinary. The vari"),
        ({"truncate_dim": 0}, "truncate_dim must be between 1 and 12, this model's dim; got 0."),
        ({"truncate_dim": "5"}, "truncate_dim must be between 1 and 12, this model's dim; got '5'."),
        ({"truncate_dim": 2.5}, "truncate_dim must be between 1 and 12, this model's dim; got 2.5."),
        ({"batch_size": 0}, "batch_size must be a positive integer, got 0."),
        ({"batch_size": -3}, "batch_size must be a positive integer, got -3."),
        ({"batch_size": None}, "batch_size must be a positive integer, got None."),
        ({"on_overflow": "raise"}, "on_overflow 'raise' is not one of 'truncate', 'error'."),
        ({"device": "cuda"}, "this encoder runs on cpu, not 'cuda'. Type: trivec.load(..., device='cuda')"),
    ],
)
def test_bad_options(encoder: DenseEncoder, options: Any, message: str) -> None:
    for texts in (["a"], []):
        with pytest.raises(InputError) as caught:
            encoder.encode(texts, **options)
        assert str(caught.value).startswith(message)


def test_truncate_dim_beyond_dim_raises_where_sentence_transformers_cuts_nothing(encoder: DenseEncoder) -> None:
    with pytest.raises(InputError, match="truncate_dim must be between 1 and 12, this model's dim; got 13"):
        encoder.encode("a", truncate_dim=13)


def test_a_task_of_a_model_without_router_is_ignored_as_in_sentence_transformers(encoder: DenseEncoder) -> None:
    assert_array_equal(encoder.encode(TEXTS, task="anything"), encoder.encode(TEXTS))


def test_numbers_from_numpy_are_numbers(encoder: DenseEncoder) -> None:
    found = encoder.encode(TEXTS, batch_size=np.int64(2), truncate_dim=np.int32(5))  # type: ignore[call-overload]
    assert found.shape == (6, 5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"precision": "float32"}, InputError, "precision 'float32' is not one of auto, fp32, bf16, fp16, int8."),
        ({"threads": 0}, InputError, "threads must be a positive integer or None, got 0."),
        ({"threads": 1.5}, InputError, "threads must be a positive integer or None, got 1.5."),
        ({"similarity_fn_name": "l2"}, InputError, "similarity_fn_name 'l2' is not one of cosine, dot, euclidean, man"),
        ({"device": "gpu"}, InputError, "device 'gpu' is not known. Expected 'auto', 'cpu', 'cuda' or 'cuda:N'."),
        ({"device": "cpu:1"}, InputError, "device 'cpu:1' is not known. Expected 'auto', 'cpu', 'cuda' or 'cuda:N'."),
        ({"truncate_dim": 13}, InputError, "truncate_dim must be between 1 and 12, this model's dim; got 13."),
        ({"default_prompt_name": "q"}, InputError, "default_prompt_name 'q' is none of the prompts ['document', 'que"),
        ({"precision": "fp16"}, trivec.ModelNotFoundError, "has no fp16 variant; it has: fp32, int8. Export one from"),
    ],
)
def test_bad_options_of_load(tiny_folder: Path, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        load(tiny_folder, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "no/such/folder",
        "./absent",
        "/absent/folder",
        "~/absent-folder",
        "~nobody-here/x",
        "/" + 5000 * "a",
        Path("a"),
    ],
)
def test_folders_that_do_not_exist(name: Any) -> None:
    with pytest.raises(
        trivec.ModelNotFoundError, match=r"^there is no folder .* Expected a model folder or a Hub repos"
    ):
        trivec.load(name, device="cpu")


def test_a_file_instead_of_a_folder(tiny_folder: Path) -> None:
    with pytest.raises(
        trivec.ModelNotFoundError, match=r"trivec\.json is a file. Expected a model folder or a Hub rep"
    ):
        load(tiny_folder / "trivec.json")


def test_another_family(folder: Path) -> None:
    rewrite(folder, lambda m: dataclasses.replace(m, family="quantum"))
    with pytest.raises(ModelFormatError, match=r"the family 'quantum' is none of .* Type: pip install -U trivec"):
        load(folder)


def test_a_manifest_whose_dim_is_wrong(folder: Path) -> None:
    rewrite(folder, lambda m: dataclasses.replace(m, dim=11))
    with pytest.raises(
        ModelFormatError, match=r"default.ranges has the shape \(2, 12\); the manifest has it as \(2, 11\)"
    ):
        load(folder)


def test_a_manifest_whose_arrays_are_missing(folder: Path) -> None:
    rewrite(folder, with_route(steps=(Step("dense", "2_Dense"), Step("layer_norm", "3_LayerNorm"))))
    with pytest.raises(ModelFormatError, match=r"the arrays 2_Dense\.weight of a dense layer are missing"):
        load(folder)


# ---- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 2, 7, 32, 1000])
def test_vectors_do_not_depend_on_the_batch(encoder: DenseEncoder, batch_size: int) -> None:
    rng = np.random.default_rng(3)
    words = np.array(["cat", "dog", "the", "unseen", "hill"])
    others = [" ".join(rng.choice(words, size=n)) for n in rng.integers(0, 30, size=63)]
    for text in ("a red cat", "", "dog " * 50):
        alone = encoder.encode(text)
        for at in (0, 31, 63):
            found = encoder.encode([*others[:at], text, *others[at:]], batch_size=batch_size)
            assert_allclose(found[at], alone, rtol=0, atol=1e-5)


def test_a_run_holds_at_most_32_tokens_a_row_of_the_batch(
    encoder: DenseEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = []
    session = encoder.route().session
    assert session is not None
    run = session.run_all

    def recording(ids: Any, outputs: Any) -> Any:
        shapes.append(ids.shape)
        return run(ids, outputs)

    monkeypatch.setattr(session, "run_all", recording)
    encoder.encode([f"word{n}" for n in range(100)] + ["cat a", "cat b", "cat c"], batch_size=4)  # of 3 and 4 tokens
    assert shapes == [(3, 4), (42, 3), (42, 3), (16, 3)]


# ---- values ----------------------------------------------------------------------------------------------------------


def test_prompts(encoder: DenseEncoder, tiny_model: "TinyModel") -> None:
    texts = ["cat", "dog sat"]
    query = tiny_model.expected([f"find the {text}" for text in texts])
    assert_allclose(encoder.encode(texts, prompt_name="query"), query, atol=1e-6)
    assert_allclose(encoder.encode(texts, prompt="find the "), query, atol=1e-6)
    assert_allclose(encoder.encode(texts, "document", "find the "), query, atol=1e-6)  # prompt wins
    assert_allclose(encoder.encode_query(texts), query, atol=1e-6)
    assert_allclose(encoder.encode_query(texts, prompt=""), tiny_model.expected(texts), atol=1e-6)
    assert_allclose(encoder.encode_document(texts), tiny_model.expected(texts), atol=1e-6)
    assert vars(DenseEncoder)["encode_queries"] is vars(DenseEncoder)["encode_query"]
    assert vars(DenseEncoder)["encode_documents"] is vars(DenseEncoder)["encode_document"]


def test_prompts_of_load_are_added_to_the_model_s_and_win(tiny_folder: Path, tiny_model: "TinyModel") -> None:
    encoder = load(tiny_folder, prompts={"query": "red ", "other": "blue "}, default_prompt_name="other")
    assert encoder.prompts == {"query": "red ", "document": "", "other": "blue "}
    assert_allclose(encoder.encode(["cat"]), tiny_model.expected(["blue cat"]), atol=1e-6)
    assert_allclose(encoder.encode(["cat"], prompt_name="query"), tiny_model.expected(["red cat"]), atol=1e-6)
    assert_allclose(encoder.encode(["cat"], prompt=""), tiny_model.expected(["cat"]), atol=1e-6)
    assert_allclose(encoder.encode_document(["cat"]), tiny_model.expected(["cat"]), atol=1e-6)


def test_normalize_and_truncate_dim(encoder: DenseEncoder, tiny_folder: Path, tiny_model: "TinyModel") -> None:
    expected = tiny_model.expected(TEXTS)[:, :5]
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    assert_allclose(encoder.encode(TEXTS, truncate_dim=5), expected, atol=1e-6)
    assert_allclose(encoder.encode(TEXTS, truncate_dim=5, normalize_embeddings=True), unit, atol=1e-6)
    cut = load(tiny_folder, truncate_dim=5)
    assert cut.dim == cut.get_embedding_dimension() == cut.get_sentence_embedding_dimension() == 5
    assert_allclose(cut.encode(TEXTS), expected, atol=1e-6)
    assert cut.encode(TEXTS, truncate_dim=12).shape == (6, 12)


@pytest.mark.parametrize("precision", ["float32", "int8", "uint8", "binary", "ubinary"])
@pytest.mark.parametrize("normalized", [False, True])
def test_output_types(encoder: DenseEncoder, tiny_model: "TinyModel", precision: Any, normalized: bool) -> None:
    ranges = tiny_model.normalized_ranges if normalized else tiny_model.ranges
    vectors = encoder.encode(TEXTS, normalize_embeddings=normalized)
    found = encoder.encode(TEXTS, precision=precision, normalize_embeddings=normalized)
    expected = np.asarray(quantize_embeddings(vectors, precision, ranges=ranges))
    assert found.dtype == expected.dtype
    assert_array_equal(found, expected)
    assert_array_equal(encoder.encode(TEXTS[0], precision=precision, normalize_embeddings=normalized), expected[0])


def test_ranges_are_cut_with_the_vectors(encoder: DenseEncoder, tiny_model: "TinyModel") -> None:
    vectors = encoder.encode(TEXTS, truncate_dim=5)
    expected = quantize_embeddings(vectors, "int8", ranges=tiny_model.ranges[:, :5])
    assert_array_equal(encoder.encode(TEXTS, precision="int8", truncate_dim=5), expected)


def test_without_ranges_there_are_no_small_numbers(folder: Path) -> None:
    rewrite(folder, lambda m: dataclasses.replace(m, arrays=None))
    with pytest.raises(
        InputError, match="needs the value ranges that `trivec export` stores, and there are none for t"
    ):
        load(folder).encode(TEXTS, precision="int8", truncate_dim=5, normalize_embeddings=True)


def test_torch_tensors(encoder: DenseEncoder) -> None:
    expected = encoder.encode(TEXTS)
    together = encoder.encode(TEXTS, convert_to_tensor=True)
    assert isinstance(together, torch.Tensor)
    assert together.dtype == torch.float32
    assert_array_equal(together.numpy(), expected)
    one_by_one = encoder.encode(TEXTS, convert_to_numpy=False)
    assert isinstance(one_by_one, list)
    assert_array_equal(torch.stack(one_by_one).numpy(), expected)
    single = encoder.encode(TEXTS[0], convert_to_numpy=False)
    assert single.shape == (12,)
    assert_array_equal(single.numpy(), expected[0])
    assert encoder.encode(TEXTS, convert_to_tensor=True, precision="ubinary").dtype == torch.uint8
    together[0, 0] = 7  # writable, and no view of anything else
    assert_array_equal(encoder.encode(TEXTS), expected)


def test_token_embeddings(encoder: DenseEncoder, tiny_model: "TinyModel") -> None:
    table, weight = tiny_model.weights["fp32"]
    found = encoder.encode(["a red cat", ""], output_value="token_embeddings")
    for array, text in zip(found, ["a red cat", ""], strict=True):
        assert_allclose(array, np.tanh(table[tiny_model.ids(text)] @ weight), atol=1e-6)
    item = encoder.encode("a red cat", output_value=None, truncate_dim=5)
    assert item["input_ids"].tolist() == tiny_model.ids("a red cat")
    assert item["token_embeddings"].shape == (5, 12)
    assert_allclose(item["sentence_embedding"], tiny_model.expected(["a red cat"])[0, :5], atol=1e-6)


def test_int8_is_a_variant_of_its_own(tiny_folder: Path, tiny_model: "TinyModel") -> None:
    encoder = load(tiny_folder, precision="int8")
    assert encoder.precision == "int8"
    found = encoder.encode(TEXTS)
    assert_allclose(found, tiny_model.expected(TEXTS, "int8"), atol=1e-6)
    assert np.abs(found - tiny_model.expected(TEXTS)).max() > 1e-4


def test_pooling_and_steps_of_a_manifest_run_over_a_graph_that_pools(folder: Path, tiny_model: "TinyModel") -> None:
    path = folder / "onnx" / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "axis"))
    node = onnx.helper.make_node("ReduceMean", ["token_embeddings", "axis"], ["sentence_embedding"], keepdims=0)
    model.graph.node.append(node)
    model.opset_import[0].version = 18
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("sentence_embedding", 1, ["batch", 12]))
    onnx.save_model(model, path)
    variant = dataclasses.replace(
        manifest_file.read(folder).encoders["main"].variants["fp32"], output="sentence_embedding"
    )
    rewrite(folder, with_encoder(variants={"fp32": variant}))
    rewrite(folder, with_route(pooling=None, steps=(Step("normalize"),)))
    expected = tiny_model.expected(TEXTS)
    assert_allclose(load(folder).encode(TEXTS), expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)


def test_similarity(encoder: DenseEncoder, tiny_folder: Path) -> None:
    a, b = encoder.encode(TEXTS), encoder.encode(TEXTS[::-1])
    for name in ("cosine", "dot", "euclidean", "manhattan"):
        ours = load(tiny_folder, similarity_fn_name=name)
        expected = SimilarityFunction.to_similarity_fn(name)(a, b).numpy()
        assert_allclose(ours.similarity(a, b), expected, atol=1e-5)
        assert_allclose(ours.similarity_pairwise(a, b), np.diag(expected), atol=1e-5)
        assert ours.similarity(a[0], b).shape == (1, 6)
    with pytest.raises(InputError, match="similarity_fn_name 'l2' is not one of cosine, dot, euclidean, manhattan"):
        encoder.similarity_fn_name = "l2"
    assert encoder.similarity_fn_name == "cosine"


# ---- lengths ---------------------------------------------------------------------------------------------------------


def test_truncation_is_counted(encoder: DenseEncoder) -> None:
    assert encoder.max_seq_length == LIMIT
    fits, too_long = "cat " * (LIMIT - 2), "cat " * (LIMIT - 1)
    encoder.encode([fits, too_long, "a", too_long])
    assert encoder.truncated == 2
    encoder.encode(too_long)
    assert encoder.truncated == 3
    assert_array_equal(encoder.encode(too_long), encoder.encode(fits))


def test_truncation_can_raise_before_anything_is_encoded(encoder: DenseEncoder) -> None:
    too_long = "cat " * LIMIT
    with pytest.raises(TruncationError) as caught:
        encoder.encode(["a", too_long, too_long], on_overflow="error")
    assert str(caught.value) == (
        "2 of 3 texts are longer than 16 tokens, the first at index 1. Shorten them, raise max_seq_length, or pass "
        "on_overflow='truncate'."
    )
    assert encoder.truncated == 0
    assert encoder.encode(["a"], on_overflow="error").shape == (1, 12)


def test_a_prompt_counts_towards_the_length(encoder: DenseEncoder) -> None:
    text = "cat " * (LIMIT - 3)
    encoder.encode(text, on_overflow="error")
    with pytest.raises(TruncationError):
        encoder.encode(text, prompt_name="query", on_overflow="error")


def test_max_seq_length_can_be_set_up_to_the_positions(encoder: DenseEncoder, tiny_model: "TinyModel") -> None:
    text = "cat dog the " * 20
    encoder.max_seq_length = 5
    assert encoder.max_seq_length == 5
    assert encoder.tokenize([text]) == [[2, *tiny_model.ids(text)[1:4], 3]]
    encoder.max_seq_length = 2 * LIMIT
    assert len(encoder.tokenize([text])[0]) == 2 * LIMIT
    for value in (2 * LIMIT + 1, None):
        with pytest.raises(
            InputError, match=f"max_seq_length can be at most 32, the positions of this model; got {value}"
        ):
            encoder.max_seq_length = value
    wrong: Any
    for wrong in (2, 0, -1, 4.5, "8"):
        with pytest.raises(
            InputError, match="max_seq_length must be a whole number above the 2 special tokens of this t"
        ):
            encoder.max_seq_length = wrong
    assert encoder.max_seq_length == 2 * LIMIT


def test_tokenize(encoder: DenseEncoder, tiny_model: "TinyModel") -> None:
    assert encoder.tokenize(TEXTS) == [tiny_model.ids(text) for text in TEXTS]
    assert encoder.tokenize("the cat", prompt="find ") == [tiny_model.ids("find the cat")]
    assert encoder.tokenize([]) == []


# ---- numbers that are none -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_names_its_text(folder: Path, tiny_model: "TinyModel", value: float) -> None:
    def spoil(table: Any) -> None:
        table[tiny_model.ids("cat")[1], 3] = np.nan if np.isinf(value) else value

    with_table(folder, spoil)
    encoder = load(rewrite(folder))
    assert encoder.encode(["a dog", ""]).shape == (2, 12)
    with pytest.raises(NonFiniteError) as caught:
        encoder.encode(["a dog", "a cat " * 30, "", "cat"])
    assert str(caught.value) == (
        "2 of 4 vectors are NaN or infinite, the first that of the text at index 1: "
        f"{('a cat ' * 30)[:60]!r}. Check the checkpoint: its weights may hold NaN."
    )
    with pytest.raises(NonFiniteError, match=r"^in the block that starts at text 2: 1 of 1 vectors"):
        list(encoder.encode_iter(["a", "b", "cat"], window=2))


# ---- many texts, many callers ----------------------------------------------------------------------------------------


def test_aencode_leaves_the_event_loop_free(encoder: DenseEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{'cat dog ' * (n % 6)}{n}" for n in range(2000)]
    expected = encoder.encode(texts, truncate_dim=5)
    session = encoder.route().session
    assert session is not None
    run, runs = session.run_all, []

    async def main() -> Any:
        loop = asyncio.get_running_loop()

        def asking(ids: Any, outputs: Any) -> Any:
            answer = threading.Event()
            loop.call_soon_threadsafe(answer.set)
            assert answer.wait(240), "the event loop is held up"
            runs.append(len(ids))
            return run(ids, outputs)

        monkeypatch.setattr(session, "run_all", asking)
        return await encoder.aencode(texts, truncate_dim=5)

    assert_allclose(asyncio.run(main()), expected, rtol=0, atol=1e-6)
    assert len(runs) > 1


def test_sixty_four_threads_share_an_encoder(encoder: DenseEncoder) -> None:
    """No row is lost or goes to another caller, and no cut text is counted twice."""
    jobs = [[f"{'cat ' * (i % 5)}{'dog ' * (j % 11)}" for j in range(20 + i % 3)] for i in range(128)]
    expected = [encoder.encode(job) for job in jobs]
    before = encoder.truncated
    start = threading.Barrier(64)

    def work(k: int) -> list[Any]:
        start.wait(timeout=600)
        return [encoder.encode([*job, "cat " * 50]) for job in jobs[k::64]]

    with ThreadPoolExecutor(64) as executor:
        results = list(executor.map(work, range(64), timeout=600))
    for k, found in enumerate(results):
        for block, vectors in zip(found, expected[k::64], strict=True):
            assert_allclose(block[:-1], vectors, rtol=0, atol=1e-6)
    assert encoder.truncated - before == 128


# ---- life ------------------------------------------------------------------------------------------------------------


def test_close_and_with(tiny_folder: Path) -> None:
    with load(tiny_folder) as encoder:
        assert encoder.encode("a").shape == (12,)
    message = f"this encoder is closed. Load it again: trivec.load({str(tiny_folder)!r})"
    for use in (
        lambda: encoder.encode("a"),
        lambda: encoder.tokenize("a"),
        lambda: encoder.max_seq_length,
        lambda: encoder.device,
        lambda: encoder.fingerprint,
    ):
        with pytest.raises(InputError) as caught:
            use()
        assert str(caught.value) == message
    encoder.close()
    assert repr(encoder) == f"DenseEncoder({str(tiny_folder)!r}, dim=12, fp32, closed)"
    assert encoder.dim == 12


def test_pickle_keeps_the_settings(tiny_folder: Path) -> None:
    encoder = load(tiny_folder, precision="int8", prompts={"extra": "red "}, truncate_dim=7, similarity_fn_name="dot")
    encoder.max_seq_length = 9
    encoder.default_prompt_name = "extra"
    copy = pickle.loads(pickle.dumps(encoder))
    assert copy.fingerprint == encoder.fingerprint
    assert (copy.precision, copy.device, copy.max_seq_length, copy.dim) == ("int8", "cpu", 9, 7)
    assert (copy.prompts, copy.similarity_fn_name) == (encoder.prompts, "dot")
    assert_array_equal(copy.encode(TEXTS), encoder.encode(TEXTS))


def test_arguments_that_open_it_again(tiny_folder: Path) -> None:
    assert load(tiny_folder).load_arguments() == {}
    given: dict[str, Any] = {"prompts": {"extra": "red "}, "default_prompt_name": "extra", "truncate_dim": 7}
    encoder = load(tiny_folder, **given, token="secret", threads=1, cache_dir=tiny_folder)
    assert encoder.load_arguments() == given
    with load(Path(encoder.name), precision=encoder.precision, **encoder.load_arguments()) as again:
        assert again.fingerprint == encoder.fingerprint


def test_pickle_finds_its_folder_from_another_one(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_folder.parent)
    data = pickle.dumps(load(Path(tiny_folder.name)))
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(data).encode("a").shape == (12,)


def test_pickle_crosses_processes(tiny_folder: Path, encoder: DenseEncoder, tmp_path: Path) -> None:
    (tmp_path / "encoder.pickle").write_bytes(pickle.dumps(encoder))
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).encode('a red cat').tobytes().hex())"
    root = str(Path(trivec.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "encoder.pickle")],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    assert_array_equal(np.frombuffer(bytes.fromhex(done.stdout), np.float32), encoder.encode("a red cat"))


def two_routes(manifest: Manifest) -> Manifest:
    """A Router's manifest: an encoder for each task, one cut at 5 tokens and one never."""
    main = manifest.encoders["main"]
    return dataclasses.replace(
        manifest,
        encoders={
            "main": dataclasses.replace(main, max_seq_length=5),
            "long": dataclasses.replace(main, max_seq_length=None, max_positions=None),
        },
        routes={"query": Route("main", Pooling(("cls",))), "document": Route("long", Pooling(("mean",)))},
        default_route="document",
    )


def test_routes(folder: Path, tiny_model: "TinyModel") -> None:
    encoder = load(rewrite(folder, two_routes))
    long = "cat dog the " * 20
    assert len(encoder.tokenize([long], task="query")[0]) == 5
    assert len(encoder.tokenize([long], task="document")[0]) == 62
    assert_array_equal(encoder.encode(TEXTS), encoder.encode(TEXTS, task="document"))
    assert_allclose(encoder.encode_document(["cat"]), tiny_model.expected(["cat"]), atol=1e-6)
    first = encoder.encode(["find the cat"], output_value="token_embeddings", task="query")[0][0]
    assert_allclose(encoder.encode_query(["cat"])[0], first, atol=1e-6)
    with pytest.raises(
        InputError, match=r"task 'passage' is no route of this model. Expected one of \['document', 'qu"
    ):
        encoder.encode("a", task="passage")
    assert encoder.fingerprint_of(task="query") != encoder.fingerprint_of(task="document")


def test_pickle_keeps_the_length_of_each_route(folder: Path) -> None:
    encoder = load(rewrite(folder, two_routes))
    copy = pickle.loads(pickle.dumps(encoder))
    long = ["cat dog the " * 20]
    assert copy.tokenize(long, task="query") == encoder.tokenize(long, task="query")
    assert copy.tokenize(long, task="document") == encoder.tokenize(long, task="document")


def test_a_progress_bar_is_shown_when_asked_for(
    encoder: DenseEncoder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder.encode(TEXTS)
    assert capsys.readouterr() == ("", "")
    encoder.encode(TEXTS, show_progress_bar=True)
    assert "6/6" in capsys.readouterr().err
    logger = logging.getLogger("trivec")
    level = logger.level
    try:
        logger.setLevel(logging.INFO)
        encoder.encode(TEXTS)
        assert capsys.readouterr().err == ""  # a server's log, say
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
        encoder.encode(TEXTS)
        assert "6/6" in capsys.readouterr().err
        encoder.encode(TEXTS, show_progress_bar=False)
        assert capsys.readouterr().err == ""
    finally:
        logger.setLevel(level)


# ---- fingerprints ----------------------------------------------------------------------------------------------------


def test_equal_for_equal(tiny_folder: Path, tmp_path: Path) -> None:
    first = load(tiny_folder)
    copy = load(Path(shutil.copytree(tiny_folder, tmp_path / "copy")))
    assert len(first.fingerprint) == 64
    assert first.fingerprint == copy.fingerprint == first.fingerprint_of()
    assert first.fingerprint == load(tiny_folder, threads=2, similarity_fn_name="dot", prompts={"x": "y"}).fingerprint
    assert first.fingerprint == first.fingerprint_of(prompt="") == first.fingerprint_of(prompt_name="document")
    assert first.fingerprint == first.fingerprint_of(truncate_dim=12)
    assert first.fingerprint_of("query") == first.fingerprint_of(prompt="find the ")


def test_different_for_every_argument(encoder: DenseEncoder) -> None:
    prints = [
        encoder.fingerprint,
        encoder.fingerprint_of("query"),
        encoder.fingerprint_of(prompt="other "),
        encoder.fingerprint_of(truncate_dim=11),
        encoder.fingerprint_of(normalize_embeddings=True),
        *(encoder.fingerprint_of(precision=p) for p in ("int8", "uint8", "binary", "ubinary")),
    ]
    encoder.max_seq_length = 9
    prints.append(encoder.fingerprint)
    encoder.truncate_dim = 6
    prints.append(encoder.fingerprint)
    encoder.default_prompt_name = "query"
    prints.append(encoder.fingerprint)
    assert len(set(prints)) == len(prints) == 12


def edit_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(path.read_text() + "\n")


def edit_graph(folder: Path) -> None:
    model = onnx.load(folder / "onnx" / "model.onnx", load_external_data=False)
    model.producer_name = "somebody else"
    onnx.save_model(model, folder / "onnx" / "model.onnx")


def edit_data(folder: Path) -> None:
    with_table(folder, lambda table: table.__setitem__((0, 0), 1.25))


def add_dense(folder: Path) -> None:
    with np.load(folder / "arrays.npz") as stored:
        np.savez(folder / "arrays.npz", **{**stored, "d.weight": np.eye(12, dtype=np.float32)})


def scale_dense(folder: Path) -> None:
    with np.load(folder / "arrays.npz") as stored:
        np.savez(folder / "arrays.npz", **{**stored, "d.weight": 2 * np.eye(12, dtype=np.float32)})


DENSE = with_route(steps=(Step("dense", "d", "identity"),))
CHANGES: dict[str, tuple[list[Callable[[Path], None]], Callable[[Manifest], Manifest]]] = {
    "nothing": ([], lambda m: m),
    "tokenizer": ([edit_tokenizer], lambda m: m),
    "graph": ([edit_graph], lambda m: m),
    "data": ([edit_data], lambda m: m),
    "pooling": ([], with_route(pooling=Pooling(("max",)))),
    "include_prompt": ([], with_route(pooling=Pooling(("mean",), include_prompt=False))),
    "normalize": ([], with_route(steps=(Step("normalize"),))),
    "dense": ([add_dense], DENSE),
    "weights": ([scale_dense], DENSE),
    "activation": ([add_dense], with_route(steps=(Step("dense", "d", "relu"),))),
    "residual": ([add_dense], with_route(steps=(Step("dense", "d", "identity", residual=True),))),
    "lower_case": ([], with_encoder(lower_case=True)),
    "truncation_side": ([], with_encoder(truncation_side="left")),
    "max_seq_length": ([], with_encoder(max_seq_length=7)),
    "special_ids": ([], with_encoder(special_ids=(2,))),
    "truncate_dim": ([], lambda m: dataclasses.replace(m, truncate_dim=7)),
    "default_prompt": ([], lambda m: dataclasses.replace(m, default_prompt_name="query")),
}


def test_different_for_every_ingredient_of_the_folder(tiny_folder: Path, tmp_path: Path) -> None:
    prints = {}
    for name, (edits, change) in CHANGES.items():
        folder = Path(shutil.copytree(tiny_folder, tmp_path / name))
        for edit in edits:
            edit(folder)
        prints[name] = load(rewrite(folder, change)).fingerprint
    prints["int8"] = load(tiny_folder, precision="int8").fingerprint
    assert prints["nothing"] == load(tiny_folder).fingerprint
    same = [(a, b) for a in prints for b in prints if a < b and prints[a] == prints[b]]
    assert same == []


def test_ranges_count_only_where_they_are_used(tiny_folder: Path, folder: Path) -> None:
    with np.load(folder / "arrays.npz") as stored:
        np.savez(folder / "arrays.npz", **{**stored, "default.ranges": stored["default.ranges"] * 2})
    before, after = load(tiny_folder), load(rewrite(folder))
    assert after.fingerprint == before.fingerprint
    assert after.fingerprint_of(precision="int8") != before.fingerprint_of(precision="int8")


def test_what_does_not_change_vectors_does_not_count(tiny_folder: Path, folder: Path) -> None:
    rewrite(folder, lambda m: dataclasses.replace(m, source={"name": "elsewhere"}, tools={}, similarity="dot"))
    assert load(folder).fingerprint == load(tiny_folder).fingerprint


def test_the_encoder_of_a_manifest_names_its_files_in_the_folder(tiny_folder: Path) -> None:
    paths = [ref.path for ref in load(tiny_folder).manifest.files("fp32")]
    assert paths == ["tokenizer.json", "onnx/model.onnx", "onnx/model.onnx.data", "arrays.npz"]
    assert isinstance(load(tiny_folder).manifest.arrays, FileRef)
