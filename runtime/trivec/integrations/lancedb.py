"""LanceDB's embedding function on trivec (`pip install "lancedb>=0.40"`).

    import lancedb
    from lancedb.pydantic import LanceModel, Vector
    from trivec.integrations.lancedb import TrivecEmbeddings

    model = TrivecEmbeddings.create(name="minilm")

    class Text(LanceModel):
        text: str = model.SourceField()
        vector: Vector(model.ndims()) = model.VectorField()

    table = lancedb.connect("store").create_table("texts", schema=Text)
    table.add([{"text": "a text"}, {"text": "another"}])
    table.search("a question").limit(1).to_list()

A table remembers the model and its fingerprint: `open_table`, after an import of this module, opens that model again,
and refuses one that gives other vectors.
"""

from typing import Any, cast

from pydantic import ConfigDict

from trivec._vectors.arrays import Floats
from trivec.integrations._adapter import ModelOptions, missing
from trivec.integrations._saved_model import SavedModel
from trivec.integrations._text_model import dense_lists

try:
    from lancedb.embeddings import TextEmbeddingFunction, register
except ImportError as error:
    raise missing("lancedb", '"lancedb>=0.40"', error) from error

__all__ = ["TrivecEmbeddings"]


@register("trivec")
class TrivecEmbeddings(SavedModel, TextEmbeddingFunction):
    """Dense vectors of a column of texts and of queries; `create` makes it, and LanceDB's registry as "trivec".

    Documents get the model's prompt for documents, queries that for queries.

    Attributes:
        name: a folder written by `trivec export`, a name on the Hub, or "provider:model" of a hosted one.
        device, precision, threads: as of `trivec.load`; None: its default. A table does not keep device and threads.
        on_overflow: "error" raises for a text that is longer than the model reads; None cuts it, and counts it.
        load_options: further arguments of `trivec.load`, such as {"truncate_dim": 128}.
        encode_options: options of `encode_document`, and of `encode_query` as well.
        query_options: options of `encode_query` alone, which win over those.
        expected: the fingerprint that the model must have, as a table has written it down.
        encoder, fingerprint, query_fingerprint, truncated: as of every adapter.
    """

    model_config = ConfigDict(extra="forbid")
    name: str
    device: str | None = None
    precision: str | None = None
    threads: int | None = None
    on_overflow: Any = None
    load_options: dict[str, Any] | None = None
    encode_options: dict[str, Any] | None = None
    query_options: dict[str, Any] | None = None
    expected: str | None = None
    max_retries: int = 0
    """Of LanceDB's; an error here is no matter of luck, and a hosted model asks again by itself."""

    def __init__(self, **given: Any) -> None:  # noqa: ANN401 - the fields
        """Open the model.

        Raises:
            InputError: a model of another kind or fingerprint, or an option that is unknown or out of range.
            pydantic.ValidationError: an unknown field, or a value of another type.
            Whatever `trivec.load` raises.
        """
        super().__init__(**given)
        options = (self.load_options, self.encode_options, self.query_options)
        self._keep(
            ModelOptions(self.name, self.device, self.precision, self.threads, self.on_overflow, *options),
            self.expected,
        )
        self._model  # noqa: B018 - opens, and raises what is wrong

    def ndims(self) -> int:
        """D."""
        return int(cast("Floats", self._model.of_none().dense).shape[1])

    def generate_embeddings(self, texts: Any, *_: Any, **__: Any) -> list[Any]:  # noqa: ANN401 - as LanceDB has it
        """Vectors of documents, in order.

        Raises:
            InputError: what is no text; its index is named, and nothing is encoded.
            TruncationError: a text is too long, with on_overflow="error".
        """
        found: list[Any] = dense_lists(self._model.documents(list(texts)))
        return found

    def compute_query_embeddings(self, query: Any, *_: Any, **__: Any) -> list[Any]:  # noqa: ANN401
        """The vector of a query, or of several, in a list. Raises as `generate_embeddings`."""
        found: list[Any] = dense_lists(self._model.queries(list(self.sanitize_input(query))))
        return found

    def compute_source_embeddings_with_retry(self, *arguments: Any, **options: Any) -> list[Any]:  # noqa: ANN401
        """`compute_source_embeddings`: LanceDB's own would hide what was wrong behind a count of tries."""
        found: list[Any] = self.compute_source_embeddings(*arguments, **options)
        return found

    def compute_query_embeddings_with_retry(self, *arguments: Any, **options: Any) -> list[Any]:  # noqa: ANN401
        """`compute_query_embeddings`, likewise."""
        return self.compute_query_embeddings(*arguments, **options)

    def safe_model_dump(self) -> dict[str, Any]:
        """What a table keeps of it: nothing of the machine, no token, and the fingerprint."""
        found = self.arguments()
        return {"name": found.pop("model"), "expected": found.pop("fingerprint"), **found}
