"""A progress bar on stderr, where one is wanted."""

import logging
from typing import Any

logger = logging.getLogger("trivec")


class _NoBar:
    def update(self, count: int) -> None:
        """Nothing to show."""

    def close(self) -> None:
        """Nothing to close."""


def progress_bar(total: int, show: bool | None) -> Any:  # noqa: ANN401 - a tqdm bar or its stand-in
    """A bar over `total` texts; `show` None asks the level of the "trivec" logger, as sentence-transformers does."""
    if show is None:
        show = logger.getEffectiveLevel() in (logging.INFO, logging.DEBUG)
    if not show:
        return _NoBar()
    from huggingface_hub.utils import tqdm

    return tqdm(total=total, desc="Texts", unit=" texts")
