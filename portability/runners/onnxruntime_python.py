"""onnxruntime in Python, on the CPU, as whatever interpreter runs this has it installed."""

import onnxruntime
from common import Run, answer


def load(model: str) -> Run:
    """A session with the library's own settings."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return lambda image, mask: session.run(None, {"image": image, "mask": mask})[0]


answer(onnxruntime.__version__, load)
