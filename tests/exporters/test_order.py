"""The order of the nodes in a file: by depth, and masks right before they are read."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import lmonnx
from lmonnx.exporters.lowering.order import arrange
from tests.families.case import w
from tests.graphs import build, by_onnxruntime, images, lowered, masks, proto_of, step

SHAPE = (3, 12, 12)
#: A residual block of which the shortcut comes last, as PyTorch's exporter writes it.
BLOCK = (
    step("Conv", "x", w(8, 3, 3, 3), pads=[1, 1, 1, 1]),
    step("Relu", "0"),
    step("Conv", "1", w(8, 8, 1, 1)),
    step("Relu", "2"),
    step("Conv", "3", w(8, 8, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2]),
    step("Relu", "4"),
    step("Conv", "5", w(16, 8, 1, 1)),
    step("Conv", "1", w(16, 8, 1, 1), strides=[2, 2]),
    step("Add", "6", "7"),
    step("Relu", "8"),
    step("Conv", "9", w(8, 16, 3, 3), pads=[1, 1, 1, 1]),
)


def following(graph: ir.Graph) -> list[bool]:
    """Of each node in graph order, whether it depends on the pixels of the image."""
    seen = {value for value in graph.inputs if value.name == "image"}
    found = []
    for node in graph:
        found.append(node.op_type != "Shape" and any(value in seen for value in node.inputs))
        if found[-1]:
            seen.update(node.outputs)
    return found


def test_masks_stand_before_what_reads_them_and_the_shortcut_before_the_branch() -> None:
    graph = lowered(build(BLOCK, SHAPE, 18)).model.graph
    nodes, pixels = list(graph), following(graph)
    place = {node: i for i, node in enumerate(nodes)}
    for i, node in enumerate(nodes):
        readers = [place[use.node] for value in node.outputs for use in value.uses()]
        assert all(reader > i for reader in readers)
        if readers and not pixels[i] and node.op_type != "Shape":
            between = pixels[i + 1 : min(readers)]
            assert not any(between), f"{node.name} stands {sum(between)} nodes of the network before its reader"
    assert sum(not one for one in pixels) > 10
    names = [node.name for node in nodes if pixels[place[node]]]
    assert names.index("node7") < names.index("node4") < names.index("node6")
    assert (nodes[0].op_type, nodes[0].inputs[1].name) == ("Where", "image")  # type: ignore[union-attr]


def test_what_is_computed_stays_the_same() -> None:
    result = lowered(build(BLOCK, SHAPE, 18))
    mask = masks(SHAPE[1:])
    image = images(len(mask), SHAPE)
    before = by_onnxruntime(proto_of(result))(image, mask)
    nodes = list(result.model.graph)
    result.model.graph.remove(nodes)
    result.model.graph.extend(reversed(nodes))
    result.model.graph.sort()
    shuffled = proto_of(result)
    arrange(result.model.graph)
    again = proto_of(result)
    assert [node.name for node in again.graph.node] != [node.name for node in shuffled.graph.node]
    assert {node.name for node in again.graph.node} == {node.name for node in nodes}
    np.testing.assert_array_equal(by_onnxruntime(again)(image, mask), before)


@pytest.mark.parametrize("name", ["scenes-material"])
def test_a_file_is_in_that_order(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = lmonnx.export(name, tmp_path_factory.mktemp("order") / "out.onnx", verify=False).path
    graph = ir.load(path).graph
    written = [node.name for node in graph]
    arrange(graph)
    assert [node.name for node in graph] == written
