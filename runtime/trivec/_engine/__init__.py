"""onnxruntime: opening, running and feeding graphs. Nothing else imports it.

May import tokens, the model and the system; neither pooling nor encoders.
"""
