"""One canonical graph before lowering, whatever exporter wrote the file.

After :func:`normalise` a model has no local functions, one opset of the default domain, no Constant nodes, an
image input of known channels, height and width with a free batch, inferred shapes, unique names, explicit
attributes on every window, BatchNormalization folded into a convolution before it, and GroupNormalization where
an exporter had taken it apart.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnxscript.optimizer import fold_constants
from onnxscript.rewriter import RewriteRuleSet, rewrite
from onnxscript.rewriter.rules.common import fuse_batchnorm_into_conv_rule

from lmonnx.errors import SourceError
from lmonnx.exporters.lowering.registry import INTERNAL_DOMAIN, attributes
from lmonnx.exporters.ops.builder import extents

#: The oldest opset that the lowering writes, and the one it prefers: onnxruntime's CPU AveragePool of opset 19
#: and later is an unvectorised loop.
OPSET = 18
#: Elements up to which constant expressions are computed beforehand: enough for weight standardisation.
FOLD_LIMIT = 2**26
WINDOWED = ("Conv", "MaxPool", "AveragePool")


def normalise(model: ir.Model, size: tuple[int, int], layout: str) -> ir.Model:
    """A canonical copy of ``model``; the original stays as it is.

    Args:
        model: any ONNX model with one input that is not an initializer.
        size: height and width of the image in pixels.
        layout: ``"NCHW"`` or ``"NHWC"``, of the image input.

    Raises:
        SourceError: if the model cannot be brought to an opset that the lowering writes.
    """
    model = _to_opset(inlined(model))
    _free_batch(model.graph)
    _set_size(model, size, layout)
    infer_shapes(model)
    fold_constants(model, input_size_limit=FOLD_LIMIT, output_size_limit=FOLD_LIMIT)
    for step in (
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.AddDefaultAttributesPass(),
        passes.IdentityEliminationPass(),
        passes.RemoveUnusedNodesPass(),
        passes.NameFixPass(),
    ):
        step(model)
    infer_shapes(model)
    for node in list(model.graph):
        if node.op_type in CANONICAL:
            CANONICAL[node.op_type](node)
    rewrite(model, pattern_rewrite_rules=RewriteRuleSet([fuse_batchnorm_into_conv_rule]))
    passes.NameFixPass()(model)
    infer_shapes(model)
    _recognise_group_norm(model.graph)  # after the last inference, which knows standard operators only
    passes.RemoveUnusedNodesPass()(model)
    return model


def inlined(model: ir.Model) -> ir.Model:
    """A copy with its functions inlined and its Constant nodes lifted; names of nodes are unique afterwards."""
    copy = ir.from_proto(ir.to_proto(model))
    assert isinstance(copy, ir.Model)
    for step in (
        passes.InlinePass(),
        passes.RemoveInitializersFromInputsPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.NameFixPass(),
    ):
        step(copy)
    return copy


def _to_opset(model: ir.Model) -> ir.Model:
    """The model in opset 18, or its own if that is newer. The conversion is checked: it can fail silently."""
    have = model.opset_imports.get("")
    if have is None:
        raise SourceError("the model imports no opset of the default domain; write it again with a current exporter")
    if have < OPSET:
        model.ir_version = max(model.ir_version, 8)  # an older one lists initializers among the inputs
        try:
            model = ir.from_proto(onnx.version_converter.convert_version(ir.to_proto(model), OPSET))
        except (RuntimeError, onnx.version_converter.ConvertError) as error:
            reason = str(error).strip().splitlines()[0]
            raise SourceError(
                f"opset {have} could not be converted to {OPSET} ({reason}); write the model again at opset {OPSET}"
            ) from error
    target = max(have, OPSET)
    if model.opset_imports[""] != target:
        raise SourceError(f"opset {have} could not be converted to {target}; write the model again at opset {OPSET}")
    for node in model.graph:
        if not node.domain:
            node.version = target
    return model


def _free_batch(graph: ir.Graph) -> None:
    """Makes the Reshapes of a graph whose batch is fixed at 1 keep the batch instead of writing the 1.

    Raises:
        SourceError: if the batch is fixed at another number.
    """
    (image,) = graph.inputs
    batch = extents(image)[0]
    if batch is None:
        return
    if batch != 1:
        raise SourceError(
            f"the batch of {image.name!r} is fixed at {batch}; write the model with a free batch, or with 1"
        )
    depending: set[ir.Value] = {image}
    for node in graph:
        if not depending.intersection(value for value in node.inputs if value is not None):
            continue
        depending.update(node.outputs)
        target = node.inputs[1] if node.op_type == "Reshape" else None
        shape = None if target is None or target.const_value is None else target.const_value.numpy()
        if shape is not None and shape.size > 1 and shape[0] == 1:
            node.replace_input_with(1, _constant(graph, f"{node.name}/shape", np.array([0, *shape[1:]], np.int64)))
            node.attributes.pop("allowzero", None)


def _constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.tensor(array)
    value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape))
    graph.register_initializer(value)
    return value


def _set_size(model: ir.Model, size: tuple[int, int], layout: str) -> None:
    """Fixes height and width and frees the batch; shapes inferred for other sizes are forgotten."""
    (image,) = model.graph.inputs
    channels = extents(image)[1 if layout == "NCHW" else 3]
    for value in itertools.chain.from_iterable(node.outputs for node in model.graph):
        value.shape = None
    inner = (channels, *size) if layout == "NCHW" else (*size, channels)
    image.shape = ir.Shape(["batch", *inner])


def infer_shapes(model: ir.Model) -> None:
    """Infers the shapes of ``model`` in place; where that fails they stay unknown, and what needs one says so."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        passes.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    finally:
        logger.setLevel(level)


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
        if extent is None:
            raise SourceError("auto_pad needs a known height and width; export with a fixed size")
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
            assert isinstance(node.graph, ir.Graph)
            array = bound.const_value.numpy().reshape(())
            node.replace_input_with(i, _constant(node.graph, f"{node.name}/bound{i}", array))


def _explicit_squeeze(node: ir.Node) -> None:
    """The axes of a Squeeze that names none: all of extent 1 but the batch."""
    (x, *axes) = node.inputs
    if x is None or x.shape is None or any(axis is not None for axis in axes):
        return
    assert isinstance(node.graph, ir.Graph)
    ones = [axis for axis, extent in enumerate(extents(x)) if axis and extent == 1]
    node.resize_inputs(2)
    node.replace_input_with(1, _constant(node.graph, f"{node.name}/axes", np.array(ones, np.int64)))


def _evaluation_mode(node: ir.Node) -> None:
    """A BatchNormalization with stored statistics, which alone may be folded."""
    if attributes(node).get("training_mode", 0):
        raise SourceError(f"{node.op_type} {node.name!r} is in training mode; write the model in evaluation mode")


#: operator -> what makes its canonical form, in place.
CANONICAL: dict[str, Callable[[ir.Node], None]] = {
    **dict.fromkeys(WINDOWED, _explicit_window),
    "BatchNormalization": _evaluation_mode,
    "Clip": _scalar_bounds,
    "Squeeze": _explicit_squeeze,
}


def _recognise_group_norm(graph: ir.Graph) -> None:
    """Reshape [N, C, …] to [N, G, K], InstanceNormalization, Reshape back -> GroupNormalization of G groups.

    The form that exporters leave below opset 21. Scale and bias of the InstanceNormalization are one and zero
    there; those of the group norm follow as a Mul and an Add, which stay.
    """
    for instance, before, after in list(_group_norms(graph)):
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


def _group_norms(graph: ir.Graph) -> Iterator[tuple[ir.Node, ir.Node, ir.Node]]:
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
        if whole is not None and ones and zeros and extents(whole) == extents(back) and len(extents(x)) == 3:  # type: ignore[arg-type]
            yield instance, before, users[0]
