"""The torch model, its heads, and its vectors.

May import checkpoints and all below.
"""
