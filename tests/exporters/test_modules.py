"""What people write in PyTorch modules, from the module to a proven graph."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lmonnx
from lmonnx.exporters.sources.module import to_onnx, to_onnx_of_any_size


class Running(nn.Module):
    """InstanceNorm with running statistics, with and without weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 8, 3, stride=2), nn.Linear(8, 5)
        self.first = nn.InstanceNorm2d(8, track_running_stats=True)
        self.second = nn.InstanceNorm2d(8, affine=True, track_running_stats=True)
        for norm in (self.first, self.second):
            nn.init.uniform_(norm.running_mean, -1, 1)
            nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.uniform_(self.second.weight, 0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(self.conv(x)))
        return self.head(F.avg_pool2d(self.second(self.first(x)), 3).mean((2, 3)))


class Stacked(nn.Module):
    """Branches that are stacked before the batch and reduced there."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.branches = nn.ModuleList(nn.Conv2d(3, 8, size, stride=2, padding=size // 2) for size in (1, 3, 5))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        maps = [branch(x) for branch in self.branches]
        x = torch.stack(maps).sum(0) + torch.stack(maps[1:], 0).mean(0) * torch.stack(maps[:2]).amax(0)
        return self.head(F.relu(x - torch.stack(maps).amin(0)).mean((2, 3)))


class Written(nn.Module):
    """Tensors made on the way, conversions to float, and operators that PyTorch alone has."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 8, 3, stride=2), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x.float()))
        kernel = torch.tensor([1.0, 2.0, 1.0])
        kernel = (kernel[:, None] * kernel[None] / 16).expand(8, 1, 3, 3)
        x = F.conv2d(x, kernel, padding=1, groups=8).rot90(1, (2, 3))
        with torch.autocast("cpu", enabled=False):
            x = torch.multiply(x.float(), x.aminmax(dim=1, keepdim=True).max)
        pooled = F.adaptive_avg_pool1d(x.flatten(2), 1) + F.adaptive_max_pool1d(x.flatten(2).view_as(x).flatten(2), 1)
        return self.head(pooled.flatten(1))


@pytest.mark.parametrize("module", [Running, Stacked, Written])
def test_a_module_is_exported_with_proof(module: type[nn.Module], tmp_path: Path) -> None:
    assert lmonnx.export(module().eval(), tmp_path / "out.onnx", size=36).verification


def test_running_statistics_are_those_of_the_channels() -> None:
    open_sides, _ = to_onnx_of_any_size(Running().eval(), (36, 40))
    for model in (to_onnx(Running().eval(), (36, 40)), open_sides):
        assert [node.op_type for node in model.graph if node.op_type in ("BatchNormalization", "Tile")] == [
            "BatchNormalization"
        ] * 3


class Maps(nn.Module):
    """Both forms as outputs."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, variance = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([1.0, 2.0, 3.0])
        return torch.stack([x, x.sigmoid()]).sum(0), F.instance_norm(x, mean, variance, use_input_stats=False)


def test_outputs_keep_their_names(tmp_path: Path) -> None:
    assert lmonnx.export(Maps().eval(), tmp_path / "out.onnx", size=20).verification
