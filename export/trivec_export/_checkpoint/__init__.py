"""Files of a checkpoint: fetched, read, tokenizers, adapters, published layouts.

May import graphs and the small tools.
"""
