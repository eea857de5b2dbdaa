"""Scenes as tensors, and what is done to them before a network sees them.

Seeds: training takes scenes 0 … 999 999 999, held-out scenes begin at 1 000 000 000.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from lmonnx.evaluate import Labelling, draw
from lmonnx.exporters.sources.scenes import MEAN, STD

HELD_OUT = 1_000_000_000
GREY = 128
PATCHES = (8, 16, 32)
"""Sides in pixels of the patches that are painted grey."""


def scenes(
    labelling: Labelling, first: int, count: int, processes: int, progress: Callable[[int], None] = lambda _: None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The scenes of the seeds from ``first`` on: uint8 ``[count, 3, 128, 128]``, and their labels int64 ``[count]``."""
    images, labels = np.empty((count, 3, 128, 128), np.uint8), np.empty(count, np.int64)
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        drawn = pool.imap(partial(_scene, labelling), range(first, first + count), chunksize=64)
        for number, (pixels, label) in enumerate(drawn):
            images[number], labels[number] = pixels.transpose(2, 0, 1), label
            if number % 1000 == 999:
                progress(number + 1)
    return torch.from_numpy(images), torch.from_numpy(labels)


def _scene(labelling: Labelling, seed: int) -> tuple[np.ndarray, int]:
    scene = draw(seed, labelling)
    return scene.pixels, scene.label


def turned(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each picture ``[N, 3, S, S]`` in one of its eight orientations, which change no label."""
    images = images.clone()
    for dims in ((3,), (2,)):
        chosen = torch.rand(len(images), generator=generator) < 0.5
        images[chosen] = images[chosen].flip(dims)
    chosen = torch.rand(len(images), generator=generator) < 0.5
    images[chosen] = images[chosen].transpose(2, 3)
    return images


def greyed(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Three of four pictures, uint8 ``[N, 3, S, S]``, with square patches painted grey.

    The patches of a picture lie on a grid of one of ``PATCHES`` at a random offset; each is painted with one
    probability, uniform in 0 … 0.7.
    """
    images = images.clone()
    side = images.shape[-1]
    for image in images:
        if torch.rand((), generator=generator) < 0.25:
            continue
        patch = PATCHES[int(torch.randint(len(PATCHES), (), generator=generator))]
        count = side // patch + 1
        removed = torch.rand(count, count, generator=generator) < 0.7 * torch.rand((), generator=generator)
        removed = removed.repeat_interleave(patch, 0).repeat_interleave(patch, 1)
        top, left = torch.randint(patch, (2,), generator=generator).tolist()
        image[:, removed[top : top + side, left : left + side]] = GREY
    return images


def normalised(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Pictures uint8 ``[N, 3, H, W]`` as the networks' input, float32."""
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (MEAN, STD))
    values = (images.to(device).float() / 255 - mean) / std
    return values.contiguous(memory_format=torch.channels_last)
