"""A checkpoint of late interaction that is misread in one thing does not pass: sentence-transformers reads it, too."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.support.late_models import SEVERAL, pylate

import trivec
from trivec._model.checkpoint import Checkpoint
from trivec._model.late import LateSpec
from trivec._model.manifest import Multi, Route, Step
from trivec_export import _draft, _export
from trivec_export._checkpoint.late_tokens import Mark

Reading = Callable[[Checkpoint], Checkpoint]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Marks, queries filled up with what nobody sees, a skiplist, three layers, two of them with a residual."""
    return pylate(tmp_path_factory.mktemp("late") / "checkpoint", layers=SEVERAL)


def query(change: Callable[[Multi], Multi]) -> Reading:
    """Another head of the queries' route."""

    def misread(found: Checkpoint) -> Checkpoint:
        route = found.routes["query"]
        assert route.multi is not None
        routes: Mapping[str, Route] = {**found.routes, "query": dataclasses.replace(route, multi=change(route.multi))}
        return dataclasses.replace(found, routes=routes)

    return misread


def expansion(**values: Any) -> Reading:
    def change(head: Multi) -> Multi:
        assert head.expansion is not None
        return dataclasses.replace(head, expansion=dataclasses.replace(head.expansion, **values))

    return query(change)


def words(change: Callable[[LateSpec], LateSpec]) -> Reading:
    def misread(found: Checkpoint) -> Checkpoint:
        assert found.late is not None
        return dataclasses.replace(found, late=change(found.late))

    return misread


def layer(number: int, **values: Any) -> Reading:
    def change(spec: LateSpec) -> LateSpec:
        layers: list[Step] = list(spec.layers)
        layers[number] = dataclasses.replace(layers[number], **values)
        return dataclasses.replace(spec, layers=tuple(layers))

    return words(change)


def lengths(side: str, length: int) -> Reading:
    def misread(found: Checkpoint) -> Checkpoint:
        route = dataclasses.replace(found.routes[side], max_seq_length=length)
        return dataclasses.replace(found, routes={**found.routes, side: route})

    return misread


MISREADINGS: dict[str, Reading] = {
    "attended for unattended": expansion(attended=True),
    "no expansion": query(lambda head: dataclasses.replace(head, expansion=None)),
    "expanded by another token": words(lambda spec: dataclasses.replace(spec, expanded_by="[SEP]")),
    "skiplist off": words(lambda spec: dataclasses.replace(spec, skipped={})),
    "skiplist of queries as well": words(
        lambda spec: dataclasses.replace(spec, skipped={**spec.skipped, "query": spec.skipped["document"]})
    ),
    "Dense residual off": layer(0, residual=False),
    "Dense activation off": layer(0, activation="identity"),
    "not normalized": query(lambda head: dataclasses.replace(head, normalize=False)),
    "documents cut elsewhere": lengths("document", 90),
    "queries filled up to fewer": lengths("query", 30),
}


@pytest.mark.parametrize("misreading", MISREADINGS)
def test_a_misreading_does_not_pass(
    misreading: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, misread = vars(_export)["read_checkpoint"], MISREADINGS[misreading]
    monkeypatch.setattr(_export, "read_checkpoint", lambda *given, **options: misread(real(*given, **options)))
    with pytest.raises(trivec.GateError):
        trivec.export(checkpoint, tmp_path / "out", precision=["fp32"], max_texts=64, quiet=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("side", ["[Q] ", "[D] "])
def test_a_missing_mark_does_not_pass(
    side: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = vars(_draft)["mark_of"]
    monkeypatch.setattr(
        _draft, "mark_of", lambda tokenizer, prompt: Mark("", (), "") if prompt == side else real(tokenizer, prompt)
    )
    with pytest.raises(trivec.GateError, match=rf"begins with '' here, and with '\[{side[1]}\] ' there"):
        trivec.export(checkpoint, tmp_path / "out", precision=["fp32"], max_texts=64, quiet=True)
    assert not (tmp_path / "out").exists()


def test_a_residual_whose_weights_nobody_reads(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, misread = vars(_export)["read_checkpoint"], layer(1, residual=False)
    monkeypatch.setattr(_export, "read_checkpoint", lambda *given, **options: misread(real(*given, **options)))
    with pytest.raises(trivec.ModelFormatError, match=r"has the weights \['linear.weight', 'residual.weight'\]"):
        trivec.export(checkpoint, tmp_path / "out", precision=["fp32"], max_texts=64, quiet=True)
