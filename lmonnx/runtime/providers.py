"""Which part of onnxruntime computes: CUDA if it really works, else the CPU."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from lmonnx.errors import ModelError, OptionError
from lmonnx.runtime.distributions import import_onnxruntime
from lmonnx.runtime.resources import processors

if TYPE_CHECKING:
    import onnxruntime

Provider: TypeAlias = Literal["auto", "cpu", "cuda"]

CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
"""Without a search that depends on timing, and in true float32, so that a seed repeats an explanation.

TF32 keeps 10 bits of a product's operands, which is less than the proofs of exported graphs allow."""

_FATAL = 4

_AS_ONNX_DEFINES = {"session.disable_quant_qdq": "1"}
"""The integer kernels that quantised nodes are fused to round otherwise, and those of AVX2 saturate."""


@dataclass(frozen=True)
class Driver:
    """What the NVIDIA driver says.

    Attributes:
        devices: GPUs that it lets this process use.
        cuda: the newest CUDA that it supports, (major, minor); ``None`` if there is no driver.
        error: the code with which it failed, 0 if it did not.
    """

    devices: int = 0
    cuda: tuple[int, int] | None = None
    error: int = 0


_NO_DEVICE = (34, 100)  # cuInit on a machine without a GPU: the driver is a stub, or has none


def open_session(
    model: str | bytes,
    provider: Provider,
    threads: int | None,
    trace: str | None = None,
    cuda_options: Mapping[str, str] | None = None,
) -> onnxruntime.InferenceSession:
    """A session of a graph.

    Args:
        model: path of an ONNX file, or its content.
        provider: ``"auto"`` takes CUDA if it works and the CPU otherwise; ``"cuda"`` takes nothing else.
        threads: threads within an operator; ``None`` takes as many as this process has processors, which onnxruntime
            itself takes from the host.
        trace: beginning of the name of a file to which the session writes, at the end of its profiling, what every
            node took; ``None`` for no profiling.
        cuda_options: options of onnxruntime's CUDA provider beside, or in place of, those that lmonnx sets:
            ``use_tf32`` 0 and ``cudnn_conv_algo_search`` HEURISTIC.

    Raises:
        OptionError: if an option has a value that is not allowed, or CUDA is asked for and does not work.
        ModelError: if onnxruntime cannot load the file.
        MissingExtraError: if onnxruntime itself is not installed, or does not load.
    """
    runtime = import_onnxruntime()
    if provider not in get_args(Provider):
        raise OptionError(f"provider={provider!r} is unknown; choose one of {', '.join(get_args(Provider))}")
    if threads is not None and (not isinstance(threads, int) or isinstance(threads, bool) or threads < 1):
        raise OptionError(f"threads={threads!r} is not a positive number; None takes all processors")
    options = runtime.SessionOptions()
    options.use_deterministic_compute = True
    # A plan of the memory for a shape is laid out beside what the first run of that shape took, which stays taken.
    options.enable_mem_pattern = False
    options.intra_op_num_threads = threads or processors()
    if trace is not None:
        options.enable_profiling, options.profile_file_prefix = True, trace
    for name, value in _AS_ONNX_DEFINES.items():
        options.add_session_config_entry(name, value)
    providers = _providers(provider, cuda_options or {})
    if providers == [_CPU]:
        options.log_severity_level = _FATAL  # what goes wrong is raised, too
    try:
        session: onnxruntime.InferenceSession = runtime.InferenceSession(model, options, providers=providers)
    except Exception as error:  # onnxruntime raises a class of its own for each status code
        name = model if isinstance(model, str) else "the model"
        raise ModelError(f"{name}: {_unloadable(error)}") from error
    if provider == "cuda" and session.get_providers()[0] != CUDA:
        raise OptionError(
            "provider='cuda' does not work here, onnxruntime fell back to the CPU; install the CUDA and "
            "cuDNN libraries that its message above names, or use provider='cpu'"
        )
    if provider == "auto" and not took_cuda(session) and ask_driver().devices:
        _warn_of_fallback()
    return session


@cache
def _warn_of_fallback() -> None:
    warnings.warn(
        "there is an NVIDIA GPU, and the CPU computes; `lmonnx doctor` says why", RuntimeWarning, stacklevel=5
    )


def _unloadable(error: Exception) -> str:
    """Why a file cannot be loaded, and what to do."""
    line = first_line(error)
    if "xternal data path does not exist" in line:
        file = line.rpartition("does not exist: ")[2].strip('"')
        return f"its weights are not there, in {file}; put that file beside it under its name, or export again"
    if "External initializer" in line:
        return "the file beside it that holds its weights is shorter than it was; copy both again, or export again"
    return f"onnxruntime cannot load it as ONNX: {line}"


def took_cuda(session: onnxruntime.InferenceSession) -> bool:
    """Whether the session computes on CUDA."""
    return bool(session.get_providers()[0] == CUDA)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for a message of one line."""
    return str(error).strip().partition("\n")[0]


def _providers(provider: Provider, cuda_options: Mapping[str, str]) -> list[Any]:
    onnxruntime = import_onnxruntime()
    available = CUDA in onnxruntime.get_available_providers()
    if provider == "cuda" and not available:
        raise OptionError("provider='cuda' is not in this onnxruntime; install onnxruntime-gpu in its place")
    if not available or provider == "cpu" or (provider == "auto" and not ask_driver().devices):
        return [_CPU]
    if hasattr(onnxruntime, "preload_dlls"):  # onnxruntime ≥ 1.21; prints what it did not find
        with contextlib.redirect_stdout(sys.stderr):
            onnxruntime.preload_dlls()
    return [(CUDA, {**_CUDA_OPTIONS, **cuda_options}), _CPU]


def ask_driver() -> Driver:
    """Asks the NVIDIA driver for its devices; onnxruntime prints errors when it tries CUDA on a machine without one."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return Driver()
    version, count = ctypes.c_int(0), ctypes.c_int(0)
    driver.cuDriverGetVersion(ctypes.byref(version))
    cuda = (version.value // 1000, version.value % 1000 // 10)
    error = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    return Driver(count.value, cuda, 0 if error in _NO_DEVICE else error)
