"""Is CUDA really used, right and fast on this machine? For any machine; without a GPU it says what it skips.

    python -m benchmarks.gpu_check [--folder build/demo/minilm] [--quick] [--device cuda:0] [--out benchmarks/results]

1. providers: each is asked to run a graph.
2. profile: a run of each graph; a matrix product, attention or normalization on the CPU fails the check.
3. verify: `trivec verify --device cuda`, which lets `auto` take the graph that is made for CUDA.
4. parity: cosines of each variant's vectors to those of torch in fp32, or of the fp32 graph on the CPU; the least has
   to reach 0.9995.
5. throughput, latency and device memory against sentence-transformers on the same GPU, in turn, in the same rounds.

Models: all-MiniLM-L6-v2 as exported (scripts/demo), and with the export packages bert-base and BGE-M3's shape with
random weights. Writes gpu-check.md and gpu-check.jsonl. Exit status 1 if anything failed; what was skipped did not.
`--device cpu` rehearses every step with fp32 in place of fp16, and says nothing of CUDA.
"""

import argparse
import importlib.metadata
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.harness import ceiling, profile
from benchmarks.harness.contest import Contest, Field, Outcome, agreement, text_set
from benchmarks.harness.machine import PeakMemory, gpus, machine, torch_peer
from benchmarks.harness.models import CHECKED, Model, checked_models
from benchmarks.harness.scifact import texts_of
from benchmarks.harness.stats import percentiles, ratios, spread
from benchmarks.harness.tables import Goal, Row, Table, goals, write
from benchmarks.harness.venvs import ROOT, SHARED, Failed, checkout, tidy
from benchmarks.harness.worker import Contender, encode

import trivec
from trivec import TrivecError
from trivec._engine.devices import CUDA, KINDS
from trivec._engine.session import probe_providers
from trivec._model import manifest, manifest_file

LEAST = 0.9995
BATCHES = (32, 128, 512)
PRODUCTS = (2048, 8192, 32768)
OURS, PEER = "trivec fp16", "sentence-transformers"
VERSIONS = ("onnxruntime-gpu", "onnxruntime", "torch", "sentence-transformers", "transformers")


class Check:
    """One run: what it has found, step by step."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Look at the machine; nothing runs yet."""
        self.args, self.work = args, ROOT / "build/gpu-check" if args.work is None else args.work
        self.work.mkdir(parents=True, exist_ok=True)
        self.gpus = gpus()
        self.place = Field(lambda _: Path(sys.executable), self.work, args.threads)
        self.steps: list[Row] = []
        self.tables: list[Table] = []
        self.figures: dict[str, float] = {}
        self.rehearsal = args.device == "cpu"
        self.half = "fp32" if self.rehearsal else "fp16"
        self.why_not: str | None = None
        """Why there is nothing to run on CUDA."""

    def run(self) -> None:
        """Every step; one that fails leaves the others alone."""
        self.step("providers", self.providers)
        peer = "CUDA does not run" if self.why_not else torch_peer(cuda=not self.rehearsal)
        sizes = (64, 8, 32) if self.args.quick else (8192, 1024, 4096)
        texts = texts_of(self.args.data, sizes)
        layers = 2 if self.args.quick else self.args.bge_layers
        tokenizers = (self.args.bert_tokenizer, self.args.xlmr_tokenizer)
        wanted = ["MiniLM"] if self.why_not else self.args.models
        for name in (name for name in self.args.models if name not in wanted):
            self.skip(name, str(self.why_not))
        for model in checked_models(wanted, self.args.folder, self.work / "models", layers, tokenizers):
            if isinstance(model, Failed):
                self.skip(model.command, model.said)
            else:
                self.model(model, texts, peer)

    def model(self, model: Model, texts: dict[str, list[str]], peer: str | None) -> None:
        """Profile, verify, compare and time one model."""
        if not (model.folder / "trivec.json").is_file():
            self.skip(model.name, f"{model.folder} has no trivec.json. Type: scripts/demo")
            return
        if self.why_not:
            load = partial(trivec.load, model.folder, device="cpu", threads=self.args.threads)
            self.step(f"{model.name}: profile on the CPU", partial(self.profile, model, load, texts["mixed"], False))
            for what in ("profile", "verify", "parity", "throughput, latency, memory"):
                self.skip(f"{model.name}: {what} on CUDA", self.why_not)
            return
        graphs = [(self.half, "rows"), ("fp32", "rows"), *([("fp16", "mixed")] if self.has_cuda_graph(model) else [])]
        for precision, layout in dict.fromkeys(graphs):
            load = partial(trivec.load, model.folder, device=self.args.device, precision=precision, layout=layout)
            step = partial(self.profile, model, load, texts["mixed"], not self.rehearsal)
            self.step(f"{model.name}: profile of {precision} {layout}", step)
        self.step(f"{model.name}: verify", partial(self.verify, model))
        contenders = self.contenders(model, peer)
        if peer is not None:
            self.skip(f"{model.name}: comparison with {PEER}", peer)
        self.place.section = model.name
        self.step(f"{model.name}: throughput, latency and parity", partial(self.contest, model, contenders, texts))
        self.step(f"{model.name}: memory", partial(self.memory, model, contenders, texts["mixed"]))

    # ---- steps

    def providers(self) -> str:
        """What every provider does; decides whether there is CUDA."""
        found = probe_providers()
        rows: list[Row] = [{"provider": name, "a plain graph": tidy(what)} for name, what in found.items()]
        self.tables.append(Table("providers", "Providers", "Asked to run one Add alone, without the CPU.", rows))
        if found.get(CUDA) != "started" and not self.rehearsal:
            said = f"{CUDA} {found.get(CUDA, 'is not built into this onnxruntime')}"
            self.why_not = tidy(f"{said}; nvidia-smi shows {len(self.gpus)} GPUs")
            if self.gpus and not self.args.allow_cpu:
                raise Failed("onnxruntime", f"there is a GPU, but {self.why_not}")
        return f"{sum(what == 'started' for what in found.values())} of {len(found)} started"

    def profile(self, model: Model, load: Callable[[], Any], texts: list[str], strict: bool) -> str:
        """Run texts, and see where each operator ran."""
        with tempfile.TemporaryDirectory() as folder:
            what, found = profile.profile(load, texts[:64], Path(folder) / "run")
        for route, kernels in found.items():
            name = f"{model.name}, {what}{'' if route == 'default' else f', {route}'}"
            self.tables.append(profile.operators(f"profile {name}", f"Operators: {name}", kernels))
            if strict and (lost := profile.strays(kernels)):
                raise Failed("profile", f"on the CPU: {', '.join(lost)}")
        return what

    def verify(self, model: Model) -> str:
        """`trivec verify` on the GPU, in a process of its own; this user's trivec remembers that it passed."""
        command = [sys.executable, "-m", "trivec", "verify", str(model.folder), "--device", self.args.device]
        done = subprocess.run(command, capture_output=True, text=True, env=checkout("runtime", "export"), check=False)
        print(done.stdout, done.stderr, file=sys.stderr)
        if done.returncode:
            raise Failed("trivec verify", (done.stdout.strip() or done.stderr.strip()).splitlines()[-1])
        return "passed"

    def contenders(self, model: Model, peer: str | None) -> list[Contender]:
        """Who takes part: trivec's graphs on CUDA, its fp32 graph on the CPU for parity, and the peer."""
        common = {"threads": self.args.threads, "tokens": model.limit, "device": self.args.device}
        ours = common | {"folder": str(model.folder), "layout": "rows"}
        half = ours | {"precision": self.half}
        found = [Contender(f"{OURS} rows", "trivec", "", half, BATCHES, "fp16")]
        if self.has_cuda_graph(model):
            found.insert(0, Contender(OURS, "trivec", "", half | {"layout": "mixed"}, BATCHES, "fp16"))
        found.append(Contender("trivec fp32", "trivec", "", ours | {"precision": "fp32"}, BATCHES))
        if peer is None and model.checkpoint is not None:
            theirs = common | {"folder": str(model.checkpoint)}
            for name, dtype in (("fp16", "float32" if self.rehearsal else "float16"), ("fp32", "float32")):
                options = theirs | {"dtype": dtype}
                found.append(Contender(f"{PEER} {name}", PEER, "", options, BATCHES, name))
        return found

    def contest(self, model: Model, contenders: list[Contender], texts: dict[str, list[str]]) -> str:
        """Everybody in turn: texts a second, one text, and whether they agree."""
        tokenizer = model.folder / "tokenizer.json"
        sets = {
            kind: text_set(kind, found, tokenizer, model.limit, model.shape, self.work / "texts" / model.name)
            for kind, found in texts.items()
        }
        products = self.work / "products" / model.name
        ceiling.write(products, model.shape.hidden, model.shape.inner, ("fp16", "fp32"), PRODUCTS)
        quick, (kind, _, index) = self.args.quick, self.args.device.partition(":")
        device = {"provider": KINDS[kind], "device": kind, "index": index or "0"}
        with Contest(self.place, contenders, products, 0.05, device) as contest:
            for kind, found in sets.items():
                outcome = contest.throughput(found, 2 if quick else 5)
                self.tables.append(self.throughput(f"{model.name} {kind}", outcome, contenders))
            blocks = contest.latency(sets["short"], 2 if quick else 5)
            rows: list[Row] = []
            for name, calls in blocks.items():
                p50, p95, p99 = (1e3 * p for p in percentiles(np.concatenate(calls)))
                rows.append({"engine": name, "p50 ms": p50, "p95 ms": p95, "p99 ms": p99})
                self.figures[f"{model.name} latency / {name}"] = p50
            self.tables.append(Table(f"latency {model.name}", f"One text: {model.name}", "Short texts.", rows))
            running = {c.name for c in contest.running}
            saved = {c.name: contest.saved(c, sets["mixed"]) for c in contenders if c.name in running}
        return self.parity(model, saved, sets["mixed"].file)

    def parity(self, model: Model, saved: dict[str, Path], texts: Path) -> str:
        """Cosines of everybody's mixed vectors to torch's in fp32, or the CPU's."""
        reference = f"{PEER} fp32"
        if reference not in saved:
            reference = "trivec fp32 on the CPU"
            options = {"folder": str(model.folder), "precision": "fp32", "tokens": model.limit}
            here = Contender(reference, "trivec", "", options | {"threads": self.args.threads})
            saved[reference] = self.work / f"vectors/{model.name}-cpu.npz"
            saved[reference].parent.mkdir(exist_ok=True)
            with self.place.process(here) as process:
                process.ask(encode(texts, 0, saved[reference]))
        rows: list[Row] = []
        failed = []
        for name, file in saved.items():
            mean, least = agreement(saved[reference], file)["dense"]
            rows.append({"engine": name, "mean": mean, "least": least})
            if name.startswith("trivec") and not least >= LEAST:  # NaN fails too
                failed.append(f"{name} {least:.6f}")
        note = f"Cosines to {reference}, the mixed texts; trivec's least has to reach {LEAST}."
        digits = {"mean": 7, "least": 7}
        self.tables.append(Table(f"parity {model.name}", f"Parity: {model.name}", note, rows, digits))
        if failed:
            raise Failed("parity", f"below {LEAST}: {', '.join(failed)}")
        gone = [
            f"{what}: {error.said}" for (section, what), error in self.place.failures.items() if section == model.name
        ]
        if gone:
            raise Failed("engines", "; ".join(gone))
        return f"cosines to {reference} of {min(float(row['least']) for row in rows):.6f} at least"

    def throughput(self, key: str, outcome: Outcome, contenders: Sequence[Contender]) -> Table:
        """Texts a second, share of the ceiling, and how many times as fast trivec's fp16 is."""
        ours = next((name for name in (OURS, f"{OURS} rows") if name in outcome.seconds), "")
        rows: list[Row] = []
        for contender in (c for c in contenders if c.name in outcome.seconds):
            seconds = outcome.seconds[contender.name]
            row: Row = {"engine": contender.name, "batch": outcome.batches[contender.name]}
            row |= {"texts/s": outcome.texts.size / spread(seconds).median}
            row |= {"share of ceiling %": spread(outcome.shares(contender)).median}
            found = ratios(outcome.seconds[ours], seconds) if ours else None
            row |= {f"{ours} x": "-" if found is None else f"{found.median:.2f} ({found.low:.2f} to {found.high:.2f})"}
            if found is not None:
                self.figures[f"{key} / {contender.name}"] = found.median
            rows.append(row)
        note = (
            f"{outcome.texts.size:,} texts, {outcome.texts.tokens / outcome.texts.size:.1f} tokens each. The ceiling "
            "is the fastest product of the model's shapes in onnxruntime on this GPU, of the engine's precision. `x`: "
            "how many times as fast trivec is as the row's engine, the median of the rounds and their range."
        )
        return Table(key, f"Throughput: {key}", note, rows, {"texts/s": 0, "share of ceiling %": 1})

    def memory(self, model: Model, contenders: Sequence[Contender], texts: list[str]) -> str:
        """The most device memory of each engine alone."""
        file = self.work / "texts" / model.name / "memory.json"
        file.write_text(json.dumps(texts), encoding="utf-8")
        index = int(self.args.device.partition(":")[2] or 0)
        rows: list[Row] = []
        for contender in (c for c in contenders if not self.place.failed(c)):
            with PeakMemory(index) as peak, self.place.process(contender) as process:
                process.ask(encode(file, BATCHES[0]))
            rows.append({"engine": contender.name, "batch": BATCHES[0], "peak MiB": peak.mib})
            self.figures[f"{model.name} memory / {contender.name}"] = peak.mib
        note = "Of the whole GPU, by nvidia-smi, above what it held before; context and libraries count."
        self.tables.append(Table(f"memory {model.name}", f"Device memory: {model.name}", note, rows, {"peak MiB": 0}))
        return "measured"

    def has_cuda_graph(self, model: Model) -> bool:
        """Whether the folder has a graph that is made for CUDA, and there is CUDA to run it."""
        text = (model.folder / manifest.FILE_NAME).read_bytes()
        encoders = manifest_file.loads(text, str(model.folder)).encoders.values()
        return not self.rehearsal and any(encoder.cuda is not None for encoder in encoders)

    # ---- bookkeeping

    def step(self, name: str, run: Callable[[], str]) -> bool:
        """Run one step, and note what came of it."""
        self.place.say(name)
        try:
            row: Row = {"step": name, "result": "passed", "what": run()}
        except Failed as error:
            row = {"step": name, "result": "FAILED", "what": error.said}
        except (TrivecError, OSError, ValueError, RuntimeError, ImportError) as error:
            row = {"step": name, "result": "FAILED", "what": tidy(f"{type(error).__name__}: {error}")[:400]}
        self.steps.append(row)
        self.place.say(f"{row['result']}: {row['what']}")
        return row["result"] == "passed"

    def skip(self, name: str, why: str) -> None:
        """Note a step that is not run."""
        self.steps.append({"step": name, "result": "skipped", "what": tidy(why)})
        self.place.say(f"skipped {name}: {why}")

    def report(self) -> list[Table]:
        """Everything that was found."""
        command = f"scripts/gpu-check{' --quick' if self.args.quick else ''}"
        note = "A check, not a result: few texts." if self.args.quick else "What ran, and on what."
        note += " A rehearsal on the CPU, which says nothing of CUDA." if self.rehearsal else ""
        run = machine(note, threads=self.args.threads, command=command)
        cards = ", ".join(f"{g.name}, driver {g.driver}, {g.memory:.0f} MiB" for g in self.gpus) or "none"
        run.rows.append({"what": "GPU", "is": cards})
        have = {
            d.metadata["Name"]: d.version for d in importlib.metadata.distributions() if d.metadata["Name"] in VERSIONS
        }
        run.rows.append({"what": "packages", "is": ", ".join(f"{n} {have[n]}" for n in VERSIONS if n in have)})
        steps = Table("steps", "Steps", "What passed, failed and was skipped, and why.", self.steps)
        wanted = [
            Goal("mixed texts, over its fp16", f"MiniLM mixed / {PEER} fp16", "", ">=", 2.0),
            *(Goal(f"{k} texts, over its fp16", f"MiniLM {k} / {PEER} fp16", "", ">=", 1.0) for k in ("short", "long")),
            Goal("mixed texts, over its fp32", f"MiniLM mixed / {PEER} fp32", "", ">=", 3.9),
        ]
        aims = [] if self.why_not or self.rehearsal else [goals(self.figures, wanted)]
        return [run, steps, *aims, *self.tables]


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, and write the report; what was found so far also where it is stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "build/demo/minilm", help="all-MiniLM-L6-v2, exported")
    parser.add_argument("--device", default="cuda:0", help="cuda, cuda:N, or cpu to rehearse (default: %(default)s)")
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(CHECKED), help="some of them")
    parser.add_argument("--data", type=Path, default=SHARED / "data/scifact", help="BEIR's SciFact, where it is")
    parser.add_argument("--bert-tokenizer", type=Path, help="folder with a bert's tokenizer.json (default: --folder)")
    parser.add_argument("--xlmr-tokenizer", type=Path, default=SHARED / "models/xlm-roberta-tokenizer")
    parser.add_argument("--bge-layers", type=int, default=24, help="of BGE-M3's shape (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of each engine")
    parser.add_argument("--quick", action="store_true", help="few texts: a check, not a result")
    parser.add_argument(
        "--allow-cpu", action="store_true", help="no failure where there is a GPU and CUDA does not start"
    )
    parser.add_argument("--work", type=Path, help="folder for models and vectors (default: build/gpu-check)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results", help="folder for the report")
    args = parser.parse_args(arguments)
    args.bert_tokenizer = args.bert_tokenizer or args.folder
    check = Check(args)
    try:
        check.run()
    finally:
        write(check.report(), "CUDA on this machine", args.out, f"gpu-check{'-quick' if args.quick else ''}")
    return 1 if any(step["result"] == "FAILED" for step in check.steps) else 0


if __name__ == "__main__":
    sys.exit(main())
