"""Small members of torchvision's and timm's families through the whole export, its proof, and the laws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lmonnx
from lmonnx.exporters.proof import images, suite
from lmonnx.exporters.sources.seeds import seeded
from lmonnx.exporters.sources.torchvision import import_torchvision
from lmonnx.masking import PRESETS, MaskRules
from lmonnx.runtime import Runner
from tests.laws import check_laws

models = import_torchvision().models
SIZE = (64, 80)
#: Families that cannot take that: AlexNet's last pool, adaptive to 6×6, has to divide its map; the maps of Inception
#: would be smaller than their windows.
SIZES = {"alexnet": (223, 223), "inception_v3": (107, 91), "googlenet": (80, 64)}


def resnet(block: Any, **settings: Any) -> torch.nn.Module:
    return models.ResNet(block, [1, 2, 1, 1], num_classes=10, **settings)


def efficientnet() -> torch.nn.Module:
    config = models.efficientnet.MBConvConfig
    fused = models.efficientnet.FusedMBConvConfig
    stages = [fused(1, 3, 1, 16, 16, 1), config(4, 3, 2, 16, 24, 2), config(4, 5, 2, 24, 32, 2)]
    return models.EfficientNet(stages, dropout=0.2, num_classes=10, last_channel=64)


def mobilenet_v2() -> torch.nn.Module:
    stages = [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 1, 2]]
    return models.MobileNetV2(num_classes=10, width_mult=0.5, inverted_residual_setting=stages)


def mobilenet_v3() -> torch.nn.Module:
    config = models.mobilenetv3.InvertedResidualConfig
    stages = [
        config(16, 3, 16, 16, True, "RE", 2, 1, 1.0),
        config(16, 5, 72, 24, False, "HS", 2, 1, 1.0),
        config(24, 5, 88, 24, True, "HS", 1, 2, 1.0),
    ]
    return models.MobileNetV3(stages, last_channel=64, num_classes=10)


def vgg() -> torch.nn.Module:
    features = models.vgg.make_layers([8, "M", 16, 16, "M", 16, "M"], batch_norm=True)
    network = models.VGG(features, num_classes=10, init_weights=False)
    network.avgpool = torch.nn.AdaptiveAvgPool2d((4, 5))
    network.classifier = torch.nn.Sequential(torch.nn.Linear(16 * 20, 32), torch.nn.ReLU(True), torch.nn.Linear(32, 10))
    return network


def convnext() -> torch.nn.Module:
    stages = [models.convnext.CNBlockConfig(*widths) for widths in ((16, 24, 1), (24, 32, 2), (32, None, 1))]
    return models.ConvNeXt(stages, num_classes=10)


def googlenet() -> torch.nn.Module:
    return models.GoogLeNet(num_classes=10, aux_logits=False, transform_input=True, init_weights=False)


def inception_v3() -> torch.nn.Module:
    return models.Inception3(num_classes=10, aux_logits=False, transform_input=True, init_weights=False)


def regnet() -> torch.nn.Module:
    parameters = models.regnet.BlockParams.from_init_params(
        depth=6, w_0=16, w_a=16.0, w_m=2.2, group_width=8, se_ratio=0.25
    )
    return models.RegNet(parameters, num_classes=10)


def shufflenet_v2() -> torch.nn.Module:
    return models.ShuffleNetV2([2, 2, 2], [24, 32, 48, 64, 96], num_classes=10)


def efficientnet_v2() -> torch.nn.Module:
    fused = models.efficientnet.FusedMBConvConfig
    config = models.efficientnet.MBConvConfig
    stages = [fused(1, 3, 1, 16, 16, 1), fused(4, 3, 2, 16, 24, 2), config(4, 3, 2, 24, 32, 2)]
    return models.EfficientNet(stages, dropout=0.2, num_classes=10, last_channel=64)


DEFAULT = MaskRules()
TORCHVISION: dict[str, tuple[Callable[[], torch.nn.Module], MaskRules]] = {
    "alexnet": (lambda: models.AlexNet(num_classes=10), DEFAULT),
    "convnext": (convnext, DEFAULT),
    "densenet": (lambda: models.DenseNet(8, (2, 3, 2, 2), 16, num_classes=10), DEFAULT),
    "densenet, the authors' rules": (
        lambda: models.DenseNet(8, (2, 3, 2, 2), 16, num_classes=10),
        PRESETS["authors-densenet"],
    ),
    "efficientnet": (efficientnet, DEFAULT),
    "efficientnet_v2": (efficientnet_v2, DEFAULT),
    "googlenet": (googlenet, DEFAULT),
    "inception_v3": (inception_v3, DEFAULT),
    "mnasnet": (lambda: models.MNASNet(0.35, num_classes=10), DEFAULT),
    "mobilenet_v2": (mobilenet_v2, DEFAULT),
    "mobilenet_v3": (mobilenet_v3, DEFAULT),
    "regnet": (regnet, DEFAULT),
    "resnet": (lambda: resnet(models.resnet.BasicBlock), DEFAULT),
    "resnext": (lambda: resnet(models.resnet.Bottleneck, groups=8, width_per_group=4), DEFAULT),
    "shufflenet_v2": (shufflenet_v2, DEFAULT),
    "squeezenet": (lambda: models.SqueezeNet("1_1", num_classes=10), MaskRules(concat="any")),
    "vgg": (vgg, DEFAULT),
    "wide_resnet": (lambda: resnet(models.resnet.Bottleneck, width_per_group=128), DEFAULT),
}
#: What the mask may cost: nodes, operations and bytes that are read and written.
COSTS = {
    "convnext": (149, 1_537_193, 3_433_484),
    "densenet": (167, 2_273_055, 6_143_160),
    "efficientnet": (166, 9_710_612, 15_363_084),
    "mobilenet_v3": (191, 4_774_891, 7_575_704),
    "resnet": (197, 5_024_385, 10_376_466),
}
#: Small networks of timm, each with something that no other has: what it is.
TIMM = {
    "cs3darknet_focus_s": "slices over space",
    "fasternet_t0": "convolutions of a part of the channels",
    "fastvit_t8": "layer scale, large depthwise windows",
    "focalnet_tiny_srf": "context of several windows, a global one among them",
    "ghostnet_050": "half of the channels made from the others",
    "hardcorenas_a": "squeeze-excite with hard activations",
    "hgnetv2_b0": "a Pad before windows of an even size",
    "lcnet_035": "a head without a norm",
    "repghostnet_050": "parallel norms",
    "test_byobnet": "blocks of all kinds",
    "test_convnext2": "global response normalisation",
    "test_efficientnet_evos": "norms with statistics of the instance",
    "test_efficientnet_gn": "group norms",
    "test_efficientnet_ln": "layer norms over channels",
    "test_mambaout": "gated blocks in NHWC",
    "test_nfnet": "standardised weights",
    "test_resnet": "a stem of three convolutions",
}


@pytest.mark.parametrize("family", TORCHVISION)
def test_torchvision(family: str, tmp_path: Path) -> None:
    build, rules = TORCHVISION[family]
    path = check(seeded(build(), seed=3).eval(), SIZES.get(family, SIZE), rules, tmp_path)
    if family in COSTS:
        added = lmonnx.inspect(path).total.added
        assert all(cost <= most for cost, most in zip(astuple(added), COSTS[family], strict=True)), added


@pytest.mark.parametrize("name", TIMM)
def test_timm(name: str, tmp_path: Path) -> None:
    network = pytest.importorskip("timm").create_model(name, num_classes=10)
    check(seeded(network, seed=3).eval(), SIZE, DEFAULT, tmp_path)


def check(module: torch.nn.Module, size: tuple[int, int], rules: MaskRules, folder: Path) -> Path:
    """The proof holds, and so do the laws; the file."""
    result = lmonnx.export(module, folder / "network.onnx", size=size, rules=rules)
    assert result.verification is not None
    assert result.verification.passed
    runner = Runner(result.path, provider="cpu")
    (output,) = runner.contract.outputs
    mask = np.stack(list(suite(size).values()))
    image = images(len(mask), 3, size, seed=4)
    with torch.no_grad():
        original = module(torch.from_numpy(image)).numpy()
    check_laws(lambda a, b: runner.run(a, b)[output], image, mask, original=original, tolerance=1e-3, rounding=1e-5)
    return result.path
