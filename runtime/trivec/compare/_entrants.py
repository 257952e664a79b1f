"""The names of a comparison: what they open, what that would cost, and what it makes of the corpus."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from trivec._encoders.protocol import Encoder, is_encoder
from trivec._errors import InputError
from trivec._load import load
from trivec._model.manifest import LOADED_PRECISIONS
from trivec._open import is_hosted, open_encoder
from trivec._tokens.plan import distinct
from trivec._vectors.heads import HEADS, Head
from trivec.compare._judged import Judged
from trivec.compare._kept import Effort, is_hosted_encoder, kept, query_ms

BM25 = "bm25"
"""The name of trivec.lexical's BM25 with its analyzer for English."""
Entrant = str | Encoder
"""What is compared: "folder", "folder:int8", a name on the Hub, "provider:model?option=value", "bm25", an encoder."""


@dataclass(frozen=True)
class Planned:
    """What an encoder would be asked for."""

    name: str
    hosted: bool
    texts: int
    """That differ: documents and queries."""
    requests: int = 0
    """Of a hosted model, about."""
    tokens: int = 0
    """Of a hosted model, estimated."""
    cost: float | None = None
    """None: nothing is paid, or no price is known."""


class HeadVectors(NamedTuple):
    """One kind of vectors of the corpus."""

    head: Head
    documents: Any
    """(N, D) array, SparseVectors, or MultiVectors."""
    queries: Any
    """(Q, D)"""
    similarity: str


@dataclass(frozen=True)
class Entry:
    """What an encoder makes of the corpus."""

    what: str
    """ "int8 on cpu", say."""
    hosted: bool
    heads: tuple[HeadVectors, ...]
    documents_per_second: float | None
    query_ms: tuple[float, float] | None
    """Median and 95th percentile of one query alone; None: not known any more."""
    tokens: int | None
    """Of documents and queries, as the service counts them."""


def names_of(entrants: Sequence[Entrant]) -> list[str]:
    """What each is called.

    Raises:
        InputError: there are none, one is no encoder, or two have one name.
    """
    if isinstance(entrants, str) or not isinstance(entrants, Sequence) or not entrants:
        raise InputError('expected a list of encoders to compare, such as ["minilm", "minilm:int8", "bm25"].')
    found = [_name_of(entrant) for entrant in entrants]
    for name in found:
        if found.count(name) > 1:
            raise InputError(f"{name!r} is named twice: there is nothing to compare it with. Leave one out.")
    return found


def _name_of(entrant: object) -> str:
    if isinstance(entrant, str) and entrant:
        return entrant
    if not is_encoder(entrant):
        raise InputError(
            f"expected a folder, a name, provider:model, 'bm25' or an encoder, got {type(entrant).__name__} "
            f"{entrant!r:.60}."
        )
    return f"{entrant.name} ({entrant.precision})"


@contextmanager
def opened(entrant: Entrant, cache: Path, options: Mapping[str, Any]) -> Iterator[Encoder]:
    """The encoder, closed afterwards where it is opened here.

    Args:
        entrant: not BM25.
        cache: the file in which vectors of hosted models are kept; a name may say another one.
        options: of `trivec.load`, for local models.

    Raises:
        Whatever `trivec.load` and `trivec.hosted.open` raise.
    """
    if not isinstance(entrant, str):
        yield entrant
        return
    base, _, variant = entrant.rpartition(":")
    if base and variant in LOADED_PRECISIONS and not Path(entrant).exists():
        given: dict[str, Any] = {**options, "precision": variant}
        encoder: Encoder = load(base, **given)
    elif is_hosted(entrant):
        encoder = open_encoder(entrant, **({} if "cache=" in entrant else {"cache": cache}))
    else:
        encoder = load(entrant, **options)
    try:
        yield encoder
    finally:
        encoder.close()


def planned(name: str, encoder: Encoder | None, judged: Judged, price: float | None) -> Planned:
    """What an encoder, or BM25 (None), would be asked for; nothing is sent."""
    texts = [*distinct(list(judged.documents.values()))[0], *distinct(list(judged.queries.values()))[0]]
    estimate = getattr(encoder, "estimate", None)
    if estimate is None:
        return Planned(name, False, len(texts))
    usage = estimate(texts)
    cost = None if price is None else usage.tokens * price / 1e6
    return Planned(name, True, usage.texts, usage.requests, usage.tokens, cost)


def entry_of(encoder: Encoder, judged: Judged, folder: Path, advance: Callable[[int], object]) -> Entry:
    """Documents and queries encoded, or read where an earlier run has done so."""
    texts = list(judged.queries.values()), list(judged.documents.values())
    queries, asking = kept(encoder, texts[0], "encode_query", folder, advance)
    documents, effort = kept(encoder, texts[1], "encode_document", folder, advance)
    several = len(encoder.heads) > 1
    heads = tuple(
        HeadVectors(head, d, q, "dot" if several and head == "sparse" else encoder.similarity_fn_name)
        for head, d, q in zip(HEADS, documents.parts(), queries.parts(), strict=True)
        if d is not None and q is not None
    )
    counted = [_tokens(part, some) for part, some in zip((asking, effort), texts, strict=True)]
    hosted = is_hosted_encoder(encoder)
    return Entry(
        f"{encoder.precision} on {encoder.device}",
        hosted,
        heads,
        _rate(effort),
        None if asking is None else asking.query_ms,
        None if not hosted or None in counted else sum(count for count in counted if count is not None),
    )


def bm25_entry(judged: Judged) -> Entry:
    """BM25, learnt from the documents."""
    from trivec import lexical

    documents, queries = list(judged.documents.values()), list(judged.queries.values())
    started = time.perf_counter()
    model = lexical.BM25().fit(documents)
    rows = model.encode_documents(documents)
    seconds = time.perf_counter() - started
    heads = (HeadVectors("sparse", rows, model.encode_queries(queries), "dot"),)
    alone = query_ms(lambda query: model.encode_queries([query]), queries)
    return Entry("English", False, heads, len(documents) / seconds, alone, None)


def _rate(effort: Effort | None) -> float | None:
    return None if effort is None or not effort.texts else effort.texts / max(effort.seconds, 1e-9)


def _tokens(effort: Effort | None, texts: Sequence[str]) -> int | None:
    """Tokens of all texts, by those of the texts that were asked for; None where none were."""
    if effort is None or not effort.asked:
        return None
    return round(effort.tokens / effort.asked * len(distinct(texts)[0]))
