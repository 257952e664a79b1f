"""The reference of an encoder: what sentence-transformers, or where it cannot our own reading, says of the texts."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from trivec._encoders.pipeline import Pipeline
from trivec._engine.session import Session
from trivec._gate.figures import cosine
from trivec._gate.texts import Pair, Text
from trivec._model.manifest import EncoderSpec, Route
from trivec._model.modules import TransformerSpec
from trivec._tokens.tokenizer import TextTokenizer
from trivec._vectors.arrays import Floats
from trivec._vectors.heads import HybridVectors
from trivec_export._graph.run import Example
from trivec_export._reference.agreement import by_length, check_agreement, check_ids
from trivec_export._reference.heads import Head, TextFeatures
from trivec_export._reference.library import NAME, Library, check_finite
from trivec_export._reference.torch_vectors import TorchSession, vectors

Ids = list[npt.NDArray[np.int64]]
_PROMPTS, _PROMPTED = 8, 6  # prompts of a checkpoint that are tried, and texts behind each


class Tokenized(NamedTuple):
    """Texts that have at least one token, with their ids."""

    texts: list[Text] | list[Pair]
    ids: Ids
    second: npt.NDArray[np.int64] | None = None
    """(N,) of pairs: where their token types change."""

    @property
    def is_pairs(self) -> bool:
        """Whether these are pairs of texts."""
        return any(isinstance(text, Pair) for text in self.texts)

    @property
    def examples(self) -> list[Example]:
        """Each as a row (1, S) of its own."""
        second = self.second
        starts = [None if second is None else second[i : i + 1] for i in range(len(self.ids))]
        return [Example(ids[None], start) for ids, start in zip(self.ids, starts, strict=True)]


class Prompted(NamedTuple):
    """What the reference makes of some texts behind a prompt of the checkpoint's."""

    route: str
    prompt: str
    texts: list[Any]
    ids: Ids
    vectors: HybridVectors


class Reference(NamedTuple):
    """What the reference says of the verification texts."""

    vectors: dict[str, HybridVectors]
    """By route."""
    prompted: tuple[Prompted, ...]


def take_reference(
    library: Library | None,
    head: Head,
    encoder: EncoderSpec,
    routes: Mapping[str, Route],
    read: Mapping[str, Tokenized],
    arrays: Mapping[str, Floats],
    prompts: Mapping[str, str],
) -> Reference:
    """The vectors that the variants are compared with, by route.

    Args:
        library: sentence-transformers on the checkpoint; None where it has no such model: torch's own outputs then,
            pooled and finished by the runtime's functions.
        head: our reading of the checkpoint.
        encoder: its tokens.
        routes: those of the checkpoint that differ.
        read: texts with their ids, by route.
        arrays: weights of the steps after pooling.
        prompts: of the checkpoint, by name.

    Raises:
        GateError: ids or vectors of our reading are not those of sentence-transformers.
        NonFiniteError: torch itself gives NaN or infinity.
    """
    made: dict[str, HybridVectors] = {}
    prompted: list[Prompted] = []
    for key, route in routes.items():
        texts = read[key]
        listed = [text.text for text in texts.texts]
        pipeline = pipeline_of(encoder, TorchSession(head), head.outputs[0], route, arrays)
        # BGE-M3's other two heads are our own reading in any case
        several = route.gives_dense and (route.sparse is not None or route.multi is not None)
        if library is None or several:
            made[key] = _finite(pipeline, texts)
        if library is not None:
            task = None if key == "default" else key
            check_ids(listed, texts.ids, library.ids(listed, task), NAME)
            stated = library.vectors(listed, texts.ids, task)
            check_agreement(pipeline, texts.texts, texts.ids, texts.second, stated, library, task)
            made[key] = dataclasses.replace(made[key], dense=stated.dense) if several else stated
            prompted += [_prompted(library, key, task, prompt, texts) for prompt in _some_prompts(prompts)]
    if library is not None:
        library.release()  # it is loaded again where another encoder asks for it
    return Reference(made, tuple(prompted))


def put_right(
    library: Library,
    spec: TransformerSpec,
    head: Head,
    added: str,
    positions: int | None,
    texts: Tokenized,
    routes: Sequence[str],
) -> tuple[str, ...]:
    """Let sentence-transformers follow what the files say and it does not, and tell how far that takes it from itself.

    Args:
        library: from here on with these settings.
        spec: of the transformer.
        head: our reading of it; it knows the length that texts are padded to.
        added: special tokens that the files ask for; "" for none.
        positions: tokens that the model can be given; beyond them sentence-transformers fails.
        texts: to compare.
        routes: names; the first one is compared.

    Returns:
        One note, or none where nothing had to be put right.
    """
    padded_to = head.padded_to if isinstance(head, TextFeatures) else None
    what = [added] if added else []
    if padded_to is not None:
        what.append(f"texts are padded to the {padded_to} tokens that the model was trained on")
    limit = positions if positions is not None and (spec.max_seq_length or positions + 1) > positions else None
    far = ""
    if what:
        task = None if routes[0] == "default" else routes[0]
        listed: list[Any] = [*texts.texts]
        fitting = [text.text for text, ids in zip(listed, texts.ids, strict=True) if len(ids) < (limit or len(ids) + 1)]
        some = fitting[:: max(1, len(fitting) // 32)]
        before = library.vectors(some, library.ids(some, task), task).dense
        library.put_right(spec, padded_to, limit)
        after = library.vectors(some, library.ids(some, task), task).dense
        if before is not None and after is not None and texts.is_pairs:
            off = float(np.abs(before - after).max())
            far = f"; the logits of {NAME} as it is are up to {off:.3g} from these"
        elif before is not None and after is not None:
            found = cosine(before, after)
            far = f"; the vectors of {NAME} as it is have cosines of {found.min():.4f} to {found.max():.4f} to these"
    elif limit is not None:
        library.put_right(spec, limit=limit)
        what = [f"texts are cut at the model's {limit} positions"] if spec.max_seq_length else []
    return (f"put right in the reference: {'; '.join(what)}{far}",) if what else ()


def _some_prompts(prompts: Mapping[str, str]) -> list[str]:
    return list(dict.fromkeys(prompt for prompt in prompts.values() if prompt))[:_PROMPTS]


def _prompted(library: Library, route: str, task: str | None, prompt: str, tokenized: Tokenized) -> Prompted:
    """Some texts behind a prompt, the longest among them."""
    texts = [tokenized.texts[i].text for i in by_length(tokenized.ids, _PROMPTED)]
    ids = library.ids(texts, task, prompt)
    return Prompted(route, prompt, texts, ids, library.vectors(texts, ids, task, prompt))


def pipeline_of(
    encoder: EncoderSpec, session: object, output: str, route: Route, arrays: Mapping[str, Floats]
) -> Pipeline:
    """A route over something that gives a graph's outputs."""
    return Pipeline(
        encoder,
        cast("TextTokenizer", None),  # the ids are there
        cast("Session", session),
        output,
        route.pooling,
        route.steps,
        arrays,
        route.sparse,
        route.multi,
        route.score,
    )


def _finite(pipeline: Pipeline, texts: Tokenized) -> HybridVectors:
    """Torch's outputs, pooled and finished in numpy."""
    found, finite = vectors(pipeline, texts.ids, texts.second)
    check_finite(finite, [text.text for text in texts.texts])
    return found
