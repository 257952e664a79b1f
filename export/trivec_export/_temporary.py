"""Attributes that are replaced for the time of a trace and put back afterwards."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import transformers
from torch import Tensor, nn


class Swaps(ExitStack):
    """Replaces attributes of modules, instances or classes until the block ends."""

    def set(self, owner: object, name: str, value: object) -> None:
        """Give `owner` the attribute, and what it had (or had not) back at the end."""
        own = vars(owner)
        if name in own:
            self.callback(setattr, owner, name, own[name])
        else:
            self.callback(delattr, owner, name)
        setattr(owner, name, value)

    def buffer(self, module: nn.Module, name: str, value: Tensor) -> None:
        """Give a module a buffer, so that the tensor is stored once and named by the module's path."""
        module.register_buffer(name, value, persistent=False)
        self.callback(delattr, module, name)

    def environment(self, name: str, value: str) -> None:
        """Set an environment variable."""
        before = os.environ.get(name)
        if before is None:
            self.callback(os.environ.pop, name, None)
        else:
            self.callback(os.environ.__setitem__, name, before)
        os.environ[name] = value


TALKERS = ("torch.onnx", "torch.export", "onnxscript", "transformers", "optimum", "sentence_transformers", "peft")
"""Loggers that comment on every load and export."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep torch, transformers and onnxscript from writing to the terminal: what matters is raised, not logged."""
    loggers = [logging.getLogger(name) for name in TALKERS]
    levels = [logger.level for logger in loggers]
    bars = transformers.logging.is_progress_bar_enabled()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    transformers.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            transformers.logging.enable_progress_bar()
