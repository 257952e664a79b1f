"""What the int8 variant costs and gains, against the fp32 variant of the same folder, on a CPU.

    python -m benchmarks.int8 FOLDER [--data ../shared/data/scifact] [--threads 2] [--pairs 9] [--quick] [--speed-only]
                              [--name int8] [--out DIR]
    python -m benchmarks.int8 large [--layers 24] [--texts 64] [--fp32-share 0] [--massive everywhere|some] [--words N]

Measures the cosine to fp32, nDCG@10 on BEIR SciFact, throughput and latency (the two variants in turn, ratio pair by
pair), and where the time goes by kind of operator. Prints Markdown and writes it, with the same figures as JSON lines,
to benchmarks/results/int8.md and int8.jsonl. --quick takes a subset and writes int8-quick.*: a check, not a result.
--speed-only leaves accuracy and retrieval out: for a second kind of CPU, where the first one's vectors are known.

large quantizes a model of BGE-M3's shape with random weights, and prints seconds, peak memory, and size on disk. It
needs about 12 GB. The size depends on the shape alone, but for the layers that stay float32: with --fp32-share 0.1, as
an export allows, up to 14 of the 144 may, and the search for them takes long. --massive plants activations as trained
models of this size have them, from the third layer on, and compares the ladder with each of its rungs alone and with
plain ranges: "everywhere" two of 1,024 dimensions 60 times the others at every token, "some" one dimension some 300
times the others, at the first token and at full stops alone.
"""

import argparse
import os
import platform
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime
import tokenizers
from benchmarks.harness.machine import VECTORS, command_line, cpu_name, integer_kernels, now, vectors
from benchmarks.harness.models import FULL_STOP
from benchmarks.harness.profile import PRECISIONS, Ids, Variant, compared, main_encoder, open_variant, ready_batches
from benchmarks.harness.scifact import SciFact, cosine_ndcg, cosines, even_sample, read, split_sentences
from benchmarks.harness.stats import ratios, turns
from benchmarks.harness.tables import Row, Table, save
from benchmarks.harness.venvs import ROOT, SHARED

import trivec
from trivec._encoders.dense import DenseEncoder
from trivec._model import manifest as manifest_module
from trivec._model import manifest_file
from trivec._model.integrity import sha256
from trivec._model.manifest import Manifest
from trivec._system.threads import available_threads
from trivec._tokens.tokenizer import TextTokenizer
from trivec.compare._metrics import interval

if TYPE_CHECKING:
    from onnx import ModelProto

PUBLISHED_NDCG = 64.5  # nDCG@10 x 100 of all-MiniLM-L6-v2 on SciFact
_LONGEST = 128  # tokens of a text of the large model
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


class Size(NamedTuple):
    """How much of everything a run takes."""

    documents: int
    sentences: int
    short: int
    long: int
    mixed: tuple[int, int]
    pairs: int
    latency_calls: int
    profile_runs: int


FULL = Size(10**9, 2000, 2000, 200, (450, 150), pairs=9, latency_calls=50, profile_runs=20)  # 10**9: all documents
QUICK = Size(500, 300, 300, 32, (90, 30), pairs=3, latency_calls=20, profile_runs=5)


# ---- what was run, on what ---------------------------------------------------------------------------------------


def run_table(args: argparse.Namespace, manifest: Manifest) -> Table:
    """The machine, the versions and the command."""
    modules = (trivec, onnxruntime, tokenizers, np)
    rows: list[Row] = [
        {"what": "CPU", "is": cpu_name()},
        {"what": f"of {', '.join(VECTORS)} it has", "is": vectors()},
        {"what": "u8 x s8 products of onnxruntime", "is": integer_kernels()},
        {"what": "cores this process may use", "is": available_threads().count},
        {"what": "threads used", "is": args.threads},
        {"what": "load average at the start", "is": f"{os.getloadavg()[0]:.2f}"},
        {"what": "date", "is": now()},
        {"what": "command", "is": command_line("python -m benchmarks.int8", sys.argv[1:])},
        {"what": "Python", "is": platform.python_version()},
        {"what": "versions", "is": ", ".join(f"{m.__name__} {m.__version__}" for m in modules)},
        {"what": "exported with", "is": ", ".join(f"{k} {v}" for k, v in manifest.tools.items()) or "not recorded"},
        {"what": "max_seq_length", "is": str(main_encoder(manifest).max_seq_length)},
    ]
    if args.note:
        rows.append({"what": "note", "is": str(args.note)})
    return Table("run", "The run", "Everything below was measured in one process, in this order.", rows)


def file_table(folder: Path, manifest: Manifest) -> Table:
    """sha256 and size of both variants' files, computed now; SystemExit where one is not the manifest's."""
    rows: list[Row] = []
    for precision in PRECISIONS:
        for ref in main_encoder(manifest).variants[precision].files:
            found = sha256(folder / ref.path)
            if found != ref.sha256:
                raise SystemExit(f"{folder / ref.path} has sha256 {found}, not the manifest's {ref.sha256}.")
            size = (folder / ref.path).stat().st_size
            rows.append({"variant": precision, "file": ref.path, "bytes": size, "sha256": found})
    note = "Hashed before and after the run, and equal to the manifest's both times: every figure is of these files."
    return Table("files", "The files", note, rows)


# ---- accuracy ----------------------------------------------------------------------------------------------------


def cosine_row(name: str, fp32: Floats, int8: Floats) -> Row:
    """How near the vectors (N, D) of one set of texts are."""
    found = cosines(fp32, int8)  # (N,)
    return {
        "texts": name,
        "count": len(found),
        "mean": float(found.mean()),
        "1st percentile": float(np.percentile(found, 1)),
        "min": float(found.min()),
        "worst (index)": int(found.argmin()),
    }


def gate_table(manifest: Manifest) -> Table:
    """The exporter's own figures, by kind of text, as the manifest quotes them."""
    gate = main_encoder(manifest).variants["int8"].gate or {}
    whole: Row = {"kind": "all", "mean": float(gate["cosine_mean"]), "min": float(gate["cosine_min"])}
    kinds: list[Row] = [
        {"kind": k, "mean": float(v["mean"]), "min": float(v["min"])} for k, v in gate["by_kind"].items()
    ]
    note = (
        "Not measured here: quoted from the manifest, where the exporter wrote them. Cosine to torch in float32 over "
        f"{gate['texts']} verification texts, none of which was used to calibrate; top-10 neighbours "
        f"{gate['top10_overlap']:.1%} the same; alone and in a batch {gate['batch_diff']:g} apart. Lowest minimum "
        "first."
    )
    rows = [whole, *sorted(kinds, key=lambda row: row["min"])]
    return Table("gate", "Cosine to torch, by kind of text", note, rows, {"mean": 4, "min": 4})


def ndcg_table(data: SciFact, queries: Mapping[str, Floats], documents: Mapping[str, Floats]) -> Table:
    """nDCG@10 with each variant on each side, and how sure its difference to fp32 is."""
    gains = data.gains()  # (Q, N)
    base = cosine_ndcg(queries["fp32"], documents["fp32"], gains)  # (Q,)
    rows: list[Row] = []
    for query_side, document_side in (("fp32", "fp32"), ("int8", "int8"), ("fp32", "int8")):
        found = cosine_ndcg(queries[query_side], documents[document_side], gains)  # (Q,)
        low, high = interval(found - base)
        row: Row = {"queries": query_side, "documents": document_side, "nDCG@10 x 100": float(found.mean()) * 100}
        row |= {"minus fp32": float((found - base).mean()) * 100, "95% from": low * 100, "to": high * 100}
        rows.append(row | {"better": int((found > base).sum()), "worse": int((found < base).sum())})
    note = (
        f"BEIR SciFact, {len(data.queries)} test queries over {len(data.documents)} documents, cosine ranking, exact "
        f"search. Published for all-MiniLM-L6-v2: {PUBLISHED_NDCG}. The interval is of the "
        "difference, from 10,000 resamples of the queries; better and worse count queries."
    )
    return Table("ndcg", "Retrieval", note, rows)


# ---- speed -------------------------------------------------------------------------------------------------------


def race(calls: Sequence[Callable[[], object]], pairs: int) -> Doubles:
    """(P, 2) seconds of two calls in turn, after one of each that does not count."""
    for call in calls:
        call()
    seconds = np.empty((pairs, len(calls)))
    for pair in range(pairs):
        for column, call in enumerate(calls):
            start = time.perf_counter()
            call()
            seconds[pair, column] = time.perf_counter() - start
    return seconds


def race_row(through: str, name: str, count: int, tokens: float, seconds: Doubles) -> Row:
    """Texts a second of both variants, and the ratio pair by pair, of (P, 2) seconds."""
    ratios = seconds[:, 0] / seconds[:, 1]  # (P,)
    rates = count / np.median(seconds, axis=0)  # (2,)
    row: Row = {"through": through, "texts": name, "count": count, "mean tokens": tokens}
    row |= {"fp32 texts/s": float(rates[0]), "int8 texts/s": float(rates[1]), "ratio": float(np.median(ratios))}
    return row | {"ratio min": float(ratios.min()), "ratio max": float(ratios.max())}


def workloads(documents: Sequence[str], sentences: Sequence[str], size: Size) -> dict[str, list[str]]:
    """The texts that are timed: short, long, and both shuffled."""
    short = [text for text in sentences if 10 <= len(text.split()) <= 14]
    mixed = even_sample(short, size.mixed[0]) + even_sample(list(documents), size.mixed[1])
    random.Random(0).shuffle(mixed)
    return {"short": even_sample(short, size.short), "long": even_sample(list(documents), size.long), "mixed": mixed}


def speed_table(
    variants: Mapping[str, Variant], loads: Mapping[str, list[str]], batches: Mapping[str, Ids], pairs: int
) -> Table:
    """Throughput through `encode` and of the session alone."""
    tokenizer = TextTokenizer(
        variants["fp32"].folder / variants["fp32"].description.tokenizer.path, variants["fp32"].description
    )
    rows = []
    for name, texts in loads.items():
        calls = [_encode(variants[p], texts) for p in PRECISIONS]
        rows.append(race_row("encode", name, len(texts), float(tokenizer(texts).lengths.mean()), race(calls, pairs)))
    for name, ids in batches.items():
        repeats = max(1, 8000 // ids.size)  # several runs, so that a timing is long against the clock and the scheduler
        calls = [_run(variants[p], ids, repeats) for p in PRECISIONS]
        row = race_row("session", name, len(ids) * repeats, float(ids.shape[1]), race(calls, pairs))
        rows.append(row)
    note = (
        f"fp32 and int8 in turn, {pairs} pairs after one uncounted call each; rates are medians, the ratio is taken "
        "within each pair (above 1: int8 is faster). encode: texts to vectors, tokenizer included. session: token "
        "arrays ready, one batch of real texts cut to equal lengths (rows x tokens), again and again."
    )
    return Table("speed", "Throughput", note, rows, {"mean tokens": 1, "fp32 texts/s": 1, "int8 texts/s": 1})


def latency_table(variants: Mapping[str, Variant], texts: Sequence[str], size: Size) -> Table:
    """Milliseconds of one `encode` of one short text."""
    taken: dict[str, list[list[float]]] = {p: [] for p in PRECISIONS}
    for _ in range(size.pairs + 1):
        for precision in PRECISIONS:
            taken[precision].append(_latencies(variants[precision].encoder, texts[: size.latency_calls]))
    ms = {p: np.array(blocks[1:]) * 1000 for p, blocks in taken.items()}  # (P, calls); the first block warms up
    ratios = np.median(ms["fp32"], axis=1) / np.median(ms["int8"], axis=1)  # (P,)
    rows: list[Row] = []
    for p, faster in (("fp32", np.ones(1)), ("int8", ratios)):
        row: Row = {"variant": p, "p50 ms": float(np.median(ms[p])), "p95 ms": float(np.percentile(ms[p], 95))}
        row |= {"ratio": float(np.median(faster)), "ratio min": float(faster.min()), "ratio max": float(faster.max())}
        rows.append(row)
    note = (
        f"encode of one sentence of 10 to 14 words, tokenizer included; {size.pairs} blocks of {ms['fp32'].shape[1]} "
        "calls a variant, in turn. The ratio is that of two neighbouring blocks' medians, above 1 where int8 is faster."
    )
    return Table("latency", "Latency of one short text", note, rows)


def _encode(variant: Variant, texts: list[str]) -> Callable[[], object]:
    return lambda: variant.encoder.encode(texts)


def _run(variant: Variant, ids: Ids, repeats: int) -> Callable[[], object]:
    def call() -> None:
        for _ in range(repeats):
            variant.session.run(ids, variant.output)

    return call


def _latencies(encoder: DenseEncoder, texts: Sequence[str]) -> list[float]:
    """Seconds of each call, without the first five: the other variant's threads still spin then."""
    found = []
    for text in texts:
        start = time.perf_counter()
        encoder.encode(text)
        found.append(time.perf_counter() - start)
    return found[5:]


# ---- a large model ---------------------------------------------------------------------------------------------------


def large(arguments: Sequence[str]) -> None:
    """Trace, quantize, save, and print a line for each."""
    from benchmarks.harness.models import MASSIVE, plant_massive, xlm_roberta_large

    from trivec_export._graph.save import save_graph
    from trivec_export._trace.trace import trace
    from trivec_export._variants.int8.calibrate import pooled
    from trivec_export._variants.int8.quantize import quantize

    parser = argparse.ArgumentParser(prog="python -m benchmarks.int8 large")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--words", type=int, help="rows of the table of tokens; fewer take less memory")
    parser.add_argument("--fp32-share", type=float, default=0.0)
    parser.add_argument("--massive", choices=MASSIVE, help="plant activations as trained models of this size have them")
    options = parser.parse_args(arguments)
    start = time.perf_counter()

    def say(what: str) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{time.perf_counter() - start:7.1f} s, peak {peak:5.2f} GB: {what}", flush=True)

    model = xlm_roberta_large(options.layers, options.words)
    if options.massive:
        plant_massive(model, options.massive)
    vocabulary = model.config.vocab_size
    ids = random_ids(options.texts, vocabulary)
    unseen = random_ids(64, vocabulary, seed=1)
    graph = trace(model, max_length=8192).graph
    del model
    say("traced")
    expected = pooled(graph, unseen)
    if options.massive:
        for name, made in _rungs(graph, ids):
            _judge(name, graph, made, unseen, expected, say)
    gate = random_ids(256, vocabulary, seed=2)
    accept = partial(_passes, gate, pooled(graph, gate))
    quantized = quantize(graph, ids, max_fp32_share=options.fp32_share, accept=accept)
    counted = ", ".join(f"{count} {rung}" for rung, count in Counter(x.precision for x in quantized.layers).items())
    worst = max(quantized.layers, key=lambda layer: layer.error)
    say(f"ladder: {counted}; worst: {worst.name} {worst.error:.3f}")
    with tempfile.TemporaryDirectory() as folder:
        files = save_graph(quantized.model, Path(folder) / "model_int8.onnx")
        say(f"ladder: {sum(file.stat().st_size for file in files) / 1e6:.1f} MB")
    _judge("ladder", graph, quantized.model, unseen, expected, say)


def _rungs(graph: "ModelProto", calibration: Sequence[Ids]) -> Iterator[tuple[str, "ModelProto"]]:
    """Every layer on one rung, where the ladder takes the first that holds; and plain ranges, which it never has."""
    from trivec_export._graph.run import examples_of, random_texts
    from trivec_export._variants.int8 import quantize, smooth
    from trivec_export._variants.int8.assemble import assemble
    from trivec_export._variants.int8.linears import View, groups

    view = View(graph.graph)
    texts = [*examples_of(calibration), *random_texts(graph, calibration)]
    channels = quantize._observe(graph, view, texts, quantize.held_out(len(texts), None))
    strengths = smooth._ALPHAS
    for name, alphas, by_row in (
        ("plain static, no smoothing", (0.0,), False),
        ("static", strengths, False),
        ("by row", strengths, True),
    ):
        smooth._ALPHAS = alphas
        fits = [quantize._fitted(view, members, channels, by_row=by_row) for members in groups(view)]
        yield name, assemble(graph, view, fits, set())


def _cosines(made: "ModelProto", ids: Sequence[Ids], expected: Floats) -> Floats:
    """Of each text (N,), to the float32 graph's vectors (N, H)."""
    from trivec_export._variants.int8.calibrate import pooled

    found: Floats = (pooled(made, ids) * expected).sum(1)
    return found


def _passes(ids: Sequence[Ids], expected: Floats, made: "ModelProto") -> bool:
    """The gate's bounds on cosines, on texts that did not calibrate."""
    from trivec._gate.figures import BOUNDS

    cosines = _cosines(made, ids, expected)
    return bool(cosines.min() >= BOUNDS["int8"].cosine_min and cosines.mean() >= BOUNDS["int8"].cosine_mean)


def _judge(
    name: str,
    graph: "ModelProto",
    made: "ModelProto",
    ids: Sequence[Ids],
    expected: Floats,
    say: Callable[[str], None],
) -> None:
    """Cosine to float32 on texts that did not calibrate, and time, the two in turn."""
    from trivec_export._graph.run import open_session

    cosines = _cosines(made, ids, expected)
    say(f"{name}: cosine of mean-pooled vectors to float32: min {cosines.min():.5f}, mean {cosines.mean():.5f}")
    sessions = {"fp32": open_session(graph), "int8": open_session(made)}
    taken: dict[str, list[float]] = {key: [] for key in sessions}
    for key in turns(list(sessions), 4):
        begin = time.perf_counter()
        for row in ids[:8]:
            sessions[key].run(None, {"input_ids": row})
        taken[key].append(time.perf_counter() - begin)
    faster = ratios(taken["int8"], taken["fp32"])
    say(f"{name}: {faster.median:.2f} times as fast as float32 ({faster.low:.2f} to {faster.high:.2f})")


def random_ids(texts: int, vocabulary: int, seed: int = 0) -> list[Ids]:
    """Rows (1, S) of random ids between <s> and </s>, S up to _LONGEST; one in sixteen is a full stop."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(texts):
        ids = rng.integers(5, vocabulary, (1, int(rng.integers(4, _LONGEST + 1))))
        ids[rng.random(ids.shape) < 1 / 16] = FULL_STOP
        ids[0, 0], ids[0, -1] = 0, 2
        rows.append(ids)
    return rows


# ---- the whole ---------------------------------------------------------------------------------------------------


def measure(args: argparse.Namespace, manifest: Manifest, show: Callable[[Table], None]) -> None:
    """Measure everything, and show each table as soon as it is there."""
    size = QUICK if args.quick else FULL
    size = size._replace(pairs=args.pairs or size.pairs)
    show(run_table(args, manifest))
    show(file_table(args.folder, manifest))
    data = read(args.data)
    documents = even_sample(list(data.documents.values()), size.documents)
    sentences = [s for abstract in data.abstracts.values() for s in split_sentences(abstract)]
    sample = even_sample(sentences, size.sentences)
    variants = {p: open_variant(args.folder, p, args.threads) for p in PRECISIONS}
    if not args.speed_only:
        measure_accuracy(args, manifest, variants, documents, sample, data, show)
    loads = workloads(documents, sentences, size)
    tokenizer = variants["fp32"].folder / variants["fp32"].description.tokenizer.path
    batches = ready_batches(TextTokenizer(tokenizer, variants["fp32"].description), documents, sample)
    show(speed_table(variants, loads, batches, size.pairs))
    show(latency_table(variants, loads["short"], size))
    for name, ids in batches.items():
        show(compared(variants, name, ids, size.profile_runs))
    file_table(args.folder, manifest)  # again: nobody has put other files there meanwhile


def measure_accuracy(
    args: argparse.Namespace,
    manifest: Manifest,
    variants: Mapping[str, Variant],
    documents: Sequence[str],
    sentences: Sequence[str],
    data: SciFact,
    show: Callable[[Table], None],
) -> None:
    """How near int8 is to fp32, and what that does to retrieval."""
    document_vectors = {p: variants[p].encoder.encode(list(documents)) for p in PRECISIONS}  # (N, D) each
    sentence_vectors = {p: variants[p].encoder.encode(list(sentences)) for p in PRECISIONS}  # (M, D) each
    rows = [cosine_row("documents", *document_vectors.values()), cosine_row("sentences", *sentence_vectors.values())]
    note = (
        "documents: title and abstract. sentences: an even sample of the abstracts' sentences. "
        f"{variants['fp32'].encoder.truncated} of all these were longer than max_seq_length, and cut. The index of the "
        "worst counts the texts in the corpus's order, from 0."
    )
    show(Table("cosine", "Cosine of int8 to fp32", note, rows, {"mean": 4, "1st percentile": 4, "min": 4}))
    show(gate_table(manifest))
    if args.quick:
        show(Table("ndcg", "Retrieval", "Not measured: --quick encodes a part of the documents only.", []))
    else:
        queries = {p: variants[p].encoder.encode_query(list(data.queries.values())) for p in PRECISIONS}  # (Q, D) each
        show(ndcg_table(data, queries, document_vectors))


def main() -> None:
    """Measure, print and write."""
    if sys.argv[1:2] == ["large"]:
        large(sys.argv[2:])
        return
    args = _arguments()
    shown: list[Table] = []

    def show(table: Table) -> None:
        shown.append(table)
        print(table.markdown(), flush=True)

    measure(args, manifest_file.read(args.folder), show)
    name = f"{args.name}-quick" if args.quick else args.name
    title = "# int8 against fp32" + (" (--quick: a check, not a result)" if args.quick else "")
    text = "\n".join([f"{title}\n", *(table.markdown() for table in shown)])
    save(text, [record for table in shown for record in table.records()], args.out, name)
    print(f"written: {args.out / name}.md and {name}.jsonl")


def _arguments() -> argparse.Namespace:
    """The command line; a message and status 2 where something that the run needs is not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a model folder with fp32 and int8")
    parser.add_argument("--data", type=Path, default=SHARED / "data/scifact", help="SciFact, BEIR's layout")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, help="timings of each variant a row (default 9; with --quick 3)")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--speed-only", action="store_true")
    parser.add_argument("--name", default="int8", help="of the files that are written")
    parser.add_argument("--note", help="a line for the report, such as how this onnxruntime was built")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results")
    args = parser.parse_args()
    if not (args.folder / manifest_module.FILE_NAME).is_file():
        parser.error(f"{args.folder} has no {manifest_module.FILE_NAME}. Type: trivec export MODEL {args.folder}")
    if missing := set(PRECISIONS) - set(manifest_file.read(args.folder).precisions()):
        parser.error(f"{args.folder} lacks {', '.join(sorted(missing))}. Type: trivec export MODEL {args.folder}")
    if not (args.data / "corpus.jsonl").is_file():
        parser.error(f"{args.data} has no corpus.jsonl. Pass --data with the folder of BEIR's SciFact.")
    return args


if __name__ == "__main__":
    main()
