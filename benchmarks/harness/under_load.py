"""A server under load: tails, fairness, overload, its end, slow clients, clients that leave, and time."""

import asyncio
import random
import signal
import time

import numpy as np
from benchmarks.harness.load import Connection, Load, beside, closed, opened
from benchmarks.harness.servers import Server
from benchmarks.harness.serving import Run, embeddings, go, met
from benchmarks.harness.tables import Row, Table


def latency(run: Run) -> Table:
    """Short texts at times of a Poisson process, below saturation."""
    rows: list[Row] = []
    single = [embeddings(text) for text in run.short]
    with run.serve() as server:
        if not run.saturation:
            run.saturation = go(closed(server.url, single, 64, run.args.seconds)).rate()
        idle = go(closed(server.url, single, 1, run.args.seconds)).ms(50)
        for share, most in ((0.3, 0), (0.5, 0), (0.7, 15), (0.9, 40)):
            seconds = run.args.long if most else run.args.seconds
            busy = server.cpu(), time.process_time()
            load = go(opened(server.url, single, share * run.saturation, seconds))
            ours = (server.cpu() - busy[0], time.process_time() - busy[1])
            row: Row = {"share of saturation": share, "requests/s": load.rate(), "p50 ms": load.ms(50)}
            row |= {"p95 ms": load.ms(95), "p99 ms": load.ms(99), "p99 / idle p50": load.ms(99) / idle}
            row |= {"errors": load.errors + len(load.refusals), "load's share of CPU": ours[1] / max(sum(ours), 1e-9)}
            rows.append(
                row | {"goal": f"<= {most}" if most else "", "met": met(load.ms(99) <= most * idle) if most else ""}
            )
    note = (
        f"int8, one short text a request, open loop; saturation {run.saturation:,.0f} texts/s, idle p50 {idle:.2f} ms; "
        f"{run.args.long:g} s at 70 and 90 %. Latency counts from when a request was due."
    )
    return Table("latency", "Latency under load", note, rows)


def fairness(run: Run) -> Table:
    """Twenty short queries a second beside a client who sends 512 long texts, over and over."""
    rows: list[Row] = []
    bulk, single = [embeddings(run.bulk)], [embeddings(text) for text in run.short]
    with run.serve() as server:
        alone = go(closed(server.url, bulk, 1, run.args.seconds))
        before = server.metrics()

        async def both() -> tuple[Load, Load]:
            found = Load()

            async def over_and_over() -> None:
                async with Connection(server.url) as connection:
                    while True:
                        began = time.perf_counter()
                        answer = await connection.ask(bulk[0])
                        found.took(answer.status, time.perf_counter() - began)

            begin = time.perf_counter()
            async with beside(over_and_over()):
                short = await opened(server.url, single, 20, run.args.long)
            found.seconds = time.perf_counter() - begin
            return short, found

        short, long = asyncio.run(both())
        after = server.metrics()
    name = "trivec_inference_duration_seconds"
    windows = after.get(f"{name}_count", 0) - before.get(f"{name}_count", 0)
    window = 1000 * (after.get(f"{name}_sum", 0) - before.get(f"{name}_sum", 0)) / max(windows, 1)
    waits = alone.ms(50)
    share = (np.median(alone.latencies) / np.median(long.latencies)) if long.latencies else 0.0
    rows.append(
        {
            "what": "short p99, ms",
            "found": short.ms(99),
            "goal": f"<= {2 * window + 20:.0f}",
            "met": met(short.ms(99) <= 2 * window + 20),
        }
    )
    rows.append({"what": "short p50, ms", "found": short.ms(50), "goal": "", "met": ""})
    rows.append({"what": "a window, ms (mean)", "found": window, "goal": "", "met": ""})
    rows.append(
        {
            "what": "short p99 / a bulk request alone",
            "found": short.ms(99) / waits,
            "goal": "<= 0.1",
            "met": met(short.ms(99) <= 0.1 * waits),
        }
    )
    rows.append(
        {"what": "bulk beside short / bulk alone", "found": float(share), "goal": ">= 0.9", "met": met(share >= 0.9)}
    )
    rows.append(
        {
            "what": "errors",
            "found": short.errors + long.errors,
            "goal": "0",
            "met": met(not short.errors + long.errors),
        }
    )
    note = (
        f"int8, {run.args.long:g} s. First come, first served makes a short query wait for the bulk request before "
        f"it: {waits:,.0f} ms, as one takes alone."
    )
    return Table("fairness", "A short query beside a bulk load", note, rows)


def overload(run: Run) -> Table:
    """Three times what it can do."""
    single = [embeddings(text) for text in run.short]
    with run.serve("int8", "--max-wait", "1") as server:
        run.saturation = run.saturation or go(closed(server.url, single, 64, run.args.seconds)).rate()
        idle = go(closed(server.url, single, 1, 2)).ms(50)
        before = server.memory()
        load = go(opened(server.url, single, 3 * run.saturation, run.args.long, most=1000))
        memory = server.memory()
        time.sleep(2)
        again = go(closed(server.url, single, 1, 2)).ms(50)
    refusals = 1000 * float(np.percentile(load.refusals, 99)) if load.refusals else 0.0
    good = load.rate() / run.saturation
    rows: list[Row] = [
        {"what": "goodput / saturation", "found": good, "goal": ">= 0.9", "met": met(good >= 0.9)},
        {
            "what": "refused (429), share",
            "found": len(load.refusals) / max(sum(load.statuses.values()), 1),
            "goal": "",
            "met": "",
        },
        {"what": "p99 of a refusal, ms", "found": refusals, "goal": "<= 20", "met": met(refusals <= 20)},
        {"what": "other errors", "found": load.errors, "goal": "0", "met": met(not load.errors)},
        {
            "what": "memory after / before",
            "found": memory / before,
            "goal": "<= 1.1",
            "met": met(memory <= 1.1 * before),
        },
        {
            "what": "idle p50 2 s later / before",
            "found": again / idle,
            "goal": "<= 1.5",
            "met": met(again <= 1.5 * idle),
        },
    ]
    sent = sum(load.statuses.values()) / max(load.seconds, 1e-9)
    note = (
        f"int8, {run.args.long:g} s of {3 * run.saturation:,.0f} short texts a second, --max-wait 1. The load takes "
        f"its share of the cores: it sent {sent:,.0f} a second. {dict(load.statuses)}"
    )
    return Table("overload", "Three times saturation", note, rows, {"found": 2})


def drain(run: Run) -> Table:
    """SIGTERM under load."""
    single = [embeddings(text) for text in run.short]
    whole, wrong, times, statuses = 0, 0, [], []

    async def one(server: Server) -> Load:
        found = Load()
        stopped = asyncio.Event()

        async def caller(first: int) -> None:
            async with Connection(server.url) as connection:
                number = first
                while not stopped.is_set():
                    before = time.perf_counter()
                    try:
                        answer = await connection.ask(single[number % len(single)])
                    except ConnectionRefusedError:
                        return
                    except (OSError, EOFError) as error:
                        found.statuses[type(error).__name__] += 1
                        return
                    found.took(answer.status, time.perf_counter() - before)
                    number += 16
                    if answer.headers.get("connection") == "close":
                        connection.close()

        tasks = [asyncio.create_task(caller(first)) for first in range(16)]
        await asyncio.sleep(1)
        server.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*tasks)
        stopped.set()
        return found

    for _ in range(run.args.drains):
        with run.serve() as server:
            before = time.perf_counter()
            load = go(one(server))
            statuses.append(server.process.wait(60))  # a second signal would end it at once
            times.append(time.perf_counter() - before - 1)
            whole += len(load.latencies)
            wrong += sum(count for status, count in load.statuses.items() if status not in ("200", "503"))
    rows: list[Row] = [
        {"what": "answered whole", "found": whole, "goal": "", "met": ""},
        {"what": "resets and other errors", "found": wrong, "goal": "0", "met": met(not wrong)},
        {
            "what": "exit status 0",
            "found": statuses.count(0),
            "goal": str(run.args.drains),
            "met": met(statuses.count(0) == run.args.drains),
        },
        {
            "what": "s from SIGTERM to the end, at most",
            "found": max(times),
            "goal": "<= 25",
            "met": met(max(times) <= 25),
        },
    ]
    return Table("drain", "SIGTERM under load", f"int8, 16 connections, {run.args.drains} times.", rows)


def slow(run: Run) -> Table:
    """Connections that send a byte a second."""
    single = [embeddings(text) for text in run.short]
    with run.serve("int8", "--header-timeout", "5", "--body-timeout", "5") as server:
        alone = go(closed(server.url, single, 4, run.args.seconds))

        async def both() -> tuple[Load, int]:
            host, port = server.url.removeprefix("http://").split(":")
            streams = [await asyncio.open_connection(host, int(port)) for _ in range(run.args.slow)]
            gone = 0

            async def trickle(pair: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
                nonlocal gone
                try:
                    for letter in single[0].decode() * 4:
                        pair[1].write(letter.encode())
                        await pair[1].drain()
                        await asyncio.sleep(1)
                        if pair[0].at_eof():
                            break
                except OSError:
                    pass
                gone += 1

            tasks = [asyncio.create_task(trickle(pair)) for pair in streams]
            readers = [asyncio.create_task(reader.read()) for reader, _ in streams]
            load = await closed(server.url, single, 4, run.args.seconds)
            await asyncio.wait(tasks, timeout=20)
            for task in (*tasks, *readers):
                task.cancel()
            await asyncio.gather(*tasks, *readers, return_exceptions=True)
            for _, writer in streams:
                writer.close()
            return load, gone

        load, gone = asyncio.run(both())
        before = time.perf_counter()
        status = server.stop()
        ended = time.perf_counter() - before
    ratio = load.ms(99) / alone.ms(99)
    rows: list[Row] = [
        {
            "what": "slow ones that were cut off",
            "found": gone,
            "goal": str(run.args.slow),
            "met": met(gone == run.args.slow),
        },
        {"what": "p99 of the others, beside / alone", "found": ratio, "goal": "<= 2", "met": met(ratio <= 2)},
        {"what": "errors of the others", "found": load.errors, "goal": "0", "met": met(not load.errors)},
        {
            "what": "s from SIGTERM to the end",
            "found": ended,
            "goal": "<= 25",
            "met": met(ended <= 25 and status == 0),
        },
    ]
    return Table("slow", "Slow clients", f"{run.args.slow} connections, a byte a second each; time-outs of 5 s.", rows)


def hangups(run: Run) -> Table:
    """Clients that leave after sending."""
    request = embeddings(run.bulk[:32])
    count = run.args.hangups
    with run.serve() as server:
        go(closed(server.url, [embeddings("warm")], 1, 1))
        before, files = server.metrics(), server.files()

        async def leave() -> None:
            host, port = server.url.removeprefix("http://").split(":")
            for _ in range(count):
                _, writer = await asyncio.open_connection(host, int(port))
                writer.write(request)
                await writer.drain()
                writer.close()

        asyncio.run(leave())
        time.sleep(3)
        after = server.metrics()
        left, open_files = after.get("trivec_queue_texts", 0.0), server.files()
    ran = (after["trivec_texts_total"] - before["trivec_texts_total"]) / (32 * count)
    rows: list[Row] = [
        {"what": "share of their rows that ran", "found": ran, "goal": "<= 0.05", "met": met(ran <= 0.05)},
        {"what": "texts in the queue 3 s later", "found": left, "goal": "0", "met": met(not left)},
        {
            "what": "file descriptors, more than before",
            "found": open_files - files,
            "goal": "0",
            "met": met(open_files <= files),
        },
    ]
    return Table("hangups", "Clients that hang up", f"{count:,} requests of 32 texts of 150 words, int8.", rows)


def soak(run: Run) -> Table:
    """Memory over many requests of every size."""
    rng = random.Random(5)
    texts = [*run.short, *run.bulk]
    requests = [
        embeddings(rng.sample(texts, rng.choice((1, 1, 1, 2, 8))), rng.choice(("base64", "float"))) for _ in range(512)
    ]
    rows: list[Row] = []
    total = run.args.soak
    with run.serve() as server:
        for done in range(0, total, total // 10):
            go(_count(server.url, requests, total // 10))
            rows.append(
                {"requests": done + total // 10, "memory MB": server.memory(), "file descriptors": server.files()}
            )
    memories = [float(row["memory MB"]) for row in rows]
    change = max(memories[1:]) / memories[0] - 1
    note = f"After the first tenth memory rises by {100 * change:.1f} % at most; the goal is 3: {met(change <= 0.03)}."
    return Table("soak", "Soak", note, rows, {"memory MB": 1})


async def _count(url: str, requests: list[bytes], count: int) -> Load:
    load, numbers = Load(), iter(range(count))

    async def caller() -> None:
        async with Connection(url) as connection:
            for number in numbers:
                before = time.perf_counter()
                answer = await connection.ask(requests[number % len(requests)])
                load.took(answer.status, time.perf_counter() - before)

    await asyncio.gather(*(caller() for _ in range(16)))
    return load
