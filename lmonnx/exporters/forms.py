"""The forms in which a lowered graph is written: pixels as its image, probabilities, a fixed batch, another opset.

Each is surgery at the edges of a graph that the lowering made; what it computes in between stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from lmonnx.errors import OptionError
from lmonnx.exporters.normalise import infer_shapes
from lmonnx.exporters.ops.builder import RULE_KEY, SOURCE_KEY
from lmonnx.exporters.opsets import convert
from lmonnx.exporters.package import kind_of
from lmonnx.runtime.form import Form
from lmonnx.runtime.preprocessing import Preprocessing

#: The free axes of a lowered graph.
FREE = ("images", "masks", "batch")


def written(model: ir.Model, form: Form, opset: int | None, preprocessing: Preprocessing | None) -> ir.Model:
    """A copy of a lowered graph in the form asked for.

    Args:
        model: what :func:`lmonnx.exporters.lowering.engine.lower` makes; it is left as it is.
        form: of its inputs and outputs.
        opset: of the copy; the model's own if None.
        preprocessing: how pixels become the network's image, which a graph that takes pixels does itself.

    Raises:
        OptionError: if the graph cannot be written so.
    """
    copy = model.clone()
    if form.image == "uint8":
        _take_pixels(copy.graph, _usable(preprocessing))
    if form.softmax:
        _give_probabilities(copy.graph)
    if form.batch is not None:
        _fix_batch(copy, form.batch)
    return convert(copy, copy.opset_imports[""] if opset is None else opset)


def require_pixels(form: Form, preprocessing: Preprocessing | None) -> None:
    """Refuses a graph that takes pixels where nothing says how they become the network's image.

    Raises:
        OptionError: if so.
    """
    if form.image == "uint8":
        _usable(preprocessing)


def _usable(preprocessing: Preprocessing | None) -> Preprocessing:
    if preprocessing is None:
        raise OptionError(
            "image='uint8' puts the normalisation into the graph, and nothing says what it is; "
            "give the preprocessing: mean, std and scale"
        )
    with np.errstate(all="ignore"):
        ends = preprocessing.scaled(_ends(len(preprocessing.mean)), np.float32)
    if not np.isfinite(ends).all() or (ends[0] == ends[1]).any():
        raise OptionError(
            f"image='uint8' normalises in float32, which does not hold (pixel / {preprocessing.scale:g} − mean) / std "
            f"with mean={preprocessing.mean}, std={preprocessing.std}; check them"
        )
    return preprocessing


def _ends(channels: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.array([0, 255], np.uint8)[:, None, None, None] * np.ones((1, 1, 1, channels), np.uint8)


def _take_pixels(graph: ir.Graph, preprocessing: Preprocessing) -> None:
    """``image`` becomes uint8 [images, H, W, C], and is normalised behind the Where that alone reads it.

    kept = Where(mask, image, 0); x = (kept / scale − mean) / std, in the steps and the precision of
    :meth:`Preprocessing.scaled`; then the Where that the lowering made, so that removed pixels are 0 again.
    """
    (image, mask), join = graph.inputs, graph.node(0)
    assert join.op_type == "Where" and join.inputs[1] is image  # noqa: PT018
    assert image.dtype == ir.DataType.FLOAT
    rows, channels, *size = list(image.shape or ())
    pixels = ir.Value(name="image", type=ir.TensorType(ir.DataType.UINT8), shape=ir.Shape([rows, *size, channels]))
    build = _Builder(graph, join, "image")
    turned = build("Transpose", [mask], ir.DataType.BOOL, ["masks", *size, 1], perm=[0, 2, 3, 1])
    shape = ["batch", *size, channels]
    x = build("Where", [turned, pixels, np.uint8(0)], ir.DataType.UINT8, shape)
    if preprocessing.channel_order == "BGR":
        x = build("Gather", [x, np.array([2, 1, 0], np.int64)], ir.DataType.UINT8, shape, axis=3)
    x = build("Cast", [x], ir.DataType.FLOAT, shape, to=ir.DataType.FLOAT)
    mean, std = np.array(preprocessing.mean, np.float32), np.array(preprocessing.std, np.float32)
    for operator, operand in (("Div", np.float32(preprocessing.scale)), ("Sub", mean), ("Div", std)):
        x = build(operator, [x, operand], ir.DataType.FLOAT, shape)
    x = build("Transpose", [x], ir.DataType.FLOAT, ["batch", channels, *size], perm=[0, 3, 1, 2])
    join.replace_input_with(1, x)
    graph.inputs[0] = pixels


def _give_probabilities(graph: ir.Graph) -> None:
    """A Softmax over the classes behind every output.

    Raises:
        OptionError: if an output holds something else than logits, [batch, classes].
    """
    for i, output in enumerate(list(graph.outputs)):
        kind, name, shape = kind_of(output), str(output.name), output.shape
        if kind != "logits" or shape is None or len(shape) != 2:
            what = "values of an unknown kind" if kind == "unknown" else kind
            axes = "?" if shape is None else ", ".join(map(str, shape))
            raise OptionError(
                f"softmax=True is for logits, [batch, classes], and output {name!r} holds {what}, [{axes}]; "
                "leave it out"
            )
        build = _Builder(graph, None, name)
        output.name = build.free(f"{name}/logits")
        answer = build("Softmax", [output], ir.DataType.FLOAT, list(shape), axis=1)
        answer.name = name
        graph.outputs[i] = answer


def _fix_batch(model: ir.Model, rows: int) -> None:
    """``rows`` rows in both inputs, in every output and in between."""
    graph = model.graph
    for value in (*graph.inputs, *graph.outputs, *(value for node in graph for value in node.outputs)):
        if value.shape is not None:
            value.shape = ir.Shape([rows if _name(side) in FREE else side for side in value.shape])
    infer_shapes(model)


def _name(side: int | ir.SymbolicDim) -> str | None:
    return None if isinstance(side, int) else side.value


class _Builder:
    """Makes nodes before ``place``, or at the end, that say which rule made them."""

    def __init__(self, graph: ir.Graph, place: ir.Node | None, source: str) -> None:
        self.graph, self.place, self.source = graph, place, source
        values = [*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)]
        self.taken = {str(value.name) for value in values} | {str(node.name) for node in graph}

    def __call__(
        self,
        operator: str,
        inputs: Iterable[ir.Value | np.ndarray[Any, Any] | np.generic],
        dtype: ir.DataType,
        shape: Sequence[int | str | ir.SymbolicDim],
        **attributes: Any,
    ) -> ir.Value:
        """The output of one node; numbers among the inputs become initializers."""
        name = self.free(f"{self.source}/form/{operator}")
        values = [x if isinstance(x, ir.Value) else self.constant(f"{name}/constant", x) for x in inputs]
        metadata = {RULE_KEY: operator if operator == "Softmax" else "image", SOURCE_KEY: self.source}
        node = ir.node(operator, values, attributes or None, name=name, metadata_props=metadata)
        output = node.outputs[0]
        output.name, output.dtype, output.shape = name, dtype, ir.Shape(shape)
        if self.place is None:
            self.graph.append(node)
        else:
            self.graph.insert_before(self.place, node)
        return output

    def constant(self, name: str, array: np.ndarray[Any, Any] | np.generic) -> ir.Value:
        """An initializer."""
        tensor = ir.tensor(np.asarray(array))
        shape = ir.Shape(np.shape(array))
        value = ir.Value(name=self.free(name), const_value=tensor, type=ir.TensorType(tensor.dtype), shape=shape)
        self.graph.register_initializer(value)
        return value

    def free(self, name: str) -> str:
        """A name that nothing has."""
        unique, count = name, 1
        while unique in self.taken:
            unique, count = f"{name}_{count}", count + 1
        self.taken.add(unique)
        return unique
