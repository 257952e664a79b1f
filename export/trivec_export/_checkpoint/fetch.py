"""A checkpoint's files in a local folder, fetched from the Hub where need be."""

from pathlib import Path
from typing import NamedTuple

from trivec._errors import ModelNotFoundError
from trivec._model.find import find
from trivec._model.hub import Repository
from trivec._model.source import Folder

_FOREIGN = ("tf_model.h5", "flax_model.msgpack", "rust_model.ot", ".gguf", ".ckpt.index")
_SMALL = (".json", ".txt", ".model", ".jinja")


class Fetched(NamedTuple):
    """A checkpoint on disk."""

    folder: Path
    name: str
    revision: str | None


def fetch(model: str, *, revision: str | None, token: str | bool | None, with_code: bool) -> Fetched:
    """A folder as it is; of a repository, the JSON files, the tokenizer and one form of the weights.

    Raises:
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
    if isinstance(source, Folder):
        return Fetched(source.root, source.root.resolve().name, None)
    folders = {str(Path(n).parent) for n in weights}
    wanted = [n for n in names if n.endswith(_SMALL) or n == "README.md" or (with_code and n.endswith(".py"))]
    wanted += weights + [n for n in pickles if str(Path(n).parent) not in folders]
    root = None
    for name in wanted:
        if "onnx/" in name or "openvino/" in name:
            continue
        path = source.file(name)
        if path is not None and root is None:
            root = path.parents[name.count("/")]
    if root is None or not isinstance(source, Repository):
        raise ModelNotFoundError(f"{source.name}: none of its files can be fetched.")
    return Fetched(root, source.name, source.revision)
