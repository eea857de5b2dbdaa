"""Tiny graphs that obey the contract, in every form: the mean of the kept pixels, a linear classifier behind it."""

from __future__ import annotations

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
GraphFile = Callable[..., Path]


@pytest.fixture
def graph_file(tmp_path: Path) -> GraphFile:
    """Writes a graph; arguments are those of the form, and vary one thing each."""

    def write(
        name: str = "net.onnx",
        labels: tuple[str, ...] | None = LABELS,
        data: str | None = None,
        seed: int = 0,
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
        kind = TensorProto.UINT8 if pixels else TensorProto.FLOAT
        graph = helper.make_graph(
            nodes,
            "linear",
            [  # the mask first: nothing may depend on their order
                helper.make_tensor_value_info("mask", TensorProto.BOOL, [batch or "masks", 1, *size]),
                helper.make_tensor_value_info("image", kind, image),
            ],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch or "batch", 3])],
            [
                numpy_helper.from_array(np.float32(0), "zero"),
                numpy_helper.from_array(weights, "weights"),
            ],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        contract = Contract(version="0.1.0", outputs={"scores": "logits"}, labels=labels, form=made, data=data)
        helper.set_model_props(model, contract.to_props())
        if data is not None:
            (tmp_path / data).unlink(missing_ok=True)  # onnx would append
        onnx.save(model, tmp_path / name, save_as_external_data=data is not None, location=data, size_threshold=0)
        return tmp_path / name

    return write
