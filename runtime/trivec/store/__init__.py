"""Vectors in files, with their texts: written window by window, resumed after a kill, read whole or in blocks.

    import trivec
    from trivec import store

    encoder = trivec.load("minilm")
    store.write("corpus.parquet", encoder, texts)  # any iterable; killed and called again, it goes on
    texts, vectors, fingerprint = store.read("corpus.parquet")
    for texts, vectors, _ in store.read_iter("corpus.parquet", window=4096):
        ...  # bounded memory

What the suffix of a file says it holds:

    .parquet  text: string; dense: list of float (or int8, uint8), of one fixed size; sparse: struct of indices (list
              of int32, ascending) and values (list of float); colbert: list of lists of float, halffloat or int8 (127
              times the numbers), as layout.colbert_dtype says; the fingerprint among the file's metadata. Needs
              trivec[parquet].
    .jsonl    an object a line: "text", "embedding", "sparse" ({"term id": weight}) and "sparse_dim", "colbert"
    .npy      dense vectors (N, D): an array for numpy, and behind it, where numpy does not look, a checksum
    .npz      sparse rows for scipy.sparse.load_npz and SparseVectors.load, or vectors of tokens for MultiVectors.load,
              and the fingerprint beside them

All but .jsonl, which people edit, carry a checksum: reading a damaged file is an InputError, never other rows.

While a file is written, what is done so far is in PATH.partial, block by block, each with a checksum. A process that is
killed at any moment leaves at most the block it was at undone; a later call with the same model, options and texts
reads PATH.partial and goes on. PATH itself appears when it is complete, in one step.
"""

from trivec._encoders.named_call import Method
from trivec.store._read import Stored, read, read_iter
from trivec.store._schema import Vectors
from trivec.store._write import Written, fingerprint_of, write

__all__ = ["Method", "Stored", "Vectors", "Written", "fingerprint_of", "read", "read_iter", "write"]

for _value in (Stored, Written, fingerprint_of, read, read_iter, write):
    _value.__module__ = __name__  # repr and tracebacks show trivec.store.Stored
