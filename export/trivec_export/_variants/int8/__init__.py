"""Static int8: calibration, smoothing, quantized layers.

May import `trivec_export._graph` and its neighbours here.
"""
