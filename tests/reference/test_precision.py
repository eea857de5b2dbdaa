"""Modules that name dtypes: the reference computes in the dtype of the image, whatever they write."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmonnx.errors import UnsupportedOpError
from lmonnx.masking import MaskRules
from lmonnx.reference import mask_aware

SIZE = (8, 6)


class Network(nn.Module):
    """Two layers with a function of the map between them."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head, self.function = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 5), function

    def forward(self, x: Tensor) -> Any:
        return self.head(self.function(self.stem(x)).mean((2, 3)))


def blurred(x: Tensor) -> Tensor:
    kernel = torch.tensor([1.0, 2.0, 1.0]) / 4
    return F.conv2d(x, kernel.view(1, 1, 3, 1).expand(4, 1, 3, 1), padding=(1, 0), groups=4)


def accumulated(x: Tensor) -> Tensor:
    total = torch.zeros(x.shape[0], 4, 1, 1)
    total += x.amax((2, 3), keepdim=True)
    return x + total


def without_autocast(x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return x.float().square()


#: Functions that make tensors of the default dtype or convert to a named one, and what they are without that.
NAMED: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "float": (lambda x: x.float().sigmoid(), torch.sigmoid),
    "float of a condition": (lambda x: (x > 0.3).float() * x, lambda x: torch.where(x > 0.3, x, 0)),
    "half and back": (lambda x: x.half().float().relu(), torch.relu),
    "double and back": (lambda x: (x.double() * 2).float(), lambda x: x * 2),
    "type": (lambda x: x.type(torch.float32) * 2, lambda x: x * 2),
    "constant kernel": (
        blurred,
        lambda x: F.avg_pool2d(F.pad(F.avg_pool2d(F.pad(x, (0, 0, 1, 1)), (2, 1), 1), (0, 0, 0, 0)), (2, 1), 1),
    ),
    "quotient of integers": (
        lambda x: F.conv2d(x, (torch.arange(4) / 7).view(4, 1, 1, 1), groups=4),
        lambda x: x * (torch.arange(4, dtype=torch.float64) / 7).view(4, 1, 1),
    ),
    "range of floats": (
        lambda x: F.conv2d(x, (torch.arange(4.0) / 7).view(4, 1, 1, 1), groups=4),
        lambda x: x * (torch.arange(4, dtype=torch.float64) / 7).view(4, 1, 1),
    ),
    "eye": (lambda x: (x.permute(0, 2, 3, 1) @ torch.eye(4)).permute(0, 3, 1, 2), lambda x: x),
    "accumulated": (accumulated, lambda x: x + x.amax((2, 3), keepdim=True)),
    "mean in float32": (
        lambda x: x - x.mean(1, keepdim=True, dtype=torch.float32),
        lambda x: x - x.mean(1, keepdim=True),
    ),
    "softmax in float32": (lambda x: x * x.softmax(1, dtype=torch.float32), lambda x: x * x.softmax(1)),
    "autocast that is off": (without_autocast, torch.square),
}


@pytest.mark.parametrize("name", NAMED)
def test_named_dtypes_are_those_of_the_image(name: str) -> None:
    named, plain = (Network(function).eval() for function in NAMED[name])
    image = torch.randn(2, 3, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    everything = torch.ones(2, 1, *SIZE, dtype=torch.bool)
    found = mask_aware(named, rules=MaskRules(average="area"))(image, everything)
    torch.testing.assert_close(found, copy.deepcopy(plain).double()(image), rtol=0, atol=1e-13)
    single = mask_aware(named, rules=MaskRules(average="area"))(image.float(), everything)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, named(image.float()), rtol=0, atol=1e-6)


def test_a_module_of_float16_is_computed_in_float64() -> None:
    module = Network(lambda x: x.float().softmax(1).half()).half().eval()
    image = torch.randn(1, 3, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = mask_aware(module)(image, torch.ones(1, 1, *SIZE, dtype=torch.bool))
    expected = copy.deepcopy(Network(lambda x: x.softmax(1)).half()).double()(image)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)  # mean(m) + 1e-8


@pytest.mark.parametrize("function", [lambda x: x, lambda x: x.mean((2, 3), keepdim=True)], ids=["map", "vector"])
def test_an_epsilon_that_depends_on_the_dtype_is_the_modules_own(function: Callable[[Tensor], Tensor]) -> None:
    def normalised(x: Tensor) -> Tensor:
        y = function(x * 1e-4).permute(0, 2, 3, 1)
        return F.rms_norm(y, (4,)).permute(0, 3, 1, 2)

    module = Network(normalised).eval()
    image = torch.randn(1, 3, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    aware = mask_aware(module, rules=MaskRules(average="area"))
    found = aware(image, torch.ones(1, 1, *SIZE, dtype=torch.bool))
    torch.testing.assert_close(found.float(), module(image.float()), rtol=0, atol=1e-6)


def test_the_default_dtype_is_set_back() -> None:
    with pytest.raises(UnsupportedOpError):
        mask_aware(Network(lambda x: x.cumsum(2)).eval())(torch.zeros(1, 3, 4, 4).double(), torch.ones(1, 1, 4, 4) > 0)
    assert torch.get_default_dtype() == torch.float32


def test_what_leaves_a_region_without_gradients_has_none() -> None:
    def half_fixed(x: Tensor) -> Tensor:
        with torch.no_grad():
            fixed = x * 3
            with torch.autocast("cpu", enabled=False):
                fixed = fixed.float() + 1
        return x + fixed

    image = torch.randn(1, 3, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    module = Network(half_fixed).eval()
    leaf = image.clone().requires_grad_()
    aware = mask_aware(module, rules=MaskRules(average="area"))
    (found,) = torch.autograd.grad(aware(leaf, torch.ones(1, 1, *SIZE, dtype=torch.bool)).sum(), leaf)
    (expected,) = torch.autograd.grad(copy.deepcopy(Network(lambda x: x)).double()(leaf).sum(), leaf)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_an_autocast_that_rounds_is_refused() -> None:
    def rounded(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return x.square()

    with pytest.raises(UnsupportedOpError, match="rounds to fewer bits"):
        mask_aware(Network(rounded).eval())(torch.zeros(1, 3, 4, 4), torch.ones(1, 1, 4, 4) > 0)


def test_what_pytorch_cannot_compute_names_the_node() -> None:
    def bits(x: Tensor) -> Tensor:
        return x + x.mean((2, 3)).view(torch.int32).reshape(x.shape[0], 4, 1, 1)

    aware = mask_aware(Network(bits).eval())
    mask = torch.ones(1, 1, *SIZE, dtype=torch.bool)
    aware(torch.zeros(1, 3, *SIZE), mask)
    with pytest.raises(UnsupportedOpError, match=r"reshape' \(1×8\): the reference cannot compute it: shape"):
        aware(torch.zeros(1, 3, *SIZE, dtype=torch.float64), mask)
