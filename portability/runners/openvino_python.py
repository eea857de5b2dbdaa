"""OpenVINO in Python, on the CPU; in float32, or with LMONNX_OPENVINO=default in what it takes of itself there."""

import os

import openvino
from common import Run, answer


def load(model: str) -> Run:
    """The file as it is, compiled."""
    precision = {} if os.environ.get("LMONNX_OPENVINO") == "default" else {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(model, "CPU", precision)
    return lambda image, mask: compiled({"image": image, "mask": mask})[0]


answer(openvino.__version__.partition("-")[0], load)
