"""The options of every command."""

import argparse
from pathlib import Path

from trivec._cli.commands import (
    run_compare,
    run_diff,
    run_doctor,
    run_encode,
    run_explain,
    run_export,
    run_info,
    run_map,
    run_rerank,
    run_similarity,
    run_verify,
)
from trivec._cli.serve_arguments import add_engine, add_low_memory, add_serve
from trivec._model.families import exported_families
from trivec._model.manifest import LOADED_PRECISIONS, POOLING_MODES, PRECISIONS
from trivec._system.native_text import argument_text
from trivec._vectors.quantize import OUTPUT_PRECISIONS
from trivec._version import __version__


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trivec",
        description="Text embeddings from ONNX graphs.",
        epilog="Exit status: 0 done; 1 an error, a missed gate, vectors to encode again, or a machine on which nothing "
        "runs; 2 a command line that cannot be understood; 3 a port is "
        "taken; 130 interrupted (SIGINT); 141 whoever read stdout is gone; "
        "143 ended (SIGTERM).",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"trivec {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_export(commands)
    _add_encode(commands)
    _add_rerank(commands)
    _add_verify(commands)
    _add_diff(commands)
    _add_compare(commands)
    _add_info(commands)
    _add_doctor(commands)
    _add_similarity(commands)
    _add_explain(commands)
    _add_map(commands)
    add_serve(commands)
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
    parser.add_argument(
        "--family",
        choices=("auto", *exported_families()),
        default="auto",
        help="kind of vectors (default: %(default)s)",
    )
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
    parser.add_argument("--name", type=argument_text, metavar="NAME", help="what you call the model")
    parser.add_argument("--version", type=argument_text, metavar="V", help="which version of it this is, by your count")
    parser.add_argument("--quiet", action="store_true", help="print no progress")
    parser.set_defaults(run=run_export)


def _add_encode(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "encode",
        allow_abbrev=False,
        help="texts to vectors",
        description="Encode texts in bounded memory. Row i of OUT is text i of INPUT. Files are checked to their end "
        "before anything is encoded. OUT appears when it is complete; until then what is done is in OUT.partial, and "
        "the same command goes on from there after an interruption of any kind.",
    )
    parser.add_argument(
        "model", metavar="MODEL", help="model folder, name on the Hub, or provider:model of a hosted one"
    )
    parser.add_argument(
        "input",
        metavar="INPUT",
        nargs="?",
        default="-",
        help="- (stdin) or .txt: one text a line, empty lines included; .jsonl, .ndjson, .json: strings, or objects "
        "with a column; .csv or .tsv with a header. UTF-8, or what a byte order mark says; gzip is unpacked. "
        "(default: -)",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        required=True,
        help=".npy, .npz (sparse rows, vectors of tokens), .jsonl or .parquet file; - for jsonl on stdout",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace OUT if it exists, and an OUT.partial of another model or options"
    )
    parser.add_argument(
        "--strict", action="store_true", help="go on with no OUT.partial of another engine; otherwise a warning tells"
    )
    parser.add_argument("--column", metavar="NAME", default="text", help="column of the texts (default: %(default)s)")
    parser.add_argument(
        "--output-precision",
        choices=(*OUTPUT_PRECISIONS, "float16"),
        default="float32",
        help="number type of the vectors; float16 is for those of tokens, as int8 (default: %(default)s)",
    )
    _add_prompt_options(parser)
    parser.add_argument("--max-active-dims", type=int, metavar="N", help="keep the N heaviest terms of a sparse row")
    parser.add_argument("--truncate-dim", type=int, metavar="N", help="keep the first N numbers of a vector")
    parser.add_argument("--normalize", action="store_true", help="divide vectors by their length")
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="work of one run; of a hosted model, texts of a request (default: 32, or as many as the service takes)",
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
    _add_progress(parser)
    _add_load_options(parser)
    parser.set_defaults(run=run_encode)


def _add_rerank(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "rerank",
        allow_abbrev=False,
        help="documents by their relevance to a query",
        description="Rank the documents of each query with a reranker, in bounded memory. Files are checked to their "
        "end before anything is scored. OUT appears when it is complete; until then what is done is in OUT.partial, "
        "and the same command goes on from there after an interruption of any kind.",
    )
    parser.add_argument(
        "model", metavar="MODEL", help="reranker's folder, name on the Hub, or provider:model of a hosted one"
    )
    parser.add_argument(
        "input",
        metavar="INPUT",
        nargs="?",
        default="-",
        help="- (stdin) or .jsonl: a line has a query and its documents, texts or objects with id and text; or it has "
        "query, id and text of one document, those of a query together. A query_id may stand beside the query. With "
        "--query, texts as `trivec encode` reads them. (default: -)",
    )
    parser.add_argument("--query", type=argument_text, metavar="TEXT", help="one query, whose documents INPUT has")
    parser.add_argument(
        "-o", "--output", metavar="OUT", default="-", help=".jsonl; .run or .trec for trec_eval; - for jsonl on stdout"
    )
    parser.add_argument(
        "--force", action="store_true", help="replace OUT if it exists, and an OUT.partial of another model or options"
    )
    parser.add_argument(
        "--strict", action="store_true", help="go on with no OUT.partial of another engine; otherwise a warning tells"
    )
    parser.add_argument(
        "--column", metavar="NAME", default="text", help="with --query, column of the texts (default: %(default)s)"
    )
    parser.add_argument("--top-k", type=_count, metavar="N", help="documents of a query to write (default: all)")
    parser.add_argument("--documents", action="store_true", help="write each document's text as well, into .jsonl")
    parser.add_argument("--prompt-name", type=argument_text, metavar="NAME", help="one of the model's prompts")
    parser.add_argument("--prompt", type=argument_text, metavar="TEXT", help="text to put before each query")
    parser.add_argument(
        "--activation",
        dest="activation_fn",
        metavar="NAME",
        help="what makes scores of logits: identity, sigmoid, ... (default: as the model says)",
    )
    parser.add_argument("--batch-size", type=int, metavar="N", help="work of one run (default: 32)")
    parser.add_argument("--window", type=_count, metavar="N", help="pairs that are kept at a time (default: 1024)")
    parser.add_argument(
        "--on-overflow", choices=("truncate", "error"), help="for pairs longer than the model reads (default: truncate)"
    )
    _add_progress(parser)
    _add_load_options(parser)
    parser.set_defaults(run=run_rerank)


def _add_verify(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "verify",
        allow_abbrev=False,
        help="check a model folder on this machine",
        description="Hash every file, then compare every variant that the device runs with the fp32 variant, over the "
        "verification texts that ship with trivec. Needs no torch. Exit status 1 if a variant misses its gate.",
    )
    parser.add_argument("model", metavar="MODEL", help="model folder, or name on the Hub")
    parser.add_argument(
        "--texts", type=Path, metavar="FILE", help="your own texts instead: .txt, .jsonl, .json, .csv or .tsv"
    )
    parser.add_argument("--column", metavar="NAME", default="text", help="column of the texts (default: %(default)s)")
    parser.add_argument(
        "--device", default="auto", metavar="D", help="auto, cpu, cuda or cuda:N (default: %(default)s)"
    )
    add_engine(parser)
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: what this process may use)")
    _add_expect(parser)
    parser.set_defaults(run=run_verify)


def _add_diff(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "diff",
        allow_abbrev=False,
        help="what changes between two models, variants or stored files",
        description="Compare what A and B make of the same texts: cosines, neighbours, nDCG@10 where there are "
        "judgements, the texts that moved most, and whether vectors of A may stay where B runs. To compare engines, "
        "store vectors with one (trivec encode) and give the file to the other. Exit status 1 if the verdict is to "
        "encode again.",
    )
    for letter, what in (("a", "what there is"), ("b", "what takes its place")):
        parser.add_argument(
            letter,
            metavar=letter.upper(),
            help=f"{what}: model folder, name on the Hub, provider:model, or vectors: .parquet, .jsonl, .npy, .npz",
        )
    parser.add_argument(
        "--texts",
        metavar="FILE",
        help=".txt, .jsonl, .json, .csv or .tsv, - for stdin (default: a stored file's own, else those of verify)",
    )
    parser.add_argument("--column", metavar="NAME", default="text", help="column of the texts (default: %(default)s)")
    parser.add_argument(
        "--judged", metavar="FOLDER", help="corpus.jsonl, queries.jsonl and qrels/test.tsv, as BEIR has them, instead"
    )
    parser.add_argument(
        "--heads",
        type=lambda text: text.split(","),
        metavar="LIST",
        help="some of dense, sparse and colbert (default: those of both but colbert)",
    )
    _add_prompt_options(parser)
    parser.add_argument("--json", action="store_true", help="everything, for programs")
    sides = parser.add_argument_group("how A and B are opened, each a value for both, or A's and B's: fp32,int8")
    sides.add_argument("--precision", default="auto", metavar="P", help=f"auto, {', '.join(LOADED_PRECISIONS)}")
    add_engine(sides)
    add_low_memory(sides)
    sides.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda or cuda:N")
    sides.add_argument("--revision", metavar="R", help="branch, tag or commit on the Hub")
    sides.add_argument("--file-name", metavar="FILE", help="graph to open, where there is no manifest to name it")
    sides.add_argument("--pooling", metavar="P", help="how tokens become a vector, where no modules.json says")
    sides.add_argument("--expect", metavar="DIGEST", help="sha256:..., as `trivec info` prints it, or unverified")
    sides.add_argument("--threads", type=int, metavar="N", help="CPU threads of both")
    parser.set_defaults(run=run_diff)


def _add_compare(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "compare",
        allow_abbrev=False,
        help="encoders, local and hosted, and BM25 on a corpus with judged queries",
        description="Search a corpus with each encoder, exactly, and tell nDCG@10, recall@100 and MRR@10 with "
        "intervals, what changes to the first encoder, speed, size and cost. Vectors are kept: a run that was stopped "
        "goes on, and a further encoder asks the others for nothing.",
    )
    parser.add_argument(
        "folder", metavar="FOLDER", help="corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv, as BEIR has them"
    )
    parser.add_argument(
        "encoders",
        metavar="ENCODER",
        nargs="+",
        help="model folder or name on the Hub, either with :int8 or another variant behind it; provider:model, with "
        "?dimensions=512&... behind it or not; bm25; A+RERANKER: what one of these has found, ranked again by a "
        "reranker, which is named likewise. The first is what the others are compared with",
    )
    parser.add_argument("--split", default="test", metavar="S", help="of the judgements (default: %(default)s)")
    parser.add_argument(
        "--limit-docs", type=_count, metavar="N", help="at most N documents, those that are relevant to a query first"
    )
    parser.add_argument(
        "--depth",
        type=_count,
        metavar="N",
        default=100,
        help="documents of a query that a reranker scores, up to 100 (default: %(default)s)",
    )
    parser.add_argument(
        "--price", action="append", default=[], metavar="ENCODER=N", help="what a million tokens of a hosted one cost"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print texts, requests, estimated tokens and cost, and send nothing"
    )
    parser.add_argument(
        "--max-cost", type=float, default=1.0, metavar="N", help="send nothing where it costs more (default: 1)"
    )
    parser.add_argument("--yes", action="store_true", help="whatever it costs")
    parser.add_argument(
        "--cache", metavar="FOLDER", help="where vectors are kept (default: compare in TRIVEC_HOME, see trivec doctor)"
    )
    parser.add_argument("--device", default="auto", metavar="D", help="of local models (default: %(default)s)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: what this process may use)")
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help=".md: the tables, and the queries on which encoders differ most, side by side; .json: everything",
    )
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    parser.add_argument("--json", action="store_true", help="everything on stdout, for programs")
    _add_progress(parser)
    parser.set_defaults(run=run_compare)


def _add_info(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "info",
        allow_abbrev=False,
        help="what a model folder says of itself",
        description="Print a model's manifest, readably. Opens no graph, and needs no onnxruntime, but for "
        "--fingerprints.",
    )
    parser.add_argument("model", metavar="MODEL", help="model folder, or name on the Hub")
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit on the Hub")
    add_engine(parser)
    _add_expect(parser)
    _add_description_options(parser)
    parser.add_argument(
        "--fingerprints", action="store_true", help="open every variant that runs here, and tell its two fingerprints"
    )
    parser.add_argument("--json", action="store_true", help="the manifest as it is")
    parser.set_defaults(run=run_info)


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
    add_engine(parser)
    _add_expect(parser)
    parser.add_argument("--json", action="store_true", help="everything, for programs")
    parser.set_defaults(run=run_doctor)


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
    parser.set_defaults(run=run_similarity)


def _add_explain(commands: "Commands[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "explain",
        allow_abbrev=False,
        help="what a model makes of a text, or of two",
        description="Print the tokens of a text, what of it is cut off, its vector or its heaviest terms; of two texts "
        "also how alike they are, and which terms make them so. Of a reranker: the score of a query and a text, and "
        "how it changes where a sentence of the text is left out.",
    )
    parser.add_argument("model", metavar="MODEL", help="model folder, or name on the Hub")
    parser.add_argument("a", metavar="TEXT", help="a text, or @FILE")
    parser.add_argument(
        "b", metavar="TEXT", nargs="?", help="another one, to compare; for a reranker the text, after the query"
    )
    _add_prompt_options(parser)
    parser.add_argument(
        "--top", type=_count, metavar="N", default=15, help="terms to show at most (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="everything, for programs")
    _add_load_options(parser)
    parser.set_defaults(run=run_explain)


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
        "--texts",
        metavar="TEXTS",
        help=".txt (one text a line), .jsonl, .json, .csv or .tsv, for a .npy or .npz file; - for stdin",
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
    parser.set_defaults(run=run_map)


def _add_progress(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="a progress bar on stderr (default: where stderr is a terminal)",
    )


def _add_prompt_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--task", choices=("query", "document"), help="encode as encode_query or encode_document do, prompts included"
    )
    parser.add_argument("--prompt-name", type=argument_text, metavar="NAME", help="one of the model's prompts")
    parser.add_argument("--prompt", type=argument_text, metavar="TEXT", help="text to put before each text")


def _add_load_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision",
        choices=("auto", *LOADED_PRECISIONS),
        default="auto",
        help="variant to run (default: %(default)s)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    add_engine(parser)
    add_low_memory(parser)
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: what this process may use)")
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit on the Hub")
    _add_expect(parser)
    _add_description_options(parser)


def _add_expect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--expect",
        metavar="DIGEST",
        help="sha256:..., as `trivec info MODEL` prints it: any other model is an error; unverified: also one whose "
        "manifest has no digests",
    )


def _add_description_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--file-name", metavar="FILE", help="graph to open, where there is no manifest to name it")
    parser.add_argument(
        "--pooling", choices=POOLING_MODES, help="how tokens become a vector, where no modules.json says"
    )


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
