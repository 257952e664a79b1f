"""The page of a server in a headless Chromium: its numbers are those of the encoders, and it asks nobody else.

Type scripts/chromium to get the browser.
"""

import ast
import json
import re
import subprocess
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from tests.support.chromium import Page
from tests.support.environments import python_of
from tests.support.server_pages import (
    bars,
    bodies,
    choose,
    code,
    matrix,
    put,
    rankings,
    submit,
    texts,
)
from tests.support.tiny_model import MAX_TOKENS

LINES = ["the cat sat on the mat", "a small red boat", "the old house on the hill", "a dog ran under the tree",
         "a bird on the river", "find the cat", "the dog", "a blue bird sat", "red red mat", "an old dog",
         "the river", "a tree on a hill"]  # fmt: skip
HOSTILE = ["</script><script>globalThis.executed = 1</script>", "<img src=x onerror='globalThis.executed = 2'>",
           "{{script}} ${1} `x` \\ \"quotes\" 'single' $HOME", "مرحبا بالعالم كيف حالك", "cat\u2028dog"]  # fmt: skip


# ---- the views, and their numbers ------------------------------------------------------------------------------------


def test_what_it_says_of_a_model(page: Page, page_encoders: dict[str, Any]) -> None:
    assert texts(page, "#model option") == list(page_encoders)
    for name in ("tiny", "m3"):
        choose(page, name)
        facts = dict(zip(texts(page, "#facts dt"), texts(page, "#facts dd"), strict=True))
        assert facts == {
            "dim": str(page_encoders[name].dim), "precision": "fp32", "device": "cpu", "reads": "16 tokens",
            "fingerprint": page_encoders[name].fingerprint[:12],
        }  # fmt: skip
    shown: dict[str, list[str]] = {}
    for name in ("tiny", "m3", "splade", "words"):
        choose(page, name)
        shown[name] = [tab for tab in texts(page, "[role=tab]") if page.visible(f"#tab-{tab.lower()}")]
    everything = ["Similarity", "Tokens", "Sparse", "Search"]
    dense = ["Similarity", "Tokens", "Search"]
    assert shown == {"tiny": dense, "m3": everything, "splade": everything, "words": ["Search"]}


@pytest.mark.parametrize(
    ("name", "side", "head"),
    [("tiny", "", "dense"), ("tiny", ":query", "dense"), ("m3", ":document", "dense"), ("m3", "=long", "dense"),
     ("m3", "", "sparse"), ("m3", "", "colbert"), ("splade", ":query", "sparse"), ("splade", "", "sparse"),
     ("static", "", "dense")],
)  # fmt: skip
def test_similarity(page: Page, page_encoders: dict[str, Any], name: str, side: str, head: str) -> None:
    choose(page, name)
    submit(page, "similarity", texts="\n".join(LINES), side=side, head=head)
    encoder = page_encoders[name]
    options = {"prompt_name": side[1:]} if side.startswith("=") else {"task": side[1:] or None}
    if side.startswith(":"):
        options["prompt_name"] = encoder.prompt_name_of(side[1:])
    found = getattr(encoder.represent(LINES, [head], **options), head)
    if head == "colbert":
        expected = found.maxsim(found)
    else:
        expected = found.dot(found) if name == "m3" and head == "sparse" else encoder.similarity(found, found)
    assert_allclose(matrix(page), expected, atol=2e-6)
    assert texts(page, "#similarity tbody bdi") == LINES
    assert page.text("#similarity .said").startswith(
        {"dense": "Dense", "sparse": "Sparse"}.get(head, "ColBERT, MaxSim")
    )


def test_many_lines_are_a_picture(page: Page, page_encoders: dict[str, Any]) -> None:
    lines = [f"{LINES[i % 12]} {LINES[i % 7]}" for i in range(60)]
    submit(page, "similarity", texts="\n".join(lines))
    vectors = page_encoders["tiny"].encode(lines)
    expected = page_encoders["tiny"].similarity(vectors, vectors)
    pixels = page.evaluate(
        """(() => { const canvas = document.querySelector('#similarity canvas');
        return [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]; })()"""
    )
    red = np.array(pixels, dtype=np.float64).reshape(60, 60, 4)[..., 0]
    off = ~np.eye(60, dtype=np.bool_)
    low, high = expected[off].min(), expected[off].max()
    part = np.clip((expected - low) / (high - low), 0, 1)
    assert_allclose(red, 0xF6 + (0x7A - 0xF6) * part, atol=1)
    page.evaluate("document.querySelector('#similarity .plot').focus()")
    for name in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowLeft", "ArrowUp"):
        page.key(name)
    assert float(page.text("#similarity .pair b")) == pytest.approx(expected[1, 1], abs=6e-5)
    assert texts(page, "#similarity .pair bdi") == [f"2  {lines[1]}"] * 2


@pytest.mark.parametrize(("name", "side"), [("tiny", ""), ("tiny", ":query"), ("m3", "=long"), ("left", "")])
@pytest.mark.parametrize(
    "text", ["the cat ran", "the old cat sat on a mat under the small red tree on the blue hill " * 2]
)
def test_tokens(page: Page, page_encoders: dict[str, Any], name: str, side: str, text: str) -> None:
    choose(page, name)
    submit(page, "tokens", text=text, side=side)
    shown = page.evaluate(
        """[...document.querySelectorAll('#tokens li')].map((li) =>
        [li.className, ...[...li.children].map((child) => child.textContent)])"""
    )
    encoder = page_encoders[name]
    prompt = encoder.prompt_text(None, side[1:] or None)
    ids = [int(token_id) for kind, _, token_id, _ in shown if kind != "cut"]
    assert ids == encoder.tokenize([text], prompt=prompt)[0]
    pieces = [(piece, place) for kind, piece, _, place in shown if kind != "special"]
    offsets = [tuple(map(int, place.split("–"))) for _, place in pieces]
    assert [(prompt + text)[start:stop] for start, stop in offsets] == [piece for piece, _ in pieces]
    assert [piece for piece, _ in pieces] == (prompt + text).split()
    assert [(kind, piece) for kind, piece, _, _ in (shown[0], shown[-1])] == [
        ("special", "[CLS]"),
        ("special", "[SEP]"),
    ]
    cut = len(pieces) - (MAX_TOKENS - 2)
    said = f"{len(pieces) + 2} tokens, 2 of them special; the model reads 16"
    assert page.text("#tokens .said") == said + (f", and {cut} are cut off" if cut > 0 else "")


def test_tokens_of_a_model_that_cuts_otherwise(page: Page) -> None:
    choose(page, "splade")
    submit(page, "tokens", text="cat " * 30)
    assert page.text("#tokens .said").endswith("the model reads 16, by rules of its own: what it cuts off is not shown")
    assert texts(page, "#tokens .cut") == []


def test_sparse(page: Page, page_encoders: dict[str, Any]) -> None:
    choose(page, "splade")
    first, second = "the old cat on a hill", "a cat on the mat"
    submit(page, "sparse", first=first, second=second, first_side=":query", second_side=":document")
    encoder = page_encoders["splade"]
    rows = [encoder.encode_query([first]), encoder.encode_document([second])]
    expected: list[dict[str, float]] = [dict(encoder.decode(row)[0]) for row in rows]
    expected.append({term: expected[0][term] * expected[1][term] for term in expected[0].keys() & expected[1].keys()})
    found = bars(page)
    assert len(found[2]) > 2
    for shown, terms in zip(found, expected, strict=True):
        assert shown == pytest.approx(terms, abs=6e-5)
        assert list(shown.values()) == sorted(shown.values(), reverse=True)
    dot = float(rows[0].dot(rows[1])[0, 0])
    assert texts(page, "#sparse h2 small")[2] == f"{len(expected[2])} terms, dot product {dot:.4f}"
    put(page, "#sparse-second", " ")
    submit(page, "sparse")
    assert bars(page) == [found[0]]


def test_search(page: Page, page_encoders: dict[str, Any]) -> None:
    choose(page, "m3")
    submit(page, "search", texts="\n".join([*LINES, "", LINES[0]]), question="the red cat", reranker="words")
    lines = [*LINES, LINES[0]]
    encoder = page_encoders["m3"]
    heads = ("dense", "sparse", "colbert")
    query = encoder.represent(["the red cat"], heads, task="query", prompt_name="query")
    found = encoder.represent(lines, heads, task="document", prompt_name="document")
    scores = {
        "Dense": (query.dense @ found.dense.T)[0],
        "Sparse": query.sparse.dot(found.sparse)[0],
        "ColBERT": query.colbert.maxsim(found.colbert)[0],
    }
    scores["Hybrid"] = sum(scores.values()) / 3
    shown = rankings(page)
    assert list(shown) == ["Dense", "Sparse", "ColBERT", "Hybrid", "Reranked"]
    for title, expected in scores.items():
        assert [score for _, score in shown[title]] == pytest.approx(np.sort(expected)[::-1][:10].tolist(), abs=6e-5)
        assert all(score == pytest.approx(expected[lines.index(line)], abs=6e-5) for line, score in shown[title])
    words = [len({"the", "red", "cat"} & set(line.split())) - 1 for line in lines]
    expected = sorted((1 / (1 + np.exp(-word)) for word in words), reverse=True)[:10]
    assert [score for _, score in shown["Reranked"]] == pytest.approx(expected, abs=6e-5)
    assert all(len(column) == 10 for column in shown.values())
    before = len(bodies(page, "/v1/embeddings"))
    submit(page, "search", question="a boat")
    asked = bodies(page, "/v1/embeddings")[before:]
    assert [body["input"] for body in asked] == [["a boat"]]  # the lines' vectors are here already


def test_search_by_a_cross_encoder_alone(page: Page) -> None:
    choose(page, "words")
    submit(page, "search", texts="\n".join(LINES), question="the dog ran")
    assert [line for line, _ in rankings(page)["Reranked"]][:2] == ["a dog ran under the tree", "the dog"]


def test_the_figures_are_those_of_the_metrics(page: Page) -> None:
    submit(page, "similarity", texts="a cat")
    page.wait("!document.querySelector('#figures').hidden")
    shown = texts(page, "#figures span")
    assert shown[0] == "Queue: 0 texts, 0 tokens"
    assert shown[2].endswith(" since the start")
    count = int(shown[2].split()[0].replace(",", ""))
    text = page.evaluate("fetch('metrics').then((answer) => answer.text())")
    counts = [line for line in text.splitlines() if line.startswith("trivec_request_duration_seconds_count{")]
    total = sum(float(line.split()[-1]) for line in counts if 'model="tiny"' in line)
    assert 0 < count <= total <= count + 1


# ---- code ------------------------------------------------------------------------------------------------------------


def shell(text: str) -> list[Any]:
    """What the requests of a snippet give."""
    finished = subprocess.run(["bash", "-euc", text], capture_output=True, text=True, timeout=600, check=True)
    decoder, rest, found = json.JSONDecoder(), finished.stdout.strip(), []
    while rest:
        value, end = decoder.raw_decode(rest)
        found.append(value)
        rest = rest[end:].strip()
    return found


def test_curl_gives_what_is_shown(page: Page, page_encoders: dict[str, Any]) -> None:
    lines = [*LINES[:3], *HOSTILE[:4]]
    submit(page, "similarity", texts="\n".join(lines), side=":query")
    (answer,) = shell(code(page, "similarity", "curl"))
    vectors = np.array([item["embedding"] for item in answer["data"]])
    assert_allclose(vectors @ vectors.T, matrix(page), atol=2e-6)
    submit(page, "tokens", text="it's a cat")
    ((tokens,),) = shell(code(page, "tokens", "curl"))
    assert [str(token["id"]) for token in tokens] == texts(page, "#tokens small:nth-of-type(1)")
    choose(page, "m3")
    submit(page, "search", texts="\n".join(LINES), question="the red cat", reranker="words")
    query, documents, ranked = shell(code(page, "search", "curl"))
    scores = np.array([item["embedding"] for item in documents["data"]]) @ query["data"][0]["embedding"]
    shown = rankings(page)
    assert [score for _, score in shown["Dense"]] == pytest.approx(np.sort(scores)[::-1][:10].tolist(), abs=6e-5)
    found = [one["relevance_score"] for one in ranked["results"]]
    assert found == pytest.approx([score for _, score in shown["Reranked"]], abs=6e-5)


def test_python_gives_what_is_shown(page: Page) -> None:
    python = python_of("sdks", "the SDKs")

    def run(tab: str) -> str:
        text = code(page, tab, "python")
        return subprocess.run([python, "-Ic", text], capture_output=True, text=True, timeout=600, check=True).stdout

    submit(page, "similarity", texts="\n".join([*LINES[:3], *HOSTILE[:4]]), side=":document")
    printed = [float(number) for number in re.sub(r"[\[\]]", " ", run("similarity")).split()]
    assert_allclose(printed, matrix(page).ravel(), atol=6e-3)
    submit(page, "search", texts="\n".join(LINES), question='a "red" cat')
    shown = [f"{round(score, 3)} {line}" for line, score in rankings(page)["Dense"]]
    ranked = [line.partition(" ") for line in run("search").splitlines()]
    assert [f"{round(float(score), 3)} {line}" for score, _, line in ranked] == shown
    choose(page, "m3")
    submit(page, "sparse", first="the old cat", second="the cat")
    terms = [dict(ast.literal_eval(line)) for line in run("sparse").splitlines()]
    assert len(terms) == 2
    for given, row in zip(terms, bars(page), strict=False):
        assert given == pytest.approx(row, abs=6e-5)
