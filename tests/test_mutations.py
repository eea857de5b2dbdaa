"""Each of the faults turns a test of the operators red. Which tests see which: ``make mutations``."""

from __future__ import annotations

import pytest

from tests.cases import CASES
from tests.mutations import MUTATIONS, red, switched_on


@pytest.mark.parametrize("name", MUTATIONS)
def test_fault_is_seen(name: str) -> None:
    with switched_on(name):
        assert any(red(case) for case in CASES if case.wide), "no test saw it"
