"""The definition of layer masking in PyTorch: one table of masked functions, two front ends."""

from lmonnx.reference.activation import Masked
from lmonnx.reference.aten import MaskAware, mask_aware

__all__ = ["MaskAware", "Masked", "mask_aware"]
