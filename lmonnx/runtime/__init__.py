"""Serving an exported graph: sessions, batching, image decoding. Never imports torch or onnx."""

from lmonnx.runtime.preprocessing import Preprocessing
from lmonnx.runtime.session import Runner

__all__ = ["Preprocessing", "Runner"]
