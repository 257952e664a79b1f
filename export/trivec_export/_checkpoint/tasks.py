"""Checkpoints with an adapter for each task: every task becomes a route and an encoder of its own.

Which adapters there are is told by config.json (Jina v3 as published) or by the folders that PEFT's adapters are in
(transformers' own class). They are merged when the torch model is loaded: a task's graph is an ordinary one.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from trivec._errors import InputError, ModelFormatError
from trivec._model.checkpoint import Checkpoint, check_name
from trivec._model.modules import TransformerSpec
from trivec_export._checkpoint.adapters import adapter_folders
from trivec_export._checkpoint.published import jina
from trivec_export._checkpoint.published.layouts import is_published

_SIDES = {"query": ("query",), "document": ("document", "passage", "corpus")}
"""What encode_query and encode_document ask for, and which word at the end of a task's name stands for it."""


class Tasks(NamedTuple):
    """A checkpoint, one encoder a task."""

    checkpoint: Checkpoint
    adapters: Mapping[str, str]
    """The task of each encoder; empty where there are no adapters."""


def split_tasks(checkpoint: Checkpoint, folder: Path, wanted: Sequence[str] | None = None) -> Tasks:
    """A checkpoint with adapters as one route and encoder a task; any other as it is.

    Where just one task is for queries (its name ends in "query"), the route "query" is another name of it, with its
    prompt, unless the checkpoint has such a prompt itself; "document" likewise (document, passage, corpus). So is the
    name of a prompt that differs in its punctuation: retrieval.query is retrieval_query. No task is the default, unless
    it is the only one: the weights without an adapter were not trained for any.

    Args:
        checkpoint: as `read_checkpoint` gives it.
        folder: where it is.
        wanted: the tasks to keep; None: all.

    Raises:
        InputError: a task is wanted that the checkpoint does not have.
        ModelFormatError: adapters that no route can be made of.
    """
    modules = {(folder / spec.folder).resolve() for spec in checkpoint.transformers.values()}
    found = [(spec, adapters_of(folder / spec.folder, spec)) for spec in checkpoint.transformers.values()]
    others = [
        (
            spec,
            tuple(
                name for name, place in adapter_folders(folder / spec.folder).items() if place.resolve() not in modules
            ),
        )
        for spec, tasks in found
        if not tasks and not is_published(spec.config)
    ]
    if wanted is not None:
        found += others
    elif any(names for _, names in others):
        names = ",".join(next(names for _, names in others if names))
        raise ModelFormatError(
            f"{folder} has adapters in folders of their own ({names}), and nothing says whether they belong to its "
            f"vectors. For a route with each: --tasks {names}   For the model without them, take these folders away."
        )
    spec, tasks = next((pair for pair in found if pair[1]), found[0])
    unknown = sorted(set(wanted or ()) - set(tasks))
    if unknown or (wanted is not None and not wanted):
        raise InputError(
            f"tasks {', '.join(map(repr, unknown)) or 'is empty'}: this checkpoint has adapters for "
            f"{', '.join(tasks) or 'none'}."
        )
    if not tasks:
        return Tasks(checkpoint, {})
    if list(checkpoint.routes) != ["default"] or checkpoint.family != "dense":
        raise ModelFormatError(
            f"the checkpoint has adapters ({', '.join(tasks)}) and is {checkpoint.family} with the routes "
            f"{', '.join(checkpoint.routes)}; trivec runs adapters of dense models without a Router."
        )
    for task in tasks:
        check_name(task, "adapter")
    kept = [task for task in tasks if wanted is None or task in wanted]
    aliases = {alias: task for alias, task in _aliases(tasks, checkpoint.prompts).items() if task in kept}
    route = checkpoint.routes["default"]
    split = replace(
        checkpoint,
        transformers=dict.fromkeys(kept, spec),
        routes={key: replace(route, encoder=task) for key, task in (*zip(kept, kept, strict=True), *aliases.items())},
        default_route=kept[0] if len(kept) == 1 else None,
        prompts=_prompts(checkpoint, spec, tasks, aliases),
    )
    return Tasks(split, {task: task for task in kept})


def adapters_of(place: Path, spec: TransformerSpec) -> tuple[str, ...]:
    """The tasks that a transformer has adapters for."""
    if jina.is_original(spec.config):
        lora = jina.read_lora(spec.config)
        return lora.tasks if lora else ()
    if spec.config.get("model_type") == jina.MODEL:
        return tuple(adapter_folders(place))
    return ()


def _aliases(tasks: Sequence[str], prompts: Iterable[str]) -> dict[str, str]:
    """Other names of the tasks: what encode_query and encode_document ask for, and the prompts of the same name."""
    by_key = {_key(task): task for task in tasks}
    found = {name: by_key[_key(name)] for name in prompts if name not in tasks and _key(name) in by_key}
    for alias, words in _SIDES.items():
        fitting = [task for task in tasks if re.split(r"[._-]", task)[-1] in words]
        if len(fitting) == 1 and alias not in tasks:
            found[alias] = fitting[0]
    return found


def _prompts(
    checkpoint: Checkpoint, spec: TransformerSpec, tasks: Sequence[str], aliases: Mapping[str, str]
) -> dict[str, str]:
    """The checkpoint's prompts, one for each task, and those of the aliases."""
    prompts = dict(checkpoint.prompts)
    stated = spec.config.get("task_instructions")
    instructions = stated if isinstance(stated, Mapping) else {}
    by_key = {_key(name): text for name, text in {**instructions, **prompts}.items() if isinstance(text, str)}
    for task in tasks:
        prompts.setdefault(task, by_key.get(_key(task), ""))
    for alias, task in aliases.items():
        prompts[alias] = prompts.get(alias) or prompts[task]
    return prompts


def _key(name: str) -> str:
    """retrieval.query and retrieval_query are one task: PEFT's names have no dots."""
    return re.sub(r"[.-]", "_", name)
