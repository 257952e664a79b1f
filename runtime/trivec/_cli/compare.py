"""`trivec compare`: encoders, local and hosted, and BM25 on a corpus with judged queries."""

import argparse
import json
import math
from pathlib import Path
from typing import Any

from trivec._errors import InputError
from trivec._system.streams import is_terminal
from trivec.compare import compare, plan
from trivec.compare._tables import markdown, render, render_plan

_SUFFIXES = (".md", ".json")


def run(args: argparse.Namespace) -> int:
    """Run the command; `args` is what `_cli` parsed."""
    out = None if args.output is None else _target(Path(args.output), force=args.force)
    given: dict[str, Any] = {
        "split": args.split,
        "limit_docs": args.limit_docs,
        "prices": dict(map(_price, args.price)),
        "depth": args.depth,
        "cache": args.cache,
        "device": args.device,
        "threads": args.threads,
    }
    if args.dry_run:
        plans = plan(args.folder, args.encoders, **given)
        print(json.dumps([vars(found) for found in plans], indent=2) if args.json else render_plan(plans))
        return 0
    found = compare(
        args.folder,
        args.encoders,
        max_cost=math.inf if args.yes else args.max_cost,
        show_progress=is_terminal() if args.progress is None else args.progress,
        **given,
    )
    if out is not None:
        text = markdown(found) if out.suffix == ".md" else json.dumps(found.as_dict(), indent=2)
        out.write_text(text + "\n", encoding="utf-8")
    print(json.dumps(found.as_dict(), indent=2) if args.json else render(found))
    return 0


def _price(argument: str) -> tuple[str, float]:
    name, equals, price = argument.rpartition("=")
    try:
        return name, float(price if equals and name else "")
    except ValueError:
        raise InputError(f"--price {argument!r}: expected ENCODER=NUMBER, what a million tokens cost.") from None


def _target(path: Path, *, force: bool) -> Path:
    """Checked before anything is encoded."""
    if path.suffix not in _SUFFIXES:
        raise InputError(f"the report {str(path)!r} is neither .md nor .json.")
    if not path.parent.is_dir():
        raise InputError(
            f"there is no folder {str(path.parent)!r} to write {path.name} to. Type: mkdir -p {path.parent}"
        )
    if path.is_dir() or (path.exists() and not force):
        raise InputError(f"{path} exists. Choose another name, or replace it: --force.")
    return path
