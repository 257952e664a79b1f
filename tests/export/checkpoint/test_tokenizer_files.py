"""A tokenizer's files are followed, also where transformers 5 leaves out what they say; contradictions are refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tests.support.architectures import make
from tests.support.oracle import least_cosine, reference
from tests.support.save_model import save_model

import trivec

TEXTS = ["a", "the rain in spain", "Hello, World! 12345", "one two three four five six seven eight nine ten " * 12]


def change(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({key: value for key, value in (content | values).items() if value is not ...}))


def saved(name: str, folder: Path, mode: str) -> Path:
    modules = [Transformer(str(make(name, folder / "base"))), Pooling(64, mode)]
    return save_model(SentenceTransformer(modules=modules, device="cpu"), folder / "checkpoint")


def without_end(checkpoint: Path) -> None:
    """tokenizer.json that adds no token behind a text."""
    content = json.loads((checkpoint / "tokenizer.json").read_text())
    content["post_processor"] = None
    (checkpoint / "tokenizer.json").write_text(json.dumps(content))


def export(checkpoint: Path, **options: Any) -> Path:
    return trivec.export(checkpoint, checkpoint.parent / "out", precision=["fp32"], max_texts=64, quiet=True, **options)


@pytest.mark.parametrize("where", ["tokenizer_config.json", "sentence_bert_config.json"])
def test_the_last_token_that_a_setting_asks_for(where: str, tmp_path: Path) -> None:
    """As e5-mistral: last-token pooling reads </s>, which transformers 5 no longer adds."""
    checkpoint = saved("qwen3", tmp_path, "lasttoken")
    without_end(checkpoint)
    asked = {"add_eos_token": True}
    change(checkpoint / where, **(asked if where.startswith("tok") else {"tokenizer_args": asked}))
    alone = where.startswith("tok")  # then sentence-transformers goes without
    assert (reference(checkpoint).tokenizer("a")["input_ids"][-1] != 0) == alone
    with trivec.load(export(checkpoint), device="cpu") as encoder:
        ids = encoder.tokenize(TEXTS)
        assert all(row[-1] == 0 for row in ids)
        assert max(map(len, ids)) == 128
        model = hf.AutoModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
        with torch.no_grad():
            wanted = [model(input_ids=torch.tensor([row]))[0][0, -1].numpy() for row in ids]  # each (H,)
        assert least_cosine(encoder.encode(TEXTS), np.stack(wanted)) >= 0.99999
    report = (tmp_path / "out/REPORT.md").read_text()
    assert ("put right in the reference: <|endoftext|> (add_eos_token), which tokenizer_config.json" in report) == alone
    assert ("as it is have cosines of" in report) == alone


def test_a_setting_that_says_no_where_the_template_adds_it(tmp_path: Path) -> None:
    checkpoint = saved("bert", tmp_path, "mean")
    change(checkpoint / "tokenizer_config.json", add_eos_token=False, eos_token="[SEP]")
    with pytest.raises(trivec.ModelFormatError, match=r"add_eos_token = false, and tokenizer.json adds '\[SEP\]'"):
        export(checkpoint)


def test_a_tokenizer_json_that_the_class_overrules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = saved("bert", tmp_path, "mean")
    content = json.loads((checkpoint / "tokenizer.json").read_text())
    real = hf.AutoTokenizer.from_pretrained

    def rebuilt(place: str, **options: Any) -> Any:
        made = real(place, **options)
        made.backend_tokenizer.normalizer = None  # a class that makes its own
        return made

    monkeypatch.setattr(hf.AutoTokenizer, "from_pretrained", rebuilt)
    assert content["normalizer"] is not None
    with pytest.raises(
        trivec.ModelFormatError, match=r"tokenizer.json and the class \w+, .* other tokens: .*PreTrainedTokenizerFast"
    ):
        export(checkpoint)


def test_a_tokenizer_that_needs_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = saved("bert", tmp_path, "mean")

    def missing(*_: Any, **__: Any) -> None:
        raise ImportError("You need to install fugashi to use MecabTokenizer.")

    monkeypatch.setattr(hf.AutoTokenizer, "from_pretrained", missing)
    with pytest.raises(trivec.MissingExtraError, match=r"needs a package .* Type: pip install fugashi"):
        export(checkpoint)


def test_a_tokenizer_of_sentencepiece_alone(tmp_path: Path) -> None:
    """spiece.model and no tokenizer.json, as deberta-v3 and mT5 come: sentencepiece and protobuf are in the extra."""
    import sentencepiece

    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(["the rain in spain falls", "hello world one two three", "a red apple tree"] * 40))
    ids: Any = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(tmp_path / "spiece"), vocab_size=28, minloglevel=2, **ids
    )
    checkpoint = saved("t5", tmp_path, "mean")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (checkpoint / name).unlink(missing_ok=True)
    shutil.copy(tmp_path / "spiece.model", checkpoint / "spiece.model")
    change(checkpoint / "tokenizer_config.json", tokenizer_class="T5Tokenizer", extra_ids=0)
    with trivec.load(export(checkpoint), device="cpu") as encoder:
        assert least_cosine(encoder.encode(TEXTS), reference(checkpoint).encode(TEXTS, batch_size=1)) >= 0.99999


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_more_tokens_than_positions(name: str, tmp_path: Path) -> None:
    """sentence-transformers itself fails on texts beyond the table of positions: they are cut there."""
    checkpoint = saved(name, tmp_path, "mean")
    change(checkpoint / "sentence_bert_config.json", max_seq_length=512)
    with trivec.load(export(checkpoint), device="cpu") as encoder:
        assert encoder.max_seq_length == 128
        oracle = reference(checkpoint)
        oracle.max_seq_length = 128
        assert least_cosine(encoder.encode(TEXTS), oracle.encode(TEXTS, batch_size=1)) >= 0.99999
    assert "texts are cut at the model's 128 positions" in (tmp_path / "out/REPORT.md").read_text()


def test_more_tokens_than_the_model_has_rows(tmp_path: Path) -> None:
    """Nothing tells which vector such a token should have: texts with one fail, and the report says which they are."""
    checkpoint = saved("bert", tmp_path, "mean")
    tokenizer = hf.AutoTokenizer.from_pretrained(checkpoint)
    rows = len(tokenizer)
    change(checkpoint / "config.json", vocab_size=rows)
    model = hf.BertModel(hf.BertConfig.from_pretrained(checkpoint))
    model.save_pretrained(checkpoint)
    tokenizer.add_tokens(["<passage>", "<query>"])
    tokenizer.save_pretrained(checkpoint)
    with trivec.load(export(checkpoint), device="cpu") as encoder:
        assert least_cosine(encoder.encode(TEXTS), reference(checkpoint).encode(TEXTS, batch_size=1)) >= 0.99999
        with pytest.raises(trivec.TrivecError, match="fewer"):
            encoder.encode("<query> what is new")
    report = (tmp_path / "out/REPORT.md").read_text()
    assert f"2 tokens for which the model's table of {rows} has no row, the first '<passage>' ({rows})" in report
