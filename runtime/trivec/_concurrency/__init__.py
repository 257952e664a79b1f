"""Many processes and many callers for one encoder.

May import the engine and all below; speaks to encoders by protocols.
"""
