"""The canonical form of single operators, once shapes are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir

from lmonnx.errors import SourceError
from lmonnx.exporters.lowering.registry import FIXED, INTERNAL_DOMAIN, attributes, constant_for, known
from lmonnx.exporters.ops.builder import extents, sides

WINDOWED = ("Conv", "MaxPool", "AveragePool")


def canonicalise(graph: ir.Graph) -> None:
    """Brings every operator of ``CANONICAL`` into the form that the rules expect, in place.

    Raises:
        SourceError: if one is in training mode, or its window depends on an unknown size.
    """
    for node in list(graph):
        if not node.domain and node.op_type in CANONICAL:
            CANONICAL[node.op_type](node)


def _explicit_window(node: ir.Node) -> None:
    """kernel_shape, strides, dilations and pads as attributes; auto_pad is resolved into pads and gone."""
    settings = attributes(node)
    x, *others = node.inputs
    assert x is not None
    if node.op_type == "Conv":
        assert others[0] is not None
        settings.setdefault("kernel_shape", extents(others[0])[2:])
    axes = len(settings["kernel_shape"])
    settings.setdefault("strides", (1,) * axes)
    if node.op_type != "AveragePool" or (node.version or 0) >= 19:
        settings.setdefault("dilations", (1,) * axes)
    auto = settings.pop("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        settings["pads"] = _same_pads(settings, extents(x)[2:], upper=auto == "SAME_UPPER")
    elif auto == "VALID" or "pads" not in settings:
        settings["pads"] = (0,) * 2 * axes
    node.attributes.pop("auto_pad", None)
    for name in ("kernel_shape", "strides", "dilations", "pads"):
        if name in settings:
            node.attributes[name] = ir.AttrInt64s(name, list(settings[name]))


def _same_pads(settings: dict[str, tuple[int, ...]], space: tuple[int | None, ...], *, upper: bool) -> tuple[int, ...]:
    """Pads that give ceil(extent / stride) windows; an odd pixel goes after the map, or before it."""
    begins, ends = [], []
    dilations = settings.get("dilations", (1,) * len(space))
    for extent, kernel, stride, dilation in zip(
        space, settings["kernel_shape"], settings["strides"], dilations, strict=True
    ):
        if extent is None and stride > 1:
            raise SourceError(f"auto_pad SAME with strides needs a known height and width; {FIXED}")
        extent = extent or 1  # of stride 1 the pads are those of any extent
        windows = -(-extent // stride)
        total = max(0, (windows - 1) * stride + dilation * (kernel - 1) + 1 - extent)
        small, large = total // 2, total - total // 2
        begins.append(small if upper else large)
        ends.append(large if upper else small)
    return (*begins, *ends)


def _scalar_bounds(node: ir.Node) -> None:
    """Clip's bounds with no axes, as the operator wants them; some converters write one axis of extent 1."""
    for i, bound in enumerate(node.inputs[1:], start=1):
        if bound is not None and bound.const_value is not None and bound.const_value.numpy().ndim:
            node.replace_input_with(i, constant_for(node, f"bound{i}", bound.const_value.numpy().reshape(())))


def _explicit_squeeze(node: ir.Node) -> None:
    """The axes of a Squeeze that names none: all of extent 1 but the batch, which no single axis is."""
    (x, *axes) = node.inputs
    if x is None or x.shape is None or any(axis is not None for axis in axes):
        return
    if None in extents(x)[1:]:
        raise SourceError(f"Squeeze {node.name!r} names no axes and its map has open extents; {FIXED}")
    ones = [axis for axis, extent in enumerate(extents(x)) if (axis or len(extents(x)) == 1) and extent == 1]
    node.resize_inputs(2)
    node.replace_input_with(1, constant_for(node, "axes", np.array(ones, np.int64)))


def _evaluation_mode(node: ir.Node) -> None:
    """A BatchNormalization with stored statistics, which alone may be folded."""
    if attributes(node).get("training_mode", 0):
        raise SourceError(f"{node.op_type} {node.name!r} is in training mode; write the model in evaluation mode")


def _half_last(node: ir.Node) -> None:
    """Of a GELU, x · (½ · (1 + erf(…))) becomes (x · (1 + erf(…))) · ½, the same to the last bit.

    In that order onnxruntime computes all of it, and the bias before it, as one operator.
    """
    shifted = _only_reader(node, "Add")
    halved = shifted and _only_reader(shifted, "Mul")
    product = halved and _only_reader(halved, "Mul")
    if not shifted or not halved or not product:
        return
    inner, outer = halved.outputs[0], product.outputs[0]
    half = next((value for value in halved.inputs if value is not shifted.outputs[0]), None)
    x = next((value for value in product.inputs if value is not inner), None)
    number = known(half)
    if number is not None and number.shape == () and number == 0.5 and x is not None:
        for node, operands in ((halved, (shifted.outputs[0], x)), (product, (inner, half))):
            for i, operand in enumerate(operands):
                node.replace_input_with(i, operand)
        inner.shape = outer.shape


def _only_reader(node: ir.Node, operator: str) -> ir.Node | None:
    """The node that alone reads what ``node`` gives, if it is an ``operator``."""
    (value,) = node.outputs
    readers = [use.node for use in value.uses()]
    if len(readers) != 1 or value.is_graph_output() or readers[0].domain or readers[0].op_type != operator:
        return None
    return readers[0]


#: operator -> what makes its canonical form, in place.
CANONICAL: dict[str, Callable[[ir.Node], None]] = {
    **dict.fromkeys(WINDOWED, _explicit_window),
    "BatchNormalization": _evaluation_mode,
    "Clip": _scalar_bounds,
    "Erf": _half_last,
    "Squeeze": _explicit_squeeze,
}


def recognise_group_norms(graph: ir.Graph) -> None:
    """Reshape [N, C, …] to [N, G, K], InstanceNormalization, Reshape back -> GroupNormalization of G groups.

    The form that exporters leave below opset 21. Scale and bias of the InstanceNormalization are one and zero
    there; those of the group norm follow as a Mul and an Add, which stay. The operator that is made is of a domain
    of our own, so no inference of shapes may follow.
    """
    for instance, before, after in list(_taken_apart(graph)):
        x, y = before.inputs[0], after.outputs[0]
        assert instance.inputs[0] is not None
        group_norm = ir.node(
            "GroupNormalization",
            [x],
            {"num_groups": extents(instance.inputs[0])[1], "epsilon": attributes(instance)["epsilon"]},
            domain=INTERNAL_DOMAIN,
            name=instance.name,
        )
        group_norm.outputs[0].type, group_norm.outputs[0].shape = y.type, y.shape
        ir.convenience.replace_nodes_and_values(
            graph, after, [before, instance, after], [group_norm], [y], group_norm.outputs
        )


def _taken_apart(graph: ir.Graph) -> Iterator[tuple[ir.Node, ir.Node, ir.Node]]:
    for instance in graph:
        if instance.op_type != "InstanceNormalization" or any(v is None for v in instance.inputs):
            continue
        x, scale, bias = instance.inputs
        before, users = x.producer(), [use.node for use in instance.outputs[0].uses()]  # type: ignore[union-attr]
        plain = all(v is not None and v.const_value is not None for v in (scale, bias))
        if (
            before is None
            or before.op_type != "Reshape"
            or len(users) != 1
            or users[0].op_type != "Reshape"
            or not plain
        ):
            continue
        if len(list(before.outputs[0].uses())) != 1:
            continue
        whole, back = before.inputs[0], users[0].outputs[0]
        assert scale is not None and bias is not None  # noqa: PT018
        ones = np.array_equal(scale.const_value.numpy(), np.ones(extents(scale)))  # type: ignore[union-attr]
        zeros = not bias.const_value.numpy().any()  # type: ignore[union-attr]
        if whole is not None and ones and zeros and len(extents(x)) == 3 and _restored(instance, whole, back):  # type: ignore[arg-type]
            yield instance, before, users[0]


def _restored(instance: ir.Node, whole: ir.Value, back: ir.Value) -> bool:
    """Whether ``back`` has the shape of ``whole``, but for the batch.

    Raises:
        SourceError: if that depends on open extents.
    """
    if len(sides(whole)) != len(sides(back)):
        return False
    pairs = list(zip(sides(whole)[1:], sides(back)[1:], strict=True))
    if any(a != b for a, b in pairs if isinstance(a, int) and isinstance(b, int)):
        return False
    if any(a != b or a is None for a, b in pairs) or extents(instance.inputs[0])[1] is None:  # type: ignore[arg-type]
        raise SourceError(f"whether {instance.op_type} {instance.name!r} is a group norm is not known; {FIXED}")
    return True
