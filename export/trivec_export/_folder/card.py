"""README.md of a model folder: the model card that a hub reads, and how to load the model."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from huggingface_hub.repocard import metadata_load

from trivec._gate.checks import Check
from trivec._model.families import FAMILIES, scores_pairs
from trivec._model.manifest import Manifest
from trivec_export._checkpoint.fetch import CARD
from trivec_export._folder.report import FILE_NAME as REPORT

FILE_NAME = CARD
SOURCE_CARD = "SOURCE_README.md"
"""The checkpoint's own card in a model folder, where README.md is the folder's."""
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_KEPT = ("license", "license_name", "license_link", "language", "datasets")
"""What a source's card says that holds for its export as well."""
_TASKS = {
    "dense": "sentence-similarity",
    "splade": "feature-extraction",
    "rerank": "text-ranking",
    "late": "sentence-similarity",
}


def render(manifest: Manifest, checks: Mapping[str, Mapping[str, Check]], source: Path) -> str:
    """The card in Markdown, with the metadata of huggingface.co's model cards in front.

    Args:
        manifest: of the folder.
        checks: by precision, then encoder: how each fared against the reference.
        source: the checkpoint's folder, whose own card says licence and languages.
    """
    metadata = ModelCardData(ignore_metadata_errors=True, **_metadata(manifest, source)).to_yaml()
    return f"---\n{metadata}\n---\n\n" + "\n".join(_lines(manifest, checks)) + "\n"


def _metadata(manifest: Manifest, source: Path) -> dict[str, Any]:
    name = str(manifest.source.get("name"))
    said = stated(source)
    found: dict[str, Any] = {"library_name": "trivec"}
    if _REPOSITORY.fullmatch(name):
        found |= {"base_model": name, "base_model_relation": "quantized"}
    found |= {key: said[key] for key in _KEPT if said.get(key)}
    found["pipeline_tag"] = _TASKS.get(manifest.family, "sentence-similarity")
    heads = FAMILIES[manifest.family].heads
    what = "reranker" if scores_pairs(manifest.family) else "embeddings"
    found["tags"] = ["onnx", "trivec", *heads, *manifest.precisions(), what]
    return found


def stated(source: Path) -> dict[str, Any]:
    """The metadata of the card in a checkpoint's folder; empty where it has none that can be read."""
    card = source / CARD
    try:
        return metadata_load(card) or {} if card.is_file() else {}
    except Exception:  # noqa: BLE001 - whatever somebody's YAML raises: no export fails for a card
        return {}


def _lines(manifest: Manifest, checks: Mapping[str, Mapping[str, Check]]) -> Iterator[str]:
    name = manifest.source.get("name")
    called = " ".join(filter(None, (manifest.name or str(name), manifest.version)))
    yield f"# {called} as ONNX graphs for trivec"
    yield ""
    yield f"Exported with trivec {manifest.tools.get('trivec')}: {', '.join(manifest.precisions())}. Each variant"
    pairs = scores_pairs(manifest.family)
    items = "pairs of texts" if pairs else "texts"
    yield f"was compared with {manifest.source.get('reference')} on {items} in 15 scripts, code and edge cases"
    yield f"({REPORT} has all figures, by kind of text and by layer):"
    yield ""
    worst = {
        precision: max((check.figures for check in checks[precision].values()), key=lambda figures: figures.badness)
        for precision in manifest.precisions()
    }
    columns = [*next(iter(worst.values())).cells()]
    yield f"| {' | '.join(['variant', *columns])} |"
    yield f"| {' | '.join(['---', *('---:' for _ in columns)])} |"
    yield from (f"| {' | '.join([precision, *found.cells().values()])} |" for precision, found in worst.items())
    yield ""
    yield "```python"
    yield "import trivec"
    yield ""
    yield 'model = trivec.load("NAME OF THIS REPOSITORY OR FOLDER")  # precision="int8", device="cpu", threads=2'
    if pairs or manifest.family == "late":
        yield 'ranked = model.rank("How do I reset my password?", ["Settings, then Account.", "It rains."])'
    else:
        yield 'vectors = model.encode(["How do I reset my password?"])'
    yield "```"
    yield ""
    yield "Only the files of the variant that is loaded are fetched. Licence and languages are those of the source."
    if manifest.card is not None:
        yield f"[{SOURCE_CARD}]({SOURCE_CARD}) is the source's own card, as it is."
