"""What a PyTorch module has to be for a masked graph, and why PyTorch's exporter does not follow one."""

from __future__ import annotations

import textwrap

import onnx_ir as ir
import torch
from torch.utils import _pytree as pytree

from lmonnx.errors import SourceError
from lmonnx.exporters.ops.builder import extents
from lmonnx.exporters.sources.module_image import another_size, channels_of, quiet
from lmonnx.reference.aten_program import duplicate, own_dtype

#: What a module raises that is made for something else than one tensor; one that does not take its size raises others.
MISUSED = (AttributeError, IndexError, KeyError, NotImplementedError, TypeError)
FOR_ANY_NUMBER = "write it, or trace it, for any number of images"


def require_float32(module: torch.nn.Module, size: tuple[int, int]) -> None:
    """Refuses weights of another dtype, unless the module starts in float32 and converts to theirs and back itself.

    Raises:
        SourceError: naming one of them.
    """
    tensors = (*module.named_parameters(), *module.named_buffers())
    odd = [(name, t.dtype) for name, t in tensors if t.is_floating_point() and t.dtype != torch.float32]
    if not odd or (own_dtype(module) == torch.float32 and _runs(module, 1, channels_of(module, size), size)):
        return
    name, dtype = odd[0]
    kind = str(dtype).removeprefix("torch.")
    raise SourceError(f"{type(module).__name__} has weights of {kind}, such as {name}; call its float() first")


def require_any_batch(module: torch.nn.Module, model: ir.Model) -> None:
    """Refuses what PyTorch exports for one number of images alone.

    Raises:
        SourceError: if the graph is that.
    """
    if extents(model.graph.inputs[0])[0] is not None:
        name = type(module).__name__
        raise SourceError(f"what {name} computes depends on the number of images in a batch; {FOR_ANY_NUMBER}")


def why(module: torch.nn.Module, channels: int, size: tuple[int, int]) -> tuple[str, str] | None:
    """Why a module was not exported and what to do about it; None if it runs, and returns tensors alone."""
    made = _made(module, 2, channels, size)
    if not isinstance(made, Exception):
        others = {type(leaf).__name__: None for leaf in pytree.tree_leaves(made) if not _is_output(leaf)}
        if not others:
            return None
        return f"it returns a value of type {', '.join(others)}", "let its forward return tensors alone"
    if isinstance(made, MISUSED):
        return line(made), "write a module around it whose forward takes one image [N, C, H, W] and nothing else"
    if _runs(module, 1, channels, size):
        return f"it takes one image at a time: {line(made)}", FOR_ANY_NUMBER
    return line(made), another_size(module, size)


def line(error: BaseException) -> str:
    """The first line of what an error says, and the next if that is what it announces."""
    lines = [text for line in str(error).splitlines() if (text := line.strip())] or [type(error).__name__]
    said = " ".join(lines[: 2 if lines[0].endswith(":") else 1])
    return textwrap.shorten(said, 160, placeholder=" …")


def _is_output(value: object) -> bool:
    return value is None or isinstance(value, torch.Tensor)


def _runs(module: torch.nn.Module, rows: int, channels: int, size: tuple[int, int]) -> bool:
    return not isinstance(_made(module, rows, channels, size), Exception)


def _made(module: torch.nn.Module, rows: int, channels: int, size: tuple[int, int]) -> object:
    """What a module makes of black images, or what it raises."""
    twin = duplicate(module).eval()
    try:
        with quiet(), torch.no_grad():
            return twin(torch.zeros(rows, channels, *size))
    except Exception as error:
        return error
