"""Is a variant as right on this machine as fp32? The figures, their bounds, and the texts.

May import the loading of files and all below; not `trivec._load`, which knows names.
"""
