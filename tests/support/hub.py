"""A small server on loopback that answers as the Hub does, and logs what it is asked; `hub` is a fixture."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

Files = dict[str, bytes]


@dataclass
class Repository:
    """Commits (their files by path), and which of them a branch or tag is."""

    commits: dict[str, Files] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: int = 0
    """The status with which files are refused; 0: they are not."""

    def commit(self, files: Files, ref: str = "main") -> str:
        sha = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits[sha], self.refs[ref] = files, sha
        return sha


class Hub:
    """The server: its repositories, its log, and what it does at a request before it answers."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.log: list[str] = []
        self.status = 0
        """The status with which every request is refused; 0: none is."""
        self.before: Callable[[str], None] = lambda _: None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def add(self, name: str, files: Files) -> Repository:
        self.repositories[name] = Repository()
        self.repositories[name].commit(files)
        return self.repositories[name]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        close_session()

    def files(self) -> list[str]:
        """The paths whose content was sent, in order."""
        return [line.split("/resolve/")[1].partition("/")[2] for line in self.log if line.startswith("GET /lab")]

    def revisions(self) -> set[str]:
        """The revisions under which files were asked for."""
        return {line.split("/resolve/")[1].split("/")[0] for line in self.log if "/resolve/" in line}

    def _answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for a request."""
        if self.status:
            return self.status, {}, b"trouble"
        parts = [unquote(part) for part in path.strip("/").split("/")]
        api = parts[:2] == ["api", "models"]
        split = "revision" if api else "resolve"
        name = "/".join(parts[2 * api : parts.index(split)] if split in parts else parts[2:])
        repository = self.repositories.get(name)
        if repository is None:
            return 401, {"X-Error-Code": "RepoNotFound"}, b""
        wanted, *rest = parts[parts.index(split) + 1 :] if split in parts else ["main"]
        sha = repository.refs.get(wanted, wanted)
        if sha not in repository.commits:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        files = repository.commits[sha]
        if api:
            siblings = [{"rfilename": file} for file in files]
            return 200, {}, json.dumps({"id": name, "modelId": name, "sha": sha, "siblings": siblings}).encode()
        headers = {"X-Repo-Commit": sha}
        if repository.gated:
            return repository.gated, {**headers, "X-Error-Code": "GatedRepo"}, b""
        content = files.get("/".join(rest))
        if content is None:
            return 404, {**headers, "X-Error-Code": "EntryNotFound"}, b""
        return 200, {**headers, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}, content

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = urlsplit(self.path).path
                if path == "/api/agent-harnesses":  # the client's own statistics, of no model
                    status, headers, body = 404, dict[str, str](), b""
                else:
                    hub.log.append(f"{self.command} {path}")
                    hub.before(f"{self.command} {path}")
                    status, headers, body = hub._answer(path)
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815 - http.server's name

            def log_message(self, *_: object) -> None:
                """Silence on stderr."""

        return Handler


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A server that huggingface_hub asks in this process, as if HF_ENDPOINT had named it."""
    server = Hub()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    close_session()
    yield server
    server.stop()


def files_of(folder: Path) -> Files:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
