"""The table of rules: which function lowers which operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from lmonnx.exporters.ops.masked import Masked

Operand: TypeAlias = Masked | ir.Value | None
#: What a value of the source becomes; a plain one where the mask is consumed.
Made: TypeAlias = Masked | ir.Value
#: (op, node, *inputs) -> what the node's output becomes, or a list of what its outputs become.
Rule: TypeAlias = Callable[..., Made | list[Masked]]

#: A domain of our own, for operators that normalisation recognises and the rules take apart again.
INTERNAL_DOMAIN = "lmonnx"

#: What the batch is called in shapes.
BATCH = "batch"

#: What to do where open extents of the image are in the way.
FIXED = "export with a fixed size"

RULES: dict[str, Rule] = {}


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Registers a function as the rule of ``operators``; a second rule for one operator is an error."""

    def register(function: Rule) -> Rule:
        for operator in operators:
            if operator in RULES:
                raise ValueError(f"{operator} has a rule already: {RULES[operator].__qualname__}")
            RULES[operator] = function
        return function

    return register


class Refused(Exception):  # noqa: N818 - never leaves the engine
    """Raised by a rule for a node that masking is not defined for.

    Attributes:
        why: the reason, as the user will read it.
        remedy: what the user can do, or None for the general advice.
        axes: the axes of the node's output that are space, so that the nodes after it can be looked at too;
            None if the rule does not know.
        debris: whether it says nothing where attention is, of which such a node is a part.
    """

    def __init__(
        self, why: str, remedy: str | None = None, axes: tuple[int, ...] | None = None, *, debris: bool = False
    ) -> None:
        super().__init__(why)
        self.why, self.remedy, self.axes, self.debris = why, remedy, axes, debris


def attributes(node: ir.Node) -> dict[str, Any]:
    """The attributes of ``node`` as Python values."""
    return {attribute.name: attribute.value for attribute in node.attributes.values()}


def known(value: ir.Value | None) -> np.ndarray | None:
    """The array behind ``value``; None if there is none before the graph runs."""
    return None if value is None or value.const_value is None else value.const_value.numpy()


def constant_for(node: ir.Node, name: str, array: np.ndarray) -> ir.Value:
    """An initializer ``<node>/<name>`` in the graph that ``node`` stands in; names of nodes are unique."""
    assert isinstance(node.graph, ir.Graph)
    tensor = ir.tensor(array)
    value = ir.Value(
        name=f"{node.name}/{name}", const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape)
    )
    node.graph.register_initializer(value)
    return value


def constant(operand: Operand, what: str) -> Any:
    """The numpy array behind ``operand``.

    Raises:
        Refused: if it is not known before the graph runs.
    """
    if not isinstance(operand, ir.Value) or operand.const_value is None:
        raise Refused(f"{what} is computed while the graph runs", FIXED)
    return operand.const_value.numpy()


def unpadded(x: Masked) -> Masked:
    """``x``, which must not have a pending border.

    Raises:
        Refused: if it has one.
    """
    if x.border is not None:
        raise Refused("a constant Pad over space is only defined directly before a convolution or a pool")
    return x
