"""What a node that reads no masked value must not do either: let one row of a batch depend on another.

Behind a global pool values have no mask and nodes are copied. Which axis is the batch there is known by its name in
the shapes; where inference has lost it nothing is said, and the proof decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir

from lmonnx.exporters.lowering.registry import BATCH, attributes, known
from lmonnx.exporters.lowering.rules.joins import JOINS
from lmonnx.exporters.lowering.rules.parts import WHOLE

MIXED = "it mixes the rows of a batch, so that a result depends on the images and masks beside it"


def mixed(node: ir.Node, following: Sequence[bool]) -> str | None:
    """Why ``node`` gives no row of its own for each pair of image and mask; None if it does, as far as is known.

    Args:
        node: one that reads no masked value.
        following: for each of its inputs, whether it follows from the image.
    """
    check = JUDGES.get(node.op_type)
    return MIXED if any(following) and check is not None and check(node, following) else None


def _batch_axis(value: ir.Value | None) -> int | None:
    """The one axis of ``value`` that is the batch; None if that is not known."""
    shape = () if value is None or value.shape is None else value.shape
    named = [i for i, extent in enumerate(shape) if not isinstance(extent, int) and extent.value == BATCH]
    return named[0] if len(named) == 1 else None


def _along(default: int | None, *, behind: bool = False) -> Callable[..., bool]:
    """Whether the attribute ``axis``, or with ``behind`` an axis from there on, is the batch."""

    def judge(node: ir.Node, _: Sequence[bool]) -> bool:
        value = next((v for v in node.inputs if _batch_axis(v) is not None), None)
        axis = attributes(node).get("axis", default)
        if value is None or value.shape is None or axis is None:
            return False
        place = int(axis) % len(value.shape)
        at = _batch_axis(value)
        return at is not None and (place <= at if behind else place == at)

    return judge


def _lookup(node: ir.Node, _: Sequence[bool]) -> bool:
    """A Gather of single rows, or of every row at the places of every other one; of a constant table it is neither."""
    x, places = node.inputs[:2]
    at = _batch_axis(x)
    if at is None or x is None:
        return False
    return int(attributes(node).get("axis", 0)) % len(x.shape or ()) == at or _batch_axis(places) is not None


def _among(axes: Any, value: ir.Value | None) -> bool:
    batch = _batch_axis(value)
    assert value is not None
    return batch is not None and batch in [int(axis) % len(value.shape or ()) for axis in axes]


def _reduction(node: ir.Node, _: Sequence[bool]) -> bool:
    axes = known(node.inputs[1]) if len(node.inputs) > 1 else None
    if axes is None or not axes.size:
        absent = len(node.inputs) < 2 or node.inputs[1] is None or axes is not None
        everything = absent and not attributes(node).get("noop_with_empty_axes", 0)
        return everything and _batch_axis(node.inputs[0]) is not None
    return _among(axes, node.inputs[0])


def _cumulative(node: ir.Node, _: Sequence[bool]) -> bool:
    axis = known(node.inputs[1])
    return axis is not None and _among(axis.reshape(-1), node.inputs[0])


def _cut(node: ir.Node, _: Sequence[bool]) -> bool:
    """A Slice of the batch that is not the whole of it, in order."""
    starts, ends, axes, steps = ([*(known(value) for value in node.inputs[1:]), None, None])[:4]
    batch = _batch_axis(node.inputs[0])
    if starts is None or ends is None or batch is None or node.inputs[0] is None:
        return False
    rank = len(node.inputs[0].shape or ())
    places = [int(axis) % rank for axis in (range(len(starts)) if axes is None else axes)]
    if batch not in places:
        return False
    i = places.index(batch)
    return not (starts[i] == 0 and ends[i] >= WHOLE and (steps is None or steps[i] == 1))


def _product(node: ir.Node, following: Sequence[bool]) -> bool:
    """A product over the batch, or of every row with every other one."""
    transposed = [attributes(node).get(name, 0) for name in ("transA", "transB")]
    places = []
    for value, turned in zip(node.inputs[:2], transposed, strict=True):
        batch = _batch_axis(value)
        back = None if batch is None or value is None else len(value.shape or ()) - batch
        places.append(3 - back if turned and back is not None else back)  # 1 is the last axis
    left, right = places
    return left == 1 or right == 2 or (all(following[:2]) and (left == 2) and (right == 1))


def _aligned(node: ir.Node, _: Sequence[bool]) -> bool:
    """Operands whose batches meet other axes when they are broadcast."""
    places = set()
    for value in node.inputs:
        batch = _batch_axis(value)
        if value is not None and batch is not None:
            places.add(len(value.shape or ()) - batch)
    return len(places) > 1


REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
#: operator -> whether it mixes the rows of a batch.
JUDGES: dict[str, Callable[[ir.Node, Sequence[bool]], bool]] = {
    **{f"Reduce{name}": _reduction for name in REDUCTIONS},
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "LpNormalization", "TopK"), _along(-1)),
    **dict.fromkeys(("ArgMax", "ArgMin", "GatherElements", "Split"), _along(0)),
    "Concat": _along(None),
    "Gather": _lookup,
    "LayerNormalization": _along(-1, behind=True),
    "RMSNormalization": _along(-1, behind=True),
    "CumSum": _cumulative,
    "Slice": _cut,
    "MatMul": _product,
    "Gemm": _product,
    **dict.fromkeys(JOINS, _aligned),
}
