"""A float32 network in float16: its weights and its maps; what it adds up, and what follows from sums, stays float32.

float16 ends at 65504 and tells 11 bits apart; below 6e-5 it loses them one by one, and 1e-8 is 0. So a mean over a map,
the variance of a norm and the epsilon behind it are computed in float32, with a Cast on the way in and, where a
convolution or a dense layer reads what came of them, one on the way out. Images and outputs are float32.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np
import onnx
import onnx_ir as ir
from onnx.defs import OpSchema

from lmonnx.errors import SourceError, WeightsError
from lmonnx.exporters.graphs import to_float32
from lmonnx.exporters.lowering.registry import attributes, constant_for, known
from lmonnx.exporters.lowering.rules.joins import JOINS
from lmonnx.exporters.lowering.rules.pointwise import POINTWISE
from lmonnx.exporters.normalise import normalise
from lmonnx.exporters.rounding import unmasked
from lmonnx.exporters.sources.checkpoint import some
from lmonnx.exporters.sources.network import Network
from lmonnx.runtime.form import Precision

HALF, SINGLE = ir.DataType.FLOAT16, ir.DataType.FLOAT
LARGEST, LEAST = float(np.finfo(np.float16).max), float(np.finfo(np.float16).tiny)
#: Operators whose results are statistics, few numbers that many were added up to.
REDUCTIONS = {
    "GlobalAveragePool", "GlobalLpPool", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean",
    "ReduceProd", "ReduceSum", "ReduceSumSquare",
}  # fmt: skip
#: Others that add up, or divide by what they added up. LayerNormalization does so in float32 by its own definition.
SUMS = {
    "AveragePool", "CumSum", "GroupNormalization", "InstanceNormalization", "LRN", "LogSoftmax", "LpNormalization",
    "LpPool", "MeanVarianceNormalization", "Softmax",
}  # fmt: skip
#: Operators of single numbers: of statistics they make statistics.
ELEMENTWISE = {
    *POINTWISE, *JOINS, "Clip", "Dropout", "Expand", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose",
    "Unsqueeze",
}  # fmt: skip
#: What a sum of squares adds up.
PRODUCTS = {"Mul", "Pow"}
#: Operators to which a number that float16 does not reach is as good as the largest one that it does.
BOUNDING = {"Clip", "Max", "Min"}


def prepared(network: Network, precision: Precision | None) -> tuple[Network, ir.Model]:
    """A network, and its canonical graph, in the precision that a file is to be of.

    Args:
        network: any.
        precision: ``"float16"`` makes one in float32 such a network; one that is in float16 stays what it is. With any
            other each stays what it is.

    Raises:
        SourceError: if the network cannot be brought into canonical form, or is quantised and float16 is asked for.
        WeightsError: naming weights that float16 cannot hold.
    """
    if precision == "float16" and network.precision == "int8":
        raise SourceError(
            f"{network.origin['name']} is quantised to int8, and what its integers stand for is not to be rounded once "
            "more; leave the precision out, or export the float32 network that it was made from in float16"
        )
    open_ = network.smallest is not None
    named = open_ and network.front_end == "aten"
    plain = normalise(network.graph, None if open_ else network.size, network.layout, named=named)
    if "float16" not in (precision, network.precision):
        return network, plain
    made = plain if network.precision == "float16" else halved(plain)
    return dataclasses.replace(network, precision="float16", rounded=unmasked(made, network.layout)), made


def halved(model: ir.Model) -> ir.Model:
    """A copy in float16 of a canonical float32 graph, with float32 images and outputs.

    Args:
        model: what :func:`lmonnx.exporters.normalise.normalise` returns; it is left as it is.

    Raises:
        WeightsError: naming weights of more than ±65504, at which float16 ends.
    """
    model = model.clone()
    graph = model.graph
    _settle_norms(graph)
    wide = in_float32(graph)
    reads = [(node, i, _read_as(node, i, wide)) for node in graph for i in _singles(node)]
    _require_range([(node, i) for node, i, dtype in reads if dtype == HALF])
    for node in graph:
        if node not in wide:
            _give_half(node)
    stand_ins: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
    for node, i, dtype in reads:
        value = node.inputs[i]
        assert value is not None
        if value.dtype != dtype:
            if (value, dtype) not in stand_ins:
                stand_ins[value, dtype] = _constant(graph, value) if _is_constant(value) else _cast(graph, value, dtype)
            node.replace_input_with(i, stand_ins[value, dtype])
    for (value, _), half in stand_ins.items():
        if _is_constant(value) and not value.uses() and not value.is_graph_output():
            name = str(value.name)
            del graph.initializers[name]
            half.name = name
    to_float32(graph)
    return model


def in_float32(graph: ir.Graph) -> set[ir.Node]:
    """The nodes of a float32 graph that are computed in float32 in its float16 form too.

    - what adds up many numbers (:data:`REDUCTIONS`, :data:`SUMS`), and squares that nothing but such an operator reads;
    - what is computed number by number from statistics, or joins a map with one;
    - what adds a number that float16 does not tell from 0, or hardly does, as an epsilon; the result counts as a
      statistic;
    - what float16 is not defined for, and what makes floats of anything else; of integers it makes statistics.
    """
    wide, statistics = set[ir.Node](), set[ir.Value]()
    for node in graph:
        varying = [x for x in _values(node) if not _is_constant(x)]
        alone = node.op_type in ELEMENTWISE and not node.domain
        few = [x in statistics for x in varying]
        sums = node.op_type in REDUCTIONS or (alone and (all(few) or any(map(_is_tiny, _values(node)))))
        if not varying or sums or node.op_type in SUMS or (alone and any(few)) or not _takes_half(node):
            wide.add(node)
        if (sums and varying) or (not varying and _counts(node)):
            statistics.update(node.outputs)
    for node in graph:
        readers = [use.node.op_type for value in node.outputs for use in value.uses()]
        if node.op_type in PRODUCTS and readers and all(reader in REDUCTIONS for reader in readers):
            wide.add(node)
    return wide


def _values(node: ir.Node) -> list[ir.Value]:
    """The float32 operands."""
    return [x for x in node.inputs if x is not None and x.dtype == SINGLE]


def _singles(node: ir.Node) -> Iterator[int]:
    """The places of the float32 operands."""
    return (i for i, x in enumerate(node.inputs) if x is not None and x.dtype == SINGLE)


def _is_constant(value: ir.Value) -> bool:
    return value.const_value is not None


def _is_tiny(value: ir.Value) -> bool:
    """Whether it is one number, as an epsilon is, and below those that float16 holds with all its bits."""
    number = known(value)
    return number is not None and number.size == 1 and bool(0 < np.abs(number).max() < LEAST)


def _counts(node: ir.Node) -> bool:
    """Whether it makes floats of integers, as of the extents of a map."""
    x = node.inputs[0] if node.inputs else None
    return node.op_type == "Cast" and x is not None and x.dtype is not None and x.dtype.is_integer()


@functools.cache
def _schema(operator: str, version: int) -> OpSchema | None:
    try:
        return onnx.defs.get_schema(operator, version)
    except onnx.defs.SchemaError:
        return None


def _schema_of(node: ir.Node) -> OpSchema | None:
    """What ONNX says of its operator; None if it says nothing."""
    assert isinstance(node.graph, ir.Graph)
    return None if node.domain else _schema(node.op_type, node.graph.opset_imports[""])


def _may_be_half(node: ir.Node, place: int) -> bool:
    """Whether an operand may be of float16; the scales of a Resize may not."""
    schema = _schema_of(node)
    return schema is not None and "tensor(float16)" in schema.inputs[min(place, len(schema.inputs) - 1)].types


def _takes_half(node: ir.Node) -> bool:
    return any(_may_be_half(node, i) for i in _singles(node))


def _read_as(node: ir.Node, place: int, wide: set[ir.Node]) -> ir.DataType:
    return HALF if node not in wide and _may_be_half(node, place) else SINGLE


def _give_half(node: ir.Node) -> None:
    """Lets a node give float16 where its first result is of the type of its operands; statistics of a norm are not."""
    schema = _schema_of(node)
    assert schema is not None
    for i, value in enumerate(node.outputs):
        same = schema.outputs[min(i, len(schema.outputs) - 1)].type_str == schema.outputs[0].type_str
        if value.dtype == SINGLE and same:
            value.dtype = HALF
    if node.op_type == "Cast" and attributes(node)["to"] == SINGLE:
        node.attributes["to"] = ir.AttrInt64("to", HALF)


def _settle_norms(graph: ir.Graph) -> None:
    """A BatchNormalization by its factor alone, scale / sqrt(variance + epsilon): the variance becomes 1, epsilon 0.

    A variance may be larger or smaller than what float16 holds.
    """
    for node in list(graph):
        arrays = [known(value) for value in node.inputs[1:]]
        if node.op_type == "BatchNormalization" and len(arrays) == 4 and _values(node) == list(node.inputs):
            scale, _, _, variance = arrays
            if scale is None or variance is None:
                continue
            epsilon = float(attributes(node).get("epsilon", 1e-5))
            factor = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
            node.replace_input_with(1, constant_for(node, "factor", factor.astype(np.float32)))
            node.replace_input_with(4, constant_for(node, "one", np.ones_like(variance)))
            node.attributes["epsilon"] = ir.AttrFloat32("epsilon", 0.0)


def _require_range(reads: list[tuple[ir.Node, int]]) -> None:
    """No constant that is read in float16 is beyond it; infinity is meant to be there, and stays."""
    beyond = []
    for node, i in reads:
        array, value = known(node.inputs[i]), node.inputs[i]
        if array is None or value is None or node.op_type in BOUNDING:
            continue
        if (np.isfinite(array) & (np.abs(array) > LARGEST)).any() and value.name not in beyond:
            beyond.append(str(value.name))
    if beyond:
        raise WeightsError(
            f"the weights hold numbers beyond ±{LARGEST:.0f}, at which float16 ends: {some(beyond)}; "
            "export in float32: leave the precision out, or train with smaller ones"
        )


def _constant(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """A constant in float16."""
    array = known(value)
    assert array is not None
    inside = np.where(np.isfinite(array), np.clip(array, -LARGEST, LARGEST), array)
    tensor = ir.tensor(inside.astype(np.float16))
    made = ir.Value(
        name=f"{value.name}/float16", const_value=tensor, type=ir.TensorType(HALF), shape=ir.Shape(array.shape)
    )
    graph.register_initializer(made)
    return made


def _cast(graph: ir.Graph, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    """A value in another type, by a node behind the one that makes it."""
    name = f"{value.name}/{dtype.name.lower()}"
    node = ir.node("Cast", [value], {"to": dtype}, name=name)
    made = node.outputs[0]
    made.name, made.type, made.shape = name, ir.TensorType(dtype), value.shape
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph.node(0), node)
    else:
        graph.insert_after(producer, node)
    return made
