"""An adapter merged into the weights of the model that it was made for, by PEFT."""

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from trivec._errors import MissingExtraError, ModelFormatError
from trivec_export._checkpoint.adapters import CONFIG, read_config


def with_adapter(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The model with the adapter of a folder merged into its weights.

    Raises:
        MissingExtraError: PEFT is not installed: without it there is no such model.
        ModelFormatError: the adapter does not fit the model, or says something that this PEFT does not know.
    """
    try:
        from peft import PeftConfig, PeftModel, load_peft_weights, set_peft_model_state_dict
    except ImportError as error:
        raise MissingExtraError(
            f"{folder} is an adapter ({CONFIG}), which PEFT merges. Type: pip install peft"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            config = PeftConfig.from_pretrained(str(folder))
            _check_keys(folder, config)
            adapted = PeftModel(model, config)
            weights = load_peft_weights(str(folder), device="cpu")
            result: Any = set_peft_model_state_dict(adapted, weights)
        except (ValueError, TypeError, KeyError, RuntimeError, OSError, ImportError) as error:
            raise ModelFormatError(f"{folder}: PEFT cannot load this adapter: {error}") from error
        kind = str(config.peft_type.value).lower()
        missing = [key for key in result.missing_keys if f"{kind}_" in key]
        if result.unexpected_keys or missing or not weights:
            wrong = [*result.unexpected_keys, *missing, "no weights at all"][0]
            raise ModelFormatError(
                f"{folder} does not fit {type(model).__name__}: {wrong}. Check that the adapter was made for it."
            )
        merged: PreTrainedModel = adapted.merge_and_unload(safe_merge=True)
    return merged.eval()


def _check_keys(folder: Path, config: object) -> None:
    """Raise for a setting that asks for something that this PEFT has no field for: it would only warn."""
    known = {field.name for field in dataclasses.fields(config)}  # type: ignore[arg-type]  # PEFT's are dataclasses
    for key, value in read_config(folder / CONFIG).items():
        if key not in known and value not in (None, False, "", [], {}):
            raise ModelFormatError(
                f"{folder / CONFIG} has {key} = {json.dumps(value)}, which this PEFT does not know, and without it the "
                "adapter may be another. Type: pip install --upgrade peft"
            )
