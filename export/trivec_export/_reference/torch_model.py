"""A checkpoint folder as a torch model in float32: what gets traced."""

import os
import pickle
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from optimum.exporters.tasks import TasksManager
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, PretrainedConfig, PreTrainedModel

from trivec._errors import ModelFormatError, ModelNotFoundError
from trivec._model.modules import FEATURES, TEXT_FEATURES
from trivec_export._checkpoint.adapters import CONFIG as ADAPTER
from trivec_export._checkpoint.adapters import base_of
from trivec_export._reference.accounted import check_missing, left_out
from trivec_export._reference.adapted import with_adapter
from trivec_export._temporary import Swaps, quiet

_PRECISION = frozenset(
    ("dtype", "torch_dtype", "attn_implementation", "device_map", "low_cpu_mem_usage", "offload_folder")
)
"""Arguments of from_pretrained that say how a model runs and not what it computes."""


class Loaded(NamedTuple):
    """A model, and what of its checkpoint it has no use for."""

    model: PreTrainedModel
    left_out: tuple[str, ...]
    """In words, such as "the masked-language-model head"."""


def load(
    folder: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    trust_remote_code: bool = False,
    task: str = FEATURES,
    model_kwargs: Mapping[str, Any] | None = None,
    config_kwargs: Mapping[str, Any] | None = None,
    read_elsewhere: Collection[str] = (),
) -> Loaded:
    """Load the encoder of a checkpoint: float32, eval mode, eager attention.

    The class is the one that Optimum's TasksManager names for the task; for feature extraction, the text encoder alone
    where the checkpoint is an encoder-decoder (T5), as sentence-transformers does. Weights are taken from safetensors,
    else from a pickle through torch.load(weights_only=True). An adapter in the folder is merged by PEFT.

    Args:
        folder: a checkpoint folder, or a name on the Hub.
        revision: branch, tag or commit on the Hub.
        cache_dir: where the Hub's files are kept.
        token: access token for the Hub.
        local_files_only: never go to the Hub.
        trust_remote_code: run the Python files of the checkpoint.
        task: "feature-extraction", "fill-mask" or "text-classification", by the names of Optimum, or "text-features" of
            a text tower.
        model_kwargs: the checkpoint's own arguments of the model's from_pretrained.
        config_kwargs: the same of the config's.
        read_elsewhere: names of weights that are no part of the model, and that the caller reads.

    Raises:
        ModelNotFoundError: there is no config or no weights.
        ModelFormatError: the config or the weights cannot be read, weights that the vectors need are missing, or there
            are weights that nothing reads.
        MissingExtraError: there is an adapter and no PEFT.
    """
    hub: dict[str, Any] = {
        "revision": revision or "main",
        "cache_dir": cache_dir,
        "token": token,
        "local_files_only": local_files_only,
        "trust_remote_code": trust_remote_code,
    }
    place = Path(folder)
    if (place / ADAPTER).is_file():
        base = base_of(place, token=token).folder
        made = load(
            base, task=task, trust_remote_code=trust_remote_code, model_kwargs=model_kwargs, config_kwargs=config_kwargs
        )
        return made._replace(model=with_adapter(made.model, place))
    if place.exists() and not (place / "config.json").is_file():
        raise ModelNotFoundError(f"{folder} has no config.json, expected a transformers checkpoint: check the path")
    with quiet(), Swaps() as swaps:
        # The Hub's conversion bot would be asked, in a thread, to turn a pickle into safetensors.
        swaps.environment("DISABLE_SAFETENSORS_CONVERSION", "1")
        config = _config(folder, {**hub, **(config_kwargs or {})})
        if config.is_encoder_decoder and type(config) not in AutoModelForTextEncoding._model_mapping:
            raise ModelFormatError(
                f"{folder} is an encoder-decoder ({config.model_type}): sentence-transformers pools the states of its "
                "decoder, and nothing says whether they were trained for that. Of encoder-decoders those are exported "
                "whose encoder transformers loads alone (T5, mT5, UMT5). Use sentence-transformers for this model."
            )
        given = {key: value for key, value in (model_kwargs or {}).items() if key not in _PRECISION}
        whole, info = _weights(folder, config, {**hub, **given}, task)
        whole.eval()
        model = whole.get_encoder() if whole.config.is_encoder_decoder else whole
        check_missing(whole, model, info["missing_keys"], str(folder), task)
        cut = "num_hidden_layers" in (config_kwargs or {})
        unexpected = set(info["unexpected_keys"]) - set(read_elsewhere)
        return Loaded(model, left_out(whole, model, unexpected, str(folder), cut=cut))


def _config(folder: str | Path, arguments: Mapping[str, Any]) -> PretrainedConfig:
    """The checkpoint's config."""
    try:
        return AutoConfig.from_pretrained(folder, **arguments)
    except OSError as error:
        raise ModelNotFoundError(f"{folder}: no config.json could be read: {error}") from error
    except (ValueError, KeyError) as error:  # an unknown model type, or remote code that nobody asked for
        raise ModelFormatError(f"{folder}: transformers {transformers.__version__} cannot read it: {error}") from error


def _weights(
    folder: str | Path, config: PretrainedConfig, arguments: Mapping[str, Any], task: str
) -> tuple[PreTrainedModel, Mapping[str, Any]]:
    """The model, and what transformers says of the names of its weights."""
    try:
        model, info = _model_class(config, task).from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are named below; transformers' own error refers to its log
            **arguments,
        )
    except pickle.UnpicklingError as error:
        raise ModelFormatError(
            f"{_pickle(folder)} holds more than tensors, expected a pickle that torch.load(weights_only=True) accepts. "
            "A pickle can run any code when it is opened, so it was not. Convert it to safetensors, or ask its author."
        ) from error
    except OSError as error:
        raise ModelNotFoundError(f"{folder}: no weights could be read: {error}") from error
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ModelFormatError(f"{folder}: transformers {transformers.__version__} cannot load it: {error}") from error
    if info["mismatched_keys"]:
        raise ModelFormatError(
            f"{folder}: weights of other shapes than config.json says: {sorted(map(str, info['mismatched_keys']))}. "
            "Check that config.json belongs to these weights."
        )
    return model, info


def _model_class(config: PretrainedConfig, task: str) -> type[AutoModel]:
    """The auto class: encoder-decoders come without their decoder where transformers has such a class.

    config.is_encoder_decoder does not tell: a stored T5 encoder says no.
    """
    if task == FEATURES and type(config) in AutoModelForTextEncoding._model_mapping:
        return AutoModelForTextEncoding  # type: ignore[no-any-return]  # untyped
    task = FEATURES if task == TEXT_FEATURES else task
    chosen: type[AutoModel] = TasksManager.get_model_class_for_task(task, framework="pt", library="transformers")
    return chosen


def _pickle(folder: str | Path) -> str:
    """Names of the weight files that are pickles, for a message."""
    names = sorted(path.name for path in Path(folder).glob("pytorch_model*.bin"))
    return os.fspath(Path(folder, ", ".join(names) or "pytorch_model.bin"))
