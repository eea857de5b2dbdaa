"""The names of the zoo: torchvision's classifiers, and one network for each CNN file of timm."""

from __future__ import annotations

import pathlib

from lmonnx.exporters.sources.torchvision import import_torchvision

TIMM = pathlib.Path(__file__).parent / "timm.txt"
#: The families of torchvision that are not CNNs: they have to be refused.
TRANSFORMERS = ("maxvit", "swin", "vit")


def torchvision_names() -> list[str]:
    """Every image classifier of the installed torchvision."""
    models = import_torchvision().models
    return sorted(models.list_models(module=models))


def timm_names() -> list[str]:
    """The denominator, see :mod:`zoo.denominator`, as ``lmonnx export`` takes it."""
    lines = TIMM.read_text(encoding="utf-8").splitlines()
    return [f"timm:{line}" for line in lines if line and not line.startswith("#")]


def is_cnn(name: str) -> bool:
    """Whether the network counts: all of timm's list do."""
    return name.startswith("timm:") or not name.startswith(TRANSFORMERS)


def names() -> list[str]:
    """All of them, in the order of the table."""
    return [*torchvision_names(), *timm_names()]
