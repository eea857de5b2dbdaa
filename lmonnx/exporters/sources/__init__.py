"""Where a network comes from: bundled or torchvision's by name, a PyTorch module, an ONNX file."""

from __future__ import annotations

import os
import pathlib

import torch

from lmonnx.errors import OptionError, SourceError
from lmonnx.exporters.sources.module import from_module
from lmonnx.exporters.sources.network import Network
from lmonnx.exporters.sources.onnx_file import from_onnx
from lmonnx.exporters.sources.scenes import NAMES, from_scenes
from lmonnx.exporters.sources.torchvision import from_torchvision
from lmonnx.runtime.preprocessing import Preprocessing

__all__ = ["Network", "resolve"]


def resolve(
    source: str | os.PathLike[str] | torch.nn.Module,
    *,
    weights: str = "default",
    size: tuple[int, int] | None = None,
    preprocessing: Preprocessing | None = None,
    labels: tuple[str, ...] | None = None,
) -> Network:
    """The network that ``source`` names.

    Args:
        source: a module in evaluation mode, a path that ends in ``.onnx``, a bundled network such as
            ``"scenes-material"``, or a name of torchvision's.
        weights: for names only, see :func:`lmonnx.exporters.sources.torchvision.from_torchvision` and
            :func:`lmonnx.exporters.sources.scenes.from_scenes`.
        size: height and width in pixels.
        preprocessing: for modules and files, which do not say; names bring their own.
        labels: likewise.

    Raises:
        SourceError: if there is no such network.
        OptionError: if an option does not apply to this kind of source.
    """
    by_name = isinstance(source, str) and not source.endswith(".onnx")
    if not by_name and weights != "default":
        raise OptionError(f"weights={weights!r} is for networks by name; a module or a file brings its own")
    if by_name and (preprocessing is not None or labels is not None):
        raise OptionError("preprocessing and labels are for modules and files; a network by name brings its own")
    if size and preprocessing and size != preprocessing.size:
        raise OptionError(f"size {size} and preprocessing.size {preprocessing.size} differ; leave size out")
    if isinstance(source, torch.nn.Module):
        return from_module(source, size=size, preprocessing=preprocessing, labels=labels)
    if by_name and os.path.exists(source):
        raise SourceError(f"{source} is not a file whose name ends in .onnx; only ONNX models are read")
    if isinstance(source, str) and by_name:
        if source in NAMES:
            return from_scenes(source, weights, size)
        return from_torchvision(source, weights, size, others=NAMES)
    return from_onnx(pathlib.Path(source), size=size, preprocessing=preprocessing, labels=labels)
