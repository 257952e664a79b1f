"""Cross-encoders as FastEmbed and Optimum publish them, without a manifest, against CrossEncoder(folder) in torch.

The graph comes from a plain torch.onnx.export with attention_mask and, for BERT, token_type_ids; the layouts are those
of the published repositories: onnx/model.onnx or model.onnx beside config.json and the tokenizer.
"""

import json
import logging
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers
from sentence_transformers import CrossEncoder
from tests.support.rerankers import CLASSIFIERS, PAIRS, change, classifier, close

import trivec
from trivec import InputError, ModelFormatError, ModelNotFoundError
from trivec._inspect.info import info

LISTED = [list(pair) for pair in PAIRS]


def export(folder: Path) -> onnx.ModelProto:
    """The classifier of a checkpoint with every input that its tokenizer makes."""
    model: Any = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    names = json.loads((folder / "tokenizer_config.json").read_text())["model_input_names"]

    class Wrapper(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *given: torch.Tensor) -> Any:
            return self.model(**dict(zip(names, given, strict=True))).logits

    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    program = torch.onnx.export(
        Wrapper(),
        tuple(torch.full((2, 7), 0 if "type" in name else 1, dtype=torch.int64) for name in names),
        input_names=names,
        output_names=["logits"],
        dynamo=True,
        dynamic_shapes=((sizes,) * len(names),),
        verbose=False,
    )
    assert program is not None
    return program.model_proto


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A checkpoint by name, with its weights, and model.onnx beside them; made once."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            folder = classifier(name, tmp_path_factory.mktemp(name) / "checkpoint")
            level = logging.getLogger("torch.onnx").level
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                onnx.save_model(export(folder), folder / "model.onnx")
            logging.getLogger("torch.onnx").setLevel(level)
            made[name] = folder
        return made[name]

    return make


def without_weights(folder: Path, out: Path, graph: str) -> Path:
    """What is published: no weights beside the graph."""
    shutil.copytree(folder, out, ignore=shutil.ignore_patterns("*.safetensors", "model.onnx"))
    (out / graph).parent.mkdir(exist_ok=True)
    shutil.copy(folder / "model.onnx", out / graph)
    return out


@pytest.mark.parametrize(
    ("name", "graph"),
    [
        ("bert", "onnx/model.onnx"),
        ("bert", "model.onnx"),
        ("bert_3_labels", "onnx/model.onnx"),
        ("xlm_roberta", "onnx/model.onnx"),
    ],
)
def test_scores_equal_those_of_torch(name: str, graph: str, published: Callable[[str], Path], tmp_path: Path) -> None:
    checkpoint = published(name)
    oracle = CrossEncoder(str(checkpoint), device="cpu")
    logits = oracle.predict(LISTED, activation_fn=torch.nn.Identity())
    with trivec.load(without_weights(checkpoint, tmp_path / "model", graph), device="cpu") as reranker:
        assert type(reranker) is trivec.Reranker
        assert reranker.num_labels == CLASSIFIERS[name].labels
        close(reranker.predict(PAIRS, activation_fn="identity"), logits)
        close(reranker.predict(PAIRS), oracle.predict(LISTED))
        assert np.std(logits) > 0.1
        if reranker.num_labels == 1:
            found = [row["corpus_id"] for row in reranker.rank("a question", [b for _, b in PAIRS[:20]])]
            expected = [row["corpus_id"] for row in oracle.rank("a question", [b for _, b in PAIRS[:20]])]
            assert found == expected
        described = info(reranker.name)
    assert "rerank" in json.dumps(described, default=str)


def test_a_folder_of_sentence_transformers_6_with_a_graph(published: Callable[[str], Path], tmp_path: Path) -> None:
    checkpoint = published("bert")
    model = CrossEncoder(
        str(checkpoint), device="cpu", prompts={"query": "ask: "}, activation_fn=torch.nn.Tanh(), max_length=48
    )
    model.save_pretrained(str(tmp_path / "saved"))
    (tmp_path / "saved/onnx").mkdir()
    shutil.copy(checkpoint / "model.onnx", tmp_path / "saved/onnx/model.onnx")
    with trivec.load(tmp_path / "saved", device="cpu", kind="reranker") as reranker:
        assert (reranker.activation, reranker.max_seq_length) == ("tanh", 48)
        close(reranker.predict(PAIRS), model.predict(LISTED))
        close(reranker.predict(PAIRS, prompt_name="query"), model.predict(LISTED, prompt_name="query"))


def test_what_does_not_fit_is_refused(published: Callable[[str], Path], tmp_path: Path) -> None:
    folder = without_weights(published("bert"), tmp_path / "model", "onnx/model.onnx")
    with pytest.raises(InputError, match=r"pooling='mean': .* scores pairs of texts\. Leave it out\."):
        trivec.load(folder, device="cpu", pooling="mean")
    with pytest.raises(InputError, match=r"is a reranker model, and kind='dense' was asked for"):
        trivec.load(folder, device="cpu", kind="dense")
    change(folder / "config.json", id2label={"0": "no", "1": "yes"}, label2id={"no": 0, "yes": 1})
    with pytest.raises(ModelFormatError, match=r"gives 1 numbers of a pair, and config.json has the labels no, yes"):
        trivec.load(folder, device="cpu")
    graph = onnx.load(folder / "onnx/model.onnx")
    for node in graph.graph.node:
        node.output[:] = ["other" if made == "logits" else made for made in node.output]
    graph.graph.output[0].name = "other"
    onnx.save_model(graph, folder / "onnx/model.onnx")
    with pytest.raises(
        ModelFormatError, match=r"has the outputs other; a model that scores pairs has logits or scores"
    ):
        trivec.load(folder, device="cpu")
    shutil.rmtree(folder / "onnx")
    with pytest.raises(ModelNotFoundError):
        trivec.load(folder, device="cpu")
