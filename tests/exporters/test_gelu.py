"""A GELU that PyTorch's exporter took apart has the order that onnxruntime computes at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from lmonnx.exporters.normalise import normalise
from tests.cases import w
from tests.graphs import Step, build, images, session, step

SHAPE = (3, 10, 13)
HALF, ROOT, ONE = np.array(0.5), np.array(2**0.5), np.array(1.0)
HEAD = step("Conv", "x", w(8, 3, 3, 3))
ERF = step("Div", "0", ROOT), step("Erf", "1"), step("Add", "2", ONE)
ORDERS = {
    "half, then x": (step("Mul", HALF, "3"), step("Mul", "0", "4")),
    "half behind, then x": (step("Mul", "3", HALF), step("Mul", "4", "0")),
}
#: Another factor, a factor for every channel, and a gate that is read twice.
OTHERS = {
    "a third": (step("Mul", np.array(1 / 3), "3"), step("Mul", "0", "4")),
    "by channel": (step("Mul", np.full((8, 1, 1), 0.5), "3"), step("Mul", "0", "4")),
    "read twice": (step("Mul", HALF, "3"), step("Mul", "0", "4"), step("Add", "5", "4")),
    "read before": (step("Mul", HALF, "3"), step("Mul", "0", "4"), step("Add", "5", "3")),
}


def normalised(model: onnx.ModelProto) -> onnx.ModelProto:
    return ir.to_proto(normalise(ir.from_proto(model), SHAPE[1:], "NCHW"))


def operators(model: onnx.ModelProto, folder: Path) -> list[str]:
    """What onnxruntime makes of a model."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node]


@pytest.mark.parametrize("tail", ORDERS.values(), ids=ORDERS)
def test_the_half_comes_last(tail: tuple[Step, ...], tmp_path: Path) -> None:
    model = build([HEAD, *ERF, *tail], SHAPE, 18)
    assert "Gelu" not in operators(model, tmp_path), "then the order does not matter, and normalising it can go"
    assert "Gelu" in operators(normalised(model), tmp_path)


@pytest.mark.parametrize("tail", [*ORDERS.values(), *OTHERS.values()], ids=[*ORDERS, *OTHERS])
def test_it_is_the_same_to_the_last_bit(tail: tuple[Step, ...]) -> None:
    model = build([HEAD, *ERF, *tail], SHAPE, 18)
    image = images(2, SHAPE)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    before, after = (
        onnxruntime.InferenceSession(one.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for one in (model, normalised(model))
    )
    np.testing.assert_array_equal(after.run(None, {"x": image})[0], before.run(None, {"x": image})[0])


@pytest.mark.parametrize("tail", OTHERS.values(), ids=OTHERS)
def test_what_is_no_gelu_stays(tail: tuple[Step, ...]) -> None:
    model = build([HEAD, *ERF, *tail], SHAPE, 18)
    kept = {node.name: list(node.input) for node in normalised(model).graph.node}
    assert all(kept[node.name] == list(node.input) for node in model.graph.node if node.name in ("node4", "node5"))
    session(normalised(model))
