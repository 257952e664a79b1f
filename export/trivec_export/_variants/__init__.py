"""fp32, half precision, int8 and the graphs for CUDA, written from one traced graph.

May import the draft and all below; not the gate.
"""
