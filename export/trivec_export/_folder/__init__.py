"""The model folder: made whole, its manifest, REPORT.md.

May import the draft and all below.
"""
