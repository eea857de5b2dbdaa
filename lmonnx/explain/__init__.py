"""Explaining a prediction by thousands of masks. Never imports torch or onnx."""
