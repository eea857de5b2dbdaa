"""The reference in float64 against the logits that the authors' own code computed."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from lmonnx.exporters.sources.torchvision import import_torchvision
from lmonnx.masking import MaskRules
from lmonnx.reference import mask_aware

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(os.environ.get("LMONNX_TEST_GOLDEN", ROOT.parent / "shared" / "golden"))
RULES = {
    "resnet50": MaskRules(),
    "mobilenet_v3_large": MaskRules(),
    "squeezenet1_1": MaskRules(average="area", concat="any", rings="kernel", removed="computed"),
}
TOLERANCE = 1e-10  # of the golden's standard deviation

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"no golden logits at {GOLDEN}")


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_recipe", GOLDEN / "recipe.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", RULES)
def test_logits_are_the_authors(name: str, recipe: ModuleType) -> None:
    with np.load(GOLDEN / f"{name}.npz") as golden:
        plain, masked = golden["plain"], golden["masked"]
    network = recipe.fill_weights(getattr(import_torchvision().models, name)(weights=None))
    images = torch.from_numpy(recipe.images()).double()
    masks = torch.from_numpy(recipe.masks())
    with torch.no_grad():
        found = mask_aware(network, rules=RULES[name])(images, masks).numpy()
        whole = mask_aware(network, rules=MaskRules(average="area"))(images, torch.ones_like(masks)).numpy()
    assert np.abs(found - masked).max() <= TOLERANCE * masked.std()
    assert np.abs(whole - plain).max() <= TOLERANCE * plain.std()
