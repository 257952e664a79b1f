"""Malformed requests, by seed and number: only 4xx, in JSON; no 500, no traceback; the next vectors are the same."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.serving import ServeProcess, parsed, request

CASES, SEED = 600, 20
KEY = {"Authorization": "Bearer sk-fuzz"}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {
        "input": ["a cat", "dog"], "model": "m3", "encoding_format": "base64", "dimensions": 5, "user": "u",
        "prompt_name": "query", "input_type": "query", "normalize": True, "truncate": True, "truncate_prompt_tokens": 9,
        "truncation_direction": "left", "output_dtype": "float", "outputs": ["dense", "sparse", "colbert"],
        "return_tokens": True, "threshold": 0.1, "max_active_dims": 3,
    },
    "/embed": {"inputs": ["a cat"], "truncate": True, "truncation_direction": "Left", "normalize": False},
    "/embed_all": {"inputs": "a cat", "prompt_name": "query"},
    "/embed_sparse": {"inputs": ["a cat"], "model": "m3"},
    "/similarity": {"inputs": {"source_sentence": "a", "sentences": ["b"]}, "parameters": {"truncate": True}},
    "/tokenize": {"inputs": ["a cat"], "add_special_tokens": True, "prompt_name": "query"},
    "/decode": {"ids": [[2, 5, 3]], "skip_special_tokens": False},
    "/predict": {"inputs": [["a", "b"]], "raw_scores": True},
    "/rerank": {"query": "a", "texts": ["b"], "raw_scores": True, "return_text": True, "top_n": 1},
    "/v2/rerank": {"query": "a", "documents": ["b", {"text": "c"}], "top_n": 1, "return_documents": True},
    "/score": {"text_1": ["a"], "text_2": ["b", "c"], "truncate_prompt_tokens": 5, "model": "tiny"},
    "/": {"inputs": ["a cat"], "normalize": True},
}  # fmt: skip
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1 << 70, -(1 << 70), 1e308, 0.5, "", "a", "a" * 5000, "\u0000", "😀", [], {}, [None], [[]],
    [[1]], [1, "a"], [[1 << 70]], [-1], {"text": 1}, ["a"] * 3000, [["a", "b", "c"]], {"source_sentence": "a"},
    "none:query",
)  # fmt: skip
RAW = (b"NaN", b"Infinity", b"1e999", b'"\\ud800"', b'["a","\\udc00x"]', b"[" * 5000, b'{"a":' * 5000, b"'a'", b"\xff")
Case = Callable[[random.Random, str, dict[str, Any]], bytes]


def wrong_value(rng: random.Random, path: str, body: dict[str, Any]) -> bytes:
    return request(path, {**body, rng.choice(list(body)): rng.choice(ODD)}, Connection="close", **KEY)


def raw_value(rng: random.Random, path: str, body: dict[str, Any]) -> bytes:
    field = rng.choice(list(body))
    data = json.dumps({**body, field: "@"}).encode().replace(b'"@"', rng.choice(RAW))
    return request(path, data, Connection="close", **KEY)


def missing(rng: random.Random, path: str, body: dict[str, Any]) -> bytes:
    field = rng.choice(list(body))
    return request(path, {name: value for name, value in body.items() if name != field}, Connection="close", **KEY)


def cut(rng: random.Random, path: str, body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    return request(path, data[: rng.randrange(len(data))], Connection="close", **KEY)


def flipped(rng: random.Random, path: str, body: dict[str, Any]) -> bytes:
    data = bytearray(json.dumps(body).encode())
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return request(path, bytes(data), Connection="close", **KEY)


def damaged_head(rng: random.Random, path: str, body: dict[str, Any]) -> bytes:
    head, _, data = request(path, body, Connection="close", **KEY).partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    more = rng.choice(
        [
            b"Host: other", b"Content-Length: 3", b"Content-Length: -1", b"Content-Length: 99999999999999999999",
            b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"x" * 20000 + b": y",
            b"x: " + b"y" * 20000, b"no colon", b": no name", b"x\x00y: z", b"x: \x01", b" folded",
        ]
    )  # fmt: skip
    lines.insert(rng.randint(1, len(lines)), more)
    return b"\r\n".join(lines) + b"\r\n\r\n" + data


def other_header(rng: random.Random, path: str, body: dict[str, Any]) -> bytes:
    name, value = rng.choice(
        [
            ("Host", "evil.example"), ("Origin", "https://evil.example"), ("Authorization", "Bearer wrong"),
            ("Authorization", ""), ("Content-Type", "text/plain"), ("Content-Encoding", "gzip"),
            ("Content-Length", "x"), ("Content-Type", "application/x-www-form-urlencoded"), ("Origin", "null"),
        ]
    )  # fmt: skip
    return request(path, body, **{"Connection": "close", **KEY, name.replace("-", "_"): value}).replace(b"_", b"-", 0)


def other_method(rng: random.Random, path: str, body: dict[str, Any]) -> bytes:
    method = rng.choice([b"GET", b"PUT", b"DELETE", b"PATCH", b"TRACE", b"BREW", b"post"])
    return request(path, body, Connection="close", **KEY).replace(b"POST", method, 1)


def other_path(rng: random.Random, path: str, body: dict[str, Any]) -> bytes:
    odd = rng.choice(
        ["/v1/../v1/embeddings", "/%00", "//embed", "/embed/", "*", "/" + "a" * 9000, "/é", "/v1/models/%ff"]
    )
    return request(path, body, Connection="close", **KEY).replace(path.encode(), odd.encode(), 1)


KINDS: tuple[Case, ...] = (
    wrong_value, wrong_value, wrong_value, raw_value, raw_value, missing, cut, flipped, damaged_head, other_header,
    other_method, other_path,
)  # fmt: skip


def test_malformed_requests(folders: dict[str, Path]) -> None:
    rng = random.Random(SEED)
    served = [f"{name}={folders[name]}" for name in ("tiny", "m3")]
    arguments = ("--header-timeout", "1", "--body-timeout", "1")
    with ServeProcess(*served, *arguments, environment={"TRIVEC_API_KEY": "sk-fuzz"}) as server:
        good = {"input": ["the cat sat", "dog"], "model": "tiny"}
        before = server.post("/v1/embeddings", good, **KEY)[2]["data"]
        seen: dict[int, int] = {}
        for number in range(CASES):
            path = rng.choice(list(BODIES))
            kind = rng.choice(KINDS)
            data = kind(rng, path, BODIES[path])
            told = f"case {number} of seed {SEED}: {kind.__name__} {data[:300]!r}"
            try:
                answer = server.raw(data)
            except TimeoutError:
                raise AssertionError(f"no end: {told}") from None
            assert answer.startswith(b"HTTP/1.1 "), told
            status, headers, found = parsed(answer)
            seen[status] = seen.get(status, 0) + 1
            assert status == 200 or 400 <= status < 500, f"{told}: {answer[:500]!r}"
            if status != 200:
                assert headers["content-type"] == "application/json", told
                assert isinstance(found["error"], dict | str), told
        assert server.post("/v1/embeddings", good, **KEY)[2]["data"] == before
        assert server.end() == 0
        log = "".join(server.lines)
    assert "ERROR" not in log
    assert "Traceback" not in log
    assert {400, 401, 403, 404, 405, 413, 415, 422, 424, 431} <= seen.keys()
