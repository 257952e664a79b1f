"""Rerankers as engines: `many` scores pairs, `one` ranks a query's documents, as their users would.

Texts are pairs [query, document] for `many`, and [query, [document, ...]] for `one` (a lone text ranks itself). Runs in
the virtual environment of each engine, as benchmarks/harness/engines.py. Everybody gives logits, for comparing them.
"""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.engines import Arrays, Engine, Options, ort_options

Pairs = Sequence[Sequence[str]]


def trivec(options: Options) -> Engine:
    """This project."""
    library = importlib.import_module("trivec")
    reranker = library.load(options["folder"], device="cpu", precision=options["precision"], threads=options["threads"])
    reranker.max_seq_length = options["tokens"]
    return Engine(
        lambda pairs, batch: reranker.predict(pairs, batch_size=batch or 32, activation_fn="identity"),
        _ranking(reranker.rank),
        _scores,
    )


def sentence_transformers(options: Options) -> Engine:
    """CrossEncoder on torch."""
    return _of_cross_encoder(options)


def sentence_transformers_onnx(options: Options) -> Engine:
    """CrossEncoder's ONNX backend; it exports the graph itself where options say "export"."""
    settings: dict[str, Any] = {"provider": "CPUExecutionProvider", "session_options": ort_options(options)}
    settings |= {"export": True} if options.get("export") else {"file_name": "onnx/model.onnx"}
    return _of_cross_encoder(options, backend="onnx", model_kwargs=settings)


def _of_cross_encoder(options: Options, **settings: Any) -> Engine:  # noqa: ANN401 - of CrossEncoder
    torch = importlib.import_module("torch")
    torch.set_num_threads(options["threads"])
    library = importlib.import_module("sentence_transformers")
    model = library.CrossEncoder(options["folder"], device="cpu", max_length=options["tokens"], **settings)
    if options.get("export"):
        model.save_pretrained(options["export"])
    logits = torch.nn.Identity()
    return Engine(
        lambda pairs, batch: model.predict(
            pairs, batch_size=batch or 32, show_progress_bar=False, activation_fn=logits
        ),
        _ranking(lambda query, documents: model.rank(query, documents, show_progress_bar=False)),
        _scores,
    )


def fastembed(options: Options) -> Engine:
    """FastEmbed's TextCrossEncoder with the same weights as a custom model."""
    library = importlib.import_module("fastembed.rerank.cross_encoder")
    source = importlib.import_module("fastembed.common.model_description").ModelSource(hf="bench/reranker")
    library.TextCrossEncoder.add_custom_model(model="bench/reranker", sources=source, model_file="model.onnx")
    model = library.TextCrossEncoder(
        "bench/reranker", specific_model_path=options["folder"], threads=options["threads"]
    )
    return Engine(
        lambda pairs, batch: list(model.rerank_pairs([tuple(pair) for pair in pairs], batch_size=batch or 64)),
        _ranking(lambda query, documents: _best(list(model.rerank(query, documents)))),
        _scores,
    )


def flagembedding(options: Options) -> Engine:
    """FlagEmbedding's FlagReranker, which cuts long pairs by other rules: other scores of those."""
    importlib.import_module("torch").set_num_threads(options["threads"])
    library = importlib.import_module("FlagEmbedding")
    model = library.FlagReranker(options["folder"], use_fp16=False, devices="cpu", max_length=options["tokens"])
    return Engine(
        lambda pairs, batch: model.compute_score([list(pair) for pair in pairs], batch_size=batch or 128),
        _ranking(lambda query, documents: _best(model.compute_score([[query, text] for text in documents]))),
        _scores,
    )


def padded(options: Options) -> Engine:
    """Plain onnxruntime and tokenizers: sorted by length, each batch padded to its longest."""
    np = importlib.import_module("numpy")
    folder = Path(options["folder"])
    tokenizer = importlib.import_module("tokenizers").Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(options["tokens"])
    session = importlib.import_module("onnxruntime").InferenceSession(
        str(folder / "model.onnx"), ort_options(options), providers=["CPUExecutionProvider"]
    )
    names = [each.name for each in session.get_inputs()]
    fields = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}

    def many(pairs: Pairs, batch: int) -> Any:  # noqa: ANN401
        rows = tokenizer.encode_batch([tuple(pair) for pair in pairs])
        order = sorted(range(len(rows)), key=lambda row: -len(rows[row].ids))
        found = np.zeros(len(rows), dtype=np.float32)  # (N,)
        step = batch or 32
        for start in range(0, len(order), step):
            some = order[start : start + step]
            width = len(rows[some[0]].ids)
            feeds = {name: np.zeros((len(some), width), dtype=np.int64) for name in names}  # (B, S)
            feeds["input_ids"] += options["pad"]
            for name, array in feeds.items():
                for place, row in enumerate(some):
                    values = getattr(rows[row], fields[name])
                    array[place, : len(values)] = values
            found[some] = session.run(None, feeds)[0][:, 0]
        return found

    return Engine(many, _ranking(lambda query, texts: _best(many([(query, text) for text in texts], 0))), _scores)


def _ranking(rank: Callable[[str, list[str]], Any]) -> Callable[[Any], Any]:
    """`one` of an engine."""

    def one(item: Any) -> Any:  # noqa: ANN401 - a text, or a query and its documents
        query, documents = (item, [item]) if isinstance(item, str) else item
        return rank(query, documents)

    return one


def _best(scores: Sequence[float]) -> list[int]:
    """Documents, best first, where an engine gives scores alone."""
    return sorted(range(len(scores)), key=lambda row: -scores[row])


def _scores(found: Any) -> Arrays:  # noqa: ANN401
    np = importlib.import_module("numpy")
    return {"scores": np.asarray(found, dtype=np.float32).reshape(-1)}  # (N,)
