"""What `load` returns: dense, sparse, hybrid and static encoders, and what they share.

May import pools, the engine, pooling, tokens, the model and vectors; no loader.
"""
