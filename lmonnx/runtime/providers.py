"""Which part of onnxruntime computes: CUDA if it really works, else the CPU."""

from __future__ import annotations

import contextlib
import ctypes
import io
import sys
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from lmonnx.errors import ModelError, OptionError

if TYPE_CHECKING:
    import onnxruntime

Provider: TypeAlias = Literal["auto", "cpu", "cuda"]

_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
"""Without a search that depends on timing, and in true float32, so that a seed repeats an explanation."""


def open_session(path: str, provider: Provider, threads: int | None) -> onnxruntime.InferenceSession:
    """A session of the graph at ``path``.

    Args:
        path: an ONNX file.
        provider: ``"auto"`` takes CUDA if it works and the CPU otherwise; ``"cuda"`` takes nothing else.
        threads: threads within an operator; ``None`` leaves the number to onnxruntime.

    Raises:
        OptionError: if an option has a value that is not allowed, or CUDA is asked for and does not work.
        ModelError: if onnxruntime cannot load the file.
    """
    import onnxruntime

    if provider not in get_args(Provider):
        raise OptionError(f"provider={provider!r} is unknown; choose one of {', '.join(get_args(Provider))}")
    if threads is not None and (not isinstance(threads, int) or isinstance(threads, bool) or threads < 1):
        raise OptionError(f"threads={threads!r} is not a positive number; None leaves it to onnxruntime")
    options = onnxruntime.SessionOptions()
    options.use_deterministic_compute = True
    options.intra_op_num_threads = threads or 0
    providers = _providers(provider)
    try:
        session = onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # onnxruntime raises a class of its own for each status code
        raise ModelError(f"{path}: onnxruntime cannot load it as ONNX: {first_line(error)}") from error
    if provider == "cuda" and session.get_providers()[0] != _CUDA:
        raise OptionError(
            "provider='cuda' does not work here, onnxruntime fell back to the CPU; install the CUDA and "
            "cuDNN libraries that its message above names, or use provider='cpu'"
        )
    return session


def took_cuda(session: onnxruntime.InferenceSession) -> bool:
    """Whether the session computes on CUDA."""
    return bool(session.get_providers()[0] == _CUDA)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for a message of one line."""
    return str(error).strip().partition("\n")[0]


def _providers(provider: Provider) -> list[Any]:
    import onnxruntime

    available = _CUDA in onnxruntime.get_available_providers()
    if provider == "cuda" and not available:
        raise OptionError("provider='cuda' is not in this onnxruntime; install onnxruntime-gpu in its place")
    if not available or provider == "cpu" or (provider == "auto" and not _has_cuda_device()):
        return [_CPU]
    if hasattr(onnxruntime, "preload_dlls"):  # onnxruntime ≥ 1.21; prints what it did not find
        with contextlib.redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()
    return [(_CUDA, _CUDA_OPTIONS), _CPU]


def _has_cuda_device() -> bool:
    """Asks the driver, because onnxruntime prints errors when it tries CUDA on a machine without one."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
