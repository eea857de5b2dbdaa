"""Seeded weights: the same bits whatever computes them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from lmonnx.errors import SourceError, WeightsError
from lmonnx.exporters.proof import images
from lmonnx.exporters.sources.module import weights_hash
from lmonnx.exporters.sources.module_image import channels_of
from lmonnx.exporters.sources.seeds import seeded
from lmonnx.exporters.sources.torchvision import from_torchvision, import_torchvision

#: SHA-256 of the seeds' weights, as the metadata of files that were exported with them has it.
RECORDED = {
    ("mobilenet_v3_small", 0): "3d786a89f503879f6d63f3e6ce03beb180daf8a7262f41df43000c19afe60556",
    ("resnet18", 7): "1c4f1c750a1f7148753d0c6dabd410a1bf0035d8af30090839e87942f9b752a0",
}
SCRIPT = """
import sys, torch
torch.set_num_threads(int(sys.argv[1]))
torch.use_deterministic_algorithms(sys.argv[2] == "deterministic")
from lmonnx.exporters.sources.module import weights_hash
from lmonnx.exporters.sources.seeds import seeded
from lmonnx.exporters.sources.torchvision import import_torchvision
models = import_torchvision().models
for case in sys.argv[3:]:
    name, seed = case.split(":")
    print(weights_hash(seeded(models.get_model(name, weights=None), int(seed))))
"""


@pytest.mark.parametrize(
    ("threads", "mode", "environment"),
    [
        (2, "free", {}),
        (1, "deterministic", {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}),
        (1, "free", {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "avx2"}),
    ],
)
def test_weights_of_a_seed_are_those_recorded(threads: int, mode: str, environment: dict[str, str]) -> None:
    cases = [f"{name}:{seed}" for name, seed in RECORDED]
    command = [sys.executable, "-c", SCRIPT, str(threads), mode, *cases]
    result = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert result.stdout.split() == list(RECORDED.values()), result.stderr


def test_seeds_differ_and_repeat() -> None:
    build = import_torchvision().models.squeezenet1_1
    hashes = [weights_hash(seeded(build(weights=None), seed)) for seed in (1, 2, 1)]
    assert hashes[0] == hashes[2] != hashes[1]


def test_seeded_weights_have_the_deviations_they_say() -> None:
    network = seeded(import_torchvision().models.resnet18(weights=None), 0)
    fan_in = network.layer4[0].conv2.weight[0].numel()
    assert network.layer4[0].conv2.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=1e-2)
    assert network.fc.weight.std().item() == pytest.approx(0.2 * (2 / 512) ** 0.5, rel=1e-2)
    assert network.fc.bias.std().item() == pytest.approx(0.1, rel=5e-2)
    assert network.layer4[0].bn2.bias.std().item() == pytest.approx(0.2, rel=5e-2)
    scales = network.layer4[0].bn2.weight
    assert 0.125 < scales.min() < 0.13
    assert 0.37 < scales.max() < 0.375


def test_activations_of_a_deep_seeded_network_keep_their_scale() -> None:
    network = seeded(import_torchvision().models.densenet121(weights=None), 0).eval()
    with torch.no_grad():
        logits = network(torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert 0.1 < logits.std() < 10


def test_float32_follows_a_deep_seeded_network() -> None:
    """What it says of an image is far above what rounding does; see :func:`seeded`."""
    network = seeded(import_torchvision().models.efficientnet_b3(weights=None), 0, (64, 64)).eval()
    given = torch.from_numpy(images(6, 3, (64, 64)))
    with torch.no_grad():
        single, exact = network(given), network.double()(given.double())
    assert (single - exact).abs().max() < 1e-3 * (exact - exact.mean(0)).std()


def test_weights_may_be_named_as_the_metadata_names_them() -> None:
    for weights in ("ResNet50_Weights.IMAGENET1K_V1", "SqueezeNet1_1_Weights.IMAGENET1K_V2"):
        with pytest.raises(WeightsError, match="choose one of default, IMAGENET1K_V1, seed:N"):
            from_torchvision("squeezenet1_1", weights)


class Parts(nn.Module):
    """What networks hold beside convolutions, matrices and batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(2, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 3)
        self.gain = nn.Parameter(torch.ones(8, 1, 1, 1))
        self.skipinit_gain = nn.Parameter(torch.zeros(()))
        self.gamma = nn.Parameter(torch.full((8,), 1e-6))
        self.layer_scale = nn.Parameter(torch.full((8, 1, 1), 1e-6))
        self.grn = nn.ParameterDict({"weight": torch.zeros(8), "bias": torch.zeros(8)})
        self.register_buffer("blur", torch.full((8, 1, 3, 3), 1 / 9))
        self.register_buffer("running_maximum", torch.ones(8))
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.conv2d(self.second(self.first(x)), self.blur, groups=8)
        return self.head(self.norm(x.mean((2, 3))))


def test_factors_and_constants() -> None:
    """Scales of layers are like those of trained networks, whatever they start as; filters that are constant stay."""
    parts = seeded(Parts(), 0)
    for factor in (parts.gain, parts.skipinit_gain, parts.gamma, parts.layer_scale, parts.grn["weight"]):
        assert factor.min() > 0.5
        assert factor.max() < 1.5
    assert parts.grn["bias"].abs().max() < 0.2
    assert torch.equal(parts.blur, torch.full((8, 1, 3, 3), 1 / 9))
    assert torch.equal(parts.running_maximum, torch.ones(8))
    assert not torch.equal(parts.norm.running_mean, torch.zeros(8))
    assert parts.norm.running_var.min() > 0


def test_frozen_norms_stay() -> None:
    frozen = import_torchvision().ops.FrozenBatchNorm2d(4)
    network = seeded(nn.Sequential(nn.Conv2d(3, 4, 3), frozen, nn.BatchNorm2d(4)), 0)
    assert weights_hash(network[1]) == weights_hash(import_torchvision().ops.FrozenBatchNorm2d(4))
    assert not torch.equal(network[2].running_var, torch.ones(4))


def test_statistics_at_the_size_a_network_is_made_for() -> None:
    def small() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 30 * 40, 3))

    assert channels_of(small(), (30, 40)) == 1
    network = seeded(small(), 0, (30, 40)).eval()
    with torch.no_grad():
        assert 0.05 < network(torch.randn(4, 1, 30, 40, generator=torch.Generator().manual_seed(0))).std() < 5
    with pytest.raises(SourceError, match=r"Sequential cannot take 1 channels of 31×40 pixels: .*; try another size"):
        seeded(small(), 0, (31, 40))


def test_channels() -> None:
    stem = nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(48, 8, 3))
    networks = (nn.Conv2d(4, 8, 3), nn.Conv2d(2, 8, 3), stem, nn.Flatten())
    assert [channels_of(network, (32, 32)) for network in networks] == [4, 2, 3, 3]
