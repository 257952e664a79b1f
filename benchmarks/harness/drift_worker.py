"""What one engine makes of some verification texts, in every variant, with one thread and with four.

Called with FOLDER OUT.npz; needs what trivec[cpu] needs, and safetensors for static models.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

import trivec
from trivec._gate.texts import verification_texts
from trivec._vectors.heads import HEADS
from trivec._vectors.sparse import SparseVectors


def texts() -> list[str]:
    """Every eighth verification text, the empty one, and two long ones."""
    listed = [text.text for text in verification_texts()]
    long = (" ".join(listed[(41 * row + i) % len(listed)] for i in range(40)) for row in (0, 1))
    return [*listed[::8], listed[-1], *long]


def main(folder: str, out: str) -> None:
    """Encode, and write arrays (N, D) by "precision head threads"."""
    made: dict[str, Any] = {}
    listed = texts()
    precisions: list[Any]
    with trivec.load(folder, device="cpu", threads=1) as encoder:
        precisions = [encoder.precision] if isinstance(encoder, trivec.StaticEncoder) else encoder.manifest.precisions()
        static = isinstance(encoder, trivec.StaticEncoder)
    for precision in [name for name in precisions if name != "fp16"] or precisions:
        for threads in (1, 4):
            with trivec.load(folder, precision=precision, device="cpu", threads=threads) as encoder:
                vectors = encoder.represent(listed, prompt="", whole=True)
            for head, part in zip(HEADS, vectors.parts(), strict=True):
                if part is not None and head != "colbert":
                    rows = part.to_dense() if isinstance(part, SparseVectors) else part  # (N, D)
                    made[f"{'static' if static else precision} {head} {threads}"] = rows
    half = Path(f"{out}.half.npz")
    np.savez(half, **made)
    half.replace(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
