"""When a proof holds, and when it says nothing."""

from __future__ import annotations

import numpy as np
import pytest

from lmonnx.exporters.proof import UNDECIDED, Row, Verification

GOOD, WRONG, NOISE = Row("good", 1e-6, 1e-6), Row("wrong", 1e-3, 1e-6), Row("noise", 5.0, 4.0)
BROKEN = Row("not finite", np.nan, 4.0)


@pytest.mark.parametrize(
    ("rows", "passed"),
    [
        ((GOOD, GOOD, GOOD), True),
        ((GOOD, WRONG, GOOD), False),
        ((GOOD, NOISE, GOOD), True),
        ((GOOD, BROKEN, GOOD), False),
        ((NOISE, GOOD, GOOD), False),
        ((GOOD, GOOD, NOISE), False),
        ((GOOD, NOISE, NOISE, NOISE, GOOD), False),
    ],
    ids=lambda value: "-".join(row.name for row in value) if isinstance(value, tuple) else "",
)
def test_a_proof_holds_if_all_that_can_be_told_is_right(rows: tuple[Row, ...], passed: bool) -> None:
    verification = Verification(rows, 1e-4, "aten")
    assert verification.passed is passed
    assert verification.summary()["undecided"] == [row.name for row in rows if row is NOISE]
    assert (UNDECIDED in str(verification)) is (NOISE in rows)
