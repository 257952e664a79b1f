"""OpenAI's dialect: the numbers of `encode`, every field, every error."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.serving import Client, numbers, unpacked
from tests.support.tiny_model import TinyModel

import trivec
from trivec._tokens.batch import Tokens
from trivec._vectors.arrays import normalize

TEXTS = ["the cat sat on the mat", "", "A small RED boat", "un mot inconnu: 東京", "dog " * 40, "a", "a dog", "a"]


def vectors(answer: dict[str, Any]) -> Any:
    assert [item["index"] for item in answer["data"]] == list(range(len(answer["data"])))
    values = [item["embedding"] for item in answer["data"]]
    return np.stack([unpacked(v) if isinstance(v, str) else numbers(v) for v in values])


@pytest.mark.parametrize("form", [None, "float", "base64"])
def test_the_numbers_of_encode(client: Client, folders: dict[str, Path], form: str | None) -> None:
    answer = client.json("/v1/embeddings", {"input": TEXTS, "model": "tiny", "encoding_format": form})
    with trivec.load(folders["tiny"], device="cpu") as encoder:
        assert np.array_equal(vectors(answer), encoder.encode(TEXTS, normalize_embeddings=True))
    assert answer["object"] == "list"
    assert answer["model"] == "tiny"
    assert answer["data"][0]["object"] == "embedding"


def test_one_text_and_both_paths(client: Client, folders: dict[str, Path]) -> None:
    with trivec.load(folders["tiny"], device="cpu") as encoder:
        for path in ("/v1/embeddings", "/embeddings"):
            found = vectors(client.json(path, {"input": "a cat", "model": "tiny", "normalize": False}))
            assert np.array_equal(found[0], encoder.encode("a cat"))


def test_a_model_that_ends_normalized_is_not_normalized_again(client: Client, folders: dict[str, Path]) -> None:
    found = vectors(client.json("/v1/embeddings", {"input": TEXTS, "model": "m3", "encoding_format": "base64"}))
    with trivec.load(folders["m3"], device="cpu") as encoder:
        assert np.array_equal(found, encoder.encode(TEXTS).dense)


def test_usage_counts_what_the_model_read(client: Client, tiny_model: TinyModel) -> None:
    usage = client.json("/v1/embeddings", {"input": TEXTS, "model": "tiny"})["usage"]
    tokens = sum(len(tiny_model.ids(text)) for text in TEXTS)  # equal texts each time
    assert usage == {"prompt_tokens": tokens, "total_tokens": tokens, "truncated": [4]}
    assert "truncated" not in client.json("/v1/embeddings", {"input": "a", "model": "tiny"})["usage"]


def test_headers(client: Client, folders: dict[str, Path]) -> None:
    body = {"input": TEXTS, "model": "tiny:query"}
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    answer = client.post("/v1/embeddings", body, x_request_id="a.b-c_1", traceparent=trace)
    headers = answer.headers
    assert headers["x-request-id"] == "a.b-c_1"
    assert headers["traceparent"] == trace
    assert headers["server"] == "trivec"
    assert headers["x-trivec-model"] == "tiny"
    assert headers["x-trivec-truncated"] == "1"
    assert headers["x-compute-characters"] == str(sum(map(len, TEXTS)))
    assert headers["x-compute-tokens"] == str(answer.json()["usage"]["total_tokens"])
    for name in ("compute", "total", "tokenization", "queue", "inference"):
        assert headers[f"x-{name}-time"].isdecimal()
    with trivec.load(folders["tiny"], device="cpu") as encoder:
        mark = encoder.fingerprint_of(prompt_name="query", normalize_embeddings=True)
    assert headers["x-trivec-fingerprint"] == mark[:16]
    odd = client.post("/v1/embeddings", body, x_request_id="a b\t" + "c" * 200, traceparent="nonsense")
    assert len(odd.headers["x-request-id"]) == 32
    assert "traceparent" not in odd.headers


@pytest.mark.parametrize(
    ("fields", "method", "options"),
    [
        ({"model": "tiny:query"}, "encode_query", {}),
        ({"model": "tiny:document"}, "encode_document", {}),
        ({"model": "text-embedding-3-small:query"}, "encode_query", {}),
        ({"model": "tiny", "input_type": "query"}, "encode_query", {}),
        ({"model": "tiny", "input_type": "search_document"}, "encode_document", {}),
        ({"model": "tiny", "prompt_name": "query"}, "encode", {"prompt_name": "query"}),
        ({"model": "tiny", "dimensions": 5}, "encode", {"truncate_dim": 5}),
        ({"model": "tiny", "dimensions": 0}, "encode", {}),
        ({"model": "static"}, "encode", {}),
    ],
)
def test_prompts_and_cuts(
    client: Client, folders: dict[str, Path], fields: dict[str, Any], method: str, options: dict[str, Any]
) -> None:
    texts = ["a cat", "the cat sat"]
    answer = client.json("/v1/embeddings", {"input": texts, **fields})
    name = "static" if fields["model"] == "static" else "tiny"
    with trivec.load(folders[name], device="cpu") as encoder:
        expected = getattr(encoder, method)(texts, normalize_embeddings=True, **options)
    assert np.array_equal(vectors(answer), expected)
    assert answer["model"] == fields["model"]


@pytest.mark.parametrize("dtype", ["int8", "uint8", "binary", "ubinary"])
@pytest.mark.parametrize("form", ["float", "base64"])
def test_other_number_types(client: Client, folders: dict[str, Path], dtype: str, form: str) -> None:
    body = {"input": ["a cat", "dog"], "model": "tiny", "output_dtype": dtype, "encoding_format": form}
    found = [item["embedding"] for item in client.json("/v1/embeddings", body)["data"]]
    with trivec.load(folders["tiny"], device="cpu") as encoder:
        expected = encoder.encode(["a cat", "dog"], precision=dtype, normalize_embeddings=True)
    if form == "base64":
        found = [np.frombuffer(base64.b64decode(text), dtype=expected.dtype).tolist() for text in found]
    assert found == expected.tolist()


def test_cut_elsewhere(client: Client, folders: dict[str, Path]) -> None:
    text = "the cat sat on the mat"
    with trivec.load(folders["tiny"], device="cpu") as encoder:
        for fields, reading in (
            ({"truncate_prompt_tokens": 5}, encoder.reading(5)),
            ({"truncate_prompt_tokens": 5, "truncation_direction": "left"}, encoder.reading(5, "left")),
            ({"truncate_prompt_tokens": -1}, encoder),
        ):
            answer = client.post("/v1/embeddings", {"input": text, "model": "tiny", "normalize": False, **fields})
            assert np.array_equal(vectors(answer.json())[0], reading.encode(text))
            assert answer.headers["x-trivec-fingerprint"] == reading.fingerprint[:16]


def test_sparse_and_colbert_beside_dense_in_one_run(
    client: Client, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["the cat sat on the mat", "a dog"]
    queue = client.app.registry.models["m3"].queue
    runs: list[int] = []
    run_rows = queue._engine.run_rows

    def counted(tokens: Tokens, call: Any) -> Any:
        runs.append(len(tokens.truncated))
        return run_rows(tokens, call)

    monkeypatch.setattr(queue._engine, "run_rows", counted)
    body = {"input": texts, "model": "m3", "outputs": ["dense", "sparse", "colbert"], "return_tokens": True}
    data = client.json("/v1/embeddings", body)["data"]
    assert runs == [2]
    with trivec.load(folders["m3"], device="cpu") as encoder:
        expected = encoder.encode(texts, return_colbert_vecs=True)
        for row, item in enumerate(data):
            sparse = item["sparse_embedding"]
            assert np.array_equal(numbers(item["embedding"]), expected.dense[row])
            assert sparse["indices"] == expected.sparse[row].indices.tolist()
            assert np.array_equal(numbers(sparse["values"]), expected.sparse[row].values)
            assert sparse["tokens"] == [encoder.token(i) for i in sparse["indices"]]
            assert np.array_equal(numbers(item["multi_vector"]), expected.colbert[row])
        packed = client.json("/v1/embeddings", {**body, "encoding_format": "base64", "max_active_dims": 1})["data"]
        rows = encoder.encode(texts, max_active_dims=1).sparse
        for row, item in enumerate(packed):
            sparse = item["sparse_embedding"]
            assert np.frombuffer(base64.b64decode(sparse["indices"]), "<i4").tolist() == rows[row].indices.tolist()
            assert np.array_equal(unpacked(sparse["values"]), rows[row].values)
            multi = unpacked(item["multi_vector"]).reshape(item["shape"])
            assert np.array_equal(multi, expected.colbert[row])


@pytest.mark.parametrize(("name", "method"), [("splade:query", "encode_query"), ("splade:document", "encode_document")])
def test_sparse_alone(client: Client, folders: dict[str, Path], name: str, method: str) -> None:
    body = {"input": ["a cat", "the dog"], "model": name, "outputs": ["sparse"], "threshold": 0.3}
    answer = client.post("/v1/embeddings", body)
    with trivec.load(folders["splade"], device="cpu") as encoder:
        expected = getattr(encoder, method)(["a cat", "the dog"], threshold=0.3)
        side = name.partition(":")[2]
        mark = encoder.fingerprint_of(prompt_name=encoder.prompt_name_of(side), task=side, threshold=0.3)
    for row, item in enumerate(answer.json()["data"]):
        assert "embedding" not in item
        assert item["sparse_embedding"]["indices"] == expected[row].indices.tolist()
        assert np.array_equal(numbers(item["sparse_embedding"]["values"]), expected[row].values)
    assert answer.headers["x-trivec-fingerprint"] == mark[:16]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{", (400, "bad_json", None)),
        (b"\xff", (400, "bad_json", None)),
        (b'{"input": "a", "x": ' + b"[" * 100_000, (400, "bad_json", None)),
        (b'{"input": NaN}', (400, "bad_json", None)),
        (b'{"input": ["a", "\\ud800"]}', (400, "bad_value", "input.1")),
        ({}, (400, "bad_value", "input")),
        ([], (400, "bad_value", None)),
        ({"input": None}, (400, "bad_value", "input")),
        ({"input": ["a", None]}, (400, "bad_value", "input.1")),
        ({"input": ["a", 5]}, (400, "bad_value", "input.1")),
        ({"input": [[5], "a"]}, (400, "bad_value", "input.1")),
        ({"input": []}, (400, "empty_input", "input")),
        ({"input": ["a"] * 2049, "model": "tiny"}, (400, "too_many_texts", "input")),
        ({"input": [1, 2]}, (400, "foreign_token_ids", "input")),
        ({"input": [[1, 2], [3]]}, (400, "foreign_token_ids", "input")),
        ({"input": "a", "model": "gpt-4"}, (404, "model_not_found", "model")),
        ({"input": "a"}, (400, "bad_value", "model")),  # several have dense vectors
        ({"input": "a", "model": "splade"}, (400, "wrong_model_kind", "model")),
        ({"input": "a", "model": "words"}, (400, "wrong_model_kind", "model")),
        ({"input": "a", "model": "tiny", "outputs": ["sparse"]}, (400, "wrong_model_kind", "model")),
        ({"input": "a", "model": "tiny", "outputs": []}, (400, "bad_value", "outputs")),
        ({"input": "a", "model": "tiny", "outputs": ["x"]}, (400, "bad_value", "outputs.0")),
        ({"input": "a", "model": "tiny", "dimensions": 13}, (400, "bad_value", "dimensions")),
        ({"input": "a", "model": "tiny", "dimensions": -1}, (400, "bad_value", "dimensions")),
        ({"input": "a", "model": "m3", "dimensions": 3}, (400, "bad_value", "dimensions")),
        ({"input": "a", "model": "m3", "output_dtype": "int8"}, (400, "bad_value", "output_dtype")),
        ({"input": "a", "model": "static", "output_dtype": "int8"}, (400, "bad_value", "output_dtype")),
        ({"input": "a", "model": "tiny", "encoding_format": "hex"}, (400, "bad_value", "encoding_format")),
        ({"input": "a", "model": "tiny", "prompt_name": "no"}, (400, "bad_value", "input")),
        ({"input": "a", "model": "tiny:query", "input_type": "document"}, (400, "bad_value", "input_type")),
        ({"input": "a", "model": "tiny", "truncate_prompt_tokens": 0}, (400, "bad_value", "truncate_prompt_tokens")),
        ({"input": "a", "model": "tiny", "truncate_prompt_tokens": 99}, (400, "bad_value", "input")),
        ({"input": "dog " * 40, "model": "tiny", "truncate": False}, (400, "text_too_long", "input.0")),
        ({"input": "a", "model": "m3", "outputs": ["sparse"], "threshold": -1}, (400, "bad_value", "threshold")),
        ({"input": "a", "model": "tiny", "threshold": 1}, (400, "bad_value", "outputs")),
        (
            {"input": "a", "model": "m3", "outputs": ["sparse"], "max_active_dims": 0},
            (400, "bad_value", "max_active_dims"),
        ),
    ],
)
def test_errors(client: Client, body: object, expected: tuple[int, str, str | None]) -> None:
    assert client.error("/v1/embeddings", body) == expected


def test_a_text_that_is_too_long_says_by_how_much(client: Client) -> None:
    answer = client.post("/v1/embeddings", {"input": ["a", "dog " * 40], "model": "tiny", "truncate": False})
    assert "input.1 has 42 tokens, and 'tiny' reads 16 of a text" in answer.json()["error"]["message"]


def test_the_only_model_needs_no_name(alone: Client) -> None:
    for name in (None, ""):
        assert alone.json("/v1/embeddings", {"input": "a", "model": name})["model"] == "tiny"


def test_a_field_that_nobody_knows_is_counted(client: Client) -> None:
    def ignored() -> str:
        return next(x for x in client.get("/metrics").text.splitlines() if x.startswith("trivec_ignored_fields_total"))

    before = float(ignored().split()[1])
    client.json("/v1/embeddings", {"input": "a", "model": "tiny", "priority": 3, "user": {"x": [1]}})
    assert float(ignored().split()[1]) == before + 1
    assert client.error("/v1/embeddings", {"priority": 3, "input": 5})[2] == "input"


def test_models(client: Client) -> None:
    found = client.get("/v1/models").json()
    names = [model["id"] for model in found["data"]]
    assert names == ["tiny", "m3", "splade", "static", "words", "labels", "text-embedding-3-small"]
    assert found["data"][1]["capabilities"] == ["embed", "sparse", "colbert"]
    assert found["data"][4]["capabilities"] == ["rerank"]
    one = client.get("/v1/models/tiny").json()
    assert one["max_model_len"] == 16
    assert one["dim"] == 12
    assert one["prompts"] == ["document", "query"]
    told = {model["id"]: (model["similarity"], model["truncation_direction"]) for model in found["data"]}
    assert told["tiny"] == told["m3"] == ("cosine", "right")
    assert told["splade"] == ("dot", None)  # its queries are cut elsewhere
    assert told["static"] == ("cosine", None)  # letters are cut, not tokens
    assert told["words"] == (None, None)
    assert client.get("/v1/models/no").status_code == 404


def test_own_token_ids(folders: dict[str, Path], tiny_model: TinyModel) -> None:
    encoder = trivec.load(folders["tiny"], device="cpu")
    client = Client(trivec.server.app({"tiny": encoder}, token_ids="own"))
    ids = tiny_model.ids("a cat")
    found = vectors(client.json("/v1/embeddings", {"input": [ids, ids[1:-1]], "normalize": False}))
    assert np.array_equal(found, encoder.encode(["a cat", "a cat"]))
    assert np.array_equal(vectors(client.json("/v1/embeddings", {"input": ids, "normalize": False})), found[:1])
    assert client.error("/v1/embeddings", {"input": [[1 << 70]]}) == (400, "bad_value", "input")
    assert client.error("/v1/embeddings", {"input": [[24]]}) == (400, "bad_value", "input")
    client.close()


def test_a_dot_model_keeps_its_lengths(folders: dict[str, Path]) -> None:
    encoder = trivec.load(folders["tiny"], device="cpu", similarity_fn_name="dot")
    client = Client(trivec.server.app({"tiny": encoder}))
    assert np.array_equal(vectors(client.json("/v1/embeddings", {"input": ["a"]})), encoder.encode(["a"]))
    unit = vectors(client.json("/v1/embeddings", {"input": ["a"], "normalize": True}))
    assert np.array_equal(unit, normalize(encoder.encode(["a"])))
    client.close()
