"""The engines that are compared: each opened from options, and asked for many texts or for one.

Runs in the virtual environment of each engine: imports nothing but the engine's own packages, and those when asked.
"""

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Options = Mapping[str, Any]
"""Beside "folder": "threads"; "tokens", what texts are cut at, where it is not the engine's own limit; and others."""
Arrays = dict[str, Any]


class Engine(NamedTuple):
    """A model that is open."""

    many: Callable[[list[str], int], Any]
    """Encode texts in batches of so many (0: as the engine pleases)."""
    one: Callable[[str], Any]
    """Encode one text, as its users would."""
    arrays: Callable[[Any], Arrays]
    """What `many` gave as named arrays, for comparing engines: done outside any timing."""


# ---- the engines ---------------------------------------------------------------------------------------------------


def trivec(options: Options) -> Engine:
    """This project; a dense, sparse or hybrid folder."""
    library = importlib.import_module("trivec")
    settings = {"device": "cpu"} | {
        key: options[key] for key in ("device", "layout", "precision", "threads") if key in options
    }
    encoder = library.load(options["folder"], **settings)
    if "tokens" in options:
        encoder.max_seq_length = options["tokens"]
    kind = type(encoder).__name__
    if kind == "HybridEncoder":

        def hybrid(texts: list[str], _: int) -> Any:  # noqa: ANN401 - the engine's own type
            return encoder.encode(texts, return_dense=True, return_sparse=True, return_colbert_vecs=True)

        def parts(found: Any) -> Arrays:  # noqa: ANN401
            terms = [row.to_dict() for row in found.sparse]
            return {"dense": found.dense, "sparse": _rows(terms, found.sparse.dim), "colbert": _stack(found.colbert)}

        return Engine(hybrid, lambda text: hybrid([text], 0), parts)
    if kind == "SparseEncoder":
        many = encoder.encode_document
        return Engine(
            lambda texts, _: many(texts),
            many,
            lambda found: {"sparse": _rows([row.to_dict() for row in found], found.dim)},
        )
    return Engine(
        lambda texts, batch: encoder.encode(texts, batch_size=batch or 32),
        encoder.encode,
        lambda found: {"dense": found},
    )


def sentence_transformers(options: Options) -> Engine:
    """SentenceTransformer on torch; with a "dtype" in that, and PyTorch's own attention."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(options["threads"])
    library, device = importlib.import_module("sentence_transformers"), options.get("device", "cpu")
    settings: dict[str, Any] = {}
    if options.get("dtype"):
        settings = {"dtype": getattr(torch, options["dtype"]), "attn_implementation": "sdpa"}
    return _of_sentence_transformer(
        library.SentenceTransformer(options["folder"], device=device, model_kwargs=settings), options
    )


def sentence_transformers_onnx(options: Options) -> Engine:
    """SentenceTransformer's ONNX backend; it exports the graph itself where options say "export"."""
    importlib.import_module("torch").set_num_threads(options["threads"])
    library = importlib.import_module("sentence_transformers")
    settings: dict[str, Any] = {"provider": "CPUExecutionProvider", "session_options": _ort_options(options)}
    settings |= {"export": True} if options.get("export") else {"file_name": "onnx/model.onnx"}
    model = library.SentenceTransformer(options["folder"], device="cpu", backend="onnx", model_kwargs=settings)
    if options.get("export"):
        model.save_pretrained(options["export"])
    return _of_sentence_transformer(model, options)


def _of_sentence_transformer(model: Any, options: Options) -> Engine:  # noqa: ANN401
    model.max_seq_length = options["tokens"]
    return Engine(
        lambda texts, batch: model.encode(texts, batch_size=batch or 32, show_progress_bar=False),
        lambda text: model.encode(text, show_progress_bar=False),
        lambda found: {"dense": found},
    )


def ortmodel(options: Options) -> Engine:
    """Optimum's ORTModelForFeatureExtraction with mean pooling in numpy.

    It has no `encode`: this one sorts by length, as sentence-transformers does, tokenizes and pools batch by batch.
    """
    np = importlib.import_module("numpy")
    runtime = importlib.import_module("optimum.onnxruntime")
    tokenizer = importlib.import_module("transformers").AutoTokenizer.from_pretrained(options["folder"])
    model = runtime.ORTModelForFeatureExtraction.from_pretrained(
        options["folder"],
        subfolder="onnx",
        file_name="model.onnx",
        provider="CPUExecutionProvider",
        session_options=_ort_options(options),
    )

    def encode(texts: list[str], batch: int) -> Any:  # noqa: ANN401
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        found = np.empty((len(texts), model.config.hidden_size), dtype=np.float32)  # (N, H)
        for start in range(0, len(order), batch or 32):
            rows = order[start : start + (batch or 32)]
            inputs = tokenizer(
                [texts[i] for i in rows],
                padding=True,
                truncation=True,
                max_length=options["tokens"],
                return_tensors="np",
            )
            states = model(**inputs).last_hidden_state  # (B, S, H)
            mask = inputs["attention_mask"][..., None].astype(np.float32)  # (B, S, 1)
            pooled = (states * mask).sum(1) / mask.sum(1)  # (B, H)
            found[rows] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return found

    return Engine(encode, lambda text: encode([text], 1)[0], lambda found: {"dense": found})


def fastembed(options: Options) -> Engine:
    """FastEmbed with the same weights as a custom model."""
    np = importlib.import_module("numpy")
    library = importlib.import_module("fastembed")
    description = importlib.import_module("fastembed.common.model_description")
    library.TextEmbedding.add_custom_model(
        model="bench/minilm",
        pooling=description.PoolingType.MEAN,
        normalization=True,
        sources=description.ModelSource(hf="bench/minilm"),
        dim=384,
        model_file="model.onnx",
    )
    model = library.TextEmbedding("bench/minilm", specific_model_path=options["folder"], threads=options["threads"])
    return Engine(
        lambda texts, batch: np.stack(list(model.embed(texts, batch_size=batch or 256, parallel=None))),
        lambda text: next(iter(model.embed([text]))),
        lambda found: {"dense": found},
    )


def sparse_encoder(options: Options) -> Engine:
    """sentence-transformers' SparseEncoder on torch."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(options["threads"])
    model = importlib.import_module("sentence_transformers").SparseEncoder(options["folder"], device="cpu")
    model.max_seq_length = options.get("tokens", model.max_seq_length)
    return Engine(
        lambda texts, batch: model.encode_document(texts, batch_size=batch or 32, show_progress_bar=False),
        lambda text: model.encode_document(text, show_progress_bar=False),
        lambda found: {"sparse": found.to_dense().numpy()},
    )


def fastembed_sparse(options: Options) -> Engine:
    """FastEmbed's SPLADE with other weights in its place; rows are counted and let go, as a user would store them."""
    library = importlib.import_module("fastembed")
    model = library.SparseTextEmbedding(
        "prithivida/Splade_PP_en_v1", specific_model_path=options["folder"], threads=options["threads"]
    )
    return Engine(
        lambda texts, batch: sum(len(row.indices) for row in model.embed(texts, batch_size=batch or 256)),
        lambda text: next(iter(model.embed([text]))),
        lambda _: {},
    )


def flagembedding(options: Options) -> Engine:
    """FlagEmbedding's BGEM3FlagModel, all three outputs."""
    importlib.import_module("torch").set_num_threads(options["threads"])
    library = importlib.import_module("FlagEmbedding")
    model = library.BGEM3FlagModel(options["folder"], use_fp16=False, devices="cpu")

    def encode(texts: list[str], batch: int) -> Any:  # noqa: ANN401
        return model.encode(
            texts,
            batch_size=batch or 256,
            max_length=options["tokens"],
            return_dense=True,
            return_sparse=True,
            return_colbert_vecs=True,
        )

    def parts(found: Any) -> Arrays:  # noqa: ANN401
        terms = [{int(k): float(v) for k, v in row.items()} for row in found["lexical_weights"]]
        width = model.tokenizer.vocab_size
        return {
            "dense": found["dense_vecs"],
            "sparse": _rows(terms, max(width, options["vocabulary"])),
            "colbert": _stack(found["colbert_vecs"]),
        }

    return Engine(encode, lambda text: encode([text], 1), parts)


def model2vec(options: Options) -> Engine:
    """model2vec's StaticModel: in this process (it starts others above 10,000 texts), or without "tokens" as it is."""
    model = importlib.import_module("model2vec").StaticModel.from_pretrained(options["folder"])
    if "tokens" not in options:
        return Engine(lambda texts, _: model.encode(texts), model.encode, lambda found: {"dense": found})
    return Engine(
        lambda texts, batch: model.encode(
            texts, max_length=options["tokens"], batch_size=batch or 1024, use_multiprocessing=False
        ),
        lambda text: model.encode([text], max_length=options["tokens"]),
        lambda found: {"dense": found},
    )


def ceiling(options: Options) -> Engine:
    """Matrix products alone: each graph of a folder, operations a second. `many` gives {file stem: operations/s}."""
    np = importlib.import_module("numpy")
    ort = importlib.import_module("onnxruntime")
    bound = {}
    provider, device = options.get("provider", "CPUExecutionProvider"), options.get("device", "cpu")
    index = int(options.get("index", 0))
    settings = {} if device == "cpu" else {"device_id": str(index)}
    if device != "cpu" and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    for file in sorted(Path(options["folder"]).glob("*.onnx")):
        session = ort.InferenceSession(
            str(file), _ort_options(options), providers=[(provider, settings)], enable_fallback=0
        )
        if session.get_providers()[0] != provider:
            raise RuntimeError(f"onnxruntime fell back to {session.get_providers()[0]}")
        kind, rows, depth, width = file.stem.split("-")  # as benchmarks/harness/models.py names them
        x = np.random.default_rng(0).integers(0, 255, (int(rows), int(depth)), dtype=np.uint8)  # (M, K)
        binding = session.io_binding()
        dtype = np.float16 if kind == "fp16" else np.float32
        factor = x if kind == "int8" else x.astype(dtype)
        binding.bind_ortvalue_input("x", ort.OrtValue.ortvalue_from_numpy(factor, device, index))
        result = ort.OrtValue.ortvalue_from_shape_and_type([int(rows), int(width)], dtype, device, index)
        binding.bind_ortvalue_output("y", result)  # made once: what is measured is the product, not fresh pages
        bound[file.stem] = (session, binding, 2 * int(rows) * int(depth) * int(width))

    def measure(_: list[str], __: int) -> dict[str, float]:
        found = {}
        for name, (session, binding, operations) in bound.items():
            session.run_with_iobinding(binding)
            runs, start = 0, time.perf_counter()
            while time.perf_counter() - start < options["seconds"]:
                session.run_with_iobinding(binding)
                runs += 1
            found[name] = runs * operations / (time.perf_counter() - start)
        return found

    return Engine(measure, lambda _: None, lambda _: {})


ENGINES: dict[str, Callable[[Options], Engine]] = {
    "trivec": trivec,
    "sentence-transformers": sentence_transformers,
    "sentence-transformers-onnx": sentence_transformers_onnx,
    "ortmodel": ortmodel,
    "fastembed": fastembed,
    "fastembed-sparse": fastembed_sparse,
    "sparse-encoder": sparse_encoder,
    "flagembedding": flagembedding,
    "model2vec": model2vec,
    "ceiling": ceiling,
}


def _ort_options(options: Options) -> Any:  # noqa: ANN401
    found = importlib.import_module("onnxruntime").SessionOptions()
    found.intra_op_num_threads, found.inter_op_num_threads = options["threads"], 1
    return found


def _rows(terms: Sequence[Mapping[int, float]], width: int) -> Any:  # noqa: ANN401
    """Rows of term weights as one dense array (N, V) float32."""
    np = importlib.import_module("numpy")
    found = np.zeros((len(terms), width), dtype=np.float32)
    for row, weights in zip(found, terms, strict=True):
        row[list(weights.keys())] = list(weights.values())
    return found


def _stack(rows: Any) -> Any:  # noqa: ANN401
    """The token vectors of all texts below each other (T, D)."""
    np = importlib.import_module("numpy")
    return np.concatenate([np.asarray(row) for row in rows])
