"""The recipe: one small residual network, AdamW, one cycle of the learning rate."""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from lmonnx.evaluate import CLASSES, Labelling
from lmonnx.exporters.sources.scenes import SceneNet
from training.data import greyed, normalised, turned


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        labelling: what the label is.
        grey: whether random patches are painted grey.
        epochs: how often each training scene is seen.
        scenes: number of training scenes, of the seeds 0, 1, …
        batch: pictures a step.
        rate: the largest learning rate; it rises for a fifth of the steps and falls as a cosine.
        decay: weight decay.
        seed: of the initial weights, the order and the augmentation.
        held_out: number of scenes that accuracy is measured on.
    """

    labelling: Labelling
    grey: bool
    epochs: int
    scenes: int = 20_000
    batch: int = 64
    rate: float = 4e-3
    decay: float = 0.05
    seed: int = 0
    held_out: int = 2000


Data = tuple[torch.Tensor, torch.Tensor]


def train(recipe: Recipe, data: Data, device: torch.device, report: Callable[[str], None]) -> SceneNet:
    """A network trained on pictures uint8 ``[N, 3, H, W]`` and their labels, in evaluation mode, on the CPU."""
    images, labels = data
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    network = SceneNet(len(CLASSES[recipe.labelling])).to(device, memory_format=torch.channels_last).train()
    steps = recipe.epochs * (len(images) // recipe.batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=steps, pct_start=0.2)
    start, right, seen, step = time.perf_counter(), 0, 0, 0
    for _ in range(recipe.epochs):
        order = torch.randperm(len(images), generator=generator)
        for rows in order[: len(order) // recipe.batch * recipe.batch].split(recipe.batch):
            batch = turned(images[rows], generator)
            batch = greyed(batch, generator) if recipe.grey else batch
            target = labels[rows].to(device)
            logits = network(normalised(batch, device))
            loss = nn.functional.cross_entropy(logits, target)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            step, seen = step + 1, seen + len(rows)
            right += int((logits.argmax(1) == target).sum())
            if step % 100 == 0 or step == steps:
                passed = time.perf_counter() - start
                report(f"step {step:5d} of {steps}  loss {loss.item():.3f}  right {right / seen:.3f}  {passed:5.0f} s")
                right = seen = 0
    return network.to("cpu", memory_format=torch.contiguous_format).eval()


def accuracy(network: SceneNet, data: Data) -> float:
    """The share of the pictures whose class is found."""
    with torch.no_grad():
        found = [network(normalised(batch, torch.device("cpu"))).argmax(1) for batch in data[0].split(250)]
    return int((torch.cat(found) == data[1]).sum()) / len(data[1])


def save(network: SceneNet, path: Path, recipe: Recipe, measured: dict[str, Any]) -> None:
    """Writes the weights with what is known about them; the file appears whole, or not at all."""
    metadata = {
        "labels": json.dumps(CLASSES[recipe.labelling]),
        "recipe": json.dumps(asdict(recipe)),
        "measured": json.dumps(measured),
        "versions": json.dumps({"python": platform.python_version(), "torch": str(torch.__version__)}),
    }
    state = {name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    try:
        save_file(state, temporary, metadata)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
