"""A small ONNX file."""

from __future__ import annotations

from pathlib import Path

import onnx

from tests.cases import w
from tests.graphs import build, step


def onnx_file(path: Path, *steps: object, shape: tuple[int, ...] = (3, 32, 32)) -> Path:
    onnx.save(build(steps, shape, 18), path)  # type: ignore[arg-type]
    return path


HEAD = (
    step("Conv", "x", w(4, 3, 3, 3), strides=[2, 2]),
    step("Relu", "0"),
    step("GlobalAveragePool", "1"),
    step("Flatten", "2"),
)
