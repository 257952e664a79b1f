"""Static models: tables of token vectors.

May import tokens, the model and vectors; no engine.
"""
