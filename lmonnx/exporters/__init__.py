"""From a network to a mask-aware ONNX graph, and what can be said of a finished one."""

from lmonnx.exporters.finished import verify
from lmonnx.exporters.inspection import Inspection, inspect
from lmonnx.exporters.pipeline import Export, export
from lmonnx.exporters.verification import Verification

__all__ = ["Export", "Inspection", "Verification", "export", "inspect", "verify"]
