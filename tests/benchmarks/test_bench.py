"""The benchmark's arithmetic, its readers and writers, and how it treats an engine that does not work."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.harness import ceiling, report, scifact, tables, venvs
from benchmarks.harness.contest import Contest, Field, Outcome, TextSet, agreement
from benchmarks.harness.stats import Shape, operations, percentiles, ratios, spread, turns
from benchmarks.harness.tables import Goal, Table
from benchmarks.harness.venvs import Failed
from benchmarks.harness.worker import Contender, Process, encode, latency


def test_ratios_are_taken_within_rounds() -> None:
    # the machine is four times as slow in the third round: of the medians the ratio would be 2 / 1 = 2
    found = ratios([1.0, 1.0, 4.0], [2.0, 3.0, 2.0])
    assert found == (2.0, 0.5, 3.0)
    with pytest.raises(ValueError, match="2 rounds of one engine and 1 of the other"):
        ratios([1.0, 2.0], [1.0])


def test_turns_go_the_other_way_about_in_every_other_round() -> None:
    assert list(turns(["a", "b", "c"], 3)) == [*"abc", *"cba", *"abc"]


def test_percentiles_between_neighbours() -> None:
    assert percentiles(range(101)) == (50.0, 95.0, 99.0)
    np.testing.assert_allclose(percentiles([1.0, 2.0]), (1.5, 1.95, 1.99))
    assert spread([3.0, 1.0, 2.0, 10.0]) == (2.5, 1.0, 10.0)


def test_operations_are_those_of_matrix_products_counted_one_by_one() -> None:
    layers, hidden, inner, head = 3, 4, 10, 7
    expected = 0
    for n in (1, 5):
        x, table = np.zeros((n, hidden)), [(hidden, hidden)] * 4 + [(hidden, inner), (inner, hidden)]
        per_layer = sum(2 * x.shape[0] * a * b for a, b in table) + 2 * (2 * n * n * hidden)
        expected += layers * per_layer + 2 * n * head
    assert operations([1, 5], Shape(layers, hidden, inner, head)) == expected
    # FINDINGS: about 23.5 MFLOP a token of MiniLM at 245 tokens
    np.testing.assert_allclose(operations([245], Shape(6, 384, 1536)) / 245, 23.5e6, rtol=0.005)


def test_classes_hold_the_best_of_trivec_against_the_best_peer_that_is_as_exact() -> None:
    found = {
        ("e5", "short"): {
            "trivec fp32": [4.0, 4.0],
            "trivec bf16, OpenVINO": [1.0, 2.0],
            "A": [9.0, 9.0],
            "B bf16": [1.5, 3.0],
            "D bf16": [0.1, 0.1],
            "onnxruntime-openvino fp32": [0.1, 0.1],
            "trivec int8": [0.5, 0.5],
            "C int8": [0.4, 0.3],
        },
        ("e5", "one text"): {"trivec fp32": [1.0], "trivec int8": [0.1]},
    }
    names = {"trivec fp32": "fp32", "trivec bf16, OpenVINO": "bf16", "A": "fp32", "B bf16": "bf16"}
    names |= {"trivec int8": "int8", "C int8": "int8", "D bf16": "bf16", "onnxruntime-openvino fp32": "fp32"}
    contenders = [_contender(*pair) for pair in names.items()]
    cpu = {("e5", "short"): {"trivec bf16, OpenVINO": [2.0, 2.0], "B bf16": [8.0, 6.0], "trivec int8": [1.0]}}
    table = tables.by_class(found, contenders, {"e5": {"D bf16", "trivec int8"}}, cpu)
    short, one, short8, one8 = table.rows
    assert "no class: D bf16 (e5). " in table.note
    assert (short["trivec"], short["best peer"], short["trivec x"]) == ("trivec bf16, OpenVINO", "B bf16", 1.5)
    assert (short8["trivec"], short8["best peer"], short8["lost"]) == ("trivec int8", "C int8", "**yes**")
    assert short8["trivec x"] == pytest.approx(0.7)
    assert (short["CPU x"], short8["CPU x"], one["CPU x"]) == (3.5, tables.NONE, tables.NONE)
    assert (short["lost"], one["best peer"], one8["trivec"]) == ("", tables.NONE, "trivec int8")


def test_ceiling_is_the_fastest_shape_of_each_round() -> None:
    rounds = [{"fp32-1-2-3": 5.0, "fp32-9-2-3": 7.0, "int8-1-2-3": 4.0}, {"fp32-1-2-3": 6.0, "int8-1-2-3": 9.0}]
    found = ceiling.best(rounds)
    assert (found.of("fp32"), found.of("int8")) == ([7.0, 6.0], [4.0, 9.0])
    assert np.isnan(ceiling.best([{}]).fp32[0])


def _texts(tmp_path: Path) -> TextSet:
    return TextSet("mixed", tmp_path / "a", tmp_path / "b", size=20, tokens=100, operations=50.0)


def _contender(name: str, precision: str = "fp32") -> Contender:
    engine = "trivec" if name.startswith(("trivec", "onnxruntime-openvino")) else "other"
    return Contender(name, engine, "trivec", {}, precision=precision)


def test_throughput_table_has_losing_rows_and_rows_that_could_not_run(tmp_path: Path) -> None:
    contenders = [_contender("trivec fp32"), _contender("trivec int8", "int8"), _contender("fast"), _contender("gone")]
    seconds = {"trivec fp32": [2.0, 4.0, 2.0], "trivec int8": [1.0, 1.0, 2.0], "fast": [1.0, 1.0, 1.0]}
    most = ceiling.Ceiling(fp32=[100.0, 50.0, 50.0], int8=[200.0, 100.0, 100.0])
    batches = dict.fromkeys(seconds, 0) | {"fast": 8}
    cpu = {"trivec fp32": [4.0, 4.0, 4.0], "trivec int8": [1.0, 1.0, 1.0], "fast": [2.0, 2.0, 2.0]}
    outcome = Outcome(_texts(tmp_path), seconds, batches, most, [], {"fast": {8: 1.0, 32: 1.5}}, cpu)
    place = Field(lambda _: tmp_path, tmp_path, 2, section="dense")
    place.fail(contenders[3], Failed("pip install gone", "ERROR: no gone"))
    rows = {str(row["engine"]): row for row in tables.throughput("key", outcome, contenders, place).rows}
    assert rows["fast"]["texts/s"] == 20.0
    assert (rows["fast"]["trivec fp32 x"], rows["fast"]["range of fp32"]) == (0.5, "0.25 to 0.50")
    assert (rows["fast"]["fp32 CPU x"], rows["fast"]["int8 CPU x"], rows["gone"]["int8 CPU x"]) == (0.5, 2.0, "-")
    assert rows["fast"]["note"] == "batch 32: 1.50 x its best time"
    assert rows["trivec fp32"]["trivec fp32 x"] == "-"
    assert rows["trivec fp32"]["trivec int8 x"] == 2.0  # of the rounds' ratios 2, 4 and 1
    assert rows["trivec fp32"]["share of ceiling %"] == 25.0  # of 25, 25 and 50
    assert rows["trivec int8"]["share of ceiling %"] == 25.0  # of 25, 50 and 25
    assert (rows["gone"]["texts/s"], rows["gone"]["note"]) == ("-", "could not run: ERROR: no gone")
    assert tables.failures(place).rows == [
        {"section": "dense", "what": "gone", "command": "`pip install gone`", "what it said": "ERROR: no gone"}
    ]


def test_goals_say_met_missed_or_not_measured() -> None:
    wanted = [
        Goal("a", "fast", "", ">=", 2.0),
        Goal("b", "slow", "fast", "<=", 0.5),
        Goal("c", "slow", "", ">=", 2.0),
        Goal("d", "fast", "missing", "<=", 1.0),
    ]
    table = tables.goals({"fast": 2.0, "slow": 1.0}, wanted)
    assert [row["met"] for row in table.rows] == ["yes", "yes", "NO", "not measured"]
    assert [row["measured"] for row in table.rows] == [2.0, 0.5, 1.0, "-"]


def test_report_is_written_as_markdown_and_as_json_lines(tmp_path: Path) -> None:
    found = [Table("run", "The run", "note", [{"what": "CPU", "is": "x"}]), Table("t", "T", "n", [{"a": 1.23456}])]
    report.write(found, [{"measured": "throughput", "seconds": 1.5}], tmp_path, "bench", quick=True)
    text = (tmp_path / "bench.md").read_text(encoding="utf-8")
    assert text.startswith("# trivec and its peers (--quick: a check, not a result)\n\n## The run\n")
    assert "![throughput](bench-throughput.png)" in text
    assert text.endswith("## T\n\nn\n\n| a |\n| --- |\n| 1.23 |\n")
    lines = [json.loads(line) for line in (tmp_path / "bench.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines[0] == {"measured": "throughput", "seconds": 1.5}
    assert lines[-1] == {"table": "t", "a": 1.23456}


def test_tidy_keeps_paths_and_addresses_of_the_machine_out() -> None:
    said = f"{venvs.ROOT}/build/x {venvs.ROOT.parent}/shared {sys.prefix}/bin see https://host.example/simple a|b"
    assert venvs.tidy(said) == "build/x ../shared VENV/bin see (address) a/b"


def test_an_environment_that_cannot_be_made_says_what_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        said = "" if "venv" in command else "hint: a\nERROR: No matching distribution found\n\nnotice: b\n"
        return subprocess.CompletedProcess(command, 1 if said else 0, stdout="", stderr=said)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(Failed) as caught:
        venvs.ensure("fastembed", tmp_path)
    assert caught.value.said == "ERROR: No matching distribution found"
    assert "-m pip install" in caught.value.command
    assert not list(tmp_path.rglob(".bench-state"))  # the next run tries again


def test_footprint_counts_packages_and_bytes_without_pip(tmp_path: Path) -> None:
    site = tmp_path / "lib/python3.11/site-packages"
    for name, size in (("one/a.py", 5), ("one/__pycache__/a.pyc", 900), ("pip/b.py", 70), ("pip-1.0.dist-info/c", 80)):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_bytes(b"x" * size)
    (site / "two_words-2.5.1.dist-info").mkdir()
    (site / "two_words-2.5.1.dist-info/RECORD").write_bytes(b"xxx")
    assert venvs.footprint(tmp_path) == (8, 1)
    assert venvs.versions(tmp_path) == {"two-words": "2.5.1"}


def test_agreement_is_the_cosine_row_by_row(tmp_path: Path) -> None:
    a = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 2.0]], dtype=np.float32)
    b = np.array([[1.0, 0.0], [0.0, 0.0], [3.0, 3.0]], dtype=np.float32)
    np.savez(tmp_path / "a.npz", dense=a)
    np.savez(tmp_path / "b.npz", dense=b, sparse=b)
    mean, least = agreement(tmp_path / "a.npz", tmp_path / "b.npz")["dense"]
    np.testing.assert_allclose((mean, least), ((1 + 0.5**0.5) / 2, 0.5**0.5), rtol=1e-7)


def test_hub_files_become_beirs_layout(tmp_path: Path) -> None:
    hub, judged = tmp_path / "hub", tmp_path / "judged"
    for folder in (hub, judged):
        folder.mkdir()
    document = {"_id": 7, "title": "T", "text": "Body."}
    (hub / "corpus.jsonl.gz").write_bytes(gzip.compress((json.dumps(document) + "\n").encode()))
    (hub / "queries.jsonl").write_text('{"_id": "q", "text": "Claim.", "metadata": {}}\n', encoding="utf-8")
    (judged / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\t7\t1\n", encoding="utf-8")
    scifact.convert(hub, judged, tmp_path / "out")
    found = scifact.read(tmp_path / "out")
    assert (found.documents, found.queries, found.judgements) == ({"7": "T Body."}, {"q": "Claim."}, {"q": {"7": 1}})
    with pytest.raises(FileNotFoundError, match=r"no test in \.jsonl"):
        scifact.convert(hub, hub, tmp_path / "other")


def test_engines_take_turns_and_one_that_raises_leaves_the_rest_alone(tiny_folder: Path, tmp_path: Path) -> None:
    common = {"threads": 1, "tokens": 16, "precision": "fp32"}
    good = Contender("good", "trivec", "venv", {"folder": str(tiny_folder), **common}, batches=(2, 4))
    bad = Contender("bad", "trivec", "venv", {"folder": str(tmp_path / "nothing"), **common})
    place = Field(lambda _: Path(sys.executable), tmp_path, threads=1)
    for name in ("texts", "warm"):
        (tmp_path / f"{name}.json").write_text(json.dumps(["a cat", "the dog ran"]), encoding="utf-8")
    texts = TextSet("tiny", tmp_path / "texts.json", tmp_path / "warm.json", 2, 9, 1.0)
    with Contest(place, [good, bad], None, 0) as contest:
        outcome = contest.throughput(texts, rounds=2)
        blocks = contest.latency(texts, blocks=2)
    assert {name: len(found) for name, found in outcome.seconds.items()} == {"good": 2}
    assert set(outcome.tried["good"]) == {2, 4}
    assert [len(block) for block in blocks["good"]] == [20, 20]
    assert place.failures["", "bad"].said.startswith("ModelNotFoundError: ")
    with np.load(contest.saved(good, texts)) as saved:
        assert saved["dense"].shape == (2, 12)
    assert [len(found) for found in outcome.cpu.values()] == [2]
    assert all(record["cpu"] > 0 for record in place.raw if record["measured"] in ("throughput", "latency"))
    measured = [record["measured"] for record in place.raw]
    assert measured == ["batch size"] * 2 + ["throughput"] * 2 + ["latency"] * 2


def test_a_worker_says_what_it_took(tiny_folder: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.json"
    texts.write_text(json.dumps(["a cat", "the dog ran", "a boat"]), encoding="utf-8")
    contender = Contender("one", "trivec", "", {"folder": str(tiny_folder), "threads": 1})
    with Process(contender, Path(sys.executable), 1, tmp_path / "log", pinned=True, memory=4 << 30) as process:
        loaded = process.load()
        many = process.ask(encode(texts, save=tmp_path / "vectors.npz"))
        single = process.ask(latency(texts, 3, first=1, skip=1, pause=0.001))
        assert process.ask({"do": "peak"})["bytes"] >= many["peak"] >= loaded.resident > 10_000_000
    assert many["seconds"] > 0
    assert many["resident"] > 10_000_000
    assert len(single["seconds"]) == 3
    with np.load(tmp_path / "vectors.npz") as saved:
        assert saved["dense"].shape == (3, 12)


def test_a_worker_dies_with_its_last_words(tmp_path: Path) -> None:
    contender = Contender("one", "test_no_such_module:engine", "", {})
    with Process(contender, Path(sys.executable), 1, tmp_path / "log") as process:
        with pytest.raises(Failed, match="ModuleNotFoundError: No module named 'test_no_such_module'"):
            process.load()
        with pytest.raises(Failed, match="RuntimeError: encode before load"):
            process.ask(encode(None))
    with (
        Process(contender, Path(sys.executable), 1, tmp_path / "log", memory=1 << 20) as process,
        pytest.raises(Failed, match=r"status -?[0-9]+: .") as caught,
    ):
        process.load()
    assert "python -P -m benchmarks.harness.serve cold test_no_such_module:engine" in caught.value.command


def test_an_engine_of_a_command(tiny_folder: Path, tmp_path: Path) -> None:
    """benchmarks.sessions opens trivec with one setting changed; the vectors stay the same."""
    texts = tmp_path / "texts.json"
    texts.write_text(json.dumps([f"a cat {'ran ' * (n % 9)}" for n in range(40)]), encoding="utf-8")
    found = {}
    for variant in ("as trivec does", "without arena", "arena shrunk after each run", "one run at a time"):
        options = {"folder": str(tiny_folder), "precision": "fp32", "threads": 2, "variant": variant}
        contender = Contender(variant, "benchmarks.sessions:engine", "", options)
        with Process(contender, Path(sys.executable), 2, tmp_path / "log") as process:
            process.load()
            process.ask(encode(texts, 8, tmp_path / "vectors.npz"))
        with np.load(tmp_path / "vectors.npz") as saved:
            found[variant] = saved["dense"]
    for vectors in found.values():
        np.testing.assert_array_equal(vectors, found["as trivec does"])
