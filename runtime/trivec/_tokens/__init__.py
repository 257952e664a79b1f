"""Texts to token ids, and ids to batches of equal lengths.

May import the model and vectors.
"""
