"""Small members of torchvision's families through the whole export, its proof, and the laws."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lmonnx
from lmonnx.exporters.proof import images, suite
from lmonnx.exporters.sources.torchvision import import_torchvision, seeded
from lmonnx.masking import MaskRules
from lmonnx.runtime import Runner
from tests.laws import check_laws

models = import_torchvision().models
SIZE = (64, 80)
#: AlexNet's last pool, adaptive to 6×6, has to divide its map.
ALEXNET_SIZE = (223, 223)


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


FAMILIES: dict[str, tuple[Callable[[], torch.nn.Module], MaskRules]] = {
    "alexnet": (lambda: models.AlexNet(num_classes=10), MaskRules()),
    "densenet": (lambda: models.DenseNet(8, (2, 3, 2, 2), 16, num_classes=10), MaskRules()),
    "densenet, the authors' rules": (
        lambda: models.DenseNet(8, (2, 3, 2, 2), 16, num_classes=10),
        MaskRules(average="area", concat="majority"),
    ),
    "efficientnet": (efficientnet, MaskRules()),
    "mobilenet_v2": (mobilenet_v2, MaskRules()),
    "mobilenet_v3": (mobilenet_v3, MaskRules()),
    "resnet": (lambda: resnet(models.resnet.BasicBlock), MaskRules()),
    "resnext": (lambda: resnet(models.resnet.Bottleneck, groups=8, width_per_group=4), MaskRules()),
    "wide_resnet": (lambda: resnet(models.resnet.Bottleneck, width_per_group=128), MaskRules()),
    "squeezenet": (lambda: models.SqueezeNet("1_1", num_classes=10), MaskRules(concat="any")),
    "vgg": (vgg, MaskRules()),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_family(family: str, tmp_path: Path) -> None:
    build, rules = FAMILIES[family]
    module = seeded(build(), seed=3).eval()
    size = ALEXNET_SIZE if family == "alexnet" else SIZE
    result = lmonnx.export(module, tmp_path / "network.onnx", size=size, rules=rules)
    assert result.verification is not None
    assert result.verification.passed
    runner = Runner(result.path, provider="cpu")
    (output,) = runner.contract.outputs
    mask = np.stack(list(suite(size).values()))
    image = images(len(mask), 3, size, seed=4)
    with torch.no_grad():
        original = module(torch.from_numpy(image)).numpy()
    check_laws(lambda a, b: runner.run(a, b)[output], image, mask, original=original, tolerance=1e-3, rounding=1e-5)
