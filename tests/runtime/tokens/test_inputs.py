"""What people pass as texts: containers that keep them in order are read, others refused before anything is encoded."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal

import trivec
from trivec import DenseEncoder, InputError, store
from trivec._tokens.inputs import one_by_one
from trivec.integrations.langchain import TrivecEmbeddings
from trivec.integrations.llama_index import TrivecEmbedding
from trivec.integrations.milvus import BM25EmbeddingFunction, SentenceTransformerEmbeddingFunction
from trivec.integrations.qdrant import QdrantEncoder
from trivec.lexical import BM25
from trivec.util import paraphrase_mining

TEXTS = ["two boats", "", "a red train", "two boats", "snow: 雪"]
FRAME = pd.DataFrame({"n": range(5), "body": TEXTS}, index=[9, 3, 3, 7, 1])
ORDERED = {
    "a tuple": tuple(TEXTS),
    "a deque": deque(TEXTS),
    "a generator": None,  # made afresh each time
    "values of a dict": dict(enumerate(TEXTS)).values(),
    "an array of strings": np.array(TEXTS),
    "an array of objects": np.array(TEXTS, dtype=object),
    "an array of StringDType": np.array(TEXTS, dtype=np.dtypes.StringDType()),
    "a Series": FRAME["body"],
    "a Series of categories": FRAME["body"].astype("category"),
    "a Series in arrow": FRAME["body"].astype("string[pyarrow]"),
    "an Index": pd.Index(TEXTS),
    "an arrow array": pa.array(TEXTS),
    "an arrow dictionary": pa.array(TEXTS).dictionary_encode(),
    "chunks of arrow": pa.chunked_array([TEXTS[:2], [], TEXTS[2:]]),
    "large strings of arrow": pa.array(TEXTS, pa.large_string()),
    "a column of a table": pa.table({"body": TEXTS})["body"],
}


class Dataset:
    """As of the package datasets."""

    shape = (5, 1)
    column_names = ("body",)

    def __iter__(self) -> Iterator[dict[str, str]]:
        return iter([{"body": text} for text in TEXTS])


class OtherFrame:
    """As polars has it: no `ndim`, and columns where pandas gives names."""

    shape = (5, 1)
    columns = ("body",)

    def __iter__(self) -> Iterator[list[str]]:
        return iter([TEXTS])


COLUMN = r"Take one column: texts\['body'\]\."
REFUSED: dict[str, tuple[Any, str]] = {
    "a table of one column": (FRAME[["body"]], rf"got DataFrame\. {COLUMN}"),
    "a DataFrame": (FRAME.assign(text="x"), r"got DataFrame\. Take one column: texts\['text'\]\."),
    "an arrow table": (pa.table({"body": TEXTS}), rf"got Table\. {COLUMN}"),
    "an arrow batch": (pa.record_batch({"body": TEXTS}), rf"got RecordBatch\. {COLUMN}"),
    "a Dataset": (Dataset(), rf"got Dataset\. {COLUMN}"),
    "a frame of another package": (OtherFrame(), rf"got OtherFrame\. {COLUMN}"),
    "an array of rows": (
        np.array([TEXTS]),
        r"got ndarray\. Its shape is \(1, 5\); expected one text a row: texts\[:, 0\]\.",
    ),
    "a set": (set(TEXTS), r"got set\. It has no order, and row i is text i\. Type: sorted\(texts\)"),
    "a frozenset": (frozenset(TEXTS), r"got frozenset\. It has no order"),
    "a dict": (OrderedDict(a="b"), r"got OrderedDict\. Its values in order: list\(texts\.values\(\)\)"),
    "bytes": (b"two boats", r"got bytes\. Decode it first: texts\.decode\('utf-8'\)"),
}
ROWS = r".* \[row\[0\] for row in texts\]"
FILL = r".* Fill or drop missing values first: texts\.fillna\(''\)"
REFUSED |= {
    "pairs": (list(zip(TEXTS, TEXTS, strict=True)), f"got tuple{ROWS}"),
    "items of a dict": ({"a": "b"}.items(), f"got tuple{ROWS}"),
    "lists": ([TEXTS], f"got list{ROWS}"),
    "rows of a table": (FRAME.to_dict("records"), r"got dict.* \[row\['n'\] for row in texts\]"),
    "a Series with a missing text": (pd.Series(["a", None]), f"got (float|NoneType){FILL}"),
    "pandas' own missing text": (pd.Series(["a", pd.NA], dtype="string"), f"got NAType{FILL}"),
    "a missing text in arrow": (pa.array(["a", None]), f"got NoneType{FILL}"),
    "bytes in an array": (np.array(["a"], dtype="S"), r"got bytes.* Decode it first: text\.decode\('utf-8'\)"),
    "arrays in a list": ([np.array(TEXTS)], "got ndarray"),
}


@pytest.fixture(scope="module")
def encoder(tiny_model: Any) -> Iterator[DenseEncoder]:
    with trivec.load(tiny_model.folder, device="cpu", threads=1) as opened:
        yield opened


@pytest.mark.parametrize("kind", ORDERED)
def test_containers_with_an_order(encoder: DenseEncoder, kind: str) -> None:
    def again() -> Any:
        return (text for text in TEXTS) if kind == "a generator" else ORDERED[kind]

    expected = encoder.encode(TEXTS)
    assert_array_equal(encoder.encode(again()), expected)
    assert_array_equal(np.concatenate(list(encoder.encode_iter(again(), window=2))), expected)
    assert encoder.tokenize(again()) == encoder.tokenize(TEXTS)
    bm25 = BM25().fit(again())
    assert_array_equal(bm25.encode_documents(again()).to_dense(), BM25().fit(TEXTS).encode_documents(TEXTS).to_dense())


@pytest.fixture(scope="module")
def takers(encoder: DenseEncoder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Callable[[Any], object]]:
    folder = tmp_path_factory.mktemp("stores")
    name = Path(encoder.name)
    milvus = SentenceTransformerEmbeddingFunction(name, threads=1)
    qdrant, chain, index = QdrantEncoder(encoder), TrivecEmbeddings(encoder), TrivecEmbedding(encoder)
    bm25 = BM25().fit(TEXTS)
    return {
        "encode": encoder.encode,
        "encode_query": encoder.encode_query,
        "encode_iter": lambda texts: list(encoder.encode_iter(texts)),
        "tokenize": encoder.tokenize,
        "represent": encoder.represent,
        "write": lambda texts: store.write(folder / "out.jsonl", encoder, texts, overwrite=True),
        "paraphrase_mining": lambda texts: paraphrase_mining(encoder, texts),
        "BM25.fit": BM25().fit,
        "BM25.encode_documents": bm25.encode_documents,
        "BM25.encode_queries": bm25.encode_queries,
        "milvus": milvus.encode_documents,
        "milvus BM25": lambda texts: BM25EmbeddingFunction(corpus=texts),
        "qdrant": qdrant.points,
        "qdrant, streamed": lambda texts: list(qdrant.iter_points(texts)),
        "langchain": chain.embed_documents,
        "llama_index": index.get_text_embedding_batch,
        "llama_index, awaited": lambda texts: asyncio.run(index.aget_text_embedding_batch(texts)),
        "llama_index, queries": index.get_agg_embedding_from_queries,
    }


TAKERS = (
    *("encode", "encode_query", "encode_iter", "tokenize", "represent", "write", "paraphrase_mining", "milvus"),
    *("BM25.fit", "BM25.encode_documents", "BM25.encode_queries", "milvus BM25", "qdrant", "qdrant, streamed"),
    *("langchain", "llama_index", "llama_index, awaited", "llama_index, queries"),
)


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("taker", TAKERS)
def test_what_has_no_order_or_no_texts(takers: dict[str, Callable[[Any], object]], taker: str, kind: str) -> None:
    given, message = REFUSED[kind]
    alone = isinstance(given, bytes) and taker.startswith(("langchain", "llama_index", "milvus", "qdrant"))
    with pytest.raises(InputError, match="got one bytes" if alone else message):
        takers[taker](given)


def test_pyarrow_is_read_one_by_one() -> None:
    """A column may be larger than memory: its texts are made as they are asked for."""
    read = iter(one_by_one(pa.chunked_array([TEXTS]), "expected texts"))
    assert next(read) == TEXTS[0]
    assert not isinstance(read, list)


def test_ids_and_payloads_have_an_order_too(encoder: DenseEncoder) -> None:
    qdrant = QdrantEncoder(encoder)
    with pytest.raises(InputError, match=r"ids must be in the order of the texts, got set\."):
        qdrant.points(["a", "b"], ids={7, 3})  # type: ignore[arg-type]


def test_processes_take_the_same(encoder: DenseEncoder) -> None:
    with encoder.start_multi_process_pool(["cpu"]) as pool:
        assert_array_equal(encoder.encode(FRAME["body"], pool=pool), encoder.encode(TEXTS))
        for call in (
            lambda: encoder.encode(FRAME[["body"]], pool=pool),
            lambda: encoder.encode_multi_process(FRAME[["body"]], pool),
            lambda: list(encoder.encode_iter(FRAME[["body"]], pool=pool)),
        ):
            with pytest.raises(InputError, match=COLUMN):
                call()
