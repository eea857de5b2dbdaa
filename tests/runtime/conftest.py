"""Tiny graphs that obey the contract: a linear classifier of 8×8 pixels behind Where(mask, image, 0)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lmonnx.runtime.contract import Contract
from lmonnx.runtime.form import Form
from lmonnx.runtime.preprocessing import Preprocessing

SIZE = (8, 8)
CLASSES = 3


@pytest.fixture
def contract() -> Contract:
    return Contract(
        version="0.1.0",
        outputs={"scores": "logits"},
        preprocessing=Preprocessing(size=SIZE),
        labels=("cat", "dog", "owl"),
    )


@pytest.fixture
def matrix() -> np.ndarray:
    return np.random.default_rng(7).normal(size=(3 * SIZE[0] * SIZE[1], CLASSES)).astype(np.float32)


GraphFile = Callable[..., Path]


@pytest.fixture
def graph_file(tmp_path: Path, contract: Contract, matrix: np.ndarray) -> GraphFile:
    """Writes a graph; arguments break or vary one thing each."""

    def write(
        props: dict[str, str] | None = None,
        mask_name: str = "mask",
        size: tuple[int | str, int | str] = SIZE,
        last: str = "Identity",
        weights: np.ndarray = matrix,
        preprocessing: Preprocessing | None = None,
        batch: int | None = None,
    ) -> Path:
        nodes = [
            helper.make_node("Where", [mask_name, "image", "zero"], ["joined"]),
            helper.make_node("Flatten", ["joined"], ["flat"], axis=1),
            helper.make_node("MatMul", ["flat", "weights"], ["raw"]),
            helper.make_node(last, ["raw"], ["scores"]),
        ]
        graph = helper.make_graph(
            nodes,
            "linear",
            [
                helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch or "images", 3, *size]),
                helper.make_tensor_value_info(mask_name, TensorProto.BOOL, [batch or "masks", 1, *size]),
            ],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.float32(0), "zero"), numpy_helper.from_array(weights, "weights")],
        )
        chosen = contract if preprocessing is None else replace(contract, preprocessing=preprocessing)
        chosen = replace(chosen, form=Form(batch=batch))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        helper.set_model_props(model, chosen.to_props() if props is None else props)
        path = tmp_path / "model.onnx"
        onnx.save(model, path)
        return path

    return write
