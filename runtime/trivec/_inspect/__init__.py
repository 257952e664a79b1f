"""What is said of a machine, a model or a text: doctor, info, explain.

May import the loader, the gate and all below; no integration.
"""
