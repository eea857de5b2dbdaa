"""Zeros that are made before an activation, not behind it.

A product with the mask reads and writes the map once more. Where the map is f(c), and f is 0 for very negative numbers,
as Relu and HardSwish are, f(c + p) is that product if p is 0 where kept and very negative where removed: c + 0 is c.
onnxruntime adds p while a convolution writes c, and applies f there too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import onnx_ir as ir

from lmonnx.exporters.lowering.registry import attributes, known
from lmonnx.exporters.ops.builder import RULE_KEY, SOURCE_KEY, Op, scalar
from lmonnx.exporters.ops.fill import GATE, SCALABLE
from lmonnx.exporters.ops.masks import as_float, channels_of, in_blocks, spread


def _clip(x: Any, low: Any = None, high: Any = None) -> Any:
    return np.clip(x, -np.inf if low is None else low, np.inf if high is None else high)


def _hard_sigmoid(x: Any, alpha: float = 0.2, beta: float = 0.5) -> Any:
    return np.clip(alpha * x + beta, 0, 1)


#: What activations may be made of: operators that for numbers low enough give exactly 0, or sums and products of such,
#: in every runtime. Of an exponential function that cannot be said.
STEPS: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "Clip": _clip,
    "Div": np.divide,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda x: x * _hard_sigmoid(x, 1 / 6),
    "Max": lambda *x: reduce(np.maximum, x),
    "Min": lambda *x: reduce(np.minimum, x),
    "Mul": np.multiply,
    "Relu": lambda x: np.maximum(x, 0),
    "Sub": np.subtract,
}
#: How many of them one may have.
MOST = 8
#: What is added where removed: beyond what networks compute, and far enough from the ends of float32.
PENALTY = -1e30


def close_gates(graph: ir.Graph, op: Op) -> None:
    """Takes the products of such maps with their masks out of ``graph``, which ``op`` built, in place."""
    order = {value: i for i, node in enumerate(graph) for value in node.outputs}
    for node in list(graph):
        (product, *_), mask = node.outputs, node.outputs[0].meta.get(GATE)
        if mask is None or product.is_graph_output():
            continue
        map_ = node.inputs[0]
        assert map_ is not None
        found = activation(map_, mask, order)
        if found is not None:
            _close(op, product, map_, *found)
            graph.remove(node, safe=True)
    graph.sort()


def activation(value: ir.Value, mask: ir.Value, order: Mapping[ir.Value, int]) -> tuple[ir.Value, list[ir.Node]] | None:
    """The value c and the nodes of f, last to first, if ``value`` is f(c) and f is 0 for very negative numbers.

    None if it is not, if anything but f reads c or what f computes on the way, or if c is not in blocks of channels.

    Args:
        value: any.
        mask: of ``value``.
        order: of values that nodes compute, a place behind those that it is computed from.
    """
    frontier, nodes = {value}, list[ir.Node]()
    while value.dtype in SCALABLE and len(nodes) < MOST:
        last = max(frontier, key=lambda x: order.get(x, -1))
        node = last.producer()
        if node is None or node.domain or node.op_type not in STEPS:
            return None
        nodes.append(node)
        frontier = (frontier - {last}) | {x for x in node.inputs if x is not None and known(x) is None}
        if len(frontier) == 1:
            (pre,) = frontier
            if _read_by(nodes, pre, value) and in_blocks(pre, mask) and _closes(pre, nodes, value):
                return pre, nodes
    return None


def _read_by(nodes: Sequence[ir.Node], pre: ir.Value, value: ir.Value) -> bool:
    """Whether ``nodes`` alone read ``pre`` and what they compute, but for ``value``."""
    inner = [pre, *(output for node in nodes for output in node.outputs if output is not value)]
    return not any(x.is_graph_output() or any(use.node not in nodes for use in x.uses()) for x in inner)


def _closes(pre: ir.Value, nodes: Sequence[ir.Node], value: ir.Value) -> bool:
    """Whether ``nodes``, last to first, make 0 of very negative numbers in all channels."""
    assert value.dtype is not None
    for factor in (0.5, 1, 2):
        values = {pre: np.full((1, channels_of(pre), 1, 1), factor * PENALTY, value.dtype.numpy())}
        for node in reversed(nodes):
            operands = [None if x is None else values[x] if x in values else known(x) for x in node.inputs]
            with np.errstate(all="ignore"):
                values[node.outputs[0]] = STEPS[node.op_type](*operands, **attributes(node))
        if np.any(values[value] != 0):
            return False
    return True


def _close(op: Op, product: ir.Value, map_: ir.Value, pre: ir.Value, nodes: Sequence[ir.Node]) -> None:
    """Lets ``map_`` be 0 where removed, and stand wherever ``product`` did."""
    maker = product.producer()
    assert maker is not None
    assert pre.dtype is not None
    with op.made_by(maker.metadata_props[RULE_KEY], maker.metadata_props[SOURCE_KEY]):
        removed = op.Sub(as_float(op, product.meta[GATE], pre.dtype), scalar(1, pre))
        penalty = op.own(np.full((channels_of(pre), 1, 1, 1), -PENALTY, pre.dtype.numpy()))
        pushed = op.Add(pre, spread(op, removed, pre, penalty))
    for node in nodes:
        for i, x in enumerate(node.inputs):
            if x is pre:
                node.replace_input_with(i, pushed)
    product.replace_all_uses_with(map_)
