"""Every snippet of every README runs as it stands, and what they name is there."""

import builtins
import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import trivec

if TYPE_CHECKING:
    from tests.conftest import Readme

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = (
    ".",
    "benchmarks",
    "export",
    "runtime",
    "runtime/trivec/compare",
    "runtime/trivec/integrations",
    "runtime/trivec/lexical",
    "runtime/trivec/map",
    "runtime/trivec/server",
    "runtime/trivec/store",
    "runtime/trivec/util",
)
TEXTS = {(Path(f) / "README.md").as_posix(): (ROOT / f / "README.md").read_text(encoding="utf-8") for f in FOLDERS}
TEXT, ALL = TEXTS["README.md"], "\n".join(TEXTS.values())
GUIDES = (".github/CONTRIBUTING.md", ".github/SECURITY.md", "runtime/COMPATIBILITY.md")
SHARED = {  # sections that read what lies in ../shared beside the checkout: their names of it
    ("runtime/README.md", "Static vectors"): {"potion-base-2M"},
    ("runtime/README.md", "Rerankers"): {"reranker-minilm"},
    ("runtime/trivec/integrations/README.md", "Milvus"): {"scifact"},
}
WRITES = {  # of some sections, a file that is there afterwards
    ("README.md", "Command line"): "vectors.npy",
    ("runtime/trivec/integrations/README.md", "Ray"): "vectors",
    ("runtime/trivec/map/README.md", "Example"): "map.html",
    ("runtime/trivec/server/README.md", "Start"): "tei.json",
    ("runtime/trivec/store/README.md", "Stored vectors"): "corpus.parquet",
}
_FRAMEWORKS = ("Chroma", "Haystack", "BERTopic and KeyBERT", "LanceDB", "mteb", "Servers")
ELSEWHERE = (
    ("README.md", "Export"),  # by the fixture: it makes `minilm`
    ("runtime/README.md", "Sparse, and BGE-M3"),  # in test_readme_sparse.py, and so in another process
    ("runtime/README.md", "Late interaction"),  # there, too
    *(("runtime/trivec/integrations/README.md", name) for name in _FRAMEWORKS),  # in tests/runtime/frameworks
)


@pytest.mark.parametrize("name", TEXTS)
def test_every_snippet_runs(readme: "Readme", name: str) -> None:
    for of, title in readme.sections:
        if of == name and (of, title) not in (*SHARED, *ELSEWHERE):
            assert (readme.follow(of, title) / WRITES.get((of, title), ".")).exists()


@pytest.mark.parametrize("section", SHARED, ids=" ".join)
def test_snippets_on_shared_data(readme: "Readme", shared: Path, section: tuple[str, str]) -> None:
    readme.follow(*section)


def test_no_snippet_is_forgotten(readme: "Readme") -> None:
    assert {name for name, _ in readme.sections} <= TEXTS.keys()
    assert len(readme.sections) >= 20
    assert {*SHARED, *ELSEWHERE, *WRITES} < readme.sections.keys()
    assert sum(map(len, readme.sections.values())) == len(re.findall(r"^```(?:bash|python)$", ALL, flags=re.MULTILINE))
    names = {name for names in SHARED.values() for name in names}
    for section, snippets in readme.sections.items():
        named = {name for name in names if any(f'"{name}' in code for _, code in snippets)}
        assert named == SHARED.get(section, set()), section


def test_the_readme_is_one_screen_after_another() -> None:
    assert len(TEXT.splitlines()) <= 150


def test_what_comes_first() -> None:
    """What works on a fresh machine, then installing from the clone, then an export, then ten lines of Python."""
    example = next(code for code in re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL))
    assert len(example.splitlines()) <= 10
    order = (
        "```bash\nscripts/demo\nscripts/test\n```",
        'pip install ".[cpu]"',
        "pip wheel",
        "trivec export",
        example,
        "## Why",
    )
    places = [TEXT.index(part) for part in order]
    assert places == sorted(places)


def test_the_extras_exist_and_each_is_named() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {extra for group in re.findall(r"(?:\.|\.whl)\[([a-z,-]+)\]", ALL) for extra in group.split(",")}
    assert named == set(project["optional-dependencies"]) - {"demo"}
    assert not re.findall(r"pip install \"?trivec\b(?!\[NAME\])", ALL)  # the package is on no index


def test_the_wheel_has_that_name() -> None:
    assert re.findall(r"trivec-([\w.]+)-py3-none-any\.whl", TEXT) == [trivec.__version__]


def test_the_errors_are_the_ones_there_are() -> None:
    found = re.findall(r"`(\w+Error)\((\w+)\)`", ALL)
    assert len(found) == 12
    for name, builtin in found:
        assert issubclass(getattr(trivec, name), trivec.TrivecError)
        assert issubclass(getattr(trivec, name), getattr(builtins, builtin))


def test_the_scripts_exist() -> None:
    guides = "".join((ROOT / guide).read_text(encoding="utf-8") for guide in GUIDES)
    named = set(re.findall(r"(?:^|`)scripts/([\w-]+)", ALL + guides, flags=re.MULTILINE))
    assert {"demo", "test"} < named
    for name in named:
        assert os.access(ROOT / "scripts" / name, os.X_OK), name


def test_the_benchmarks_exist_and_each_is_named() -> None:
    named = set(re.findall(r"benchmarks[./](\w+)(?:\.py)?(?: [A-Z]\w+)?`", TEXTS["benchmarks/README.md"]))
    commands = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if not path.name.startswith("_")}
    assert named - {"NAME"} == commands
    reports = {path.relative_to(ROOT / "benchmarks").as_posix() for path in (ROOT / "benchmarks/results").glob("*.md")}
    assert reports <= set(re.findall(r"\]\(([^)]+)\)", TEXTS["benchmarks/README.md"]))


@pytest.mark.parametrize("name", [*TEXTS, *GUIDES, "CHANGELOG.md"])
def test_the_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", link):
            continue
        place, _, heading = link.partition("#")
        target = (ROOT / name).parent / place if place else ROOT / name
        assert target.exists(), link
        if heading:
            assert heading in _anchors(target.read_text(encoding="utf-8")), link


def _anchors(text: str) -> set[str]:
    """Of each heading, what a link to it ends in."""
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles}
