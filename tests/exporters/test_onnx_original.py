"""What onnxruntime is given to say what an original file computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import lmonnx
from lmonnx.exporters.sources.onnx_original import averaged
from tests.cases import w
from tests.exporters.small import HEAD, onnx_file
from tests.graphs import build, images, session, step


@pytest.mark.parametrize("opset", [13, 17, 18, 22])
def test_means_axis_by_axis_stand_for_global_pools(opset: int, tmp_path: Path) -> None:
    path = tmp_path / "pools.onnx"
    model = build(HEAD[:3], (3, 32, 32), opset)
    onnx.save(model, path)
    content = averaged(path)
    assert isinstance(content, bytes)
    changed = onnx.load_from_string(content)
    means = [node.op_type for node in changed.graph.node if node.op_type != "Constant"]
    assert means == ["Conv", "Relu", "ReduceMean", "ReduceMean"]
    image = images(2, (3, 32, 32))
    before, after = (session(some).run(None, {"x": image})[0] for some in (model, changed))
    np.testing.assert_allclose(after, before, rtol=1e-5)


def test_a_file_without_global_pools_is_given_as_it_is(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "plain.onnx", step("Conv", "x", w(4, 3, 3, 3)))
    assert averaged(path) == path


def test_the_sum_of_a_large_map_does_not_fail_the_proof(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first, last = rng.normal(size=(8, 3, 3, 3)) / 5, rng.normal(size=(8, 5))
    steps = (step("Conv", "x", first), step("Relu", "0"), step("GlobalAveragePool", "1"), step("Flatten", "2"))
    path = onnx_file(tmp_path / "large.onnx", *steps, step("MatMul", "3", last), shape=(3, 448, 448))
    assert lmonnx.export(path, tmp_path / "masked.onnx").verification
