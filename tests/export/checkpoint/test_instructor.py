"""Instructor: a T5 encoder whose instruction is left out of the pooling, as sentence-transformers and its twin do."""

import importlib
import json
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tests.support.architectures import make
from tests.support.oracle import least_cosine, reference

import trivec
from trivec._concurrency.pool import _decisive
from trivec._model import checkpoint as checkpoint_module
from trivec._model.source import Folder
from trivec.integrations import milvus
from trivec_export import _export
from trivec_export._checkpoint.fetch import Fetched

QUERY = "represent the question for retrieval: "
DOCUMENT = "represent the document: "
LENGTH = 40
TEXTS = ["", "a", "the rain in spain", "Hello, World! 12345", "one two three four five six seven eight nine ten " * 4]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The modules and files of hkunlp/instructor-base: pickled Dense, and a Pooling that says nothing of prompts."""
    work = tmp_path_factory.mktemp("instructor")
    torch.manual_seed(0)
    transformer = Transformer(str(make("t5", work / "t5")))
    dense = Dense(64, 64, bias=False, activation_function=torch.nn.Identity())
    model = SentenceTransformer(modules=[transformer, Pooling(64), dense, Normalize()], device="cpu")
    folder = work / "instructor-base"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(str(folder), create_model_card=False)
    torch.save(load_file(folder / "2_Dense" / "model.safetensors"), folder / "2_Dense" / "pytorch_model.bin")
    (folder / "2_Dense" / "model.safetensors").unlink()
    old = {"word_embedding_dimension": 64, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(old))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": LENGTH, "do_lower_case": False}))
    modules = json.loads((folder / "modules.json").read_text())
    for module in modules:
        module["type"] = f"sentence_transformers.models.{module['type'].rpartition('.')[2]}"
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


@pytest.fixture(scope="module")
def folder(checkpoint: Path) -> Path:
    """The export of the checkpoint as if it came from the Hub, under the name of which ST knows what Pooling omits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_export, "fetch", lambda *_, **__: Fetched(checkpoint, "hkunlp/instructor-base", "main"))
        out = checkpoint.parent / "model"
        try:
            trivec.export(checkpoint, out, precision=["fp32", "int8"], max_texts=64, quiet=True)
        except trivec.GateError as error:  # noise is hard to quantize
            assert "fp32" not in str(error).partition("was written with")[0]
    return out


@pytest.fixture(scope="module")
def oracle(checkpoint: Path) -> SentenceTransformer:
    model = reference(checkpoint)
    model.set_pooling_include_prompt(False)
    return model


def load(folder: Path) -> trivec.DenseEncoder:
    encoder: trivec.DenseEncoder = trivec.load(folder, device="cpu", precision="fp32")
    return encoder


@pytest.mark.parametrize("prompt", [QUERY, DOCUMENT, "x", "", "a very long instruction " * 30])
def test_the_instruction_is_left_out_as_in_sentence_transformers(
    prompt: str, folder: Path, oracle: SentenceTransformer, texts: list[str]
) -> None:
    with load(folder) as encoder:
        assert not encoder.include_prompt
        assert encoder.max_seq_length == LENGTH
        texts = [*TEXTS, *texts[::4]]
        ours = encoder.encode(texts, prompt=prompt)
        assert least_cosine(ours, oracle.encode(texts, prompt=prompt)) >= 0.99999
        np.testing.assert_allclose(ours, oracle.encode(texts, prompt=prompt, batch_size=1), atol=2e-5)


def test_the_setting_can_be_changed_and_is_part_of_fingerprint_pickle_and_pool(
    folder: Path, checkpoint: Path, oracle: SentenceTransformer
) -> None:
    with load(folder) as encoder:
        without, fingerprint = encoder.encode(TEXTS, prompt=QUERY), encoder.fingerprint_of(prompt=QUERY)
        encoder.set_pooling_include_prompt(True)
        assert encoder.include_prompt
        counted = encoder.encode(TEXTS, prompt=QUERY)
        assert least_cosine(counted, reference(checkpoint).encode(TEXTS, prompt=QUERY)) >= 0.99999
        assert least_cosine(counted, without) < 0.99
        assert encoder.fingerprint_of(prompt=QUERY) != fingerprint
        decisive = _decisive(*encoder.__reduce__()[1])
        again = pickle.loads(pickle.dumps(encoder))
        assert again.include_prompt
        np.testing.assert_array_equal(again.encode(TEXTS, prompt=QUERY), counted)
        encoder.set_pooling_include_prompt(False)
        assert encoder.fingerprint_of(prompt=QUERY) == fingerprint
        np.testing.assert_array_equal(encoder.encode(TEXTS, prompt=QUERY), without)
        assert not pickle.loads(pickle.dumps(encoder)).include_prompt
        assert decisive != _decisive(*encoder.__reduce__()[1])  # a pool of the other setting is refused
        np.testing.assert_allclose(encoder.encode(TEXTS), oracle.encode(TEXTS), atol=2e-5)  # without an instruction


def twin(checkpoint: Path, instruction: str, texts: list[str]) -> Any:
    """pymilvus.model's own Instructor, of which the parts that still run: its mask and its pooling.

    Its encode needs what sentence-transformers 6 has no more (_text_length, modules of its own for each folder); what
    is here in its place are the lines of InstructorTransformer.tokenize and forward.
    """
    impl = importlib.import_module("pymilvus.model.dense.instructor_embedding.instructor_impl")
    tokenizer = hf.AutoTokenizer.from_pretrained(checkpoint)
    model = hf.T5EncoderModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    options = {"padding": "max_length", "truncation": "longest_first", "return_tensors": "pt", "max_length": LENGTH}
    pairs = [instruction.strip() + text.strip() for text in texts]
    features = tokenizer(pairs, **options)
    features = impl.Instructor.prepare_input_features(
        features, tokenizer([instruction.strip()] * len(texts), **options)
    )
    with torch.no_grad():
        states = model(features["input_ids"], features["attention_mask"], return_dict=False)[0]
        mask = features["attention_mask"] * features["instruction_mask"]
        pooling = impl.InstructorPooling.load(str(checkpoint / "1_Pooling"))
        pooled = pooling({"token_embeddings": states, "attention_mask": mask})["sentence_embedding"]
        weight = torch.load(checkpoint / "2_Dense" / "pytorch_model.bin", weights_only=True)["linear.weight"]
        return torch.nn.functional.normalize(pooled @ weight.T, dim=1).numpy()


@pytest.mark.parametrize("instruction", [QUERY, "represent the document for retrieval:", "  padded  "])
@pytest.mark.usefixtures("twins")
def test_stripped_texts_equal_the_twin(instruction: str, folder: Path, checkpoint: Path) -> None:
    texts = [*TEXTS, "  blanks around ", "a b c"]
    with load(folder) as encoder:
        ours = encoder.encode([text.strip() for text in texts], prompt=instruction.strip(), normalize_embeddings=True)
        assert least_cosine(ours, twin(checkpoint, instruction, texts)) >= 0.99999


@pytest.mark.usefixtures("twins")
def test_the_milvus_function_equals_its_twin(folder: Path, checkpoint: Path, texts: list[str]) -> None:
    ours = milvus.InstructorEmbeddingFunction(
        folder, query_instruction=QUERY, doc_instruction=DOCUMENT, precision="fp32", threads=1
    )
    some = [*TEXTS, *texts[::6], "  blanks around "]
    assert ours.dim == 64
    for encode, words_before in ((ours.encode_queries, QUERY), (ours.encode_documents, DOCUMENT), (ours, DOCUMENT)):
        found = encode(some)
        assert {(vector.dtype, vector.shape) for vector in found} == {(np.dtype(np.float32), (64,))}
        assert least_cosine(np.stack(found), twin(checkpoint, words_before, some)) >= 0.99999
    assert least_cosine(np.stack(ours.encode_queries(some)), np.stack(ours.encode_documents(some))) < 0.999


def test_only_the_names_that_sentence_transformers_knows(checkpoint: Path) -> None:
    def include_prompt(name: str | None) -> bool:
        pooling = checkpoint_module.read_checkpoint(Folder(checkpoint), name=name).routes["default"].pooling
        assert pooling is not None
        return pooling.include_prompt

    assert [include_prompt(f"hkunlp/instructor-{size}") for size in ("base", "large", "xl")] == [False] * 3
    assert [include_prompt(name) for name in (None, "instructor-base", "me/instructor-base")] == [True] * 3


def test_a_graph_that_pools_by_itself(folder: Path) -> None:
    with load(folder) as encoder:
        pipeline = encoder._open()["default"]
        object.__setattr__(pipeline, "pooling", None)
        with pytest.raises(trivec.InputError, match="this graph pools by itself, so a prompt cannot be left out"):
            encoder.set_pooling_include_prompt(False)
