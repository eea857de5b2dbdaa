"""One canonical graph before lowering, whatever exporter wrote the file.

After :func:`normalise` a model has no local functions, one opset of the default domain, no Constant nodes, an
image input of known channels, height and width with a free batch, inferred shapes, unique names, explicit
attributes on every window, BatchNormalization folded into a convolution before it, and GroupNormalization where
an exporter had taken it apart.
"""

from __future__ import annotations

import itertools

import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnxscript.optimizer import fold_constants
from onnxscript.rewriter import RewriteRuleSet, rewrite
from onnxscript.rewriter.rules.common import fuse_batchnorm_into_conv_rule

from lmonnx.errors import SourceError
from lmonnx.exporters import batch
from lmonnx.exporters.canonical import canonicalise, recognise_group_norms
from lmonnx.exporters.graphs import infer_shapes, settle_extents, settle_targets
from lmonnx.exporters.indexing import recognise_gathers
from lmonnx.exporters.lowering.registry import BATCH, known
from lmonnx.exporters.ops.builder import UnknownShapeError, extents
from lmonnx.exporters.upgrade import OPSET, opset_of, upgrade

__all__ = ["OPEN", "OPSET", "fold", "infer_shapes", "inlined", "normalise"]

#: Elements up to which constant expressions are computed beforehand: enough for weight standardisation.
FOLD_LIMIT = 2**26
#: The floating types that activations may have.
PRECISIONS = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16)
#: What an open height and an open width are called.
OPEN = ("height", "width")


def normalise(model: ir.Model, size: tuple[int, int] | None, layout: str, *, named: bool = False) -> ir.Model:
    """A canonical copy of ``model``; the original stays as it is, and both share their weights.

    Args:
        model: any ONNX model with one input that is not an initializer.
        size: height and width of the image in pixels; None leaves them open.
        layout: ``"NCHW"`` or ``"NHWC"``, of the image input.
        named: of a model with open height and width: its shapes hold, and open extents of one name are equal.

    Raises:
        SourceError: if the model cannot be brought to an opset that the lowering writes, or its batch not freed.
    """
    model = inlined(model)
    opset_of(model)
    (image,) = model.graph.inputs
    fixed = batch.is_fixed(image)
    sides = size or OPEN
    if not named:
        _set_size(model, sides, layout, 1 if fixed else BATCH)
    infer_shapes(model)
    upgrade(model)
    if fixed:
        fold(model)
        batch.free(model.graph)
        _set_size(model, sides, layout, BATCH)
    fold(model)
    _require_precision(model.graph)
    recognise_gathers(model.graph)
    for step in (
        passes.AddDefaultAttributesPass(),
        passes.IdentityEliminationPass(),
        passes.RemoveUnusedNodesPass(),
        passes.NameFixPass(),
    ):
        step(model)
    infer_shapes(model)
    try:
        canonicalise(model.graph)
        rewrite(model, pattern_rewrite_rules=RewriteRuleSet([fuse_batchnorm_into_conv_rule]))
        passes.NameFixPass()(model)
        if size is None:
            _forget_names(model, all_=not named)
        infer_shapes(model)
        batch.require_free(model.graph)
        recognise_group_norms(model.graph)
    except UnknownShapeError as unknown:
        raise SourceError(f"{unknown}; write the model with shapes that follow from the image's size") from unknown
    passes.RemoveUnusedNodesPass()(model)
    return model


def inlined(model: ir.Model) -> ir.Model:
    """A copy with its functions inlined and its Constant nodes lifted; names of nodes are unique afterwards.

    It shares the weights with ``model``.
    """
    copy = model.clone()
    if "ai.onnx" in copy.opset_imports:  # another name of the default domain
        copy.opset_imports[""] = copy.opset_imports.pop("ai.onnx")
    for step in (
        passes.InlinePass(),
        passes.RemoveInitializersFromInputsPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.NameFixPass(),
    ):
        step(copy)
    return copy


def fold(model: ir.Model) -> None:
    """Infers shapes and computes constant expressions, but for those of quantised weights, which stay small.

    Where an extent beside the free batch is known, what is computed from it is constant too, and more shapes are known.

    Raises:
        SourceError: if one cannot be computed.
    """
    try:
        settled = True
        while settled:
            count = len(model.graph)
            infer_shapes(model)
            fold_constants(model, input_size_limit=FOLD_LIMIT, output_size_limit=FOLD_LIMIT, should_fold=_whether)
            # of what a decided If leaves, more may be decided
            settled = settle_extents(model.graph) | settle_targets(model.graph)
            settled |= len(model.graph) != count and any(node.op_type == "If" for node in model.graph)
    except RuntimeError as error:
        cause = str(error.__cause__ or error).strip().partition("\n")[0]
        raise SourceError(f"{error} fails: {cause}; write the model again with that node repaired") from error
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)


def _require_precision(graph: ir.Graph) -> None:
    """What depends on the image is in a precision that the reference has; constants may be in any.

    Raises:
        SourceError: naming the first node that is not.
    """
    for node in graph:
        for value in node.outputs:
            if value.dtype is not None and value.dtype.is_floating_point() and value.dtype not in PRECISIONS:
                raise SourceError(
                    f"{node.op_type} {node.name!r} gives {value.dtype.name.lower()}, in which no graph can be proven; "
                    "write the model in float32 or float16, without an autocast to others"
                )


def _whether(node: ir.Node) -> bool | None:
    """True for a ConstantOfShape that fits, because shapes are made of it; None for what the folder does itself."""
    if node.op_type != "ConstantOfShape" or node.domain:
        return None
    shape = known(node.inputs[0])
    return True if shape is not None and shape.prod() <= FOLD_LIMIT else None


def _forget_names(model: ir.Model, *, all_: bool) -> None:
    """Forgets open extents, all of them or those that inference has named.

    Names are to be those of one inference, in which equal ones are equal extents.
    """
    for value in (value for node in model.graph.all_nodes() for value in node.outputs):
        if value.shape is not None:
            value.shape = ir.Shape(
                [None if not isinstance(side, int) and (all_ or _inferred(side)) else side for side in value.shape]
            )


def _inferred(side: ir.SymbolicDim) -> bool:
    return side.value is None or side.value.startswith("unk__")


def _set_size(model: ir.Model, size: tuple[int, int] | tuple[str, str], layout: str, rows: int | str) -> None:
    """Fixes height and width and sets the batch; shapes inferred for other sizes are forgotten."""
    (image,) = model.graph.inputs
    channels = extents(image)[1 if layout == "NCHW" else 3]
    for value in itertools.chain.from_iterable(node.outputs for node in model.graph.all_nodes()):
        value.shape = None
    inner = (channels, *size) if layout == "NCHW" else (*size, channels)
    image.shape = ir.Shape([rows, *inner])
