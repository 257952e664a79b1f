"""A difference as text for people."""

from collections.abc import Iterator

from trivec.compare._difference import Difference, HeadDifference, SideFacts

_SHOWN = 76  # letters of a text


def render(found: Difference) -> str:
    """Lines, the last of which is the verdict."""
    return "\n".join([*_lines(found), f"verdict: {found.verdict} ({found.reason})"])


def _lines(found: Difference) -> Iterator[str]:
    for letter, side in (("A", found.a), ("B", found.b)):
        yield f"{letter}  {side.name}: {side.what}"
    yield f"fingerprint  {_both(found.a, found.b, 'fingerprint')}"
    yield f"engine       {_both(found.a, found.b, 'engine')}"
    yield f"texts        {found.texts:,}"
    for head, figures in found.heads.items():
        yield from _head(head, figures, found.texts)


def _both(a: SideFacts, b: SideFacts, name: str) -> str:
    values = [getattr(side, name) or "not known" for side in (a, b)]
    shown = [value[:12] if name == "fingerprint" and value != "not known" else value for value in values]
    if values[0] == values[1]:
        return f"of both: {shown[0]}"
    return f"A: {shown[0]}; B: {shown[1]}"


def _head(head: str, figures: HeadDifference, texts: int) -> Iterator[str]:
    yield f"{head} ({' and '.join(str(dim) for dim in dict.fromkeys(figures.dims))})"
    if figures.cosine_min is not None:
        yield f"  cosine       min {figures.cosine_min:.6f}, mean {figures.cosine_mean:.6f}"
    kept = f"{figures.top10_kept:.2%} kept; others for {figures.texts_changed:.2%} of the texts"
    yield f"  top 10       {kept if texts > 11 else f'nothing to tell: each of {texts} texts has all others'}"
    if figures.ndcg is not None:
        a, b, mixed = ("-" if value is None else f"{100 * value:.2f}" for value in figures.ndcg)
        yield f"  nDCG@10      A {a}, B {b}, queries of one on vectors of the other {mixed}"
    for moved in figures.moved if not figures.equal else ():
        text = " ".join(moved.text.split())
        yield f"  {moved.cosine:.6f}     {text[:_SHOWN]!r}"
