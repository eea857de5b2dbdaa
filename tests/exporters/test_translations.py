"""What PyTorch's exporter writes for a module is what the module does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lmonnx
from lmonnx.errors import SourceError
from lmonnx.exporters.sources import resolve
from lmonnx.exporters.sources.seeds import seeded

Between = Callable[[Tensor], Tensor]


class Around(nn.Module):
    """A small classifier with a function in its middle."""

    def __init__(self, between: Between, channels: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.between = between
        self.stem, self.head = nn.Conv2d(channels, 8, 3, 2, 1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(torch.relu(self.stem(x))).mean((2, 3)))


def normalised(of: Callable[..., tuple[Tensor, Tensor]], **settings: bool) -> Between:
    def apply(x: Tensor) -> Tensor:
        spread, mean = of(x, (2, 3), **settings)
        return torch.relu((x - mean.reshape(-1, 8, 1, 1)) / (spread.reshape(-1, 8, 1, 1) + 0.1))

    return apply


def written(x: Tensor, place: Any, value: Any) -> Tensor:
    """A copy with something else at a place, as partial convolutions and shifts are written."""
    copy = x.clone()
    copy[place] = value
    return torch.relu(copy + 0.1)


BETWEEN: dict[str, Between] = {
    "variance and mean": normalised(torch.var_mean, keepdim=True),
    "biased variance and mean": normalised(torch.var_mean, unbiased=False),
    "deviation and mean": normalised(torch.std_mean),
    "channels in another order": lambda x: x[:, [7, 6, 5, 4, 3, 2, 1, 0]],
    "channels by a tensor": lambda x: x[:, torch.tensor([0, 2, -1])].repeat(1, 8, 1, 1)[:, :8],
    "channels in rows": lambda x: x[:, [[0, 2, 4, 6], [1, 3, 5, 7]]].amax(1).repeat(1, 2, 1, 1),
    "numbers for NaN": lambda x: torch.nan_to_num(x / torch.relu(x - 0.2), 0.5, 2.0, -3.0),
    "functions of an angle": lambda x: x.sin() + x.cos() * x.tan() + x.atan() + x.sinh() / x.cosh() + x.asinh(),
    "some channels written to": lambda x: written(x, (slice(None), slice(2, 4)), x[:, :2] * x[:, 6:]),
    "the last channels written to": lambda x: written(x, (slice(None), slice(-3, None)), x[:, :3] - 1),
    "all channels written to": lambda x: written(x, (slice(None), slice(None)), x.flip(1)),
    "one channel written to": lambda x: written(x, (slice(None), -1), x[:, 0] * 2),
    "channels shifted by a column": lambda x: written(
        x, (slice(None), slice(1, 3), ..., slice(1, None)), x[:, 1:3, :, :-1]
    ),
    "channels of zeros": lambda x: written(x, (slice(None), slice(0, 2)), 0.0),
    "columns": lambda x: torch.relu(x[..., [3, 3, 1, 0]] - 0.1),
    "a divisor": lambda x: F.avg_pool2d(x, 3, 2, 1, divisor_override=5),
    "a divisor of an oblong window": lambda x: F.avg_pool2d(x, (2, 3), count_include_pad=False, divisor_override=4),
}


@pytest.mark.parametrize("between", BETWEEN)
def test_what_the_exporter_changes(between: str, tmp_path: Path) -> None:
    module = Around(BETWEEN[between]).eval()
    assert lmonnx.export(module, tmp_path / "a.onnx", size=(16, 18)).verification


def test_a_divisor_that_onnx_cannot_say() -> None:
    module = Around(lambda x: F.avg_pool2d(x, 3, 2, ceil_mode=True, divisor_override=5)).eval()
    with pytest.raises(SourceError, match="avg_pool2d with both divisor_override and ceil_mode has no form in ONNX"):
        lmonnx.export(module, "a.onnx", size=16)


def test_a_slice_that_is_written_to_behind_a_batch_norm(tmp_path: Path) -> None:
    """As FasterNet is written: a convolution of the first channels, in place."""

    class Partial(Around):
        def __init__(self) -> None:
            super().__init__(self.partial)
            self.norm, self.part = nn.BatchNorm2d(8), nn.Conv2d(2, 2, 3, padding=1, bias=False)

        def partial(self, x: Tensor) -> Tensor:
            x = self.norm(x)
            x[:, :2] = self.part(x[:, :2])
            return F.relu_(x)

    assert lmonnx.export(Partial().eval(), tmp_path / "a.onnx", size=(16, 18)).verification
    assert lmonnx.export(Partial().eval(), tmp_path / "b.onnx", size="dynamic").verification


def test_a_slice_in_steps_is_not_written_to() -> None:
    module = Around(lambda x: written(x, (slice(None), slice(None, None, 2)), 0.0)).eval()
    with pytest.raises(SourceError, match="a slice in steps of 2 is written to, which has no form under a mask"):
        lmonnx.export(module, "a.onnx", size=16)


class Gated(Around):
    """A gate of few channels, written before the stem."""

    def __init__(self, channels: int) -> None:
        super().__init__(self.gated, channels)
        gate = {"gate": nn.Conv2d(2, 1, 5, padding=2)}
        self._modules = {**gate, **self._modules}

    def gated(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.gate(torch.cat([x.mean(1, True), x.amax(1, True)], 1)))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_channels_are_those_that_the_network_takes(channels: int) -> None:
    network = resolve(Gated(channels).eval(), size=(16, 18))
    assert network.channels == channels
    assert network.plain(np.zeros((2, channels, 16, 18), np.float32))[0].shape == (2, 5)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("channels", [5, 6, 13])
def test_channels_that_no_image_has(channels: int, dynamic: bool) -> None:
    with pytest.raises(SourceError, match=f"^Gated takes images of {channels} channels; networks for images of 1 to 4"):
        resolve(Gated(channels).eval(), size=(16, 18), dynamic=dynamic)
    normed = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4))
    with pytest.raises(SourceError, match=f"^Sequential takes images of {channels} channels"):
        seeded(normed, 0)


def test_a_size_that_no_memory_holds() -> None:
    with pytest.raises(SourceError, match=r"could not export Around at 1000000×1000000: .*; try another size"):
        resolve(Around(torch.relu).eval(), size=(10**6, 10**6))
