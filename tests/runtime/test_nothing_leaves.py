"""What a process asks of the network, and which files it makes, while it opens a local folder and encodes."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.static_models import model2vec_folder
from tests.support.tiny_heads import hybrid, random_logits, random_weights, splade
from tests.support.tiny_model import TinyModel

import trivec

OFF = "ORT_DISABLE_TELEMETRY"
CALLS = "socket,connect,sendto,sendmsg,sendmmsg,open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat"
LOOKED_UP = r"AF_(INET|NETLINK)|/etc/(resolv\.conf|hosts)\"|/resolve/"
WATCH = """
import os, sys

LOOKS = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo")

def watch(event, arguments):
    if event in LOOKS or (event == "socket.__new__" and arguments[1] != 1):  # 1: AF_UNIX, of multiprocessing
        os.write(3, f"{event} {arguments[event not in LOOKS:]}\\n".encode())

sys.addaudithook(watch)
"""
LOAD = "import trivec; encoder = trivec.load(sys.argv[1], device='cpu', threads=1); "
ENCODE = LOAD + "encoder.encode(['a cat', 'the dog']); encoder.encode('one')"
POOL = LOAD + "assert encoder.encode(['a cat', 'the dog'], device=['cpu', 'cpu']).shape == (2, 12)"
COMMAND = "from trivec._cli.main import main; assert main({}) == 0"
SIMILARITY = COMMAND.format("['similarity', sys.argv[1], 'a cat', 'the dog', '--threads', '1']")
ENCODED = COMMAND.format("['encode', sys.argv[1], sys.argv[1] + '/texts.txt', '-o', 'made.npy', '--threads', '1']")
VERIFY = COMMAND.format("['verify', sys.argv[1], '--device', 'cpu', '--threads', '1']")
DOCTOR = COMMAND.format("['doctor', sys.argv[1]]")
INFO = COMMAND.format("['info', sys.argv[1]]")


def traced(code: str, folder: Path, work: Path) -> tuple[list[str], list[str]]:
    """What a script asked of the network, and the files and folders that it left; `work` is all that it has.

    Python's own sockets tell on themselves. Where there is strace, and it may trace, what native code does is seen too.
    """
    here = {name: work / name for name in ("home", "cache", "temporary", "trivec", "cwd")}
    for place in here.values():
        place.mkdir(parents=True)
    places = {"HOME": here["home"], "XDG_CACHE_HOME": here["cache"], "TMPDIR": here["temporary"]}
    environment = {name: value for name, value in os.environ.items() if name not in (OFF, "HF_HUB_OFFLINE", "HF_HOME")}
    environment |= {name: str(path) for name, path in {**places, "TRIVEC_HOME": here["trivec"]}.items()}
    environment |= {"PYTHONPATH": str(Path(trivec.__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": "1"}
    trace, told = work / "trace", work / "told"
    script = f"{WATCH}\nif __name__ == '__main__':\n    {code}\n"
    (work / "script.py").write_text(script, encoding="utf-8")
    command = [*_strace(trace), sys.executable, str(work / "script.py"), str(folder)]
    with told.open("wb") as stream:
        done = subprocess.run(
            ["bash", "-c", f'exec "$@" 3>&{stream.fileno()}', "-", *command],
            pass_fds=[stream.fileno()],
            cwd=here["cwd"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    network, made = told.read_text().splitlines(), []
    for line in trace.read_text(errors="replace").splitlines() if trace.exists() else ():
        call, failed = line.partition(" ")[2].lstrip(), " = -1 " in line
        if re.search(LOOKED_UP, call):
            network.append(call)
        if re.match(r"creat|mkdir|rename|link", call) or "O_CREAT" in call:
            paths = re.findall(r'"(/[^"]*)"', call)
            if not failed and not all(path.startswith((str(work), "/dev/")) for path in paths):
                made.append(call)
    made += [str(path) for name in ("home", "cache", "temporary") for path in here[name].rglob("*")]
    return network, [*made, *(str(path) for path in here["cwd"].rglob("*") if path.name != "made.npy")]


def _strace(trace: Path) -> list[str]:
    """The words before a command that is to be traced; none where nothing can be."""
    words = ["strace", "-f", "-qq", "-e", f"trace={CALLS}", "-e", "signal=none", "-o"]
    if shutil.which("strace") is None:
        return []
    tried = subprocess.run([*words, str(trace), "true"], capture_output=True, check=False)
    return [*words, str(trace)] if tried.returncode == 0 else []


@pytest.fixture(scope="module")
def folders(tiny_model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of each kind, and texts beside it."""
    base = tmp_path_factory.mktemp("folders")
    shutil.copytree(tiny_model.folder, base / "dense")
    splade(base / "sparse", tiny_model, random_logits(), random_weights())
    hybrid(base / "hybrid", tiny_model)
    model2vec_folder(base / "static")
    for folder in base.iterdir():
        (folder / "texts.txt").write_text("a cat\nthe dog\n", encoding="utf-8")
    return {folder.name: folder for folder in base.iterdir()}


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        *((kind, ENCODE) for kind in ("dense", "sparse", "hybrid", "static")),
        *(
            (kind, ENCODE.replace("threads=1", "threads=2, engine='openvino'"))
            for kind in ("dense", "sparse", "hybrid")
        ),
        ("dense", POOL),
        *(("dense", code) for code in (SIMILARITY, ENCODED, VERIFY, DOCTOR, INFO)),
    ],
)
def test_a_local_folder(folders: dict[str, Path], tmp_path: Path, kind: str, code: str) -> None:
    assert traced(code, folders[kind], tmp_path / "work") == ([], [])


def test_the_exporter_and_the_benchmarks(tmp_path: Path, folders: dict[str, Path]) -> None:
    root = Path(__file__).parents[2]
    code = f"sys.path[:0] = [{str(root)!r}, {str(root / 'export')!r}]; import benchmarks, onnxruntime"
    assert traced(code, folders["dense"], tmp_path / "benchmarks") == ([], [])
    code = code.replace("benchmarks, onnxruntime", "trivec_export, trivec_export._graph.run")
    assert traced(code, folders["dense"], tmp_path / "export") == ([], [])


def test_what_is_done_is_seen(tmp_path: Path, folders: dict[str, Path]) -> None:
    code = "import socket; socket.getaddrinfo('localhost', 80); open(os.environ['HOME'] + '/diary', 'w')"
    network, made = traced(code, folders["dense"], tmp_path / "work")
    assert any("localhost" in call for call in network)
    assert [Path(path).name for path in made] == ["diary"]


def test_a_value_of_the_users_own_wins(tmp_path: Path, folders: dict[str, Path]) -> None:
    code = (
        f"os.environ[{OFF!r}] = '0'; import onnxruntime; said = []; "
        f"onnxruntime.disable_telemetry_events = lambda: said.append(1); {ENCODE}; "
        f"assert said == [] and os.environ[{OFF!r}] == '0'"
    )
    traced(code, folders["dense"], tmp_path / "work")  # whether its diary is there when a process ends is chance


def test_an_onnxruntime_that_was_imported_before_is_told_to_stop(tmp_path: Path, folders: dict[str, Path]) -> None:
    code = (
        "import onnxruntime; said = []; onnxruntime.disable_telemetry_events = lambda: said.append(1); "
        f"{ENCODE}; assert said == [1] and os.environ[{OFF!r}] == '1'"
    )
    traced(code, folders["dense"], tmp_path / "work")
