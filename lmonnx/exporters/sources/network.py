"""What every source yields: a plain graph, its definition in PyTorch, and how it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from lmonnx.exporters.ops.builder import extents
from lmonnx.masking import MaskRules
from lmonnx.runtime.form import Precision
from lmonnx.runtime.preprocessing import Preprocessing

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
#: (image [n, C, H, W] float, mask [n, 1, H, W] bool) -> the outputs, in the dtype of the image.
Reference: TypeAlias = Callable[[Array, Array], tuple[Array, ...]]

#: Numbers of channels that an image may have: grey, with an alpha, RGB, RGB with an alpha or near infrared.
CHANNELS = (1, 2, 3, 4)


@dataclass(frozen=True)
class Network:
    """A network ready to be lowered.

    Attributes:
        graph: the plain ONNX model, one image input, any supported opset.
        size: height and width of the image in pixels.
        layout: ``"NCHW"`` or ``"NHWC"``, of the graph's image input.
        reference: given the mask rules, the masked network in PyTorch, in the precision of its image.
        plain: the network as its source runs it, without a mask: image [n, C, H, W] float32 -> outputs.
        front_end: which front end of the reference that is, ``"aten"`` or ``"onnx"``.
        preprocessing: how photographs become images; None if the source does not say.
        labels: class names in the order of the output; None if the source does not say.
        origin: kind and name of the source, its weights, and their hash.
        precision: what the graph computes in: ``"float32"``, ``"float16"``, or ``"int8"`` between quantise and
            dequantise.
        smallest: pixels a side from which on the graph takes images of any size; None if of one size only. ``size`` is
            then that of the proof and of photographs.
        rounded: of a network in float16 the same as ``plain``, with each of its values rounded to float16.
    """

    graph: ir.Model
    size: tuple[int, int]
    layout: str
    reference: Callable[[MaskRules], Reference]
    plain: Callable[[Array], tuple[Array, ...]]
    front_end: str
    preprocessing: Preprocessing | None
    labels: tuple[str, ...] | None
    origin: Mapping[str, Any]
    precision: Precision = "float32"
    smallest: int | None = None
    rounded: Callable[[Array], tuple[Array, ...]] | None = None

    @property
    def channels(self) -> int:
        """Number of channels of the image."""
        (image,) = self.graph.graph.inputs
        channels = extents(image)[1 if self.layout == "NCHW" else 3]
        assert channels is not None
        return channels
