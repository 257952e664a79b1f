"""What is read of Haystack's documents."""

from collections.abc import Sequence

from haystack import Document

from trivec._errors import InputError
from trivec._tokens.inputs import one_by_one

PACKAGE = "trivec.integrations.haystack"
"""Where pipelines find the components again: Haystack writes the module of a class down."""


def texts_of(documents: object, fields: Sequence[str], separator: str) -> list[str]:
    """The content of documents, behind what their meta has of the fields, as Haystack's own embedders join them.

    Raises:
        InputError: no list of documents, or one without content; its index is named.
    """
    if isinstance(documents, Document | str):
        raise InputError(f"expected a list of Documents, got one {type(documents).__name__}. Type: [document]")
    texts = []
    for place, document in enumerate(one_by_one(documents, "expected a list of Documents")):
        if not isinstance(document, Document):
            raise InputError(f"expected a Document at index {place}, got {type(document).__name__} {document!r:.60}.")
        if document.content is None:
            raise InputError(
                f"document {document.id} at index {place} has no content, and its vector would be that of no text. "
                "Leave such documents out, or convert them to text first."
            )
        found = (document.meta.get(field) for field in fields)
        texts.append(separator.join([*(str(value) for value in found if value is not None), document.content]))
    return texts
