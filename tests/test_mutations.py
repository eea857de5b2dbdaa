"""Each of the ten faults turns a test of the operators red. Which tests see which: ``make mutations``."""

from __future__ import annotations

import pytest

from tests import test_operators
from tests.cases import CASES, Case
from tests.mutations import MUTATIONS
from tests.test_operators import test_graph_equals_reference_in_float64 as equals_reference
from tests.test_operators import test_laws as laws


@pytest.mark.parametrize("name", MUTATIONS)
def test_fault_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTATIONS[name](monkeypatch)
    monkeypatch.setattr(test_operators, "_graph", test_operators._graph.__wrapped__)
    assert any(_is_red(case) for case in CASES), "no test saw it"


def _is_red(case: Case) -> bool:
    for test in (equals_reference, laws):
        try:
            if case.wide:
                test(case)
        except AssertionError:
            return True
        except Exception:
            continue
    return False
