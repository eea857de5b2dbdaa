"""Which distribution of onnxruntime is installed: several bring the same package and overwrite each other's files."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import sys
import warnings
from functools import cache
from typing import Any

from lmonnx.errors import MissingExtraError

KNOWN = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-rocm",
    "onnxruntime-migraphx",
    "onnxruntime-cann",
    "onnxruntime-webgpu",
    "onnxruntime-windowsml",
    "onnxruntime-silicon",
    "onnxruntime-training",
    "onnxruntime-training-cpu",
    "ort-nightly",
    "ort-nightly-gpu",
    "ort-nightly-directml",
)
"""Distributions that bring, or have brought, the package ``onnxruntime``."""


def installed() -> dict[str, str]:
    """The distributions that bring the package ``onnxruntime`` here, each with its version."""
    found = {}
    for name in KNOWN:
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        record = distribution.read_text("RECORD")
        if record is None or "onnxruntime/__init__.py," in record:  # some are plug-ins of another one by now
            found[name] = distribution.version
    return found


def fitting(system: str = sys.platform, machine: str = "") -> str:
    """The distribution that lmonnx depends on here: where there is a build for CUDA, it runs on CPUs too.

    Args:
        system: as ``sys.platform`` has it.
        machine: as ``platform.machine()`` has it; empty for this one.
    """
    cuda = (system, machine or platform.machine()) in (("linux", "x86_64"), ("win32", "AMD64"))
    return "onnxruntime-gpu" if cuda else "onnxruntime"


def several(found: dict[str, str]) -> str | None:
    """What is wrong with these distributions and what to do, in one line; ``None`` if there are not several."""
    if len(found) < 2:
        return None
    names = " and ".join(f"{name} {version}" for name, version in found.items())
    return (
        f"{names} are installed together and overwrite each other's files; run: pip uninstall {' '.join(found)}, "
        f"then: pip install {fitting()}"
    )


def import_onnxruntime() -> Any:
    """The package ``onnxruntime``; warns once a process where several distributions bring it.

    Raises:
        MissingExtraError: if it is not installed, or does not load.
    """
    _warn_of_several()
    try:
        package = importlib.import_module("onnxruntime")
        if not hasattr(package, "InferenceSession"):
            raise ImportError("files of it are missing")
    except Exception as error:  # a broken installation raises what it likes: ImportError, AttributeError, OSError
        if isinstance(error.__cause__ or error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        found = installed()
        if not found:
            raise MissingExtraError(f"onnxruntime is not installed; run: pip install {fitting()}") from error
        raise MissingExtraError(
            f"{' and '.join(found)} cannot be loaded: {str(error).strip().partition(chr(10))[0]}; "
            f"run: pip uninstall {' '.join(found)}, then: pip install {fitting()}"
        ) from error
    return package


@cache
def _warn_of_several() -> None:
    message = several(installed())
    if message is not None:
        warnings.warn(message, RuntimeWarning, stacklevel=5)
