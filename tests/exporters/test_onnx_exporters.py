"""Networks of PyTorch through both of its exporters, as the files that they write."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lmonnx


class Written(nn.Module):
    """A convolution, something in between, and a classifier, which may be written in ways of its own."""

    def __init__(self, between: Callable[[Tensor], Tensor], end: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.Linear(8, 5)
        self.norm, self.groups = nn.BatchNorm2d(8), nn.GroupNorm(2, 8)
        self.between, self.end = between, end

    def forward(self, x: Tensor) -> Tensor:
        x = self.groups(self.between(torch.relu(self.norm(self.first(x)))))
        x = x + F.hardswish(self.second(x))
        scores: Tensor = self.head(self.end(x))
        return scores


def shuffled(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def gated(x: Tensor) -> Tensor:
    return x * x.mean((2, 3), keepdim=True).sigmoid().expand_as(x)


def split(x: Tensor) -> Tensor:
    left, right = x.chunk(2, 1)
    return torch.cat([right, left.clamp(-1, 2)], 1)


def resized(x: Tensor) -> Tensor:
    return F.interpolate(F.max_pool2d(x, 2), scale_factor=2.0, mode="nearest")


def enlarged(x: Tensor) -> Tensor:
    return F.interpolate(x, size=(24, 20), mode="bilinear", align_corners=False)


def padded(x: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(x, (1, 0, 1, 2)), 3, 2)


def mirrored(x: Tensor) -> Tensor:
    return F.pad(x, (2, 1, 1, 1), mode="reflect")


def averaged(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def over_channels(x: Tensor) -> Tensor:
    return F.layer_norm(x.permute(0, 2, 3, 1), (8,)).permute(0, 3, 1, 2)


def beside_each_other(x: Tensor) -> Tensor:
    return F.local_response_norm(x, 5, alpha=0.1)


BETWEEN = (shuffled, gated, split, resized, enlarged, padded, mirrored, averaged, over_channels)
ENDS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: x.mean([2, 3]),
    "mean from the end": lambda x: x.mean((-2, -1)),
    "flatten": lambda x: torch.flatten(F.adaptive_avg_pool2d(x, 1), 1),
    "view by size": lambda x: F.adaptive_avg_pool2d(x, 1).view(x.size(0), -1),
    "view by one": lambda x: F.adaptive_avg_pool2d(x, 1).view(-1, 8),
    "squeeze": lambda x: F.adaptive_max_pool2d(x, 1).squeeze(3).squeeze(2),
}


def written(network: nn.Module, path: Path, opset: int, *, dynamo: bool, free: bool) -> Path:
    axes = {"x": {0: "n"}} if free else None
    shapes = ({0: torch.export.Dim("n")},) if free and dynamo else None
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # PyTorch's own, about the older exporter and about constants in traces
        torch.onnx.export(
            network.eval(),
            (torch.zeros(2 if free and dynamo else 1, 3, 48, 40),),
            path,
            input_names=["x"],
            opset_version=opset,
            dynamo=dynamo,
            dynamic_axes=None if dynamo else axes,
            dynamic_shapes=shapes,
            verbose=False,
        )
    return path


def proven(path: Path) -> None:
    result = lmonnx.export(path, path.with_name("masked.onnx"))
    assert result.verification
    assert result.verification.passed


#: The older exporter writes other operators at each of these.
@pytest.mark.parametrize("opset", [9, 11, 13, 17, 20])
def test_older_exporter(opset: int, tmp_path: Path) -> None:
    path = written(Written(shuffled, ENDS["mean"]), tmp_path / "in.onnx", opset, dynamo=False, free=False)
    assert onnx.load(path).opset_import[0].version == opset
    proven(path)


@pytest.mark.parametrize("opset", [18, 21, 23])
def test_newer_exporter(opset: int, tmp_path: Path) -> None:
    path = written(Written(split, ENDS["flatten"]), tmp_path / "in.onnx", opset, dynamo=True, free=True)
    proven(path)


@pytest.mark.parametrize("free", [True, False], ids=["free batch", "batch of 1"])
@pytest.mark.parametrize("between", BETWEEN, ids=lambda function: function.__name__)
def test_ways_to_write_a_block(between: Callable[[Tensor], Tensor], free: bool, tmp_path: Path) -> None:
    opset = 11 if between is not over_channels else 17
    proven(written(Written(between, ENDS["mean"]), tmp_path / "in.onnx", opset, dynamo=False, free=free))


@pytest.mark.parametrize("free", [True, False], ids=["free batch", "batch of 1"])
@pytest.mark.parametrize("opset", [9, 13, 17])
def test_a_response_norm(opset: int, free: bool, tmp_path: Path) -> None:
    """From opset 13 on the older exporter writes an If around a Squeeze, decided by an extent behind open ones."""
    proven(written(Written(beside_each_other, ENDS["mean"]), tmp_path / "in.onnx", opset, dynamo=False, free=free))


@pytest.mark.parametrize("free", [True, False], ids=["free batch", "batch of 1"])
@pytest.mark.parametrize("end", ENDS)
def test_ways_to_write_the_end(end: str, free: bool, tmp_path: Path) -> None:
    proven(written(Written(gated, ENDS[end]), tmp_path / "in.onnx", 13, dynamo=False, free=free))


@pytest.mark.parametrize("free", [True, False], ids=["free batch", "batch of 1"])
def test_channels_in_another_order_by_the_newer_exporter(free: bool, tmp_path: Path) -> None:
    network = Written(lambda x: x[:, [7, 5, 3, 1, 0, 2, 4, 6]], ENDS["mean"])
    proven(written(network, tmp_path / "in.onnx", 18, dynamo=True, free=free))
