"""Neighbour padding and pools against loops over single pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lmonnx.masking import MaskRules, Window
from lmonnx.reference import Masked, windows
from lmonnx.reference.activation import Border, RefusedError

WINDOWS = {
    "3x3": Window((3, 3), (1, 1), (1, 1), ((1, 1), (1, 1))),
    "stride 2": Window((3, 3), (2, 2), (1, 1), ((1, 1), (1, 1))),
    "dilated": Window((3, 2), (1, 2), (2, 3), ((2, 2), (0, 3))),
    "asymmetric": Window((2, 3), (2, 1), (1, 1), ((0, 1), (2, 0))),
    "pointwise": Window((1, 1), (2, 2), (1, 1), ((0, 0), (0, 0))),
    "ceil": Window((3, 2), (2, 3), (1, 1), ((0, 0), (1, 0)), ceil_mode=True),
    "7x7": Window((7, 7), (2, 2), (1, 1), ((3, 3), (3, 3))),
}


def activation(seed: int, keep: float = 0.4) -> Masked:
    rng = np.random.default_rng(seed)
    data = torch.from_numpy(rng.normal(size=(2, 2, 8, 9)))
    mask = torch.from_numpy(rng.random((2, 1, 8, 9)) < keep)
    return Masked(torch.where(mask, data, math.nan), mask, (2, 3))


def filled_by_loop(x: Tensor, kept: Tensor, rings: int) -> Tensor:
    """Neighbour padding of one map [H, W], pixel by pixel."""
    height, width = x.shape
    x, known = torch.where(kept, x, 0), kept.clone()
    for _ in range(rings):
        after, seen = x.clone(), known.clone()
        for i in range(height):
            for j in range(width):
                around = (slice(max(i - 1, 0), i + 2), slice(max(j - 1, 0), j + 2))
                count = int(known[around].sum())
                if not known[i, j] and count:
                    after[i, j] = x[around].sum() / (count + 1e-5)
                    seen[i, j] = True
        x, known = after, seen
    return x


def reads(window: Window, i: int, j: int, size: tuple[int, int]) -> list[tuple[int, int]]:
    """The pixels inside the map that output (i, j) reads."""
    rows = [i * window.strides[0] - window.pads[0][0] + window.dilations[0] * k for k in range(window.kernel[0])]
    columns = [j * window.strides[1] - window.pads[1][0] + window.dilations[1] * k for k in range(window.kernel[1])]
    return [(r, c) for r in rows for c in columns if 0 <= r < size[0] and 0 <= c < size[1]]


@pytest.mark.parametrize("rings", ["window", "kernel"])
@pytest.mark.parametrize("name", WINDOWS)
def test_kept_outputs_read_what_the_loop_fills(name: str, rings: str) -> None:
    window, x = WINDOWS[name], activation(3, keep=0.1)
    found = windows.neighbour_pad(x, window, MaskRules(rings=rings))  # type: ignore[arg-type]
    kept = windows.covers(x.mask, window)
    reach = max(d * (k - 1) for d, k in zip(window.dilations, window.kernel, strict=True))
    for n in range(2):
        for channel in range(2):
            steps = reach + (rings == "kernel")
            expected = filled_by_loop(x.data[n, channel], x.mask[n, 0], steps)
            if rings == "kernel":
                torch.testing.assert_close(found[n, channel], expected, rtol=0, atol=1e-12)
            for i, j in kept[n, 0].nonzero().tolist():
                for pixel in reads(window, i, j, (8, 9)):
                    assert found[n, channel][pixel] == pytest.approx(expected[pixel].item(), abs=1e-12)


@pytest.mark.parametrize("name", WINDOWS)
def test_max_is_over_the_kept_pixels(name: str) -> None:
    window, x = WINDOWS[name], activation(4)
    found = windows.max_pool(x, window)
    assert isinstance(found, Masked)
    for n, c, i, j in np.ndindex(*found.data.shape):
        pixels = [x.data[n, c, r, k].item() for r, k in reads(window, i, j, (8, 9)) if x.mask[n, 0, r, k]]
        assert found.mask[n, 0, i, j].item() == bool(pixels)
        assert found.data[n, c, i, j].item() == max(pixels, default=0.0)


@pytest.mark.parametrize("include_pad", [False, True])
@pytest.mark.parametrize("name", WINDOWS)
def test_average_is_rescaled_by_what_is_kept(name: str, include_pad: bool) -> None:
    window, x = WINDOWS[name], activation(5)
    valid = windows.average_pool(x, window, include_pad=include_pad, rules=MaskRules())
    area = windows.average_pool(x, window, include_pad=include_pad, rules=MaskRules(average="area"))
    assert isinstance(valid, Masked)
    assert isinstance(area, Masked)
    for n, c, i, j in np.ndindex(*valid.data.shape):
        inside = reads(window, i, j, (8, 9))
        pixels = [x.data[n, c, r, k].item() for r, k in inside if x.mask[n, 0, r, k]]
        padded = Window(window.kernel, window.strides, window.dilations, ((0, 0), (0, 0)))
        whole = tuple(n + sum(pads) for n, pads in zip((8, 9), window.pads, strict=True))
        count = len(reads(padded, i, j, (whole[0], whole[1]))) if include_pad else len(inside)
        mean, share = sum(pixels) / max(len(pixels), 1), len(inside) / count
        assert valid.data[n, c, i, j].item() == pytest.approx(mean * share, abs=1e-12)
        assert area.data[n, c, i, j].item() == pytest.approx(sum(pixels) / count, abs=1e-12)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("extent", range(5, 12))
def test_output_sizes_are_pytorchs(extent: int, ceil_mode: bool) -> None:
    for kernel, stride, pad in [(2, 2, 0), (3, 2, 1), (2, 3, 1), (3, 3, 0), (1, 2, 0)]:
        window = Window((kernel,) * 2, (stride,) * 2, (1, 1), ((pad, pad),) * 2, ceil_mode)
        x = torch.randn(1, 1, extent, extent + 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        expected = F.max_pool2d(x, kernel, stride, pad, ceil_mode=ceil_mode)
        assert windows.output_size(window, x.shape[2:]) == tuple(expected.shape[2:])
        mean = F.avg_pool2d(x, kernel, stride, pad, ceil_mode, count_include_pad=True)
        kept = Masked(x, torch.ones_like(x, dtype=torch.bool), (2, 3))
        found = windows.average_pool(kept, window, include_pad=True, rules=MaskRules(average="area"))
        assert isinstance(found, Masked)
        torch.testing.assert_close(found.data, mean)


def test_border_is_padded_after_the_filling_and_not_kept() -> None:
    x = activation(6)
    weight = torch.randn(3, 2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    inner = Window((3, 3), (2, 2), (1, 1), ((0, 0), (0, 0)))
    outer = Window((3, 3), (2, 2), (1, 1), ((1, 2), (0, 1)))
    bordered = Masked(x.data, x.mask, x.axes, Border(((1, 2), (0, 1)), 0.0))
    found = windows.conv(bordered, weight, None, inner, 1, MaskRules())
    expected = windows.conv(x, weight, None, outer, 1, MaskRules())
    assert torch.equal(found.mask, expected.mask)
    torch.testing.assert_close(found.zeroed(), expected.zeroed(), rtol=0, atol=1e-12)
    pooled = windows.max_pool(Masked(x.data, x.mask, x.axes, Border(((2, 0), (0, 0)), 9.0)), inner)
    assert isinstance(pooled, Masked)
    assert (pooled.data[:, :, 0] == 9.0).eq(pooled.mask[:, :, 0]).all()
    nine = Masked(x.data, x.mask, x.axes, Border(((2, 0), (0, 0)), 9.0))
    with pytest.raises(RefusedError, match="constant 9"):
        windows.average_pool(nine, inner, include_pad=False, rules=MaskRules())


def test_removed_positions_count_as_computed_with_an_exact_number_of_rings() -> None:
    x = activation(7, keep=0.05)
    for rings, reach in (("window", 2), ("kernel", 3)):
        rules = MaskRules(removed="computed", rings=rings)  # type: ignore[arg-type]
        found = windows.neighbour_pad(x, WINDOWS["3x3"], rules)
        expected = filled_by_loop(x.data[0, 0], x.mask[0, 0], reach)
        torch.testing.assert_close(found[0, 0], expected, rtol=0, atol=1e-12)


def test_adaptive_pools_divide_by_what_is_kept() -> None:
    x, size = activation(8, keep=0.2), (3, 4)
    valid, highest = windows.adaptive_average(x, size, MaskRules()), windows.adaptive_max(x, size)
    assert isinstance(valid, Masked)
    assert isinstance(highest, Masked)
    for n, c, i, j in np.ndindex(2, 2, *size):
        rows = slice(i * 8 // 3, -(-(i + 1) * 8 // 3))
        columns = slice(j * 9 // 4, -(-(j + 1) * 9 // 4))
        pixels = x.data[n, c, rows, columns][x.mask[n, 0, rows, columns]].tolist()
        assert valid.mask[n, 0, i, j].item() == highest.mask[n, 0, i, j].item() == bool(pixels)
        assert valid.data[n, c, i, j].item() == pytest.approx(sum(pixels) / max(len(pixels), 1), abs=1e-12)
        assert highest.data[n, c, i, j].item() == max(pixels, default=0.0)
