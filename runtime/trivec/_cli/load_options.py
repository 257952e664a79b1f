"""How a command line says that a model is to be opened."""

import argparse
from typing import Any


def load_options(args: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of `trivec.load`."""
    names = ("device", "precision", "engine", "low_memory", "threads", "revision", "file_name", "pooling", "expect")
    return {name: getattr(args, name) for name in names}
