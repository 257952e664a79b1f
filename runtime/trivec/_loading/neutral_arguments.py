"""Arguments of sentence-transformers' constructors that ask for nothing here, and what is said where they ask."""

from collections.abc import Mapping
from typing import Any

from trivec._errors import InputError

_WAYS = "How a graph runs is said by precision=, device=, threads= and providers=."
_TOKENIZER = "The tokenizer is the one in the folder. How much of a text is read: encoder.max_seq_length = n"
_REASONS = {
    "model_kwargs": f"They are for torch's models. {_WAYS}",
    "processor_kwargs": _TOKENIZER,
    "tokenizer_kwargs": _TOKENIZER,
    "config_kwargs": "The graph is exported, and no option of the configuration changes it any more.",
    "trust_remote_code": "No code of a model is run here, so there is none to trust. Leave it out.",
    "backend": f'It is always onnxruntime: leave it out, or backend="onnx". {_WAYS}',
    "model_card_data": "No model card is written here.",
    "modules": "Modules are torch's. Save the model with save_pretrained(folder), then: trivec export folder OUT",
    "use_auth_token": "It is called token now.",
}


def check_neutral(arguments: Mapping[str, Any]) -> None:
    """Pass arguments that change nothing.

    Raises:
        TypeError: one that sentence-transformers does not have either.
        InputError: one that asks for something; the message says what to do instead.
    """
    for name, value in arguments.items():
        if name not in _REASONS:
            raise TypeError(f"load() got an unexpected keyword argument {name!r}")
        neutral = value is None or value is False or value == {} or (name == "backend" and value == "onnx")
        if not neutral:
            raise InputError(f"{name}={value!r} has no meaning here. {_REASONS[name]}")
