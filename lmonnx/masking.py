"""The vocabulary that the reference and the lowering share: which rules, which window. No arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args, get_type_hints

from lmonnx.errors import OptionError


@dataclass(frozen=True)
class MaskRules:
    """The choices that layer masking leaves open, one object for the reference and the exported graph.

    The defaults reproduce the authors' ResNet, ResNeXt, Wide-ResNet, MobileNetV3, EfficientNet and AlexNet;
    their DenseNet is ``MaskRules(average="area", concat="majority")``, in :data:`PRESETS`, and their SqueezeNet
    ``MaskRules(average="area", concat="any", rings="kernel", removed="computed")``
    (Balasubramanian & Feizi, ICCV 2023, and the code published with it).

    Attributes:
        average: ``"valid"`` divides the sum over the kept pixels of a pooling window by their number,
            ``"area"`` by the area of the window.
        concat: a pixel of a channel concatenation is kept where ``"all"``, ``"any"`` or the ``"majority"``
            (more than half) of its operands keep it.
        rings: ``"window"`` fills what a window can reach, d·(k − 1) rings for kernel k and dilation d;
            ``"kernel"`` fills one ring more, as the authors' code does. Reference only.
        removed: what a concatenation reads where an operand is removed and the join is kept: ``"zero"``, or
            ``"computed"``, whatever the operand's convolution computed there. Reference only.

    Raises:
        OptionError: if a field is not one of its choices.
    """

    average: Literal["valid", "area"] = "valid"
    concat: Literal["all", "any", "majority"] = "all"
    rings: Literal["window", "kernel"] = "window"
    removed: Literal["zero", "computed"] = "zero"

    def __post_init__(self) -> None:
        choices = get_type_hints(type(self))
        for field in fields(self):
            value, allowed = getattr(self, field.name), get_args(choices[field.name])
            if value not in allowed:
                raise OptionError(f"rule {field.name}={value!r} is unknown; choose one of {', '.join(allowed)}")


#: Rules by name: ours, and those under which the authors published their DenseNet.
PRESETS = {"default": MaskRules(), "authors-densenet": MaskRules(average="area", concat="majority")}


@dataclass(frozen=True)
class Window:
    """The sliding window of a convolution or a pool, one entry for each spatial axis, in pixels.

    Attributes:
        kernel: extent of the window, before dilation.
        strides: distance between neighbouring windows.
        dilations: distance between neighbouring taps of one window.
        pads: padding before the first and after the last pixel of each axis.
        ceil_mode: whether a last window that starts inside the padded map and ends outside it counts.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    ceil_mode: bool = False
