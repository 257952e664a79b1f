"""Scores of pairs by a tiny reranker, against numpy: every argument, every error."""

import asyncio
import json
import math
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tests.support.rerankers import TinyReranker, write_tiny_reranker

import trivec
from trivec import InputError, ModelFormatError, NonFiniteError, Reranker, TruncationError
from trivec._engine.session import Session
from trivec._inspect.info import info

PAIRS = [
    ("the cat", "sat on the mat"),
    ("", "a small red boat"),
    ("the cat", ""),
    ("the cat", "sat on the mat"),
    ("the cat sat", "on the mat"),
    ("dog " * 30, "boat " * 30),
    ("dog", "boat " * 30),
    ("[SEP] a dog", "a [SEP] boat"),
]
LABELS = ("contradiction", "entailment", "neutral")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyReranker:
    return write_tiny_reranker(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> TinyReranker:
    return write_tiny_reranker(tmp_path_factory.mktemp("three") / "model", LABELS, "identity")


def load(model: TinyReranker, **options: Any) -> Reranker:
    return trivec.load(model.folder, kind="reranker", device="cpu", **options)


@pytest.fixture
def reranker(tiny: TinyReranker) -> Iterator[Reranker]:
    with load(tiny, threads=1) as model:
        yield model


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def test_scores(tiny: TinyReranker, reranker: Reranker) -> None:
    logits = tiny.logits(PAIRS)[:, 0]
    scores = reranker.predict(PAIRS)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, sigmoid(logits), rtol=1e-5)
    np.testing.assert_allclose(reranker.predict(PAIRS, activation_fn="identity"), logits, rtol=1e-5)
    assert (reranker.labels, reranker.num_labels, reranker.activation) == ((), 1, "sigmoid")
    assert reranker.heads == ("score",)
    one = reranker.predict(PAIRS[4])
    assert type(one) is np.float32
    np.testing.assert_allclose(one, scores[4], rtol=1e-6)
    assert type(reranker.predict(list(PAIRS[4]))) is np.float32
    nothing = reranker.predict([])
    assert (nothing.shape, nothing.dtype) == ((0,), np.float32)
    for lanes in (1, 2, 3):
        with load(tiny, threads=lanes) as other:
            for batch_size in (1, 2, 32):
                np.testing.assert_allclose(other.predict(PAIRS * 3, batch_size=batch_size), [*scores] * 3, rtol=1e-6)
    assert repr(reranker).startswith("Reranker(")
    assert "labels=1, fp32, cpu)" in repr(reranker)


def test_the_second_text_has_types_of_its_own(tiny: TinyReranker, reranker: Reranker) -> None:
    """The same ids, cut elsewhere into two texts, score otherwise."""
    pairs = [("a [SEP] dog", "boat"), ("a", "dog [SEP] boat")]
    assert reranker.tokenize(pairs)[0] == reranker.tokenize(pairs)[1]
    scores = reranker.predict(pairs, activation_fn="identity")
    assert abs(scores[0] - scores[1]) > 1e-3
    np.testing.assert_allclose(scores, tiny.logits(pairs)[:, 0], rtol=1e-5)


def test_several_labels(three: TinyReranker) -> None:
    logits = three.logits(PAIRS)
    with load(three) as reranker:
        assert reranker.labels == LABELS
        np.testing.assert_allclose(reranker.predict(PAIRS), logits, rtol=1e-5)
        assert reranker.predict(PAIRS[0]).shape == (3,)
        assert reranker.predict([]).shape == (0, 3)
        powers = np.exp(logits)
        softened = powers / powers.sum(1, keepdims=True)
        np.testing.assert_allclose(reranker.predict(PAIRS, apply_softmax=True), softened, rtol=1e-4)
        powers = np.exp(sigmoid(logits))
        both = reranker.predict(PAIRS, apply_softmax=True, activation_fn="sigmoid")
        np.testing.assert_allclose(both, powers / powers.sum(1, keepdims=True), rtol=1e-4)
        with pytest.raises(InputError, match=r"rank is for models of one label, and this one has 3: contradiction"):
            reranker.rank("a", ["b"])
        with pytest.raises(InputError, match=r"compute_score is for models of one label"):
            reranker.compute_score(("a", "b"))


def test_activations(tiny: TinyReranker, reranker: Reranker) -> None:
    logits = tiny.logits(PAIRS)[:, 0]
    given: dict[str, Any] = {"sigmoid": sigmoid(logits), "tanh": np.tanh(logits), "identity": logits}
    for name, expected in given.items():
        np.testing.assert_allclose(reranker.predict(PAIRS, activation_fn=name), expected, rtol=1e-5)
    np.testing.assert_allclose(reranker.predict(PAIRS, activation_fn=torch.nn.Sigmoid()), sigmoid(logits), rtol=1e-5)
    np.testing.assert_allclose(reranker.predict(PAIRS, activation_fn=torch.nn.Identity()), logits, rtol=1e-5)
    np.testing.assert_allclose(reranker.predict(PAIRS, activation_fn=lambda x: 2 * x), 2 * logits, rtol=1e-5)
    np.testing.assert_allclose(reranker.predict(PAIRS, activation_fn=lambda x: (2 * x).tolist()), 2 * logits, rtol=1e-5)
    for wrong in ("softmax", 3, torch.nn.Softmax(dim=1), torch.nn.Linear(1, 1)):
        with pytest.raises(InputError, match=r"activation_fn .* is not one of None, 'identity'"):
            reranker.predict(PAIRS, activation_fn=wrong)
    with pytest.raises(InputError, match=r"activation_fn made \(8,\) of the logits \(8, 1\)"):
        reranker.predict(PAIRS, activation_fn=lambda x: x[:, 0])


def test_forms(tiny: TinyReranker, reranker: Reranker) -> None:
    scores = reranker.predict(PAIRS)
    tensor = reranker.predict(PAIRS, convert_to_tensor=True)
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_array_equal(tensor.numpy(), scores)
    assert reranker.predict(PAIRS[0], convert_to_tensor=True).shape == ()
    listed = reranker.predict(PAIRS, convert_to_numpy=False)
    assert [float(each) for each in listed] == scores.tolist()
    frame = pd.DataFrame(PAIRS, columns=["q", "d"])
    for form in (tuple(PAIRS), (p for p in PAIRS), np.array(PAIRS), np.array(PAIRS, dtype=object), frame.to_numpy()):
        np.testing.assert_array_equal(reranker.predict(form), scores)
    np.testing.assert_array_equal(reranker.predict([list(pair) for pair in PAIRS]), scores)
    np.testing.assert_array_equal(reranker.predict(zip(frame["q"], frame["d"], strict=True)), scores)
    np.testing.assert_array_equal(reranker.predict(sentences=PAIRS), scores)
    assert reranker.predict(np.array(PAIRS[0])).shape == ()


def test_rank(tiny: TinyReranker, reranker: Reranker) -> None:
    documents = ["a dog", "the boat", "a dog", "", "a small tree"]
    scores = sigmoid(tiny.logits([("the cat", text) for text in documents])[:, 0])
    order = np.argsort(-scores, kind="stable")
    ranked = reranker.rank("the cat", documents)
    assert [row["corpus_id"] for row in ranked] == order.tolist()
    np.testing.assert_allclose([row["score"] for row in ranked], scores[order], rtol=1e-5)
    assert {type(row["score"]) for row in ranked} == {float}
    assert {tuple(row) for row in ranked} == {("corpus_id", "score")}
    same = [row["corpus_id"] for row in ranked if row["corpus_id"] in (0, 2)]
    assert same == [0, 2]
    best = reranker.rank("the cat", pd.Series(documents), top_k=2, return_documents=True, activation_fn="identity")
    assert [row["text"] for row in best] == [documents[row] for row in order[:2]]
    assert len(reranker.rank("the cat", documents, top_k=99)) == 5
    assert reranker.rank("the cat", []) == []
    for top_k in (0, -1, 1.5, True):
        with pytest.raises(InputError, match="top_k must be a positive integer or None"):
            reranker.rank("the cat", documents, top_k=top_k)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ("a text", r"expected a pair of texts or an iterable of pairs, got one text: 'a text'"),
        (None, r"expected a pair of texts or an iterable of pairs, got NoneType"),
        ([("a", "b"), "c d"], r"expected two texts for the pair at index 1, got str: 'c d'.* Nothing was scored"),
        ([("a", "b"), ("a", "b", "c")], r"expected two texts for the pair at index 1, got 3\."),
        (("a", "b", "c"), r"expected two texts for the pair, got 3\."),
        (["a"], r"expected two texts for the pair, got 1\."),
        ([("a", "b"), ("a", None)], r"for the pair at index 1, got NoneType as the second: 'None'"),
        ([("a", "b"), (math.nan, "b")], r"for the pair at index 1, got float as the first: 'nan'"),
        ([None], r"for the pair at index 0, got NoneType"),
        ([("a", "b"), {"a": "b"}], r"for the pair at index 1, got dict"),
        ({"a": "b"}, r"expected a pair of texts or an iterable of pairs, got dict"),
        ([("a", "b"), ("a", "x\ud800")], r"the second text of the pair at index 1 holds a lone surrogate"),
        ([("a", "b"), ("\udfffx", "x")], r"the first text of the pair at index 1 holds a lone surrogate"),
    ],
)
def test_bad_pairs(inputs: Any, said: str, reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("something ran")

    monkeypatch.setattr(Session, "run_all", never)
    with pytest.raises(InputError, match=said):
        reranker.predict(inputs)


@pytest.mark.parametrize(
    ("query", "documents", "said"),
    [
        ("a", "one text", r"expected a list of documents, got one text\. Type: rank\(query, \[document\]\)"),
        ("a", None, r"expected a list of documents, got None"),
        ("a", ["b", None], r"expected strings, got NoneType at index 1"),
        ("a", ["b", ("c", "d")], r"expected strings, got tuple at index 1"),
        (None, ["b"], r"expected a query that is a text, got NoneType"),
        (["a"], ["b"], r"expected a query that is a text, got list"),
        ("a", {"b", "c"}, r"expected a text or an iterable of texts, got set"),
    ],
)
def test_bad_documents(query: Any, documents: Any, said: str, reranker: Reranker) -> None:
    with pytest.raises(InputError, match=said):
        reranker.rank(query, documents)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 0}, "batch_size must be a positive integer"),
        ({"on_overflow": "cut"}, "on_overflow 'cut' is not one of"),
        ({"prompt_name": "none"}, r"prompt_name 'none' is none of this model's prompts \['query'\]"),
        ({"prompt": 3}, "prompt must be a string"),
        ({"device": "cuda"}, "this encoder runs on cpu"),
        ({"pool": {}}, "pool must come from start_multi_process_pool"),
        ({"sentences": [("a", "b")]}, "as inputs or as sentences, not both"),
    ],
)
def test_bad_options(options: dict[str, Any], said: str, reranker: Reranker) -> None:
    with pytest.raises(InputError, match=said):
        reranker.predict(PAIRS, **options)


def test_what_means_nothing_of_a_reranker(tiny: TinyReranker, tiny_folder: Path) -> None:
    given: dict[str, Any] = {"truncate_dim": 3, "max_active_dims": 3, "similarity_fn_name": "dot"}
    for name, value in given.items():
        with pytest.raises(InputError, match=f"{name} is for vectors"):
            load(tiny, **{name: value})
    with pytest.raises(InputError, match=r"pooling='cls'"):
        load(tiny, pooling="cls")
    with pytest.raises(InputError, match=r'is a reranker model, and kind=\'dense\' was asked.*kind="reranker"'):
        trivec.load(tiny.folder, kind="dense")
    with pytest.raises(InputError, match=r"is a dense model, and kind='reranker'"):
        trivec.load(tiny_folder, kind="reranker")


def test_prompts(tiny: TinyReranker, reranker: Reranker) -> None:
    prompt = tiny.prompts["query"]
    expected = sigmoid(tiny.logits(PAIRS, prompt)[:, 0])
    np.testing.assert_allclose(reranker.predict(PAIRS, prompt_name="query"), expected, rtol=1e-5)
    np.testing.assert_allclose(reranker.predict(PAIRS, prompt=prompt), expected, rtol=1e-5)
    with load(tiny, default_prompt_name="query") as other:
        np.testing.assert_allclose(other.predict(PAIRS), expected, rtol=1e-5)
        assert other.fingerprint == reranker.fingerprint_of("query")


def test_cut_pairs(tiny: TinyReranker, reranker: Reranker) -> None:
    assert reranker.tokenize(PAIRS) == [tiny.ids(pair)[0] for pair in PAIRS]
    assert {len(row) for row in reranker.tokenize(PAIRS[5:7])} == {16}
    reranker.predict([*PAIRS, PAIRS[5]])
    assert reranker.truncated == 3
    with pytest.raises(TruncationError, match=r"2 of 8 pairs are longer than 16 tokens, the first at index 5"):
        reranker.predict(PAIRS, on_overflow="error")
    with pytest.raises(InputError, match=r"max_seq_length must be a whole number above the 3 special tokens"):
        reranker.max_seq_length = 3
    with pytest.raises(InputError, match=r"at most 32"):
        reranker.max_seq_length = 64
    before = reranker.fingerprint
    reranker.max_seq_length = 32
    assert reranker.fingerprint != before
    assert len(reranker.tokenize([PAIRS[6]])[0]) == 32


def test_equal_pairs_run_once(reranker: Reranker, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    run = Session.run_all

    def counted(self: Session, ids: Any, outputs: Any, second: Any = None) -> Any:
        rows.append(len(ids))
        return run(self, ids, outputs, second)

    monkeypatch.setattr(Session, "run_all", counted)
    scores = reranker.predict(PAIRS * 3)
    assert sum(rows) == 7
    np.testing.assert_array_equal(scores[:8], scores[8:16])


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    words = np.ones((24, 2), np.float32)
    words[9, 1] = np.nan  # "sat"
    broken = write_tiny_reranker(tmp_path / "model", ("a", "b"), words=words)
    with (
        load(broken) as reranker,
        pytest.raises(
            NonFiniteError,
            match=r"3 of 8 scores are NaN or infinite, the first that of the pair at index 0: 'the cat' and",
        ),
    ):
        reranker.predict(PAIRS)


def test_windows(reranker: Reranker) -> None:
    scores = reranker.predict(PAIRS)
    blocks = list(reranker.predict_iter(iter(PAIRS), window=3))
    assert [len(block) for block in blocks] == [3, 3, 2]
    np.testing.assert_allclose(np.concatenate(blocks), scores, rtol=1e-6)
    raw = np.concatenate(list(reranker.predict_iter(PAIRS, window=3, activation_fn="identity")))
    np.testing.assert_allclose(sigmoid(raw), scores, rtol=1e-5)
    with pytest.raises(InputError, match=r"predict_iter takes an iterable of pairs, got one text"):
        reranker.predict_iter("a text")
    with pytest.raises(InputError, match="window must be a whole number"):
        reranker.predict_iter(PAIRS, window=0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'batch'"):
        reranker.predict_iter(PAIRS, batch=3)
    found = reranker.predict_iter([*PAIRS[:4], ("a", 3)], window=2)  # type: ignore[list-item]
    assert [len(next(found)), len(next(found))] == [2, 2]
    with pytest.raises(InputError, match=r"in the block that starts at text 4: .* index 0, got int as the second"):
        next(found)
    with pytest.raises(InputError, match=r"expected two texts for the pair at index 0, got str"):
        next(reranker.predict_iter(("a", "b")))


def test_coroutines(reranker: Reranker) -> None:
    async def both() -> tuple[Any, Any]:
        return await asyncio.gather(reranker.apredict(PAIRS), reranker.arank("the cat", ["a dog", "a boat"], top_k=1))

    scores, ranked = asyncio.run(both())
    np.testing.assert_array_equal(scores, reranker.predict(PAIRS))
    assert ranked == reranker.rank("the cat", ["a dog", "a boat"], top_k=1)
    assert reranker.apredict.__name__ == "apredict"


def test_processes_and_pickles(tiny: TinyReranker, reranker: Reranker, every_core: None) -> None:
    scores = reranker.predict(PAIRS * 4)
    twin: Reranker = pickle.loads(pickle.dumps(reranker))
    assert (twin.fingerprint, twin.max_seq_length) == (reranker.fingerprint, 16)
    np.testing.assert_array_equal(twin.predict(PAIRS * 4), scores)
    before = reranker.truncated
    with reranker.start_multi_process_pool(["cpu", "cpu"]) as pool:
        np.testing.assert_allclose(reranker.predict(PAIRS * 4, pool=pool, chunk_size=5), scores, rtol=1e-6)
        assert reranker.truncated == before + 8
        function = reranker.predict(PAIRS, pool=pool, activation_fn=lambda x: -x)  # not pickled
        np.testing.assert_allclose(function, -tiny.logits(PAIRS)[:, 0], rtol=1e-5)
        blocks = list(reranker.predict_iter(iter(PAIRS), window=3, pool=pool))
        np.testing.assert_allclose(np.concatenate(blocks), scores[:8], rtol=1e-6)
        ranked = reranker.rank("the cat", ["a dog", "a boat"], pool=pool)
        assert [row["corpus_id"] for row in ranked] == [
            row["corpus_id"] for row in reranker.rank("the cat", ["a dog", "a boat"])
        ]
        assert reranker.predict([], pool=pool).shape == (0,)


def test_fingerprints(tiny: TinyReranker, three: TinyReranker, reranker: Reranker) -> None:
    plain = reranker.fingerprint
    assert plain == reranker.fingerprint_of(activation_fn="sigmoid") == reranker.fingerprint_of(apply_softmax=True)
    others = {
        reranker.fingerprint_of(activation_fn="identity"),
        reranker.fingerprint_of(prompt="x"),
        reranker.fingerprint_of("query"),
        reranker.reading(max_length=8).fingerprint,
        reranker.reading(side="left").fingerprint,
    }
    assert len(others | {plain}) == 6
    with load(three) as other:
        assert other.fingerprint != plain
        assert other.fingerprint_of(apply_softmax=True) != other.fingerprint
    with pytest.raises(InputError, match="activation_fn 'other'"):
        reranker.fingerprint_of(activation_fn="other")


def test_a_closed_one_raises(tiny: TinyReranker) -> None:
    reranker = load(tiny)
    reranker.close()
    with pytest.raises(InputError, match="is closed"):
        reranker.predict(PAIRS)
    assert "closed" in repr(reranker)


def test_threads(reranker: Reranker) -> None:
    from concurrent.futures import ThreadPoolExecutor

    expected = reranker.predict(PAIRS)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: reranker.predict(PAIRS), range(32)):
            np.testing.assert_array_equal(found, expected)


def changed(folder: Path, **changes: Any) -> str:
    """The manifest with other fields of its route, and of itself."""
    data = json.loads((folder / "trivec.json").read_text())
    route = data["routes"]["default"]
    for key, value in changes.items():
        (data if key in data else route["score"] if key in route["score"] else route)[key] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"score": None}, r"routes\.default\.score is missing"),
        ({"output": ""}, r"routes\.default\.score names no output"),
        ({"labels": ["a", "b"]}, r"routes\.default\.score has 2 labels, and dim is 1"),
        ({"activation": "step"}, r"unknown activation 'step'"),
        ({"pooling": {"modes": ["mean"]}}, r"routes\.default pools, and scores of pairs are not pooled"),
        ({"family": "dense"}, r"has heads that a dense model does not have"),
        ({"labels": ["a", "b"], "dim": 2}, r"route default gives 1 numbers, not 2"),
    ],
)
def test_manifests_that_are_wrong(changes: dict[str, Any], said: str, tiny: TinyReranker, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny.folder, tmp_path / "model"))
    (folder / "trivec.json").write_text(changed(folder, **changes))
    with pytest.raises(ModelFormatError, match=said):
        trivec.load(folder, device="cpu")


def test_token_types_that_are_not_told_by_one_number(tmp_path: Path) -> None:
    tiny = write_tiny_reranker(tmp_path / "model")
    tokenizer = json.loads((tiny.folder / "tokenizer.json").read_text())
    for part in tokenizer["post_processor"]["pair"]:
        next(iter(part.values()))["type_id"] ^= 1
    (tiny.folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    manifest = json.loads((tiny.folder / "trivec.json").read_text())
    manifest["encoders"]["main"]["tokenizer"] = {"path": "tokenizer.json"}
    (tiny.folder / "trivec.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelFormatError, match=r"gives the token types \[1, 1, 1, 0, 0\] to the pair"):
        trivec.load(tiny.folder, device="cpu", expect="unverified")


def test_info(tiny: TinyReranker, three: TinyReranker) -> None:
    assert "main -> a relevance -> sigmoid" in info(str(tiny.folder))
    assert "main -> contradiction, entailment, neutral -> identity" in info(str(three.folder))
