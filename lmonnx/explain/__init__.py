"""Explaining a prediction by thousands of masks. Never imports torch or onnx."""

from lmonnx.explain.explanation import Explanation
from lmonnx.explain.lime import explain

__all__ = ["Explanation", "explain"]
