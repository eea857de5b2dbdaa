"""A PyTorch module as a graph for images of any size, and what PyTorch has assumed of the size that it saw."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterator
from types import CodeType
from typing import Any

import onnx_ir as ir
import torch
from torch.utils._sympy.printers import PythonPrinter

from lmonnx.errors import SourceError
from lmonnx.exporters.lowering.registry import BATCH
from lmonnx.exporters.normalise import OPEN

#: What the width of the example is larger than its height by, in pixels: sides that are equal are taken for one.
WIDER = 32
ROWS = 2
#: The sides that an assumption is tried for: all up to the first number, and these.
SIDES = (*range(1, 1089), 1280, 1535, 1536, 2047, 2048, 4095, 4096, 9973)
REMEDY = "export it with a fixed size, such as --size 224"


def traced(module: torch.nn.Module, channels: int, size: tuple[int, int]) -> torch.export.ExportedProgram:
    """The module with open batch, height and width, as PyTorch sees it at ``size``.

    What it assumes on the way is recorded, not left to the exported graph to assert: see :func:`smallest`.
    """
    example = torch.zeros(ROWS, channels, size[0], size[1] + WIDER)
    free = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    return torch.export.export(module, (example,), dynamic_shapes=(free,))


def smallest(program: torch.export.ExportedProgram, size: tuple[int, int]) -> int:
    """From how many pixels a side on all that PyTorch has assumed of height and width holds, as far as it is tried.

    An assumption is a condition on height and width that decided how the program was traced, as ``if`` and windows do.

    Args:
        program: the program that was exported to ONNX in the end, because that assumes more.
        size: height and width of the example, as :func:`traced` was given them.

    Raises:
        SourceError: if it does not hold for some sizes from ``size`` on; there the network computes something else.
    """
    rows, height, width = _sides(program)
    env = height.node.shape_env
    found = 1
    known = {str(rows): ROWS}
    names = str(height), str(width)
    assumed = {_code(guard.expr): None for guard in env.guards}
    assumed |= {f"{limits.lower} <= {name} <= {limits.upper}": None for name, limits in _ranges(program, names)}
    for text in assumed:
        condition = compile(text, "<assumption>", "eval")
        for pair in _pairs(text, names, size):
            if not _holds(condition, {**known, **dict(zip(names, pair, strict=True))}):
                found = max(found, min(pair) + 1)
        if found > min(size):
            raise SourceError(
                f"PyTorch exports the network for some sizes only, those where {_text(text, names)}; {REMEDY}"
            )
    return found


def name_sides(model: ir.Model, program: torch.export.ExportedProgram) -> None:
    """Calls batch, height and width by their names in every shape of ``model``, in place.

    PyTorch writes the others as expressions in these, in one form: equal text is an equal extent.
    """
    named = dict(zip(map(str, _sides(program)), (BATCH, *OPEN), strict=True))
    symbol = re.compile(rf"\b({'|'.join(map(re.escape, named))})\b")
    values = [*model.graph.inputs, *(value for node in model.graph.all_nodes() for value in node.outputs)]
    for value in values:
        if value.shape is not None:
            sides = (side if isinstance(side, int) else side.value for side in value.shape)
            value.shape = ir.Shape(
                [symbol.sub(lambda found: named[found[0]], side) if isinstance(side, str) else side for side in sides]
            )


def _sides(program: torch.export.ExportedProgram) -> tuple[Any, Any, Any]:
    """Rows, height and width of the image, as PyTorch's symbols.

    Raises:
        SourceError: if one is a number.
    """
    image = next(
        node.meta["val"]
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in program.graph_signature.user_inputs
    )
    rows, _, height, width = image.shape
    if not all(isinstance(side, torch.SymInt) for side in (rows, height, width)):
        raise SourceError(f"PyTorch exports the network for one size only; {REMEDY}")
    return rows, height, width


def _ranges(program: torch.export.ExportedProgram, names: tuple[str, str]) -> Iterator[tuple[str, Any]]:
    """What PyTorch says of the ends of height and width, where it says that there is an upper one or a lower one."""
    for symbol, limits in program.range_constraints.items():
        if str(symbol) in names:
            yield str(symbol), limits


def _code(expression: Any) -> str:
    """A condition of sympy as Python."""
    text: str = PythonPrinter().doprint(expression)
    return text


def _pairs(text: str, names: tuple[str, str], size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """The sizes that an assumption is tried for: every side with one that fits it, and with a few others if it asks."""
    both = all(name in text for name in names)
    for side in SIDES:
        yield side, side
        if both:
            for other in (side + 1, *size, SIDES[-1]):
                yield side, other
                yield other, side


def _holds(condition: CodeType, values: dict[str, int]) -> bool:
    try:
        return bool(eval(condition, {"math": math, "torch": torch, "int_oo": math.inf}, values))
    except ZeroDivisionError:  # of an empty map
        return False


def _text(text: str, names: tuple[str, str]) -> str:
    for name, side in zip(names, ("height", "width"), strict=True):
        text = text.replace(name, side)
    return textwrap.shorten(text, 80, placeholder=" …")
