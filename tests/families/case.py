"""What a case of an operator is, and what the tables of them share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from lmonnx.masking import MaskRules
from tests.graphs import Step, build, step

_rng = np.random.default_rng(7)


def w(*shape: int) -> np.ndarray:
    """Normal weights."""
    return _rng.normal(size=shape) / np.sqrt(max(1, np.prod(shape[1:])))


def positive(*shape: int) -> np.ndarray:
    return _rng.uniform(0.5, 1.5, size=shape)


DEFAULT = MaskRules()


@dataclass(frozen=True, eq=False)
class Case:
    """A graph about one operator.

    Attributes:
        name: the operator, a slash, and the situation.
        steps: the nodes.
        shape: of the image, without the batch.
        rules: the mask rules.
        opset: of the graph.
        layout: of the graph's image input.
        map: whether what reads across positions is put behind the case in turn, if its result is a map.
        wide: whether a float64 form says something; a Cast to float32 does not have one, and onnx's evaluator has
            none of some operators, walks an LRN's windows along the batch, or adds up signed numbers for an L1 norm.
    """

    name: str
    steps: tuple[Step, ...]
    shape: tuple[int, ...] = (3, 10, 13)
    rules: MaskRules = DEFAULT
    opset: int = 18
    layout: str = "NCHW"
    map: bool = True
    wide: bool = True

    @property
    def operator(self) -> str:
        return self.name.partition("/")[0]

    def model(self, dtype: Any = np.float32) -> onnx.ModelProto:
        return build(self.steps, self.shape, self.opset, dtype)

    def probes(self) -> list[Case]:
        """The case, and if its result is a map, the case followed by what reads across positions.

        This is where values that were left unzeroed at removed positions would be seen.
        """
        shape = [d.dim_value for d in self.model().graph.output[0].type.tensor_type.shape.dim]
        if not self.map or len(shape) != 4 or min(shape[2:]) < 3:
            return [self]
        last = str(len(self.steps) - 1)
        return [
            self,
            self.followed_by("Conv", step("Conv", last, w(2, shape[1], 3, 3), pads=[1, 1, 1, 1])),
            self.followed_by("MaxPool", step("MaxPool", last, kernel_shape=[3, 3], strides=[2, 2])),
            self.followed_by("GlobalAveragePool", step("GlobalAveragePool", last)),
        ]

    def followed_by(self, name: str, *steps: Step) -> Case:
        return replace(self, name=f"{self.name}, then {name}", steps=(*self.steps, *steps))


def case(name: str, *steps: Step, **settings: Any) -> Case:
    return Case(name, steps, **settings)


AREA = MaskRules(average="area")
CONV = step("Conv", "x", w(4, 3, 3, 3), w(4), pads=[1, 1, 1, 1])
