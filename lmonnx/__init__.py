"""CNN image classifiers as ONNX graphs with a mask input that computes as if the removed pixels were not there.

The names are loaded when they are first used, so that importing the package costs nothing and a host without
torch can run and explain.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lmonnx.errors import LmonnxError, MissingExtraError
from lmonnx.masking import MaskRules

if TYPE_CHECKING:
    from lmonnx.explain import Explanation
    from lmonnx.exporters import Export, Verification, export, inspect, verify
    from lmonnx.runtime import Box, Prediction, Preprocessing, Runner, load
    from lmonnx.speed import bench

__version__ = "0.1.0"

__all__ = [
    "Box",
    "Explanation",
    "Export",
    "LmonnxError",
    "MaskRules",
    "Prediction",
    "Preprocessing",
    "Runner",
    "Verification",
    "bench",
    "export",
    "inspect",
    "load",
    "verify",
]

_HOMES = {
    "lmonnx.explain": ("Explanation",),
    "lmonnx.exporters": ("Export", "Verification", "export", "inspect", "verify"),
    "lmonnx.runtime": ("Box", "Prediction", "Preprocessing", "Runner", "load"),
    "lmonnx.speed": ("bench",),
}

#: Packages of the base installation, by the name they are imported under.
_BASE = {"PIL", "click", "joblib", "numpy", "onnxruntime", "psutil", "rich", "scipy", "skimage", "sklearn"}


def __getattr__(name: str) -> Any:
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(home), name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("lmonnx"):
            raise
        wanted = "lmonnx" if str(error.name).partition(".")[0] in _BASE else "'lmonnx[export]'"
        raise MissingExtraError(
            f"{name} needs the package {error.name}; install it with: pip install {wanted}"
        ) from error
