"""The kinds that `load` is asked for; tests/test_types.py has what type checkers make of them."""

import inspect
from pathlib import Path
from typing import Any

import pytest

import trivec
from trivec._loading.load_keywords import LoadKeywords
from trivec._loading.neutral_arguments import _REASONS

GOLDEN = Path(__file__).parents[2] / "golden"
KINDS = {"dense": "dense", "splade": "sparse", "hybrid": "hybrid", "static": "static"}
CLASSES: dict[str, type] = {
    "dense": trivec.DenseEncoder,
    "sparse": trivec.SparseEncoder,
    "hybrid": trivec.HybridEncoder,
    "static": trivec.StaticEncoder,
}


def test_every_argument_of_load_is_typed() -> None:
    parameters = inspect.signature(trivec.load).parameters
    keywords = {name for name, one in parameters.items() if one.kind is one.KEYWORD_ONLY} - {"kind"}
    assert set(LoadKeywords.__annotations__) == keywords | _REASONS.keys()


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("name", KINDS)
def test_a_kind_is_what_comes_or_an_error(name: str, kind: Any) -> None:
    options: dict[str, Any] = {"device": "cpu", "threads": 1}
    if issubclass(CLASSES[KINDS[name]], CLASSES[kind]):
        with trivec.load(GOLDEN / name, kind=kind, **options) as encoder:
            assert isinstance(encoder, CLASSES[kind])
        return
    with pytest.raises(trivec.InputError) as caught:
        trivec.load(GOLDEN / name, kind=kind, **options)
    folder = str(GOLDEN / name)
    assert str(caught.value) == (
        f"{folder} is a {KINDS[name]} model, and kind={kind!r} was asked for. "
        f'Type: trivec.load({folder!r}, kind="{KINDS[name]}")'
    )


def test_a_kind_that_there_is_not() -> None:
    wrong: Any = "rerank"
    with pytest.raises(
        trivec.InputError, match=r"^kind 'rerank' is none of dense, hybrid, late, reranker, sparse, static\.$"
    ):
        trivec.load("nowhere", kind=wrong)
