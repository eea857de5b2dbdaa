"""Convolutions of which fewer windows are read than have seen a kept pixel: what nothing reads is left anyhow."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.families.case import Case, case, w
from tests.graphs import Step, step

BACK, LAST = [0, 3, 1, 2], [0, 2, 3, 1]


def conv(of: str, kernel: int, pads: tuple[int, ...] = (1, 1, 1, 1), **attributes: Any) -> Step:
    return step("Conv", of, w(3, 3, kernel, kernel), pads=list(pads), **attributes)


#: Name of the case -> the steps, and how many rings each convolution of a window of more than one pixel needs.
BLOCKS: dict[str, tuple[tuple[Step, ...], tuple[int, ...]]] = {
    "Conv/residual": ((conv("x", 3), step("Add", "0", "x")), (1,)),
    "Conv/residual of two": ((conv("x", 3), step("Relu", "0"), conv("1", 3), step("Add", "2", "x")), (2, 0)),
    "Conv/residual of stride 2": (
        (conv("x", 3, strides=[2, 2]), step("Conv", "x", w(3, 3, 1, 1), strides=[2, 2]), step("Add", "0", "1")), (1,)
    ),
    "Conv/residual, even and uneven": ((conv("x", 4, (1, 2, 2, 1)), step("Add", "0", "x")), (2,)),
    "Conv/residual, to one side": ((conv("x", 3, (0, 2, 2, 0)), step("Add", "0", "x")), (2,)),
    "Conv/residual, dilated": ((conv("x", 3, (2,) * 4, dilations=[2, 2]), step("Add", "0", "x")), (2,)),
    "Conv/residual, wider behind narrower": ((conv("x", 3), conv("0", 5, (2,) * 4), step("Add", "1", "x")), (2, 1)),
    "Conv/residual, narrower behind wider": ((conv("x", 5, (2,) * 4), conv("0", 3), step("Add", "1", "x")), (4, 0)),
    "Conv/residual, plain behind dilated": (
        (conv("x", 3, (2,) * 4, dilations=[2, 2]), conv("0", 3), step("Add", "1", "x")), (4, 1)
    ),
    "Conv/residual, infinite between": (
        (conv("x", 3), step("Div", "0", "0"), step("Mul", "1", "0"), conv("2", 3), step("Add", "3", "x")), (2, 0)
    ),
    "Conv/residual behind a Pad": (
        (step("Pad", "x", np.array([0, 0, 1, 1, 0, 0, 1, 1])), conv("0", 3, (0,) * 4), step("Add", "1", "x")), (1,)
    ),
    "Conv/residual, channels last": (
        (
            conv("x", 3),
            step("Transpose", "0", perm=LAST),
            step("LayerNormalization", "1", w(3), w(3), axis=-1, epsilon=2**-10),
            step("MatMul", "2", w(3, 3)),
            step("Add", "3", w(3)),
            step("Transpose", "4", perm=BACK),
            step("Mul", "5", w(3, 1, 1)),
            step("Add", "6", "x"),
        ),
        (1,),
    ),
    "Conv/residual with a gate": (
        (conv("x", 3), step("GlobalAveragePool", "0"), step("Mul", "0", "1"), step("Add", "2", "x")), (2,)
    ),
    "InstanceNormalization/in a residual": (
        (conv("x", 3), step("InstanceNormalization", "0", w(3), w(3)), step("Add", "1", "x")), (2,)
    ),
    "Conv/dense": ((conv("x", 3), step("Concat", "x", "0", axis=1)), (1,)),
    "Conv/halves of which one is grown": (
        (
            step("Conv", "x", w(4, 3, 1, 1)),
            step("Split", "0", np.array([1, 3]), axis=1, outputs=2),
            conv("1:1", 3),
            step("Concat", "1", "2", axis=1),
        ),
        (1,),
    ),
    "Conv/read twice": ((conv("x", 3), step("Add", "0", "x"), conv("0", 3), step("Add", "1", "2")), (2, 0)),
}  # fmt: skip


def reaching() -> list[Case]:
    return [case(name, *steps) for name, (steps, _) in BLOCKS.items()]
