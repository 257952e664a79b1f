"""Would a graph pass its gate? Asked before it is written, where another one could be made."""

from collections.abc import Mapping

import onnx

from trivec._gate.checks import DOCUMENT, QUERY, AnyFigures, bounds_of, figures_by_head, missed, search_bounds, searched
from trivec._vectors.arrays import Floats
from trivec._vectors.heads import HybridVectors
from trivec_export._draft import Draft
from trivec_export._graph.run import GraphSession
from trivec_export._reference.taken import pipeline_of
from trivec_export._reference.torch_vectors import vectors


def is_faithful(graph: onnx.ModelProto, *, part: Draft, arrays: Mapping[str, Floats], precision: str) -> bool:
    """Whether a graph keeps a precision's bounds on the verification texts, all routes and heads of a draft.

    What it gives does not pass the runtime here: the gate of the folder that is written comes after.

    Args:
        graph: of a variant, with the outputs of the draft's.
        part: with the reference's vectors.
        arrays: weights of the steps after pooling.
        precision: whose bounds count.
    """
    session = GraphSession(part.finished(graph))
    made, tokens = dict[str, HybridVectors](), dict[str, AnyFigures]()
    bounds = bounds_of(precision)
    for name, reference in part.reference.items():
        pipeline = pipeline_of(part.encoder, session, graph.graph.output[0].name, part.routes[name], arrays)
        texts = part.verification[name]
        found, _ = vectors(pipeline, texts.ids, texts.second)
        kinds = [text.kind for text in texts.texts]
        heads = figures_by_head(found, [found], 1, reference, kinds, scores=texts.is_pairs)
        made[name], tokens[name] = found, heads.get("colbert", next(iter(heads.values())))
        if any(missed(figures, bounds[head]) for head, figures in heads.items()):
            return False
    if not all(route.interacts_late for route in part.routes.values()):
        return True
    sides = [(by[QUERY], by.get(DOCUMENT, by[QUERY])) for by in (made, part.reference)]
    found_again = searched(tokens[QUERY], *sides)
    return not missed(found_again, search_bounds(bounds["colbert"], precision))
