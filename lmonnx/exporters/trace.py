"""Where graph and reference part: every value of a network, node by node."""

from __future__ import annotations

import pathlib
import tempfile
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch

from lmonnx import reference
from lmonnx.exporters.lowering.engine import Lowered
from lmonnx.exporters.ops.masked import Masked
from lmonnx.exporters.proof import images, suite
from lmonnx.exporters.sources.network import Array, Network
from lmonnx.exporters.sources.onnx_file import program_of
from lmonnx.masking import MaskRules

#: The mask of the suite that is traced: one row, because a file's batch may be fixed at one.
MASK = "16 px patches"


@dataclass(frozen=True)
class Step:
    """One value of the source, in the graph and in the reference.

    Attributes:
        value: its name in the source.
        node: the node that makes it there.
        operator: that node's operator.
        difference: largest difference at kept positions, in standard deviations of the reference there.
        same_mask: whether both keep the same positions.
    """

    value: str
    node: str
    operator: str
    difference: float
    same_mask: bool

    def __str__(self) -> str:
        masks = "" if self.same_mask else ", and other positions are kept"
        return f"{self.operator} {self.node!r}: {self.value!r} is off by {self.difference:.1e}{masks}"


def trace(lowered: Lowered, network: Network, rules: MaskRules) -> list[Step]:
    """Compares every value that the source and the graph both have, in float32, in the order of the nodes.

    The ONNX front end of the reference runs the plain graph of the network, whatever its source.

    Args:
        lowered: the graph, with every value at all positions that it keeps.
        network: where it comes from.
        rules: the mask rules that it was lowered with.
    """
    mask = suite(network.size)[MASK][None]
    image = images(len(mask), network.channels, network.size)
    model = network.graph
    program = program_of(model, network.layout, rules)
    with torch.no_grad():
        expected = program.values(torch.from_numpy(image), torch.from_numpy(mask))
    made = _run(lowered, image, mask)
    steps = []
    for node in model.graph:
        for name in (str(value.name) for value in node.outputs):
            if name in made and name in expected:
                steps.append(Step(name, str(node.name), node.op_type, *_compared(*made[name], expected[name])))
    return steps


def overflow(lowered: Lowered, plain: ir.Model, network: Network) -> str | None:
    """The first node of a float16 network that gives infinity or NaN at a position that is kept; None if none does.

    Args:
        lowered: the graph, with every value at all positions that it keeps.
        plain: what it was lowered from.
        network: likewise.
    """
    masks = suite(network.size)
    image = images(len(masks), network.channels, network.size)
    for i, (name, mask) in enumerate(masks.items()):
        made = _run(lowered, image[i : i + 1], mask[None])
        for node in plain.graph:
            for value in (str(value.name) for value in node.outputs):
                data, kept = made.get(value, (np.zeros(1), None))
                if data.dtype.kind == "f" and not np.isfinite(data[_everywhere(kept, data)]).all():
                    return f"{node.op_type} {node.name!r} gives infinity or NaN, first with the mask {name!r}"
    return None


def _everywhere(kept: Array | None, data: Array) -> Array:
    """The positions that ``kept`` keeps, in the shape of ``data``; all if there is no mask."""
    return np.ones(data.shape, bool) if kept is None else np.broadcast_to(kept, data.shape)


def _run(lowered: Lowered, image: Array, mask: Array) -> dict[str, tuple[Array, Array | None]]:
    """Data and mask of every value of the source that a node of the graph makes."""
    wanted: dict[str, tuple[str, str | None]] = {}
    for name, made in lowered.values.items():
        data, kept = (made.data, made.mask) if isinstance(made, Masked) else (made, None)
        if data.producer() is not None and data.graph is lowered.model.graph and (kept is None or _there(kept)):
            wanted[name] = (str(data.name), str(kept.name) if kept is not None else None)
    inner = sorted({name for pair in wanted.values() for name in pair if name} - {"mask"})
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "traced.onnx"
        ir.save(lowered.model, path, external_data="weights")  # one file would not hold those of a large network
        proto = onnx.load(path, load_external_data=False)
        del proto.graph.output[:]
        proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
        onnx.save(proto, path)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # keeps every value
        options.log_severity_level = 4  # what goes wrong is raised
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        found = dict(zip(inner, session.run(inner, {"image": image, "mask": mask}), strict=True)) | {"mask": mask}
    return {name: (found[data], None if kept is None else found[kept]) for name, (data, kept) in wanted.items()}


def _there(mask: ir.Value) -> bool:
    """Whether the graph still makes it: nodes that nothing reads are gone."""
    producer = mask.producer()
    return mask.is_graph_input() if producer is None else producer.graph is not None


def _compared(data: Array, kept: Array | None, expected: reference.Masked | torch.Tensor) -> tuple[float, bool]:
    """The largest difference where both keep, and whether they keep the same."""
    masked = isinstance(expected, reference.Masked)
    wanted = (expected.data if isinstance(expected, reference.Masked) else expected).numpy()
    if data.shape != wanted.shape or (kept is None) == masked:
        return np.inf, False
    here = _everywhere(kept, data)
    there = np.broadcast_to(expected.mask.numpy(), data.shape) if isinstance(expected, reference.Masked) else here
    both = here & there
    if not both.any() or data.dtype.kind != "f":
        return 0.0, bool((here == there).all())
    scale = float(np.std(wanted[both])) or 1.0
    return float(np.abs(data[both] - wanted[both]).max()) / scale, bool((here == there).all())
