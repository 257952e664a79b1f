"""Models of late interaction as engines: `many` gives a vector for each token of documents, `one` those of a query.

A list [text] in the place of a text is a query, for `many` too. Runs in the virtual environment of each engine, as
benchmarks/harness/engines.py; "tokens" is what documents are cut at. `maxsim` engines score vectors that were saved.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.harness.engines import Arrays, Engine, Options

Items = Sequence[Any]


def trivec(options: Options) -> Engine:
    """This project."""
    library = importlib.import_module("trivec")
    late = library.load(options["folder"], device="cpu", precision=options["precision"], threads=options["threads"])
    late.document_length = options["tokens"]
    return _engine(
        lambda texts, batch: late.encode_document(texts, batch_size=batch or 32),
        lambda texts, batch: late.encode_query(texts, batch_size=batch or 32),
    )


def sentence_transformers(options: Options) -> Engine:
    """MultiVectorEncoder on torch."""
    importlib.import_module("torch").set_num_threads(options["threads"])
    model = importlib.import_module("sentence_transformers").MultiVectorEncoder(options["folder"], device="cpu")
    model[0].document_length = options["tokens"]
    given = {"show_progress_bar": False, "convert_to_numpy": True}
    return _engine(
        lambda texts, batch: model.encode_document(texts, batch_size=batch or 32, **given),
        lambda texts, batch: model.encode_query(texts, batch_size=batch or 32, **given),
    )


def pylate(options: Options) -> Engine:
    """PyLate's ColBERT on torch."""
    importlib.import_module("torch").set_num_threads(options["threads"])
    library = importlib.import_module("pylate.models")
    model = library.ColBERT(model_name_or_path=options["folder"], device="cpu", document_length=options["tokens"])
    given = {"show_progress_bar": False, "convert_to_numpy": True}
    return _engine(
        lambda texts, batch: model.encode(texts, batch_size=batch or 32, is_query=False, **given),
        lambda texts, batch: model.encode(texts, batch_size=batch or 32, is_query=True, **given),
    )


def fastembed(options: Options) -> Engine:
    """FastEmbed's class for ColBERT with the same weights and marks; it cuts where its tokenizer's files say."""
    module = importlib.import_module("fastembed.late_interaction.colbert")

    class Marked(module.Colbert):  # type: ignore[misc, name-defined]
        """Its marks are numbers of a class."""

        QUERY_MARKER_TOKEN_ID, DOCUMENT_MARKER_TOKEN_ID = options["marks"]
        MIN_QUERY_LENGTH = options["query_length"] - 1

    model = Marked("colbert-ir/colbertv2.0", specific_model_path=options["folder"], threads=options["threads"])
    return _engine(
        lambda texts, batch: list(model.embed(texts, batch_size=batch or 256)),
        lambda texts, _: list(model.query_embed(texts)),
    )


def _engine(documents: Callable[[list[str], int], Any], queries: Callable[[list[str], int], Any]) -> Engine:
    def many(items: Items, batch: int) -> Any:  # noqa: ANN401 - the engine's own type
        if items and isinstance(items[0], list):
            return queries([text for (text,) in items], batch)
        return documents(list(items), batch)

    return Engine(many, lambda text: queries([text], 0), vectors_of)


def vectors_of(found: Any) -> Arrays:  # noqa: ANN401
    """Of N texts all vectors (T, D), one after the other, and where each text's start: (N + 1,)."""
    np = importlib.import_module("numpy")
    listed = [np.asarray(vectors, dtype=np.float32) for vectors in found]  # (t, D) each
    return {"vectors": np.concatenate(listed), "offsets": np.cumsum([0, *map(len, listed)])}


# ---- MaxSim of vectors that were saved -------------------------------------------------------------------------------


def trivec_maxsim(options: Options) -> Engine:
    """MultiVectors.maxsim; in the options' precision."""
    vectors = importlib.import_module("trivec").MultiVectors
    queries, documents = (vectors.load(options[side]) for side in ("queries", "documents"))
    documents = documents.quantize(options.get("precision", "float32"))
    return _scoring(lambda: queries.maxsim(documents, "sum"))


def sentence_transformers_maxsim(options: Options) -> Engine:
    """What MultiVectorEncoder.similarity calls, with the documents as tensors as `encode` gives them."""
    np, torch = importlib.import_module("numpy"), importlib.import_module("torch")
    torch.set_num_threads(options["threads"])
    maxsim, sides = importlib.import_module("sentence_transformers.util").maxsim, []
    for side in ("queries", "documents"):
        with np.load(options[side]) as saved:
            sides.append(list(torch.from_numpy(saved["vectors"]).split(np.diff(saved["offsets"]).tolist())))
    return _scoring(lambda: maxsim(*sides).numpy())


def _scoring(score: Callable[[], Any]) -> Engine:
    return Engine(lambda _, __: score(), lambda _: score(), lambda found: {"scores": found})
