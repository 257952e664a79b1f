"""`load`: from a name or folder to an open encoder."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from trivec._encoders.load_options import LoadOptions
from trivec._engine.devices import parse_providers
from trivec._engine.session import available_devices
from trivec._errors import InputError, ModelNotFoundError
from trivec._loading.choice import check_arguments, check_kind, wanted
from trivec._loading.load_keywords import Kind, LoadKeywords
from trivec._loading.load_record import log_load
from trivec._loading.neutral_arguments import check_neutral
from trivec._loading.open_model import open_model, read_manifest, warn_of_guess, warn_of_unverified
from trivec._model.manifest import EVERY_SIMILARITY, similarity_name
from trivec._model.pin import check_expect

if TYPE_CHECKING:
    from trivec._encoders.dense import DenseEncoder
    from trivec._encoders.hybrid import HybridEncoder
    from trivec._encoders.late import LateEncoder
    from trivec._encoders.reranker import Reranker
    from trivec._encoders.sparse import SparseEncoder
    from trivec._encoders.static import StaticEncoder

_Name = str | os.PathLike[str]


@overload
def load(name_or_folder: _Name, *, kind: Literal["dense"], **keywords: Unpack[LoadKeywords]) -> "DenseEncoder": ...
@overload
def load(name_or_folder: _Name, *, kind: Literal["sparse"], **keywords: Unpack[LoadKeywords]) -> "SparseEncoder": ...
@overload
def load(name_or_folder: _Name, *, kind: Literal["hybrid"], **keywords: Unpack[LoadKeywords]) -> "HybridEncoder": ...
@overload
def load(name_or_folder: _Name, *, kind: Literal["late"], **keywords: Unpack[LoadKeywords]) -> "LateEncoder": ...
@overload
def load(name_or_folder: _Name, *, kind: Literal["static"], **keywords: Unpack[LoadKeywords]) -> "StaticEncoder": ...
@overload
def load(name_or_folder: _Name, *, kind: Literal["reranker"], **keywords: Unpack[LoadKeywords]) -> "Reranker": ...
@overload
def load(name_or_folder: _Name, *, kind: None = None, **keywords: Unpack[LoadKeywords]) -> Any: ...  # noqa: ANN401


def load(
    name_or_folder: _Name,
    *,
    device: str | None = "auto",
    precision: str = "auto",
    threads: int | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    cache_folder: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    prompts: Mapping[str, str] | None = None,
    default_prompt_name: str | None = None,
    truncate_dim: int | None = None,
    max_active_dims: int | None = None,
    similarity_fn_name: str | None = None,
    task: str | None = None,
    providers: Sequence[str | tuple[str, Mapping[str, Any]]] | None = None,
    layout: str = "auto",
    file_name: str | None = None,
    pooling: str | None = None,
    engine: str = "auto",
    low_memory: bool = False,
    expect: str | None = None,
    export: bool = False,
    kind: Kind | None = None,
    **others: Any,
) -> Any:
    """Open a model: a folder written by `trivec export`, a Hub repository with ONNX graphs, or a bare model name.

    Args:
        name_or_folder: a folder, "organization/name" on the Hub, or a bare name ("all-MiniLM-L6-v2" tries
            "sentence-transformers/all-MiniLM-L6-v2"; others are found by a bare name where the cache has them). A
            folder of that name wins, then the Hub's cache, and the network is asked last.
        device: "auto", or None, takes CUDA where it really starts, else the CPU; "cpu", "cuda", "cuda:1" insist.
        precision: the variant: "fp32", "fp16", "int8". "auto" takes fp16 on CUDA and fp32 on CPU, else what there is.
            With engine="openvino" also "bf16": computed in bf16 with the weights of fp32, where the CPU has avx512_bf16
            or AMX.
        threads: CPU threads; None: the smallest of CPU affinity, cgroup quota and OMP_NUM_THREADS (or OMP_THREAD_LIMIT,
            MKL_NUM_THREADS, OPENBLAS_NUM_THREADS) where it is set.
        revision: branch, tag or commit on the Hub; of a folder an InputError.
        cache_dir: the Hub's cache folder; None: its default. `cache_folder` is sentence-transformers' name of it.
        cache_folder: see `cache_dir`.
        local_files_only: never ask the network, as TRIVEC_OFFLINE=1 says for all calls.
        token: for private and gated repositories.
        prompts: added to the model's, and winning over them.
        default_prompt_name: the prompt of calls that name none.
        truncate_dim: cut vectors to their first so many numbers.
        max_active_dims: terms that a sparse row keeps at most; None: as the model says.
        similarity_fn_name: "cosine", "dot", "euclidean" or "manhattan", or a SimilarityFunction of
            sentence-transformers; None: the model's.
        task: open this route of a model with a Router alone ("query", "document"): the query side of an inference-free
            sparse model then needs neither the graph nor its files.
        providers: onnxruntime's execution providers in place of a device, best first, as it takes them: names, or pairs
            of a name and its options ("TensorrtExecutionProvider", "OpenVINOExecutionProvider", "CoreML...", "Dml...",
            or CUDA with options such as gpu_mem_limit). The first has to start; where it runs nothing of the graph and
            another follows, that one takes its place, so `onnxruntime.get_available_providers()` can be handed on. What
            it leaves goes to the next, then to the CPU: `trivec doctor FOLDER --providers ...` shows the shares.
        layout: which texts share a run of fp16 on CUDA. "rows": those of one length. "mixed": any, packed end to end or
            padded, by a graph of its own. "auto": "mixed" where the folder has that graph and
            `trivec verify FOLDER --device cuda` has passed it on this machine, else "rows".
        file_name: the graph to open where there is no manifest and its name is not one of the usual ("model.onnx",
            "onnx/model_quantized.onnx", ...): "model_O4.onnx", "onnx/model_q4.onnx". None: the usual ones, else the
            only one there is. Its precision is then that of its weights.
        pooling: how token embeddings become one vector where there is neither manifest nor modules.json: "cls", "mean",
            "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens". None: as a 1_Pooling folder, the cached base
            model or the model card tells, else as sentence-transformers assumes, with a warning.
        engine: what runs the graph. "auto" is "onnxruntime". "openvino", which `trivec[openvino]` brings, runs the same
            files on the CPU; what it rounds otherwise gives it other fingerprints, so its vectors and onnxruntime's are
            not mixed by mistake. `trivec verify MODEL --engine openvino` proves it on the machine.
        low_memory: leave the weights in the mapped file, where processes share them, and keep nothing between runs: for
            serverless, edge and many workers. On the CPU, by onnxruntime. What it costs is in runtime/README.md; its
            float32 vectors may differ in the last bits, which `engine_fingerprint` tells.
        expect: "sha256:...", the digest of the model's trivec.json, which names all of its files by theirs, as
            `trivec info MODEL` prints it: another model is an IntegrityError before any graph is fetched or opened,
            here and where the encoder is unpickled. "unverified" opens a folder whose trivec.json leaves digests out,
            which is refused otherwise.
        export: where there are only torch weights and `trivec[export]` is installed, export once into the cache
            (`TRIVEC_HOME`) and load that.
        kind: "dense", "sparse", "hybrid", "late", "static" or "reranker": a model of another kind is an error, and type
            checkers and editors know the class that comes back. "dense" takes a static model as well, which is a
            DenseEncoder. None: whatever the model is.
        others: what else SentenceTransformer and SparseEncoder take (model_kwargs, trust_remote_code, backend ...), at
            the values at which it asks for nothing: None, False, {}, backend="onnx".

    Returns:
        A DenseEncoder, SparseEncoder (SPLADE), HybridEncoder (BGE-M3, mGTE), LateEncoder (ColBERT) or Reranker
        (cross-encoders), by the manifest's family. It holds one onnxruntime session; `close()` or `with` frees it. A
        StaticEncoder for a Model2Vec or StaticEmbedding model as it was published: that needs no export and no
        onnxruntime, and safetensors, which `trivec[static]` brings.

    Raises:
        ModelNotFoundError: no such model, or it lacks the variant; where it has only torch weights, the message has
            the `trivec export` line.
        ModelFormatError: the folder cannot be understood, or comes from a later trivec.
        IntegrityError: a file is not the one that the manifest describes, or the manifest not the one of `expect`.
        ProviderError: the device or a provider cannot be had, or does not go with the precision; this CPU has no bf16.
        MissingExtraError: onnxruntime, or the engine that was asked for, is not installed; for a static model,
            safetensors.
        InputError: an argument is out of range, or the model is of another kind.
    """
    started = time.perf_counter()
    check_kind(kind)
    check_arguments(precision, threads, similarity_fn_name, layout, pooling)
    check_expect(expect)
    check_neutral(others)
    if cache_folder is not None:
        if cache_dir is not None:
            raise InputError("cache_dir and cache_folder are two names of one argument. Leave one out.")
        cache_dir = cache_folder
    given = None if providers is None else parse_providers(providers)
    options = LoadOptions(
        name=os.fspath(name_or_folder),
        device="auto" if device is None else str(device),
        precision=precision,
        threads=threads,
        revision=revision,
        cache_dir=None if cache_dir is None else os.fspath(cache_dir),
        local_files_only=local_files_only,
        token=token,
        prompts=prompts,
        default_prompt_name=default_prompt_name,
        truncate_dim=truncate_dim,
        max_active_dims=max_active_dims,
        similarity_fn_name=None
        if similarity_fn_name is None
        else similarity_name(similarity_fn_name, EVERY_SIMILARITY),
        task=task,
        providers=given,
        layout=layout,
        file_name=file_name,
        pooling=pooling,
        engine=engine,
        low_memory=low_memory,
        expect=expect,
    )
    wanted(options)
    try:
        source = options.find(name_or_folder)
        if export:
            from trivec._export import exported

            source = exported(source, pooling=pooling, local_files_only=local_files_only)
        manifest = read_manifest(source, options)
        check_kind(kind, manifest.family, source.name)
    except ModelNotFoundError:
        available_devices()  # whatever should have been found, only a static model runs without an engine
        raise
    encoder = open_model(source, options, manifest)
    warn_of_guess(encoder)
    warn_of_unverified(encoder)
    log_load(encoder, threads, time.perf_counter() - started)
    return encoder
