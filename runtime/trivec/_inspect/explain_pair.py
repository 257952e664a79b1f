"""`trivec explain` of a reranker: the score of a query and a text, and what of the text makes it."""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np

from trivec._encoders.reranker import Reranker
from trivec._inspect.columns import BODY, WIDTH, ascii_lines, cut, grid, labelled, printable, quoted, wrapped
from trivec._inspect.explain import Token
from trivec._tokens.pair_tokenizer import PairTokenizer
from trivec.lexical._sentences import sentences as english_sentences

_END = re.compile(r"(?<=[。！？؟।])|\n+")
"""Where sentences end of which the English rules know nothing, and lines."""


@dataclass(frozen=True)
class LeftOut:
    """A sentence of the text, and what the model says of the rest."""

    sentence: str
    logit: float
    """Without it."""
    drop: float
    """By which the logit is lower without it; below 0 where it is higher."""


@dataclass(frozen=True)
class ExplainedPair:
    """What a reranker makes of a query and a text."""

    model: str
    kind: str
    fingerprint: str
    max_seq_length: int | None
    query: str
    text: str
    prompt: str
    activation: str
    label: str | None
    """The best one of several; None of a model of one."""
    scores: dict[str, float]
    """By label; of one label as "score"."""
    logit: float
    """Of the label, before the activation."""
    tokens: list[Token]
    """Those that the model reads."""
    cut: tuple[int, int]
    """Tokens of the query, prompt included, and of the text, that it does not read."""
    sentences: list[LeftOut]
    """Of a text of several sentences, in order."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def explain_pair(
    reranker: Reranker, query: str, text: str, *, prompt_name: str | None = None, prompt: str | None = None
) -> ExplainedPair:
    """Look at a query and a text through a reranker's eyes.

    Args:
        reranker: from `trivec.load`.
        query: the first text of the pair.
        text: the second.
        prompt_name: one of the model's prompts.
        prompt: a text to put before the query.

    Raises:
        InputError: an unknown prompt.
    """
    spans = list(_spans(text))
    rests = [text[:start] + text[stop:] for start, stop in spans] if len(spans) > 1 else []
    given: dict[str, Any] = {"prompt_name": prompt_name, "prompt": prompt}
    pairs = [(query, text), *((query, rest) for rest in rests)]
    logits = reranker.predict(pairs, activation_fn="identity", **given).reshape(len(pairs), -1)  # (1 + S, L)
    scores = np.reshape(reranker.predict([(query, text)], **given), -1)  # (L,)
    best = int(logits[0].argmax())
    read, written = reranker.prompt_text(prompt, prompt_name), reranker.labels
    names = written or ("score",)
    return ExplainedPair(
        model=reranker.name,
        kind=f"{reranker.precision} on {reranker.device}",
        fingerprint=reranker.fingerprint_of(prompt_name, prompt),
        max_seq_length=reranker.max_seq_length,
        query=query,
        text=text,
        prompt=read,
        activation=reranker.activation,
        label=written[best] if written else None,
        scores={name: float(score) for name, score in zip(names, scores, strict=True)},
        logit=float(logits[0, best]),
        tokens=_tokens(reranker, query, text, read),
        cut=cast("PairTokenizer", reranker.route().tokenizer).unread((query, text), read),
        sentences=[
            LeftOut(text[start:stop].strip(), float(row[best]), float(logits[0, best] - row[best]))
            for (start, stop), row in zip(spans, logits[1:], strict=False)
        ],
    )


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Where the sentences of a text are, each with the spaces behind it."""
    starts, place = [], 0
    for part in _END.split(text):
        for sentence in english_sentences(part):
            starts.append(text.index(sentence, place))
            place = starts[-1] + len(sentence)
    yield from zip(starts, [*starts[1:], len(text)], strict=True)


def _tokens(reranker: Reranker, query: str, text: str, prompt: str) -> list[Token]:
    special = reranker.route().tokenizer.special_ids
    (ids,) = reranker.tokenize([(query, text)], prompt=prompt)
    return [Token(i, reranker.token(i), i in special) for i in ids]


# ---- as text -----------------------------------------------------------------------------------------------------


def render(found: ExplainedPair, *, ascii_only: bool = False) -> str:
    """Lines of text, the last one ended too; `ascii_only`: without letters that are none of ASCII."""
    lines = list(_lines(found))
    return "\n".join(ascii_lines(lines) if ascii_only else lines) + "\n"


def _lines(found: ExplainedPair) -> Iterator[str]:
    limit = found.max_seq_length
    reads = "pairs of any length" if limit is None else f"pairs of up to {limit:,} tokens"
    yield from wrapped(f"{found.model} ({found.kind}) reads {reads}", 0)
    yield f"fingerprint {found.fingerprint[:12]}"
    yield ""
    yield from wrapped(f"query: {quoted(found.query)}", 0)
    if found.prompt:
        yield from labelled("prompt", quoted(found.prompt))
    yield from wrapped(f"text: {quoted(found.text)}", 0)
    yield ""
    of = "" if found.label is None else f" of {found.label}"
    for name, score in found.scores.items():
        yield from labelled("score", f"{score:.4f}{'' if found.label is None else f' {name}'}")
    yield from labelled("logit", f"{found.logit:.4f}{of}, which {found.activation} makes a score of")
    special = sum(token.special for token in found.tokens)
    yield from labelled("tokens", f"{len(found.tokens):,}" + (f", {special} of them special (*)" if special else ""))
    yield from grid(found.tokens)
    if any(found.cut):
        yield from labelled(
            "cut off", f"{found.cut[0]:,} tokens of the query and {found.cut[1]:,} of the text, which are not read"
        )
    if found.sentences:
        yield ""
        yield f"the logit{of} without a sentence, and how much lower it is"
        for left in found.sentences:
            line = f"{left.logit:>9.4f} {left.drop:>+9.4f}  "
            yield f"  {line}{cut(printable(left.sentence), WIDTH - BODY - len(line) + 10)}"
