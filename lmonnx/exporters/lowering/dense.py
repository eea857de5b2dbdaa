"""Dense layers over channels that an exporter has written over a matrix of pixels, [N·H·W, C], kept apart again.

So do converters of Keras write a dense layer over a map whose channels are last. On the matrix a pixel's row is no
place in an image any more; on the map the same operators act at every position.
"""

from __future__ import annotations

import onnx_ir as ir

from lmonnx.exporters.lowering.registry import attributes, constant_for, known
from lmonnx.exporters.lowering.rules.pointwise import POINTWISE
from lmonnx.exporters.ops.builder import extents

JOINS = ("Add", "Div", "Mul", "Sub")


def recognise_dense(graph: ir.Graph) -> None:
    """Reshape [N, …space, C] to [N·…, C], operators of single rows, Reshape to [N, …space, K] -> without Reshapes."""
    for merge in list(graph):
        chain = _chain(merge)
        if not chain:
            continue
        x, merged = merge.inputs[0], merge.outputs[0]
        assert x is not None
        merged.replace_all_uses_with(x)
        for node in chain:
            if node.op_type == "Reshape":
                before = node.inputs[0]
                assert before is not None
                node.outputs[0].replace_all_uses_with(before, replace_graph_outputs=True)
                graph.remove(node, safe=True)
            else:
                _over_maps(graph, node, x)
        graph.remove(merge, safe=True)


def _chain(merge: ir.Node) -> list[ir.Node]:
    """The nodes behind the Reshape ``merge`` up to those that undo it, in order; none if they are anything else."""
    x, rows = merge.inputs[0] if merge.inputs else None, merge.outputs[0]
    if merge.op_type != "Reshape" or x is None or x.shape is None or rows.shape is None:
        return []
    before = extents(x)
    if len(before) < 3 or len(extents(rows)) != 2 or extents(rows)[1] != before[-1]:
        return []
    if None in before[1:] or set(before[1:-1]) == {1}:
        return []
    chain: list[ir.Node] = []
    values, ends = [rows], 0
    while values:
        value = values.pop(0)
        if value.is_graph_output():
            return []
        for node, place in value.uses():
            if _undoes(node, before):
                ends += 1
            elif place == 0 and _of_single_rows(node):
                values.append(node.outputs[0])
            else:
                return []
            chain.append(node)
    return chain if ends else []


def _undoes(node: ir.Node, before: tuple[int | None, ...]) -> bool:
    after = node.outputs[0]
    if node.op_type != "Reshape" or after.shape is None or node.inputs[0] is None or node.inputs[0].shape is None:
        return False
    return extents(after)[1:] == (*before[1:-1], extents(node.inputs[0])[1]) and len(extents(after)) == len(before)


def _of_single_rows(node: ir.Node) -> bool:
    """Whether ``node`` treats every row of its first input, a matrix, alone."""
    settings, constants = attributes(node), [known(value) for value in node.inputs[1:]]
    if any(array is None and value is not None for array, value in zip(constants, node.inputs[1:], strict=True)):
        return False
    arrays = [array for array in constants if array is not None]
    if node.op_type == "MatMul":
        return arrays[0].ndim == 2
    if node.op_type == "Gemm":
        return not settings.get("transA", 0) and all(array.ndim < 2 or len(array) == 1 for array in arrays[1:])
    if node.op_type in JOINS:
        return arrays[0].ndim < 2 or arrays[0].shape[:-1] == (1,)
    if node.op_type in ("LayerNormalization", "Softmax"):
        return settings.get("axis", -1) in (1, -1)
    return node.op_type in POINTWISE or node.op_type == "Clip"


def _over_maps(graph: ir.Graph, node: ir.Node, x: ir.Value) -> None:
    """Lets ``node``, an operator of single rows, act on maps of the extents of ``x``, in place."""
    assert x.shape is not None
    y = node.outputs[0]
    shape = y.shape = ir.Shape([*list(x.shape)[:-1], extents(y)[1]])
    if node.op_type in ("LayerNormalization", "Softmax"):
        node.attributes["axis"] = ir.AttrInt64("axis", -1)
    if node.op_type == "Gemm":
        settings, (weights, *bias) = attributes(node), [known(value) for value in node.inputs[1:]]
        assert weights is not None
        matrix = settings.get("alpha", 1.0) * (weights.T if settings.get("transB", 0) else weights)
        product = ir.node("MatMul", [node.inputs[0], constant_for(node, "weights", matrix)])
        product.name, nodes = f"{node.name}/product", [product]
        if bias and bias[0] is not None:
            added = constant_for(node, "bias", settings.get("beta", 1.0) * bias[0])
            nodes.append(ir.node("Add", [product.outputs[0], added], name=str(node.name)))
        for made in nodes:
            made.outputs[0].name = f"{made.name}/made"
            made.outputs[0].type, made.outputs[0].shape = y.type, shape
        ir.convenience.replace_nodes_and_values(graph, node, [node], nodes, [y], nodes[-1].outputs)
