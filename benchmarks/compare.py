"""trivec and its peers on this machine: throughput, latency, cold start, memory, size and quality, in one run.

    python -m benchmarks.compare [--quick] [--only dense,splade,...] [--engines NAME,...] [--data FOLDER] [--threads 2]

The models are the real all-MiniLM-L6-v2, and all-mpnet-base-v2 and multilingual-e5-small where scripts/models has built
them (--models). Each engine runs in its own virtual environment (build/bench/NAME, made at the first run) and its own
process; they take turns, round after round, and ratios are taken within a round. Writes benchmarks/results/bench.jsonl
(one measurement a line, then the tables), bench.md and plots. --quick runs everything on few texts, and writes
bench-quick.*: a check, not a result. An engine that cannot be installed or run gets a row that says why.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from benchmarks.harness import ceiling, models, profile, report, tables, venvs
from benchmarks.harness.contest import EVERY, Contest, Field, Outcome, TextSet, agreement, text_set
from benchmarks.harness.models import BGE, BGE_LAYERS, MINILM, REAL, SPLADE, VOCABULARY, Real, checkpoint
from benchmarks.harness.scifact import (
    SciFact,
    cosine_ndcg,
    cosines,
    even_sample,
    fetch,
    mixed_texts,
    read,
    short_texts,
)
from benchmarks.harness.stats import Shape, operations
from benchmarks.harness.tables import NONE, Row, Table
from benchmarks.harness.venvs import ROOT, SHARED, Failed
from benchmarks.harness.worker import Contender, encode

from trivec._engine.openvino_session import has_bf16
from trivec._tokens.tokenizer import TextTokenizer

LIMIT = 256  # tokens, of every engine
LONG_LIMIT = 512  # for the BGE-M3 shape
SECTIONS = ("dense", "latency", "splade", "bge-m3", "static", "cold", "memory", "install", "profile")
NAMED = (
    "trivec fp32",
    "trivec int8",
    "trivec bf16, OpenVINO",
    "trivec int8, OpenVINO",
    "sentence-transformers",
    "FastEmbed",
    "OpenVINO int8",
    "CTranslate2 int8",
)  # that encode all of SciFact
EXACT = 0.9999
"""Cosine of the row that is furthest from sentence-transformers', of the class that is compared with fp32."""


class Sizes(NamedTuple):
    """How much of everything a run takes."""

    short: int
    long: int
    mixed: tuple[int, int]
    splade: tuple[int, int]
    bge: tuple[int, int]
    static: int
    rounds: int
    blocks: int
    """Of latency, of CALLS calls each."""
    cold_runs: int
    documents: int
    ceiling_seconds: float
    profile_runs: int

    def of(self, shape: Shape) -> "Sizes":
        """As many texts less as a model takes longer for one than MiniLM does."""
        work = operations([100], shape) / operations([100], MINILM)

        def part(count: int) -> int:
            return max(8, round(count / work))

        short, long = self.mixed
        return self._replace(short=part(self.short), long=part(self.long), mixed=(part(short), part(long)))


FULL = Sizes(400, 32, (120, 40), (120, 40), (48, 16), 40_000, 4, 10, 2, 10**9, 0.15, 20)
QUICK = Sizes(96, 12, (24, 8), (15, 5), (6, 2), 2000, 3, 2, 2, 64, 0.02, 3)


class Comparison:
    """One run: what it compares, and what it has found."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Read the texts; nothing is installed or run yet."""
        self.args, self.work = args, ROOT / "build/bench"
        self.sizes: Sizes = QUICK if args.quick else FULL
        self.data: SciFact = read(args.data)
        self.place = Field(venvs.Environments(self.work), self.work, args.threads)
        self.tables: list[Table] = []
        self.outcomes: dict[str, Outcome] = {}
        self.figures: dict[str, float] = {}
        """What the goals are compared with, by "section / set / engine"."""
        self.by_row: dict[tuple[str, str], Mapping[str, Sequence[float]]] = {}
        """Seconds or bytes by model and row of the table of classes, then engine."""
        self.cpu_by_row: dict[tuple[str, str], Mapping[str, Sequence[float]]] = {}
        """As `by_row`, seconds of all threads together."""
        self.inexact: dict[str, set[str]] = {}
        """By model: engines below EXACT."""
        self.onnx: dict[str, Path | Failed] = {}
        """By model: the ONNX file that the peers export."""
        self.minilm = Real("MiniLM", checkpoint(), args.folder, MINILM)

    def run(self) -> None:
        """Every section that is wanted."""
        sections = {
            "dense": self.dense,
            "splade": self.splade,
            "bge-m3": self.bge,
            "static": self.static,
            "cold": self.cold,
            "memory": self.memory,
            "install": self.install,
            "profile": self.profile,
        }
        for name, run in sections.items():
            if name in self.args.only or (name == "dense" and "latency" in self.args.only):
                self.place.section = name
                run()

    def summed_up(self) -> list[Table]:
        """What stands below the tables of the sections, of all that was measured so far."""
        everybody = self.dense_contenders()
        found = [tables.by_class(self.by_row, everybody, self.inexact, self.cpu_by_row)] if self.by_row else []
        return [*found, *([tables.products(list(self.outcomes.values()))] if self.outcomes else [])]

    # ---- who takes part

    def dense_contenders(self, model: Real | None = None) -> list[Contender]:
        """Everybody who encodes a model; None: MiniLM."""
        model = model or self.minilm
        made, graph = str(model.checkpoint), self._graph(model)
        onnx = "" if isinstance(graph, Failed) else str(graph)
        common = {"threads": self.args.threads, "tokens": LIMIT}
        kept = self.work / f"models/{model.name.lower()}"
        onnx_venv, torch_venv = "onnx-4.57", "sentence-transformers"
        backend = "sentence-transformers ONNX", "sentence-transformers-onnx"
        fast = kept.with_name(f"{kept.name}-fastembed")
        if not isinstance(graph, Failed):
            models.fastembed_folder(graph, fast, LIMIT, model.checkpoint)
        every = [
            *self._ours(str(model.folder), LIMIT),
            Contender("sentence-transformers", "sentence-transformers", torch_venv, {"folder": made} | common, (32,)),
            Contender("FastEmbed", "fastembed", "fastembed", {"folder": str(fast)} | common, (8, 32, 256)),
            Contender(*backend, onnx_venv, {"folder": onnx} | common, (32,)),
            Contender("Optimum ORTModel", "ortmodel", onnx_venv, {"folder": onnx} | common, (32,)),
            *self._of_openvino(model, onnx, common),
            Contender(
                "CTranslate2 int8",
                "ctranslate2",
                "ctranslate2",
                {"folder": made, "export": f"{kept}-ctranslate2", "compute": "int8"} | common,
                (8, 32),
                "int8",
            ),
        ]
        for contender in every:
            if isinstance(graph, Failed) and contender.options["folder"] in (onnx, str(fast)):
                self.place.fail(contender, graph)
        return self._wanted(every)

    def _of_openvino(self, model: Real, onnx: str, common: dict[str, Any]) -> list[Contender]:
        """OpenVINO with our files, by itself and behind sentence-transformers; bf16 where this CPU has it."""
        checkpoint = str(model.checkpoint)
        ours = common | {"folder": str(model.folder), "engine": "openvino"}
        graph = common | {"folder": onnx, "graph": f"{onnx}/onnx/model.onnx"}
        texts = self.work / "texts/calibration.txt"
        texts.parent.mkdir(parents=True, exist_ok=True)
        texts.write_text("\n".join(even_sample(short_texts(self.data), 300)), encoding="utf-8")
        integer = {"export": str(self.work / f"models/{model.name.lower()}-nncf.xml"), "calibration": str(texts)}
        hints = {"fp32": "f32", "bf16": "bf16"} if has_bf16() else {"fp32": "f32"}
        kept = str(self.work / f"models/{model.name.lower()}-st-openvino")
        alone = "onnxruntime-openvino"
        behind = "sentence-transformers-openvino", "openvino", {"folder": checkpoint, "export": kept} | common, (32,)
        found = [
            *(
                Contender(f"trivec {p}, OpenVINO", "trivec", "trivec-openvino", ours | {"precision": p}, precision=p)
                for p in (*hints, "int8")
            ),
            *(
                Contender(f"OpenVINO {p}", "openvino", "openvino", graph | {"hint": hint}, (2, 8, 32), p)
                for p, hint in hints.items()
            ),
            Contender(
                "OpenVINO int8",
                "openvino",
                "openvino",
                graph | integer | {"hint": hints.get("bf16", "f32")},
                (2, 8, 32),
                "int8",
            ),
            Contender("sentence-transformers OpenVINO", *behind),
            *(
                Contender(f"{alone} {p}", "trivec", alone, common | self._by_provider(model, p), precision=p)
                for p in ("fp32", "int8")
            ),
        ]
        if "bf16" in hints:
            options = {"folder": checkpoint, "dtype": "bfloat16"} | common
            name, engine = "sentence-transformers bf16", "sentence-transformers"
            found += [
                Contender(name, engine, engine, options, (32,), "bf16"),
                Contender(f"{name}, compiled", engine, engine, options | {"compiled": True}, (32,), "bf16"),
            ]
        return found

    def _by_provider(self, model: Real, precision: str) -> dict[str, Any]:
        """Our graph on onnxruntime's OpenVINO provider, of a package that stands where onnxruntime does."""
        settings = {"device_type": "CPU", "num_of_threads": str(self.args.threads)}
        providers = [["OpenVINOExecutionProvider", settings], "CPUExecutionProvider"]
        return {"folder": str(model.folder), "precision": precision, "providers": providers}

    def _ours(self, folder: str, tokens: int) -> list[Contender]:
        common = {"folder": folder, "threads": self.args.threads, "tokens": tokens}
        return [
            Contender(f"trivec {p}", "trivec", "trivec", common | {"precision": p}, precision=p)
            for p in ("fp32", "int8")
        ]

    def _wanted(self, contenders: Sequence[Contender]) -> list[Contender]:
        wanted = self.args.engines
        return [c for c in contenders if not wanted or any(part.lower() in c.name.lower() for part in wanted)]

    def _graph(self, model: Real) -> Path | Failed:
        """The checkpoint with the ONNX file that the peers export, or why they cannot."""
        if model.name not in self.onnx:
            try:
                python, log = self.place.pythons("onnx-4.57"), self.work / f"logs/export-{model.name}.log"
                out = self.work / f"models/{model.name.lower()}-onnx"
                self.onnx[model.name] = models.onnx_checkpoint(python, out, self.args.threads, log, model.checkpoint)
            except Failed as error:
                self.onnx[model.name] = error
        return self.onnx[model.name]

    # ---- sections

    def dense(self) -> None:
        """Throughput, agreement and latency of every dense model."""
        for model in self._models("dense", "Throughput"):
            self._dense(model)

    def _models(self, section: str, title: str) -> Iterator[Real]:
        """The dense models that are there."""
        for name in self.args.models:
            try:
                yield self.minilm if name == "MiniLM" else models.real_folders(name, self.work / "models")
            except Failed as error:
                self._no_model(f"{section} {name}", f"{title}: {name}", error)

    def _of(self, model: Real) -> str:
        """What stands before the names of a model's rows: nothing of MiniLM's, being the goals'."""
        return "" if model is self.minilm else f"{model.name} "

    def _dense(self, model: Real) -> None:
        """Throughput, agreement, latency and memory of one."""
        of, sizes = self._of(model), self.sizes.of(model.shape)
        self.place.section = f"dense {of}".strip()
        contenders = self.dense_contenders(model)
        short = even_sample(short_texts(self.data), sizes.short)
        long = even_sample(list(self.data.abstracts.values()), sizes.long)
        texts = {"short": short, "long": long, "mixed": mixed_texts(self.data, sizes.mixed)}
        tokenizer = model.checkpoint / "tokenizer.json"
        sets = {name: self._set(of + name, found, tokenizer, LIMIT, model.shape) for name, found in texts.items()}
        with self._contest(contenders, model.shape) as contest:
            for name in sets if "dense" in self.args.only else ():
                note = (
                    f"{REAL[model.name][0]}, at most {LIMIT} tokens, {self.args.threads} threads. The three peers on "
                    "onnxruntime share one graph, as sentence-transformers' ONNX backend exports it."
                )
                outcome = self._throughput(f"dense {of}{name}", contest, sets[name], note)
                self.by_row[model.name, name], self.cpu_by_row[model.name, name] = outcome.seconds, outcome.cpu
            if "dense" in self.args.only:
                title = f"Agreement with sentence-transformers{of and ': '}{of.strip()}"
                near = self._agreement(f"agreement {of}".strip(), title, contest, sets["mixed"])
                self.inexact[model.name] = {name for name, least in near.items() if least < EXACT}
            if "latency" in self.args.only:
                blocks = contest.latency(sets["short"], self.sizes.blocks)
                self.tables.append(tables.latency(blocks, contenders, self.place, of.strip()))
                middles = {name: [float(np.median(block)) for block in found] for name, found in blocks.items()}
                self.by_row[model.name, "one text"] = middles
                self.cpu_by_row[model.name, "one text"] = self._cpu(sets["short"].name, middles)
                key = f"latency {of}".strip()
                for name, found in blocks.items():
                    self.figures[f"{key} / {name}"] = float(np.median(np.concatenate(found)))
            self.by_row[model.name, "peak memory"] = peaks = contest.peaks()
            for name, held in peaks.items():
                record = {"measured": "peak memory", "model": model.name, "engine": name, "bytes": held[0]}
                self.place.raw.append(record)

    def _cpu(self, texts: str, engines: Iterable[str]) -> dict[str, list[float]]:
        """Seconds of all threads in each block of single calls."""
        blocks = [r for r in self.place.raw if r["measured"] == "latency" and r["texts"] == texts]
        return {name: [float(r["cpu"]) for r in blocks if r["engine"] == name] for name in engines}

    def splade(self) -> None:
        """SPLADE against SparseEncoder."""
        peer = Contender("SparseEncoder", "sparse-encoder", "sentence-transformers", {}, (32,))
        try:
            made, folder = models.splade_folders(self.args.splade, self.work / "models")
        except Failed as error:
            self._no_model("splade", "Throughput: splade", error)
            return
        common = {"folder": str(made), "threads": self.args.threads, "tokens": LIMIT}
        contenders = self._wanted([*self._ours(str(folder), LIMIT), _with(peer, common)])
        texts = mixed_texts(self.data, self.sizes.splade)
        chosen = self._set("splade", texts, made / "tokenizer.json", LIMIT, SPLADE)
        with self._contest(contenders, SPLADE) as contest:
            note = f"SPLADE with MiniLM's sizes and 30,522 terms, at most {LIMIT} tokens."
            self._throughput("splade", contest, chosen, note)
            self._agreement("agreement splade", "Agreement with SparseEncoder", contest, chosen, "SparseEncoder")

    def bge(self) -> None:
        """BGE-M3's shape against FlagEmbedding, all three outputs."""
        try:
            made, folder = models.bge_folders(self.args.tokenizer, self.work / "models")
        except Failed as error:
            self._no_model("bge-m3", "Throughput: bge-m3", error)
            return
        common = {"folder": str(made), "threads": self.args.threads, "tokens": LONG_LIMIT, "vocabulary": VOCABULARY}
        peer = Contender("FlagEmbedding", "flagembedding", "flagembedding", common, (8, 32, 256))
        contenders = self._wanted([*self._ours(str(folder), LONG_LIMIT), peer])
        texts = mixed_texts(self.data, self.sizes.bge)
        chosen = self._set("bge-m3", texts, made / "tokenizer.json", LONG_LIMIT, BGE)
        with self._contest(contenders, BGE) as contest:
            note = (
                f"BGE-M3's shape with random weights and {BGE_LAYERS} of its 24 layers; dense, sparse and ColBERT "
                f"vectors, at most {LONG_LIMIT} tokens."
            )
            self._throughput("bge-m3", contest, chosen, note)
            self._agreement("agreement bge-m3", "Agreement with FlagEmbedding", contest, chosen, "FlagEmbedding")

    def static(self) -> None:
        """A table of static vectors against model2vec."""
        options = {"folder": str(self.args.static), "tokens": LIMIT}
        ours = options | {"threads": self.args.threads, "precision": "fp32"}
        contenders = self._wanted(
            [
                Contender("trivec fp32", "trivec", "trivec-static", ours, precision="fp32"),
                Contender("model2vec", "model2vec", "model2vec", options, (1024,)),
            ]
        )
        sentences = even_sample(short_texts(self.data), self.sizes.static)
        tokenizer = self.args.static / "tokenizer.json"
        if not tokenizer.is_file():
            self._no_model("static", "Throughput: static", Failed("--static FOLDER", "no tokenizer.json there"))
            return
        chosen = self._set("static", sentences, tokenizer, LIMIT, Shape(0, 0, 0))
        with Contest(self.place, contenders, None, 0) as contest:
            outcome = contest.throughput(chosen, self.sizes.rounds)
        self.outcomes["static"] = outcome
        note = "A table of token vectors, no products."
        self.tables.append(tables.throughput("static", outcome, contenders, self.place, note))

    def cold(self) -> None:
        """Import to first vector."""
        for model in self._models("cold", "Cold start"):
            self._cold(model)

    def _cold(self, model: Real) -> None:
        contenders, of = self.dense_contenders(model), self._of(model)
        self.place.section = f"cold {of}".strip()
        seconds = self.place.cold_starts(contenders, self.sizes.cold_runs, model=model.name)
        self.figures |= {f"cold / {of}{name}": float(np.median(found)) for name, found in seconds.items()}
        self.by_row[model.name, "import to first vector"] = seconds
        self.tables.append(tables.cold_start(seconds, contenders, self.place, of.strip()))

    def memory(self) -> None:
        """Peak memory of a process that encodes the corpus, and what its vectors are worth."""
        contenders = [c for c in self.dense_contenders() if c.name in NAMED]
        documents = list(self.data.documents.values())
        if len(documents) > self.sizes.documents:
            documents = documents[: self.sizes.documents]
        tokenizer = checkpoint() / "tokenizer.json"
        sets = [
            self._set(name, texts, tokenizer, LIMIT, MINILM)
            for name, texts in (("documents", documents), ("queries", list(self.data.queries.values())))
        ]
        found: dict[str, dict[str, float]] = {}
        vectors: dict[str, list[Any]] = {}
        for contender in (c for c in contenders if not self.place.failed(c)):
            try:
                found[contender.name], vectors[contender.name] = self._corpus(contender, sets)
            except Failed as error:
                self.place.fail(contender, error)
        self.figures |= {f"memory / {name}": it["peak"] for name, it in found.items()}
        self.tables.append(tables.memory(found, contenders, self.place, len(documents)))
        self.tables.append(self._quality(vectors, contenders, whole=len(documents) == len(self.data.documents)))

    def _corpus(self, contender: Contender, sets: Sequence[TextSet]) -> tuple[dict[str, float], list[Any]]:
        batch = self._best_batch(contender)
        with self.place.process(contender) as process:
            loaded = float(process.ask({"do": "peak"})["bytes"])
            arrays, answers = [], []
            for texts in sets:
                file = self.work / f"vectors/{texts.name}-{contender.name.replace(' ', '-')}.npz"
                file.parent.mkdir(parents=True, exist_ok=True)
                answers.append(process.ask(encode(texts.file, batch, file)))
                with np.load(file) as saved:
                    arrays.append(saved["dense"])
        it = {"peak": float(answers[0]["peak"]), "loaded": loaded, "seconds": float(answers[0]["seconds"])}
        self.place.raw.append({"measured": "memory", "engine": contender.name, "batch": batch, **it})
        self.place.say(f"{contender.name}: {sets[0].size} documents, {it['seconds']:.0f} s, {it['peak'] / 1e6:.0f} MB")
        return it, arrays

    def _best_batch(self, contender: Contender) -> int:
        """The batch size that won on the mixed texts; the second of those to try where nothing was tried."""
        outcome = self.outcomes.get("dense mixed")
        if outcome and contender.name in outcome.batches:
            return outcome.batches[contender.name]
        return contender.batches[len(contender.batches) // 2]

    def _quality(self, vectors: dict[str, list[Any]], contenders: Sequence[Contender], *, whole: bool) -> Table:
        gains, reference = self.data.gains(), vectors.get("sentence-transformers")
        rows: list[Row] = []
        for contender in contenders:
            if contender.name not in vectors:
                continue
            documents, queries = vectors[contender.name]  # (N, D), (Q, D)
            row: Row = {"engine": contender.name, "nDCG@10 x 100": NONE}
            if whole:
                row["nDCG@10 x 100"] = float(cosine_ndcg(queries, documents, gains).mean()) * 100
            near = cosines(reference[0], documents) if reference else None  # (N,)
            row |= {"cosine mean": NONE if near is None else float(near.mean())}
            rows.append(row | {"cosine min": NONE if near is None else float(near.min())})
        note = (
            "BEIR SciFact's test queries over all of its documents, exact search by cosine; published for "
            "all-MiniLM-L6-v2: 64.5. Cosine of the documents' vectors to sentence-transformers'."
        )
        if not whole:
            note = "nDCG needs every document: not measured with --quick. " + note
        return Table("quality", "Quality", note, rows, {"cosine mean": 6, "cosine min": 6})

    def install(self) -> None:
        """Size and packages of each environment."""
        rows: list[Row] = []
        for name in ("trivec", *sorted(p.stem for p in venvs.PEERS.glob("*.txt") if p.stem != "plots")):
            wanted = " ".join(venvs.requirements(name))
            try:
                self.place.pythons(name)
                found = venvs.footprint(self.work / name)
            except Failed as error:
                self.place.failures[self.place.section, f"environment {name}"] = error
                rows.append({"environment": name, "installs": wanted, "MB": NONE, "packages": NONE})
                continue
            size, packages = found.bytes, found.packages
            if name == "trivec":  # not installed there: it runs from this checkout
                size += sum(venvs.size_of(ROOT / part) for part in ("runtime/trivec", "export/trivec_export"))
                packages += 1
            rows.append({"environment": name, "installs": wanted, "MB": round(size / 1e6), "packages": packages})
        note = (
            "Files of site-packages without pip and compiled files. trivec's row is trivec[cpu]: its requirements, and "
            "this checkout's two packages."
        )
        self.tables.append(Table("install", "Installed", note, rows))

    def profile(self) -> None:
        """Where the time of long texts goes."""
        variants = {p: profile.open_variant(self.args.folder, p, self.args.threads) for p in profile.PRECISIONS}
        description = variants["fp32"].description
        tokenizer = TextTokenizer(self.args.folder / description.tokenizer.path, description)
        documents = list(self.data.documents.values())
        batches = profile.ready_batches(tokenizer, documents, even_sample(short_texts(self.data), 2000))
        name, ids = next((n, b) for n, b in batches.items() if b.shape[1] > LIMIT // 2)
        self.tables.append(profile.compared(variants, name, ids, self.sizes.profile_runs))
        for variant in variants.values():
            variant.encoder.close()

    # ---- helpers

    def _set(self, name: str, texts: Sequence[str], tokenizer: Path, limit: int, shape: Shape) -> TextSet:
        return text_set(name, list(texts), tokenizer, limit, shape, self.work / "texts")

    def _contest(self, contenders: Sequence[Contender], shape: Shape) -> Contest:
        products = self.work / f"ceiling/{shape.hidden}"
        ceiling.write(products, shape.hidden, shape.inner)
        return Contest(self.place, contenders, products, self.sizes.ceiling_seconds)

    def _throughput(self, key: str, contest: Contest, texts: TextSet, note: str) -> Outcome:
        outcome = contest.throughput(texts, self.sizes.rounds)
        self.outcomes[key], int8 = outcome, [c for c in contest.contenders if c.precision == "int8"]
        self.tables.append(tables.throughput(key, outcome, contest.contenders, self.place, note))
        for contender in contest.contenders:
            if contender.name in outcome.seconds:
                self.figures[f"{key} / share / {contender.name}"] = float(np.median(outcome.shares(contender)))
                for ours in EVERY:
                    if ours in outcome.seconds:
                        pair = np.divide(outcome.seconds[contender.name], outcome.seconds[ours])
                        self.figures[f"{key} / {ours} / {contender.name}"] = float(np.median(pair))
        for contender in contest.contenders:
            pairs = [self.figures.get(f"{key} / {c.name} / {contender.name}", 0.0) for c in int8 if c.name in EVERY]
            if any(pairs):
                self.figures[f"{key} / trivec int8 by either engine / {contender.name}"] = max(pairs)
        return outcome

    def _agreement(
        self, key: str, title: str, contest: Contest, texts: TextSet, reference: str = "sentence-transformers"
    ) -> dict[str, float]:
        """A table of cosines to one engine's vectors; the least of each engine."""
        base = next((c for c in contest.running if c.name == reference), None)
        rows: list[Row] = []
        for contender in contest.running if base else ():
            try:
                found = agreement(contest.saved(base, texts), contest.saved(contender, texts)) if base else {}
            except Failed as error:
                self.place.failures[self.place.section, f"{contender.name}, compared"] = error
                continue
            for name, (mean, least) in found.items():
                rows.append({"engine": contender.name, "array": name, "cosine mean": mean, "cosine min": least})
        note = f"Cosine of each row of the texts `{texts.name}` to {reference}'s."
        self.tables.append(Table(key, title, note, rows, {"cosine mean": 6, "cosine min": 6}))
        return {str(row["engine"]): float(row["cosine min"]) for row in rows}

    def _no_model(self, key: str, title: str, error: Failed) -> None:
        self.place.failures[self.place.section, f"the model of {key}"] = error
        self.tables.append(Table(key, title, f"Could not run: {error.said}", []))


def _with(contender: Contender, options: dict[str, Any]) -> Contender:
    return Contender(contender.name, contender.engine, contender.venv, options, contender.batches, contender.precision)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "build/demo/minilm", help="MiniLM, fp32 and int8")
    parser.add_argument("--models", default=",".join(REAL), help=f"dense ones, some of {','.join(REAL)}")
    parser.add_argument("--data", type=Path, help="SciFact in BEIR's layout; without it, it comes from the Hub")
    parser.add_argument("--splade", type=Path, default=SHARED / "models/splade-minilm", help="checkpoint, or build.py")
    parser.add_argument("--static", type=Path, default=SHARED / "models/potion-base-2M", help="a model2vec folder")
    parser.add_argument("--tokenizer", type=Path, default=SHARED / "models/xlm-roberta-tokenizer", help="for BGE-M3")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"some of {','.join(SECTIONS)}")
    parser.add_argument("--engines", default="", help="parts of the names of those that take part: trivec,fastembed")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--name", help="of the files that are written (default bench, or bench-quick)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results")
    args = parser.parse_args(arguments)
    args.only, args.models = args.only.split(","), args.models.split(",")
    if unknown := sorted({*args.models} - {*REAL}):
        parser.error(f"--models {','.join(unknown)}: choose from {', '.join(REAL)}")
    args.engines = [part.strip() for part in args.engines.split(",") if part.strip()]
    args.name = args.name or ("bench-quick" if args.quick else "bench")
    if unknown := [name for name in args.only if name not in SECTIONS]:
        parser.error(f"--only does not know {', '.join(unknown)}: it takes some of {', '.join(SECTIONS)}")
    if not (args.folder / "trivec.json").is_file():
        parser.error(f"{args.folder} has no trivec.json. Type: scripts/demo")
    if args.data is None:
        near = SHARED / "data/scifact"
        args.data = near if near.is_dir() else fetch(ROOT / "build/bench/scifact")
    if not (args.data / "corpus.jsonl").is_file():
        parser.error(f"{args.data} has no corpus.jsonl. Pass --data with the folder of BEIR's SciFact.")
    return args


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the report; what was measured so far also where it is stopped."""
    args = _arguments(arguments)
    load, files = os.getloadavg()[0], report.file_rows([args.folder])
    comparison = Comparison(args)
    try:
        comparison.run()
    finally:
        found = [
            report.run_table(args, load, comparison.work),
            tables.goals(comparison.figures, report.GOALS),
            *comparison.tables,
            *comparison.summed_up(),
            tables.failures(comparison.place),
            report.file_table(args.folder, comparison.work / "models", files),
        ]
        report.write(found, comparison.place.raw, args.out, args.name, quick=args.quick)
    try:
        report.plot(comparison.place.pythons("plots"), args.out, args.name)
    except Failed as error:
        print(f"no plots: {error.said}", file=sys.stderr)
    print(json.dumps({"written": str(args.out / f"{args.name}.md"), "failures": len(comparison.place.failures)}))


if __name__ == "__main__":
    main()
