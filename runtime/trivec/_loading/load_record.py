"""What the log says of a model that was loaded: one record, for whoever runs many of them."""

import logging
from typing import Any

from trivec._encoders.named_call import fingerprint_of_plain_call
from trivec._encoders.row_model import RowModel
from trivec._loading.choice import threads_for
from trivec._version import __version__

logger = logging.getLogger("trivec")


def log_load(encoder: RowModel[Any], threads: int | None, seconds: float) -> None:
    """One INFO record, whose `trivec` attribute has its parts by name for a formatter that writes JSON.

    Args:
        encoder: what was loaded.
        threads: as the caller gave them; None: trivec chose.
        seconds: how long it took.
    """
    if not logger.isEnabledFor(logging.INFO):
        return
    chosen = threads_for(threads)
    manifest = encoder.manifest
    called = " ".join(filter(None, (manifest.name, manifest.version)))
    parts = {
        "model": encoder.name,
        "name": manifest.name,
        "version": manifest.version,
        "kind": type(encoder).__name__,
        "fingerprint": _fingerprint(encoder),
        "engine": encoder.engine_fingerprint,
        "device": encoder.device,
        "precision": encoder.precision,
        "threads": chosen.count,
        "threads_from": chosen.source,
        "trivec": __version__,
        "ms": round(seconds * 1e3),
    }
    text = (
        "loaded %(model)s%(called)s in %(ms)d ms: %(kind)s, %(precision)s on %(device)s, %(threads)d threads "
        "(%(threads_from)s), trivec %(trivec)s, engine %(engine)s, fingerprint %(fingerprint)s"
    )
    logger.info(text, {**parts, "called": f" ({called})" if called else ""}, extra={"trivec": dict(parts)})


def _fingerprint(encoder: RowModel[Any]) -> str | None:
    """The fingerprint, where a manifest has the files' sha256: hashing gigabytes is not for a line in a log."""
    if all(ref.sha256 for ref in encoder.manifest.files(encoder.precision)):
        return fingerprint_of_plain_call(encoder)
    return None
