"""Static models, as their JSON files describe them: a table with a vector for each token, and no graph.

Two programs write them and read them by rules of their own, which differ in what becomes of unknown tokens and of long
texts: Model2Vec (`model2vec.persistence.load_pretrained` 0.10) and sentence-transformers (`StaticEmbedding` 6.2).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from trivec._errors import InputError, ModelFormatError
from trivec._model.hub import Repository
from trivec._model.json_files import join, read_list, read_object
from trivec._model.manifest import SIMILARITIES, EncoderSpec, FileRef, Manifest, Pooling, Route, Step, Variant
from trivec._model.modules import Module, read_modules, read_steps
from trivec._model.source import Folder, Source
from trivec._model.tensor_files import Shape, read_shapes

STATIC = "static"
"""The family."""
EXTRA = "static"
"""What brings safetensors."""
MODEL2VEC, SENTENCE_TRANSFORMERS = "model2vec", "sentence-transformers"
"""Whose rules make a vector of tokens."""
TABLES = ("embeddings", "embedding.weight")
"""The table's name as Model2Vec and as sentence-transformers write it."""
VARIANTS = {"float64": "fp32", "float32": "fp32", "float16": "fp16", "int8": "int8"}
"""The variant that a table of a number type is; vectors are float32 in any case."""
_KIND = "StaticEmbedding"
_MODEL, _CONFIG, _MODULES = "model.safetensors", "config.json", "modules.json"
_SETTINGS = "config_sentence_transformers.json"
_PICKLE = "pytorch_model.bin"
_MAX_LENGTH = 512  # Model2Vec's DEFAULT_MAX_LENGTH


@dataclass(frozen=True)
class StaticSpec:
    """Where a static model's files are, and how they are read."""

    rules: str
    folder: str
    """Of the table and the tokenizer; "" for the root."""
    max_length: int | None
    """Tokens a text is cut to, where the model's settings and not its tokenizer.json say it; None: they do not."""
    steps: tuple[Step, ...]
    """What follows the mean."""
    settings: Mapping[str, Any]
    """config_sentence_transformers.json: prompts, similarity."""

    @property
    def weights(self) -> str:
        """The file of the table."""
        return join(self.folder, _MODEL)

    @property
    def tokenizer(self) -> str:
        """The file of the tokenizer."""
        return join(self.folder, "tokenizer.json")


def static_spec(source: Source) -> StaticSpec | None:
    """What a static model's files say; None where it is none.

    Model2Vec's are known by config.json (model_type, architectures or embedding_dtype, or, where somebody saved a table
    of their own without any of these, by the "." that Model2Vec writes as its module's path), and, as `load_pretrained`
    finds them, by a config_sentence_transformers.json beside a table and a tokenizer where there is neither a
    config.json nor a modules.json. Any other model whose first module is a StaticEmbedding is sentence-transformers'.

    Raises:
        ModelFormatError: a file that cannot be understood, or a module after the table that trivec does not run.
    """
    config, modules = read_object(source, _CONFIG), read_list(source, _MODULES)
    first = Module(modules[0]["type"].rpartition(".")[2], modules[0]["path"]) if modules else None
    own = first is not None and first.kind == _KIND
    if _is_model2vec(config) or (own and first and first.path == "." and source.file(_CONFIG) is not None):
        return _model2vec(source, "", config)
    if own and first is not None:
        steps = read_steps(source, read_modules(source, modules[1:]))
        return StaticSpec(SENTENCE_TRANSFORMERS, first.path, None, steps, read_object(source, _SETTINGS))
    if not config and not modules and source.file(_SETTINGS) is not None:
        for folder in ("", "0_" + _KIND):
            if source.file(join(folder, _MODEL)) is not None and source.file(join(folder, "tokenizer.json")):
                return _model2vec(source, folder, read_object(source, _SETTINGS))
    return None


def refuse_static(source: Source) -> None:
    """Raise InputError where an export is asked of a model that needs none."""
    if static_spec(source) is not None:
        raise InputError(
            f"{source.name} is a static model (Model2Vec, StaticEmbedding): a table of token vectors without a graph, "
            f"which trivec runs as it is. There is nothing to export. Type: trivec.load({source.name!r})"
        )


def static_manifest(source: Source, spec: StaticSpec) -> Manifest:
    """The model's description; `dim` and the variant are in the table's file alone: see `with_table`.

    Raises:
        ModelFormatError: the table or the tokenizer is missing, or the table is in a pickle.
    """
    if source.file(spec.tokenizer) is None:
        raise ModelFormatError(
            f"{source.name} has no {spec.tokenizer}, so its texts cannot be tokenized. Fetch the whole model again."
        )
    if not _has(source, spec.weights):
        pickled = join(spec.folder, _PICKLE)
        if _has(source, pickled):
            raise ModelFormatError(
                f"{source.name} has its table in {pickled} only. A pickle can run any code when it is opened, so it "
                f"was not. Convert it to {spec.weights}: SentenceTransformer(...).save_pretrained(...) writes that."
            )
        raise ModelFormatError(f"{source.name} has no {spec.weights}, the table. Fetch the whole model again.")
    settings = spec.settings
    similarity = settings.get("similarity_fn_name")
    return Manifest(
        family=STATIC,
        dim=None,
        encoders={"main": EncoderSpec(FileRef(spec.tokenizer), spec.max_length, None, {}, add_special_tokens=False)},
        routes={"default": Route("main", Pooling(("mean",)), spec.steps)},
        default_route="default",
        prompts={"query": "", "document": ""} | {k: v or "" for k, v in (settings.get("prompts") or {}).items()},
        default_prompt_name=settings.get("default_prompt_name"),
        similarity=similarity if similarity in SIMILARITIES else "cosine",
        truncate_dim=settings.get("truncate_dim"),
        arrays=FileRef(spec.weights),
        source={
            "name": source.name,
            "revision": source.revision if isinstance(source, Repository) else None,
            "rules": spec.rules,
        },
    )


def with_table(manifest: Manifest, shapes: Mapping[str, Shape], where: object) -> Manifest:
    """The manifest with what the header of the table's file says: width and number type.

    Args:
        manifest: of a static model.
        shapes: the header.
        where: the file, for messages.

    Raises:
        ModelFormatError: it holds no table, or one of another shape or number type.
    """
    name = next((name for name in TABLES if name in shapes), None)
    if name is None or manifest.arrays is None:
        raise ModelFormatError(
            f"{where} holds {', '.join(sorted(shapes)) or 'nothing'}; expected a table named {' or '.join(TABLES)}."
        )
    dtype, shape = shapes[name]
    if len(shape) != 2 or 0 in shape:
        raise ModelFormatError(f"{where}: {name} has the shape {shape}; expected (rows, numbers in a vector).")
    if dtype not in VARIANTS:
        raise ModelFormatError(f"{where}: {name} is of {dtype}; expected one of {', '.join(VARIANTS)}.")
    variant = Variant((FileRef(manifest.arrays.path),), needs=("cpu",))
    encoder = replace(manifest.encoders["main"], variants={VARIANTS[dtype]: variant})
    return replace(manifest, dim=shape[1], encoders={"main": encoder}, arrays=None)


def described(source: Source, manifest: Manifest) -> Manifest:
    """`with_table`, where the table of a static model is in a local folder and safetensors is installed."""
    if manifest.family != STATIC or manifest.arrays is None or not isinstance(source, Folder):
        return manifest
    path = source.root / manifest.arrays.path
    try:
        shapes = read_shapes(path, extra=EXTRA, why="")
    except ImportError:  # MissingExtraError: the rest can be said without it
        return manifest
    return with_table(manifest, shapes, path)


def _is_model2vec(config: Mapping[str, Any]) -> bool:
    architectures = config.get("architectures") or []
    own = "embedding_dtype" in config and "model_type" not in config  # of a table that somebody saved by hand
    return config.get("model_type") == MODEL2VEC or "StaticModel" in architectures or own


def _model2vec(source: Source, folder: str, config: Mapping[str, Any]) -> StaticSpec:
    length = config.get("max_length", _MAX_LENGTH)
    if length is not None and (not isinstance(length, int) or isinstance(length, bool) or length < 1):
        raise ModelFormatError(f"{source.name}: max_length must be a whole number above 0 or null, got {length!r}.")
    steps = (Step("normalize"),) if config.get("normalize", False) else ()
    return StaticSpec(MODEL2VEC, folder, length, steps, read_object(source, _SETTINGS))


def _has(source: Source, path: str) -> bool:
    """Whether the model has a file, which is not fetched for that."""
    return path in source.names() if isinstance(source, Repository) else source.file(path) is not None
