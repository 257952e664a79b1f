"""mteb's own evaluation of a model here, against its evaluation of the same weights in sentence-transformers."""

from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
from datasets import Dataset
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.models import EncoderProtocol
from mteb.types import PromptType
from sentence_transformers import SentenceTransformer
from tests.runtime.frameworks.conftest import PROMPTS, SciFact, read
from torch.utils.data import DataLoader

import trivec
from trivec import InputError, TruncationError
from trivec.integrations.mteb import TrivecEncoder

METADATA = mteb.get_task("SciFact").metadata
OPTIONS: dict[str, Any] = {"device": "cpu", "threads": 1, "precision": "fp32"}


def task(data: SciFact) -> Any:
    """mteb's SciFact on data that lies here."""
    found = mteb.get_task("SciFact")
    split = RetrievalSplitData(
        corpus=Dataset.from_list([{"id": name, "title": "", "text": text} for name, text in data.documents.items()]),
        queries=Dataset.from_list([{"id": name, "text": text} for name, text in data.queries.items()]),
        relevant_docs=data.judged,
        top_ranked=None,
    )
    found.dataset = {"default": {"test": split}}
    found.data_loaded = True
    return found


def score(model: Any, data: SciFact) -> float:
    """nDCG@10, of 100."""
    found = mteb.evaluate(model, task(data), cache=None, show_progress_bar=False, co2_tracker=False)
    return 100 * float(found.task_results[0].scores["test"][0]["ndcg_at_10"])


def test_scifact(minilm: Path, minilm_checkpoint: Path, shared: Path) -> None:
    data = read(shared / "data/scifact", 50, 200)
    data = data._replace(documents={name: text[:120] for name, text in data.documents.items()})  # torch takes its time
    reference = SentenceTransformer(str(minilm_checkpoint), device="cpu", prompts=PROMPTS)
    found = {precision: TrivecEncoder(minilm, precision=precision, prompts=PROMPTS) for precision in ("fp32", "int8")}
    assert isinstance(found["fp32"], EncoderProtocol)
    wanted = score(reference, data)
    assert 50 < wanted < 99.9
    assert score(found["fp32"], data) == pytest.approx(wanted, abs=1e-4)
    assert score(found["int8"], data) == pytest.approx(wanted, abs=1)  # a query is 2 points here
    assert found["fp32"].mteb_model_meta.revision != found["int8"].mteb_model_meta.revision


def batches(texts: list[str]) -> Any:
    return DataLoader(Dataset.from_dict({"text": texts}), batch_size=2)


@pytest.mark.parametrize(
    ("prompts", "side", "put"),
    [
        ({}, None, ""),
        ({}, PromptType.document, ""),
        ({}, PromptType.query, "find the "),  # the model's own
        ({"Retrieval": "b "}, PromptType.query, "b "),
        ({"Retrieval": "b ", "Retrieval-query": "c "}, PromptType.query, "c "),
        ({"Retrieval": "b ", "Retrieval-query": "c "}, PromptType.document, "b "),
        ({"SciFact": "d ", "Retrieval-query": "c "}, PromptType.query, "d "),
        ({"SciFact-document": "e ", "SciFact": "d "}, PromptType.document, "e "),
        ({"document": "f "}, PromptType.document, "f "),
        ({"Retrieval": "b "}, None, "b "),
        ({"STS": "g "}, PromptType.document, ""),
    ],
)
def test_prompts(tiny_folder: Path, prompts: dict[str, str], side: Any, put: str) -> None:
    texts = ["a cat", "the old dog", "", "a dog", "a boat"]
    model = TrivecEncoder(tiny_folder, prompts=prompts, **OPTIONS)
    found = model.encode(batches(texts), task_metadata=METADATA, hf_split="test", hf_subset="default", prompt_type=side)
    with trivec.load(tiny_folder, kind="dense", **OPTIONS) as encoder:
        np.testing.assert_array_equal(found, encoder.encode(texts, prompt=put))
        assert model.mteb_model_meta.name == f"trivec/{tiny_folder.name}"


def test_similarity_is_the_models(tiny_folder: Path) -> None:
    with trivec.load(tiny_folder, kind="dense", **OPTIONS) as encoder:
        a, b = encoder.encode(["a cat", "the old dog"]), encoder.encode(["a boat"])
        for name in ("cosine", "dot", "euclidean", "manhattan"):
            model = TrivecEncoder(tiny_folder, load_options={"similarity_fn_name": name}, **OPTIONS)
            encoder.similarity_fn_name = name
            np.testing.assert_allclose(np.asarray(model.similarity(a, b)), encoder.similarity(a, b), rtol=1e-5)


def test_what_is_refused(tiny_folder: Path) -> None:
    with pytest.raises(InputError, match="Task name Retreival is not valid"):
        TrivecEncoder(tiny_folder, prompts={"Retreival": "find "}, **OPTIONS)
    with pytest.raises(InputError, match=r"normalise=True is no option of this model"):
        TrivecEncoder(tiny_folder, encode_options={"normalise": True}, **OPTIONS)
    model = TrivecEncoder(tiny_folder, on_overflow="error", **OPTIONS)
    place = {"task_metadata": METADATA, "hf_split": "test", "hf_subset": "default"}
    with pytest.raises(TruncationError):
        model.encode(batches(["cat " * 40]), **place)
    with pytest.raises(InputError, match=r"batchsize=8 is no option of this model"):
        model.encode(batches(["a cat"]), batchsize=8, **place)
    with pytest.raises(InputError, match="SciFact has no texts, but image: expected a task on texts alone"):
        model.encode([{"image": ["x"]}], **place)
