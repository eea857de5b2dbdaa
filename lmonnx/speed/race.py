"""Times of several programs in one process, taken in turns, so that what slows the machine slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: Seconds of rest before each run: onnxruntime's threads spin for a while after one, on the cores of the next.
REST = 0.15
#: Runs of each that are not counted: they allocate, and the first ones wake a processor up.
WARMUP = 2


@dataclass(frozen=True, eq=False)
class Times:
    """Seconds of every run: program -> float64 ``[rounds]``; run i of one stood beside run i of all others."""

    seconds: Mapping[str, npt.NDArray[np.float64]]

    def quartiles(self, name: str) -> tuple[float, float, float]:
        """First quartile, median and third quartile of a program's seconds."""
        return _quartiles(self.seconds[name])

    def ratio(self, name: str, base: str) -> tuple[float, float, float]:
        """The same of the ratios of a program's seconds to those of another one in the same round."""
        return _quartiles(self.seconds[name] / self.seconds[base])


def race(programs: Mapping[str, Callable[[], object]], rounds: int) -> Times:
    """Runs each of ``programs`` once a round, beginning with another one every round."""
    names, taken = list(programs), {name: np.zeros(rounds) for name in programs}
    for name in names * WARMUP:
        programs[name]()
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            time.sleep(REST)
            start = time.perf_counter()
            programs[name]()
            taken[name][turn] = time.perf_counter() - start
    return Times(taken)


def _quartiles(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    low, middle, high = np.percentile(values, (25, 50, 75))
    return float(low), float(middle), float(high)
