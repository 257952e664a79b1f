"""TEI's dialect, and rerank and score in every shape."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.serving import Client, numbers
from tests.support.tiny_heads import random_logits, random_weights, splade
from tests.support.tiny_model import TinyModel

import trivec
import trivec.server
from trivec.util import cos_sim

TEXTS = ["the cat sat on the mat", "a dog"]


def tei_error(client: Client, path: str, body: object) -> tuple[int, str]:
    answer = client.post(path, body)
    assert set(answer.json()) == {"error", "error_type"}
    return answer.status_code, answer.json()["error_type"]


def test_embed(client: Client, folders: dict[str, Path]) -> None:
    with trivec.load(folders["tiny"], device="cpu") as encoder:
        unit = encoder.encode(TEXTS, normalize_embeddings=True)
        assert np.array_equal(numbers(client.json("/embed", {"inputs": TEXTS})), unit)
        assert np.array_equal(numbers(client.json("/", {"inputs": TEXTS})), unit)
        assert np.array_equal(numbers(client.json("/invocations", {"inputs": TEXTS[0]})), unit[:1])
        raw = numbers(client.json("/embed", {"inputs": TEXTS, "normalize": False, "truncate": True}))
        assert np.array_equal(raw, encoder.encode(TEXTS))
        query = numbers(client.json("/embed", {"inputs": TEXTS, "prompt_name": "query", "dimensions": 4}))
        assert np.array_equal(query, encoder.encode_query(TEXTS, truncate_dim=4, normalize_embeddings=True))
        left = {"inputs": "the cat " * 20, "truncation_direction": "Left", "normalize": False}
        found = numbers(client.json("/embed", left))
        assert np.array_equal(found[0], encoder.reading(side="left").encode("the cat " * 20))


def test_embed_all_and_sparse(client: Client, folders: dict[str, Path], tiny_model: TinyModel) -> None:
    with trivec.load(folders["tiny"], device="cpu") as encoder:
        states = encoder.encode(TEXTS, output_value="token_embeddings", convert_to_numpy=True)
        found = client.json("/embed_all", {"inputs": TEXTS})
        for row, expected in enumerate(states):
            assert np.array_equal(numbers(found[row]), np.asarray(expected))
            assert len(found[row]) == len(tiny_model.ids(TEXTS[row]))
    with trivec.load(folders["m3"], device="cpu") as encoder:
        rows = encoder.encode(TEXTS).sparse
        found = client.json("/embed_sparse", {"inputs": TEXTS, "model": "m3"})
        for row, expected in enumerate(rows):
            assert [item["index"] for item in found[row]] == expected.indices.tolist()
            assert np.array_equal(numbers([item["value"] for item in found[row]]), expected.values)


def test_similarity(client: Client, folders: dict[str, Path]) -> None:
    body = {"inputs": {"source_sentence": "a cat", "sentences": TEXTS}, "parameters": {"prompt_name": "query"}}
    with trivec.load(folders["tiny"], device="cpu") as encoder:
        vectors = encoder.encode(["a cat", *TEXTS], prompt_name="query")
    for path in ("/similarity", "/"):
        assert client.json(path, body) == pytest.approx(cos_sim(vectors[:1], vectors[1:])[0].tolist(), abs=1e-6)


def test_tokenize_and_decode(client: Client, tiny_model: TinyModel) -> None:
    found = client.json("/tokenize", {"inputs": ["the cat " * 20], "prompt_name": "query"})[0]
    assert [token["id"] for token in found[:5]] == [2, *tiny_model.ids("find the the cat")[1:-1]]
    assert len(found) == 44  # cut nowhere
    assert found[0] == {"id": 2, "text": "[CLS]", "special": True, "start": None, "stop": None}
    assert found[1]["text"] == "find"
    assert (found[1]["start"], found[1]["stop"]) == (0, 4)
    bare = client.json("/tokenize", {"inputs": "cat", "add_special_tokens": False})
    assert [token["id"] for token in bare[0]] == tiny_model.ids("cat")[1:-1]
    ids = tiny_model.ids("a cat")
    assert client.json("/decode", {"ids": ids}) == ["a cat"]
    assert client.json("/decode", {"ids": [ids], "skip_special_tokens": False}) == ["[CLS] a cat [SEP]"]
    assert tei_error(client, "/decode", {"ids": [[99]]}) == (422, "Validation")
    assert tei_error(client, "/decode", {"ids": [1, [2]]}) == (422, "Validation")
    assert tei_error(client, "/decode", {"ids": []}) == (400, "Empty")


def _swap(folder: Path, name: str, *words: tuple[str, str]) -> None:
    """Other words in a file of a model folder, and its hash in the manifest."""
    path, manifest = folder / name, folder / "trivec.json"
    before = path.read_bytes()
    text = before.decode()
    for old, new in words:
        assert text.count(old) == 1
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    hashes = [hashlib.sha256(data).hexdigest() for data in (before, text.encode())]
    at, _, rest = manifest.read_text(encoding="utf-8").partition(f'"{name}"')
    assert hashes[0] in rest
    manifest.write_text(at + f'"{name}"' + rest.replace(hashes[0], hashes[1], 1), encoding="utf-8")


def test_tokenize_reads_each_side_with_its_own_tokenizer(tiny_model: TinyModel, tmp_path: Path) -> None:
    folder = splade(tmp_path / "sides", tiny_model, random_logits(), random_weights()).folder
    _swap(folder, "query.json", ('"the": 6', '"the": 7'), ('"cat": 7', '"cat": 6'))
    with trivec.load(folder, device="cpu", threads=1) as encoder:
        client = Client(trivec.server.app({"sides": encoder}))
        for side in ("document", "query", "document"):
            found = client.json(
                "/tokenize", {"inputs": "the cat", "model": f"sides:{side}", "add_special_tokens": False}
            )
            prompt = encoder.prompt_text(None, side)
            read = encoder.tokenize(["the cat"], prompt=prompt, task=side)[0]
            assert [token["id"] for token in found[0]] == [i for i in read if i > 3], side
        client.close()


def test_info(client: Client) -> None:
    found = client.get("/info").json()
    assert found["model_id"] == "tiny"
    assert found["model_type"] == {"embedding": {"pooling": "mean"}}
    assert found["max_input_length"] == 16
    assert found["max_client_batch_size"] == 2048


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/embed", b"{", (400, "Validation")),
        ("/embed", {}, (422, "Validation")),
        ("/embed", {"inputs": []}, (400, "Empty")),
        ("/embed", {"inputs": ["a"] * 2049}, (413, "Validation")),
        ("/embed", {"inputs": "dog " * 40, "truncate": False}, (422, "Validation")),
        ("/embed", {"inputs": [1, 2]}, (422, "Tokenizer")),
        ("/embed", {"inputs": "a", "model": "splade"}, (424, "Backend")),
        ("/embed", {"inputs": "a", "model": "no"}, (404, "Validation")),
        ("/embed", {"inputs": "a", "prompt_name": "no"}, (422, "Validation")),
        ("/embed", {"inputs": "a", "dimensions": 99}, (422, "Validation")),
        ("/embed", {"inputs": "a", "encoding_format": "base64"}, (422, "Validation")),
        ("/embed_sparse", {"inputs": "a", "model": "tiny"}, (424, "Backend")),
        ("/tokenize", {"inputs": "a", "prompt_name": "no"}, (422, "Validation")),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}, (400, "Empty")),
        ("/rerank", {"query": "a", "texts": []}, (400, "Empty")),
        ("/rerank", {"query": "a", "texts": ["a"], "model": "tiny"}, (424, "Backend")),
        ("/predict", {"inputs": "a", "model": "words"}, (424, "Backend")),
        ("/predict", {"inputs": "a", "model": "tiny"}, (424, "Backend")),
        ("/predict", {"inputs": [["a", "b", "c"]], "model": "labels"}, (422, "Validation")),
        ("/predict", {"inputs": [], "model": "labels"}, (400, "Empty")),
    ],
)
def test_errors(client: Client, path: str, body: object, expected: tuple[int, str]) -> None:
    assert tei_error(client, path, body) == expected


# ---- pairs -----------------------------------------------------------------------------------------------------------

DOCUMENTS = ["a dog", "a red cat", "nothing", "a cat"]


def test_rerank_as_tei_has_it(client: Client) -> None:
    found = client.json("/rerank", {"query": "a cat", "texts": DOCUMENTS, "return_text": True})
    assert [item["index"] for item in found] == [1, 3, 0, 2]  # ties by index
    assert [item["text"] for item in found] == ["a red cat", "a cat", "a dog", "nothing"]
    assert [item["score"] for item in found] == pytest.approx([1 / (1 + np.exp(-x)) for x in (1, 1, 0, -1)], abs=1e-6)
    raw = client.json("/rerank", {"query": "a cat", "texts": DOCUMENTS, "raw_scores": True, "top_n": 2})
    assert raw == [{"index": 1, "score": 1.0}, {"index": 3, "score": 1.0}]
    assert client.json("/", {"query": "a cat", "texts": ["a cat"], "raw_scores": True}) == [{"index": 0, "score": 1.0}]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank", "/reranking", "/v1/reranking"])
def test_rerank_as_cohere_and_jina_have_it(client: Client, path: str) -> None:
    body = {"model": "words", "query": "a cat", "documents": DOCUMENTS, "top_n": 3, "return_documents": True}
    found = client.json(path, body)
    assert [item["index"] for item in found["results"]] == [1, 3, 0]
    assert found["results"][0]["document"] == {"text": "a red cat"}
    assert found["results"][0]["relevance_score"] == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-6)
    tokens = sum(3 + len(text.split()) for text in DOCUMENTS)
    assert found["meta"]["tokens"] == {"input_tokens": tokens}
    assert found["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert found["model"] == "words"
    assert found["id"]
    objects = {**body, "documents": [{"text": text} for text in DOCUMENTS], "top_n": 0, "max_tokens_per_doc": 4096}
    assert len(client.json(path, objects)["results"]) == 4


def test_rerank_as_weaviate_has_it(client: Client) -> None:
    body = {"query": "a cat", "documents": ["a cat", "x"], "property": "p", "raw_scores": True, "model": "words"}
    assert client.json("/rerank", body) == {
        "query": "a cat",
        "scores": [{"document": "a cat", "score": 1.0}, {"document": "x", "score": -1.0}],
    }


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"query": "a"}, (400, "bad_value", "documents")),
        ({"query": "a", "documents": ["a"], "texts": ["b"], "model": "words"}, None),
        ({"query": "a", "documents": ["a"]}, (400, "bad_value", "model")),  # two score pairs
        ({"query": "a", "documents": ["a"], "model": "labels"}, (400, "wrong_model_kind", "model")),
        ({"query": "a", "documents": ["a"], "model": "m3"}, (400, "wrong_model_kind", "model")),
        ({"query": "a", "documents": [], "model": "words"}, (400, "empty_input", "documents")),
        ({"query": "a", "documents": ["a"], "model": "words", "top_n": -1}, (400, "bad_value", "top_n")),
        ({"query": 5, "documents": ["a"]}, (400, "bad_value", "query")),
        ({"query": "a", "documents": ["poison"], "model": "words"}, (500, "non_finite", "documents.0")),
        (
            {"query": "a", "documents": ["b", "x " * 20], "model": "words", "truncate": False},
            (400, "text_too_long", "documents.1"),
        ),
    ],
)
def test_errors_of_rerank(client: Client, body: dict[str, Any], expected: tuple[int, str, str | None] | None) -> None:
    if expected is None:
        assert tei_error(client, "/rerank", body)[0] == 422
    else:
        assert client.error("/rerank", body) == expected


def test_a_bad_row_is_not_to_be_tried_again(client: Client) -> None:
    answer = client.post("/rerank", {"query": "a", "documents": ["a", "poison"], "model": "words"})
    assert answer.headers["x-should-retry"] == "false"
    assert "poison" not in answer.text
    assert client.json("/rerank", {"query": "a", "documents": ["a"], "model": "words"})


def test_predict(client: Client) -> None:
    both = client.json("/predict", {"inputs": [["a cat", "a cat"], ["a", "b"]], "model": "labels", "raw_scores": True})
    assert both[0] == [{"score": 1.0, "label": "yes"}, {"score": -1.0, "label": "no"}]
    assert both[1] == [{"score": 1.0, "label": "no"}, {"score": -1.0, "label": "yes"}]
    pair = client.json("/predict", {"inputs": ["a cat", "a cat"], "model": "labels"})
    assert sum(item["score"] for item in pair) == pytest.approx(1.0)
    assert client.json("/predict", {"inputs": "a", "model": "labels"})[0]["label"] == "no"


def test_score(client: Client, folders: dict[str, Path]) -> None:
    with trivec.load(folders["tiny"], device="cpu") as encoder:
        vectors = encoder.encode(["a cat", *TEXTS])
        expected = cos_sim(vectors[:1], vectors[1:])[0].tolist()
    for names in (("text_1", "text_2"), ("queries", "documents"), ("data_1", "data_2")):
        body = {names[0]: "a cat", names[1]: TEXTS, "model": "tiny"}
        found = client.json("/v1/score", body)
        assert [item["score"] for item in found["data"]] == pytest.approx(expected, abs=1e-6)
        assert [(item["index"], item["object"]) for item in found["data"]] == [(0, "score"), (1, "score")]
        assert found["usage"]["total_tokens"] > 0
    with trivec.load(folders["m3"], device="cpu") as encoder:
        both = encoder.compute_score([("a cat", "a dog"), ("red", "red boat")])["colbert+sparse+dense"]
    found = client.json("/score", {"text_1": ["a cat", "red"], "text_2": ["a dog", "red boat"], "model": "m3"})
    assert [item["score"] for item in found["data"]] == pytest.approx(both, abs=1e-6)
    pairs = client.json("/score", {"queries": "a cat", "documents": ["a cat", "x"], "model": "words"})
    assert [item["score"] for item in pairs["data"]] == pytest.approx([1 / (1 + np.exp(-1)), 1 / (1 + np.e)], abs=1e-6)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"text_1": "a"},
        {"text_1": "a", "text_2": "b", "queries": "c", "documents": "d"},
        {"text_1": ["a", "b"], "text_2": ["a", "b", "c"]},
        {"text_1": ["a", "b"], "text_2": "c"},
        {"text_1": "a", "text_2": []},
        {"text_1": "a", "text_2": "b", "truncate_prompt_tokens": 0},
    ],
)
def test_errors_of_score(client: Client, body: object) -> None:
    status, code, _ = client.error("/score", body)
    assert status == 400
    assert code in ("bad_value", "empty_input")
