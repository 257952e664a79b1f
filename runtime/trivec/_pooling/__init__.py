"""Arrays that a graph made to vectors of texts.

May import tokens, the model and vectors; no engine.
"""
