"""The operators of the ATen front end, each against what PyTorch makes of the kept pixels alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_windows import filled_by_loop
from torch import Tensor, nn

from lmonnx.errors import UnsupportedOpError
from lmonnx.masking import MaskRules
from lmonnx.reference import mask_aware

SIZE = (12, 8)


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.randn(2, 6, *SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture(scope="module")
def mask() -> Tensor:
    return torch.rand(2, 1, *SIZE, generator=torch.Generator().manual_seed(2)) > 0.6


def run(function: Callable[[Tensor], Any], image: Tensor, mask: Tensor, **rules: Any) -> Any:
    """A function of the image as a mask-aware network."""

    class Network(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return function(x)

    return mask_aware(Network().eval(), rules=MaskRules(**rules))(image, mask)


def written(x: Tensor, write: Callable[[Tensor], Any]) -> Tensor:
    """A copy that was written to."""
    copy = x.clone()
    write(copy)
    return copy


ORDER = torch.tensor([[3, 0], [-1, 2]])

#: Operators that only move numbers about: of a map that is 0 where removed they make such a map.
MOVES: dict[str, Callable[[Tensor], Tensor]] = {
    "slice of channels": lambda x: x[:, 1:5:2],
    "slice of space": lambda x: x[:, :, 2:-1, ::3],
    "narrow": lambda x: x.narrow(3, -5, 4),
    "split": lambda x: torch.cat(x.split(4, 1)[::-1], 1),
    "split with sizes": lambda x: x.split([1, 3, 2], 1)[1],
    "split of space": lambda x: x.split([5, 7], 2)[1],
    "chunk": lambda x: torch.cat(x.chunk(4, 3)[1:3], 3),
    "tensor_split": lambda x: x.tensor_split(4, 1)[1],
    "tensor_split at places": lambda x: x.tensor_split([1, 3], 1)[1],
    "unbind": lambda x: torch.stack(x.unbind(1)[::2], 1),
    "select": lambda x: x[:, 2].unsqueeze(1),
    "index": lambda x: x[:, torch.tensor([4, 1, 1])],
    "index of space": lambda x: x[:, :, :, torch.tensor([2, 0, 0, -1])],
    "index with two axes": lambda x: x[:, ORDER].flatten(1, 2),
    "stack": lambda x: torch.stack([x, -x], 1).flatten(1, 2),
    "expand": lambda x: x[:, :1].expand(-1, 4, -1, -1),
    "repeat": lambda x: x.repeat(1, 2, 3, 1),
    "tile": lambda x: x.tile(2, 1, 1),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 1).repeat_interleave(3, 2),
    "flip": lambda x: x.flip(1, 3),
    "roll": lambda x: x.roll((2, -3), (2, 3)),
    "movedim": lambda x: x.movedim(1, -1).movedim((1, 3), (2, 1)),
    "quarter turn": lambda x: x.rot90(1, (2, 3)).rot90(2, (3, 2)),
    "quarter turn back": lambda x: x.rot90(-1, (-2, -1)),
    "channels written to": lambda x: written(x, lambda y: y[:, 1:4].copy_(x[:, 3:])),
    "one channel written to": lambda x: written(x, lambda y: y[:, -2].copy_(x[:, 1])),
    "all rows of some channels": lambda x: written(x, lambda y: y[:, 4:, :].neg_()),
    "columns written to": lambda x: written(x, lambda y: y[..., :-1].copy_(x[..., 1:])),
    "view_as": lambda x: x.flatten(2).view_as(x),
    "reshape_as": lambda x: x.reshape(-1, 2, 3, *x.shape[2:]).transpose(1, 2).reshape_as(x),
    "channel_shuffle": lambda x: F.channel_shuffle(x, 3),
    "circular pad": lambda x: F.pad(x, (2, 1, 3, 0), mode="circular"),
    "crop by a negative pad": lambda x: F.pad(x, (-1, 0, -2, -3)),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "nearest to a size": lambda x: F.interpolate(x, (7, 13)),
    "nearest-exact": lambda x: F.interpolate(x, (5, 11), mode="nearest-exact"),
}
WEIGHT = torch.randn(5, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

#: Operators that treat every pixel alone, and make 0 of 0.
PER_PIXEL: dict[str, Callable[[Tensor], Tensor]] = {
    "pad of channels": lambda x: F.pad(x, (0, 0, 0, 0, 2, 1)),
    "comparison": lambda x: torch.where(x > 0.25, x, torch.zeros_like(x)),
    "masked_fill": lambda x: x.masked_fill((x < 0) | (x > 1.5), 0.0),
    "functions of an angle": lambda x: x.sin() + x.tan() + x.atan() + x.sinh() + x.asinh() + (x.cos() + x.cosh()) * x,
    "their inverses": lambda x: x.tanh().asin() + x.tanh().atanh() + x.tanh().acos() * x + (x.abs() + 1).acosh(),
    "neither NaN nor infinite": lambda x: torch.where(x.log().isnan() | (x / x.relu()).isinf(), x, x * 2),
    "nan_to_num": lambda x: (x / x.relu()).nan_to_num(0.5, 2.0, -3.0) * x,
    "glu": lambda x: F.glu(x, 1),
    "product with a plain matrix": lambda x: (WEIGHT.to(x) @ x.flatten(2)).unflatten(2, x.shape[2:]),
    "einsum": lambda x: torch.einsum("nchw,kc->nkhw", x, WEIGHT.to(x)),
    "local response": lambda x: F.local_response_norm(x, 3, 0.5, 0.6, 1.5),
    "local response of an even size": lambda x: F.local_response_norm(x, 2, 0.5),
    "shape": lambda x: x * torch.ones_like(x[:, :1]) + x.new_zeros(1),
    "group by channels": lambda x: x / (x.std(1, keepdim=True) + x.var(1, keepdim=True, correction=0) + 1),
    "norm of channels": lambda x: x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + 1),
    "dtype of another layout": lambda x: (
        x.permute(0, 2, 3, 1).type_as(x).permute(0, 3, 1, 2) + x.transpose(1, 2).to(x).transpose(1, 2)
    ),
    "stacks of parts": lambda x: torch.stack([x, x * 2, x.sin()]).sum(0) + torch.stack([x, x * 3]).mean(0),
    "extremes of parts": lambda x: torch.stack([x, x.sin()]).amax(0) * torch.stack([x, -x]).amin(0),
    "smallest and largest": lambda x: torch.stack(x.aminmax(dim=1), 1),
    "second names": lambda x: torch.divide(torch.multiply(x, 2), 4).subtract(x.absolute()).negative(),
    "a norm": lambda x: x / (torch.linalg.norm(x, dim=1, keepdim=True) + 1),
    "lerp": lambda x: torch.lerp(x, x * 2, 0.25) + torch.addcmul(x, x, x, value=0.5),
}


@pytest.mark.parametrize("name", [*MOVES, *PER_PIXEL])
def test_what_is_computed_is_the_operators_own(name: str, image: Tensor, mask: Tensor) -> None:
    function = (MOVES | PER_PIXEL)[name]
    expected = function(torch.where(mask, image, 0))
    torch.testing.assert_close(run(function, image, mask), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", MOVES)
def test_the_mask_follows_the_data(name: str, image: Tensor, mask: Tensor) -> None:
    """A maximum of negative numbers is 0 as soon as one position counts as kept that is not."""
    function, negative = MOVES[name], image.abs() + 1
    kept = function(mask.double().expand_as(image)).ne(0)
    found = run(lambda x: (-function(x).abs()).amax((2, 3)), negative, mask)
    expected = torch.where(kept, -function(torch.where(mask, negative, 0)).abs(), -torch.inf).amax((2, 3))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    removed = run(lambda x: function(x).amax((2, 3)), negative, torch.zeros_like(mask))
    assert not removed.any()


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("size", [(24, 16), (5, 13), (1, 8)])
def test_linear_resize_divides_by_the_kept_weight(
    size: tuple[int, int], corners: bool, image: Tensor, mask: Tensor
) -> None:
    def resize(x: Tensor) -> Tensor:
        return F.interpolate(x, size, mode="bilinear", align_corners=corners)

    weight = resize(mask.double())
    weight = torch.where(weight > 1e-12, weight, 0)
    expected = torch.where(weight > 0, resize(torch.where(mask, image, 0)) / weight, 0)
    torch.testing.assert_close(run(resize, image, mask), expected, rtol=0, atol=1e-12)


def test_resize_by_a_factor(image: Tensor, mask: Tensor) -> None:
    def resize(x: Tensor) -> Tensor:
        return F.interpolate(F.interpolate(x, scale_factor=(1.7, 0.6)), scale_factor=2.0, mode="bilinear")

    found = run(resize, image, torch.ones_like(mask))
    torch.testing.assert_close(found, resize(image), rtol=0, atol=1e-12)


UNSHUFFLES: dict[str, Callable[[Tensor], Tensor]] = {
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 4),
    "as patches": lambda x: x.reshape(-1, 6, 3, 4, 2, 4).permute(0, 1, 3, 5, 2, 4).reshape(-1, 96, 3, 2),
    "last": lambda x: (
        x.permute(0, 2, 3, 1)
        .reshape(-1, 3, 4, 2, 4, 6)
        .permute(0, 1, 3, 5, 2, 4)
        .reshape(-1, 3, 2, 96)
        .permute(0, 3, 1, 2)
    ),
    "as tokens": lambda x: (
        x.reshape(-1, 6, 3, 4, 2, 4).permute(0, 2, 4, 1, 3, 5).reshape(-1, 6, 96).transpose(1, 2).unflatten(2, (3, 2))
    ),
    "turned": lambda x: x.reshape(-1, 6, 3, 4, 2, 4).permute(0, 1, 3, 5, 4, 2).reshape(-1, 96, 2, 3).transpose(2, 3),
}


@pytest.mark.parametrize("name", UNSHUFFLES)
def test_blocks_become_channels_of_the_neighbour_padded_map(name: str, image: Tensor) -> None:
    mask = torch.rand(2, 1, *SIZE, generator=torch.Generator().manual_seed(5)) > 0.9
    filled = torch.stack(
        [
            torch.stack([filled_by_loop(channel, kept[0], 3) for channel in picture])
            for picture, kept in zip(image, mask, strict=True)
        ]
    )
    kept = F.max_pool2d(mask.double(), 4).bool()
    assert not kept.all()
    expected = torch.where(kept, F.pixel_unshuffle(filled, 4), 0)
    found = run(UNSHUFFLES[name], image, mask)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def per_map(function: Callable[[Tensor], Tensor], image: Tensor, mask: Tensor) -> Tensor:
    """A function of the kept numbers of each channel, `[N, C]`."""
    return torch.stack(
        [
            torch.stack([function(channel[kept[0]]) for channel in picture])
            for picture, kept in zip(image, mask, strict=True)
        ]
    )


STATISTICS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "variance": (lambda x: x.var((2, 3), correction=0), lambda v: v.var(correction=0)),
    "deviation": (lambda x: torch.std(x, (2, 3), correction=0), lambda v: v.std(correction=0)),
    "corrected": (lambda x: x.var((2, 3)) * (95 / 96), lambda v: v.var(correction=0)),
    "unbiased is false": (lambda x: torch.var(x, [2, 3], False), lambda v: v.var(correction=0)),
    "with the mean": (
        lambda x: torch.std_mean(x, (2, 3), correction=0)[1] + torch.var_mean(x, (2, 3), correction=0)[0],
        lambda v: v.mean() + v.var(correction=0),
    ),
    "pool of rows": (lambda x: F.adaptive_avg_pool1d(x.flatten(2), 1).flatten(1), lambda v: v.mean()),
    "maximum of rows": (lambda x: F.adaptive_max_pool1d(x.flatten(2), 1).flatten(1), lambda v: v.max()),
    "norm": (lambda x: torch.linalg.vector_norm(x, dim=(2, 3)), lambda v: v.norm()),
    "norm of order 1": (lambda x: x.norm(1, (2, 3)), lambda v: v.abs().sum()),
    "norm of order infinity": (
        lambda x: torch.linalg.vector_norm(x, torch.inf, dim=(2, 3)),
        lambda v: v.abs().max(),
    ),
}


@pytest.mark.parametrize("name", STATISTICS)
def test_statistics_are_of_the_kept_pixels(name: str, image: Tensor, mask: Tensor) -> None:
    function, one = STATISTICS[name]
    found = run(function, image, mask)
    torch.testing.assert_close(found, per_map(one, image, mask), rtol=1e-7, atol=1e-7)  # mean(m) + 1e-8
    assert run(function, image, torch.zeros_like(mask)).isfinite().all()


def test_root_mean_square_is_of_the_kept_pixels(image: Tensor, mask: Tensor) -> None:
    found = run(lambda x: F.rms_norm(x, (6, *SIZE), eps=0.1), image, mask)
    for row in range(2):
        kept = image[row][mask[row].expand(6, -1, -1)]
        expected = torch.where(mask[row], image[row] / (kept.square().mean() + 0.1).sqrt(), 0)
        torch.testing.assert_close(found[row], expected, rtol=0, atol=1e-12)


def test_a_row_of_means_grows_back_to_a_map(image: Tensor, mask: Tensor) -> None:
    found = run(lambda x: x.amax(3, keepdim=True).expand(-1, -1, -1, 5), image, mask)
    kept = mask.any(3, keepdim=True)
    expected = torch.where(kept, torch.where(mask, image, -torch.inf).amax(3, keepdim=True), 0)
    torch.testing.assert_close(found, expected.expand(-1, -1, -1, 5), rtol=0, atol=0)


def test_gates_of_other_values_broadcast(image: Tensor, mask: Tensor) -> None:
    def gate(x: Tensor) -> Tensor:
        y = F.conv1d(x.mean((2, 3)).view(x.shape[0], 1, -1), torch.ones(1, 1, 3).to(x), padding=1)
        return x * torch.sigmoid(y).view(x.shape[0], -1, 1, 1).expand_as(x)

    mean = torch.where(mask, image, 0).sum((2, 3)) / (mask.double().sum((2, 3)) + 96e-8)
    gates = torch.sigmoid(F.conv1d(mean.unsqueeze(1), torch.ones(1, 1, 3).double(), padding=1))
    expected = torch.where(mask, image * gates.reshape(2, 6, 1, 1), 0)
    torch.testing.assert_close(run(gate, image, mask), expected, rtol=0, atol=1e-12)


REFUSED: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "every second channel written to": (lambda x: written(x, lambda y: y[:, ::2].neg_()), "do not follow each other"),
    "slice of the batch": (lambda x: x[:1], "slices the batch"),
    "select of space": (lambda x: x[:, :, 0], "single positions"),
    "table of rows": (lambda x: x[:, :, torch.tensor([[0, 1]])], "single positions"),
    "index by a condition": (lambda x: x[:, torch.tensor([True, False] * 3)], "condition"),
    "bicubic": (lambda x: F.interpolate(x, (5, 5), mode="bicubic"), "cubic"),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(torch.cat([x, x], 1), 2), "channels as pixels"),
    "attention": (lambda x: F.scaled_dot_product_attention(*[x.flatten(2).transpose(1, 2)] * 3), "attention"),
    "stacked batch": (lambda x: torch.stack([x, x]), "moves the batch axis"),
    "one part alone": (lambda x: torch.stack([x]).sum(0), "moves the batch axis"),
    "unfold": (lambda x: F.unfold(x, 3), "overlapping windows"),
    "convolution of rows": (lambda x: F.conv1d(x.flatten(2), torch.ones(1, 6, 3).to(x)), "another axis"),
    "pool of rows": (lambda x: F.adaptive_avg_pool1d(x.flatten(2), 2), "another axis"),
    "grid_sample": (lambda x: F.grid_sample(x, x[:, :2, :2].transpose(1, 3), align_corners=False), "chooses?"),
    "logarithm over space": (lambda x: x.logsumexp((2, 3)), "over space"),
    "sampled weight": (lambda x: F.conv2d(x, x.mean((2, 3))[:1, :, None, None]) + F.prelu(x, x[0, :, 0, 0]), "batch"),
    "quadratic einsum": (lambda x: torch.einsum("nchw,nkhw->nck", x, x), "two activations"),
    "einsum over space": (lambda x: torch.einsum("nchw,wk->nchk", x, torch.ones(8, 3).to(x)), "over space"),
    "softmax of a vector of pixels": (lambda x: x[:, :1].flatten(1).softmax(1), "count as pixels that are 0"),
    "mean of a vector of pixels": (lambda x: torch.relu(x[:, 0].flatten(1)).mean(1), "count as pixels that are 0"),
    "window over a vector": (lambda x: F.max_pool2d(x.flatten(1).view(x.shape), 2), "count as pixels that are 0"),
    "nothing but border": (lambda x: F.max_pool2d(F.pad(x, (4, 0))[..., :3], 2), "nothing but the constant"),
    "rows of blocks": (lambda x: x.reshape(-1, 6, 3, 4, 2, 4).transpose(2, 3).reshape(-1, 24, 3, 8), "merges"),
    "other norm": (lambda x: torch.linalg.vector_norm(x, 3, dim=(2, 3)), "order 3"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_meaning_is_refused(name: str, image: Tensor, mask: Tensor) -> None:
    function, why = REFUSED[name]
    with pytest.raises(UnsupportedOpError, match=why):
        run(function, image, mask)
