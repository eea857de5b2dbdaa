"""From a network to a mask-aware ONNX graph."""

from lmonnx.exporters.pipeline import Export, export

__all__ = ["Export", "export"]
