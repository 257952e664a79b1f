"""Layouts that authors published before transformers had a class for the model; a file each.

May import `common` and the weights.
"""
