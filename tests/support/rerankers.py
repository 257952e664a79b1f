"""Rerankers for tests: a tiny folder whose scores numpy computes, and tiny random checkpoints of every architecture."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from tests.support.tiny_model import MAX_TOKENS, SPECIAL, WORDS
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from trivec._gate.texts import pairs_of, verification_texts
from trivec._model import manifest as manifest_module
from trivec._model import manifest_file
from trivec._model.integrity import describe
from trivec._model.manifest import EncoderSpec, Manifest, Route, Score, Variant

Floats = npt.NDArray[np.float32]
Pair = tuple[str, str]


LONG = "an over long half of a pair " * 60


def some_pairs() -> list[tuple[str, str]]:
    """64 pairs: of all kinds, with empty and over-long halves, and a literal special token."""
    every = [pair.text for pair in pairs_of(verification_texts())]
    odd = [("", "a text"), ("a text", ""), ("a [SEP] b", "c [SEP]"), (LONG, "short"), ("short", LONG), (LONG, LONG)]
    return [*every[:: len(every) // 58][:58], *odd]


PAIRS = some_pairs()


def close(scores: Any, reference: Any) -> None:
    """Within 1e-4 of their standard deviation, which is at most that of large logits."""
    assert np.shape(scores) == np.shape(reference)
    np.testing.assert_allclose(scores, reference, rtol=0, atol=1e-4 * max(1.0, float(np.std(reference))))


@dataclass(frozen=True)
class TinyReranker:
    """Logits are the mean over the tokens of words[id] * (1 + type), by label."""

    folder: Path
    words: Floats
    """(V, L)."""
    prompts: dict[str, str]

    def ids(self, pair: Pair) -> tuple[list[int], int]:
        """[CLS] words [SEP] words [SEP], the longer text cut, and where the second one starts."""
        vocabulary = {word: i for i, word in enumerate((*SPECIAL, *WORDS))}
        first, second = (
            [vocabulary.get(word, 1) for word in re.findall(r"\[SEP\]|\w+|[^\w\s]+", _lower(text))] for text in pair
        )
        most = MAX_TOKENS - 3
        if len(first) + len(second) > most:  # the longer one down to the shorter one, or both to halves
            least = min(len(first), len(second), most // 2)
            sizes = (least, most - least) if len(first) <= len(second) else (most - least, least)
            first, second = first[: sizes[0]], second[: sizes[1]]
        return [2, *first, 3, *second, 3], len(first) + 2

    def logits(self, pairs: Sequence[Pair], prompt: str = "") -> Floats:
        """(N, L)."""
        rows = []
        for first, second in pairs:
            ids, start = self.ids((prompt + first, second))
            types = (np.arange(len(ids)) >= start).astype(np.float32)
            rows.append((self.words[ids] * (1 + types)[:, None]).mean(0))
        return np.stack(rows).astype(np.float32) if rows else np.zeros((0, self.words.shape[1]), np.float32)


def _lower(text: str) -> str:
    """In small letters, but for the special token."""
    return text.lower().replace("[sep]", "[SEP]")


def write_tiny_reranker(
    folder: Path,
    labels: Sequence[str] = ("LABEL_0",),
    activation: str = "sigmoid",
    *,
    words: Floats | None = None,
    **changes: Any,
) -> TinyReranker:
    """A model folder of one tiny graph, with token types."""
    rng = np.random.default_rng(11)
    if words is None:
        words = rng.normal(scale=2, size=(len(SPECIAL) + len(WORDS), len(labels))).astype(np.float32)
    (folder / "onnx").mkdir(parents=True)
    pair_tokenizer().save(str(folder / "tokenizer.json"))
    _write_graph(folder / "onnx/model.onnx", words)
    variant = Variant(
        (describe(folder, "onnx/model.onnx"),), ("input_ids", "token_type_ids"), "scores", 18, gate={"status": "none"}
    )
    encoder = EncoderSpec(
        describe(folder, "tokenizer.json"), MAX_TOKENS, 2 * MAX_TOKENS, {"fp32": variant}, special_ids=(2, 3)
    )
    prompts = {"query": "find the "}
    manifest = Manifest(
        family="rerank",
        dim=len(labels),
        encoders={"main": encoder},
        routes={"default": Route("main", None, score=Score("scores", tuple(labels), activation))},
        default_route="default",
        prompts=prompts,
        source={"name": "tests/tiny-reranker", "revision": "0123abc"},
    )
    text = manifest_file.dumps(replace(manifest, **changes))
    (folder / manifest_module.FILE_NAME).write_text(text, encoding="utf-8")
    return TinyReranker(folder, words, prompts)


def pair_tokenizer() -> Tokenizer:
    """Words, and BERT's template of pairs."""
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate((*SPECIAL, *WORDS))}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def _write_graph(path: Path, words: Floats) -> None:
    """input_ids, token_type_ids (B, S) -> scores (B, L)."""
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
        for name in ("input_ids", "token_type_ids")
    ]
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["found"]),  # (B, S, L)
        helper.make_node("Cast", ["token_type_ids"], ["types"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["types", "one"], ["factors"]),
        helper.make_node("Unsqueeze", ["factors", "last"], ["column"]),  # (B, S, 1)
        helper.make_node("Mul", ["found", "column"], ["weighted"]),
        helper.make_node("ReduceMean", ["weighted", "middle"], ["scores"], keepdims=0),
    ]
    constants = [
        numpy_helper.from_array(words, "words"),
        numpy_helper.from_array(np.array(1, np.float32), "one"),
        numpy_helper.from_array(np.array([2], np.int64), "last"),
        numpy_helper.from_array(np.array([1], np.int64), "middle"),
    ]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", words.shape[1]])]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, constants)
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


# ---- checkpoints ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Classifier:
    """A row of the table: a class of transformers, whose config is that of an architecture of the exporter."""

    name: str
    """Of the class."""
    architecture: str
    """Among `tests.support.architectures`."""
    types: bool = False
    """Whether its graph tells the texts of a pair apart by token types."""
    labels: int = 1
    changes: Callable[[Any], None] | None = None


def _pooled_by(mode: str) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        config.classifier_pooling = mode

    return change


CLASSIFIERS = {
    "bert": Classifier("BertForSequenceClassification", "bert", types=True),
    "bert_3_labels": Classifier("BertForSequenceClassification", "bert", types=True, labels=3),
    "electra": Classifier("ElectraForSequenceClassification", "electra", types=True),
    "albert": Classifier("AlbertForSequenceClassification", "albert", types=True),
    "xlm_roberta": Classifier("XLMRobertaForSequenceClassification", "xlm_roberta"),
    "roberta": Classifier("RobertaForSequenceClassification", "roberta"),
    "deberta_v2": Classifier("DebertaV2ForSequenceClassification", "deberta_v2"),
    "modernbert_cls": Classifier("ModernBertForSequenceClassification", "modernbert", changes=_pooled_by("cls")),
    "modernbert_mean": Classifier("ModernBertForSequenceClassification", "modernbert", changes=_pooled_by("mean")),
    "distilbert": Classifier("DistilBertForSequenceClassification", "distilbert"),
    "mpnet": Classifier("MPNetForSequenceClassification", "mpnet"),
    "gte": Classifier("GteForSequenceClassification", "gte"),
    "qwen3": Classifier("Qwen3ForSequenceClassification", "qwen3"),
}


def classifier(name: str, folder: Path, **config: Any) -> Path:
    """Write a tiny checkpoint with large random weights; `config` goes into its config.json."""
    import transformers as hf
    from tests.support.architectures import ARCHITECTURES, draw

    row = CLASSIFIERS[name]
    architecture = ARCHITECTURES[row.architecture]
    settings = architecture.config()
    settings.num_labels = row.labels
    if row.changes is not None:
        row.changes(settings)
    model = getattr(hf, row.name)(settings).eval()
    draw(model, architecture.embedding)
    model.save_pretrained(folder)
    _tokenizer_of(row).save_pretrained(folder)
    names = ["input_ids", *(["token_type_ids"] if row.types else []), "attention_mask"]
    change(folder / "tokenizer_config.json", model_input_names=names)
    change(folder / "config.json", **config)
    return folder


def change(path: Path, **settings: Any) -> None:
    """Set keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def _tokenizer_of(row: Classifier) -> Any:
    """The architecture's tokenizer, with a template of pairs: BERT's with types, RoBERTa's with two ends between."""
    from tests.support.architectures import ARCHITECTURES, _tokenizer

    architecture = ARCHITECTURES[row.architecture]
    special = architecture.special
    made = _tokenizer(special, architecture.max_length or 512)
    start = [special.start] if special.start is not None else []
    end = [special.end] if special.end is not None and special.start is not None else []
    two = [*end, *end] if special.tokens[0] == "<s>" else end
    second = 1 if special.tokens[0] == "[PAD]" else 0
    last = [f"{token}:{second}" for token in end]
    tokens = [(token, special.tokens.index(token)) for token in {*start, *end}]
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=[*start, "$A", *end], pair=[*start, "$A", *two, f"$B:{second}", *last], special_tokens=tokens
    )
    return made
