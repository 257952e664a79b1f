"""Points that a search has found, scored again by a reranker."""

from collections.abc import Sequence
from typing import Any

from qdrant_client import models
from qdrant_client.http.models import QueryResponse  # that of `models` is another one, of its wrapper of FastEmbed

from trivec._encoders.ranking import RankingModel, is_ranking_model
from trivec._errors import InputError
from trivec._pooling.ranks import Ranked
from trivec.integrations.qdrant._points import check_count

Found = Sequence[models.ScoredPoint] | QueryResponse
"""What `client.query_points` gives, or its points."""


def documents_of(points: Found, key: str) -> tuple[list[models.ScoredPoint], list[str]]:
    """The points, and the text of each.

    Raises:
        InputError: something that is no point, or one without that text.
    """
    listed = list(points.points if isinstance(points, QueryResponse) else points)
    texts = []
    for row, point in enumerate(listed):
        if not isinstance(point, models.ScoredPoint):
            raise InputError(
                f"expected points, got {type(point).__name__} at index {row}. Type: client.query_points(...)"
            )
        payload: dict[str, Any] = point.payload or {}
        text = payload.get(key)
        if not isinstance(text, str):
            has = f"it has: {', '.join(payload) or 'nothing'}"
            raise InputError(
                f"the point at index {row} (id {point.id}) has no text under {key!r} in its payload; {has}. Name the "
                "key: text_key=..., and search with with_payload=True."
            )
        texts.append(text)
    return listed, texts


def check_reranker(reranker: object, limit: int | None) -> RankingModel:
    """A reranker that is open, or InputError."""
    if not is_ranking_model(reranker):
        raise InputError(
            f"expected a reranker that is open, got {type(reranker).__name__} {reranker!r:.40}. Type: "
            "trivec.load(folder_or_name) or trivec.hosted.open_reranker(name), once, and give that to each call."
        )
    if limit is not None:
        check_count("limit", limit)
    return reranker


def chosen(points: Sequence[models.ScoredPoint], ranked: Sequence[Ranked]) -> list[models.ScoredPoint]:
    """The points by their new scores; those that came stay as they are."""
    return [points[place["corpus_id"]].model_copy(update={"score": place["score"]}) for place in ranked]
