"""Every operator that the lowering makes, in every opset that is written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from lmonnx.errors import OptionError
from lmonnx.exporters.opsets import (
    NEWEST,
    OLDER,
    OLDEST,
    OTHERWISE,
    RUNS_UP_TO,
    convert,
    form_of,
    ir_version_of,
    require_opset,
    versions_of,
)
from tests.cases import CASES, Case
from tests.graphs import Step, build, images, lowered, masks, session, step
from tests.laws import assert_close

OPSETS = range(OLDEST, NEWEST + 1)
#: Operators that are younger than the oldest opset, and the first that has them.
FIRST = {
    "Gelu": 20,
    "HardSwish": 14,
    "LayerNormalization": 17,
    "Mish": 18,
    "RMSNormalization": 23,
    "Swish": 24,
}
#: Where every case is tried: the ends, before and after the form of most operators changed, and a few in between.
THOROUGH = (OLDEST, 17, 19, 21, NEWEST)
FIRST_CASES = list({case.operator: case for case in reversed(CASES)}.values())
#: Kernels of onnxruntime differ between opsets.
ROUNDING = 2e-6


@cache
def _model(case: Case) -> ir.Model:
    return lowered(case.model(), case.rules, case.layout).model


@cache
def _inputs(case: Case) -> dict[str, np.ndarray]:
    channels, height, width = case.shape if case.layout == "NCHW" else np.roll(case.shape, 1)
    mask = masks((int(height), int(width)))
    return {"image": images(len(mask), (int(channels), int(height), int(width))).astype(np.float32), "mask": mask}


@cache
def _as_lowered(case: Case) -> list[np.ndarray]:
    outputs: list[np.ndarray] = session(ir.to_proto(_model(case))).run(None, _inputs(case))
    return outputs


def _converted(case: Case, opset: int) -> tuple[ir.Model | None, str]:
    """The model, or why there is none."""
    try:
        return convert(_model(case), opset), ""
    except OptionError as error:
        return None, str(error)


@pytest.mark.parametrize("opset", OPSETS)
def test_every_case_computes_the_same_or_is_refused(opset: int) -> None:
    refused, cases = set(), CASES if opset in THOROUGH else FIRST_CASES
    for case in cases:
        model, refusal = _converted(case, opset)
        if model is None:
            found = re.fullmatch(rf"opset={opset}: (\w+) '.+': .*; the .*opset .* is (\d+)", refusal)
            assert found is not None, refusal
            operator, works = found[1], int(found[2])
            assert FIRST[operator] <= works <= RUNS_UP_TO.get(operator, NEWEST), case.name
            convert(_model(case), works)
            refused.add(operator)
            continue
        proto = ir.to_proto(model)
        onnx.checker.check_model(proto, full_check=True)
        assert (proto.opset_import[0].version, proto.ir_version) == (opset, ir_version_of(opset))
        for output, expected in zip(session(proto).run(None, _inputs(case)), _as_lowered(case), strict=True):
            assert_close(output, expected, ROUNDING)
    made = {node.op_type for case in cases for node in _model(case).graph}
    missing = {operator for operator, first in FIRST.items() if not first <= opset <= RUNS_UP_TO.get(operator, NEWEST)}
    assert made & missing <= refused <= missing


def test_the_table_holds_what_changed_and_nothing_else() -> None:
    made = {node.op_type for case in CASES for node in _model(case).graph}
    known = {**OLDER, **OTHERWISE}
    for operator in made | {operator for operator, _ in known}:
        versions = versions_of(operator)
        for version in versions:
            if not OLDEST < version <= NEWEST or version == versions[0]:
                continue
            before, after = (form_of(onnx.defs.get_schema(operator, opset)) for opset in (version - 1, version))
            assert before == after or (operator, version) in known, f"{operator} changed its form with opset {version}"
    assert all(version in versions_of(operator) for operator, version in known)
    assert {operator: versions_of(operator)[0] for operator in FIRST} == FIRST


@pytest.mark.parametrize("opset", [12, 27, 99, -1, True, 18.0, "18"])
def test_opsets_that_are_not_written(opset: object) -> None:
    with pytest.raises(OptionError, match=f"choose one from {OLDEST} to {NEWEST}"):
        require_opset(opset)


@pytest.mark.parametrize(("opset", "version"), [(13, 10), (18, 10), (22, 10), (23, 11), (24, 12), (26, 13)])
def test_the_lowest_ir_version(opset: int, version: int) -> None:
    assert ir_version_of(opset) == version


def plain(*steps: Step, opset: int = 18, shape: Sequence[int] = (5, 6, 7)) -> ir.Model:
    """A graph as it stands, with constants as initializers."""
    return ir.from_proto(build(steps, shape, opset))


FORMS: dict[str, tuple[tuple[Step, ...], int, int]] = {
    "Shape, the first extent": (
        (step("Shape", "x", start=0, end=1), step("Concat", "0", np.array([-1]), axis=0),
         step("Reshape", "x", "1", allowzero=1)), 18, 13),
    "Shape, all but the first": (
        (step("Shape", "x", start=1), step("ConstantOfShape", "0"), step("Add", "x", "1")), 18, 14),
    "Pad, of two axes": ((step("Pad", "x", np.array([1, 0, 2, 3]), np.array(0.5), np.array([2, -1])),), 18, 17),
    "Pad, of all": ((step("Pad", "x", np.array([0, 0, 1, 0, 0, 0, 2, 3])),), 21, 13),
    "Reduce, no axes": ((step("ReduceMean", "x", keepdims=1), step("Add", "x", "0")), 18, 13),
    "Reduce, negative axes": ((step("ReduceL2", "x", np.array([-1, -2]), keepdims=0),), 18, 13),
    "Reduce, upwards": ((step("ReduceMax", "x", np.array([-1, -2]), keepdims=0),), 18, 26),
    "AveragePool, dilations of 1": ((step("AveragePool", "x", kernel_shape=[2, 2], dilations=[1, 1]),), 22, 13),
    "AveragePool, upwards": ((step("AveragePool", "x", kernel_shape=[3, 2], ceil_mode=1, strides=[2, 2]),), 18, 26),
    "Resize, defaults said": (
        (step("Resize", "x", "", np.array([1, 1, 2, 2.0]), mode="linear", antialias=0,
              keep_aspect_ratio_policy="stretch"),), 19, 13),
    "Cast, defaults said": ((step("Cast", "x", to=7, saturate=1), step("Cast", "0", to=1)), 24, 13),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_other_forms_compute_the_same(form: str) -> None:
    steps, have, want = FORMS[form]
    model = plain(*steps, opset=have)
    written = ir.to_proto(convert(model, want))
    onnx.checker.check_model(written, full_check=True)
    image = images(3, (5, 6, 7)).astype(np.float32)
    (expected,), (output,) = (session(proto).run(None, {"x": image}) for proto in (ir.to_proto(model), written))
    assert_close(output, expected, ROUNDING)
    assert {name for node in written.graph.node for name in node.input} >= {
        each.name for each in written.graph.initializer
    }


@pytest.mark.parametrize(("extent", "sizes"), [(6, []), (7, [4, 3]), (5, [3, 2])])
def test_split_into_parts_of_unequal_size(extent: int, sizes: list[int]) -> None:
    node = onnx.helper.make_node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2)
    x, *ab = (
        onnx.helper.make_tensor_value_info(name, 1, ["n", *rest])
        for name, rest in (("x", [extent]), ("a", [None]), ("b", [None]))
    )
    opset = onnx.helper.make_opsetid("", 18)
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [x], ab), opset_imports=[opset], ir_version=10)
    written = ir.to_proto(convert(ir.from_proto(model), 17))
    assert [onnx.numpy_helper.to_array(each).tolist() for each in written.graph.initializer] == [sizes] * bool(sizes)
    image = np.arange(2.0 * extent, dtype=np.float32).reshape(2, extent)
    for mine, theirs in zip(*(session(proto).run(None, {"x": image}) for proto in (written, model)), strict=True):
        np.testing.assert_array_equal(mine, theirs)


REFUSED: dict[str, tuple[tuple[Step, ...], int, int, str]] = {
    "dilated average": ((step("AveragePool", "x", kernel_shape=[2, 2], dilations=[2, 2]),), 22, 18,
                        r"AveragePool 'node0': its dilations have no older form; the lowest opset that works is 19"),
    "antialias": ((step("Resize", "x", "", np.array([1, 1, 0.5, 0.5]), mode="linear", antialias=1),), 18, 13,
                  r"its antialias=1 has no older form; the lowest opset that works is 18"),
    "wrap": ((step("Pad", "x", np.array([0, 0, 1, 0, 0, 0, 2, 3]), mode="wrap"),), 19, 18, r"its mode='wrap' .* is 19"),
    "nothing reduced": ((step("ReduceMean", "x", noop_with_empty_axes=1),), 18, 17, r"it reduces no axis .* is 18"),
    "axes computed": (
        (step("Shape", "x"), step("Slice", "0", np.array([2]), np.array([3])), step("Div", "1", np.array([3])),
         step("ReduceMean", "x", "2")), 18, 13, r"its operand 'value2' is computed, .* is 18"),
    "empty tensor": ((step("Reshape", "x", np.array([0, -1, 6, 7]), allowzero=1),), 18, 13,
                     r"an empty tensor .* is 14"),
    "groups": ((step("GroupNormalization", "x", np.ones(5), np.ones(5), num_groups=5),), 20, 22,
               r"GroupNormalization 'node0': its scale .* the opset of the network is 20"),
    "types": ((step("Cast", "x", to=3), step("Relu", "0")), 14, 13,
              r"Relu 'node1': at opset 13 it does not take X of int8"),
    "two younger operators": ((step("Mish", "x"), step("Gelu", "0")), 20, 13,
                              r"Mish 'node0': the operator exists from opset 18 on; the lowest opset that works is 20"),
}  # fmt: skip


@pytest.mark.parametrize("form", REFUSED)
def test_what_has_no_older_form_is_refused(form: str) -> None:
    steps, have, want, message = REFUSED[form]
    model: Any = plain(*steps, opset=have)
    before = ir.to_proto(model).SerializeToString()
    with pytest.raises(OptionError, match=message):
        convert(model, want)
    assert ir.to_proto(model).SerializeToString() == before
