"""Serving an exported graph with onnxruntime: sessions, batching, image decoding. Never imports torch or onnx."""
