"""The reference in float64 against the logits that the authors' own code computed."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from lmonnx.exporters.sources.torchvision import import_torchvision
from lmonnx.masking import MaskRules
from lmonnx.reference import mask_aware

RULES = {
    "resnet50": MaskRules(),
    "mobilenet_v3_large": MaskRules(),
    "squeezenet1_1": MaskRules(average="area", concat="any", rings="kernel", removed="computed"),
}
TOLERANCE = 1e-10  # of the golden's standard deviation


@pytest.mark.parametrize("name", RULES)
def test_logits_are_the_authors(name: str, golden: Path, recipe: ModuleType) -> None:
    with np.load(golden / f"{name}.npz") as logits:
        plain, masked = logits["plain"], logits["masked"]
    network = recipe.fill_weights(getattr(import_torchvision().models, name)(weights=None))
    images = torch.from_numpy(recipe.images()).double()
    masks = torch.from_numpy(recipe.masks())
    with torch.no_grad():
        found = mask_aware(network, rules=RULES[name])(images, masks).numpy()
        whole = mask_aware(network, rules=MaskRules(average="area"))(images, torch.ones_like(masks)).numpy()
    assert np.abs(found - masked).max() <= TOLERANCE * masked.std()
    assert np.abs(whole - plain).max() <= TOLERANCE * plain.std()
