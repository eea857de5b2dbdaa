"""A network that is exported in every form, and what it is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from lmonnx.runtime import Preprocessing, Runner
from tests.cases import w
from tests.graphs import Step, build, step

SIZE = (24, 20)
PREPROCESSING = Preprocessing(
    size=SIZE, mean=(0.4, 0.45, 0.5), std=(0.2, 0.25, 0.3), scale=254.0, channel_order="BGR", interpolation="nearest"
)
CLASSES = 6
HEAD = (
    step("Conv", "x", w(8, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1]),
    step("Relu", "0"),
    step("AveragePool", "1", kernel_shape=[3, 3]),
    step("Conv", "2", w(8, 8, 3, 3)),
    step("GlobalAveragePool", "3"),
    step("Flatten", "4"),
    step("MatMul", "5", 4 * w(CLASSES, 8).T),
)
FORMS: dict[str, dict[str, Any]] = {
    "batch of 1": {"batch": 1},
    "batch of 3": {"batch": 3},
    "pixels": {"image": "uint8"},
    "softmax": {"softmax": True},
    "oldest": {"opset": 13},
    "newest": {"opset": 26},
    "all at once": {"batch": 4, "image": "uint8", "softmax": True, "opset": 13},
}
Exported = Callable[..., Runner]


def source(folder: Path, *steps: Step, shape: tuple[int, ...] = (3, *SIZE), opset: int = 18) -> Path:
    onnx.save(build(steps or HEAD, shape, opset), folder / "in.onnx")
    return folder / "in.onnx"


def encoded(runner: Runner, crops: np.ndarray) -> np.ndarray:
    return np.concatenate([*map(runner.encode, crops)])
