"""Static models that cannot be read, options that make no sense for them, and inputs that are no texts."""

import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from safetensors.numpy import save_file
from tests.support.static_models import DIM, SIZE, model2vec_folder, modules, table

import trivec
from trivec import (
    InputError,
    MissingExtraError,
    ModelFormatError,
    ModelNotFoundError,
    NonFiniteError,
    ProviderError,
    _export,
)
from trivec._cli.main import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made: Path = model2vec_folder(tmp_path / "static", normalize=True)
    return made


# ---- files -----------------------------------------------------------------------------------------------------------


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def altered(data: bytes) -> bytes:
    return data[:20] + b"#" + data[21:]


def longer_header(data: bytes) -> bytes:
    return struct.pack("<Q", 1 << 40) + data[8:]


@pytest.mark.parametrize("damage", [cut, altered, longer_header, lambda _: b"", lambda _: b"version https://git-lfs"])
def test_a_damaged_table(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        ModelFormatError, match=r"model\.safetensors is no whole \.safetensors file .* copy or download"
    ):
        trivec.load(folder)
    assert main(["info", str(folder)]) == 1


TABLES: dict[str, tuple[dict[str, Any], str]] = {
    "no table": ({"linear.weight": table()}, r"holds linear\.weight; expected a table named embeddings or embedding\."),
    "one axis": (
        {"embeddings": table()[0]},
        r"embeddings has the shape \(7,\); expected \(rows, numbers in a vector\)",
    ),
    "no rows": ({"embeddings": table(0)}, r"embeddings has the shape \(0, 7\)"),
    "too few rows": (
        {"embeddings": table(SIZE - 1)},
        "table has 19 rows, and the tokenizer 20 tokens with ids up to 19",
    ),
    "too many rows": ({"embeddings": table(SIZE + 1)}, "the table has 21 rows, and the tokenizer 20 tokens"),
    "integers": ({"embeddings": table().astype(np.int32)}, "embeddings is of int32; expected one of float64, float32"),
    "mapping past the end": (
        {"embeddings": table(5), "mapping": np.full(SIZE, 5)},
        "mapping goes from 5 to 5, and the table has the rows 0 to 4",
    ),
    "mapping below 0": ({"embeddings": table(5), "mapping": np.full(SIZE, -1)}, "mapping goes from -1 to -1"),
    "short mapping": (
        {"embeddings": table(5), "mapping": np.zeros(SIZE - 1, np.int64)},
        r"mapping has the shape \(19,\); expected one number for each of the 20 tokens",
    ),
    "mapping of floats": ({"embeddings": table(5), "mapping": np.zeros(SIZE)}, "mapping is of float64; expected int"),
    "short weights": (
        {"embeddings": table(), "weights": np.ones(3)},
        r"weights has the shape \(3,\); expected one number for each of the 20 tokens",
    ),
    "weights of two axes": ({"embeddings": table(), "weights": np.ones((SIZE, 1))}, r"weights has the shape \(20, 1\)"),
    "weights of integers": (
        {"embeddings": table(), "weights": np.ones(SIZE, np.int64)},
        "weights is of int64; expected floating-point",
    ),
}


@pytest.mark.parametrize("kind", TABLES)
def test_tensors_that_do_not_fit(tmp_path: Path, kind: str) -> None:
    tensors, message = TABLES[kind]
    with pytest.raises(ModelFormatError, match=message):
        trivec.load(model2vec_folder(tmp_path, tensors))


def test_bfloat16(folder: Path) -> None:
    header = json.dumps({"embeddings": {"dtype": "BF16", "shape": [SIZE, DIM], "data_offsets": [0, SIZE * DIM * 2]}})
    data = struct.pack("<Q", len(header)) + header.encode() + bytes(SIZE * DIM * 2)
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelFormatError, match=r"'embeddings' is of BF16; trivec reads F64, F32, F16.* Convert it"):
        trivec.load(folder)


@pytest.mark.parametrize("normalize", [False, True])
def test_rows_that_are_not_finite(tmp_path: Path, normalize: bool) -> None:
    vectors = table()
    vectors[5, 2], vectors[6, 0] = np.nan, np.inf
    encoder = trivec.load(model2vec_folder(tmp_path, {"embeddings": vectors}, normalize=normalize))
    assert np.isfinite(encoder.encode("the mat")).all()
    with pytest.raises(NonFiniteError, match=r"2 of 4 vectors.*the text at index 1: 'a cat'. Check the checkpoint"):
        encoder.encode(["the mat", "a cat", "", "the dog"])
    with pytest.raises(NonFiniteError, match="in the block that starts at text 2: 1 of 1 vectors"):
        list(encoder.encode_iter(["mat", "mat", "cat"], window=2))


def test_sentence_transformers_may_have_more_rows_than_tokens_but_not_fewer(tmp_path: Path) -> None:
    for rows, fits in ((SIZE + 4, True), (SIZE - 1, False)):
        place = model2vec_folder(tmp_path / str(rows), {"embedding.weight": table(rows)})
        (place / "config.json").unlink()
        (place / "modules.json").write_text(modules(("StaticEmbedding", "")))
        if fits:
            assert_array_equal(trivec.load(place).encode("cat"), table(rows)[5])
        else:
            with pytest.raises(ModelFormatError, match="the table has 19 rows"):
                trivec.load(place)


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors"])
def test_a_file_that_is_not_there(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelFormatError, match=rf"has no {name}, .*Fetch the whole model again"):
        trivec.load(folder)


def test_a_table_in_a_pickle_is_not_opened(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelFormatError, match=r"has its table in pytorch_model\.bin only. A pickle can run any code"):
        trivec.load(folder)


def test_a_tokenizer_that_is_none(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelFormatError, match="not a readable tokenizer"):
        trivec.load(folder)


@pytest.mark.parametrize("length", [0, -1, "512", True, 2.5])
def test_a_max_length_out_of_range(tmp_path: Path, length: object) -> None:
    with pytest.raises(ModelFormatError, match="max_length must be a whole number above 0 or null, got"):
        trivec.load(model2vec_folder(tmp_path, max_length=length))


def test_modules_that_trivec_does_not_run(tmp_path: Path) -> None:
    place = model2vec_folder(tmp_path, {"embedding.weight": table()})
    (place / "config.json").unlink()
    (place / "modules.json").write_text(modules(("StaticEmbedding", ""), ("CNN", "1_CNN")))
    with pytest.raises(ModelFormatError, match="has the module CNN"):
        trivec.load(place)


# ---- options ---------------------------------------------------------------------------------------------------------


def test_options_that_make_no_sense(folder: Path) -> None:
    with pytest.raises(ProviderError, match=r'static model, which numpy adds up on the CPU.*device="cpu"'):
        trivec.load(folder, device="cuda")
    with pytest.raises(ModelNotFoundError, match=r"has no int8 variant: it is one table, in fp32. Leave precision at"):
        trivec.load(folder, precision="int8")
    with pytest.raises(InputError, match="max_active_dims is for sparse rows"):
        trivec.load(folder, max_active_dims=3)
    with pytest.raises(InputError, match="truncate_dim must be between 1 and 7"):
        trivec.load(folder, truncate_dim=8)
    encoder = trivec.load(folder, precision="fp32", device="cpu")
    for value in (0, -1, 2.0, True):
        with pytest.raises(InputError, match="max_seq_length must be a whole number above 0, or None; got"):
            encoder.max_seq_length = value
    with pytest.raises(InputError, match="this encoder runs on cpu, not 'cuda'"):
        encoder.encode("cat", device="cuda")
    with pytest.raises(InputError, match="precision='int8' needs the value ranges"):
        encoder.encode("cat", precision="int8")
    with pytest.raises(InputError, match="batch_size must be a positive integer"):
        encoder.encode("cat", batch_size=0)
    with pytest.raises(InputError, match="those of a prompt cannot be left out"):
        encoder.set_pooling_include_prompt(False)
    encoder.set_pooling_include_prompt(True)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["cat", 3], "expected strings, got int at index 1"),
        (["cat", None], "expected strings, got NoneType at index 1"),
        ([b"cat"], "expected strings, got bytes at index 0.*Decode it first"),
        (None, "expected a text or an iterable of texts, got NoneType"),
        (b"cat", "got bytes"),
        ([*["cat"] * 5000, "a\ud800"], "the text at index 5000 holds a lone surrogate"),
    ],
    ids=str,
)
def test_what_is_no_text(folder: Path, inputs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        trivec.load(folder).encode(inputs)


# ---- packages --------------------------------------------------------------------------------------------------------


def test_without_safetensors(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(MissingExtraError, match=r'safetensors is not installed. Type: pip install "trivec\[static\]"'):
        trivec.load(folder)
    assert main(["info", str(folder)]) == 0  # says what can be said without it
    assert "dim          stated by the weights only" in capsys.readouterr().out


def test_a_dense_layer_without_safetensors_names_the_same_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trivec._model.derived import read_step_arrays
    from trivec._model.manifest import Step
    from trivec._model.source import Folder

    (tmp_path / "2_Dense").mkdir()
    save_file({"linear.weight": table()}, tmp_path / "2_Dense/model.safetensors")
    step = Step("dense", "2_Dense")
    assert_array_equal(read_step_arrays(Folder(tmp_path), (step,))["2_Dense.weight"], table())
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(MissingExtraError, match=r'has a dense layer in safetensors.*pip install "trivec\[static\]"'):
        read_step_arrays(Folder(tmp_path), (step,))


# ---- what is not done with a static model ----------------------------------------------------------------------------


def test_nothing_to_export(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["export", str(folder), str(out)]) == 1
    assert "a table of token vectors without a graph" in capsys.readouterr().err
    assert not out.exists()
    assert trivec.load(folder, export=True).dim == DIM


def test_nothing_to_export_is_said_before_torch_is_asked_for(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a name on the Hub too, where the exporter's packages are missing."""
    import trivec_export

    def missing() -> None:
        raise MissingExtraError('exporting needs torch. Type: pip install "trivec[export]"')

    monkeypatch.setattr(trivec_export, "_check_packages", missing)
    monkeypatch.setattr(_export, "find", lambda _, **__: trivec._model.source.Folder(folder))
    with pytest.raises(InputError, match="There is nothing to export"):
        trivec.export("minishlab/potion-tiny", tmp_path / "out")
    monkeypatch.setattr(_export, "find", lambda _, **__: trivec._model.source.Folder(tmp_path))
    with pytest.raises(MissingExtraError, match="exporting needs torch"):
        trivec.export("someone/a-transformer", tmp_path / "out")


def test_the_exporter_refuses_too(folder: Path) -> None:
    from trivec._model.checkpoint import read_checkpoint
    from trivec._model.source import Folder

    with pytest.raises(InputError, match="There is nothing to export"):
        read_checkpoint(Folder(folder))


def test_nothing_to_verify(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(folder)]) == 1
    assert "there are no variants to compare" in capsys.readouterr().err
