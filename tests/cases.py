"""One table of operator cases: every operator that can be masked, in the situations that differ.

A case is a graph of a few nodes. It runs through the lowering, in onnxruntime and in onnx's evaluator, and through
the reference; see test_operators.py. Its name begins with the operator that it is about. A module of
tests/families has the cases of one family.
"""

from __future__ import annotations

from tests.families.blocks import blocks
from tests.families.case import Case, w
from tests.families.joins import joins
from tests.families.layout import layout, parts, resampling
from tests.families.norms import norms, quantised
from tests.families.pointwise import pointwise, reductions
from tests.families.reach import reaching
from tests.families.windows import windows

__all__ = ["CASES", "Case", "w"]

FAMILIES = (windows, reaching, reductions, pointwise, joins, layout, parts, resampling, norms, quantised, blocks)
CASES = [case for family in FAMILIES for case in family()]
assert len({case.name for case in CASES}) == len(CASES)
