"""Every weight of a checkpoint is accounted for: none that the vectors need is missing, none is left out in silence."""

import re
from collections.abc import Collection, Iterable
from pathlib import Path

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from trivec._errors import ModelFormatError
from trivec._model.checkpoint import GTE_TYPES
from trivec._model.modules import CLASSIFY, FILL_MASK, TEXT_FEATURES
from trivec_export._checkpoint.weights import read_weights
from trivec_export._temporary import quiet

_HARMLESS = {
    r"(.*\.)?pooler\..*": "a pooler, which no vector asks for",
    r"(.*\.)?(position_ids|token_type_ids|inv_freq|(masked_)?bias_buffer)": "constants",
    r"(.*\.)?cls\.(predictions|seq_relationship)\..*": "the masked-language-model head",
    r"(optimizer|exp_avg|lr_scheduler)\b.*": "the state of an optimizer",
}
"""Names whose tensors decide no vector, and what they are."""
_LANGUAGE = ("ForMaskedLM", "ForCausalLM", "ForPreTraining", "ForConditionalGeneration", "LMHeadModel")
"""Architectures whose heads say the next or the hidden word: a dense vector is made before them."""


def check_missing(whole: PreTrainedModel, model: PreTrainedModel, missing: Iterable[str], name: str, task: str) -> None:
    """Raise where a parameter that the outputs of `model` depend on was not in the checkpoint and is random.

    A pooler that nobody uses may be missing, and often is: it has no gradient.

    Args:
        whole: what was loaded.
        model: the part of it that is traced.
        missing: names of parameters of `whole`.
        name: of the checkpoint, for messages.
        task: "feature-extraction", "fill-mask" or "text-classification".

    Raises:
        ModelFormatError: with the name of such a parameter.
    """
    names = set(missing)
    parameters = {key: parameter for key, parameter in whole.named_parameters() if key in names}
    if not parameters:
        return
    ids = torch.arange(3)[None]  # (1, 3)
    run = model.get_text_features if task == TEXT_FEATURES else model
    out = run(input_ids=ids, attention_mask=torch.ones_like(ids))
    out = out if isinstance(out, Tensor) else out[0]  # (1, 3, H), logits (1, 3, V), or (1, D)
    gradients = torch.autograd.grad(out.sum(), list(parameters.values()), allow_unused=True)
    used = [key for key, gradient in zip(parameters, gradients, strict=True) if gradient is not None]
    if used and task == FILL_MASK:
        raise ModelFormatError(
            f"{name} has no weights for {len(used)} parameters of {type(model).__name__}, such as {used[0]}: without "
            "its masked-language-model head it is no SPLADE model. For dense vectors: --family dense"
        )
    if used and task == CLASSIFY:
        raise ModelFormatError(
            f"{name} has no weights for {len(used)} parameters of {type(model).__name__}, such as {used[0]}: without "
            "its classifier it scores nothing, and is no reranker. Train one first, with CrossEncoder of "
            "sentence-transformers."
        )
    if used:
        raise ModelFormatError(
            f"{name} has no weights for {len(used)} parameters of {type(model).__name__}, such as {used[0]}: they "
            "would be random. Check that config.json belongs to these weights."
        )


def left_out(
    whole: PreTrainedModel, model: PreTrainedModel, unexpected: Iterable[str], name: str, *, cut: bool = False
) -> tuple[str, ...]:
    """What the tensors are that nothing reads, where it is known that no vector depends on them.

    Args:
        whole: what was loaded.
        model: the part of it that is traced.
        unexpected: names of the checkpoint's tensors that `whole` does not have.
        name: of the checkpoint: its folder.
        cut: whether the checkpoint itself says that it takes fewer layers than it has.

    Raises:
        ModelFormatError: with the name of a tensor of which that is not known.
    """
    heads = _head_names(whole)
    found: dict[str, None] = {} if model is whole else {"the decoder": None}
    unknown = []
    for key in sorted(unexpected):
        plain = key.replace("gamma", "weight").replace("beta", "bias")
        said = next((said for pattern, said in _HARMLESS.items() if re.fullmatch(pattern, plain)), None)
        if said is None and cut and _layer_of(plain) >= whole.config.num_hidden_layers:
            said = "the layers beyond num_hidden_layers of config_kwargs"
        if said is None and whole.config.model_type in GTE_TYPES and plain.startswith("classifier."):
            said = "the token classifier, which makes mGTE's sparse vectors"
        if said is None and plain in heads:
            said = "the language-model head"
        if said is None and plain.startswith(("decoder.", "model.decoder.", "lm_head.")) and _is_encoder(whole, model):
            said = "the decoder"
        if said is None:
            unknown.append(key)
        else:
            found[said] = None
    copies = _tied(unknown, whole, name)
    unknown = [key for key in unknown if key not in copies]
    if unknown:
        raise ModelFormatError(
            f"{name} has {len(unknown)} weights that {type(whole).__name__} does not read, such as {unknown[0]}: "
            "without them the vectors would not be what its authors trained. Check that config.json belongs to these "
            "weights; if this is a head of another task, save the encoder alone (model.save_pretrained)."
        )
    return (*found, *(["copies of tied weights"] if copies else []))


def _layer_of(name: str) -> int:
    """The number of the layer that a weight belongs to; -1 where its name has none."""
    found = re.search(r"\.(\d+)\.", name)
    return int(found[1]) if found else -1


def _is_encoder(whole: PreTrainedModel, model: PreTrainedModel) -> bool:
    """Whether one side of an encoder-decoder is traced."""
    return model is not whole or type(whole).__name__.endswith(("EncoderModel", "Encoder"))


def _head_names(whole: PreTrainedModel) -> Collection[str]:
    """Names of the weights of the language-model head of the architecture that config.json names."""
    architecture = str((getattr(whole.config, "architectures", None) or [""])[0])
    made_by = getattr(transformers, architecture, None)
    if made_by is None or not architecture.endswith(_LANGUAGE) or isinstance(whole, made_by):
        return ()
    try:
        with torch.device("meta"), quiet():
            full = made_by(whole.config)
    except Exception:  # noqa: BLE001 - whatever its constructor says: then its names are not known
        return ()
    prefix = f"{full.base_model_prefix}."
    return {key for key in full.state_dict() if not key.startswith(prefix)}


def _tied(names: Collection[str], whole: PreTrainedModel, folder: str) -> Collection[str]:
    """Those tensors that equal the model's table of tokens, number by number."""
    if not names:
        return ()
    try:
        weight = getattr(whole.get_input_embeddings(), "weight", None)
    except NotImplementedError:  # a model of texts and images has several
        return ()
    if not isinstance(weight, Tensor):
        return ()
    tensors = read_weights(Path(folder), set(names).__contains__) if Path(folder).is_dir() else {}
    return {
        key for key, tensor in tensors.items() if tensor.shape == weight.shape and torch.equal(tensor.float(), weight)
    }
