"""What `trivec explain` prints: an Explanation in at most 80 columns."""

from collections.abc import Iterator, Sequence

from trivec._inspect.columns import BODY, ascii_lines, bars, grid, labelled, printable, quoted, wrapped
from trivec._inspect.explain import Explained, Explanation, SharedTerm, Similarities, Term

_NUMBERS = 7  # that are shown of a dense vector


def render(explanation: Explanation, *, top: int = 15, ascii_only: bool = False) -> str:
    """Lines of text, the last one ended too.

    Args:
        explanation: of one or two texts.
        top: terms that are shown at most.
        ascii_only: draw bars with # and not with blocks.
    """
    lines = list(_lines(explanation, top))
    return "\n".join(ascii_lines(lines) if ascii_only else lines) + "\n"


def _lines(explanation: Explanation, top: int) -> Iterator[str]:
    limit = explanation.max_seq_length
    reads = "texts of any length" if limit is None else f"up to {limit:,} tokens"
    yield from wrapped(f"{explanation.model} ({explanation.kind}) reads {reads}", 0)
    yield f"fingerprint {explanation.fingerprint[:12]}"
    names = ("A", "B") if len(explanation.texts) > 1 else ("text",)
    for name, text in zip(names, explanation.texts, strict=True):
        yield ""
        yield from _text(name, text, top)
    if explanation.similarity is not None:
        yield ""
        yield "A and B"
        yield from _similarities(explanation.similarity, top)


# ---- a text ----------------------------------------------------------------------------------------------------------


def _text(name: str, text: Explained, top: int) -> Iterator[str]:
    yield from wrapped(f"{name}: {quoted(text.text)}", 0, most=3)
    if text.prompt:
        yield from labelled("prompt", quoted(text.prompt))
    special = sum(token.special for token in text.tokens)
    yield from labelled("tokens", f"{len(text.tokens):,}" + (f", {special} of them special (*)" if special else ""))
    yield from grid(text.tokens)
    if text.cut:
        listed = " ".join(printable(token.token) for token in text.cut[:200])
        yield from labelled("cut off", f"{len(text.cut):,} more tokens, which the model does not read:")
        yield from wrapped(listed, BODY, most=2)
    if text.dense is not None:
        more = " …" if len(text.dense.values) > _NUMBERS else ""
        yield from labelled("vector", f"{len(text.dense.values):,} numbers, norm {text.dense.norm:.4f}:")
        yield " " * BODY + " ".join(f"{x:.4f}" for x in text.dense.values[:_NUMBERS]) + more
    if text.terms is not None:
        yield from _terms(text.terms, text.sparse_dim or 0, top)
    if text.colbert is not None:
        yield from labelled("colbert", f"{text.colbert[0]:,} vectors of {text.colbert[1]:,} numbers, one a token")


def _terms(terms: Sequence[Term], dim: int, top: int) -> Iterator[str]:
    shown = min(top, len(terms))
    which = f", the {shown} heaviest:" if shown < len(terms) else ":" if terms else ""
    yield from labelled("terms", f"{len(terms):,} of {dim:,}{which}")
    yield from bars([(term.token, term.weight, "") for term in terms[:top]])


# ---- two texts -------------------------------------------------------------------------------------------------------


def _similarities(found: Similarities, top: int) -> Iterator[str]:
    if found.dense is not None:
        yield from labelled("dense", _functions(found.dense))
    if found.sparse is not None and found.shared is not None:
        shown = min(top, len(found.shared))
        which = f", the {shown} heaviest" if shown < len(found.shared) else ""
        total = f"; {len(found.shared):,} shared terms{which}" if found.shared else "; no shared terms"
        yield from labelled("sparse", f"{_functions(found.sparse)}{total}")
        yield from bars([_product(term) for term in found.shared[:top]])
    if found.matches is not None and found.colbert is not None:
        shown = min(top, len(found.matches))
        which = f", the first {shown} of {len(found.matches)}" if shown < len(found.matches) else ""
        how = "mean" if found.function == "meanmaxsim" else "sum"
        yield from labelled(
            "colbert", f"{found.function} {found.colbert + 0.0:.4f}, the {how} of what A's tokens meet{which}:"
        )
        yield from bars(
            [(match.a.token, match.score, f"{printable(match.b.token)[:12]:>12}") for match in found.matches[:top]]
        )
    elif found.colbert is not None:
        yield from labelled("colbert", f"{found.colbert + 0.0:.4f}, the mean of each token of A's best match in B")


def _functions(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {round(value, 4) + 0.0:.4f}" for name, value in values.items())


def _product(term: SharedTerm) -> tuple[str, float, str]:
    return term.token, term.product, f"{term.a:.3f} x {term.b:.3f} ="
