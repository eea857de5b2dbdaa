"""What a proof found: differences by mask, and which of them are allowed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lmonnx.runtime.form import Precision

#: A float32 graph may be off the float64 reference by this many times what the float32 reference is, …
SLACK = 4.0
#: … plus this floor, …
FLOOR = 2e-5
#: … and never by more than this, by what a network computes in. All three relative to how the reference's output varies
#: over the suite. Rounding to less than float32 is coarser than small faults are; one ring
#: fewer, a wrong stride or any for all change a seeded MobileNetV2 by 1 to 10.
CEILINGS: dict[Precision, float] = {"float32": 1e-2, "float16": 0.3, "int8": 0.3}
ORIGINAL = "original, no mask"
UNDECIDED = "cannot tell"
NOT_FINITE = "FAILED: the network itself gives NaN or infinity here"


@dataclass(frozen=True)
class Row:
    """One mask of the suite, or the comparison with the original network.

    Attributes:
        name: what was compared.
        difference: largest difference of the graph (or of the original network) from the float64 reference, over
            all outputs, in units of how the output varies over the suite; NaN if it was not finite.
        reference: the same for the float32 reference, the largest on the image and on the images whose pixels
            are the next larger and the next smaller float32: what rounding does to this network. Of a network in
            float16 or int8 also how far the network in that precision, unmasked, is off the float64 reference on any
            image; in float16 times what this row grows float32's rounding by, compared with nothing removed.
        precision: what the network computes in.
    """

    name: str
    difference: float
    reference: float
    precision: Precision = "float32"

    @property
    def original(self) -> bool:
        """Whether it is the comparison with the original network."""
        return self.name.startswith(ORIGINAL)

    @property
    def decided(self) -> bool:
        """Whether the precision resolves this mask: otherwise the yardstick is as far off as a fault would be."""
        return SLACK * self.reference <= CEILINGS[self.precision]

    def told(self, tolerance: float) -> bool:
        """Whether anything can be said about the row."""
        return not self.verdict(tolerance).endswith(UNDECIDED)

    def verdict(self, tolerance: float) -> str:
        """What the table says about the row."""
        if self.difference <= tolerance:
            return "ok"
        if not np.isfinite(self.reference):
            return NOT_FINITE
        return "FAILED" if self.decided or not np.isfinite(self.difference) else f"{self.precision} {UNDECIDED}"


@dataclass(frozen=True)
class Verification:
    """The result of the suite.

    Attributes:
        rows: one for each mask, and one for the original network.
        tolerance: what each difference may be, in the same unit.
        front_end: which front end of the reference was asked.
    """

    rows: tuple[Row, ...]
    tolerance: float
    front_end: str

    @property
    def passed(self) -> bool:
        """Whether every difference that can be told is within the tolerance, and that most can be told.

        Nothing removed, the first row, and the original network, the last, have to be among them.
        """
        told = [row for row in self.rows if row.told(self.tolerance)]
        ends = {self.rows[0], self.rows[-1]} <= set(told)
        return ends and 2 * len(told) > len(self.rows) and all(row.difference <= self.tolerance for row in told)

    @property
    def failed(self) -> list[Row]:
        """The rows whose difference is too large."""
        return [row for row in self.rows if row.told(self.tolerance) and row.verdict(self.tolerance) != "ok"]

    @property
    def differs(self) -> bool:
        """Whether a difference is too large. A proof that does not hold may also be one that tells too little."""
        return bool(self.failed)

    @property
    def infinite(self) -> bool:
        """Whether nothing but NaN and infinity of the network itself, under some masks, stands against the graph."""
        verdicts = {row.verdict(self.tolerance) for row in self.failed}
        return verdicts == {NOT_FINITE}

    @property
    def original_alone(self) -> bool:
        """Whether graph and reference agree, and only what runs the original network says something else."""
        return self.differs and all(row.original for row in self.failed)

    @property
    def largest(self) -> float:
        """The largest difference of those that can be told, of those allowed if it tells none; NaN if any is."""
        rows = [row for row in self.rows if row.decided] or [row for row in self.rows if row.told(self.tolerance)]
        return float(np.max([row.difference for row in rows], initial=0.0))

    def __str__(self) -> str:
        width = max(len(row.name) for row in self.rows)
        head = f"{'mask':<{width}}  {'graph':>9}  {'float32 reference':>17}  allowed {self.tolerance:.1e}"
        lines = [
            f"{row.name:<{width}}  {row.difference:9.1e}  {row.reference:17.1e}  {row.verdict(self.tolerance)}"
            for row in self.rows
        ]
        note = "largest difference from the float64 reference, in units of how the output varies over the masks"
        return "\n".join([note, head, *lines])

    def summary(self) -> dict[str, Any]:
        """What the metadata keeps."""
        return {
            "passed": self.passed,
            "reference": self.front_end,
            "largest": float(f"{self.largest:.3g}"),
            "tolerance": float(f"{self.tolerance:.3g}"),
            "masks": [row.name for row in self.rows],
            "undecided": [row.name for row in self.rows if not row.told(self.tolerance)],
        }
