"""What a wheel brings beside its code: licences, an SBOM, and metadata that are true where an index shows them."""

import contextlib
import email
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
import zipfile
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from tests.support.images import Image

import trivec

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ADDRESS = "https://code.example.org/somebody/trivec"
INFO = f"trivec-{trivec.__version__}.dist-info"


class Wheel:
    """The files of a wheel, by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with zipfile.ZipFile(path) as archive:
            self.files = {name: archive.read(name) for name in archive.namelist()}

    def text(self, name: str) -> str:
        return self.files[f"{INFO}/{name}"].decode()

    @property
    def metadata(self) -> Message:
        return email.message_from_string(self.text("METADATA"))

    @property
    def readme(self) -> str:
        return self.text("METADATA").partition("\n\n")[2]

    @property
    def sbom(self) -> Any:
        return json.loads(self.text("sboms/trivec.cdx.json"))


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Wheel, Wheel]:
    """Built with the address of a repository, and without."""
    base = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(base / "tools")]
    subprocess.run([*pip, "--constraint", str(ROOT / "scripts/constraints.in"), "hatchling"], check=True, timeout=1800)
    return _built(base, ADDRESS), _built(base, "")


def _built(base: Path, address: str) -> Wheel:
    source = base / (address.rpartition("/")[2] or "nowhere")
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("runtime", "export", "scripts"):
        shutil.copytree(ROOT / name, source / name, ignore=unwanted)
    for name in ("README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, source)
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    text, count = re.subn(r'^repository = ".*"$', f'repository = "{address}"', text, flags=re.MULTILINE)
    assert count == 1
    (source / "pyproject.toml").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(source / "dist")]
    environment = {**os.environ, "PYTHONPATH": str(base / "tools")}
    done = subprocess.run(
        command, cwd=source, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return Wheel(next((source / "dist").glob("*.whl")))


def test_licences_are_in_the_wheel(wheels: tuple[Wheel, Wheel]) -> None:
    named = wheels[0].metadata.get_all("License-File")
    assert named == ["LICENSE", "runtime/NOTICE", "runtime/THIRD-PARTY"]
    for name in named:
        assert wheels[0].text(f"licenses/{name}") == (ROOT / name).read_text(encoding="utf-8")


def test_whatever_is_no_code_says_where_it_comes_from(wheels: tuple[Wheel, Wheel]) -> None:
    head, *texts = re.split(r"\n=+\n", wheels[0].text("licenses/runtime/THIRD-PARTY"))
    named = {name.partition("/")[2] for name in re.findall(r"(?:runtime|export)/trivec\S+", head)}
    ours = (".py", "/py.typed", ".html", ".css", ".js")
    data = {name for name in wheels[0].files if not name.endswith(ours) and not name.startswith(INFO)}
    assert len(data) >= 5
    assert data <= named <= wheels[0].files.keys()
    licences = {one for line in re.findall(r"^License: (.+)$", head, flags=re.MULTILINE) for one in line.split(" AND ")}
    assert licences == set(wheels[0].metadata["License-Expression"].split(" AND "))
    titles = texts[::2]
    for licence in licences:
        assert sum(title.split()[0] == licence for title in titles) == 1, licence
    assert "Redistributions in binary form must reproduce" in texts[titles.index("BSD-3-Clause (Snowball)") * 2 + 1]


def test_the_sbom_names_what_is_bundled_and_what_is_asked_for(wheels: tuple[Wheel, Wheel]) -> None:
    wheel = wheels[0]
    sbom = wheel.sbom
    assert (sbom["bomFormat"], sbom["specVersion"]) == ("CycloneDX", "1.6")
    assert sbom["metadata"]["component"]["purl"] == f"pkg:pypi/trivec@{trivec.__version__}"
    assert f"{INFO}/sboms/trivec.cdx.json,sha256=" in wheel.text("RECORD")
    bundled = {part["name"]: part for part in sbom["components"] if part["bom-ref"].startswith("bundled:")}
    assert {"punkt-english", "snowball-stopwords", "gate-texts", "nltk"} <= bundled.keys()
    for part in bundled.values():
        assert part["components"]
        for file in part["components"]:
            assert file["hashes"][0]["content"] == hashlib.sha256(wheel.files[file["name"]]).hexdigest()
    required = [part for part in sbom["components"] if part["bom-ref"].startswith("required:")]
    needs = [re.split(r"[\[><=!; ]", line)[0] for line in wheel.metadata.get_all("Requires-Dist", [])]
    assert sorted(part["name"].replace("_", "-") for part in required) == sorted(needs)
    refs = [part["bom-ref"] for part in sbom["components"]]
    assert len(set(refs)) == len(refs)
    assert set(sbom["dependencies"][0]["dependsOn"]) <= set(refs)
    assert wheels[1].text("sboms/trivec.cdx.json") == wheel.text("sboms/trivec.cdx.json")  # no date, no random number


def test_links_and_urls_lead_to_this_version(wheels: tuple[Wheel, Wheel]) -> None:
    wheel = wheels[0]
    start = f"{ADDRESS}/blob/v{trivec.__version__}/"
    links = re.findall(r"\]\(([^)\s]+)\)", wheel.readme)
    assert len(links) == len(re.findall(r"\]\(([^)\s]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))) > 15
    for link in links:
        assert link.startswith(("https://", "#")), link
        if link.startswith(ADDRESS):
            assert (ROOT / link.removeprefix(start).partition("#")[0]).is_file(), link
    urls = dict(line.split(", ") for line in wheel.metadata.get_all("Project-URL", []))
    assert urls.keys() == {"Repository", "Documentation", "Changelog", "Issues"}
    assert urls["Repository"] == ADDRESS
    for name in ("Documentation", "Changelog"):
        assert (ROOT / urls[name].removeprefix(start)).is_file()


def test_without_an_address_no_link_leads_nowhere(wheels: tuple[Wheel, Wheel]) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", wheels[1].readme)
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
    assert wheels[1].metadata.get_all("Project-URL") is None
    assert "\nCONTRIBUTING. SECURITY says what is trusted" in wheels[1].readme


def test_classifiers_say_what_is_tested() -> None:
    matrix = re.search(r"python: \[(.+)\]", (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert matrix is not None
    tested = [version.strip(' "') for version in matrix[1].split(",")]
    said = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if ":: Python ::" in line]
    assert said == tested
    systems = [line for line in PROJECT["classifiers"] if line.startswith("Operating System")]
    assert systems == ["Operating System :: POSIX :: Linux"]  # what the workflow's machines are


def test_the_image_of_the_readme(wheels: tuple[Wheel, Wheel], tmp_path: Path) -> None:
    page = (ROOT / "runtime/README.md").read_text(encoding="utf-8").partition("\n## In production\n")[2]
    context, image = tmp_path / "context", Image(tmp_path)
    shutil.copytree(ROOT / "tests/golden/dense", context / "minilm")
    shutil.copy(wheels[1].path, context)
    (context / "service.py").write_text(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0], encoding="utf-8")
    image.build(re.findall(r"```dockerfile\n(.*?)```", page, re.DOTALL)[0].splitlines(), context)
    digest = hashlib.sha256((context / "minilm/trivec.json").read_bytes()).hexdigest()
    image.environment["DIGEST"] = f"sha256:{digest}"
    assert re.fullmatch(r"[0-9a-f]{64}\n", image.run(image.command("CMD")))
    assert image.is_nobodys
    image.environment["DIGEST"] = f"sha256:{'0' * 64}"
    with pytest.raises(AssertionError, match="IntegrityError"):
        image.run(image.command("CMD"))


def test_the_image_of_the_server(wheels: tuple[Wheel, Wheel], tmp_path: Path) -> None:
    """It wants a key, says when it is ready, answers who has the key, and ends in order."""
    image = Image(tmp_path)
    image.build((ROOT / "scripts/serve/Dockerfile").read_text(encoding="utf-8").splitlines(), wheels[1].path.parent)
    shutil.copytree(ROOT / "tests/golden/dense", image.root / "models/minilm")  # the volume
    assert image.is_nobodys
    command = [*image.command("ENTRYPOINT"), *image.command("CMD"), "--port", image.words["EXPOSE"]]
    assert command[-1] == "8080"
    with pytest.raises(AssertionError, match="there is no key"):
        image.run(command)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    image.environment["TRIVEC_API_KEY"] = "a-key"
    server = subprocess.Popen([*command[:-1], port], cwd=image.root, env=image.environment)
    try:
        check = [word.replace("127.0.0.1:8080", f"127.0.0.1:{port}") for word in image.command("HEALTHCHECK")]
        for _ in range(600):
            with contextlib.suppress(AssertionError):
                image.run(check)
                break
            time.sleep(0.1)
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/embed",
            json.dumps({"inputs": ["a cat"]}).encode(),
            {"Content-Type": "application/json", "Authorization": "Bearer a-key"},
        )
        with urllib.request.urlopen(asked, timeout=600) as answer:
            assert len(json.load(answer)) == 1
    finally:
        server.terminate()
    assert server.wait(600) == 0
