"""Causal language models that score pairs by two tokens (LogitScore), against sentence-transformers' CrossEncoder."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers as hf
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.cross_encoder.modules import LogitScore
from tests.support.architectures import ARCHITECTURES, VOCAB, _tokenizer, draw
from tests.support.rerankers import PAIRS, change, close

import trivec
from trivec._gate.score_figures import SCORE_BOUNDS
from trivec._inspect.explain_pair import explain_pair
from trivec._model import manifest_file

LISTED = [list(pair) for pair in PAIRS]
IDENTITY = torch.nn.Identity()
FLAT = (
    "{% for m in messages %}<|im_end|>{{ m['role'] }} {{ m['content'] }}{% endfor %}"
    "<|im_end|>answer: yes or no?<|im_end|>"
)
PARTS = (
    "{% set s = messages | selectattr('role', 'eq', 'system') | first | default(none) %}"
    "Instruct: {{ s.content[0].text | trim if s else 'find what answers' }}\n"
    "Query: {{ (messages | selectattr('role', 'eq', 'query') | first).content[0].text | trim }}\n"
    "Document: {{ (messages | selectattr('role', 'eq', 'document') | first).content[0].text | trim }}<|im_end|>\n"
)
"""As Qwen3-Reranker's: parts, a default instruction, and blanks at the ends cut off."""


def decoder(folder: Path, template: str | None, kind: str = "Qwen3", **config: Any) -> Path:
    """A tiny random language model whose tokenizer has the tokens "yes" and "no"."""
    architecture = ARCHITECTURES["qwen3"]
    settings = getattr(hf, f"{kind}Config")(
        **{**architecture.config().to_dict(), "vocab_size": VOCAB + 8, "tie_word_embeddings": False, **config}
    )
    model = getattr(hf, f"{kind}ForCausalLM")(settings).eval()
    draw(model, architecture.embedding)
    model.save_pretrained(folder)
    tokenizer = _tokenizer(architecture.special, 128)
    tokenizer.add_tokens(["yes", "no"])
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def saved(folder: Path, base: Path, yes: int, no: int | None, **options: Any) -> Path:
    modules = [Transformer(str(base), transformer_task="text-generation"), LogitScore(yes, no)]
    model = CrossEncoder(modules=modules, device="cpu", **options)
    model.save_pretrained(str(folder))
    return folder


def export(checkpoint: Path, out: Path, **options: Any) -> trivec.Reranker:
    trivec.export(checkpoint, out, precision=["fp32"], max_texts=64, quiet=True, **options)
    return trivec.load(out, device="cpu", kind="reranker")


def compare(reranker: trivec.Reranker, oracle: CrossEncoder, **options: Any) -> None:
    prompt = options.get("prompt")
    theirs = [oracle.preprocess([pair], prompt=prompt)["input_ids"][0].tolist() for pair in LISTED]
    assert reranker.tokenize(PAIRS, prompt=prompt or "") == theirs
    assert max(map(len, theirs)) == reranker.max_seq_length == 128
    logits = oracle.predict(LISTED, batch_size=1, activation_fn=IDENTITY, **options)
    assert np.std(logits) > 0.1
    close(reranker.predict(PAIRS, activation_fn="identity", **options), logits)
    close(reranker.predict(PAIRS, **options), oracle.predict(LISTED, batch_size=1, **options))


@pytest.mark.parametrize(
    ("template", "no", "kind"),
    [
        (None, 7, "Qwen3"),
        (None, None, "Qwen2"),
        (None, 7, "Llama"),
        (FLAT, 7, "Qwen3"),
        (PARTS, 7, "Qwen3"),
        (PARTS, None, "Qwen2"),
    ],
)
def test_scores_and_ids_equal_the_reference(template: str | None, no: int | None, kind: str, tmp_path: Path) -> None:
    config = {} if kind == "Qwen3" else {"head_dim": 16, "layer_types": None}
    checkpoint = saved(tmp_path / "saved", decoder(tmp_path / "base", template, kind, **config), 9, no)
    oracle = CrossEncoder(str(checkpoint), device="cpu")
    with export(checkpoint, tmp_path / "model") as reranker:
        assert (reranker.num_labels, reranker.labels, reranker.activation) == (1, (), "sigmoid")
        compare(reranker, oracle)
        compare(reranker, oracle, prompt="find what contradicts")
        assert reranker.truncated
        ranks = reranker.rank("a question", [text for _, text in PAIRS[:20]])
        expected = oracle.rank("a question", [text for _, text in PAIRS[:20]])
        assert [place["corpus_id"] for place in ranks] == [place["corpus_id"] for place in expected]
        whole = oracle[0].processor
        if template is None:
            total = len(whole("one two " * 30, "three " * 90)["input_ids"]) - 128
            assert sum(explain_pair(reranker, "one two " * 30, "three " * 90).cut) == total > 0
        else:
            for query, document in (("one two " * 30, "three " * 90), ("one two " * 90, "three")):
                messages = oracle[0].input_formatter.pair_to_messages((query, document))
                total = len(whole.apply_chat_template(messages, tokenize=True)["input_ids"]) - 128
                most = len(whole(document, add_special_tokens=False)["input_ids"])
                cut = explain_pair(reranker, query, document).cut
                assert sum(cut) == total > 0
                assert abs(cut[1] - min(total, most)) <= 2  # at its borders, a text's tokens merge with the template's
            with pytest.raises(trivec.InputError, match=r"puts pairs into a chat template, .* Type: predict"):
                reranker.compute_score(PAIRS)
    written = manifest_file.read(tmp_path / "model")
    found = written.encoders["main"].template
    assert (found is None) == (template is None)
    assert written.format == (1 if template is None else 2)
    if found is not None:
        assert (len(found.text), len(found.prompted or ()), found.strip) == (3, 4, template == PARTS)
    graph = onnx.load(tmp_path / "model/onnx/model.onnx", load_external_data=False).graph
    assert [value.name for value in graph.output] == ["scores"]
    tables = [list(tensor.dims) for tensor in graph.initializer if VOCAB + 8 in tensor.dims]
    assert tables == [[VOCAB + 8, 64]]  # of the tokens that go in; none of those that would come out
    assert sum(node.op_type == "MultiHeadAttention" for node in graph.node) == 2


def test_its_smaller_variants(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "saved", decoder(tmp_path / "base", PARTS), 9, 7)
    expected = CrossEncoder(str(checkpoint), device="cpu").predict(LISTED, batch_size=1, activation_fn=IDENTITY)
    trivec.export(checkpoint, tmp_path / "model", precision=["fp32", "fp16", "int8"], max_texts=64, quiet=True)
    variants = manifest_file.read(tmp_path / "model").encoders["main"].variants
    gates: dict[str, Any] = {name: variant.gate for name, variant in variants.items()}
    status = {name: gate["status"] for name, gate in gates.items()}
    assert status == {"fp32": "measured", "fp16": "emulated", "int8": "measured"}
    with trivec.load(tmp_path / "model", device="cpu", precision="int8") as reranker:
        off = (reranker.predict(PAIRS, activation_fn="identity") - expected) / expected.std()
    assert 1e-5 < np.sqrt(np.square(off).mean()) <= (SCORE_BOUNDS["int8"].rms or 0)
    assert np.abs(off).max() <= SCORE_BOUNDS["int8"].largest


def test_a_bare_language_model_is_asked_for_yes_and_no(tmp_path: Path) -> None:
    base = decoder(tmp_path / "base", FLAT, tie_word_embeddings=True)
    oracle = CrossEncoder(str(base), device="cpu")
    tokenizer = hf.AutoTokenizer.from_pretrained(base)
    assert oracle[1].true_token_id == tokenizer.convert_tokens_to_ids("yes") != tokenizer.unk_token_id
    with export(base, tmp_path / "model", family="rerank") as reranker:
        compare(reranker, oracle)


def test_prompts_and_activation_of_a_saved_one(tmp_path: Path) -> None:
    checkpoint = saved(
        tmp_path / "saved",
        decoder(tmp_path / "base", PARTS),
        9,
        7,
        prompts={"web": "find a page", "plain": ""},
        default_prompt_name="web",
        activation_fn=torch.nn.Tanh(),
    )
    oracle = CrossEncoder(str(checkpoint), device="cpu")
    with export(checkpoint, tmp_path / "model") as reranker:
        assert (reranker.activation, reranker.default_prompt_name) == ("tanh", "web")
        close(reranker.predict(PAIRS), oracle.predict(LISTED, batch_size=1))
        close(reranker.predict(PAIRS, "plain"), oracle.predict(LISTED, "plain", batch_size=1))


def ignores_the_document(folder: Path) -> Path:
    return decoder(folder, "{{ (messages | selectattr('role', 'eq', 'query') | first).content }}")


def with_the_document_first(folder: Path) -> Path:
    return decoder(folder, "{% for m in messages | reverse %}{{ m['content'] }} {% endfor %}")


def shouts(folder: Path) -> Path:
    return decoder(folder, "{% for m in messages %}{{ m['content'] | replace('line', 'LINE') }} {% endfor %}")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (ignores_the_document, r"does not hold both texts of a pair once, the query first"),
        (with_the_document_first, r"does not hold both texts of a pair once, the query first"),
        (shouts, r"its chat template changes the text 'line"),
    ],
)
def test_templates_that_cannot_be_written_down(make: Callable[[Path], Path], said: str, tmp_path: Path) -> None:
    with pytest.raises(trivec.ModelFormatError, match=said):
        export(make(tmp_path / "base"), tmp_path / "model", family="rerank")


def test_what_is_not_understood_is_refused(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "saved", decoder(tmp_path / "base", None), 9, 7)
    for settings, said in (
        ({"true_token_id": None}, r"true_token_id = None and false_token_id = 7; expected numbers of tokens"),
        ({"true_token_id": True}, r"true_token_id = True"),
        ({"false_token_id": -1}, r"false_token_id = -1"),
        ({"true_token_id": 5000}, r"language-model head is Linear of 308 tokens, and a score is made of .* 5000 and 7"),
        ({"module_input_name": "scores"}, r"module_input_name = 'scores'"),
        ({"strange": 1}, r"strange = 1"),
    ):
        folder = tmp_path / "changed"
        shutil.copytree(checkpoint, folder)
        change(folder / "1_LogitScore/config.json", **settings)
        with pytest.raises(trivec.ModelFormatError, match=said):
            export(folder, tmp_path / "model")
        shutil.rmtree(folder)
    change(checkpoint / "sentence_bert_config.json", transformer_task="feature-extraction", modality_config=None)
    with pytest.raises(trivec.ModelFormatError, match=r"the Transformer of a CrossEncoder gives feature-extraction"):
        export(checkpoint, tmp_path / "model")
    base = decoder(tmp_path / "wordless", None)
    tokenizer = _tokenizer(ARCHITECTURES["qwen3"].special, 128)
    tokenizer.save_pretrained(base)
    with pytest.raises(trivec.ModelFormatError, match=r"its tokenizer has no token 'yes'"):
        export(base, tmp_path / "model", family="rerank")


def test_a_head_that_bends_its_logits_is_not_read_wrongly(tmp_path: Path) -> None:
    """Gemma 2 puts logits through a tanh: a row of the head alone is another score, and the comparison says so."""
    settings = hf.Gemma2Config(
        vocab_size=VOCAB + 8, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, intermediate_size=96, max_position_embeddings=128, final_logit_softcapping=1.0,
        attn_logit_softcapping=None, sliding_window=128, tie_word_embeddings=True, pad_token_id=0, eos_token_id=0,
    )  # fmt: skip
    base = tmp_path / "base"
    model = hf.Gemma2ForCausalLM(settings).eval()
    draw(model, 0.02)
    model.save_pretrained(base)
    tokenizer = _tokenizer(ARCHITECTURES["qwen3"].special, 128)
    tokenizer.save_pretrained(base)
    with pytest.raises(trivec.GateError, match=r"trivec's reading of this checkpoint is not that of"):
        export(saved(tmp_path / "saved", base, 9, 7), tmp_path / "model")
