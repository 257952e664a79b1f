"""What scripts/serve has for systemd and Kubernetes, read by their tools where these are, and held to the server."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Any

from yaml import safe_load

ROOT = Path(__file__).resolve().parents[3]
SERVE = ROOT / "scripts/serve"
GOLDEN = ROOT / "tests/golden/dense"


def _unit() -> ConfigParser:
    found = ConfigParser(interpolation=None)
    found.read(SERVE / "trivec.service", encoding="utf-8")
    return found


def test_the_unit_starts_says_when_and_ends(tmp_path: Path) -> None:
    """Its ExecStart, with our paths: READY=1 comes once models are open, STOPPING=1 after SIGTERM, and 0 at the end."""
    service = _unit()["Service"]
    assert service["Type"] == "notify"
    (tmp_path / "keys").write_text("somebody:a-key\n", encoding="utf-8")
    words = shlex.split(service["ExecStart"].replace("${CREDENTIALS_DIRECTORY}", str(tmp_path)))
    assert words[:2] == ["/opt/trivec/bin/trivec", "serve"]
    assert words[-1] == "minilm=/var/lib/trivec/minilm"
    command = [sys.executable, "-m", "trivec", *words[1:-1], f"minilm={GOLDEN}", "--port", "0"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(60)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "TRIVEC_OFFLINE": "1"}
        server = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        try:
            assert notified.recv(100) == b"READY=1"
        finally:
            server.send_signal(signal.SIGTERM)
        assert notified.recv(100) == b"STOPPING=1"
        assert server.wait(600) == 0
    drain = float(_printed([*words[2:-1], f"minilm={GOLDEN}"], tmp_path)["limits"]["drain_timeout"])
    assert float(service["TimeoutStopSec"]) > drain


def test_systemd_reads_the_unit(tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:  # the file is run above
        return
    text = (SERVE / "trivec.service").read_text(encoding="utf-8")
    unit = tmp_path / "trivec.service"
    unit.write_text(text.replace("/opt/trivec/bin/trivec", sys.executable), encoding="utf-8")  # it must be there
    done = subprocess.run([tool, "verify", str(unit)], capture_output=True, text=True, timeout=600, check=False)
    assert [line for line in done.stderr.splitlines() if "trivec.service" in line] == []


def test_kubernetes_asks_what_there_is(tmp_path: Path) -> None:
    spec = safe_load((SERVE / "kubernetes.yaml").read_text(encoding="utf-8"))["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    config = _printed(["--host", "0.0.0.0", *container["args"]], tmp_path, TRIVEC_API_KEY="a-key")
    limits = config["limits"]
    assert spec["terminationGracePeriodSeconds"] > limits["drain_delay"] + limits["drain_timeout"]
    assert container["ports"] == [{"name": "http", "containerPort": config["port"]}]
    assert config["models"]["minilm"]["name_or_folder"].startswith(container["volumeMounts"][0]["mountPath"])
    readme = (ROOT / "runtime/trivec/server/README.md").read_text(encoding="utf-8")
    for probe, path in (("startup", "live"), ("liveness", "live"), ("readiness", "ready")):
        asked = container[f"{probe}Probe"]["httpGet"]
        assert asked == {"path": f"/health/{path}", "port": "http"}
        assert asked["path"] in readme
    assert spec["enableServiceLinks"] is False  # TRIVEC_PORT=tcp://... would be taken for the flag


def _printed(arguments: list[str], folder: Path, **environment: str) -> Any:
    """What `trivec serve` says is in force."""
    command = [sys.executable, "-m", "trivec", "serve", *arguments, "--print-config"]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not re.search("a-key", done.stdout)
    return safe_load(done.stdout)
