"""The rules, a module a family; importing this package fills the table."""

from lmonnx.exporters.lowering.rules import joins, layout, norms, pointwise, reductions, windows

__all__ = ["joins", "layout", "norms", "pointwise", "reductions", "windows"]
