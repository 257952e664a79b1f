"""What one does with a model folder: encode, compare, choose a variant."""

import sys

import trivec

TEXTS = [
    "How do I reset my password?",
    "I forgot my login and cannot get into my account.",
    "The train to Lisbon leaves at nine.",
]

for precision in ("fp32", "int8"):
    with trivec.load(sys.argv[1], precision=precision) as encoder:
        vectors = encoder.encode(TEXTS)
        print(f"\n{encoder}")
        print(f"vectors {vectors.shape} {vectors.dtype}, the first begins {vectors[0, :4].round(4)}")
        print("similarities:")
        print(encoder.similarity(vectors, vectors).round(3))
