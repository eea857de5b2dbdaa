"""What the forms for maps of many channels consist of: which activations make the zeros, and what a ring takes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
import pytest

from lmonnx.exporters.lowering.gates import PENALTY
from tests.families.blocks import ACTIVATIONS, chain
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
def test_an_activation_makes_the_zeros_if_it_is_0_for_very_negative_numbers(name: str) -> None:
    steps, closes = ACTIVATIONS[name]
    graph = graph_of(*chain(steps))
    constants = [value.const_value.numpy() for value in graph.initializers.values() if value.const_value is not None]
    assert sum(bool((array == -PENALTY).all()) for array in constants) == closes
    # Zeros by a spread penalty or mask; two rings of a convolution, spread weights and a product; zeros of the output.
    zeros = Counter({"Conv": 1, "Add" if closes else "Mul": 1})
    assert added(graph) == zeros + Counter({"Conv": 4, "Mul": 2}) + Counter({"Conv": 1, "Mul": 1})


def test_zeros_before_the_activation_are_those_behind_it() -> None:
    mask = masks(SHAPE[1:])
    image = images(len(mask), SHAPE)
    before, behind = (
        by_onnxruntime(proto_of(lowered(build(chain(steps), SHAPE, 18))))(image, mask)
        for steps in ((step("Relu", "0"),), (step("LeakyRelu", "0", alpha=0.0),))
    )
    np.testing.assert_array_equal(before, behind)
