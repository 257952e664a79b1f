"""The keyword arguments of `load`, for type checkers and editors: one list for all of its overloads."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

Kind = Literal["dense", "sparse", "hybrid", "late", "static", "reranker"]
Precision = Literal["auto", "fp32", "bf16", "fp16", "int8"]
Engine = Literal["auto", "onnxruntime", "openvino"]


class LoadKeywords(TypedDict, total=False):
    """As `load` describes them."""

    device: Literal["auto", "cpu", "cuda"] | str | None
    """Any string, since "cuda:1" is one; the literals are what an editor offers."""
    precision: Precision
    threads: int | None
    revision: str | None
    cache_dir: str | os.PathLike[str] | None
    cache_folder: str | os.PathLike[str] | None
    local_files_only: bool
    token: str | bool | None
    prompts: Mapping[str, str] | None
    default_prompt_name: str | None
    truncate_dim: int | None
    max_active_dims: int | None
    similarity_fn_name: Any
    """A name, or a SimilarityFunction of sentence-transformers."""
    task: str | None
    providers: Sequence[str | tuple[str, Mapping[str, Any]]] | None
    layout: Literal["auto", "rows", "mixed"]
    file_name: str | None
    pooling: Literal["cls", "mean", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens"] | None
    engine: Engine
    low_memory: bool
    expect: str | None
    export: bool
    # What sentence-transformers takes as well, at values that ask for nothing: neutral_arguments.py.
    model_kwargs: Any
    processor_kwargs: Any
    tokenizer_kwargs: Any
    config_kwargs: Any
    trust_remote_code: Any
    backend: Any
    model_card_data: Any
    modules: Any
    use_auth_token: Any
