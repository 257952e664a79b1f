"""Graphs for CUDA: packed or padded texts of any lengths in one run.

May import `trivec_export._graph` and its neighbours here.
"""
