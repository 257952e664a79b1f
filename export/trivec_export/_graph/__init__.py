"""ONNX graphs as files and as things to run.

May import nothing else of the exporter.
"""
