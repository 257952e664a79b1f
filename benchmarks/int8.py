"""What the int8 variant costs and gains, against the fp32 variant of the same folder, on a CPU.

    python -m benchmarks.int8 FOLDER [--data ../shared/data/scifact] [--threads 2] [--pairs 9] [--quick] [--speed-only]
                              [--name int8] [--out DIR]

Measures the cosine to fp32, nDCG@10 on BEIR SciFact, throughput and latency (the two variants in turn, ratio pair by
pair), and where the time goes by kind of operator. Prints Markdown and writes it, with the same figures as JSON lines,
to benchmarks/results/int8.md and int8.jsonl. --quick takes a subset and writes int8-quick.*: a check, not a result.
--speed-only leaves accuracy and retrieval out: for a second kind of CPU, where the first one's vectors are known.
"""

import argparse
import json
import os
import platform
import random
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime
import tokenizers
from benchmarks._scifact import SciFact, cosine_ndcg, cosines, even_sample, interval, read, split_sentences
from benchmarks._table import Row, Table
from onnx import TensorProto, helper, numpy_helper

import trivec
from trivec._encoders.dense import DenseEncoder
from trivec._engine.devices import Device
from trivec._engine.session import Session
from trivec._model import manifest as manifest_module
from trivec._model import manifest_file
from trivec._model.integrity import sha256
from trivec._model.manifest import EncoderSpec, Manifest
from trivec._system.threads import available_threads
from trivec._tokens.tokenizer import TextTokenizer

PRECISIONS = ("fp32", "int8")
VECTORS = ("avx2", "avx512_vnni", "avx_vnni")  # the instruction sets that decide how fast an integer product is
PUBLISHED_NDCG = 64.5  # nDCG@10 x 100 of all-MiniLM-L6-v2 on SciFact
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


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


@dataclass(frozen=True)
class Model:
    """One variant, open twice: behind `encode`, and as a session of its own for arrays that are ready."""

    folder: Path
    precision: str
    description: EncoderSpec
    encoder: DenseEncoder
    session: Session
    threads: int

    @property
    def files(self) -> list[Path]:
        """The graph and its data."""
        return [self.folder / ref.path for ref in self.description.variants[self.precision].files]

    @property
    def output(self) -> str:
        """The graph output that is read."""
        return self.description.variants[self.precision].output


def open_model(folder: Path, precision: str, threads: int) -> Model:
    """Open a variant on the CPU."""
    encoder = trivec.load(folder, precision=precision, device="cpu", threads=threads)
    description = main_encoder(encoder.manifest)
    files = [folder / ref.path for ref in description.variants[precision].files]
    return Model(
        folder, precision, description, encoder, Session(files, device=Device("cpu"), threads=threads), threads
    )


def main_encoder(manifest: Manifest) -> EncoderSpec:
    """The encoder behind the default route."""
    return manifest.encoders[manifest.routes[manifest.default_route or next(iter(manifest.routes))].encoder]


# ---- what was run, on what ---------------------------------------------------------------------------------------


def run_table(args: argparse.Namespace, manifest: Manifest) -> Table:
    """The machine, the versions and the command."""
    cpu = _cpu_info()
    flags = set(cpu.get("flags", "").split())
    rows: list[Row] = [
        {"what": "CPU", "is": cpu.get("model name", platform.machine())},
        {
            "what": "of avx2, avx512_vnni, avx_vnni it has",
            "is": ", ".join(name for name in VECTORS if name in flags) or "none",
        },
        {"what": "u8 x s8 products of onnxruntime", "is": integer_kernels()},
        {"what": "cores this process may use", "is": available_threads().count},
        {"what": "threads used", "is": args.threads},
        {"what": "load average at the start", "is": f"{os.getloadavg()[0]:.2f}"},
        {"what": "date", "is": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")},
        {"what": "command", "is": f"python -m benchmarks.int8 {shlex.join(_without_out(sys.argv[1:]))}"},
        {"what": "Python", "is": platform.python_version()},
        {
            "what": "versions",
            "is": ", ".join(f"{m.__name__} {m.__version__}" for m in (trivec, onnxruntime, tokenizers, np)),
        },
        {"what": "exported with", "is": ", ".join(f"{k} {v}" for k, v in manifest.tools.items()) or "not recorded"},
        {"what": "max_seq_length", "is": str(main_encoder(manifest).max_seq_length)},
    ]
    if args.note:
        rows.append({"what": "note", "is": str(args.note)})
    return Table("run", "The run", "Everything below was measured in one process, in this order.", rows)


def integer_kernels() -> str:
    """Whether sums of u8 x s8 products are exact at full range here: measured, because CPU flags only promise it."""
    depth = 64
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "worst",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [None, depth])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, None)],
        [numpy_helper.from_array(np.full((depth, 32), 127, np.int8), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = int(session.run(None, {"x": np.full((8, depth), 255, np.uint8)})[0].max())
    if found == 255 * 127 * depth:
        return "exact at 255 x 127: the kernels of VNNI or Arm"
    return "saturate at 255 x 127: the kernels of AVX2 or AVX512 without VNNI"


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


def ready_batches(tokenizer: TextTokenizer, documents: Sequence[str], sentences: Sequence[str]) -> dict[str, Ids]:
    """Token ids of one long batch (8, 250) and one short batch (64, 14), cut from real texts."""
    found = {}
    for rows, length, texts in ((8, 250, documents), (64, 14, sentences)):
        tokens = tokenizer(list(texts))
        enough = np.flatnonzero(tokens.lengths >= length)[:rows]
        if len(enough) < rows:
            raise SystemExit(f"only {len(enough)} texts have {length} tokens, {rows} are needed.")
        found[f"{rows} x {length}"] = np.stack([tokens.of(int(row))[:length] for row in enough])  # (B, S)
    return found


def speed_table(
    models: Mapping[str, Model], loads: Mapping[str, list[str]], batches: Mapping[str, Ids], pairs: int
) -> Table:
    """Throughput through `encode` and of the session alone."""
    tokenizer = TextTokenizer(
        models["fp32"].folder / models["fp32"].description.tokenizer.path, models["fp32"].description
    )
    rows = []
    for name, texts in loads.items():
        calls = [_encode(models[p], texts) for p in PRECISIONS]
        rows.append(race_row("encode", name, len(texts), float(tokenizer(texts).lengths.mean()), race(calls, pairs)))
    for name, ids in batches.items():
        repeats = max(1, 8000 // ids.size)  # several runs, so that a timing is long against the clock and the scheduler
        calls = [_run(models[p], ids, repeats) for p in PRECISIONS]
        row = race_row("session", name, len(ids) * repeats, float(ids.shape[1]), race(calls, pairs))
        rows.append(row)
    note = (
        f"fp32 and int8 in turn, {pairs} pairs after one uncounted call each; rates are medians, the ratio is taken "
        "within each pair (above 1: int8 is faster). encode: texts to vectors, tokenizer included. session: token "
        "arrays ready, one batch of real texts cut to equal lengths (rows x tokens), again and again."
    )
    return Table("speed", "Throughput", note, rows, {"mean tokens": 1, "fp32 texts/s": 1, "int8 texts/s": 1})


def latency_table(models: Mapping[str, Model], texts: Sequence[str], size: Size) -> Table:
    """Milliseconds of one `encode` of one short text."""
    taken: dict[str, list[list[float]]] = {p: [] for p in PRECISIONS}
    for _ in range(size.pairs + 1):
        for precision in PRECISIONS:
            taken[precision].append(_latencies(models[precision].encoder, texts[: size.latency_calls]))
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


def _encode(model: Model, texts: list[str]) -> Callable[[], object]:
    return lambda: model.encoder.encode(texts)


def _run(model: Model, ids: Ids, repeats: int) -> Callable[[], object]:
    def call() -> None:
        for _ in range(repeats):
            model.session.run(ids, model.output)

    return call


def _latencies(encoder: DenseEncoder, texts: Sequence[str]) -> list[float]:
    """Seconds of each call, without the first five: the other variant's threads still spin then."""
    found = []
    for text in texts:
        start = time.perf_counter()
        encoder.encode(text)
        found.append(time.perf_counter() - start)
    return found[5:]


# ---- where the time goes -----------------------------------------------------------------------------------------


def profile_table(models: Mapping[str, Model], name: str, ids: Ids, runs: int) -> Table:
    """Time by kind of operator of both graphs, most of fp32 and int8 together first."""
    found = {p: profile(models[p], ids, runs) for p in PRECISIONS}
    total = {p: sum(ms for _, ms in ops.values()) for p, ops in found.items()}
    kinds = sorted(
        {*found["fp32"], *found["int8"]}, key=lambda op: -sum(found[p].get(op, (0, 0))[1] for p in PRECISIONS)
    )
    rows: list[Row] = []
    for op in ["all", *kinds]:
        row: Row = {"operator": op}
        for p in PRECISIONS:
            sums = (sum(n for n, _ in found[p].values()), total[p]) if op == "all" else found[p].get(op, (0, 0.0))
            row |= {f"{p} nodes": sums[0], f"{p} ms": sums[1], f"{p} %": 100 * sums[1] / total[p]}
        rows.append(row)
    digits = {f"{p} %": 1 for p in PRECISIONS}
    note = (
        f"onnxruntime's profile of one batch of {name}, the mean of {runs} runs after 3 uncounted ones; profiling "
        "itself costs a little, and what onnxruntime does between the operators is left out."
    )
    return Table(f"profile {name}", f"Where the time goes: {name} tokens", note, rows, digits)


def profile(model: Model, ids: Ids, runs: int) -> dict[str, tuple[int, float]]:
    """Nodes, and milliseconds of one run, of each kind of operator of the graph that onnxruntime has optimized."""
    options = onnxruntime.SessionOptions()  # as trivec's session sets them, so that the same kernels run
    options.intra_op_num_threads, options.inter_op_num_threads = model.threads, 1
    options.enable_mem_pattern = False
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as scratch:
        options.profile_file_prefix = str(Path(scratch) / "profile")
        session = onnxruntime.InferenceSession(
            str(model.files[0]),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["SkipLayerNormFusion", "BiasGeluFusion"],
        )
        for _ in range(runs + 3):
            session.run([model.output], {"input_ids": ids})
        events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    start = sorted(e["ts"] for e in events if e["name"] == "model_run")[3]
    found: dict[str, tuple[int, float]] = {}
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time") and event["ts"] >= start:
            nodes, ms = found.get(event["args"]["op_name"], (0, 0.0))
            found[event["args"]["op_name"]] = (nodes + 1, ms + event["dur"] / 1000)
    return {op: (nodes // runs, ms / runs) for op, (nodes, ms) in found.items()}


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
    models = {p: open_model(args.folder, p, args.threads) for p in PRECISIONS}
    if not args.speed_only:
        measure_accuracy(args, manifest, models, documents, sample, data, show)
    loads = workloads(documents, sentences, size)
    tokenizer = models["fp32"].folder / models["fp32"].description.tokenizer.path
    batches = ready_batches(TextTokenizer(tokenizer, models["fp32"].description), documents, sample)
    show(speed_table(models, loads, batches, size.pairs))
    show(latency_table(models, loads["short"], size))
    for name, ids in batches.items():
        show(profile_table(models, name, ids, size.profile_runs))
    file_table(args.folder, manifest)  # again: nobody has put other files there meanwhile


def measure_accuracy(
    args: argparse.Namespace,
    manifest: Manifest,
    models: Mapping[str, Model],
    documents: Sequence[str],
    sentences: Sequence[str],
    data: SciFact,
    show: Callable[[Table], None],
) -> None:
    """How near int8 is to fp32, and what that does to retrieval."""
    document_vectors = {p: models[p].encoder.encode(list(documents)) for p in PRECISIONS}  # (N, D) each
    sentence_vectors = {p: models[p].encoder.encode(list(sentences)) for p in PRECISIONS}  # (M, D) each
    rows = [cosine_row("documents", *document_vectors.values()), cosine_row("sentences", *sentence_vectors.values())]
    note = (
        "documents: title and abstract. sentences: an even sample of the abstracts' sentences. "
        f"{models['fp32'].encoder.truncated} of all these were longer than max_seq_length, and cut. The index of the "
        "worst counts the texts in the corpus's order, from 0."
    )
    show(Table("cosine", "Cosine of int8 to fp32", note, rows, {"mean": 4, "1st percentile": 4, "min": 4}))
    show(gate_table(manifest))
    if args.quick:
        show(Table("ndcg", "Retrieval", "Not measured: --quick encodes a part of the documents only.", []))
    else:
        queries = {p: models[p].encoder.encode_query(list(data.queries.values())) for p in PRECISIONS}  # (Q, D) each
        show(ndcg_table(data, queries, document_vectors))


def main() -> None:
    """Measure, print and write."""
    args = _arguments()
    shown: list[Table] = []

    def show(table: Table) -> None:
        shown.append(table)
        print(table.markdown(), flush=True)

    measure(args, manifest_file.read(args.folder), show)
    args.out.mkdir(parents=True, exist_ok=True)
    stem = args.out / (f"{args.name}-quick" if args.quick else args.name)
    title = "# int8 against fp32" + (" (--quick: a check, not a result)" if args.quick else "")
    text = "\n".join([f"{title}\n", *(table.markdown() for table in shown)])
    stem.with_suffix(".md").write_text(text, encoding="utf-8")
    lines = [json.dumps(record, ensure_ascii=False) for table in shown for record in table.records()]
    stem.with_suffix(".jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"written: {stem.with_suffix('.md')} and {stem.with_suffix('.jsonl').name}")


def _arguments() -> argparse.Namespace:
    """The command line; a message and status 2 where something that the run needs is not there."""
    root = Path(__file__).resolve().parents[1]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a model folder with fp32 and int8")
    parser.add_argument("--data", type=Path, default=root.parent / "shared/data/scifact", help="SciFact, BEIR's layout")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, help="timings of each variant a row (default 9; with --quick 3)")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--speed-only", action="store_true")
    parser.add_argument("--name", default="int8", help="of the files that are written")
    parser.add_argument("--note", help="a line for the report, such as how this onnxruntime was built")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    if not (args.folder / manifest_module.FILE_NAME).is_file():
        parser.error(f"{args.folder} has no {manifest_module.FILE_NAME}. Type: trivec export MODEL {args.folder}")
    if missing := set(PRECISIONS) - set(manifest_file.read(args.folder).precisions()):
        parser.error(f"{args.folder} lacks {', '.join(sorted(missing))}. Type: trivec export MODEL {args.folder}")
    if not (args.data / "corpus.jsonl").is_file():
        parser.error(f"{args.data} has no corpus.jsonl. Pass --data with the folder of BEIR's SciFact.")
    return args


def _without_out(arguments: Sequence[str]) -> list[str]:
    """The arguments but for the folder that is written to: it decides no figure, and is a path of this machine."""
    if "--out" not in arguments:
        return list(arguments)
    place = list(arguments).index("--out")
    return [*arguments[:place], *arguments[place + 2 :]]


def _cpu_info() -> dict[str, str]:
    """The first processor's entry of /proc/cpuinfo; empty where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


if __name__ == "__main__":
    main()
