"""`trivec diff`: two models, variants or files, compared on the same texts."""

import argparse
import json
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from trivec._cli.load_options import load_options
from trivec._encoders.named_call import METHODS
from trivec._errors import InputError
from trivec._open import open_encoder
from trivec._system.text_files import open_texts
from trivec.compare import diff
from trivec.compare._sides import Given, is_stored
from trivec.compare._text import render


def run(args: argparse.Namespace) -> int:
    """Run the command; `args` is what `_cli` parsed."""
    texts = None if args.texts is None else list(open_texts(args.texts, args.column).read())
    options = {"prompt": args.prompt, "prompt_name": args.prompt_name}
    given = {name: value for name, value in options.items() if value is not None}
    opening = load_options(args)
    if is_stored(args.a) and is_stored(args.b):
        given |= {name: value for name, value in opening.items() if value not in (None, "auto", False)}
    with ExitStack() as stack:
        sides: list[Given] = []
        for side, name in enumerate((args.a, args.b)):
            opened = {key: _of_side(key, value, side) for key, value in opening.items()}
            if is_stored(name):
                sides.append(Path(name))
            else:
                sides.append(stack.enter_context(closing(open_encoder(name, **opened))))
        found = diff(*sides, texts=texts, judged=args.judged, heads=args.heads, method=METHODS[args.task], **given)
    print(json.dumps(found.as_dict(), indent=2) if args.json else render(found))
    return 1 if found.verdict == "encode again" else 0


def _of_side(name: str, value: Any, side: int) -> Any:  # noqa: ANN401 - as argparse gives it
    """The value for A (0) or B (1): of one both, of two separated by a comma its own."""
    if not isinstance(value, str):
        return value
    values = value.split(",")
    if len(values) > 2 or not all(values):
        raise InputError(f"--{name.replace('_', '-')} {value!r}: expected a value for both sides, or A's,B's.")
    return values[min(side, len(values) - 1)]
