"""A photograph of 16 coloured blocks and a graph whose second class is the red of one of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from lmonnx.runtime.contract import Contract
from lmonnx.runtime.preprocessing import Preprocessing

SIDE, BLOCK = 64, 16
BlockGraph = Callable[..., Path]


def block(number: int) -> tuple[slice, slice]:
    """Rows and columns of a block, counted as one reads."""
    top, left = BLOCK * (number // 4), BLOCK * (number % 4)
    return slice(top, top + BLOCK), slice(left, left + BLOCK)


@pytest.fixture
def photo() -> Image.Image:
    """Blocks that differ enough for SLIC to find them."""
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    for number in range(16):
        pixels[block(number)] = (120 + 90 * (number % 2), 60 * (number // 4), 255 * ((number // 2) % 2))
    return Image.fromarray(pixels)


@pytest.fixture
def block_graph(tmp_path: Path) -> BlockGraph:
    """Writes a graph of two classes: logits 0 and red of ``supports`` minus half the red of ``opposes``."""

    def write(supports: int = 5, opposes: int = 10, preprocessing: bool = True, labels: bool = True) -> Path:
        weights = np.zeros((3, SIDE, SIDE, 2), np.float32)
        weights[0][(*block(supports), 1)] = 6 / BLOCK**2
        weights[0][(*block(opposes), 1)] = -3 / BLOCK**2
        contract = Contract(
            version="0.1.0",
            outputs={"logits": "logits"},
            preprocessing=Preprocessing((SIDE, SIDE)) if preprocessing else None,
            labels=("nothing", "red block") if labels else None,
        )
        nodes = [
            helper.make_node("Where", ["mask", "image", "zero"], ["joined"]),
            helper.make_node("Flatten", ["joined"], ["flat"], axis=1),
            helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        ]
        graph = helper.make_graph(
            nodes,
            "block",
            [
                helper.make_tensor_value_info("image", TensorProto.FLOAT, ["images", 3, SIDE, SIDE]),
                helper.make_tensor_value_info("mask", TensorProto.BOOL, ["masks", 1, SIDE, SIDE]),
            ],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
            [
                numpy_helper.from_array(np.float32(0), "zero"),
                numpy_helper.from_array(weights.reshape(-1, 2), "weights"),
            ],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        helper.set_model_props(model, contract.to_props())
        path = tmp_path / "blocks.onnx"
        onnx.save(model, path)
        return path

    return write
