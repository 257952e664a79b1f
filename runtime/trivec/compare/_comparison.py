"""What was found between several encoders on a judged corpus."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple


class Mean(NamedTuple):
    """A mean of all queries, and the middle 95 % of it over resamples of them."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One kind of vectors of one encoder."""

    name: str
    """As it was given; of a model with several kinds of vectors, with the kind behind it."""
    what: str
    """ "int8 on cpu", say."""
    hosted: bool
    """Whether times are of requests, network included."""
    ndcg: Mean
    """nDCG@10."""
    to_first: Mean | None
    """Its nDCG@10 less that of the first row, query by query; None of the first."""
    recall: float
    """Recall@100."""
    mrr: float
    """MRR@10."""
    same_top10: float | None
    """Share of the ten documents of a query that the first row has among its ten as well."""
    rbo: float | None
    """Rank-biased overlap (p = 0.9) with the first row's hundred documents."""
    cosine_min: float | None
    """Of a document's vector and the first row's; None of other dimensions. Says something where both are of one
    model."""
    cosine_mean: float | None
    documents_per_second: float | None
    """In the run that encoded them; None: not known any more."""
    query_ms: tuple[float, float] | None
    """Median and 95th percentile of one query alone."""
    dims: int
    """Numbers of a vector, or terms."""
    bytes_per_vector: float
    """float32; of sparse rows the mean, int32 and float32 a term; of vectors of tokens the mean of a document's."""
    tokens: int | None
    """Of documents and queries, as the service counts them."""
    cost: float | None
    """Of these tokens, at the price that was given."""


class Hit(NamedTuple):
    """A document that an encoder found."""

    id: str
    text: str
    """Its beginning."""
    relevance: int


class Differing(NamedTuple):
    """A query on which two encoders differ."""

    id: str
    text: str
    ndcg: tuple[float, float]
    """Of the one and the other."""
    hits: tuple[tuple[Hit, ...], tuple[Hit, ...]]
    """The best documents of each."""


@dataclass(frozen=True)
class Comparison:
    """Several encoders on one corpus."""

    folder: str
    split: str
    documents: int
    queries: int
    rows: tuple[Row, ...]
    differing: dict[str, tuple[Differing, ...]]
    """By the name of a row, the queries on which its nDCG@10 is furthest from the first row's."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = asdict(self)
        for row, shown in zip(self.rows, found["rows"], strict=True):
            shown["ndcg"] = row.ndcg._asdict()
            shown["to_first"] = None if row.to_first is None else row.to_first._asdict()
        found["differing"] = {
            name: [{**one._asdict(), "hits": [[hit._asdict() for hit in side] for side in one.hits]} for one in listed]
            for name, listed in self.differing.items()
        }
        return found
