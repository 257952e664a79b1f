"""mteb's encoder on trivec (`pip install "mteb>=2.26.24"`).

    import mteb
    from trivec.integrations.mteb import TrivecEncoder

    results = mteb.evaluate(TrivecEncoder("minilm", precision="int8"), mteb.get_tasks(["SciFact"]))

mteb itself needs torch; the model does not.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trivec._encoders.calls import Overflow
from trivec._encoders.named_call import METHODS, spelled_out
from trivec._errors import InputError
from trivec.integrations._adapter import Model, ModelOptions, OfModel, missing
from trivec.integrations._text_model import check_options

try:
    from mteb.models import ModelMeta
    from mteb.models.abs_encoder import AbsEncoder, get_prompt_name
    from mteb.models.model_meta import ScoringFunction
except ImportError as error:
    raise missing("mteb", '"mteb>=2.26.24"', error) from error

__all__ = ["TrivecEncoder"]

_SCORING = {"cosine": ScoringFunction.COSINE, "dot": ScoringFunction.DOT_PRODUCT}
"""What mteb computes itself; None: it asks the encoder."""


class TrivecEncoder(OfModel, AbsEncoder):
    """Dense vectors for mteb's tasks, as mteb has sentence-transformers give them.

    A task's queries go to `encode_query`, its documents to `encode_document`, all else to `encode`. The prompt is the
    first that there is of: NAME-SIDE, NAME, TYPE-SIDE, TYPE, SIDE (such as "SciFact-query", "STS", "document").

    Attributes:
        encoder: what `trivec.load` returned.
        prompts: by these names: the model's own, and over them those that were given.
        mteb_model_meta: what results are kept under. Its revision is a hash of what decides the vectors, prompts
            included, so that results of one variant are never taken for those of another.
    """

    def __init__(
        self,
        model: Model,
        revision: str | None = None,
        device: str | None = None,
        *,
        name: str | None = None,
        prompts: Mapping[str, str] | None = None,
        precision: str | None = None,
        threads: int | None = None,
        on_overflow: Overflow | None = None,
        load_options: Mapping[str, Any] | None = None,
        encode_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Open the model.

        Args:
            model: a folder written by `trivec export`, a name on the Hub, "provider:model" of a hosted one, or what
                `trivec.load` returns.
            revision: as of `trivec.load`, as are device, precision and threads; None: its default.
            device: where it runs.
            name: what results are kept under, as "organization/name"; None: the model's, a folder's after "trivec/".
            prompts: texts that are put before inputs, by task and side.
            precision: the variant.
            threads: CPU threads.
            on_overflow: "error" raises for a text that is longer than the model reads; None cuts it.
            load_options: further arguments of `trivec.load`.
            encode_options: options of `encode`.

        Raises:
            InputError: no model, one of another kind, a prompt for a task that mteb does not know, or an argument that
                is unknown or out of range.
            Whatever `trivec.load` raises.
        """
        load = {**(load_options or {}), **({} if revision is None else {"revision": revision})}
        options = ModelOptions(model, device, precision, threads, on_overflow, load, encode_options)
        self._model = options.open("dense", "Others: trivec compare")
        self.model = self.encoder  # whose similarity mteb asks for
        self._options = {**(encode_options or {}), **({} if on_overflow is None else {"on_overflow": on_overflow})}
        try:
            self.validate_task_to_prompt_name(dict(prompts or {}))
        except KeyError as error:
            raise InputError(f"prompts are named by task, type and side, and {error.args[0]}") from error
        self.prompts = {**getattr(self.encoder, "prompts", {}), **(prompts or {})}
        decides = [self.fingerprint, self.query_fingerprint, self.prompts]
        self.mteb_model_meta = ModelMeta.create_empty(
            {
                "name": name or _name(self.encoder.name),
                "revision": hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest(),
                "similarity_fn_name": _SCORING.get(self.encoder.similarity_fn_name),
                "embed_dim": self.encoder.dim,
                "max_tokens": self.encoder.max_seq_length,
                "framework": ["ONNX"],
                "experiment_kwargs": {"precision": self.encoder.precision},
            }
        )

    def encode(
        self,
        inputs: Any,  # noqa: ANN401 - a DataLoader of batches with their "text"
        *,
        task_metadata: Any,  # noqa: ANN401 - mteb's TaskMetadata
        hf_split: str,  # noqa: ARG002 - asked for by mteb
        hf_subset: str,  # noqa: ARG002
        prompt_type: Any = None,  # noqa: ANN401 - mteb's PromptType
        **options: Any,  # noqa: ANN401 - batch_size, show_progress_bar
    ) -> npt.NDArray[np.float32]:
        """(N, D) float32 of the inputs' texts.

        Args:
            inputs: a DataLoader of batches with their "text".
            task_metadata: of the task.
            hf_split: not used.
            hf_subset: not used.
            prompt_type: the side: query or document; None: neither.
            options: of `encode`, which win over those of the class.

        Raises:
            InputError: an option that is unknown or out of range, or inputs without text.
            TruncationError, NonFiniteError: as of `encode`.
        """
        given = {**self._options, **options}
        check_options(self.encoder, given, set())
        texts = [text for batch in inputs for text in _text(batch, task_metadata)]
        prompt = get_prompt_name(self.prompts, task_metadata, prompt_type)
        if prompt is not None:
            given["prompt"] = self.prompts[prompt]
        side = None if prompt_type is None else prompt_type.value
        found = self.encoder.represent(texts, ["dense"], **spelled_out(self.encoder, METHODS[side], given))
        return found.dense  # type: ignore[return-value]


def _text(batch: Mapping[str, Any], task: Any) -> list[str]:  # noqa: ANN401
    if "text" not in batch:
        raise InputError(f"{task.name} has no texts, but {', '.join(batch)}: expected a task on texts alone.")
    found: list[str] = batch["text"]
    return found


def _name(name: str) -> str:
    """As mteb wants it: organization/name."""
    return name if "/" in name and not Path(name).exists() else f"trivec/{Path(name).name}"
