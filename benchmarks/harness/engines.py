"""The engines that are compared: each opened from options, and asked for many texts or for one.

Runs in the virtual environment of each engine: imports nothing but the engine's own packages, and those when asked.
"""

import importlib
import sys
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
    known = ("device", "engine", "layout", "low_memory", "precision", "providers", "threads")
    settings = {"device": "cpu"} | {key: options[key] for key in known if key in options}
    if "providers" in settings:
        del settings["device"]
        settings["providers"] = [tuple(each) if isinstance(each, list) else each for each in settings["providers"]]
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
    """SentenceTransformer on torch; with a "dtype" in that; "compiled", by torch."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(options["threads"])
    library, device = importlib.import_module("sentence_transformers"), options.get("device", "cpu")
    settings: dict[str, Any] = {}
    if options.get("dtype"):
        settings = {"dtype": getattr(torch, options["dtype"])}
    model = library.SentenceTransformer(options["folder"], device=device, model_kwargs=settings)
    if options.get("compiled"):
        model.compile(dynamic=True)
    return _of_sentence_transformer(model, options)


def sentence_transformers_openvino(options: Options) -> Engine:
    """SentenceTransformer's OpenVINO backend on the graph that it exports itself, kept in "export"."""
    importlib.import_module("torch").set_num_threads(options["threads"])
    sys.modules["torchvision"] = None  # type: ignore[assignment]  # the index's does not fit a torch built for CPUs
    library = importlib.import_module("sentence_transformers")
    settings = {"ov_config": {"INFERENCE_NUM_THREADS": options["threads"]}}
    made = Path(options["export"])
    if not (made / "modules.json").is_file():
        model = library.SentenceTransformer(options["folder"], device="cpu", backend="openvino", model_kwargs=settings)
        model.save_pretrained(str(made))
    return _of_sentence_transformer(
        library.SentenceTransformer(str(made), device="cpu", backend="openvino", model_kwargs=settings), options
    )


def sentence_transformers_onnx(options: Options) -> Engine:
    """SentenceTransformer's ONNX backend; it exports the graph itself where options say "export"."""
    importlib.import_module("torch").set_num_threads(options["threads"])
    library = importlib.import_module("sentence_transformers")
    settings: dict[str, Any] = {"provider": "CPUExecutionProvider", "session_options": ort_options(options)}
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
        session_options=ort_options(options),
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


def openvino(options: Options) -> Engine:
    """A graph in OpenVINO as its users write it: sorted by length, padded, mean pooling in numpy.

    Many texts go through as many streams as there are threads, one text takes all threads; each is compiled when it is
    first asked for. With "export" the graph is made int8 by NNCF first, from the texts of "calibration", and kept.
    """
    made = _OpenVino(options)
    return Engine(made.many, made.one, lambda found: {"dense": found})


class _OpenVino:
    def __init__(self, options: Options) -> None:
        self._np, self._library = importlib.import_module("numpy"), importlib.import_module("openvino")
        self._options, self._core = options, self._library.Core()
        self._tokenizer = importlib.import_module("tokenizers").Tokenizer.from_file(
            f"{options['folder']}/tokenizer.json"
        )
        self._tokenizer.enable_truncation(options["tokens"])
        self._tokenizer.enable_padding()
        self._model = self._core.read_model(options["graph"])
        self._inputs = {port.any_name for port in self._model.inputs}
        if "export" in options:
            if not Path(options["export"]).is_file():
                self._quantize()
            self._model = self._core.read_model(options["export"])
        self._queue: Any = None
        self._request: Any = None

    def _quantize(self) -> None:
        nncf = importlib.import_module("nncf")
        lines = Path(self._options["calibration"]).read_text(encoding="utf-8").splitlines()
        dataset = nncf.Dataset([self._feeds([text])[0] for text in lines])
        found = nncf.quantize(self._model, dataset, model_type=nncf.ModelType.TRANSFORMER)
        self._library.save_model(found, self._options["export"])

    def _compiled(self, streams: int) -> Any:  # noqa: ANN401
        settings = {"INFERENCE_NUM_THREADS": self._options["threads"], "NUM_STREAMS": streams}
        settings["INFERENCE_PRECISION_HINT"] = self._options["hint"]
        return self._core.compile_model(self._model, "CPU", settings)

    def _feeds(self, texts: Sequence[str]) -> tuple[dict[str, Any], Any]:
        """Inputs by name, and the mask, (B, S) int64."""
        read = self._tokenizer.encode_batch(list(texts))
        columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
        arrays = {k: self._np.array([getattr(e, v) for e in read], dtype="int64") for k, v in columns.items()}
        return {name: arrays[name] for name in self._inputs}, arrays["attention_mask"]

    def _pooled(self, states: Any, mask: Any) -> Any:  # noqa: ANN401
        weights = mask[..., None].astype("float32")  # (B, S, 1)
        sums = (states * weights).sum(1) / weights.sum(1)  # (B, H)
        return sums / self._np.linalg.norm(sums, axis=1, keepdims=True)

    def many(self, texts: list[str], batch: int) -> Any:  # noqa: ANN401
        if self._queue is None:
            streams = self._options["threads"]
            self._queue = self._library.AsyncInferQueue(self._compiled(streams), streams)
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        found: list[Any] = [None] * len(texts)

        def keep(request: Any, told: Any) -> None:  # noqa: ANN401
            rows, mask = told
            for row, vector in zip(rows, self._pooled(request.get_output_tensor(0).data, mask), strict=True):
                found[row] = vector

        self._queue.set_callback(keep)
        for start in range(0, len(order), batch or 32):
            rows = order[start : start + (batch or 32)]
            inputs, mask = self._feeds([texts[i] for i in rows])
            self._queue.start_async(inputs, (rows, mask))
        self._queue.wait_all()
        return self._np.stack(found)

    def one(self, text: str) -> Any:  # noqa: ANN401
        if self._request is None:
            self._request = self._compiled(1).create_infer_request()
        inputs, mask = self._feeds([text])
        self._request.infer(inputs)
        return self._pooled(self._request.get_output_tensor(0).data, mask)[0]


def ctranslate2(options: Options) -> Engine:
    """A BERT in CTranslate2, converted from the checkpoint where it is not yet; mean pooling in numpy."""
    np, library = importlib.import_module("numpy"), importlib.import_module("ctranslate2")
    made = Path(options["export"])
    if not (made / "model.bin").is_file():
        library.converters.TransformersConverter(options["folder"]).convert(str(made), force=True)
    tokenizer = importlib.import_module("tokenizers").Tokenizer.from_file(f"{options['folder']}/tokenizer.json")
    tokenizer.enable_truncation(options["tokens"])
    tokenizer.no_padding()
    model = library.Encoder(str(made), device="cpu", compute_type=options["compute"], intra_threads=options["threads"])

    def encode(texts: list[str], batch: int) -> Any:  # noqa: ANN401
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        found: list[Any] = [None] * len(texts)
        for start in range(0, len(order), batch or 32):
            rows = order[start : start + (batch or 32)]
            read = [e.ids for e in tokenizer.encode_batch([texts[i] for i in rows])]
            states = np.array(model.forward_batch(read).last_hidden_state)  # (B, S, H)
            for row, ids, state in zip(rows, read, states, strict=True):
                pooled = state[: len(ids)].mean(0)  # (H,)
                found[row] = pooled / np.linalg.norm(pooled)
        return np.stack(found)

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
            str(file), ort_options(options), providers=[(provider, settings)], enable_fallback=0
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
    "sentence-transformers-openvino": sentence_transformers_openvino,
    "openvino": openvino,
    "ctranslate2": ctranslate2,
    "ortmodel": ortmodel,
    "fastembed": fastembed,
    "fastembed-sparse": fastembed_sparse,
    "sparse-encoder": sparse_encoder,
    "flagembedding": flagembedding,
    "model2vec": model2vec,
    "ceiling": ceiling,
}


def ort_options(options: Options) -> Any:  # noqa: ANN401
    """Threads of a session."""
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
