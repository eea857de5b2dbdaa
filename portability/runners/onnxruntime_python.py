"""onnxruntime in Python, as whatever interpreter runs this has it; on the CPU, or where LMONNX_PROVIDER says."""

import os

import onnxruntime
from common import Run, answer

#: TF32 is less than float32.
PROVIDERS = {"cpu": ("CPUExecutionProvider", {}), "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"})}


def load(model: str) -> tuple[Run, str]:
    """A session with the library's own settings."""
    provider = PROVIDERS[os.environ.get("LMONNX_PROVIDER", "cpu")]
    if provider[0] == "CUDAExecutionProvider":
        onnxruntime.preload_dlls()
    session = onnxruntime.InferenceSession(model, providers=[provider])
    if provider[0] not in session.get_providers():
        raise RuntimeError(f"onnxruntime left {provider[0]} out, lmonnx doctor says why")
    return lambda image, mask: session.run(None, {"image": image, "mask": mask})[0], ""


answer(onnxruntime.__version__, load)
