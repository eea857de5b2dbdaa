"""Small ONNX graphs for the tests, and the ways to run them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch
from onnx.reference import ReferenceEvaluator

from lmonnx.exporters.lowering.engine import Lowered, lower
from lmonnx.exporters.normalise import normalise
from lmonnx.exporters.sources.onnx_file import program_of
from lmonnx.masking import MaskRules

Run = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Step:
    """One node.

    Inputs are "x" for the image, "0", "1", … for the result of a step, "0:1" for its second one, "" for none, or
    arrays; those of float64 take the dtype of the model.
    """

    operator: str
    inputs: tuple[Any, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1


def step(operator: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Step:
    return Step(operator, inputs, attributes, outputs)


def _value(name: str) -> str:
    """The name of an input that is no array."""
    return name if name in ("x", "") else f"value{name}".removesuffix(":0")


def build(steps: Sequence[Step], shape: Sequence[int], opset: int, dtype: Any = np.float32) -> onnx.ModelProto:
    """A model with the input ``x`` [batch, *shape]; its output is the last step's result."""
    initializers, nodes = [], []
    for i, node in enumerate(steps):
        names = []
        for j, value in enumerate(node.inputs):
            if isinstance(value, str):
                names.append(_value(value))
                continue
            array = np.asarray(value)
            array = array.astype(dtype) if array.dtype == np.float64 else array
            initializers.append(onnx.numpy_helper.from_array(array, f"constant{i}_{j}"))
            names.append(f"constant{i}_{j}")
        results = [_value(f"{i}:{j}") for j in range(node.outputs)]
        nodes.append(onnx.helper.make_node(node.operator, names, results, f"node{i}", **node.attributes))
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = onnx.helper.make_graph(
        nodes,
        "test",
        [onnx.helper.make_tensor_value_info("x", kind, ["n", *shape])],
        [onnx.helper.make_empty_tensor_value_info(f"value{len(steps) - 1}")],
        initializers,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    (output,) = model.graph.output
    output.type.tensor_type.elem_type = output.type.tensor_type.elem_type or kind
    return model


def lowered(model: onnx.ModelProto, rules: MaskRules | None = None, layout: str = "NCHW") -> Lowered:
    """Normalised and lowered, at the size that the model's input has."""
    plain = ir.from_proto(model)
    shape = [d if isinstance(d, int) else 0 for d in plain.graph.inputs[0].shape]
    size = (shape[1], shape[2]) if layout == "NHWC" else (shape[2], shape[3])
    return lower(normalise(plain, size, layout), rules or MaskRules(), layout=layout)


def proto_of(result: Lowered) -> onnx.ModelProto:
    proto = ir.to_proto(result.model)
    onnx.checker.check_model(proto)
    return proto


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def by_onnxruntime(model: onnx.ModelProto) -> Run:
    ready = session(model)
    return lambda image, mask: ready.run(None, {"image": image, "mask": mask})[0]


def by_evaluator(model: onnx.ModelProto) -> Run:
    """onnx's own evaluator, in the model's dtype; at removed positions it may meet 1 / 0 as any backend does."""
    ready = ReferenceEvaluator(model)

    def run(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(ready.run(None, {"image": image, "mask": mask})[0])

    return run


def by_reference(model: onnx.ModelProto, rules: MaskRules | None = None, layout: str = "NCHW") -> Run:
    """The definition in PyTorch, in the dtype of the image."""
    program = program_of(ir.from_proto(model), layout, rules or MaskRules())
    return lambda image, mask: program(torch.from_numpy(image), torch.from_numpy(mask))[0].numpy()


@lru_cache
def masks(size: tuple[int, int]) -> np.ndarray:
    """Bool [7, 1, H, W]: all, none, two of patches, stripes, one pixel removed, one pixel kept."""
    rng = np.random.default_rng(5)
    height, width = size
    patches = [
        np.kron(rng.random((-(-height // k), -(-width // k))) > p, np.ones((k, k)))[:height, :width] > 0
        for k, p in ((3, 0.5), (2, 0.75))
    ]
    one = np.zeros(size, bool)
    one[height // 2, width // 3] = True
    stripes = np.broadcast_to(np.arange(width) % 4 > 1, size)
    every = [np.ones(size, bool), np.zeros(size, bool), *patches, stripes, ~one, one]
    return np.stack(every)[:, None]


def images(count: int, shape: Sequence[int], dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(6).normal(size=(count, *shape)).astype(dtype)
