"""What comes out, and its arithmetic in numpy.

May import errors alone.
"""
