"""Texts that go through a chat template, as sentence-transformers 6 puts them there; without Jinja at run time."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tests.support.architectures import make
from tests.support.oracle import least_cosine, reference
from tests.support.save_model import save_model
from transformers import AutoTokenizer

import trivec
from trivec._model import manifest_file

TEXTS = ["a", "  the rain  ", "Hello, World!\n12345", "{{ not jinja }}", "one two three four five six seven " * 30, ""]
PLAIN = "{% for m in messages %}<|im_end|>{{ m['role'] }} {{ m['content'] }}{% endfor %} so<|im_end|>"
TRIMMED = (
    "{% for m in messages %}{% if m['role'] == 'system' %}[{{ m['content'] | trim }}] "
    "{% else %}said: {{ m['content'] | trim }}{% endif %}{% endfor %}<|im_end|>"
)
PARTS = (
    "{% for m in messages %}{{ m['role'] }}:{% for part in m['content'] %}{% if part['type'] == 'text' %}"
    "{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>{% endfor %}"
)


def decoder(folder: Path, template: str) -> Path:
    base = make("qwen3", folder / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(base)
    return base


def saved(folder: Path, template: str, **options: Any) -> Path:
    modules = [Transformer(str(decoder(folder, template))), Pooling(64, "lasttoken")]
    model = SentenceTransformer(modules=modules, device="cpu", prompts={"query": "find what answers this"}, **options)
    return save_model(model, folder / "checkpoint")


def export(checkpoint: Path) -> Any:
    trivec.export(checkpoint, checkpoint.parent / "out", precision=["fp32"], max_texts=64, quiet=True)
    return trivec.load(checkpoint.parent / "out", device="cpu")


@pytest.mark.parametrize("template", [PLAIN, TRIMMED, PARTS])
def test_texts_and_prompts_equal_the_reference(template: str, tmp_path: Path) -> None:
    checkpoint = saved(tmp_path, template)
    assert "message" in json.loads((checkpoint / "sentence_bert_config.json").read_text())["modality_config"]
    oracle = reference(checkpoint)
    with export(checkpoint) as encoder:
        for prompt in ("", "find what answers this"):
            theirs = [oracle.preprocess([text], prompt=prompt or None)["input_ids"][0].tolist() for text in TEXTS]
            assert encoder.tokenize(TEXTS, prompt=prompt) == theirs
            vectors = encoder.encode(TEXTS, prompt=prompt)
            assert least_cosine(vectors, oracle.encode(TEXTS, prompt=prompt, batch_size=1)) >= 0.99999
        assert len(encoder.tokenize([TEXTS[4]])[0]) == 128  # cut, and ended all the same
        np.testing.assert_allclose(encoder.encode_query(TEXTS[0]), encoder.encode([TEXTS[0]], "query")[0], atol=1e-6)
        assert encoder.fingerprint_of("query") != encoder.fingerprint
    manifest = manifest_file.read(tmp_path / "out")
    assert manifest.format == 2
    template_of = manifest.encoders["main"].template
    assert template_of is not None
    assert template_of.strip == (template == TRIMMED)


def test_a_bare_decoder_with_a_template(tmp_path: Path) -> None:
    base = decoder(tmp_path, PLAIN)
    with export(base) as encoder:
        assert least_cosine(encoder.encode(TEXTS), reference(base).encode(TEXTS, batch_size=1)) >= 0.99999
        assert encoder.manifest.encoders["main"].template is not None


def test_a_module_that_was_saved_without_it_reads_plain_texts(tmp_path: Path) -> None:
    """As Qwen3-Embedding is published: a template in the tokenizer, and a Transformer that knows nothing of it."""
    checkpoint = saved(tmp_path, PLAIN)
    (checkpoint / "sentence_bert_config.json").write_text('{"max_seq_length": 64, "do_lower_case": false}')
    texts = [text for text in TEXTS if text]
    with export(checkpoint) as encoder:
        assert encoder.manifest.encoders["main"].template is None
        assert encoder.manifest.format == 1
        assert least_cosine(encoder.encode(texts), reference(checkpoint).encode(texts, batch_size=1)) >= 0.99999


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ messages[0]['content'] | upper }}", "does not hold the text once|changes the text"),
        ("{{ messages[0]['content'] }}{{ messages[0]['content'] }}", "does not hold the text once"),
        ("{{ raise_exception('no users') }}", "cannot be rendered with a text"),
    ],
)
def test_a_template_that_cannot_be_written_down(template: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(trivec.ModelFormatError, match=said):
        export(saved(tmp_path, template))


def test_no_jinja_at_run_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = saved(tmp_path, TRIMMED)
    with export(checkpoint) as encoder:
        before = encoder.encode(TEXTS)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with trivec.load(tmp_path / "out", device="cpu") as encoder:
        np.testing.assert_array_equal(encoder.encode(TEXTS), before)
