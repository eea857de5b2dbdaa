"""Zeros that are made before an activation, not behind it.

A product with the mask reads and writes the map once more. Where the map is f(c), c the result of a convolution, what
makes f(c) zero can be added to c, and onnxruntime adds it while the convolution writes c, and applies f there too:

- p, 0 where kept and very negative where removed, if f is 0 for very negative numbers, as Relu and HardSwish are;
- the bias where kept, and 0 where removed, if f(0) = 0 and the convolution reads single pixels, of a zeroed map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import onnx_ir as ir

from lmonnx.exporters.lowering.registry import attributes, known
from lmonnx.exporters.lowering.rules.joins import JOINS
from lmonnx.exporters.lowering.rules.pointwise import POINTWISE
from lmonnx.exporters.ops.builder import RULE_KEY, SOURCE_KEY, Op, scalar
from lmonnx.exporters.ops.fill import GATE, KEPT, zeroed
from lmonnx.exporters.ops.masked import POINTWISE_OF, Masked
from lmonnx.exporters.ops.masks import as_float, channels_of, in_blocks, spread


def _clip(x: Any, low: Any = None, high: Any = None) -> Any:
    return np.clip(x, -np.inf if low is None else low, np.inf if high is None else high)


def _hard_sigmoid(x: Any, alpha: float = 0.2, beta: float = 0.5) -> Any:
    return np.clip(alpha * x + beta, 0, 1)


#: Operators that for numbers low enough give exactly 0, or sums and products of such, in every runtime. Of an
#: exponential function that cannot be said.
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
#: What activations may be made of.
PARTS = {*STEPS, *(name for name, facts in POINTWISE.items() if facts.finite)}
#: How many of them one may have.
MOST = 8
#: What is added where removed: beyond what networks compute, and far enough from the ends of float32.
PENALTY = -1e30


@dataclass(frozen=True)
class Activation:
    """f(c).

    Attributes:
        pre: c, in blocks of channels.
        nodes: of f, last to first.
        value: f(c).
    """

    pre: ir.Value
    nodes: Sequence[ir.Node]
    value: ir.Value


def close_gates(graph: ir.Graph, op: Op) -> None:
    """Takes the products of such maps with their masks out of ``graph``, which ``op`` built, in place."""
    order = {value: i for i, node in enumerate(graph) for value in node.outputs}
    closed: set[tuple[ir.Value, ir.Value]] = set()
    for node in list(graph):
        (product, *_), mask = node.outputs, node.outputs[0].meta.get(GATE)
        if mask is None or product.is_graph_output():
            continue
        map_ = node.inputs[0]
        assert map_ is not None
        with op.made_by(node.metadata_props[RULE_KEY], node.metadata_props[SOURCE_KEY]):
            if (map_, mask) in closed or any(
                _by_penalty(op, found, mask) or _by_bias(op, found, mask, closed)
                for found in activations(map_, mask, order)
            ):
                closed.add((map_, mask))
                product.replace_all_uses_with(map_)
                graph.remove(node, safe=True)
    graph.sort()


def activations(value: ir.Value, mask: ir.Value, order: Mapping[ir.Value, int]) -> Iterator[Activation]:
    """The ways to take ``value`` for an f(c), the shortest first, where nothing but f reads c and what f computes.

    Args:
        value: any.
        mask: of ``value``.
        order: of values that nodes compute, a place behind those that it is computed from.
    """
    frontier, nodes = {value}, list[ir.Node]()
    while value.dtype in KEPT and len(nodes) < MOST:
        last = max(frontier, key=lambda x: order.get(x, -1))
        node = last.producer()
        if node is None or node.domain or node.op_type not in PARTS:
            return
        nodes.append(node)
        frontier = (frontier - {last}) | {x for x in node.inputs if x is not None and known(x) is None}
        if len(frontier) == 1:
            (pre,) = frontier
            if _read_by(nodes, pre, value) and in_blocks(pre, mask):
                yield Activation(pre, tuple(nodes), value)


def _read_by(nodes: Sequence[ir.Node], pre: ir.Value, value: ir.Value) -> bool:
    """Whether ``nodes`` alone read ``pre`` and what they compute, but for ``value``."""
    inner = [pre, *(output for node in nodes for output in node.outputs if output is not value)]
    return not any(x.is_graph_output() or any(use.node not in nodes for use in x.uses()) for x in inner)


def _by_penalty(op: Op, found: Activation, mask: ir.Value) -> bool:
    """Lets f see very negative numbers where removed, if it makes 0 of them and they are not beyond the graph's."""
    pre = found.pre
    if op.half or not _ends_at_zero(found):
        return False
    removed = op.Sub(as_float(op, mask, pre.dtype), scalar(1, pre))
    penalty = op.own(_by_channel(np.full(channels_of(pre), -PENALTY), pre))
    _let_read(found, op.Add(pre, spread(op, removed, pre, penalty)))
    return True


def _ends_at_zero(found: Activation) -> bool:
    """Whether f makes 0 of very negative numbers in all channels."""
    if any(node.op_type not in STEPS for node in found.nodes):
        return False
    assert found.pre.dtype is not None
    for factor in (0.5, 1, 2):
        values = {found.pre: np.full((1, channels_of(found.pre), 1, 1), factor * PENALTY, found.pre.dtype.numpy())}
        for node in reversed(found.nodes):
            operands = [None if x is None else values[x] if x in values else known(x) for x in node.inputs]
            with np.errstate(all="ignore"):
                values[node.outputs[0]] = STEPS[node.op_type](*operands, **attributes(node))
        if np.any(values[found.value] != 0):
            return False
    return True


def _by_bias(op: Op, found: Activation, mask: ir.Value, closed: set[tuple[ir.Value, ir.Value]]) -> bool:
    """Lets the convolution read zeros and add its bias only where kept, if f(0) = 0 and that costs less."""
    x, conv = found.pre.meta.get(POINTWISE_OF), found.pre.producer()
    if not isinstance(x, Masked) or conv is None or x.mask is not mask or not _starts_at_zero(found):
        return False
    zero = x.zero or (x.data, mask) in closed
    if not (zero or (x.finite and in_blocks(x.data, mask) and 2 * channels_of(x.data) <= channels_of(found.pre))):
        return False
    bias = conv.inputs[2] if len(conv.inputs) > 2 else None
    factors = known(bias)
    if bias is not None and factors is None:
        return False
    conv.replace_input_with(0, x.data if zero else zeroed(op, x))
    if factors is not None:
        conv.resize_inputs(2)
        kept = as_float(op, mask, found.pre.dtype)
        _let_read(found, op.Add(found.pre, spread(op, kept, found.pre, op.own(_by_channel(factors, found.pre)))))
    return True


def _starts_at_zero(found: Activation) -> bool:
    """Whether f(0) = 0, by what each of its operators makes of zeros and whatever rounding."""
    zero = {found.pre: True}
    for node in reversed(found.nodes):
        zero[node.outputs[0]] = _gives_zero(node, [zero.get(x, False) for x in node.inputs if x is not None])
    return zero[found.value]


def _gives_zero(node: ir.Node, zeros: list[bool]) -> bool:
    """Whether a result is 0 where the operands are of which ``zeros`` says so."""
    if node.op_type == "Clip":
        return zeros[0] and bool(_clip(0.0, *map(known, node.inputs[1:])) == 0)
    if node.op_type in POINTWISE:
        return zeros[0] and POINTWISE[node.op_type].zero
    return node.op_type in JOINS and JOINS[node.op_type][0](zeros)


def _by_channel(factors: np.ndarray, data: ir.Value) -> np.ndarray:
    assert data.dtype is not None
    return factors.astype(data.dtype.numpy()).reshape(-1, 1, 1, 1)


def _let_read(found: Activation, value: ir.Value) -> None:
    """Lets f read ``value`` for c."""
    for node in found.nodes:
        for i, x in enumerate(node.inputs):
            if x is found.pre:
                node.replace_input_with(i, value)
