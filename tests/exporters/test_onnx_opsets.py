"""Operators of older opsets compute in their new form what they did."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import lmonnx
from lmonnx.errors import SourceError
from lmonnx.exporters.normalise import OPSET, normalise
from lmonnx.exporters.upgrade import CHANGES, NEWEST, OLDEST
from tests.families.case import positive, w
from tests.graphs import Step, build, images, session, step

SHAPE = (3, 10, 13)
CONV = step("Conv", "x", w(8, 3, 3, 3), pads=[1, 1, 1, 1])
POOL, FLAT = step("GlobalAveragePool", "0"), step("Flatten", "1")
PARAMETERS = positive(8), w(8), w(8), positive(8)
#: Operators whose new form has the same attributes, with the same defaults, and means something else without one.
MEANING = {"BatchNormalization", "Resize", "RoiAlign"}


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def scales(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


#: situation: first and last opset of the form, steps.
FORMS: dict[str, tuple[int, int, tuple[Step, ...]]] = {
    "BatchNormalization": (9, 17, (CONV, step("Relu", "0"), step("BatchNormalization", "1", *PARAMETERS, epsilon=0.1))),
    "Clip, both": (9, 10, (CONV, step("Clip", "0", min=0.0, max=0.5))),
    "Clip, max": (9, 10, (CONV, step("Clip", "0", max=0.5))),
    "Clip, min": (9, 10, (CONV, step("Clip", "0", min=0.1))),
    "Clip, none": (9, 10, (CONV, step("Clip", "0"))),
    "Clip, inputs": (11, 17, (CONV, step("Clip", "0", "", np.array(0.5)))),
    "Dropout, ratio": (9, 11, (CONV, step("Dropout", "0", ratio=0.4))),
    "Dropout, input": (12, 17, (CONV, step("Dropout", "0", np.array(0.4), np.array(False)))),
    "Pad, value": (
        9,
        10,
        (step("Pad", "x", pads=[0, 0, 1, 2, 0, 0, 3, 1], value=0.5), step("Conv", "0", w(8, 3, 3, 3))),
    ),
    "Pad, zeros": (9, 10, (step("Pad", "x", pads=[0, 0, 1, 2, 0, 0, 3, 1]), step("Conv", "0", w(8, 3, 3, 3)))),
    "Pad, reflect": (9, 10, (step("Pad", "x", pads=[0, 0, 1, 2, 0, 0, 3, 1], mode="reflect"), step("Relu", "0"))),
    "Slice": (9, 9, (CONV, step("Slice", "0", starts=[-3, 1], ends=[2**63 - 1, 9], axes=[1, 2]))),
    "Slice, no axes": (9, 9, (CONV, step("Slice", "0", starts=[0, 2], ends=[99, 4]))),
    "Split": (9, 12, (CONV, step("Split", "0", axis=1, split=[8]))),
    "Split, equal": (9, 17, (CONV, step("Split", "0", axis=1))),
    "Squeeze": (9, 12, (CONV, POOL, step("Squeeze", "1", axes=[2, 3]))),
    "Unsqueeze": (9, 12, (CONV, POOL, FLAT, step("Unsqueeze", "2", axes=[2, 3]), step("Mul", "0", "3"))),
    "Upsample, nearest": (9, 9, (CONV, step("Upsample", "0", scales(1, 1, 1.3, 2)))),
    "Upsample, linear": (9, 9, (CONV, step("Upsample", "0", scales(1, 1, 2, 2.5), mode="linear"))),
    "Resize, nearest": (10, 10, (CONV, step("Resize", "0", scales(1, 1, 0.5, 1.7)))),
    "Resize, linear": (10, 10, (CONV, step("Resize", "0", scales(1, 1, 0.6, 2), mode="linear"))),
    "Resize, new": (11, 17, (CONV, step("Resize", "0", scales(), scales(1, 1, 2, 2), mode="linear"))),
}
FORMS |= {
    f"{operator}, {name}": (first, 17, (CONV, step(operator, "0", **settings)))
    for operator in ("Softmax", "LogSoftmax", "Hardmax")
    for name, first, settings in (
        ("default", 9, {}),
        ("channels", 9, {"axis": 1}),
        ("rows", 9, {"axis": 2}),
        ("last", 11, {"axis": -1}),
    )
}
FORMS |= {
    f"{operator}, {name}": (
        first,
        12 if operator == "ReduceSum" else 17,
        (CONV, step("Exp", "0"), step(operator, "1", **settings)),
    )
    for operator in sorted(CHANGES)
    if operator.startswith("Reduce")
    for name, first, settings in (
        ("space", 9, {"axes": [2, 3]}),
        ("from the end", 11, {"axes": [-1, -2], "keepdims": 0}),
        ("channels", 9, {"axes": [1], "keepdims": 0}),
    )
}


@pytest.mark.parametrize("name", FORMS)
def test_normalised_graph_computes_what_the_file_does(name: str) -> None:
    first, last, steps = FORMS[name]
    image = images(3, SHAPE)
    for opset in sorted({first, min(last, 12), last}):
        model = build(steps, SHAPE, opset)
        normal = normalise(ir.from_proto(model), SHAPE[1:], "NCHW")
        assert normal.opset_imports[""] == OPSET
        (expected,), (actual,) = (session(m).run(None, {"x": image}) for m in (model, ir.to_proto(normal)))
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5, err_msg=f"opset {opset}")


def test_table_has_every_operator_that_changed_its_form() -> None:
    versions: dict[str, list[Any]] = defaultdict(list)
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.since_version <= OPSET:
            versions[schema.name].append(schema)
    changed = set()
    for name, schemas in versions.items():
        schemas.sort(key=lambda schema: schema.since_version)
        start = max(i for i, schema in enumerate(schemas) if i == 0 or schema.since_version <= OLDEST)
        old, new = _defaults(schemas[start]), _defaults(schemas[-1])
        if any(new.get(key, "gone") != old[key] for key in old) or (schemas[-1].deprecated and len(schemas) > 1):
            changed.add(name)
    assert changed | MEANING == set(CHANGES)


def _defaults(schema: Any) -> dict[str, str]:
    return {name: str(attribute.default_value) for name, attribute in schema.attributes.items()}


HEAD = (CONV, POOL, FLAT)


@pytest.mark.parametrize("opset", [OLDEST, NEWEST])
def test_oldest_and_newest_are_exported(opset: int, tmp_path: Path) -> None:
    onnx.save(build(HEAD, (3, 32, 32), opset), tmp_path / "in.onnx")
    assert lmonnx.export(tmp_path / "in.onnx", tmp_path / "out.onnx").verification


@pytest.mark.parametrize("opset", [OLDEST - 1, NEWEST + 1])
def test_other_opsets_are_refused(opset: int, tmp_path: Path) -> None:
    model = build(HEAD, (3, 32, 32), opset)
    onnx.save(model, tmp_path / "in.onnx")
    with pytest.raises(SourceError, match=f"opset {opset} is not read; write the model again at an opset from 9 to 26"):
        lmonnx.export(tmp_path / "in.onnx", tmp_path / "out.onnx")


def test_an_older_shrinking_by_a_fraction_is_refused() -> None:
    model = build((CONV, step("Resize", "0", scales(1, 1, 0.7, 0.7))), SHAPE, 10)
    with pytest.raises(SourceError, match=r"Resize 'node1' shrinks by .* write the model again at opset 11 or later"):
        normalise(ir.from_proto(model), SHAPE[1:], "NCHW")


def test_an_older_batch_norm_in_training_is_refused() -> None:
    model = build((CONV, step("BatchNormalization", "0", *PARAMETERS)), SHAPE, 9)
    model.graph.node[1].output.extend(["mean", "var"])
    model.graph.output.append(onnx.helper.make_tensor_value_info("mean", 1, [8]))
    with pytest.raises(SourceError, match=r"BatchNormalization 'node1' is in training mode"):
        normalise(ir.from_proto(model), SHAPE[1:], "NCHW")
