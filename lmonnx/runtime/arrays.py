"""Arrays of numpy and tensors of torch, told apart and checked without importing torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from lmonnx.errors import ImageError

if TYPE_CHECKING:
    from typing_extensions import TypeIs

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]


class Tensor(Protocol):
    """A tensor of torch, on any device."""

    def detach(self) -> Any:
        """The tensor without its gradient."""


Array: TypeAlias = npt.NDArray[Any] | Tensor


def is_tensor(value: object) -> TypeIs[Tensor]:
    """Whether ``value`` is a tensor of torch, or of a subclass."""
    return any((kind.__module__, kind.__name__) == ("torch", "Tensor") for kind in type(value).__mro__)


def is_array(value: object) -> TypeIs[Array]:
    """Whether ``value`` is an array of numpy or a tensor of torch."""
    return isinstance(value, np.ndarray) or is_tensor(value)


def to_numpy(array: Array, name: str) -> npt.NDArray[Any]:
    """The values on the host; an array of numpy is returned as it is.

    Raises:
        ImageError: if a tensor has no values, or of a type that numpy does not know, such as bfloat16.
    """
    if isinstance(array, np.ndarray):
        return array
    try:
        values: npt.NDArray[Any] = array.detach().cpu().numpy()
    except (TypeError, RuntimeError) as error:
        raise ImageError(f"{name}: the tensor cannot become an array of numpy: {error}") from error
    return values


def floats(name: str, value: object, shape: tuple[int, ...]) -> Floats:
    """An array or tensor ``[n, *shape]`` of floating point as float32; float64 is rounded to the nearest.

    Raises:
        ImageError: if it has another type or shape, is empty, or holds a value beyond float32.
    """
    wanted = f"float32 {_form(shape)}"
    array = _array(name, value, wanted)
    if array.dtype.kind != "f" or not _fits(array, shape):
        hint = "; run takes preprocessed images, predict takes photographs" if array.dtype == np.uint8 else ""
        raise ImageError(f"{name} has to be {wanted}, given {array.dtype} {list(array.shape)}{hint}")
    _require_rows(name, array)
    try:
        with np.errstate(over="raise"):
            return array.astype(np.float32, copy=False)
    except FloatingPointError as error:
        raise ImageError(f"{name} holds values beyond float32") from error


def pixels(name: str, value: object, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """An array or tensor ``[n, *shape]`` of uint8, 0 … 255.

    Raises:
        ImageError: if it has another type or shape, or is empty.
    """
    wanted = f"uint8 {_form(shape)}"
    array = _array(name, value, wanted)
    if array.dtype != np.uint8 or not _fits(array, shape):
        hint = "; the graph normalises pixels itself" if array.dtype.kind == "f" else ""
        raise ImageError(f"{name} has to be {wanted}, given {array.dtype} {list(array.shape)}{hint}")
    _require_rows(name, array)
    return array


def bools(name: str, value: object, shape: tuple[int, ...]) -> Bools:
    """An array or tensor ``[n, *shape]`` of bool.

    Raises:
        ImageError: if it has another type or shape, or is empty.
    """
    wanted = f"bool {_form(shape)}"
    array = _array(name, value, wanted)
    if array.dtype != np.bool_ or not _fits(array, shape):
        raise ImageError(f"{name} has to be {wanted}, given {array.dtype} {list(array.shape)}{bool_hint(array)}")
    _require_rows(name, array)
    return array


def bool_hint(array: npt.NDArray[Any]) -> str:
    """What makes a mask of ``array``, as the end of a message; empty where it is one."""
    if array.dtype == np.bool_:
        return ""
    return "; of 0 and 1, astype(bool) makes a mask" if array.dtype.kind in "iu" else "; compare it: array >= 0.5"


def _array(name: str, value: object, wanted: str) -> npt.NDArray[Any]:
    if not is_array(value):
        raise ImageError(f"{name} has to be an array of numpy or torch, {wanted}, not {type(value).__name__}")
    return to_numpy(value, name)


def _form(shape: tuple[int, ...]) -> str:
    return f"[n, {', '.join(map(str, shape))}]"


def _fits(array: npt.NDArray[Any], shape: tuple[int, ...]) -> bool:
    return array.ndim == 1 + len(shape) and array.shape[1:] == shape


def _require_rows(name: str, array: npt.NDArray[Any]) -> None:
    if not len(array):
        raise ImageError(f"{name} is empty: {list(array.shape)}")
