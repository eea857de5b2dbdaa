"""Serving an exported graph: sessions, batching, image decoding. Never imports torch or onnx."""
