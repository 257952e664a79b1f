"""A checkpoint's files in a local folder, fetched from the Hub where need be."""

from pathlib import Path
from typing import NamedTuple

from trivec._errors import ModelNotFoundError
from trivec._model.checkpoint import HEADS
from trivec._model.find import find
from trivec._model.hub import Repository
from trivec._model.late import METADATA
from trivec._model.source import Folder
from trivec._system.native_text import argument_text

CARD = "README.md"
_FOREIGN = ("tf_model.h5", "flax_model.msgpack", "rust_model.ot", ".gguf", ".ckpt.index")
_SMALL = (".json", ".txt", ".model", ".jinja")


class Fetched(NamedTuple):
    """A checkpoint on disk."""

    folder: Path
    name: str
    revision: str | None
    files: tuple[str, ...] = ()
    """Those that an export reads, by their paths in the folder."""


def fetch(model: str, *, revision: str | None, token: str | bool | None, with_code: bool) -> Fetched:
    """The JSON files, the tokenizer, the card and one form of the weights; of a folder, where it is.

    Raises:
        ModelFormatError: a file of the folder is a link that leads out of it.
        ModelNotFoundError: there is no such folder or repository, or it has no weights.
    """
    source = find(model, revision=revision, token=token)
    names = source.names()
    weights = [n for n in names if n.endswith(".safetensors")]
    pickles = [n for n in names if n.endswith(".bin") and "onnx" not in n and "openvino" not in n]
    if not weights and not pickles:
        foreign = [n for n in names if n.endswith(_FOREIGN)]
        if foreign:
            raise ModelNotFoundError(
                f"{source.name} has its weights in {', '.join(foreign)} only, which transformers 5 does not read. "
                "Convert them with transformers 4: AutoModel.from_pretrained(FOLDER, from_tf=True) (from_flax=True) "
                ".save_pretrained(OUT)"
            )
        raise ModelNotFoundError(
            f"{source.name} holds no weights (model.safetensors or pytorch_model.bin). Expected a transformers or "
            "sentence-transformers checkpoint."
        )
    folders = {str(Path(n).parent) for n in weights}
    others = (CARD, METADATA, *HEADS)
    wanted = [n for n in names if n.endswith(_SMALL) or n in others or (with_code and n.endswith(".py"))]
    wanted += weights + [n for n in pickles if str(Path(n).parent) not in folders]
    wanted = [n for n in wanted if "onnx/" not in n and "openvino/" not in n]
    found = {name: path for name in wanted if (path := source.file(name)) is not None}
    if isinstance(source, Folder):
        return Fetched(source.root, argument_text(source.root.name), None, tuple(found))
    if not found or not isinstance(source, Repository):
        raise ModelNotFoundError(f"{source.name}: none of its files can be fetched.")
    name, path = next(iter(found.items()))
    return Fetched(path.parents[name.count("/")], source.name, source.revision, tuple(found))
