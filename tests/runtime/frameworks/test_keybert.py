"""KeyBERT's backend: keywords of SciFact, and no model but the one that was given."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keybert import KeyBERT
from sklearn.feature_extraction.text import CountVectorizer
from tests.runtime.frameworks.conftest import Expected, SciFact

import trivec
from trivec import InputError
from trivec.integrations.keybert import TrivecBackend


def test_scifact(minilm: Path, prompted: dict[str, Any], scifact: SciFact, expected: Expected) -> None:
    backend = TrivecBackend(minilm, **prompted)
    texts = scifact.texts[:5]
    np.testing.assert_array_equal(backend.embed(texts), expected.documents[:5])
    model = KeyBERT(backend)
    found = model.extract_keywords(texts, top_n=3)
    vectorizer = CountVectorizer(stop_words="english").fit(texts)
    words = vectorizer.get_feature_names_out()
    encoder: Any = backend.encoder
    vectors = encoder.encode_document(list(words))
    counts = vectorizer.transform(texts).toarray()  # (5, words)
    for row, keywords in enumerate(found):
        own = np.flatnonzero(counts[row])
        cosines = vectors[own] @ expected.documents[row]
        best = np.argsort(-cosines, kind="stable")[:3]
        assert [word for word, _ in keywords] == [words[own[place]] for place in best]
        assert [score for _, score in keywords] == pytest.approx(cosines[best], abs=1e-4)
    again = pickle.loads(pickle.dumps(backend))
    assert KeyBERT(again).extract_keywords(texts, top_n=3) == found


def test_no_other_model(tiny_folder: Path) -> None:
    with trivec.load(tiny_folder, device="cpu", threads=1) as encoder:
        told = r"would be fetched in its place\. Type: KeyBERT\(TrivecBackend\(encoder\)\), with: from trivec"
        with pytest.raises(InputError, match=told):
            KeyBERT(encoder)
        assert KeyBERT(TrivecBackend(encoder)).extract_keywords("the old cat", top_n=1)[0][0] in ("old", "cat")
