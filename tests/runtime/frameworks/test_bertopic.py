"""BERTopic's backend: topics of SciFact that outlive their file, and no model but the one that was given."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bertopic import BERTopic
from bertopic.vectorizers import ClassTfidfTransformer
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from tests.runtime.frameworks.conftest import Expected, SciFact

import trivec
from trivec import InputError
from trivec.integrations.bertopic import TrivecBackend


def topic_model(backend: TrivecBackend) -> BERTopic:
    """Without UMAP and HDBSCAN: what they compile takes longer than the test."""
    return BERTopic(
        embedding_model=backend,
        umap_model=PCA(5, random_state=0),
        hdbscan_model=KMeans(4, random_state=0, n_init=1),
        ctfidf_model=ClassTfidfTransformer(),
    )


@pytest.mark.parametrize("serialization", ["pickle", "safetensors"])
def test_scifact(
    minilm: Path,
    prompted: dict[str, Any],
    scifact: SciFact,
    expected: Expected,
    tmp_path: Path,
    serialization: str,
) -> None:
    backend = TrivecBackend(minilm, **prompted)
    np.testing.assert_array_equal(backend.embed_documents(scifact.texts, verbose=True), expected.documents)
    model = topic_model(backend)
    topics, _ = model.fit_transform(scifact.texts)
    given, _ = topic_model(backend).fit_transform(scifact.texts, expected.documents)
    assert topics == given
    assert len(set(topics)) == 4

    asked = "cancer of the blood"
    encoder: Any = backend.encoder
    query = encoder.encode_query([asked])
    ranked = np.argsort(-_cosines(query, np.asarray(model.topic_embeddings_)), kind="stable")
    assert model.find_topics(asked, top_n=4)[0] == [sorted(set(topics))[place] for place in ranked]

    path = tmp_path / "topics"
    if serialization == "pickle":
        model.save(path, serialization="pickle", save_embedding_model=True)
        again = BERTopic.load(path)
        assert type(again.embedding_model) is TrivecBackend
        assert again.embedding_model.fingerprint == backend.fingerprint
    else:
        model.save(path, serialization="safetensors", save_ctfidf=True)
        again = BERTopic.load(path, embedding_model=TrivecBackend(minilm, **prompted))
    assert [word for word, _ in again.get_topic(0)] == [word for word, _ in model.get_topic(0)]
    found, _ = again.transform(scifact.texts[:20])
    if serialization == "pickle":
        assert list(found) == list(model.transform(scifact.texts[:20])[0])
    else:  # the file has no KMeans: BERTopic takes the nearest topic
        nearest = _rows(expected.documents[:20], np.asarray(model.topic_embeddings_)).argmax(axis=1)
        assert list(found) == nearest.tolist()


def _rows(a: Any, b: Any) -> Any:
    """(N, M) cosines."""
    return (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T


def _cosines(query: Any, rows: Any) -> Any:
    """(M,)"""
    return _rows(query, rows)[0]


def test_no_other_model(
    tiny_folder: Path, minilm: Path, scifact: SciFact, prompted: dict[str, Any], tmp_path: Path
) -> None:
    with trivec.load(tiny_folder, device="cpu", threads=1) as encoder:
        told = r"is no backend, and another model would be fetched in its place\. Type: BERTopic\(embedding_model="
        with pytest.raises(InputError, match=told):
            BERTopic(embedding_model=encoder).fit_transform(scifact.texts)
        backend = TrivecBackend(minilm, **prompted)
        model = topic_model(backend)
        model.fit(scifact.texts)
        model.save(tmp_path / "topics", serialization="safetensors")
        with pytest.raises(InputError, match=told):
            BERTopic.load(tmp_path / "topics", embedding_model=encoder)
    alone = BERTopic.load(tmp_path / "topics")  # BERTopic warns, and has none
    with pytest.raises((TypeError, ValueError, AttributeError)):
        alone.transform(scifact.texts[:2])


def test_what_is_refused(tiny_folder: Path) -> None:
    backend = TrivecBackend(tiny_folder, device="cpu", threads=1)
    with pytest.raises(InputError, match="at index 1"):
        backend.embed(["a cat", None])
    with pytest.raises(InputError, match="expected a list of texts, got one str"):
        backend.embed_words("a cat")
    with pytest.raises(InputError, match=r"normalise=True is no option of this model"):
        TrivecBackend(tiny_folder, encode_options={"normalise": True})
    assert backend.embed([]).shape == (0, backend.encoder.dim)
