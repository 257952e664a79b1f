"""What the commands do, one function each; imports happen when they run."""

import argparse
import sys
from pathlib import Path

from trivec._cli.load_options import load_options
from trivec._errors import InputError
from trivec._system.native_text import argument_text


def run_export(args: argparse.Namespace) -> int:
    from trivec._export import export

    export(
        args.model,
        args.out,
        family=args.family,
        precision=args.precision,
        calibration=args.calibration,
        revision=args.revision,
        trust_remote_code=args.trust_remote_code,
        max_texts=args.max_texts,
        tasks=args.tasks,
        name=args.name,
        version=args.version,
        quiet=args.quiet,
    )
    return 0


def run_encode(args: argparse.Namespace) -> int:
    from trivec._cli.encode import encode

    return encode(args)


def run_verify(args: argparse.Namespace) -> int:
    from trivec._gate.texts import Text
    from trivec._gate.verify import engines, report, verify
    from trivec._system.text_files import open_texts

    texts = None
    if args.texts is not None:
        texts = [Text("user", text) for text in open_texts(str(args.texts), args.column).read()]
    checks = verify(
        args.model, device=args.device, engine=args.engine, texts=texts, threads=args.threads, expect=args.expect
    )
    print(report(checks))
    print(engines(checks))
    return 1 if any(check.failed for check in checks) else 0


def run_diff(args: argparse.Namespace) -> int:
    from trivec._cli.diff import run

    return run(args)


def run_compare(args: argparse.Namespace) -> int:
    from trivec._cli.compare import run

    return run(args)


def run_info(args: argparse.Namespace) -> int:
    from trivec._inspect.info import info

    given = {
        name: getattr(args, name) for name in ("revision", "file_name", "pooling", "expect", "engine", "fingerprints")
    }
    print(info(args.model, **given, as_json=args.json), end="")
    return 0


def run_doctor(args: argparse.Namespace) -> int:
    from trivec._inspect.doctor import doctor

    providers = None if args.providers is None else [name.strip() for name in args.providers.split(",")]
    options = {"device": args.device, "engine": args.engine, "providers": providers, "expect": args.expect}
    return doctor(args.model, **options, as_json=args.json)


def run_similarity(args: argparse.Namespace) -> int:
    from trivec._load import load

    texts = [_text(args.a), _text(args.b)]
    with load(args.model, **load_options(args)) as encoder:
        if len(encoder.heads) > 1:
            value = float(encoder.compute_score([(texts[0], texts[1])])["sparse+dense"][0])
        else:
            vectors = encoder.encode(texts)
            value = float(encoder.similarity_pairwise(vectors[:1], vectors[1:])[0])
    print(f"{round(value, 4) + 0.0:.4f}")  # + 0.0 turns -0.0, the distance of equal texts, into 0.0
    return 0


def run_explain(args: argparse.Namespace) -> int:
    import json

    from trivec._encoders.named_call import METHODS
    from trivec._inspect import explain_pair, explain_text
    from trivec._inspect.explain import explain
    from trivec._load import load

    texts = [_text(argument) for argument in (args.a, args.b) if argument is not None]
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"  # stdout may be closed
    blocks = "█".encode(encoding, "replace").decode(encoding) == "█"
    prompts = {"prompt_name": args.prompt_name, "prompt": args.prompt}
    with load(args.model, **load_options(args)) as model:
        if model.heads == ("score",):
            if len(texts) < 2 or args.task is not None:
                why = "--task is for encoders" if args.task is not None else "it scores a query with a text"
                raise InputError(f"{model!r} is a reranker: {why}. Type: trivec explain MODEL QUERY TEXT")
            pair = explain_pair.explain_pair(model, texts[0], texts[1], **prompts)
            said, shown = pair.as_dict(), explain_pair.render(pair, ascii_only=not blocks)
        else:
            found = explain(model, texts, method=METHODS[args.task], **prompts)
            said, shown = found.as_dict(), explain_text.render(found, top=args.top, ascii_only=not blocks)
    text = json.dumps(said, ensure_ascii=not blocks, indent=2) + "\n" if args.json else shown
    print(text.encode(encoding, "replace").decode(encoding), end="")  # a token may be of any script
    return 0


def run_rerank(args: argparse.Namespace) -> int:
    from trivec._cli.rerank import rerank

    return rerank(args)


def run_serve(args: argparse.Namespace) -> int:
    from trivec._cli.serve import run

    return run(args)


def run_map(args: argparse.Namespace) -> int:
    from trivec import map as maps
    from trivec._system.streams import tell
    from trivec._system.text_files import open_texts

    texts = None if args.texts is None else open_texts(args.texts, args.column).read()
    drawn = maps.write(
        args.file,
        args.out,
        texts=texts,
        projection=args.projection,
        vectors=args.vectors,
        limit=args.limit,
        max_chars=args.max_chars,
        overwrite=args.force,
    )
    sample = "" if drawn.rows == drawn.total else f" of {drawn.total:,}"
    tell(f"{drawn.rows:,}{sample} texts, {drawn.projection}, {drawn.size / 1e6:.1f} MB: {drawn.path}")
    return 0


def _text(argument: str) -> str:
    """A text from the command line; `@FILE` is the text of a file, without its last line break."""
    from trivec._system.text_files import read_text

    if not argument.startswith("@"):
        return argument_text(argument)
    path = Path(argument[1:])
    if not path.is_file():
        raise InputError(
            f"there is no file {str(path)!r}; an argument that starts with @ names a file. For a text that really "
            "starts with @, put the text in a file."
        )
    return read_text(path).removesuffix("\n")
