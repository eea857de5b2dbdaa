"""The authors' algorithm, against which speed is compared: it computes what the reference and they themselves do."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from benchmarks.authors import LayerMasking
from benchmarks.speed import NETWORKS
from lmonnx import reference
from lmonnx.exporters.sources.seeds import seeded
from lmonnx.exporters.sources.torchvision import import_torchvision
from lmonnx.masking import PRESETS


def network(name: str) -> torch.nn.Module:
    module: torch.nn.Module = import_torchvision().models.get_model(name, weights=None)
    return module.eval()


@pytest.mark.parametrize("rules", PRESETS)
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_it_computes_what_the_reference_does(name: str, rules: str) -> None:
    module, generator = seeded(network(name), 0).double(), torch.Generator().manual_seed(0)
    image = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=generator)
    mask = (torch.rand(2, 1, 8, 8, generator=generator) > 0.5).repeat_interleave(8, 2).repeat_interleave(8, 3)
    found = LayerMasking(module, PRESETS[rules])(image, mask)
    expected = reference.mask_aware(module, rules=PRESETS[rules])(image, mask)
    assert (found - expected).abs().max() <= 1e-9 * expected.std()


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v3_large"])
@torch.no_grad()
def test_it_computes_what_their_code_did(name: str, golden: Path, recipe: ModuleType) -> None:
    module = recipe.fill_weights(network(name)).double()
    image, mask = (torch.from_numpy(np.asarray(array)) for array in (recipe.images(), recipe.masks()))
    expected = np.load(golden / f"{name}.npz")["masked"]
    found = LayerMasking(module)(image.double(), mask)
    assert np.abs(found.numpy() - expected).max() <= 1e-10 * expected.std()
