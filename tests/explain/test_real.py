"""A trained network on a photograph. Its masking is plain grey here; the lowering has tests of its own."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lmonnx.explain.lime import explain
from lmonnx.explain.sampling import masks
from lmonnx.runtime.contract import Contract
from lmonnx.runtime.preprocessing import Preprocessing
from lmonnx.runtime.session import Runner

DATA = Path(os.environ.get("LMONNX_TEST_DATA", Path(__file__).parents[2] / "../shared/data"))


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    model = onnx.load(DATA / "models/mobilenet_v1_025_224.onnx")
    for node in model.graph.node:
        node.input[:] = ["joined" if name == "image" else name for name in node.input]
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0), "grey"))
    model.graph.node.insert(0, helper.make_node("Where", ["mask", "image", "grey"], ["joined"]))
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.BOOL, ["masks", 1, 224, 224]))
    contract = Contract(
        version="0.1.0",
        outputs={model.graph.output[0].name: "probabilities"},
        preprocessing=Preprocessing((224, 224), 256, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        labels=tuple((DATA / "imagenet_classes.txt").read_text(encoding="utf-8").splitlines()),
    )
    helper.set_model_props(model, contract.to_props())
    onnx.save(model, tmp_path / "mobilenet.onnx")
    return Runner(tmp_path / "mobilenet.onnx")


@pytest.mark.skipif(not (DATA / "models").is_dir(), reason="no real data: LMONNX_TEST_DATA names no folder")
def test_removing_by_weight_beats_removing_in_reverse(runner: Runner, tmp_path: Path) -> None:
    photo = DATA / "images/088_n01818515_macaw.jpg"
    result = explain(runner, photo, samples=300)
    assert (result.index, result.name) == (88, "macaw")
    assert result.probability > 0.9
    assert result.score > 0.4
    result.save(tmp_path / "out")

    def curve(order: np.ndarray) -> float:
        """Mean probability while the segments are removed one by one."""
        keep = np.array([~np.isin(np.arange(len(order)), order[:removed]) for removed in range(len(order))])
        image = runner.contract.preprocessing.prepare(photo)  # type: ignore[union-attr]
        return float(runner.probabilities(image, masks(keep, result.segments, 32))[:, result.index].mean())

    assert curve(result.order()) + 0.2 < curve(result.order()[::-1])
