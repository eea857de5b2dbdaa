"""Graphs in float16 as a processor that computes in it runs them.

On CPUs onnxruntime has hardly any operator in float16. It computes float32, and of a chain of nodes the first is given
float32 and the last one's result is rounded; so nothing between them is infinite beyond 65504, nor as coarse as on a
GPU. Each value of float16 is therefore put into a sequence and taken out again, for which it has to be one.
"""

from __future__ import annotations

import functools
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import onnx_ir as ir
import onnxruntime

from lmonnx.exporters.graphs import infer_shapes
from lmonnx.exporters.lowering.registry import INTERNAL_DOMAIN, attributes, constant_for
from lmonnx.exporters.ops.builder import ints
from lmonnx.exporters.sources.network import Array
from lmonnx.runtime.session import Runner

HALF = ir.DataType.FLOAT16


@contextmanager
def each_rounded(runner: Runner) -> Iterator[Runner]:
    """A runner of a copy of a file in which every value of float16 is rounded to it.

    Args:
        runner: of the file, on a CPU.
    """
    model = ir.load(runner.path)
    infer_shapes(model)
    _round_all(model.graph)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "rounded.onnx"
        ir.save(model, path, external_data=runner.contract.data)
        yield Runner(path, provider="cpu")


def unmasked(model: ir.Model, layout: str) -> Callable[[Array], tuple[Array, ...]]:
    """What a canonical graph computes without a mask, every value of float16 rounded to it.

    Args:
        model: what :func:`lmonnx.exporters.normalise.normalise` returns, or a form of it; it is left as it is.
        layout: ``"NCHW"`` or ``"NHWC"``, of its image input.

    Returns:
        Image float32 [n, C, H, W] -> outputs. Nothing is made before it is asked.
    """
    (image,) = model.graph.inputs
    name, order = str(image.name), (0, 1, 2, 3) if layout == "NCHW" else (0, 2, 3, 1)

    @functools.cache
    def session() -> onnxruntime.InferenceSession:
        copy = model.clone()
        _ungroup(copy.graph)
        _round_all(copy.graph)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "unmasked.onnx"
            ir.save(copy, path, external_data="weights")  # one file would not hold those of a large network
            return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    return lambda array: tuple(session().run(None, {name: np.ascontiguousarray(array.transpose(order))}))


def _round_all(graph: ir.Graph) -> None:
    """Lets what reads a value of float16 read it out of a sequence."""
    zero = ir.tensor(np.array(0, np.int64))
    first = ir.Value(name="first of a sequence", const_value=zero, type=ir.TensorType(zero.dtype), shape=ir.Shape([]))
    graph.register_initializer(first)
    for node in list(graph):
        for value in [value for value in node.outputs if value.dtype == HALF and value.uses()]:
            made = ir.node("SequenceConstruct", [value], name=f"{value.name}/sequence")
            taken = ir.node("SequenceAt", [made.outputs[0], first], name=f"{value.name}/rounded")
            made.outputs[0].name, taken.outputs[0].name = made.name, taken.name
            taken.outputs[0].type, taken.outputs[0].shape = value.type, value.shape
            for use in [use for use in value.uses() if use.node is not made]:
                use.node.replace_input_with(use.idx, taken.outputs[0])
            graph.insert_after(node, [made, taken])


def _ungroup(graph: ir.Graph) -> None:
    """Makes group norms standard operators again: Reshape, InstanceNormalization, Reshape."""
    for node in [node for node in graph if node.domain == INTERNAL_DOMAIN]:
        (x, *_), (y, *_), settings = node.inputs, node.outputs, attributes(node)
        assert x is not None
        groups = settings["num_groups"]
        numbers = ints([0, groups, -1]), np.ones(groups, np.float32), np.zeros(groups, np.float32)
        target, scale, bias = (
            constant_for(node, key, array) for key, array in zip(("target", "scale", "bias"), numbers, strict=True)
        )
        before = ir.node("Reshape", [x, target])
        norm = ir.node("InstanceNormalization", [before.outputs[0], scale, bias], {"epsilon": settings["epsilon"]})
        shape = ir.node("Shape", [x])
        after = ir.node("Reshape", [norm.outputs[0], shape.outputs[0]])
        made = [before, norm, shape, after]
        for i, each in enumerate(made):
            each.name = each.outputs[0].name = f"{node.name}/{i}"
        after.outputs[0].type, after.outputs[0].shape = y.type, y.shape
        ir.convenience.replace_nodes_and_values(graph, node, [node], made, [y], after.outputs)
