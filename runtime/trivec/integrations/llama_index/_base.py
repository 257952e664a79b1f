"""What the LlamaIndex classes have in common."""

from typing import Any

from trivec.integrations._adapter import OfModel
from trivec.integrations._text_model import as_list

BATCH = 256
"""Texts that LlamaIndex hands over at a time; its own 10 leave too few of one length to run together."""


class OfTexts(OfModel):
    """Before LlamaIndex goes through the texts one by one: of a table it would take the names of the columns."""

    def get_text_embedding_batch(self, texts: list[str], *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        """As LlamaIndex; raises InputError for what is no list of texts."""
        return super().get_text_embedding_batch(as_list(texts), *arguments, **options)  # type: ignore[misc]

    async def aget_text_embedding_batch(self, texts: list[str], *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        """As LlamaIndex; raises InputError for what is no list of texts."""
        return await super().aget_text_embedding_batch(as_list(texts), *arguments, **options)  # type: ignore[misc]

    def get_agg_embedding_from_queries(self, queries: list[str], *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        """As LlamaIndex; raises InputError for what is no list of texts."""
        return super().get_agg_embedding_from_queries(as_list(queries), *arguments, **options)  # type: ignore[misc]

    async def aget_agg_embedding_from_queries(self, queries: list[str], *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        """As LlamaIndex; raises InputError for what is no list of texts."""
        return await super().aget_agg_embedding_from_queries(as_list(queries), *arguments, **options)  # type: ignore[misc]
