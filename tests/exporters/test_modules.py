"""What people write in PyTorch modules, from the module to a proven graph."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lmonnx
from lmonnx.errors import SourceError
from lmonnx.exporters.sources.module import from_module, to_onnx, to_onnx_of_any_size


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


class Part(nn.Module):
    """The layers that the forwards of REFUSED put together."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 8, 3, bias=False), nn.Linear(8, 5, bias=False).to(dtype)

    def forward(self, x: Tensor) -> Any:
        return self.head(F.relu(self.conv(x)).mean((2, 3)).to(self.head.weight.dtype)).float()


def autocast(part: Part, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return F.relu(part.conv(x)).float().mean((2, 3))


#: Forwards that no masked graph can be made of, and what is said of them.
REFUSED: dict[str, tuple[Callable[..., Any], str]] = {
    "two images": (
        lambda part, x, y: Part.forward(part, x - y),
        "missing 1 .*'y'; write a module around it whose forward ta",
    ),
    "a name": (
        lambda part, *, x: Part.forward(part, x),
        "takes 1 positional argument .*; write a module around it whose for",
    ),
    "a dict": (
        lambda part, x: Part.forward(part, x["image"]),
        "too many indices .*; write a module around it whose forward",
    ),
    "one size": (
        lambda part, x: Part.forward(part, x.reshape(-1, 3, 31, 31)),
        r"^PyTorch could not export Part at 32×32: shape '\[-1, 3, 31, 31\]' is invalid .*; try another size$",
    ),
    "one image": (
        lambda part, x: Part.forward(part, x.view(1, 3, 32, 32)),
        "takes one image at a time: shape .*; write it, or trace it, for any number of images$",
    ),
    "half of the batch": (
        lambda part, x: Part.forward(part, torch.cat([x, x.flip(-1)])).chunk(2)[0],
        "^what Part computes depends on the number of images in a batch; write it, or trace it, for any number of im",
    ),
    "a number": (
        lambda part, x: (Part.forward(part, x), 1),
        "returns a value of type int; let its forward return tensors al",
    ),
}


@pytest.mark.parametrize("name", [*REFUSED, "one size of any", "a number of any"])
def test_what_is_said_of_a_forward(name: str) -> None:
    function, message = REFUSED[name.removesuffix(" of any")]
    dynamic = name.endswith(" of any")
    if dynamic:
        message = message.replace("at 32×32", "for every size")
    with pytest.raises(SourceError, match=message) as error:
        from_module(type("Part", (Part,), {"forward": function})().eval(), size=(32, 32), dynamic=dynamic)
    assert "\n" not in str(error.value)


def test_an_autocast_to_bfloat16_is_refused_by_its_first_node(tmp_path: Path) -> None:
    module = type("Part", (Part,), {"forward": autocast})().eval()
    with pytest.raises(SourceError, match=r"^Cast '.*' gives bfloat16, .*; write the model .* without an autocast"):
        lmonnx.export(module, tmp_path / "out.onnx", size=32, verify=False)


def test_weights_of_several_dtypes(tmp_path: Path) -> None:
    """A module may convert to that of a part and back; what starts in another than float32 is refused."""
    assert lmonnx.export(Part(torch.float64).eval(), tmp_path / "out.onnx", size=32).verification
    plain = type("Part", (Part,), {"forward": lambda part, x: part.head(part.conv(x).mean((2, 3)))})
    said = "Part has weights of {}, such as {}; call its float() first"
    refused = {
        said.format(str(dtype)[6:], "conv.weight"): Part().to(dtype) for dtype in (torch.float64, torch.bfloat16)
    }
    refused[said.format("float16", "head.weight")] = plain(torch.float16)
    for message, module in refused.items():
        with pytest.raises(SourceError, match=re.escape(message)):
            from_module(module.eval(), size=(32, 32))
