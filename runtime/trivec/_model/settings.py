"""The settings of a checkpoint's JSON files that are understood; any other may change the vectors, and is refused.

The keys are those of sentence-transformers 6.2 and of its older generations.
"""

from collections.abc import Mapping
from typing import Any

from trivec._errors import ModelFormatError
from trivec._model.source import Source

Known = Mapping[str, tuple[Any, ...] | None]
"""By key: the values that ask for nothing; None where each value is used, or where no vector depends on it."""

_NOTHING: tuple[Any, ...] = (None, "", [], {})
_SIDES = {"module_input_name": ("sentence_embedding",), "module_output_name": ("sentence_embedding",)}
_WIDTH = dict.fromkeys(("word_embedding_dimension", "embedding_dimension"))

MODULES: Known = {**dict.fromkeys(("idx", "name", "path", "type")), "kwargs": ()}
MODEL: Known = dict.fromkeys(
    (
        *("prompts", "default_prompt_name", "truncate_dim", "max_active_dims", "model_type"),
        *("__version__", "requirements", "similarity_fn_name"),
    )
)
RERANKER: Known = {
    **MODEL,
    **dict.fromkeys(("truncate_dim", "max_active_dims"), ()),
    "activation_fn": None,
    "keep_in_fp32_modules": None,  # all that is exported is float32, and fp16 and int8 are compared with it
}
TRANSFORMER: Known = {
    **dict.fromkeys(("max_seq_length", "do_lower_case", "transformer_task", "modality_config", "processing_kwargs")),
    **dict.fromkeys(
        ("model_kwargs", "config_kwargs", "processor_kwargs", "model_args", "config_args", "tokenizer_args")
    ),
    "unpad_inputs": None,  # how a batch is laid out
    # which of these is modality_config's
    "module_output_name": ("token_embeddings", "sentence_embedding", "scores", "causal_logits"),
    **dict.fromkeys(("query_length", "document_length", "query_expansion", "tokenizer_name_or_path"), ()),
}
TOKENIZER: Known = dict.fromkeys(
    (
        *("model_max_length", "truncation_side", "padding_side", "use_fast", "clean_up_tokenization_spaces"),
        *("trust_remote_code", "pad_token", "model_input_names"),
    )
)
"""Arguments of a tokenizer that a tokenizer.json need not know: cutting is the runtime's, padding nobody's."""
STEPS: Mapping[str, Known] = {
    "Dense": {
        **dict.fromkeys(("in_features", "out_features", "bias", "activation_function", "use_residual")),
        **_SIDES,
    },
    "LayerNorm": {"dimension": None},
    "Normalize": _SIDES,
    "Dropout": {"dropout": None},
}
_OF_TOKENS = {"module_input_name": ("token_embeddings",), "module_output_name": ("token_embeddings",)}
LATE_STEPS: Mapping[str, Known] = {"Dense": {**STEPS["Dense"], **_OF_TOKENS}, "Normalize": _OF_TOKENS}
LATE_MASK: Known = {**dict.fromkeys(("skiplist_words", "skiplist_tasks")), "keep_only_token_ids": ()}
LATE_TRANSFORMER: Known = {
    **TRANSFORMER,
    **dict.fromkeys(("query_length", "document_length", "query_expansion")),
}
PYLATE: Known = {
    **MODEL,
    **dict.fromkeys(("truncate_dim", "max_active_dims"), ()),
    **dict.fromkeys(("query_prefix", "document_prefix", "query_length", "document_length", "skiplist_words")),
    **dict.fromkeys(("do_query_expansion", "attend_to_expansion_tokens", "attend_to_mask_tokens")),
}
MULTI_VECTOR: Known = {**MODEL, **dict.fromkeys(("truncate_dim", "max_active_dims"), ())}
SPLADE_POOLING: Known = {**dict.fromkeys(("pooling_strategy", "activation_function")), **_WIDTH}
LOGIT_SCORE: Known = {**dict.fromkeys(("true_token_id", "false_token_id")), "module_input_name": ("causal_logits",)}
SPARSE_TABLE: Known = dict.fromkeys(("path", "frozen"))
ROUTER: Known = dict.fromkeys(("default_route", "allow_empty_key", "route_mappings"))


def pooling(modes: Mapping[str, str]) -> Known:
    """A Pooling's keys; of the older generation one for each mode."""
    return {**dict.fromkeys(("pooling_mode", "include_prompt", *modes)), **_WIDTH}


def check_settings(source: Source, path: str, given: Mapping[str, Any], known: Known) -> None:
    """Raise ModelFormatError for the first setting of a file that asks for something unknown."""
    for key, value in given.items():
        allowed = known.get(key, ())
        if allowed is None or value in allowed or value in _NOTHING:
            continue
        expected = f"it takes {' or '.join(map(repr, allowed))}" if allowed else "it knows no such setting"
        raise ModelFormatError(
            f"{source.name}: {path} has {key} = {value!r}, which trivec does not follow ({expected}), and without it "
            "the vectors may be others. Use sentence-transformers, or delete it where you know that it does nothing."
        )
