"""The command line: `trivec export | encode | verify | info | doctor | similarity | explain | map`.

What a command needs is imported when it runs, so that `--help`, `--version` and a mistyped option answer at once.
"""

import argparse
import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from trivec._errors import InputError, TrivecError
from trivec._model.manifest import PRECISIONS
from trivec._vectors.quantize import OUTPUT_PRECISIONS
from trivec._version import __version__

FAMILIES = ("auto", "dense", "splade", "bge-m3", "mgte")
INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
BROKEN_PIPE = 141  # 128 + SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments; None: those of the process.

    Returns:
        The exit status: 0, or 1 after an error (one line on stderr; with TRIVEC_DEBUG=1 the traceback before it).

    Raises:
        SystemExit: argparse ends --help and --version with status 0, a wrong command line with 2.
    """
    args = _parser().parse_args(argv)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt as error:
        print("trivec: interrupted", file=sys.stderr)
        _print_notes(error)
        return INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()
        return BROKEN_PIPE
    except (TrivecError, OSError) as error:
        if os.environ.get("TRIVEC_DEBUG", "0") not in ("", "0"):
            traceback.print_exc()
        print(f"trivec: error: {' '.join(str(error).split())}", file=sys.stderr)
        _print_notes(error)
        return 1
    return status


# ---- commands --------------------------------------------------------------------------------------------------------


def _export(args: argparse.Namespace) -> int:
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
        quiet=args.quiet,
    )
    return 0


def _encode(args: argparse.Namespace) -> int:
    from trivec._cli.encode import encode

    return encode(args)


def _verify(args: argparse.Namespace) -> int:
    from trivec._gate.texts import Text
    from trivec._gate.verify import report, verify
    from trivec._system.text_files import open_texts

    texts = None
    if args.texts is not None:
        texts = [Text("user", text) for text in open_texts(str(args.texts), args.column).read()]
    checks = verify(args.model, device=args.device, texts=texts, threads=args.threads)
    print(report(checks))
    return 1 if any(check.failed for check in checks) else 0


def _info(args: argparse.Namespace) -> int:
    from trivec._inspect.info import info

    print(info(args.model, revision=args.revision, as_json=args.json), end="")
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from trivec._inspect.doctor import doctor

    providers = None if args.providers is None else [name.strip() for name in args.providers.split(",")]
    return doctor(args.model, device=args.device, providers=providers)


def _similarity(args: argparse.Namespace) -> int:
    from trivec._encoders.hybrid import HybridEncoder
    from trivec._load import load

    texts = [_text(args.a), _text(args.b)]
    with load(
        args.model, device=args.device, precision=args.precision, threads=args.threads, revision=args.revision
    ) as encoder:
        if isinstance(encoder, HybridEncoder):
            value = float(encoder.compute_score([(texts[0], texts[1])])["sparse+dense"][0])
        else:
            vectors = encoder.encode(texts)
            value = float(encoder.similarity_pairwise(vectors[:1], vectors[1:])[0])
    print(f"{round(value, 4) + 0.0:.4f}")  # + 0.0 turns -0.0, the distance of equal texts, into 0.0
    return 0


def _explain(args: argparse.Namespace) -> int:
    import json

    from trivec._encoders.named_call import METHODS
    from trivec._inspect.explain import explain
    from trivec._inspect.explain_text import render
    from trivec._load import load

    texts = [_text(argument) for argument in (args.a, args.b) if argument is not None]
    with load(
        args.model, device=args.device, precision=args.precision, threads=args.threads, revision=args.revision
    ) as encoder:
        found = explain(encoder, texts, method=METHODS[args.task], prompt_name=args.prompt_name, prompt=args.prompt)
    encoding = sys.stdout.encoding or "ascii"
    blocks = "█".encode(encoding, "replace").decode(encoding) == "█"
    if args.json:
        text = json.dumps(found.as_dict(), ensure_ascii=not blocks, indent=2) + "\n"
    else:
        text = render(found, top=args.top, ascii_only=not blocks)
    print(text.encode(encoding, "replace").decode(encoding), end="")  # a token may be of any script
    return 0


def _map(args: argparse.Namespace) -> int:
    from trivec import map as maps
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
    print(f"{drawn.rows:,}{sample} texts, {drawn.projection}, {drawn.size / 1e6:.1f} MB: {drawn.path}", file=sys.stderr)
    return 0


def _print_notes(error: BaseException) -> None:
    """What an error says beside its message: how to go on, say."""
    for note in getattr(error, "__notes__", ()):
        print(f"trivec: {note}", file=sys.stderr)


def _text(argument: str) -> str:
    """A text from the command line; `@FILE` is the text of a file, without its last line break."""
    if not argument.startswith("@"):
        return argument
    path = Path(argument[1:])
    if not path.is_file():
        raise InputError(
            f"there is no file {str(path)!r}; an argument that starts with @ names a file. For a text that really "
            "starts with @, put the text in a file."
        )
    try:
        return path.read_text(encoding="utf-8-sig").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}. Convert it: iconv -t UTF-8") from error


# ---- arguments -------------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="trivec", description="Text embeddings from ONNX graphs.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"trivec {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_export(commands)
    _add_encode(commands)
    _add_verify(commands)
    _add_info(commands)
    _add_doctor(commands)
    _add_similarity(commands)
    _add_explain(commands)
    _add_map(commands)
    return parser


Commands = argparse._SubParsersAction


def _add_export(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "export",
        allow_abbrev=False,
        help="turn a checkpoint into a model folder",
        description="Turn a checkpoint into a model folder with fp32, fp16 and int8 graphs, each compared with torch. "
        "Needs trivec[export]. Private repositories: set HF_TOKEN.",
    )
    parser.add_argument("model", metavar="MODEL", help="checkpoint folder, or name on the Hub")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    parser.add_argument("--family", choices=FAMILIES, default="auto", help="kind of vectors (default: %(default)s)")
    parser.add_argument(
        "--precision",
        type=_precisions,
        default=PRECISIONS,
        metavar="LIST",
        help=f"variants to write, separated by commas (default: {','.join(PRECISIONS)})",
    )
    parser.add_argument(
        "--calibration", type=Path, metavar="FILE", help="your own texts for int8, beside those that come along"
    )
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit on the Hub")
    parser.add_argument("--trust-remote-code", action="store_true", help="run Python code of the checkpoint")
    parser.add_argument(
        "--max-texts", type=int, metavar="N", help="calibrate and verify on at most N texts each (default: all)"
    )
    parser.add_argument(
        "--tasks",
        type=lambda text: text.split(","),
        metavar="LIST",
        help="of a model with an adapter for each task, such as Jina v3, those to export, separated by commas; each "
        "has a graph of its own (default: all)",
    )
    parser.add_argument("--quiet", action="store_true", help="print no progress")
    parser.set_defaults(run=_export)


def _add_encode(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "encode",
        allow_abbrev=False,
        help="texts to vectors",
        description="Encode texts in bounded memory. Row i of OUT is text i of INPUT. Files are checked to their end "
        "before anything is encoded. OUT appears when it is complete; until then what is done is in OUT.partial, and "
        "the same command goes on from there after an interruption of any kind.",
    )
    parser.add_argument("model", metavar="MODEL", help="model folder, or name on the Hub")
    parser.add_argument(
        "input",
        metavar="INPUT",
        nargs="?",
        default="-",
        help="- (stdin) or .txt: one text a line, empty lines included; .jsonl: strings, or objects with a column; "
        ".csv with a header. UTF-8. (default: -)",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        required=True,
        help=".npy, .npz (sparse rows), .jsonl or .parquet file; - for jsonl on stdout",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace OUT if it exists, and an OUT.partial of another model or options"
    )
    parser.add_argument("--column", metavar="NAME", default="text", help="column of the texts (default: %(default)s)")
    parser.add_argument(
        "--output-precision",
        choices=OUTPUT_PRECISIONS,
        default="float32",
        help="number type of the vectors (default: %(default)s)",
    )
    _add_prompt_options(parser)
    parser.add_argument("--max-active-dims", type=int, metavar="N", help="keep the N heaviest terms of a sparse row")
    parser.add_argument("--truncate-dim", type=int, metavar="N", help="keep the first N numbers of a vector")
    parser.add_argument("--normalize", action="store_true", help="divide vectors by their length")
    parser.add_argument(
        "--batch-size", type=int, metavar="N", default=32, help="work of one run (default: %(default)s)"
    )
    parser.add_argument(
        "--window",
        type=_count,
        metavar="N",
        help="texts that are encoded at a time, and kept: what an interruption can cost (default: 1024)",
    )
    parser.add_argument(
        "--on-overflow",
        choices=("truncate", "error"),
        default="truncate",
        help="for texts longer than the model reads (default: %(default)s)",
    )
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="a progress bar on stderr (default: where stderr is a terminal)",
    )
    _add_load_options(parser)
    parser.set_defaults(run=_encode)


def _add_verify(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "verify",
        allow_abbrev=False,
        help="check a model folder on this machine",
        description="Hash every file, then compare every variant that the device runs with the fp32 variant, over the "
        "verification texts that ship with trivec. Needs no torch. Exit status 1 if a variant misses its gate.",
    )
    parser.add_argument("model", metavar="MODEL", help="model folder, or name on the Hub")
    parser.add_argument("--texts", type=Path, metavar="FILE", help="your own texts instead: .txt, .jsonl or .csv")
    parser.add_argument("--column", metavar="NAME", default="text", help="column of the texts (default: %(default)s)")
    parser.add_argument(
        "--device", default="auto", metavar="D", help="auto, cpu, cuda or cuda:N (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: what this process may use)")
    parser.set_defaults(run=_verify)


def _add_info(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "info",
        allow_abbrev=False,
        help="what a model folder says of itself",
        description="Print a model's manifest, readably. Opens no graph and needs no onnxruntime.",
    )
    parser.add_argument("model", metavar="MODEL", help="model folder, or name on the Hub")
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit on the Hub")
    parser.add_argument("--json", action="store_true", help="the manifest as it is")
    parser.set_defaults(run=_info)


def _add_doctor(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "doctor",
        allow_abbrev=False,
        help="what works on this machine",
        description="Print versions, the providers that really start, CPU features, threads and folders; with a MODEL "
        "also where it runs, and which provider runs how many of its nodes. Exit status 1 if nothing can run.",
    )
    parser.add_argument("model", metavar="MODEL", nargs="?", help="model folder, or name on the Hub, to open too")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument(
        "--providers", metavar="LIST", help="onnxruntime's providers for MODEL instead, best first, separated by commas"
    )
    parser.set_defaults(run=_doctor)


def _add_similarity(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "similarity",
        allow_abbrev=False,
        help="similarity of two texts",
        description="Print the similarity of two texts by the model's own function.",
    )
    parser.add_argument("model", metavar="MODEL", help="model folder, or name on the Hub")
    parser.add_argument("a", metavar="A", help="a text, or @FILE")
    parser.add_argument("b", metavar="B", help="a text, or @FILE")
    _add_load_options(parser)
    parser.set_defaults(run=_similarity)


def _add_explain(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "explain",
        allow_abbrev=False,
        help="what a model makes of a text, or of two",
        description="Print the tokens of a text, what of it is cut off, its vector or its heaviest terms; of two texts "
        "also how alike they are, and which terms make them so.",
    )
    parser.add_argument("model", metavar="MODEL", help="model folder, or name on the Hub")
    parser.add_argument("a", metavar="TEXT", help="a text, or @FILE")
    parser.add_argument("b", metavar="TEXT", nargs="?", help="another one, to compare")
    _add_prompt_options(parser)
    parser.add_argument(
        "--top", type=_count, metavar="N", default=15, help="terms to show at most (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="everything, for programs")
    _add_load_options(parser)
    parser.set_defaults(run=_explain)


def _add_map(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "map",
        allow_abbrev=False,
        help="a stored corpus as a page to look at",
        description="Write one HTML file that shows a corpus, as `trivec encode` stores it, as a map: a dot for each "
        "text, to hover, search and zoom. The page makes no request to anywhere.",
    )
    parser.add_argument("file", metavar="FILE", help=".parquet, .jsonl, .npy or .npz, of `trivec encode`")
    parser.add_argument("out", metavar="OUT", help=".html file to write")
    parser.add_argument(
        "--texts", metavar="TEXTS", help=".txt (one text a line), .jsonl or .csv, for a .npy or .npz file; - for stdin"
    )
    parser.add_argument("--column", metavar="NAME", default="text", help="column of the texts (default: %(default)s)")
    parser.add_argument(
        "--projection",
        choices=("pca", "tsne"),
        default="pca",
        help="pca: where the vectors differ most; tsne: neighbours near each other, slow, needs trivec[map] "
        "(default: %(default)s)",
    )
    parser.add_argument("--vectors", choices=("dense", "sparse"), help="which, of a file with both (default: dense)")
    parser.add_argument(
        "--limit", type=_count, metavar="N", default=50_000, help="texts on the map, of more a sample (default: 50,000)"
    )
    parser.add_argument(
        "--max-chars", type=_count, metavar="N", default=1_000, help="letters of a text on the page (default: 1,000)"
    )
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    parser.set_defaults(run=_map)


def _add_prompt_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--task", choices=("query", "document"), help="encode as encode_query or encode_document do, prompts included"
    )
    parser.add_argument("--prompt-name", metavar="NAME", help="one of the model's prompts")
    parser.add_argument("--prompt", metavar="TEXT", help="text to put before each text")


def _add_load_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision", choices=("auto", *PRECISIONS), default="auto", help="variant to run (default: %(default)s)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: what this process may use)")
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit on the Hub")


def _count(argument: str) -> int:
    if not argument.isdecimal() or int(argument) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {argument!r}")
    return int(argument)


def _precisions(argument: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in argument.split(",")))
    unknown = [name for name in names if name not in PRECISIONS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown variant {unknown[0]!r} (choose from {', '.join(PRECISIONS)})")
    return names


def _silence_stdout() -> None:
    """Whoever read stdout is gone: what is still buffered goes nowhere, so the interpreter's last flush is silent."""
    with contextlib.suppress(OSError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
