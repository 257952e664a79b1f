"""The pairs that `trivec rerank` scores, from a file or stdin, one by one."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from trivec._errors import InputError
from trivec._system.text_files import TextGenerator, Texts, open_json_rows, open_texts

_SHOWN = "{query, documents: [text or {id, text}, ...]} or {query, id, text}, with a query_id or not"


class Pair(NamedTuple):
    """A document of a query."""

    query_id: str | int
    """As it was given, or the query's number from 1."""
    query: str
    id: str | int
    """As it was given, or the document's number among those of its query, from 0."""
    text: str

    @classmethod
    def of(cls, written: str) -> "Pair":
        """From what `written` gave."""
        return cls(*json.loads(written))

    @property
    def written(self) -> str:
        """As one text, for a journal of texts."""
        return json.dumps(self, ensure_ascii=False)


def open_pairs(source: str, query: str | None, column: str, *, whole_ids: bool) -> Texts:
    """Pairs as `Pair.written` has them: of a query, a text of the source each; or what a source of JSON lines has.

    Args:
        source: a file, or - for stdin.
        query: the one query; None: the source names them.
        column: where the texts are in objects, with a query.
        whole_ids: whether an id may hold no white space, as in a TREC run.

    Raises:
        InputError: no such file, or a line that cannot be used; it is named.
    """
    if query is not None:
        texts = open_texts(source, column)
        return Texts(lambda: _of_one(texts, query), texts.total)
    rows = open_json_rows(source)

    def read() -> TextGenerator:
        for pair in _of_lines(rows.read(), whole_ids=whole_ids):
            yield pair.written

    return Texts(read, None if rows.read_once else sum(1 for _ in read()))


def _of_one(texts: Texts, query: str) -> TextGenerator:
    for number, text in enumerate(texts.read()):
        yield Pair(1, query, number, text).written


def _of_lines(lines: Iterator[tuple[str, Any]], *, whole_ids: bool) -> Iterator[Pair]:
    """The pairs of all lines; those of a query follow each other."""
    done: set[str | int] = set()
    number, last, place = 0, None, 0
    for where, value in lines:
        query, documents = _parts(value, where)
        stated = None if "query_id" not in value else _id(value["query_id"], f"{where}: query_id", whole_ids)
        key = ("id", stated) if stated is not None else ("query", query)
        if "documents" in value or key != last:
            number, place = number + 1, 0
            query_id = number if stated is None else stated
            if query_id in done:
                raise InputError(
                    f"{where}: the query {query_id!r} was there before, with others between. Sort the lines by query."
                )
            done.add(query_id)
        last = None if "documents" in value else key
        for document in documents:
            identity, text = _document(document, place, f"{where}, document {place}", whole_ids)
            yield Pair(query_id, query, identity, text)
            place += 1


def _parts(value: Any, where: str) -> tuple[str, list[Any]]:  # noqa: ANN401 - JSON
    """The query of a line, and its documents."""
    if not isinstance(value, dict) or "query" not in value or ("documents" in value) == ("text" in value):
        raise InputError(f"{where}: expected {_SHOWN}, got {json.dumps(value)[:60]}. For one query type: --query TEXT")
    documents = value.get("documents", [value])
    if not isinstance(documents, list):
        raise InputError(f"{where}: expected a list of documents, got {json.dumps(documents)[:60]}.")
    return _text(value["query"], f"{where}: query"), documents


def _document(value: Any, number: int, where: str, whole_ids: bool) -> tuple[str | int, str]:  # noqa: ANN401 - JSON
    if not isinstance(value, dict):
        return number, _text(value, where)
    if "text" not in value:
        raise InputError(f"{where}: expected a text, or an object with a text, got {json.dumps(value)[:60]}.")
    identity = number if "id" not in value else _id(value["id"], f"{where}: id", whole_ids)
    return identity, _text(value["text"], where)


def _text(value: Any, where: str) -> str:  # noqa: ANN401 - JSON
    if not isinstance(value, str):
        raise InputError(f"{where}: expected a string, got {json.dumps(value)[:60]}.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{where} holds a lone surrogate (half of a \\u pair), which is no valid text.") from error
    return value


def _id(value: Any, where: str, whole: bool) -> str | int:  # noqa: ANN401 - JSON
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(f"{where}: expected a string or a whole number, got {json.dumps(value)[:60]}.")
    if whole and len(str(value).split()) != 1:
        raise InputError(f"{where}: a TREC run takes no white space in ids, got {value!r}. Write .jsonl.")
    return value
