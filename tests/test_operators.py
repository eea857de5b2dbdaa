"""Every case of the table: graph = reference, and the laws."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from lmonnx.exporters.lowering.registry import RULES
from lmonnx.reference import ONNX_OPERATORS
from tests.cases import CASES, Case
from tests.graphs import (
    Run,
    by_evaluator,
    by_onnxruntime,
    by_reference,
    images,
    lowered,
    masks,
    proto_of,
    session,
)
from tests.laws import ENDS, assert_close, check_laws

SLACK, FLOOR = 4.0, 2e-6
EXACT = 1e-10
#: The masks that onnx's evaluator gets, which pools in Python loops: none, patches, stripes, one pixel kept.
EVALUATED = [1, 2, 4, 6]
#: Operators that onnx's evaluator computes in float32, or with a float32 parameter, whatever the dtype.
ROUNDED_BY_EVALUATOR = dict.fromkeys(("Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Selu"), 1e-6)


ALL = [probe for case in CASES for probe in case.probes()]
every_case = pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)


@cache
def _inputs(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """An image [7, C, H, W] for each mask [7, 1, H, W], float64."""
    channels, height, width = case.shape if case.layout == "NCHW" else np.roll(case.shape, 1)
    mask = masks((int(height), int(width)))
    return images(len(mask), (int(channels), int(height), int(width)), np.float64), mask


@every_case
def test_graph_equals_reference_in_float64(case: Case) -> None:
    if not case.wide:
        pytest.skip("the case rounds to float32 on purpose")
    image, mask = (array[EVALUATED] for array in _inputs(case))
    model = case.model(np.float64)
    graph = by_evaluator(proto_of(lowered(model, case.rules, case.layout)))
    expected = by_reference(model, case.rules, case.layout)(image, mask)
    assert_close(graph(image, mask), expected, ROUNDED_BY_EVALUATOR.get(case.operator, EXACT))


@every_case
def test_graph_equals_reference_in_float32(case: Case) -> None:
    image, mask = _inputs(case)
    single = image.astype(np.float32)
    run = by_reference(case.model(), case.rules, case.layout)
    expected, rounded = run(single.astype(np.float64), mask), run(single, mask)
    scale = np.std(expected) or 1.0
    tolerance = SLACK * float(np.abs(rounded - expected).max()) / scale + FLOOR
    assert_close(_graph(case)(single, mask), expected, tolerance)


@every_case
def test_laws(case: Case) -> None:
    image, mask = _inputs(case)
    image = image.astype(np.float32)
    plain = session(case.model())
    given = image if case.layout == "NCHW" else image.transpose(0, 2, 3, 1)
    original = plain.run(None, {"x": given})[0]
    bits = ENDS.isdisjoint(step.operator for step in case.steps)
    check_laws(_graph(case), image, mask, original=original, tolerance=1e-5, rounding=1e-5, bits=bits)


@cache
def _graph(case: Case) -> Run:
    return by_onnxruntime(proto_of(lowered(case.model(), case.rules, case.layout)))


def test_operator_has_rule_reference_and_case() -> None:
    assert sorted(RULES) == sorted(ONNX_OPERATORS) == sorted({case.operator for case in CASES})
