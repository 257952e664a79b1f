"""What the build adds to a wheel: its SBOM, and what an index shows of the README.

`repository` in pyproject.toml, [tool.hatch.metadata.hooks.custom], is the address that links and Project-URLs begin
with. Without one there are no Project-URLs, and of a link that leads into the repository the words are left.
"""

import hashlib
import json
import re
import tempfile
from email.parser import Parser
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface
from packaging.requirements import Requirement


class Metadata(MetadataHookInterface):
    """README with links that lead somewhere on an index, and Project-URLs."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Fill in what pyproject.toml calls dynamic."""
        found = re.search(r'__version__ = "(.+)"', Path(self.root, "runtime/trivec/_version.py").read_text("utf-8"))
        assert found is not None
        repository = self.config.get("repository", "").rstrip("/")
        files = f"{repository}/blob/v{found[1]}" if repository else ""
        text = Path(self.root, "README.md").read_text("utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": _absolute(text, files)}
        metadata["urls"] = (
            {
                "Repository": repository,
                "Documentation": f"{files}/runtime/README.md",
                "Changelog": f"{files}/CHANGELOG.md",
                "Issues": f"{repository}/issues",
            }
            if repository
            else {}
        )


class Sbom(BuildHookInterface):
    """CycloneDX in .dist-info/sboms/ (PEP 770). No date and no random number: the same source, the same bytes."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - "standard" or "editable"
        """Write it where the wheel's builder takes it from."""
        core = self.metadata.core
        parts = [_bundled(part, Path(self.root)) for part in _paragraphs(Path(self.root, "runtime/THIRD-PARTY"))]
        needs = [_required(Requirement(line)) for line in core.dependencies]
        for extra, lines in core.optional_dependencies.items():
            needs += [_required(Requirement(line), extra) for line in lines]
        own = {
            "type": "library",
            "bom-ref": "trivec",
            "name": core.name,
            "version": self.metadata.version,
            "purl": f"pkg:pypi/{core.name}@{self.metadata.version}",
            "licenses": [{"expression": core.license_expression}],
        }
        sbom = {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {"component": own},
            "components": parts + needs,
            "dependencies": [{"ref": "trivec", "dependsOn": [need["bom-ref"] for need in needs]}],
        }
        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name, "trivec.cdx.json")
        path.write_text(json.dumps(sbom, indent=1) + "\n", "utf-8")
        build_data["sbom_files"].append(str(path))

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """It is in the wheel."""
        self._folder.cleanup()


def _absolute(text: str, files: str) -> str:
    """Markdown whose links into the repository begin with `files`; "": their words alone."""
    link = re.compile(r"\[([^\]]*)\]\((?!https?://|#)([^)\s]+)\)")
    return link.sub(lambda m: f"[{m[1]}]({files}/{m[2]})" if files else m[1], text)


def _paragraphs(path: Path) -> list[dict[str, str]]:
    """The fields of each component of THIRD-PARTY."""
    head = path.read_text("utf-8").partition("\n===")[0]
    found = [Parser().parsestr(part) for part in head.split("\n\n")]
    return [{name: " ".join(value.split()) for name, value in part.items()} for part in found if "Files" in part]


def _bundled(part: dict[str, str], root: Path) -> dict[str, Any]:
    """A component that is in the wheel, with the sha256 of each of its files."""
    return {
        "type": "data" if part["Files"].endswith(("json", "jsonl")) else "file",
        "bom-ref": f"bundled:{part['Name']}",
        "name": part["Name"],
        "authors": [{"name": part["Author"]}],
        "description": part["Comment"],
        "licenses": [{"expression": part["License"]}],
        "components": [
            {
                "type": "file",
                "name": name.partition("/")[2],
                "hashes": [{"alg": "SHA-256", "content": hashlib.sha256((root / name).read_bytes()).hexdigest()}],
            }
            for name in part["Files"].split()
        ],
        "properties": [{"name": "trivec:source", "value": part["Source"]}],
    }


def _required(requirement: Requirement, extra: str = "") -> dict[str, Any]:
    """A package that is installed beside it, never in the wheel: only a range of its versions is known here."""
    kind = [{"name": "trivec:extra", "value": extra}] if extra else []
    return {
        "type": "library",
        "bom-ref": f"required:{extra}:{requirement}",
        "name": requirement.name,
        "scope": "optional" if extra else "required",
        "purl": f"pkg:pypi/{requirement.name.lower().replace('_', '-')}",
        "properties": [*kind, {"name": "trivec:requirement", "value": str(requirement)}],
    }
