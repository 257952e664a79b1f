"""One transformer or table of a checkpoint on its way to an encoder: what torch says, and the traced graph."""

import dataclasses
import inspect
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trivec._errors import ModelFormatError
from trivec._gate.texts import Pair, Text
from trivec._model.checkpoint import Checkpoint
from trivec._model.families import scores_pairs
from trivec._model.integrity import describe
from trivec._model.late import LINEAR
from trivec._model.manifest import EncoderSpec, Multi, Route, Step
from trivec._model.modules import CLASSIFY, GENERATE, TEXT_FEATURES, TransformerSpec
from trivec._tokens.late_tokenizer import LateTokenizer, late_encoder
from trivec._tokens.pair_tokenizer import PairTokenizer
from trivec._tokens.tokenizer import TextTokenizer
from trivec._vectors.arrays import Floats, normalize
from trivec._vectors.heads import HybridVectors
from trivec_export._checkpoint import adapters
from trivec_export._checkpoint.late_tokens import Mark, late_route, mark_of, teach_markers
from trivec_export._checkpoint.published import gte
from trivec_export._checkpoint.published.layouts import convert, is_published
from trivec_export._checkpoint.template import read_template
from trivec_export._checkpoint.tokenizer import read_tokenizer, save_tokenizer, token_ids
from trivec_export._checkpoint.weights import read_weights
from trivec_export._graph.run import GraphSession
from trivec_export._graph.seen import with_seen
from trivec_export._reference.agreement import check_activation, check_ids, check_prompts
from trivec_export._reference.heads import (
    COLBERT_VECS,
    Head,
    Hybrid,
    Late,
    PooledLogits,
    Projection,
    Scores,
    TokenEmbeddings,
    YesNo,
    linear,
    read_linear,
    text_tower,
)
from trivec_export._reference.library import Library
from trivec_export._reference.taken import Prompted, Tokenized, pipeline_of, put_right, take_reference
from trivec_export._reference.torch_model import Loaded, load
from trivec_export._reference.torch_vectors import usable_positions, vectors
from trivec_export._trace.trace import PLAIN, trace

_QUERIES = 3  # of so many texts that calibrate a late-interaction model, one does as a query, too


@dataclass(frozen=True)
class Draft:
    """An encoder in the making."""

    name: str
    encoder: EncoderSpec
    routes: Mapping[str, Route]
    """Those of the checkpoint that read this encoder, with the sizes of their heads."""
    verification: Mapping[str, Tokenized]
    """By route: those of late interaction read the same texts each in its own way."""
    calibration: Tokenized
    reference: Mapping[str, HybridVectors]
    """What the reference says of the verification texts, by route."""
    ranges: Mapping[str, tuple[Floats, Floats]]
    """Least and greatest values (2, D) of torch's dense vectors of the calibration texts, raw and normalized."""
    graph: onnx.ModelProto
    prompted: tuple[Prompted, ...] = ()
    notes: tuple[str, ...] = ()
    """What a person should know: weights that are left out, settings that the reference does not follow."""
    prompts: Mapping[str, str] | None = None
    """The checkpoint's without the marks that its routes put before texts; None: as they are."""

    def finished(self, graph: onnx.ModelProto) -> onnx.ModelProto:
        """A graph of this draft as it is run: with an input that says what is seen, where some tokens nobody sees."""
        unseen = any(read.second is not None and not read.is_pairs for read in self.verification.values())
        return with_seen(graph) if unseen else graph

    def without_graph(self) -> "Draft":
        """The same once its graph is written: a checkpoint may have many, of gigabytes each."""
        return dataclasses.replace(self, graph=onnx.ModelProto())


def make_draft(
    name: str,
    place: Path,
    checkpoint: Checkpoint,
    arrays: Mapping[str, Floats],
    folder: Path,
    texts: tuple[Sequence[Text], Sequence[Text]] | tuple[Sequence[Pair], Sequence[Pair]],
    *,
    trust_remote_code: bool,
    adapter: str | None = None,
    library: Library | None = None,
) -> Draft:
    """Load one transformer, take the reference's vectors of the (calibration, verification) texts, trace it.

    Writes the tokenizer into `folder`. The torch model is gone when this returns. Of routes that differ in their name
    alone, the reference has the first.

    Args:
        name: of the encoder.
        place: the checkpoint's folder.
        checkpoint: what it says.
        arrays: weights of the steps after pooling.
        folder: the model folder in the making.
        texts: that calibrate, and that verify; pairs of a model that scores them.
        trust_remote_code: run the checkpoint's own code.
        adapter: the task whose adapter is merged.
        library: sentence-transformers on this checkpoint, whose ids and vectors are the reference; None: ours are.

    Raises:
        ModelFormatError: the checkpoint cannot be translated.
        GateError: our reading of it and sentence-transformers disagree.
    """
    spec = checkpoint.transformers[name]
    tokenizer, added = read_tokenizer(place, spec, trust_remote_code=trust_remote_code)
    elsewhere = (LINEAR,) if checkpoint.late is not None and not checkpoint.has_modules else ()
    model, left_out = _load(
        place / spec.folder, spec, adapter, folder, trust_remote_code=trust_remote_code, read_elsewhere=elsewhere
    )
    head = _head(model, place, spec, checkpoint, tokenizer)
    if scores_pairs(checkpoint.family) and library is not None:
        check_activation(library, checkpoint.routes["default"].score)
    positions = usable_positions(model)
    length = min([n for n in (spec.max_seq_length, positions) if n is not None], default=None)
    if length is not None:
        tokenizer.model_max_length = length
    message = spec.message
    if not checkpoint.has_modules and library is not None and getattr(tokenizer, "chat_template", None):
        message = {"format": "auto", "arguments": {}}  # as sentence-transformers takes a bare checkpoint
    marks, prompts = dict[str, Mark](), checkpoint.prompts
    if checkpoint.late is not None and library is not None:
        teach_markers(tokenizer, checkpoint.late.markers)
        marks = {key: mark_of(tokenizer, prompts.get(key, "")) for key in checkpoint.routes}
        prompts = {**prompts, **{key: mark.prompt for key, mark in marks.items()}}
        library.marks = {key: mark.text for key, mark in marks.items()}
    path = "tokenizer.json" if name == "main" or adapter else f"{name}/tokenizer.json"  # adapters share one
    save_tokenizer(tokenizer, folder / path)
    encoder = EncoderSpec(
        tokenizer=describe(folder, path),
        max_seq_length=length,
        max_positions=positions,
        variants={},
        truncation_side=spec.truncation_side,
        special_ids=tuple(sorted(tokenizer.all_special_ids)),
        add_special_tokens=message is None,
        template=None
        if message is None
        else read_template(
            tokenizer, message, model.config.model_type, str(place), pairs=scores_pairs(checkpoint.family)
        ),
    )
    routes = {key: _complete(r, head, tokenizer) for key, r in checkpoint.routes.items() if r.encoder == name}
    if isinstance(head, Late) and checkpoint.late is not None:
        words = partial(late_route, spec=checkpoint.late, dim=head.dim, tokenizer=tokenizer, config=model.config)
        routes = {key: words(key, route, marks[key], positions=positions) for key, route in routes.items()}
        if library is not None:
            check_prompts(library, {key: marks[key].text + marks[key].prompt for key in routes})
    first = {key: route for route, key in {route: key for key, route in reversed(routes.items())}.items()}
    readers = {key: _reader(folder / path, encoder, head, route) for key, route in first.items()}
    calibration, verification = _tokenized(readers, texts, late=isinstance(head, Late))
    verification |= {key: verification[next(k for k, r in first.items() if r == routes[key])] for key in routes}
    used = ("the token classifier",) if checkpoint.family == "mgte" else ()
    notes = [f"not used: {what}" for what in left_out if not what.startswith(used)] + _beyond(tokenizer, model)
    if library is None:
        for read in verification.values():
            listed: list[Any] = [text.text for text in read.texts]
            check_ids(listed, read.ids, token_ids(tokenizer, listed), "AutoTokenizer")
    else:
        notes += put_right(library, spec, head, added, positions, verification[next(iter(first))], [*first])
    taken = take_reference(library, head, encoder, first, verification, arrays, prompts)
    graph, attention, why = trace(head, max_length=positions)
    if attention == PLAIN:
        notes.append(f"attention: plain, traced as the model's own code has it ({why})")
    encoder = dataclasses.replace(encoder, attention=attention)
    found = {}
    for route in [route for route in first.values() if route.gives_dense]:
        alone = dataclasses.replace(route, sparse=None, multi=None)
        pipeline = pipeline_of(encoder, GraphSession(graph), head.outputs[0], alone, arrays)
        found[route] = _ranges(cast("Floats", vectors(pipeline, calibration.ids)[0].dense))
    ranges = {key: found[route] for key, route in routes.items() if route in found}
    return Draft(
        name,
        encoder,
        routes,
        verification,
        calibration,
        taken.vectors,
        ranges,
        graph,
        taken.prompted,
        tuple(notes),
        prompts,
    )


def _load(
    place: Path,
    spec: TransformerSpec,
    adapter: str | None,
    out: Path,
    *,
    trust_remote_code: bool,
    read_elsewhere: Sequence[str],
) -> Loaded:
    """The model, with the adapter of a task merged into it.

    Published layouts that transformers has a class for are turned into its layout first, in a folder below `out` that
    does not stay: no remote code runs.
    """
    if is_published(spec.config):
        with tempfile.TemporaryDirectory(dir=out) as scratch:
            convert(place, Path(scratch), adapter)
            return load(scratch, task=spec.task)
    made = load(
        place,
        trust_remote_code=trust_remote_code,
        task=spec.task,
        model_kwargs=spec.model_kwargs,
        config_kwargs=spec.config_kwargs,
        read_elsewhere=read_elsewhere,
    )
    if adapter is not None:
        adapters.merge(made.model, adapters.adapter_folders(place)[adapter])
    return made


def _head(
    model: PreTrainedModel,
    place: Path,
    spec: TransformerSpec,
    checkpoint: Checkpoint,
    tokenizer: PreTrainedTokenizerBase,
) -> Head:
    """What the graph is to compute.

    Raises:
        ModelFormatError: the weights of a head are missing or misshapen.
    """
    if spec.task == TEXT_FEATURES:
        return text_tower(model, int(tokenizer.pad_token_id or 0)).eval()
    if spec.task == CLASSIFY:
        return Scores(model, types=_reads_types(model, tokenizer)).eval()
    if spec.task == GENERATE:
        return YesNo(model, *(spec.yes_no or _yes_no(tokenizer, str(checkpoint)))).eval()
    if spec.splade is not None:
        return PooledLogits(model, *spec.splade).eval()
    if checkpoint.late is not None:
        return Late(model, [_projection(place, layer) for layer in checkpoint.late.layers]).eval()
    if checkpoint.family == "bge-m3":
        hidden = int(model.config.hidden_size)
        sparse = read_linear(place / "sparse_linear.pt", hidden, 1)
        return Hybrid(model, sparse, read_linear(place / "colbert_linear.pt", hidden, None)).eval()
    if checkpoint.family == "mgte":
        found = gte.token_weights_head(place / spec.folder)
        if found is None:
            raise ModelFormatError(
                f"{place} has no token classifier (classifier.weight), whose weights make mGTE's sparse vectors. "
                "For dense vectors alone: --family dense"
            )
        return Hybrid(model, linear(*(torch.from_numpy(array) for array in found)), None).eval()
    return TokenEmbeddings(model).eval()


def _yes_no(tokenizer: PreTrainedTokenizerBase, name: str) -> tuple[int, int]:
    """The tokens "yes" and "no", which sentence-transformers takes where no LogitScore says others."""
    found = {word: tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no")}
    missing = [word for word, number in found.items() if number is None or number == tokenizer.unk_token_id]
    if missing:
        raise ModelFormatError(
            f"{name} has no LogitScore module that says which tokens make a score, and its tokenizer has no token "
            f"{missing[0]!r}. Save it with CrossEncoder of sentence-transformers, whose LogitScore names them."
        )
    return found["yes"], found["no"]


def _projection(place: Path, layer: Step) -> Projection:
    """A Dense layer of late interaction; Stanford's, which has no folder, is among the model's weights.

    Raises:
        ModelFormatError: it has no weight, or weights that nothing reads.
    """
    wanted: Any = bool if layer.arrays else {LINEAR}.__contains__
    weights = {name: tensor.float() for name, tensor in read_weights(place / layer.arrays, wanted).items()}
    allowed = {LINEAR, "linear.bias", *(["residual.weight"] if layer.residual else [])}
    if LINEAR not in weights or set(weights) - allowed:
        raise ModelFormatError(
            f"{place / layer.arrays} has the weights {sorted(weights)} of a projection to vectors of tokens; expected "
            f"{LINEAR} and at most {', '.join(sorted(allowed - {LINEAR}))}."
        )
    return Projection(weights, layer.activation, residual=layer.residual)


def _reads_types(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the two texts of a pair are told apart by token types: by the tokenizer, and by the model."""
    types = tokenizer([["a", "b"]]).get("token_type_ids", [[0]])[0]
    takes = "token_type_ids" in inspect.signature(model.forward).parameters
    return takes and any(types) and (getattr(model.config, "type_vocab_size", None) or 0) > 1


def _reader(path: Path, encoder: EncoderSpec, head: Head, route: Route) -> TextTokenizer:
    """The runtime's tokenizer, of texts, of one side of a late interaction, or of pairs."""
    if isinstance(head, Late) and route.multi is not None:
        return LateTokenizer(path, late_encoder(encoder, route), route.multi)
    if not isinstance(head, Scores):
        return TextTokenizer(path, encoder)
    return PairTokenizer(path, encoder, types="token_type_ids" in head.inputs)


def _complete(route: Route, head: Head, tokenizer: PreTrainedTokenizerBase) -> Route:
    """The route with what only the loaded model tells: sizes of heads, what the graph leaves to the runtime."""
    sparse, multi = route.sparse, route.multi
    if isinstance(head, PooledLogits) and sparse is not None:
        size = head.first(torch.zeros((1, 1), dtype=torch.int64)).shape[-1]
        sparse = dataclasses.replace(sparse, dim=size, activation=head.left)
    elif sparse is not None:
        # as FlagEmbedding's _process_token_weights; a mask token counts there
        names = ("cls_token_id", "eos_token_id", "pad_token_id", "unk_token_id")
        ids = {getattr(tokenizer, name, None) for name in names} - {None}
        sparse = dataclasses.replace(sparse, dropped_ids=tuple(sorted(cast("set[int]", ids))))
    if isinstance(head, Hybrid) and head.colbert_linear is not None:
        multi = Multi(COLBERT_VECS, head.colbert_linear.out_features)
    return dataclasses.replace(route, sparse=sparse, multi=multi)


def _beyond(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> list[str]:
    """A note where the tokenizer has more tokens than the model: with one of them a text cannot be encoded."""
    rows = getattr(model, "text_model", model).get_input_embeddings().num_embeddings
    beyond = sorted((number, token) for token, number in tokenizer.get_vocab().items() if number >= rows)
    if not beyond:
        return []
    number, token = beyond[0]
    said = (
        f"the tokenizer has {len(beyond)} tokens for which the model's table of {rows} has no row, the first {token!r}"
    )
    return [f"{said} ({number}): a text with one of them is an error"]


def _tokenized(
    readers: Mapping[str, TextTokenizer],
    texts: tuple[Sequence[Text], Sequence[Text]] | tuple[Sequence[Pair], Sequence[Pair]],
    *,
    late: bool,
) -> tuple[Tokenized, dict[str, Tokenized]]:
    """The texts that calibrate, and by route those that verify.

    One reader reads all routes but those of late interaction, whose queries calibrate beside documents, at a third of
    their number: expansion is tokens that no document has.
    """
    calibrating, verifying = texts
    if not late:
        reader = next(iter(readers.values()))
        verification = _tokenize(reader, verifying)
        return _tokenize(reader, calibrating), dict.fromkeys(readers, verification)
    calibration = _tokenize(readers.get("document", next(iter(readers.values()))), calibrating)
    if len(readers) > 1:
        queries = _tokenize(readers["query"], cast("Sequence[Text]", calibrating)[::_QUERIES])
        every: list[Any] = [*calibration.texts, *queries.texts]
        calibration = Tokenized(every, [*calibration.ids, *queries.ids])
    return calibration, {key: _tokenize(reader, verifying) for key, reader in readers.items()}


def _tokenize(tokenizer: TextTokenizer, texts: Sequence[Text] | Sequence[Pair]) -> Tokenized:
    """The ids as the runtime has them, without the texts that have no token: the reference has no vector for them."""
    listed: list[Any] = [*texts]
    tokens = tokenizer([text.text for text in listed])
    kept = np.flatnonzero(tokens.lengths)  # (K,)
    second = None if tokens.second is None else tokens.second[kept]
    return Tokenized([listed[i] for i in kept], [tokens.of(int(i)) for i in kept], second)


def _ranges(vectors: Floats) -> tuple[Floats, Floats]:
    unit = normalize(vectors)
    return np.stack([vectors.min(0), vectors.max(0)]), np.stack([unit.min(0), unit.max(0)])
