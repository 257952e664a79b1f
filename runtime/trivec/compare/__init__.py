"""What changes between two models, two variants, two engines, or a stored file and what runs now.

    from trivec.compare import diff

    found = diff("vectors.parquet", "minilm")  # folders, names on the Hub, open encoders, files of trivec.store
    found.verdict  # "interchangeable", "mix with this loss" or "encode again"
    found.heads["dense"].cosine_min

    from trivec.compare import compare

    found = compare("scifact", ["minilm", "minilm:int8", "bm25", "voyage:voyage-4"])  # on judged queries
    found.rows[1].ndcg.value, found.rows[1].to_first.low

`trivec diff` and `trivec compare` are the same on the command line.
"""

from trivec.compare._compare import compare, plan
from trivec.compare._comparison import Comparison, Differing, Hit, Mean, Row
from trivec.compare._diff import diff
from trivec.compare._difference import Difference, HeadDifference, Moved, SideFacts, Verdict
from trivec.compare._entrants import Planned
from trivec.compare._judged import Judged, Ndcg, read_judged

__all__ = [
    "Comparison",
    "Difference",
    "Differing",
    "HeadDifference",
    "Hit",
    "Judged",
    "Mean",
    "Moved",
    "Ndcg",
    "Planned",
    "Row",
    "SideFacts",
    "Verdict",
    "compare",
    "diff",
    "plan",
    "read_judged",
]

for _value in (
    Comparison,
    Difference,
    Differing,
    HeadDifference,
    Hit,
    Judged,
    Mean,
    Moved,
    Ndcg,
    Planned,
    Row,
    SideFacts,
):
    _value.__module__ = __name__  # repr and tracebacks show trivec.compare.Difference
for _function in (compare, diff, plan, read_judged):
    _function.__module__ = __name__
