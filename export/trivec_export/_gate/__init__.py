"""Is a variant as right as torch? The texts, the ids, the figures.

May import the draft and all below; not the variants.
"""
