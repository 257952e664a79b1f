"""Our reading of a checkpoint against sentence-transformers, before anything is traced: where do they part?"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from trivec._encoders.pipeline import Pipeline
from trivec._errors import GateError
from trivec._gate.texts import Pair, Text
from trivec._model.manifest import Score
from trivec._pooling.dense import apply_steps, pool
from trivec._vectors.arrays import Floats
from trivec._vectors.heads import HybridVectors
from trivec._vectors.multi import MultiVectors
from trivec._vectors.sparse import SparseVectors
from trivec_export._reference.library import NAME, Library, Stage
from trivec_export._reference.torch_vectors import vectors

_PROBES = 24  # texts on which both are compared; all of them pass the gate of fp32 later
_MOST = 1e-2  # of a vector's length that it may be off: float32 explains a thousandth of that
_OFF = 1e-2  # of the largest number of a module's output


def check_agreement(
    pipeline: Pipeline,
    texts: Sequence[Text] | Sequence[Pair],
    ids: Sequence[npt.NDArray[np.int64]],
    second: npt.NDArray[np.int64] | None,
    stated: HybridVectors,
    library: Library,
    task: str | None,
) -> None:
    """Compare some texts, the shortest and the longest among them.

    Args:
        pipeline: our reading: torch's outputs, pooled and finished by the runtime's own functions.
        texts: N texts.
        ids: their tokens.
        second: (N,) of pairs, where their token types change.
        stated: sentence-transformers' vectors of them.
        library: to ask what its modules make of a text.
        task: the route there.

    Raises:
        GateError: vectors differ. It names the first such text, its tokens and the first module that differs.
    """
    probes = sorted(set(by_length(ids, _PROBES)))
    found, _ = vectors(pipeline, [ids[i] for i in probes], None if second is None else second[probes])
    if pipeline.score is not None:
        errors = _score_errors(cast("Floats", found.dense), cast("Floats", stated.dense), probes)
    elif stated.dense is not None:
        errors = _errors(cast("Floats", found.dense), stated.dense[probes])
    elif stated.colbert is not None:
        errors = _token_errors(cast("MultiVectors", found.colbert), cast("MultiVectors", stated.colbert)[probes])
    else:
        pairs = zip(
            cast("SparseVectors", found.sparse), cast("SparseVectors", stated.sparse)[np.array(probes)], strict=True
        )
        errors = np.concatenate([_errors(mine.to_dense()[None], row.to_dense()[None]) for mine, row in pairs])
    if (errors <= _MOST).all():
        return
    first = int(np.flatnonzero(~(errors <= _MOST))[0])
    text, row = texts[probes[first]].text, ids[probes[first]]
    if pipeline.score is not None:
        raise GateError(
            f"trivec's reading of this checkpoint is not that of {NAME}: for the pair {text!r:.120} (tokens "
            f"{_some(row)} on both sides) the logits are {errors[first]:.2g} of their deviation apart. Nothing "
            "was written. Please report this checkpoint, and use sentence-transformers for it."
        )
    raise GateError(
        f"trivec's reading of this checkpoint is not that of {NAME}: for the text {text!r:.80} (tokens "
        f"{_some(row)} on both sides) the vectors are {errors[first]:.2g} of their length apart. "
        f"{_where(_stages(pipeline, row), library.stages(str(text), task))} Nothing was written. Please report this "
        "checkpoint, and use sentence-transformers for it."
    )


def check_activation(library: Library, score: Score | None) -> None:
    """Raise GateError unless a CrossEncoder makes its scores of logits by the function that our reading says."""
    theirs, ours = library.activation(), "" if score is None else score.activation
    if theirs.lower() != ours.replace("_", ""):
        raise GateError(
            f"trivec's reading of this checkpoint is not that of {NAME}: scores are made of logits by {ours!r} here, "
            f"and by {theirs} there. Nothing was written. Please report this checkpoint."
        )


def check_prompts(library: Library, ours: Mapping[str, str]) -> None:
    """Raise GateError unless texts of each route begin with what they begin with there, by route: mark and prompt.

    The reference is asked for its vectors behind the mark that we have read: a mark that is missed would be missing on
    both sides.
    """
    for route, mine in ours.items():
        theirs = library.prompt(route)
        if mine != theirs:
            raise GateError(
                f"trivec's reading of this checkpoint is not that of {NAME}: each {route} begins with {mine!r} here, "
                f"and with {theirs!r} there. Nothing was written. Please report this checkpoint."
            )


def by_length(ids: Sequence[npt.NDArray[np.int64]], count: int) -> list[int]:
    """Indices of `count` texts from the shortest to the longest, at equal steps; of fewer texts, some repeatedly."""
    order = np.argsort([len(row) for row in ids], kind="stable")  # (N,)
    return [int(order[i * (len(order) - 1) // (count - 1)]) for i in range(count)]


def _errors(ours: Floats, theirs: Floats) -> npt.NDArray[np.float64]:
    """How far rows (N, D) are apart, as a share of the length of theirs: (N,). A length counts as a direction does."""
    lengths = np.linalg.norm(theirs.astype(np.float64), axis=1)  # (N,)
    return np.asarray(np.linalg.norm(ours.astype(np.float64) - theirs, axis=1) / np.maximum(lengths, 1e-6))


def _token_errors(ours: MultiVectors, theirs: MultiVectors) -> npt.NDArray[np.float64]:
    """How far the vectors of a text's tokens are apart at most, (N,); infinite where there are not as many of them."""
    found = []
    for mine, other in zip(ours, theirs, strict=True):  # (t, D) each
        found.append(np.inf if mine.shape != other.shape else _errors(mine, other).max(initial=0.0))
    return np.array(found)


def _score_errors(ours: Floats, theirs: Floats, probes: Sequence[int]) -> npt.NDArray[np.float64]:
    """How far logits (P, L) of the pairs `probes` are from theirs (N, L), in standard deviations of these: (P,)."""
    spread = np.maximum(theirs.std(0, dtype=np.float64), 1e-3)  # (L,)
    return np.asarray((np.abs(ours.astype(np.float64) - theirs[probes]) / spread).max(1))


def check_ids(
    texts: Sequence[Any],
    ours: Sequence[npt.NDArray[np.int64]],
    theirs: Sequence[npt.NDArray[np.int64]],
    name: str,
) -> None:
    """Raise GateError for the first text that has other token ids than the reference of that name gives it."""
    for text, mine, other in zip(texts, ours, theirs, strict=True):
        if mine.tolist() != other.tolist():
            raise GateError(
                f"token ids differ from those of {name} for the text {text!r:.80}: {_some(mine)} here, {_some(other)} "
                "there."
            )


def _some(ids: npt.NDArray[np.int64]) -> str:
    return f"{ids[:16].tolist()}{f' and {len(ids) - 16} more' if len(ids) > 16 else ''}"


def _stages(pipeline: Pipeline, ids: npt.NDArray[np.int64]) -> Iterator[Stage]:
    """What our reading makes of one text, module by module."""
    session = pipeline.session
    if session is None or pipeline.multi is not None:  # whose layers are parts of the graph
        return
    (states,) = session.run_all(ids[None], (pipeline.output,))  # (1, S, H), or pooled (1, V)
    yield Stage("Transformer", states[0])
    if pipeline.pooling is None:
        return
    vector = pool(states, pipeline.pooling)  # (1, H * modes)
    yield Stage("Pooling", vector[0])
    for count, step in enumerate(pipeline.steps, 1):
        name = {"dense": "Dense", "layer_norm": "LayerNorm", "normalize": "Normalize"}[step.kind]
        yield Stage(name, apply_steps(vector, pipeline.steps[:count], pipeline.arrays)[0])


def _where(ours: Iterator[Stage], theirs: Sequence[Stage]) -> str:
    """The first module whose output differs, in words."""
    mine = list(ours)
    if not mine:
        return "Which module differs is not told of this kind."
    kept = [stage for stage in theirs if stage.name != "Dropout"]
    for number, stage in enumerate(kept):
        if number >= len(mine):
            return f"The first module that differs is {stage.name} (number {number + 1}), which is not in ours."
        same = mine[number].value.shape == stage.value.shape
        off = np.abs(mine[number].value - stage.value).max() if same else np.inf
        if off > _OFF * max(1e-6, float(np.abs(stage.value).max())):
            shapes = "" if same else f": {mine[number].value.shape} here, {stage.value.shape} there"
            return f"The first module whose output differs is {stage.name} (number {number + 1}){shapes}."
    return "No module of its own differs: what follows them does."
