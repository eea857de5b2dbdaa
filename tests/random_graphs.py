"""Random small graphs of the operator table, each from a list of moves that can be printed and kept.

Hypothesis shrinks a failing graph to a few moves, and what it prints is a case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from hypothesis import strategies as st

from lmonnx.masking import MaskRules
from tests.random_draft import Draft
from tests.random_moves import MOVES

#: A name of MOVES and the numbers that choose.
Move: TypeAlias = tuple[str, int, int, int, int, int, int]

HEADS = ("none", "GlobalAveragePool", "GlobalMaxPool", "Gemm")


@dataclass(frozen=True)
class Recipe:
    """A random graph and its masks, as numbers.

    Attributes:
        moves: see :data:`MOVES`.
        head: index into :data:`HEADS`, what reads the last map.
        space: height and width of the image.
        average: of the mask rules.
        concat: of the mask rules.
        masks: seed of the masks.
    """

    moves: tuple[Move, ...]
    head: int = 0
    space: tuple[int, int] = (8, 9)
    average: str = "valid"
    concat: str = "all"
    masks: int = 0

    def draft(self) -> Draft:
        """The graph; its last step is the output."""
        draft = Draft(self.space)
        for name, *numbers in self.moves:
            MOVES[name](draft, numbers)
        value, shape = draft.maps[-1]
        operator = HEADS[self.head]
        if operator.startswith("Global"):
            draft.add(operator, value)
        elif operator == "Gemm":
            size = int(np.prod(shape))
            draft.add("Gemm", draft.add("Flatten", value), draft.weights(size, 4) * np.sqrt(size / 4))
        elif not draft.steps or value != str(len(draft.steps) - 1):
            draft.add("Add", value, np.array(0.5))
        return draft

    @property
    def rules(self) -> MaskRules:
        return MaskRules(average=self.average, concat=self.concat)  # type: ignore[arg-type]

    def mask(self) -> np.ndarray:
        """Bool [6, 1, H, W]: all, none, two of random patches, a half, one pixel."""
        rng = np.random.default_rng(self.masks)
        height, width = self.space
        kept = np.zeros((6, 1, height, width), bool)
        kept[0] = True
        for row, patch in ((2, 3), (3, 1)):
            coarse = rng.random((-(-height // patch), -(-width // patch))) < 0.5
            kept[row, 0] = np.kron(coarse, np.ones((patch, patch), bool))[:height, :width]
        kept[4, 0, :, : rng.integers(1, width)] = True
        kept[5, 0, rng.integers(height), rng.integers(width)] = True
        return kept


def recipes(head: int) -> st.SearchStrategy[Recipe]:
    """Graphs of one to eight moves over images of 6 to 12 pixels a side, with one of :data:`HEADS` behind them."""
    number = st.integers(0, 11)
    move = st.tuples(st.sampled_from(sorted(MOVES)), *[number] * 6)
    return st.builds(
        Recipe,
        moves=st.lists(move, min_size=1, max_size=8).map(tuple),
        head=st.just(head),
        space=st.tuples(st.integers(6, 12), st.integers(6, 12)),
        average=st.sampled_from(["valid", "area"]),
        concat=st.sampled_from(["all", "any", "majority"]),
        masks=st.integers(0, 2**16),
    )
