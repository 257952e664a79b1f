"""After the main thread has ended, Python starts no threads and its executors take no work; texts are encoded.

Each script does its work in a function that is called at exit (`atexit`), or in a thread that outlives the main one.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from tests.support.script import run_script
from tests.support.static_models import model2vec_folder
from tests.support.tiny_model import TinyModel

import trivec

WORDS = ("boat", "hill", "red", "find", "the", "mat", "tree", "sat", "bird")
TEXTS = [" ".join(WORDS[(n * n + 5 * i) % 9] for i in range(1 + n % 7)) for n in range(200)]

START = """
import asyncio, atexit, sys, threading, time
import numpy as np
import trivec

WORDS = ("boat", "hill", "red", "find", "the", "mat", "tree", "sat", "bird")
TEXTS = [" ".join(WORDS[(n * n + 5 * i) % 9] for i in range(1 + n % 7)) for n in range(200)]
folder, out, when, *rest = sys.argv[1:]


def at_the_end(work):
    "Have it done after the main thread has ended, and what it returns saved."
    def save():
        np.save(out, work())
    if when == "atexit":
        atexit.register(save)
        return
    def late():
        threading.main_thread().join()
        time.sleep(0.1)
        save()
    threading.Thread(target=late).start()

"""
ENDS = pytest.mark.parametrize("when", ["atexit", "thread"])


def at_the_end(code: str, folder: Path, tmp_path: Path, when: str, *arguments: object) -> Any:
    out = tmp_path / "rows.npy"
    run_script(START + code, folder, out, when, *arguments)
    return np.load(out)


@ENDS
@pytest.mark.parametrize("warm", ["warm", "cold"])
def test_calls_of_an_encoder(tiny_model: TinyModel, tmp_path: Path, when: str, warm: str) -> None:
    code = """
encoder = trivec.load(folder, device="cpu", threads=2)
if rest == ["warm"]:
    encoder.encode(TEXTS)  # its threads and its second session are there

def work():
    return np.stack([
        encoder.encode(TEXTS),
        np.concatenate(list(encoder.encode_iter(TEXTS, window=60))),
        asyncio.run(encoder.aencode(TEXTS)),
        encoder.encode(TEXTS, device=["cpu", "cpu"]),
        np.concatenate(list(encoder.encode_iter(TEXTS, window=60, device=["cpu", "cpu"]))),
        encoder.represent(TEXTS).dense,
    ])

at_the_end(work)
"""
    found = at_the_end(code, tiny_model.folder, tmp_path, when, warm)
    for rows in found:
        assert_allclose(rows, tiny_model.expected(TEXTS), atol=1e-6)


@ENDS
def test_an_iterator_that_is_under_way(tiny_model: TinyModel, tmp_path: Path, when: str) -> None:
    code = """
encoder = trivec.load(folder, device="cpu", threads=2)
blocks = encoder.encode_iter(TEXTS, window=30)
first = next(blocks)
at_the_end(lambda: np.concatenate([first, *blocks]))
"""
    assert_allclose(at_the_end(code, tiny_model.folder, tmp_path, when), tiny_model.expected(TEXTS), atol=1e-6)


@ENDS
@pytest.mark.parametrize("warm", ["warm", "cold"])
def test_a_pool_and_a_batcher(tiny_model: TinyModel, tmp_path: Path, when: str, warm: str) -> None:
    code = """
def work():
    found = [batcher.encode(text) for text in TEXTS[:20]]
    found += [batcher.submit(text).result() for text in TEXTS[20:40]]
    async def ask():
        return await asyncio.gather(*(batcher.aencode(text) for text in TEXTS[40:60]))
    found += asyncio.run(ask())
    return np.concatenate([np.stack(found), encoder.encode(TEXTS[60:], pool=pool)])

at_the_end(work)  # before what trivec itself does at exit is known
encoder = trivec.load(folder, device="cpu", threads=2)
batcher = trivec.Batcher(encoder)
pool = encoder.start_multi_process_pool(["cpu"]) if rest == ["warm"] else None
if rest == ["warm"]:
    batcher.submit("a").result()  # its thread is there
"""
    found = at_the_end(code, tiny_model.folder, tmp_path, when, warm)
    assert_allclose(found, tiny_model.expected(TEXTS), atol=1e-6)


@ENDS
def test_a_batcher_encodes_what_waits_and_then_ends_its_thread(
    tiny_model: TinyModel, tmp_path: Path, when: str
) -> None:
    code = """
encoder = trivec.load(folder, device="cpu", threads=2)
go = threading.Event()

class Slow:
    def encode(self, inputs, **_):
        go.wait()
        return encoder.encode(inputs)
    encode_query = encode_document = encode

batcher = trivec.Batcher(Slow())
waiting = [batcher.submit(text) for text in TEXTS]
at_the_end(lambda: np.stack([future.result() for future in waiting]))
threading.Timer(0.3, go.set).start()
"""
    assert_allclose(at_the_end(code, tiny_model.folder, tmp_path, when), tiny_model.expected(TEXTS), atol=1e-6)


@ENDS
def test_static_models(tmp_path: Path, when: str) -> None:
    code = """
encoder = trivec.load(folder)
at_the_end(lambda: encoder.encode(TEXTS * 30))  # 6,000 texts, which are read in parts
"""
    folder = model2vec_folder(tmp_path / "static")
    found = at_the_end(code, folder, tmp_path, when)
    with trivec.load(folder) as encoder:
        assert_array_equal(found, encoder.encode(TEXTS * 30))


@ENDS
def test_searches_and_adapters(tiny_model: TinyModel, tmp_path: Path, when: str) -> None:
    code = """
from trivec import lexical, util
from trivec.integrations._text_model import TextModel

encoder = trivec.load(folder, device="cpu", threads=2)
model = TextModel(encoder, ("dense",))
rows = encoder.encode(TEXTS)

def work():
    documents = asyncio.run(model.apart(model.documents, TEXTS))
    query = asyncio.run(model.aquery(TEXTS[3]))
    hits = util.semantic_search(rows[:1], rows, score_function=util.manhattan_sim, top_k=1)
    terms = lexical.BM25(workers=2).fit(TEXTS * 2).encode_documents(TEXTS[:3])
    assert hits[0][0]["score"] == 0.0 and len(terms) == 3
    return np.concatenate([documents.dense, query.dense[None], model.query(TEXTS[4]).dense[None]])

at_the_end(work)
"""
    found = at_the_end(code, tiny_model.folder, tmp_path, when)
    expected = tiny_model.expected([*TEXTS, *(f"find the {text}" for text in TEXTS[3:5])])
    assert_allclose(found, expected, atol=1e-6)
