"""The rules, a module a family; importing this package fills the table."""

from lmonnx.exporters.lowering.rules import (
    joins,
    layout,
    norms,
    parts,
    pointwise,
    quantised,
    reductions,
    resampling,
    windows,
)

__all__ = ["joins", "layout", "norms", "parts", "pointwise", "quantised", "reductions", "resampling", "windows"]
