"""`load`: from a name or folder to an open encoder."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from trivec._encoders.load_options import LoadOptions
from trivec._engine.devices import parse_providers
from trivec._engine.session import available_devices
from trivec._errors import ModelNotFoundError
from trivec._loading.choice import check_arguments, wanted
from trivec._loading.open_model import open_model, read_manifest


def load(
    name_or_folder: str | os.PathLike[str],
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
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
    export: bool = False,
) -> Any:  # noqa: ANN401 - the family decides the class
    """Open a model: a folder written by `trivec export`, a Hub repository with ONNX graphs, or a bare model name.

    Args:
        name_or_folder: a folder, "organization/name" on the Hub, or a bare name ("all-MiniLM-L6-v2" tries
            "sentence-transformers/all-MiniLM-L6-v2" first). The Hub's cache is asked before the network.
        device: "auto" takes CUDA where it really starts, else the CPU; "cpu", "cuda", "cuda:1" insist.
        precision: the variant: "fp32", "fp16", "int8". "auto" takes fp16 on CUDA and fp32 on CPU, else what there is.
        threads: CPU threads; None: the smaller of CPU affinity and cgroup quota.
        revision: branch, tag or commit on the Hub.
        cache_dir: the Hub's cache folder; None: its default.
        local_files_only: never ask the network.
        token: for private and gated repositories.
        prompts: added to the model's, and winning over them.
        default_prompt_name: the prompt of calls that name none.
        truncate_dim: cut vectors to their first so many numbers.
        max_active_dims: terms that a sparse row keeps at most; None: as the model says.
        similarity_fn_name: "cosine", "dot", "euclidean" or "manhattan"; None: the model's.
        task: open this route of a model with a Router alone ("query", "document"): the query side of an inference-free
            sparse model then needs neither the graph nor its files.
        providers: onnxruntime's execution providers in place of a device, best first, as it takes them: names, or pairs
            of a name and its options ("TensorrtExecutionProvider", "OpenVINOExecutionProvider", "CoreML...", "Dml...",
            or CUDA with options such as gpu_mem_limit). The first has to start and to run a part of the graph; what it
            leaves goes to the next, then to the CPU: `trivec doctor FOLDER --providers ...` shows the shares.
        layout: which texts share a run of fp16 on CUDA. "rows": those of one length. "mixed": any, packed end to end or
            padded, by a graph of its own. "auto": "mixed" where the folder has that graph and
            `trivec verify FOLDER --device cuda` has passed it on this machine, else "rows".
        export: where there are only torch weights and `trivec[export]` is installed, export once into the cache
            (`TRIVEC_HOME`) and load that.

    Returns:
        A DenseEncoder, SparseEncoder (SPLADE) or HybridEncoder (BGE-M3, mGTE), by the manifest's family. It holds one
        onnxruntime session; `close()` or `with` frees it. A StaticEncoder for a Model2Vec or StaticEmbedding model as
        it was published: that needs no export and no onnxruntime, and safetensors, which `trivec[static]` brings.

    Raises:
        ModelNotFoundError: no such model, or it lacks the variant; where it has only torch weights, the message has
            the `trivec export` line.
        ModelFormatError: the folder cannot be understood, or comes from a later trivec.
        IntegrityError: a file is not the one that the manifest describes.
        ProviderError: the device or a provider cannot be had, or does not go with the precision.
        MissingExtraError: onnxruntime is not installed; for a static model, safetensors.
        InputError: an argument is out of range.
    """
    check_arguments(precision, threads, similarity_fn_name, layout)
    given = None if providers is None else parse_providers(providers)
    options = LoadOptions(
        name=os.fspath(name_or_folder),
        device=device,
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
        similarity_fn_name=similarity_fn_name,
        task=task,
        providers=given,
        layout=layout,
    )
    wanted(options)
    try:
        source = options.find(name_or_folder)
        if export:
            from trivec._export import exported

            source = exported(source, revision=revision)
        manifest = read_manifest(source, task)
    except ModelNotFoundError:
        available_devices()  # whatever should have been found, only a static model runs without an engine
        raise
    return open_model(source, options, manifest)
