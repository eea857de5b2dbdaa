"""A random graph in the making."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.graphs import Step, step


@dataclass
class Draft:
    """A graph in the making: its steps, and the 4-D maps among its values, newest last."""

    space: tuple[int, int]
    steps: list[Step] = field(default_factory=list)
    maps: list[tuple[str, tuple[int, int, int]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.maps.append(("x", (3, *self.space)))

    def add(self, operator: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> str:
        self.steps.append(step(operator, *inputs, outputs=outputs, **attributes))
        return str(len(self.steps) - 1)

    def map(self, value: str, shape: Sequence[int]) -> None:
        channels, height, width = shape
        self.maps.append((value, (channels, height, width)))

    def pick(self, number: int) -> tuple[str, tuple[int, int, int]]:
        """A map: the newest for 0, older ones for more."""
        return self.maps[-1 - number % len(self.maps)]

    def alike(self, shape: Sequence[int], number: int, *, channels: bool = True) -> tuple[str, tuple[int, int, int]]:
        """A map of the same extents."""
        start = 0 if channels else 1
        found = [entry for entry in self.maps if entry[1][start:] == tuple(shape)[start:]]
        return found[-1 - number % len(found)]

    def weights(self, *shape: int) -> np.ndarray:
        """Normal numbers that depend on the place in the graph alone."""
        rng = np.random.default_rng([len(self.steps), 17])
        return rng.normal(size=shape) / np.sqrt(max(1, np.prod(shape[1:])))

    def positive(self, *shape: int) -> np.ndarray:
        return 0.5 + np.random.default_rng([len(self.steps), 19]).random(shape)


def window(space: Sequence[int], numbers: Sequence[int]) -> tuple[dict[str, Any], list[int]] | None:
    """Attributes of a window over ``space`` and the extents of its result; None if it does not fit."""
    a, b, c, d = numbers
    kernel = [(1, 2, 3, 3, 4, 5)[a % 6], (3, 1, 2, 3, 5, 4)[b % 6] if b % 7 else (1, 2, 3, 3, 4, 5)[a % 6]]
    strides = [(1, 1, 2, 3)[c % 4], (1, 2, 1, 2)[(c // 4) % 4]]
    dilations = [1 + (d % 5 == 4), 1 + (d % 3 == 2)]
    befores = [min(k - 1, (d // 2) % 3) for k in kernel]
    afters = [min(k - 1, (d // 3) % 3) for k in kernel]
    out = []
    for extent, k, s, e, before, after in zip(space, kernel, strides, dilations, befores, afters, strict=True):
        room = extent + before + after - e * (k - 1) - 1
        if room < 0:
            return None
        out.append(room // s + 1)
    attributes = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": [*befores, *afters]}
    return attributes, out
