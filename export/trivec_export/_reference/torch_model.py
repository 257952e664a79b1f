"""A checkpoint folder as a torch model in float32, the reference of every export and what gets traced."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch
import transformers
from optimum.exporters.tasks import TasksManager
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, PretrainedConfig, PreTrainedModel
from transformers.integrations.peft import MIN_PEFT_VERSION
from transformers.utils.peft_utils import check_peft_version

from trivec._errors import MissingExtraError, ModelFormatError, ModelNotFoundError
from trivec_export._temporary import Swaps, quiet

FEATURES, FILL_MASK = "feature-extraction", "fill-mask"


def load(
    folder: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    trust_remote_code: bool = False,
    task: str = FEATURES,
) -> PreTrainedModel:
    """Load the encoder of a checkpoint: float32, eval mode, eager attention.

    The class is the one that Optimum's TasksManager names for the task; for feature extraction, the text encoder alone
    where the checkpoint is an encoder-decoder (T5), as sentence-transformers does. Weights are taken from safetensors,
    else from a pickle through torch.load(weights_only=True).

    Args:
        folder: a checkpoint folder, or a name on the Hub.
        revision: branch, tag or commit on the Hub.
        cache_dir: where the Hub's files are kept.
        token: access token for the Hub.
        local_files_only: never go to the Hub.
        trust_remote_code: run the Python files of the checkpoint.
        task: "feature-extraction" or "fill-mask", by the names of Optimum.

    Raises:
        ModelNotFoundError: there is no config or no weights.
        ModelFormatError: the config or the weights cannot be read, or weights that the vectors need are missing.
    """
    hub: dict[str, Any] = {
        "revision": revision or "main",
        "cache_dir": cache_dir,
        "token": token,
        "local_files_only": local_files_only,
        "trust_remote_code": trust_remote_code,
    }
    if Path(folder).exists() and not (Path(folder) / "config.json").is_file():
        raise ModelNotFoundError(f"{folder} has no config.json, expected a transformers checkpoint: check the path")
    with quiet(), Swaps() as swaps:
        # The Hub's conversion bot would be asked, in a thread, to turn a pickle into safetensors.
        swaps.environment("DISABLE_SAFETENSORS_CONVERSION", "1")
        _check_peft(Path(folder))
        config = _config(folder, hub)
        model, missing = _weights(folder, config, hub, task)
        model.eval()
        _check_missing(model, missing, folder, task)
    return model


def _check_peft(folder: Path) -> None:
    """Raise MissingExtraError where an adapter lies beside the weights and PEFT, which merges it in, cannot.

    transformers leaves the adapter out in silence where PEFT is missing.
    """
    if not (folder / "adapter_config.json").is_file():
        return
    try:
        check_peft_version(min_version=MIN_PEFT_VERSION)
    except (ImportError, ValueError) as error:
        raise MissingExtraError(
            f"{folder} has an adapter (adapter_config.json), which transformers {transformers.__version__} loads by "
            f"PEFT: {error} Type: pip install --upgrade peft   (or merge the adapter into the weights: "
            "model.merge_and_unload())"
        ) from error


def _config(folder: str | Path, hub: dict[str, Any]) -> PretrainedConfig:
    """The checkpoint's config."""
    try:
        return AutoConfig.from_pretrained(folder, **hub)
    except OSError as error:
        raise ModelNotFoundError(f"{folder}: no config.json could be read: {error}") from error
    except (ValueError, KeyError) as error:  # an unknown model type, or remote code that nobody asked for
        raise ModelFormatError(f"{folder}: transformers {transformers.__version__} cannot read it: {error}") from error


def _weights(
    folder: str | Path, config: PretrainedConfig, hub: dict[str, Any], task: str
) -> tuple[PreTrainedModel, list[str]]:
    """The model, and the names of parameters that the checkpoint does not have."""
    try:
        model, info = _model_class(config, task).from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are named below; transformers' own error refers to its log
            **hub,
        )
    except pickle.UnpicklingError as error:
        raise ModelFormatError(
            f"{_pickle(folder)} holds more than tensors, expected a pickle that torch.load(weights_only=True) accepts. "
            "A pickle can run any code when it is opened, so it was not. Convert it to safetensors, or ask its author."
        ) from error
    except OSError as error:
        raise ModelNotFoundError(f"{folder}: no weights could be read: {error}") from error
    except (ValueError, KeyError, RuntimeError) as error:
        raise ModelFormatError(f"{folder}: transformers {transformers.__version__} cannot load it: {error}") from error
    if info["mismatched_keys"]:
        raise ModelFormatError(
            f"{folder}: weights of other shapes than config.json says: {sorted(map(str, info['mismatched_keys']))}. "
            "Check that config.json belongs to these weights."
        )
    whole = task == FILL_MASK or not model.config.is_encoder_decoder
    return (model if whole else model.get_encoder()), sorted(info["missing_keys"])


def _model_class(config: PretrainedConfig, task: str) -> type[AutoModel]:
    """The auto class: encoder-decoders come without their decoder where transformers has such a class.

    config.is_encoder_decoder does not tell: a stored T5 encoder says no.
    """
    if task == FEATURES and type(config) in AutoModelForTextEncoding._model_mapping:
        return AutoModelForTextEncoding  # type: ignore[no-any-return]  # untyped
    chosen: type[AutoModel] = TasksManager.get_model_class_for_task(task, framework="pt", library="transformers")
    return chosen


def _pickle(folder: str | Path) -> str:
    """Names of the weight files that are pickles, for a message."""
    names = sorted(path.name for path in Path(folder).glob("pytorch_model*.bin"))
    return os.fspath(Path(folder, ", ".join(names) or "pytorch_model.bin"))


def _check_missing(model: PreTrainedModel, missing: list[str], folder: str | Path, task: str) -> None:
    """Raise where a parameter that the token embeddings depend on was not in the checkpoint and is random.

    A pooler that nobody uses may be missing, and often is: it has no gradient.
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if name in set(missing)}
    if not parameters:
        return
    ids = torch.arange(3)[None]  # (1, 3)
    out = model(input_ids=ids, attention_mask=torch.ones_like(ids))[0]  # (1, 3, H), or logits (1, 3, V)
    gradients = torch.autograd.grad(out.sum(), list(parameters.values()), allow_unused=True)
    used = [name for name, gradient in zip(parameters, gradients, strict=True) if gradient is not None]
    if used and task == FILL_MASK:
        raise ModelFormatError(
            f"{folder} has no weights for {len(used)} parameters of {type(model).__name__}, such as {used[0]}: without "
            "its masked-language-model head it is no SPLADE model. For dense vectors: --family dense"
        )
    if used:
        raise ModelFormatError(
            f"{folder} has no weights for {len(used)} parameters of {type(model).__name__}, such as {used[0]}: they "
            "would be random. Check that config.json belongs to these weights."
        )
