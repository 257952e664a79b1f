"""`trivec serve`: flags, variables, keys, and what is refused before anything is opened."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import trivec
from trivec._cli.main import main

MODEL = "tiny=/models/tiny"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TRIVEC_") and name != "TRIVEC_HOME"]:
        monkeypatch.delenv(name)


def config(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main(["serve", *arguments, "--print-config"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["serve", *arguments]) == 2
    return capsys.readouterr().err


def test_what_is_in_force(capsys: pytest.CaptureFixture[str]) -> None:
    found = config(capsys, MODEL, "/models/other", "org/name")
    assert list(found["models"]) == ["tiny", "other", "name"]
    assert found["models"]["name"]["name_or_folder"] == "org/name"
    assert (found["host"], found["port"]) == ("127.0.0.1", 8080)
    limits = found["limits"]
    assert (limits["max_texts"], limits["max_body"], limits["max_request_tokens"]) == (2048, 16 << 20, 300_000)
    assert (limits["max_wait"], limits["timeout"], limits["drain_timeout"]) == (30.0, 120.0, 25.0)
    assert limits["max_batch_tokens"] is None
    assert limits["keys"] == []


def test_flags(capsys: pytest.CaptureFixture[str]) -> None:
    flags = (
        "--max-body=1MB --max-wait=0.5s --timeout=7 --max-batch-tokens=4096 --on-overflow=error --token-ids=own "
        "--no-ui --precision=int8 --alias=a=tiny --root-path=/x"
    )
    found = config(capsys, MODEL, *flags.split())
    limits = found["limits"]
    assert (limits["max_body"], limits["max_wait"], limits["timeout"]) == (1_000_000, 0.5, 7.0)
    assert (limits["max_batch_tokens"], limits["on_overflow"], limits["token_ids"]) == (4096, "error", "own")
    assert limits["ui"] is False
    assert found["models"]["tiny"]["precision"] == "int8"
    assert found["aliases"] == {"a": "tiny"}


def test_options_of_one_model(capsys: pytest.CaptureFixture[str]) -> None:
    own = ("tiny.precision=int8", "tiny.threads=2", "tiny.providers=CPUExecutionProvider")
    found = config(capsys, MODEL, "other=/models/o", *own)["models"]
    assert (found["tiny"]["precision"], found["tiny"]["threads"]) == ("int8", 2)
    assert found["tiny"]["providers"] == ["CPUExecutionProvider"]
    assert (found["other"]["precision"], found["other"]["threads"]) == ("auto", None)


def test_every_flag_is_a_variable(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "HOST": "localhost",
        "PORT": "9000",
        "MAX_WAIT": "3s",
        "MAX_BODY": "2MiB",
        "ON_OVERFLOW": "error",
        "NO_UI": "1",
        "ALIAS": "a=tiny, b=tiny",
        "ALLOW_HOST": "embed.svc",
        "LOG_FORMAT": "json",
        "MAX_BATCH_TOKENS": "auto",
    }
    for name, value in values.items():
        monkeypatch.setenv(f"TRIVEC_{name}", value)
    found = config(capsys, MODEL, "--port", "9001")
    assert (found["host"], found["port"], found["log"]["format"]) == ("localhost", 9001, "json")
    limits = found["limits"]
    assert (limits["max_wait"], limits["max_body"], limits["on_overflow"]) == (3.0, 2 << 20, "error")
    assert limits["ui"] is False
    assert limits["allow_hosts"] == ["embed.svc"]
    assert found["aliases"] == {"a": "tiny", "b": "tiny"}


def test_a_wrong_variable_is_refused_as_a_flag_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIVEC_MAX_WAIT", "soon")
    with pytest.raises(SystemExit) as ended:
        main(["serve", MODEL])
    assert ended.value.code == 2
    assert "argument --max-wait: expected seconds" in capsys.readouterr().err
    monkeypatch.delenv("TRIVEC_MAX_WAIT")
    monkeypatch.setenv("TRIVEC_ON_OVERFLOW", "ignore")
    assert "on_overflow 'ignore' is not one of truncate, error" in refused(capsys, MODEL)
    monkeypatch.delenv("TRIVEC_ON_OVERFLOW")
    monkeypatch.setenv("TRIVEC_PORT", "tcp://10.0.0.1:80")  # what Kubernetes says of a service called trivec
    assert config(capsys, MODEL)["port"] == 8080


def test_keys(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\nalice:sk-one\n\nsk-two\n", encoding="utf-8")
    monkeypatch.setenv("TRIVEC_API_KEY", "sk-three")
    assert main(["serve", MODEL, "--api-key-file", str(file), "--host", "0.0.0.0", "--print-config"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out)["limits"]["keys"] == ["TRIVEC_API_KEY", "alice", "line 4"]
    assert "sk-" not in out
    limits = json.loads(out)["limits"]
    assert limits["allow_hosts"] == ["*"]
    assert limits["open_metrics"] is False
    file.write_text("# none\n", encoding="utf-8")
    assert "has no key" in refused(capsys, MODEL, "--api-key-file", str(file))
    assert "cannot be read" in refused(capsys, MODEL, "--api-key-file", str(tmp_path / "no"))
    file.write_text("a:with blank", encoding="utf-8")
    said = refused(capsys, MODEL, "--api-key-file", str(file))
    assert "printable ASCII" in said
    assert "with blank" not in said


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "embed.example"])
def test_beyond_loopback_a_key_is_needed(capsys: pytest.CaptureFixture[str], host: str) -> None:
    assert "can be reached from elsewhere, and there is no key" in refused(capsys, MODEL, "--host", host)
    assert config(capsys, MODEL, "--host", host, "--insecure")["limits"]["allow_hosts"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("x.precision=int8", MODEL), "there is no model 'x'"),
        ((MODEL, MODEL), "two models are called 'tiny'"),
        (("=x",), "names no model"),
        (("tiny.threads=two", MODEL), "must be a whole number"),
        ((MODEL, "--alias", "x"), "expected A=NAME"),
        ((MODEL, "--alias", "a=no"), "there is no model 'no'"),
        ((MODEL, "--cors-origin", "*"), "say --insecure"),
        ((MODEL, "--allow-host", "*"), "say --insecure"),
        ((MODEL, "--max-texts", "0"), "max_texts must be above 0"),
    ],
)
def test_what_cannot_be(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(capsys, *arguments)


@pytest.mark.parametrize("flags", [(), ("--port", "x"), ("--max-body", "1XB"), ("--max-wait", "-1"), ("--threads", "")])
def test_what_argparse_refuses(flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", *([MODEL] if flags else []), *flags])
    assert ended.value.code == 2
    capsys.readouterr()


def test_a_missing_extra_is_told() -> None:
    code = "import sys; sys.modules['msgspec'] = None; from trivec._cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "serve", MODEL],
        env={**os.environ, "PYTHONPATH": str(Path(trivec.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 1
    assert 'Type: pip install "trivec[serve]"' in done.stderr
