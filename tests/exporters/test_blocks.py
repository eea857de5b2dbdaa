"""What the forms for maps of many channels consist of: which activations make the zeros, and what a ring takes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
import onnxruntime
import pytest

from lmonnx.exporters.lowering.gates import PENALTY
from tests.families.blocks import ACTIVATIONS, WIDEN, chain, depthwise, w
from tests.graphs import Step, build, by_onnxruntime, images, lowered, masks, proto_of, step

SHAPE = (3, 10, 13)


def graph_of(*steps: Step) -> ir.Graph:
    model = lowered(build(steps, SHAPE, 18)).model
    passes.RemoveUnusedNodesPass()(model)
    return model.graph


def added(graph: ir.Graph) -> Counter[str]:
    """How often an operator was added whose result is a map of eight channels."""
    wide = [node for node in graph if "/mask/" in str(node.name) and list(node.outputs[0].shape or ())[1:2] == [8]]
    return Counter(node.op_type for node in wide)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_zeros_are_made_before_an_activation_that_keeps_them(name: str) -> None:
    steps, means = ACTIVATIONS[name]
    graph = graph_of(*chain(steps))
    constants = [value.const_value.numpy() for value in graph.initializers.values() if value.const_value is not None]
    assert any(bool((array == -PENALTY).all()) for array in constants) == (means == "penalty")
    widened = graph.node("node0")
    assert (len(widened.inputs) == 2) == (means == "bias")
    # Zeros by a spread penalty, bias or mask; two rings of a convolution, spread weights and a product; the output's.
    zeros = Counter({"Conv": 1, "Add" if means else "Mul": 1})
    assert added(graph) == zeros + Counter({"Conv": 4, "Mul": 2}) + Counter({"Conv": 1, "Mul": 1})


def test_a_wide_map_is_not_zeroed_for_the_sake_of_a_narrow_one() -> None:
    leaky = step("LeakyRelu", "0", alpha=0.1), step("Conv", "1", w(8, 8, 1, 1), w(8)), step("LeakyRelu", "2", alpha=0.1)
    assert all(len(node.inputs) == 3 for node in graph_of(WIDEN, *leaky, depthwise("3")) if node.name == "node2")


@pytest.mark.parametrize("slope", [0.0, 0.1], ids=["penalty", "bias"])
def test_zeros_before_the_activation_are_those_behind_it(slope: float) -> None:
    mask = masks(SHAPE[1:])
    image = images(len(mask), SHAPE)
    first = step("LeakyRelu", "0", alpha=slope) if slope else step("Relu", "0")
    before, behind = (
        by_onnxruntime(proto_of(lowered(build(chain((one,)), SHAPE, 18))))(image, mask)
        for one in (first, step("PRelu", "0", np.array(slope)))
    )
    np.testing.assert_allclose(before, behind, rtol=0, atol=1e-6 * np.std(behind))


def test_rings_make_no_denormal_numbers_of_zeros_that_are_kept() -> None:
    """A map of zeros but for a few pixels, as behind a Relu, filled four rings far."""
    rng = np.random.default_rng(0)
    mask = rng.random((2, 1, *SHAPE[1:])) > 0.3
    image = np.where(rng.random((2, *SHAPE)) > 0.95, rng.random((2, *SHAPE)), 0).astype(np.float32)
    sparse = step("Conv", "x", np.abs(w(8, 3, 1, 1))), step("Relu", "0"), depthwise("1", 5, strides=[2, 2])
    model = proto_of(lowered(build(sparse, SHAPE, 18)))
    rings = [node.output[0] for node in model.graph.node if "/mask/Conv" in node.name or "/mask/Mul" in node.name]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in rings)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    values = np.concatenate([value.ravel() for value in session.run(rings, {"image": image, "mask": mask})])
    sizes = np.abs(values[values != 0])
    assert sizes.min() >= np.finfo(np.float32).tiny
