"""A torch model to one ONNX graph of fused operators.

May import the reference and all below.
"""
