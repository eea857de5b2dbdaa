"""How many rings each convolution is filled by, where only some of its windows are read."""

from __future__ import annotations

import pytest

from tests.families.reach import BLOCKS
from tests.graphs import build, lowered


@pytest.mark.parametrize("name", BLOCKS)
def test_no_ring_is_filled_that_nothing_reads(name: str) -> None:
    steps, expected = BLOCKS[name]
    graph = lowered(build(steps, (3, 10, 13), 18)).model.graph
    filled = []
    for i, one in enumerate(steps):
        if one.operator == "Conv" and one.inputs[1].shape[2] > 1:
            pools = [n for n in graph if n.op_type == "AveragePool" and n.metadata_props["lmonnx.source"] == f"node{i}"]
            filled.append(sum(n.outputs[0].shape[1] == 3 for n in pools))
    assert tuple(filled) == expected
