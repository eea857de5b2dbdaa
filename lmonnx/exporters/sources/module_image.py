"""The image that a PyTorch module takes: its channels, of which nothing in it says the number, and its size."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from lmonnx.errors import SourceError
from lmonnx.exporters.sources.network import CHANNELS
from lmonnx.reference.aten_program import duplicate


def channels_of(module: torch.nn.Module, size: tuple[int, int]) -> int:
    """Number of channels of a module's image: of those that its convolutions read and images have, one that it takes.

    Where that is none it is 3. Where it is one, that one; of several the first with which the module runs, in the order
    of its convolutions, because a gate that is written before the stem reads as few.

    Args:
        module: the network.
        size: height and width in pixels of the image that is tried.
    """
    parts = (part for part in module.modules() if isinstance(part, torch.nn.Conv2d))
    found = list(dict.fromkeys(part.in_channels for part in parts if part.in_channels in CHANNELS))
    if len(found) < 2:
        return next(iter(found), 3)
    twin = duplicate(module).eval()
    return next((channels for channels in found if _runs(twin, channels, size)), found[0])


def require_channels(module: torch.nn.Module, channels: int, size: tuple[int, int]) -> None:
    """Refuses a module whose image has a number of channels that no image has; nothing is said of what else fails.

    Raises:
        SourceError: naming the number, if the first convolution that runs reads the image itself, and more of it.
    """
    shape, read, twin = (1, channels, *size), list[int](), duplicate(module).eval()

    def note(part: Any, inputs: tuple[Any, ...]) -> None:
        if not read:
            read.append(part.in_channels if inputs and getattr(inputs[0], "shape", None) == shape else channels)

    for part in twin.modules():
        if isinstance(part, torch.nn.Conv2d):
            part.register_forward_pre_hook(note)
    _runs(twin, channels, size)
    if read and read[0] not in (channels, *CHANNELS):
        raise SourceError(
            f"{type(module).__name__} takes images of {read[0]} channels; networks for images of {CHANNELS[0]} to "
            f"{CHANNELS[-1]} channels are exported"
        )


def another_size(module: torch.nn.Module, size: tuple[int, int]) -> str:
    """What to try for a module that does not take a size: the one that its configuration says, as those of timm do."""
    config = getattr(module, "pretrained_cfg", None)
    said = config.get("input_size") if isinstance(config, Mapping) else None
    own = tuple(said)[1:] if isinstance(said, (list, tuple)) and len(said) == 3 else size
    return "try another size" if own == size else f"try the size of its configuration, {own[0]}×{own[1]}"


def _runs(module: torch.nn.Module, channels: int, size: tuple[int, int]) -> bool:
    """Whether a module makes anything of an image; what it raises if not is its own affair."""
    try:
        with quiet(), torch.no_grad():
            module(torch.zeros(1, channels, *size))
    except Exception:
        return False
    return True


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """PyTorch's exporter talks on every channel; what matters of it comes as an exception. So may a network."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        nowhere = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
