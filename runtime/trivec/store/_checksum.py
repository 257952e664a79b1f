"""A checksum of what a file holds, which tells a damaged one from one that is read as it was written."""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from trivec._errors import InputError
from trivec._vectors.damaged import readable
from trivec.store._records import block_arrays
from trivec.store._schema import Block, Contents, Head


class Checksum:
    """crc32 of texts and vectors, of their layout and where they come from, whatever blocks they come in."""

    def __init__(self, head: Head) -> None:
        # files from before engines were told count their layout alone
        self._said = [head.layout.stated(), *([head.origin] if head.engine else [])]
        self._parts: dict[str, int] = {}

    def add(self, block: Block) -> None:
        """Count the rows of a block, which follow those before."""
        for name, array in block_arrays(block.texts, block.parts).items():
            # where rows end depends on the blocks, how long they are does not
            lengths = name.endswith(("offsets", "indptr"))
            numbers = np.diff(array).astype(np.int64) if lengths else np.ascontiguousarray(array)
            self._parts[name] = zlib.crc32(numbers.reshape(-1).view(np.uint8).data, self._parts.get(name, 0))

    def digest(self) -> str:
        """Eight digits."""
        return f"{zlib.crc32(json.dumps([*self._said, self._parts], sort_keys=True).encode()):08x}"


def checked(path: Path, contents: Contents) -> Contents:
    """The same, but reading raises InputError where the file is damaged: at the last row at the latest."""

    def blocks(window: int) -> Iterator[Block]:
        checksum, rows = Checksum(contents.head), 0
        with readable(path):
            for block in contents.blocks(window):
                rows += block.parts.rows
                if contents.head.checksum is not None:
                    checksum.add(block)
                yield block
        if contents.head.rows not in (None, rows):
            raise InputError(f"{path} is damaged: it has {rows} rows, and says that they are {contents.head.rows}.")
        if contents.head.checksum not in (None, checksum.digest()):
            raise InputError(
                f"{path} is damaged: what it holds has the checksum {checksum.digest()}, and it was written with "
                f"{contents.head.checksum}. Take a copy of it, or encode the texts again."
            )

    return contents._replace(blocks=blocks)
