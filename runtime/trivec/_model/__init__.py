"""What a model is, and where its files are.

May import vectors and the system.
"""
