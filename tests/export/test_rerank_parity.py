"""Cross-encoders, from a checkpoint over its export to scores that equal sentence-transformers' own."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from sentence_transformers import CrossEncoder
from tests.support.flag_embedding import FlagEmbedding
from tests.support.rerankers import CLASSIFIERS, LONG, PAIRS, _tokenizer_of, change, classifier, close
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import trivec
from trivec._gate.texts import pairs_of, verification_texts
from trivec._model.integrity import describe
from trivec._model.manifest import EncoderSpec
from trivec._tokens.pair_tokenizer import PairTokenizer


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_scores_and_ids_equal_the_reference(name: str, tmp_path: Path) -> None:
    row = CLASSIFIERS[name]
    checkpoint = classifier(name, tmp_path / "checkpoint")
    folder = trivec.export(checkpoint, tmp_path / "model", precision=["fp32"], max_texts=64, quiet=True)
    oracle, tokenizer = CrossEncoder(str(checkpoint), device="cpu"), AutoTokenizer.from_pretrained(checkpoint)
    with trivec.load(folder, device="cpu") as reranker:
        assert type(reranker) is trivec.Reranker
        pairs = [pair for pair in PAIRS if any(pair)]
        length = reranker.max_seq_length
        listed = [list(pair) for pair in pairs]
        expected = tokenizer(listed, truncation="longest_first", max_length=length)["input_ids"]
        assert reranker.tokenize(pairs) == expected
        assert reranker.num_labels == row.labels
        assert len(reranker.labels) == (row.labels if row.labels > 1 else 0)
        identity = torch.nn.Identity()
        logits = oracle.predict(listed, batch_size=8, activation_fn=identity)
        close(reranker.predict(pairs, activation_fn="identity"), logits)
        assert np.std(logits) > 0.1  # else nothing was asked
        close(reranker.predict(pairs), oracle.predict(listed))
        alone = np.stack([reranker.predict(pair, activation_fn=identity) for pair in pairs[:8]])
        np.testing.assert_allclose(alone, reranker.predict(pairs[:8], activation_fn=identity), atol=1e-5)
        assert reranker.truncated
        close(
            reranker.predict(pairs, prompt="ask: ", activation_fn="identity"),
            oracle.predict(listed, prompt="ask: ", activation_fn=identity),
        )
    graph = onnx.load(folder / "onnx/model.onnx", load_external_data=False).graph
    assert [value.name for value in graph.input] == ["input_ids", *(["token_type_ids"] if row.types else [])]
    assert [value.name for value in graph.output] == ["scores"]
    axes = {tuple(dim.dim_param for dim in value.type.tensor_type.shape.dim) for value in graph.input}
    assert axes == {("batch", "sequence")}
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("Softmax") == 0
    assert kinds.count("MultiHeadAttention") >= 2


def every_pair_has_the_ids_of(tokenizer: Any, folder: Path, length: int) -> None:
    """All verification pairs, whole and cut, with and without a prompt, and those with odd halves."""
    pairs = [*(pair.text for pair in pairs_of(verification_texts())), *PAIRS[-6:]]
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    types = any(tokenizer([["a", "b"]]).get("token_type_ids", [[0]])[0])
    for most in (length, 24):
        spec = EncoderSpec(describe(folder, "tokenizer.json"), most, None, {})
        ours: Any = PairTokenizer(folder / "tokenizer.json", spec, types=types)
        for prompt in ("", "find: "):
            listed = [[prompt + first, second] for first, second in pairs]
            theirs = tokenizer(listed, truncation="longest_first", max_length=most, return_token_type_ids=True)
            found = ours(pairs, prompt)
            assert [found.of(row).tolist() for row in range(len(pairs))] == theirs["input_ids"]
            if types:
                assert found.second is not None
                starts = [row.index(1) if 1 in row else len(row) for row in theirs["token_type_ids"]]
                assert found.second.tolist() == starts


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_ids_of_every_verification_pair(name: str, tmp_path: Path) -> None:
    every_pair_has_the_ids_of(_tokenizer_of(CLASSIFIERS[name]), tmp_path, 128)


@pytest.mark.parametrize("place", ["reranker-minilm", "xlm-roberta-tokenizer"])
def test_ids_of_every_verification_pair_by_real_vocabularies(place: str, shared: Path, tmp_path: Path) -> None:
    """WordPiece of ms-marco's and MiniLM's kind, and XLM-R's of bge-reranker's."""
    folder = shared / "models" / place
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    if place == "reranker-minilm":
        tokenizer = AutoTokenizer.from_pretrained(folder)
    every_pair_has_the_ids_of(tokenizer, tmp_path, 256)


def test_ranks_equal_the_reference(tmp_path: Path) -> None:
    checkpoint = classifier("bert", tmp_path / "checkpoint")
    folder = trivec.export(checkpoint, tmp_path / "model", precision=["fp32"], max_texts=64, quiet=True)
    documents = [text for _, text in PAIRS[:40]]
    expected = CrossEncoder(str(checkpoint), device="cpu").rank("a question", documents, top_k=7, return_documents=True)
    with trivec.load(folder, device="cpu", kind="reranker") as reranker:
        found = reranker.rank("a question", documents, top_k=7, return_documents=True)
    assert [row["corpus_id"] for row in found] == [row["corpus_id"] for row in expected]
    assert [row["text"] for row in found] == [row["text"] for row in expected]
    close([row["score"] for row in found], [row["score"] for row in expected])


def test_a_folder_of_sentence_transformers_6(tmp_path: Path) -> None:
    bare = classifier("bert", tmp_path / "bare")
    model = CrossEncoder(
        str(bare),
        device="cpu",
        prompts={"query": "ask: ", "plain": ""},
        default_prompt_name="query",
        activation_fn=torch.nn.Tanh(),
        max_length=48,
    )
    model.save_pretrained(str(tmp_path / "saved"))
    assert (tmp_path / "saved/modules.json").is_file()
    folder = trivec.export(tmp_path / "saved", tmp_path / "model", precision=["fp32"], max_texts=64, quiet=True)
    oracle = CrossEncoder(str(tmp_path / "saved"), device="cpu")
    listed = [list(pair) for pair in PAIRS]
    with trivec.load(folder, device="cpu") as reranker:
        assert reranker.max_seq_length == 48
        assert reranker.activation == "tanh"
        assert reranker.default_prompt_name == "query"
        close(reranker.predict(PAIRS), oracle.predict(listed))
        close(reranker.predict(PAIRS, prompt_name="plain"), oracle.predict(listed, prompt_name="plain"))


OLD, LEGACY = "sentence_transformers", "sbert_ce_default_activation_function"


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        ("bert", {}, "sigmoid"),
        ("bert_3_labels", {}, "identity"),
        ("bert", {OLD: {"activation_fn": "torch.nn.modules.linear.Identity"}}, "identity"),
        ("bert", {LEGACY: "torch.nn.modules.linear.Identity"}, "identity"),
        ("bert", {OLD: {"activation_fn": "torch.nn.modules.activation.Tanh"}, LEGACY: "torch.nn.Identity"}, "tanh"),
        ("bert", {OLD: {"activation_fn": "somewhere.Else"}, LEGACY: "torch.nn.Identity"}, "sigmoid"),
        ("bert_3_labels", {LEGACY: "torch.nn.modules.activation.Sigmoid"}, "sigmoid"),
        ("bert", {OLD: {"version": "5"}, LEGACY: "torch.nn.Identity"}, "identity"),
    ],
)
def test_activations_in_the_order_of_sentence_transformers(
    name: str, config: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    checkpoint = classifier(name, tmp_path / "checkpoint", **config)
    folder = trivec.export(checkpoint, tmp_path / "model", precision=["fp32"], max_texts=64, quiet=True)
    oracle = CrossEncoder(str(checkpoint), device="cpu")
    assert type(oracle.activation_fn).__name__.lower() == expected
    listed = [list(pair) for pair in PAIRS[:12]]
    with trivec.load(folder, device="cpu") as reranker:
        assert reranker.activation == expected
        close(reranker.predict(PAIRS[:12]), oracle.predict(listed))
        softened = oracle.predict(listed, apply_softmax=True)
        close(reranker.predict(PAIRS[:12], apply_softmax=True), softened)


@pytest.mark.parametrize(("name", "kind"), [("bert", "BertTokenizerFast"), ("xlm_roberta", "XLMRobertaTokenizerFast")])
def test_compute_score_is_that_of_flag_embedding(
    name: str, kind: str, tmp_path: Path, flag_embedding: FlagEmbedding
) -> None:
    checkpoint = classifier(name, tmp_path / "checkpoint")
    folder = trivec.export(checkpoint, tmp_path / "model", precision=["fp32"], max_texts=64, quiet=True)
    change(checkpoint / "tokenizer_config.json", tokenizer_class=kind)  # for its rule of pairs
    with trivec.load(folder, device="cpu") as reranker:
        longest = reranker.max_seq_length
        for options in ({}, {"normalize": True}, {"query_max_length": 9}, {"query_max_length": 20, "max_length": 40}):
            asked: Any = {"max_length": longest, **options}
            expected = flag_embedding.ask("rerank", checkpoint=str(checkpoint), pairs=PAIRS, **asked)
            found = reranker.compute_score(PAIRS, **asked)
            assert {type(score) for score in found} == {float}
            close(found, expected)
        cut = reranker.compute_score([(LONG, LONG)], max_length=40)
        assert abs(cut[0] - reranker.predict((LONG, LONG), activation_fn="identity")) > 1e-3
        assert reranker.compute_score(PAIRS[0]) == reranker.compute_score([PAIRS[0]])
        with pytest.raises(trivec.InputError, match=r"query_max_length 38 and \d special tokens leave nothing of"):
            reranker.compute_score(PAIRS, max_length=40, query_max_length=38)
        with pytest.raises(trivec.InputError, match=f"at most {longest}"):
            reranker.compute_score(PAIRS, max_length=4096)


def test_what_is_not_understood_is_refused(tmp_path: Path) -> None:
    unknown = classifier("bert", tmp_path / "a", **{OLD: {"activation_fn": "torch.nn.modules.activation.Hardtanh"}})
    with pytest.raises(trivec.ModelFormatError, match=r"makes its scores by torch.*Hardtanh; trivec knows identity, "):
        trivec.export(unknown, tmp_path / "out", precision=["fp32"], quiet=True)
    labels = classifier("bert", tmp_path / "b", id2label={"1": "yes"})
    with pytest.raises(trivec.ModelFormatError, match=r"id2label = .*expected names by 0, 1, 2"):
        trivec.export(labels, tmp_path / "out", precision=["fp32"], quiet=True)
    headless = classifier("bert", tmp_path / "c")
    from safetensors.torch import load_file, save_file

    weights = load_file(headless / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, headless / "model.safetensors", {"format": "pt"})
    with pytest.raises(trivec.ModelFormatError, match=r"such as classifier\.weight: without its classifier it scores"):
        trivec.export(headless, tmp_path / "out", precision=["fp32"], quiet=True)
    saved = tmp_path / "d"
    CrossEncoder(str(classifier("bert", tmp_path / "e")), device="cpu").save_pretrained(str(saved))
    with pytest.raises(trivec.ModelFormatError, match=r"is a CrossEncoder checkpoint, not 'dense'"):
        trivec.export(saved, tmp_path / "out", family="dense", precision=["fp32"], quiet=True)
    change(saved / "config_sentence_transformers.json", strange=1)
    with pytest.raises(trivec.ModelFormatError, match=r"has strange = 1, which trivec does not follow"):
        trivec.export(saved, tmp_path / "out", precision=["fp32"], quiet=True)


def test_the_folder_says_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = classifier("bert_3_labels", tmp_path / "checkpoint")
    folder = trivec.export(checkpoint, tmp_path / "model", precision=["fp32"], max_texts=64)
    said = capsys.readouterr()
    assert "family: rerank, for BertForSequenceClassification scores pairs" in said.out + said.err
    assert "Spearman" in said.out + said.err
    manifest = json.loads((folder / "trivec.json").read_text())
    assert manifest["dim"] == 3
    assert manifest["routes"]["default"]["score"]["labels"] == ["LABEL_0", "LABEL_1", "LABEL_2"]
    gate = manifest["encoders"]["main"]["variants"]["fp32"]["gate"]
    assert gate["head"] == "score"
    assert gate["max_diff"] <= 1e-4 * max(1, gate["sigma"])
    report = (folder / "REPORT.md").read_text()
    assert "compared with the reference on pairs" in report
    assert "| variant | MB | rms | max | Spearman | reordered |" in report
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: text-ranking" in card
    assert "model.rank(" in card
