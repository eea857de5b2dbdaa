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
    from lmonnx.exporters import Export, export
    from lmonnx.runtime import Preprocessing, Runner

__version__ = "0.1.0"

__all__ = ["Explanation", "Export", "LmonnxError", "MaskRules", "Preprocessing", "Runner", "export"]

_HOMES = {
    "Explanation": "lmonnx.explain",
    "Export": "lmonnx.exporters",
    "Preprocessing": "lmonnx.runtime",
    "Runner": "lmonnx.runtime",
    "export": "lmonnx.exporters",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("lmonnx"):
            raise
        raise MissingExtraError(
            f"{name} needs the package {error.name}; install it with: pip install 'lmonnx[export]'"
        ) from error
