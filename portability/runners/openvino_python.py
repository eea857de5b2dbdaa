"""OpenVINO in Python, on the CPU; in float32, or in the precision LMONNX_OPENVINO, which "default" leaves to itself."""

import os

import openvino
from common import Run, answer


def load(model: str) -> tuple[Run, str]:
    """The file as it is, compiled; and the precision that this processor takes."""
    asked = os.environ.get("LMONNX_OPENVINO", "f32")
    hints = {} if asked == "default" else {"INFERENCE_PRECISION_HINT": asked}
    compiled = openvino.Core().compile_model(model, "CPU", hints)
    taken = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return lambda image, mask: compiled({"image": image, "mask": mask})[0], taken


answer(openvino.__version__.partition("-")[0], load)
