"""From one opset to another: what changed in the form of operators from opset 13 on, as a table.

    convert(model, 13)    a node at a time, one change after the other: 18 -> 17 … -> 13

Most versions of an operator differ in the types they take and in nothing else. :data:`OLDER` holds those that differ in
form, or in what a form means, and how a node is written without them. A node of opset 18 or later needs nothing to be
one of a newer opset, except those of :data:`OTHERWISE`. What is not known is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnx.defs import OpSchema

from lmonnx.errors import OptionError
from lmonnx.exporters.lowering.registry import attributes

#: The oldest and the newest opset that are written: onnxruntime 1.31 runs nothing newer.
OLDEST, NEWEST = 13, 26
#: The lowest IR version whose nodes carry metadata, which is where the rules are recorded.
IR_VERSION = 10

Step: TypeAlias = Callable[[ir.Node], None]

UNKNOWN = "its form changed with opset {}, and how to write it in the other one is not known"


class _RefusedError(Exception):
    """A node cannot be written at an opset: why."""


def newest() -> int:
    """The newest opset that can be written here."""
    return min(NEWEST, onnx.defs.onnx_opset_version())


def require_opset(opset: object) -> None:
    """Refuses what is not an opset that can be written.

    Raises:
        OptionError: if it is none.
    """
    whole = isinstance(opset, int) and not isinstance(opset, bool)
    if not whole or not OLDEST <= opset <= newest():  # type: ignore[operator]
        raise OptionError(f"opset={opset!r} is not one that is written; choose one from {OLDEST} to {newest()}")


def convert(model: ir.Model, opset: int) -> ir.Model:
    """A copy of ``model`` in another opset of the default domain, and in the lowest IR version that goes with it.

    Args:
        model: standard operators only, no subgraphs; it is left as it is.
        opset: from :data:`OLDEST` to :data:`NEWEST`.

    Raises:
        OptionError: naming the first node that does not exist at ``opset``, and an opset that works.
    """
    try:
        return _converted(model, opset)
    except _RefusedError as refusal:
        reason = str(refusal)
    have = model.opset_imports[""]
    works = next(other for other in range(opset + 1, have + 1) if _works(model, other)) if opset < have else have
    bound = "lowest opset that works" if opset < have else "opset of the network"
    raise OptionError(f"opset={opset}: {reason}; the {bound} is {works}")


def ir_version_of(opset: int) -> int:
    """The lowest IR version that has what the lowering writes, and was published no later than the opset.

    IR version 10, published with opset 21, also goes with older opsets.
    """
    paired: int = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])
    return max(IR_VERSION, paired)


def _works(model: ir.Model, opset: int) -> bool:
    try:
        _converted(model, opset)
    except _RefusedError:
        return False
    return True


def _converted(model: ir.Model, opset: int) -> ir.Model:
    copy = model.clone()
    have = copy.opset_imports[""]
    for node in list(copy.graph) if have != opset else ():
        try:
            if opset > RUNS_UP_TO.get(node.op_type, opset):
                raise _RefusedError(f"onnxruntime runs it up to opset {RUNS_UP_TO[node.op_type]}")
            for rewrite in _crossed(node.op_type, have, opset):
                rewrite(node)
            _require_fits(node, opset)
        except _RefusedError as refusal:
            raise _RefusedError(f"{node.op_type} {node.name!r}: {refusal}") from refusal
    copy.opset_imports[""] = opset
    for node in copy.graph:
        node.version = opset
    copy.ir_version = ir_version_of(opset)
    passes.RemoveUnusedNodesPass()(copy)  # operands that became attributes
    return copy


def _crossed(operator: str, have: int, want: int) -> Iterator[Step]:
    """What a node goes through, in order."""
    low, high = sorted((have, want))
    versions = [version for version in versions_of(operator) if low < version <= high]
    for version in versions if want > have else reversed(versions):
        if (operator, version) in OTHERWISE:
            raise _RefusedError(OTHERWISE[operator, version])
        if want > have:
            _require_room(operator, version)
        elif (operator, version) in OLDER:
            yield OLDER[operator, version]
        else:
            _require_same_form(operator, version)


def _require_room(operator: str, version: int) -> None:
    """What is new in a version may be left out."""
    (older, *bounds), (newer, *others) = (form_of(_schema(operator, opset)) for opset in (version - 1, version))
    needed = [name for name, required in newer if required]
    if not {name for name, _ in older} <= {name for name, _ in newer} or not set(needed) <= {name for name, _ in older}:
        raise _RefusedError(UNKNOWN.format(version))
    if bounds[0] != others[0] or bounds[1] > others[1]:
        raise _RefusedError(UNKNOWN.format(version))


def _require_same_form(operator: str, version: int) -> None:
    """A version that is not in the table has the form of the one before; the first has none before."""
    if version == min(versions_of(operator)):
        raise _RefusedError(f"the operator exists from opset {version} on")
    if form_of(_schema(operator, version - 1)) != form_of(_schema(operator, version)):
        raise _RefusedError(UNKNOWN.format(version))


@cache
def versions_of(operator: str) -> tuple[int, ...]:
    """The opsets that changed an operator of the default domain, ascending."""
    every = onnx.defs.get_all_schemas_with_history()
    return tuple(sorted(s.since_version for s in every if s.name == operator and s.domain == "" and not s.deprecated))


def form_of(schema: OpSchema) -> tuple[Any, ...]:
    """What two versions that differ in types alone have in common: attributes, and how many inputs and outputs."""
    names = tuple(sorted((name, attribute.required) for name, attribute in schema.attributes.items()))
    return names, schema.min_input, schema.max_input, schema.min_output, schema.max_output


@cache
def _schema(operator: str, opset: int) -> OpSchema:
    return onnx.defs.get_schema(operator, opset)


def _require_fits(node: ir.Node, opset: int) -> None:
    """The operator exists at the opset, and takes what the node gives it."""
    schema = _schema(node.op_type, opset)
    odd = sorted(set(node.attributes) - set(schema.attributes))
    if odd:
        raise _RefusedError(f"it has no {odd[0]} at opset {opset}")
    for i, value in enumerate(node.inputs):
        formal = schema.inputs[min(i, len(schema.inputs) - 1)]
        if value is not None and value.dtype is not None and f"tensor({_type(value.dtype)})" not in formal.types:
            raise _RefusedError(f"at opset {opset} it does not take {formal.name} of {_type(value.dtype)}")


def _type(dtype: ir.DataType) -> str:
    """As schemas name it."""
    return {"FLOAT": "float", "DOUBLE": "double"}.get(dtype.name, dtype.name.lower())


def _added(**defaults: Any) -> Step:
    """Attributes that are new; without them the operator did what their defaults say."""

    def down(node: ir.Node) -> None:
        given = attributes(node)
        for name, default in defaults.items():
            if name in given and given[name] != default:
                raise _RefusedError(f"its {name}={given[name]!r} has no older form")
            node.attributes.pop(name, None)

    return down


def _meant(name: str, value: str) -> Step:
    """A value of an attribute that is new."""

    def down(node: ir.Node) -> None:
        if attributes(node).get(name) == value:
            raise _RefusedError(f"its {name}={value!r} has no older form")

    return down


def _constants(node: ir.Node, index: int) -> tuple[int, ...] | None:
    """The numbers of a constant operand, None if there is no such operand."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return None
    if value.const_value is None:
        raise _RefusedError(f"its operand {value.name!r} is computed, and an attribute or a constant in the older form")
    return tuple(int(number) for number in value.const_value.numpy().ravel())


def _operand(node: ir.Node, index: int, numbers: Iterator[int] | tuple[int, ...]) -> None:
    """Gives a node a constant operand; operands between are left out."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    taken, name, count = graph.initializers, f"{node.name}/opset/operand{index}", 1
    while name in taken:
        name, count = f"{node.name}/opset/operand{index}_{count}", count + 1
    array = np.array(list(numbers), np.int64)
    kind = ir.TensorType(ir.DataType.INT64)
    value = ir.Value(name=name, const_value=ir.tensor(array), type=kind, shape=ir.Shape(array.shape))
    graph.register_initializer(value)
    node.resize_inputs(max(len(node.inputs), index + 1))
    node.replace_input_with(index, value)


def _without(node: ir.Node, index: int) -> None:
    """Drops the last operand."""
    if index < len(node.inputs):
        node.resize_inputs(index)


def _axes_to_attribute(node: ir.Node) -> None:
    axes = _constants(node, 1)
    if not axes and attributes(node).get("noop_with_empty_axes", 0):
        raise _RefusedError("that it reduces no axis has no older form")
    node.attributes.pop("noop_with_empty_axes", None)
    _without(node, 1)
    if axes:
        node.attributes["axes"] = ir.AttrInt64s("axes", list(axes))


def _pads_of_all_axes(node: ir.Node) -> None:
    axes, pads = _constants(node, 3), _constants(node, 1)
    _without(node, 3)
    if axes is None:
        return
    x = node.inputs[0]
    if x is None or x.shape is None or pads is None:
        raise _RefusedError("which axes it pads has no older form where the rank is not known")
    every = np.zeros((2, len(x.shape)), np.int64)
    every[:, list(axes)] = np.reshape(pads, (2, len(axes)))
    _operand(node, 1, tuple(every.ravel().tolist()))


def _parts_as_sizes(node: ir.Node) -> None:
    """Without sizes the older Split makes parts of one size; the newer one makes the last one smaller."""
    given = attributes(node)
    count = node.attributes.pop("num_outputs", None)
    x = node.inputs[0]
    if count is None:
        return
    extent = None if x is None or x.shape is None else x.shape[given.get("axis", 0)]
    if not isinstance(extent, int):
        raise _RefusedError("its num_outputs has no older form where the extent is not known")
    part = -(-extent // len(node.outputs))
    if extent % len(node.outputs):
        _operand(node, 1, tuple(min(part, extent - i * part) for i in range(len(node.outputs))))


def _shape_then_slice(node: ir.Node) -> None:
    start, end = (node.attributes.pop(name, None) for name in ("start", "end"))
    first, last = 0 if start is None else start.as_int(), None if end is None else end.as_int()
    if first == 0 and last is None:
        return
    graph, old = node.graph, node.outputs[0]
    assert isinstance(graph, ir.Graph)
    x, rank = node.inputs[0], old.shape[0] if old.shape is not None else None
    whole = ir.node("Shape", [x], name=f"{node.name}/opset/Shape", metadata_props=dict(node.metadata_props))
    whole.outputs[0].name = whole.name
    whole.outputs[0].dtype = ir.DataType.INT64
    part = ir.node("Slice", [whole.outputs[0]], name=node.name, metadata_props=dict(node.metadata_props))
    part.outputs[0].dtype, part.outputs[0].shape = ir.DataType.INT64, ir.Shape([rank])
    ir.convenience.replace_nodes_and_values(graph, node, [node], [whole, part], [old], part.outputs)
    _operand(part, 1, (first,))
    _operand(part, 2, (2**31 if last is None else last,))


def _no_dilations(node: ir.Node) -> None:
    if any(step != 1 for step in attributes(node).get("dilations", ())):
        raise _RefusedError("its dilations have no older form")
    node.attributes.pop("dilations", None)


def _zero_copies(node: ir.Node) -> None:
    """In the older form a 0 of a shape always copies; a shape that is computed holds none, as nothing is empty."""
    allowed = attributes(node).get("allowzero", 0)
    target = node.inputs[1]
    if allowed and target is not None and target.const_value is not None and 0 in _constants(node, 1):  # type: ignore[operator]
        raise _RefusedError("that it makes an empty tensor has no older form")
    node.attributes.pop("allowzero", None)


_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
#: (operator, the opset that changed its form) -> what writes a node in the form before, in place.
OLDER: Mapping[tuple[str, int], Step] = {
    ("AveragePool", 19): _no_dilations,
    ("BatchNormalization", 14): _added(training_mode=0),
    ("Cast", 19): _added(saturate=1),
    ("Cast", 24): _added(round_mode="up"),
    ("CastLike", 19): _added(saturate=1),
    ("CastLike", 24): _added(round_mode="up"),
    ("DequantizeLinear", 21): _added(block_size=0),
    ("DequantizeLinear", 23): _added(output_dtype=0),
    ("Pad", 18): _pads_of_all_axes,
    ("Pad", 19): _meant("mode", "wrap"),
    ("QuantizeLinear", 19): _added(saturate=1),
    ("QuantizeLinear", 21): _added(block_size=0, output_dtype=0),
    ("QuantizeLinear", 23): _added(precision=0),
    **{(f"Reduce{name}", 18): _axes_to_attribute for name in _REDUCTIONS},
    ("Reshape", 14): _zero_copies,
    ("Resize", 18): _added(antialias=0, keep_aspect_ratio_policy="stretch"),
    ("Resize", 19): _meant("coordinate_transformation_mode", "half_pixel_symmetric"),
    ("Shape", 15): _shape_then_slice,
    ("Split", 18): _parts_as_sizes,
}
#: The last opset at which onnxruntime 1.31 runs an operator, where that is not the newest.
RUNS_UP_TO: Mapping[str, int] = {"Swish": 24}
#: (operator, the opset from which its form means something else) -> what changed.
OTHERWISE: Mapping[tuple[str, int], str] = {
    ("GridSample", 20): "its modes have other names from opset 20 on",
    ("GroupNormalization", 21): "its scale is one number a group before opset 21 and one a channel from there on",
}
