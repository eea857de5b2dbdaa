"""Explaining a prediction by thousands of masks. Never imports torch or onnx."""

from lmonnx.explain.explanation import Explanation
from lmonnx.explain.lime import explain
from lmonnx.explain.many import explain_many

__all__ = ["Explanation", "explain", "explain_many"]
