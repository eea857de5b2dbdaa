"""Exported graphs against logits that the method's authors' own code computed, where those are at hand."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import lmonnx
from lmonnx.exporters.sources.torchvision import import_torchvision
from lmonnx.runtime import Runner

#: Allowed difference of a float32 graph, in standard deviations of the golden logits; the seeded weights of
#: MobileNetV3 amplify float32 rounding.
TOLERANCE = {"resnet50": 1e-4, "mobilenet_v3_large": 1e-3}


@pytest.mark.parametrize("name", TOLERANCE)
def test_graph_equals_the_authors(name: str, golden: Path, recipe: ModuleType, tmp_path: Path) -> None:
    module = recipe.fill_weights(import_torchvision().models.get_model(name, weights=None))
    path = lmonnx.export(module, tmp_path / "network.onnx", verify=False).path
    expected = np.load(golden / f"{name}.npz")
    runner = Runner(path, provider="cpu")
    image, mask = recipe.images(), recipe.masks()
    for key, given in (("masked", mask), ("plain", np.ones_like(mask))):
        (logits,) = runner.run(image, given).values()
        difference = np.abs(logits - expected[key]).max() / expected[key].std()
        assert difference <= TOLERANCE[name], f"{key}: off by {difference:.2e}"
