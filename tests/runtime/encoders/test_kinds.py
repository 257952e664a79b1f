"""A further kind of encoder is one file and one row of the table; and how deep a call goes."""

import dataclasses
import sys
import types
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.tiny_heads import hybrid
from tests.support.tiny_model import TinyModel

import trivec
from trivec import InputError, MultiVectors, store
from trivec._cli.main import main
from trivec._encoders.calls import Call, for_task
from trivec._encoders.fingerprint import heads_fingerprint
from trivec._encoders.text_encoder import TextEncoder
from trivec._gate.verify import verify
from trivec._inspect.explain import explain
from trivec._model import families, manifest_file
from trivec._pooling.heads import Wanted
from trivec._tokens.inputs import as_texts
from trivec._vectors.heads import HybridVectors
from trivec.integrations.qdrant import QdrantEncoder

TEXTS = ["the cat sat on the mat", "", "A small RED boat", "cat", "the cat sat on the mat"]


class TokenEncoder(TextEncoder[HybridVectors]):
    """The one file: vectors of tokens alone, as ColBERT has them."""

    def encode(
        self,
        inputs: str | Iterable[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        device: str | list[str] | None = None,
        *,
        task: str | None = None,
        on_overflow: str = "truncate",
        pool: Any = None,
        chunk_size: int | None = None,
    ) -> HybridVectors:
        call = self._call(
            prompt_name=prompt_name,
            prompt=prompt,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            device=device,
            task=task,
            on_overflow=on_overflow,
            pool=pool,
            chunk_size=chunk_size,
        )
        texts, single = as_texts(inputs, None)
        return self._formed(self._run(texts, call), call, texts, single)

    encode_query = for_task(encode, "query")
    encode_document = for_task(encode, "document")

    def fingerprint_of(
        self, prompt_name: str | None = None, prompt: str | None = None, *, task: str | None = None
    ) -> str:
        read = self.prompt_text(prompt, prompt_name)
        digest = self._options.digest
        return heads_fingerprint(self.route(task), variant=self.precision, digest=digest, prompt=read, settings={})

    def _call(self, **options: Any) -> Call:
        return self._checked(Wanted(multi=True), options)

    def _formed(self, vectors: HybridVectors, call: Call, texts: Sequence[str], single: bool) -> HybridVectors:  # noqa: ARG002
        return vectors.take(0) if single else vectors


@pytest.fixture
def folder(tiny_model: "TinyModel", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of the new family, which has one row."""
    module = types.ModuleType("trivec._encoders.tokens")
    module.TokenEncoder = TokenEncoder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    table: Any = families.FAMILIES
    monkeypatch.setitem(table, "tokens", families.Family("tokens:TokenEncoder", ("colbert",)))
    made = hybrid(tmp_path / "model", tiny_model).folder
    manifest = manifest_file.read(made)
    route = dataclasses.replace(manifest.routes["default"], pooling=None, steps=(), sparse=None)
    main_encoder = manifest.encoders["main"]
    fp32 = dataclasses.replace(main_encoder.variants["fp32"], output="colbert_vecs")
    encoders = {"main": dataclasses.replace(main_encoder, variants={"fp32": fp32})}
    other = dataclasses.replace(manifest, family="tokens", dim=3, encoders=encoders, routes={"default": route})
    (made / "trivec.json").write_text(manifest_file.dumps(other), encoding="utf-8")
    return made


def test_a_new_kind_in_everything_that_takes_an_encoder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with trivec.load(folder, device="cpu", threads=1) as encoder:
        assert type(encoder) is TokenEncoder
        assert encoder.heads == ("colbert",)
        several = encoder.encode(TEXTS)
        assert several.parts()[:2] == (None, None)
        assert isinstance(several.colbert, MultiVectors)
        np.testing.assert_array_equal(encoder.encode("cat").colbert, several.colbert[3])
        with pytest.raises(InputError, match=r"heads \['dense'\]: expected some of colbert"):
            encoder.represent(TEXTS, ["dense"])
        blocks = list(encoder.encode_iter(iter(TEXTS), window=2))
        assert [block.rows for block in blocks] == [2, 2, 1]
        with trivec.Batcher(encoder) as batcher:
            np.testing.assert_array_equal(batcher.represent("cat").colbert, several.colbert[3])
        for name in ("out.jsonl", "out.parquet"):
            store.write(tmp_path / name, encoder, TEXTS, window=2)
            read: Any = store.read(tmp_path / name)
            assert read.fingerprint == encoder.fingerprint
            np.testing.assert_allclose(read.vectors.colbert.vectors, several.colbert.vectors, rtol=1e-6)
        found = explain(encoder, TEXTS[:1])
        assert found.texts[0].colbert == (len(several.colbert[0]), 3)
        kind: Any = encoder
        points = QdrantEncoder(kind, names={"colbert": "tokens"})
        vectors: Any = next(iter(points.iter_points(["cat"]))).vector
        np.testing.assert_allclose(vectors["tokens"], several.colbert[3], rtol=1e-6)
    checks = verify(folder, device="cpu", threads=1)
    assert [(check.head, check.failed) for check in checks] == [("colbert", [])]
    source = tmp_path / "texts.txt"
    source.write_text("cat\nthe dog\n", encoding="utf-8")
    arguments = ["encode", str(folder), str(source), "--output", str(tmp_path / "cli.jsonl"), "--device", "cpu"]
    assert main(arguments) == 0
    written: Any = store.read(tmp_path / "cli.jsonl")
    assert len(written.vectors.colbert) == 2
    assert main(["explain", str(folder), "cat", "--device", "cpu"]) == 0
    assert main(["info", str(folder)]) == 0
    assert "3" in capsys.readouterr().out


def test_a_text_reaches_onnxruntime_in_seven_frames(
    tiny_folder: Path, tiny_model: "TinyModel", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = str(Path(trivec.__file__).parent)
    for folder in (tiny_folder, hybrid(tmp_path / "hybrid", tiny_model).folder):
        with trivec.load(folder, device="cpu", threads=1) as encoder:
            session = encoder.route().session
            assert session is not None
            real = session._session
            depths: list[int] = []

            class Watched:
                def run(self, *arguments: Any, real: Any = real, depths: list[int] = depths) -> Any:
                    frame: Any = sys._getframe(1)
                    count = 0
                    while frame is not None:
                        count += frame.f_code.co_filename.startswith(ours)
                        frame = frame.f_back
                    depths.append(count)
                    return real.run(*arguments)

            monkeypatch.setattr(session, "_session", Watched())
            encoder.encode("the cat")
            encoder.encode(["the cat"])
            assert depths
            assert max(depths) <= 7, depths
