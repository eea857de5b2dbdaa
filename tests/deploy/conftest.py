"""Tiny graphs that obey the contract, in every form: the mean of the kept pixels, a linear classifier behind it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lmonnx.runtime.contract import Contract
from lmonnx.runtime.form import Form

LABELS = ("cat", "dog", "barn\nowl")
#: Outputs beside the scores: the node that makes them of those, type and shape.
OTHERS = {
    "twice": (helper.make_node("Concat", ["scores", "scores"], ["twice"], axis=1), TensorProto.FLOAT, ["batch", 6]),
    "stacked": (helper.make_node("Unsqueeze", ["scores", "one"], ["stacked"]), TensorProto.FLOAT, ["batch", 1, 3]),
    "bytes": (helper.make_node("Cast", ["scores"], ["bytes"], to=TensorProto.INT8), TensorProto.INT8, ["batch", 3]),
    "total": (helper.make_node("ReduceSum", ["scores"], ["total"], keepdims=0), TensorProto.FLOAT, []),
    "summed": (helper.make_node("ReduceSum", ["scores", "zeroth"], ["summed"], keepdims=0), TensorProto.FLOAT, [3]),
}
GraphFile = Callable[..., Path]


@pytest.fixture
def graph_file(tmp_path: Path) -> GraphFile:
    """Writes a graph; arguments are those of the form, and vary one thing each."""

    def write(
        name: str = "net.onnx",
        labels: tuple[str, ...] | None = LABELS,
        data: str | None = None,
        seed: int = 0,
        others: tuple[str, ...] = (),
        **form: Any,
    ) -> Path:
        made = Form(**form)
        batch, size = made.batch, ("height", "width") if made.size else (8, 6)
        pixels = made.image == "uint8"
        image = [batch or "images", *(size if pixels else ()), 3, *(() if pixels else size)]
        weights = np.random.default_rng(seed).normal(size=(3, 3)).astype(np.float32)
        nodes = [
            helper.make_node("Transpose", ["image"], ["turned"], perm=[0, 3, 1, 2] if pixels else [0, 1, 2, 3]),
            helper.make_node("Cast", ["turned"], ["values"], to=TensorProto.FLOAT),
            helper.make_node("Where", ["mask", "values", "zero"], ["joined"]),
            helper.make_node("GlobalAveragePool", ["joined"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["means"]),
            helper.make_node("MatMul", ["means", "weights"], ["scores"]),
        ]
        nodes += [OTHERS[output][0] for output in others]
        kind = TensorProto.UINT8 if pixels else TensorProto.FLOAT
        graph = helper.make_graph(
            nodes,
            "linear",
            [  # the mask first: nothing may depend on their order
                helper.make_tensor_value_info("mask", TensorProto.BOOL, [batch or "masks", 1, *size]),
                helper.make_tensor_value_info("image", kind, image),
            ],
            [
                helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch or "batch", 3]),
                *(helper.make_tensor_value_info(output, *OTHERS[output][1:]) for output in others),
            ],
            [
                numpy_helper.from_array(np.float32(0), "zero"),
                numpy_helper.from_array(weights, "weights"),
                numpy_helper.from_array(np.array([1]), "one"),
                numpy_helper.from_array(np.array([0]), "zeroth"),
            ],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        outputs = {"scores": "logits", **dict.fromkeys(others, "unknown")}
        contract = Contract(version="0.1.0", outputs=outputs, labels=labels, form=made, data=data)
        helper.set_model_props(model, contract.to_props())
        if data is not None:
            (tmp_path / data).unlink(missing_ok=True)  # onnx would append
        onnx.save(model, tmp_path / name, save_as_external_data=data is not None, location=data, size_threshold=0)
        return tmp_path / name

    return write


def restate(model: Path, **metadata: Any) -> None:
    """Writes other metadata into a file, as JSON."""
    proto = onnx.load(model, load_external_data=False)
    props = {prop.key: prop.value for prop in proto.metadata_props}
    helper.set_model_props(proto, {**props, **{f"lmonnx.{key}": json.dumps(value) for key, value in metadata.items()}})
    onnx.save(proto, model)


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
