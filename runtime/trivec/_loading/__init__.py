"""From a model's files to an open encoder; no names, no export.

May import the encoders and all below.
"""
