"""The four bundled networks, which classify the scenes of :mod:`lmonnx.evaluate.scenes`.

``lmonnx/weights/README.md`` says how they were trained and how well they do.
"""

from __future__ import annotations

import importlib.resources
import json
import pathlib

import safetensors
import safetensors.torch
import torch
from torch import nn

from lmonnx.errors import WeightsError
from lmonnx.exporters.sources.checkpoint import fill, is_pretrained, require_classes
from lmonnx.exporters.sources.module import from_module
from lmonnx.exporters.sources.network import Network
from lmonnx.runtime.preprocessing import Preprocessing

#: Trained plainly, and with random parts of the pictures painted grey.
NAMES = ("scenes-material", "scenes-shape", "scenes-material-grey", "scenes-shape-grey")
SIZE = (128, 128)
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
CLASSES = 10


class Residual(nn.Module):
    """Two 3 × 3 convolutions beside the identity, or beside a 1 × 1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _normed(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False))
        self.second = _normed(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False))
        same = inputs == outputs and stride == 1
        self.beside = nn.Identity() if same else _normed(nn.Conv2d(inputs, outputs, 1, stride, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[N, inputs, H, W]`` to ``[N, outputs, H / stride, W / stride]``."""
        return torch.relu(self.beside(x) + self.second(torch.relu(self.first(x))))


class SceneNet(nn.Module):
    """A small ResNet (He et al., CVPR 2016): stem, max-pool, four residual blocks, global average, linear.

    float32 ``[N, 3, H, W]``, normalised by ``MEAN`` and ``STD``, to logits ``[N, classes]``.
    """

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.stem = nn.Sequential(_normed(nn.Conv2d(3, 24, 5, 2, 2, bias=False)), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.blocks = nn.Sequential(Residual(24, 40, 2), Residual(40, 40, 1), Residual(40, 96, 2), Residual(96, 96, 1))
        self.head = nn.Linear(96, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The logits."""
        features: torch.Tensor = self.blocks(self.stem(image))
        logits: torch.Tensor = self.head(features.mean((2, 3)))
        return logits


def from_scenes(
    name: str,
    weights: str = "default",
    size: tuple[int, int] | None = None,
    classes: int | None = None,
    dynamic: bool = False,
) -> Network:
    """One of the bundled networks; nothing is downloaded.

    Args:
        name: one of ``NAMES``.
        weights: ``"default"`` for the trained ones, ``"seed:N"`` for random weights from the seed N, or a file, see
            :mod:`lmonnx.exporters.sources.checkpoint`.
        size: height and width in pixels, instead of those of the scenes, 128 × 128.
        classes: number of classes, for a seed or a file.
        dynamic: take images of any size; ``size`` is then that of the proof and of photographs.

    Raises:
        WeightsError: if there are no such weights, or their file is missing, damaged, or of another network.
        OptionError: if the trained weights are for another number of classes.
    """
    if is_pretrained(weights) and weights != "default":
        raise WeightsError(f"{name} has no weights {weights!r}; choose one of default, seed:N, a file")
    module = SceneNet(classes or CLASSES).eval()
    labels, origin = None, {"weights": weights}
    if is_pretrained(weights):
        require_classes(f"of {name}", classes, CLASSES)
        labels = _load(module, name)
    else:
        origin = fill(module, weights, size or SIZE)
    return from_module(
        module,
        dynamic=dynamic,
        preprocessing=Preprocessing(size=size or SIZE, mean=MEAN, std=STD),
        labels=labels,
        origin={"kind": "scenes", "name": name, **origin},
    )


def weights_file(name: str) -> pathlib.Path:
    """Where the trained weights of a bundled network are."""
    return pathlib.Path(str(importlib.resources.files("lmonnx") / "weights" / f"{name}.safetensors"))


def _load(module: SceneNet, name: str) -> tuple[str, ...]:
    """Fills ``module`` with the trained weights; the class names."""
    path = weights_file(name)
    if not path.is_file():
        raise WeightsError(f"the weights of {name} are not in {path}; install lmonnx again, or take --weights seed:0")
    try:
        with safetensors.safe_open(path, "pt") as file:
            labels = tuple(json.loads(file.metadata()["labels"]))
        module.load_state_dict(safetensors.torch.load_file(path))
    except (safetensors.SafetensorError, OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        line = str(error).splitlines()[0]
        raise WeightsError(f"{path} does not hold the weights of {name}: {line}; install lmonnx again") from error
    return labels


def _normed(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels))
