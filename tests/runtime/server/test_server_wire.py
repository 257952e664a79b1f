"""A server over raw sockets: limits, deadlines, damaged requests, its end. Each is a process, as users start it."""

import asyncio
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from tests.support.serving import SOON, ServeProcess, one_answer, parsed, request, unpacked, until_closed
from tests.support.tiny_model import WORDS

import trivec
from trivec.server import App, Settings
from trivec.server._models import Model
from trivec.server._process import Process, listen

BODY = {"input": "a cat", "model": "tiny"}
PATH = "/v1/embeddings"


@pytest.fixture(scope="module")
def server(folders: dict[str, Path]) -> Iterator[ServeProcess]:
    with ServeProcess(f"tiny={folders['tiny']}", "--max-body", "1MiB") as server:
        yield server


@pytest.fixture(scope="module")
def hasty(folders: dict[str, Path]) -> Iterator[ServeProcess]:
    """With short deadlines, for whoever is to miss them."""
    arguments = ("--header-timeout", "0.5", "--body-timeout", "0.5", "--keep-alive", "1")
    with ServeProcess(f"tiny={folders['tiny']}", *arguments) as server:
        yield server


def hung(data: bytes, server: ServeProcess) -> bytes:
    """What comes of a client that sends this and then nothing, until the server closes."""
    with closing(server.connect()) as connection:
        if data:
            connection.sendall(data)
        return until_closed(connection)


def test_connections_are_kept(server: ServeProcess) -> None:
    with closing(server.connect()) as connection:
        for _ in range(3):
            connection.sendall(request(PATH, BODY))
            status, headers, found = one_answer(connection)
            assert (status, len(found["data"])) == (200, 1)
            assert "connection" not in headers
            assert headers["date"].endswith("GMT")


def test_many_connections_get_their_own_vectors(server: ServeProcess, folders: dict[str, Path]) -> None:
    texts = [f"{a} {b} {c}" for a in WORDS for b in WORDS[:10] for c in WORDS[:5]]  # 1,000, none like another
    with trivec.load(folders["tiny"], device="cpu") as encoder:
        expected = encoder.encode(texts, normalize_embeddings=True)
    wrong: list[str] = []

    def client(start: int) -> None:
        with closing(server.connect()) as connection:
            for first in range(start, len(texts), 32 * 5):
                part = texts[first : first + 5]
                body = {"input": part, "model": "tiny", "encoding_format": "base64"}
                connection.sendall(request(PATH, body, X_Request_Id=f"id-{first}"))
                status, headers, found = one_answer(connection)
                made = np.stack([unpacked(item["embedding"]) for item in found["data"]])
                close = np.abs(made - expected[first : first + 5]).max() < 1e-6
                if status != 200 or headers["x-request-id"] != f"id-{first}" or not close:
                    wrong.append(f"{first}: {status} {headers}")

    threads = [threading.Thread(target=client, args=(5 * number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(4 * SOON)
    assert wrong == []


def test_a_kept_connection_that_is_not_used_is_closed(hasty: ServeProcess) -> None:
    with closing(hasty.connect()) as connection:
        connection.sendall(request(PATH, BODY))
        assert one_answer(connection)[0] == 200
        assert until_closed(connection) == b""


def test_small_packets_are_not_held_back() -> None:
    """Head and body leave as two: with Nagle's algorithm the second waits for the client's delayed acknowledgement."""
    held: list[int] = []

    class Noted(Process):
        async def _connect(self, connection: socket.socket) -> None:
            held.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            await super()._connect(connection)

    async def scenario() -> None:
        app = App({"none": Model("none", Settings())}, {}, Settings())
        listener = listen("127.0.0.1", 0)
        process = Noted(app, listener, lambda: None)
        process._freed = asyncio.Event()
        process._accept()
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        await reader.read()
        writer.close()
        process._accept(False)
        listener.close()

    asyncio.run(scenario())
    assert held == [1]


def test_requests_in_a_row_are_answered_in_order(server: ServeProcess) -> None:
    with closing(server.connect()) as connection:
        connection.sendall(request(PATH, BODY, X_Request_Id="one") + request(PATH, BODY, X_Request_Id="two"))
        data = b""
        while data.count(b'"usage"') < 2:
            data += connection.recv(65536)
    assert re.findall(rb"x-request-id: (\w+)", data) == [b"one", b"two"]


def test_what_follows_a_request_does_not_end_it(server: ServeProcess) -> None:
    with closing(server.connect()) as connection:
        connection.sendall(request(PATH, {"input": ["the cat sat"] * 1000, "model": "tiny"}) + b"\r\n")
        assert one_answer(connection)[0] == 200
        connection.sendall(request(PATH, BODY))
        assert one_answer(connection)[0] == 200


def test_a_body_in_pieces(server: ServeProcess) -> None:
    whole = request(PATH, {"input": ["a cat"] * 500, "model": "tiny"}, Connection="close")
    with closing(server.connect()) as connection:
        for start in range(0, len(whole), 1000):
            connection.sendall(whole[start : start + 1000])
        status, _, found = parsed(until_closed(connection))
    assert (status, len(found["data"])) == (200, 500)
    body = json.dumps(BODY).encode()
    chunks = b"".join(b"%x\r\n%b\r\n" % (1, body[i : i + 1]) for i in range(len(body))) + b"0\r\n\r\n"
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    assert parsed(server.raw(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks))[0] == 200


def test_expect_continue(server: ServeProcess) -> None:
    whole = request(PATH, BODY, Expect="100-continue", Connection="close")
    head, _, body = whole.partition(b"\r\n\r\n")
    with closing(server.connect()) as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        connection.sendall(body)
        assert parsed(until_closed(connection))[0] == 200


def test_silence_half_a_header_and_half_a_body_end(hasty: ServeProcess) -> None:
    assert hung(b"", hasty) == b""
    for half in (b"P", b"POST /v1/embeddings HTTP/1.1\r\nHost: loc"):
        status, headers, found = parsed(hung(half, hasty))
        assert (status, found["error"]["code"], headers["connection"]) == (408, "body_timeout", "close")
    status, _, found = parsed(hung(request(PATH, BODY)[:-3], hasty))
    assert (status, found["error"]["code"]) == (408, "body_timeout")


def test_a_header_that_drips_ends(hasty: ServeProcess) -> None:
    with closing(hasty.connect()) as connection:
        stop = threading.Event()

        def drip() -> None:
            connection.sendall(b"GET /health HTTP/1.1\r\n")
            while not stop.wait(0.05):
                try:
                    connection.sendall(b"x: y\r\n")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        assert parsed(until_closed(connection))[0] == 408
        stop.set()
        thread.join(SOON)


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        (b"GET /health HTTP/1.1\r\n\r\n", 400, "bad_value"),  # no Host
        (b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "bad_value"),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nx: " + b"y" * (1 << 20) + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET /" + b"y" * (1 << 20) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431, "headers_too_large"),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"x: y\r\n" * 5000 + b"\r\n", 431, "headers_too_large"),
        (b"nonsense\r\n\r\n", 400, "bad_value"),
        (b"GET /health HTTP/9.9\r\n\r\n", 400, "bad_value"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "bad_value"),  # TLS
        (b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400, "bad_value"),
        (b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400, "bad_value"),
        (
            b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "bad_value",
        ),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nx : y\r\n\r\n", 400, "bad_value"),
        (b"GET /health HTTP/1.1\nHost: localhost\n\n", 400, "bad_value"),
    ],
)
def test_headers_that_nobody_should_send(server: ServeProcess, head: bytes, status: int, code: str) -> None:
    found = parsed(server.raw(head))
    assert (found[0], found[2]["error"]["code"]) == (status, code)
    assert found[1]["connection"] == "close"
    assert found[1]["server"] == "trivec"


def test_a_body_that_is_too_large_is_refused_while_it_comes(server: ServeProcess) -> None:
    large = request(PATH, b"x" * (3 << 20))
    status, headers, found = parsed(server.raw(large))
    assert (status, found["error"]["code"], headers["connection"]) == (413, "body_too_large", "close")
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    chunk = b"%x\r\n%b\r\n" % (1 << 16, b"x" * (1 << 16))
    assert parsed(server.raw(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 32))[0] == 413


def test_head_and_http_1_0(server: ServeProcess, hasty: ServeProcess) -> None:
    data = server.raw(b"HEAD /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert data.startswith(b"HTTP/1.1 200")
    assert data.endswith(b"\r\n\r\n")
    assert server.raw(b"GET /health HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")
    upgrade = b"GET /health HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    assert hung(upgrade, hasty).startswith(b"HTTP/1.1 200")


def test_afterwards_the_vectors_are_the_same(hasty: ServeProcess) -> None:
    first = hasty.post(PATH, BODY)[2]["data"]
    for start in range(0, 200, 7):
        hasty.raw(request(PATH, BODY)[start:])
    assert hasty.post(PATH, BODY)[2]["data"] == first
    assert hasty.process.poll() is None


# ---- its life --------------------------------------------------------------------------------------------------------


def test_sigterm_lets_answers_out_and_ends(folders: dict[str, Path]) -> None:
    with ServeProcess(f"tiny={folders['tiny']}") as server:
        idle, half, quarter = server.connect(), server.connect(), server.connect()
        idle.sendall(request(PATH, BODY))
        assert one_answer(idle)[0] == 200
        half.sendall(request(PATH, BODY)[:-3])
        quarter.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: loc")
        many = [server.connect() for _ in range(20)]
        for connection in many:
            connection.sendall(request(PATH, {"input": ["the cat sat on the mat"] * 500, "model": "tiny"}))
        server.process.send_signal(signal.SIGTERM)
        for connection in many:  # answered whole, or told to ask elsewhere: nothing is reset
            status, headers, found = parsed(until_closed(connection))
            assert status in (200, 503)
            assert status == 200 or headers["connection"] == "close"
            assert len(found["data"]) == 500 if status == 200 else found["error"]["code"] == "draining"
        for connection in (half, quarter):
            status, headers, found = parsed(until_closed(connection))
            assert (status, found["error"]["code"], headers["retry-after"]) == (503, "draining", "1")
        assert until_closed(idle) == b""
        for connection in (idle, half, quarter, *many):
            connection.close()
        assert server.status() == 0
        assert "drained" in "".join(server.lines)
        with pytest.raises(ConnectionRefusedError):
            server.connect()


def test_a_drain_delay_serves_on(folders: dict[str, Path]) -> None:
    with ServeProcess(f"tiny={folders['tiny']}", "--drain-delay", "4") as server:
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("draining")
        assert parsed(server.raw(b"GET /health/ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))[0] == 503
        assert parsed(server.raw(b"GET /health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))[0] == 200
        with closing(server.connect()) as connection:
            connection.sendall(request(PATH, BODY))
            assert one_answer(connection)[:1] == (200,)
            assert until_closed(connection) == b""
        assert server.status() == 0


def test_a_second_signal_ends_it_at_once(folders: dict[str, Path]) -> None:
    with ServeProcess(f"tiny={folders['tiny']}", "--drain-delay", "60") as server:
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("draining")
        assert server.end(signal.SIGTERM) == 143
    with ServeProcess(f"tiny={folders['tiny']}", "--drain-delay", "60") as server:
        server.process.send_signal(signal.SIGINT)
        server.wait_for("draining")
        assert server.end(signal.SIGINT) == 130


def test_more_connections_than_allowed_wait(folders: dict[str, Path]) -> None:
    with ServeProcess(f"tiny={folders['tiny']}", "--max-connections", "2") as server:
        first, second = server.connect(), server.connect()
        for connection in (first, second):
            connection.sendall(request(PATH, BODY))
            assert one_answer(connection)[0] == 200
        third = server.connect()
        third.sendall(request(PATH, BODY))
        third.settimeout(0.3)
        with pytest.raises(TimeoutError):
            third.recv(1)
        first.close()
        third.settimeout(SOON)
        assert one_answer(third)[0] == 200
        second.close()
        third.close()


def test_whoever_waits_gets_the_connection_that_was_kept_longest(folders: dict[str, Path]) -> None:
    """Pools of clients keep connections for minutes, and the rest of the world would wait as long."""
    with ServeProcess(f"tiny={folders['tiny']}", "--max-connections", "2", "--keep-alive", "600") as server:
        first, second = server.connect(), server.connect()
        for connection in (first, second):
            connection.sendall(request(PATH, BODY))
            assert one_answer(connection)[0] == 200
        third = server.connect()
        third.sendall(request(PATH, BODY))
        third.settimeout(SOON)
        assert one_answer(third)[0] == 200
        assert until_closed(first) == b""
        second.sendall(request(PATH, BODY))
        assert one_answer(second)[0] == 200
        for connection in (first, second, third):
            connection.close()


def test_busy_clients_are_told_that_their_connection_ends(folders: dict[str, Path]) -> None:
    """A connection that is in use ends with an answer that says so, and no request is lost."""
    said: list[bytes] = []

    def ask_on(port: int) -> None:
        for _ in range(20):
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=SOON)) as connection:
                for _ in range(50):
                    connection.request("POST", PATH, json.dumps(BODY), {"Content-Type": "application/json"})
                    answer = connection.getresponse()
                    said.append(str(answer.status).encode())
                    answer.read()
                    if answer.getheader("Connection") == "close":
                        break

    with ServeProcess(f"tiny={folders['tiny']}", "--max-connections", "2") as server:
        callers = [threading.Thread(target=ask_on, args=(server.port,)) for _ in range(6)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert len(said) >= 6 * 20
    assert set(said) == {b"200"}


def test_what_cannot_be_opened_is_told(folders: dict[str, Path], tmp_path: Path) -> None:
    with ServeProcess(f"tiny={folders['tiny']}", f"no={tmp_path}", ready=False) as server:
        assert server.status() == 1
        assert "trivec: error:" in "".join(server.lines)


def test_a_port_that_is_taken(folders: dict[str, Path]) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "trivec", "serve", f"tiny={folders['tiny']}", "--port", port],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    assert done.returncode == 3
    assert f"port {port} of 127.0.0.1 is taken" in done.stderr


def test_it_listens_before_its_models_are_open(folders: dict[str, Path], tmp_path: Path) -> None:
    """A model that is a pipe is never open, and SIGTERM still ends the process."""
    folder = tmp_path / "slow"
    folder.mkdir()
    code = (
        "import sys, threading, trivec._load as load\n"
        "import trivec._cli.main as main\n"
        "load.load = lambda **_: threading.Event().wait()\n"
        "sys.exit(main.main(['serve', 'slow=x', '--port', '0']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    port = int(re.search(r"http://127.0.0.1:(\d+)", process.stderr.readline())[1])  # type: ignore[index]
    answers = {}
    for path in ("/health/live", "/health/ready", "/health"):
        with closing(socket.create_connection(("127.0.0.1", port), timeout=SOON)) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
            answers[path] = parsed(until_closed(connection))[0]
    assert answers == {"/health/live": 200, "/health/ready": 503, "/health": 503}
    with closing(socket.create_connection(("127.0.0.1", port), timeout=SOON)) as connection:
        connection.sendall(request(PATH, BODY, Connection="close"))
        status, headers, found = parsed(until_closed(connection))
    assert (status, found["error"]["code"], headers["retry-after"]) == (503, "loading", "1")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=SOON)
    assert process.returncode == 0


def test_systemd_is_told(folders: dict[str, Path], tmp_path: Path) -> None:
    path = os.path.relpath(tmp_path / "notify")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as told:
        told.bind(path)
        told.settimeout(SOON)
        with ServeProcess(f"tiny={folders['tiny']}", environment={"NOTIFY_SOCKET": path}) as server:
            assert told.recv(100) == b"READY=1"
            assert server.end() == 0
            assert told.recv(100) == b"STOPPING=1"


def test_log_lines(folders: dict[str, Path]) -> None:
    arguments = (f"tiny={folders['tiny']}", "--log-format", "json")
    with ServeProcess(*arguments, environment={"TRIVEC_API_KEY": "sk-secret"}) as server:
        answer = server.post(PATH, BODY, Authorization="Bearer sk-secret", X_Request_Id="the-id")
        assert answer[0] == 200
        server.end()
        lines = [json.loads(line) for line in server.lines]
    line = next(line for line in lines if line.get("id") == "the-id")
    assert (line["route"], line["model"], line["status"]) == (PATH, "tiny", 200)
    assert (line["texts"], line["tokens"], line["key"]) == (1, 4, "TRIVEC_API_KEY")
    assert line["out"] > 0
    assert "sk-secret" not in "".join(server.lines)
    assert "a cat" not in "".join(server.lines)
    assert any(str(line.get("message")).startswith("model tiny: ") for line in lines)
