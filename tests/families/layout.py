"""Operators that move positions and channels, or take parts of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.families.case import CONV, Case, case, w
from tests.graphs import step


def layout() -> list[Case]:
    there, back = step("Transpose", "x", perm=[0, 2, 3, 1]), [0, 3, 1, 2]
    split = (
        step("Reshape", "x", np.array([0, 2, 2, 10, 13])),
        step("Transpose", "0", perm=[0, 2, 1, 3, 4]),
        step("Reshape", "1", np.array([0, 4, 10, 13])),
    )
    batch = (
        step("Shape", "x"),
        step("Gather", "0", np.array([0])),
        step("Concat", "1", np.array([-1]), axis=0),
        CONV,
        step("Reshape", "3", "2"),
    )
    nhwc = {"layout": "NHWC", "shape": (10, 13, 3)}
    return [
        case("Transpose/there", CONV, step("Transpose", "0", perm=[0, 2, 3, 1]), map=False),
        case("Transpose/there and back", there, step("Relu", "0"), step("Transpose", "1", perm=back)),
        case("Transpose/space turned", step("Transpose", "x", perm=[0, 1, 3, 2])),
        case("Transpose/behind a Pad", step("Transpose", "x", perm=[0, 2, 3, 1]),
             step("Pad", "0", np.array([0, 1, 0, 0, 0, 3, 2, 0])), step("Transpose", "1", perm=back),
             step("Conv", "2", w(4, 3, 3, 3), strides=[2, 2])),
        case("Transpose/behind a Pad, space turned",
             step("Pad", "x", np.array([0, 0, 1, 0, 0, 0, 0, 2]), np.array(0.5)),
             step("Transpose", "0", perm=[0, 1, 3, 2]), step("MaxPool", "1", kernel_shape=[3, 3])),
        case("Transpose/NHWC input", step("Transpose", "x", perm=back), step("Conv", "0", w(4, 3, 3, 3)),
             step("Transpose", "1", perm=[0, 2, 3, 1]), step("ReduceMean", "2", np.array([1, 2])), **nhwc),
        case("Reshape/channel shuffle", *split, shape=(4, 10, 13)),
        case("Reshape/space merged", CONV, step("Reshape", "0", np.array([0, 4, -1]))),
        case("Reshape/space merged and split", CONV, step("Reshape", "0", np.array([0, 4, -1])),
             step("Reshape", "1", np.array([0, 4, 10, 13]))),
        case("Reshape/vector", CONV, step("Reshape", "0", np.array([-1, 520]))),
        case("Reshape/extents of 1", step("Reshape", "x", np.array([-1, 1, 3, 10, 1, 13])),
             step("Reshape", "0", np.array([0, 3, 10, 13]))),
        case("Shape/batch of a vector", *batch),
        case("Flatten/vector", CONV, step("Flatten", "0")),
        case("Flatten/vector, after a pool", step("AveragePool", "x", kernel_shape=[3, 3]), step("Flatten", "0")),
        case("Unsqueeze/and Squeeze", CONV, step("Unsqueeze", "0", np.array([1])), step("Relu", "1"),
             step("Squeeze", "2", np.array([1]))),
        case("Squeeze/space of one pixel", step("Conv", "x", w(4, 3, 10, 13)), step("Squeeze", "0", np.array([2, 3]))),
    ]  # fmt: skip


def parts() -> list[Case]:
    one = step("Gather", "0", np.array(2), axis=1)
    there, back = step("Transpose", "x", perm=[0, 2, 3, 1]), [0, 3, 1, 2]
    halves = step("Split", "x", np.array([5, 5]), axis=2, outputs=2)
    narrow = step("ReduceMean", "x", np.array([3]))

    def cut(name: str, starts: list[int], ends: list[int], axes: list[int], steps: list[int]) -> Case:
        return case(f"Slice/{name}", CONV, step("Slice", "0", *map(np.array, (starts, ends, axes, steps))))

    return [
        case("Gather/channels reordered", CONV, step("Gather", "0", np.array([3, -4, 1]), axis=1)),
        case("Gather/one channel", CONV, one, step("Unsqueeze", "1", np.array([1]))),
        case("Gather/one group", step("Reshape", "x", np.array([0, 2, 2, 10, 13])),
             step("Gather", "0", np.array(1), axis=1), shape=(4, 10, 13)),
        case("Gather/table of channels", CONV, step("Gather", "0", np.array([[3, 0, 2], [1, 1, -1]]), axis=1),
             step("ReduceMax", "1", np.array([1]), keepdims=0)),
        case("Gather/rows and columns", CONV, step("Gather", "0", np.array([0, 0, 4, -1, 7, 2]), axis=2),
             step("Gather", "1", np.array([12, 3, 3, 9, 0]), axis=3)),
        case("Squeeze/one column", CONV, step("ReduceMax", "0", np.array([3])), step("Squeeze", "1", np.array([3])),
             step("ReduceMean", "2", np.array([2]), keepdims=0)),
        case("Gemm/over pixels as rows", step("Transpose", "x", perm=[0, 2, 3, 1]),
             step("Reshape", "0", np.array([-1, 3])), step("MatMul", "1", w(3, 5)), step("Add", "2", w(5)),
             step("Sigmoid", "3"), step("Gemm", "4", w(4, 5), w(4), transB=1, alpha=0.5), step("Softmax", "5", axis=1),
             step("Reshape", "6", np.array([-1, 10, 13, 4])), step("Transpose", "7", perm=[0, 3, 1, 2])),
        case("Split/channels", CONV, step("Split", "0", np.array([1, 3]), axis=1, outputs=2),
             step("Conv", "1:1", w(1, 3, 3, 3), pads=[1, 1, 1, 1]), step("Concat", "2", "1:0", axis=1)),
        case("Split/channels, num_outputs", CONV,
             step("Split", "0", axis=1, num_outputs=2, outputs=2), step("Sub", "1:0", "1:1")),
        case("Split/channels last", there, step("Split", "0", np.array([1, 2]), axis=-1, outputs=2),
             step("Transpose", "1:1", perm=back)),
        case("Split/rows", halves, step("Add", "0:0", "0:1")),
        case("Split/columns, num_outputs", CONV, step("Split", "0", axis=3, num_outputs=2, outputs=2),
             step("Conv", "1:1", w(2, 4, 3, 3))),
        cut("channels", [1], [4], [1], [2]),
        cut("rows and columns", [2, -9], [9, 2**63 - 1], [2, 3], [1, 2]),
        cut("columns reversed", [-1], [-(2**63)], [3], [-1]),
        case("Slice/every axis", step("Slice", "x", np.array([0, 1, 1, 2]), np.array([2**63 - 1, 3, 9, 13]))),
        case("Slice/four corners", *[
            step("Slice", "x", np.array([i, j]), np.array([10, 12]), np.array([2, 3]), np.array([2, 2]))
            for i in (0, 1) for j in (0, 1)
        ], step("Concat", *"0123", axis=1)),
        case("Expand/channels", CONV, step("ReduceMax", "0", np.array([1])),
             step("Expand", "1", np.array([1, 4, 1, 1]))),
        case("Expand/columns", narrow, step("Expand", "0", np.array([1, 1, 1, 6]))),
        case("Tile/channels", CONV, step("Tile", "0", np.array([1, 2, 1, 1]))),
        case("Tile/rows", CONV, step("Tile", "0", np.array([1, 1, 2, 1]))),
    ]  # fmt: skip


def resampling() -> list[Case]:
    """Sizes between which the coordinates are not numbers that a binary fraction holds, too."""

    def resized(name: str, scales: Sequence[float] = (), sizes: Sequence[int] = (), **settings: Any) -> Case:
        mode = settings.setdefault("mode", "linear")
        target = (np.array(scales, np.float32),) if scales else ("", np.array(sizes))
        axes = {"axes": [2, 3]} if len(scales or sizes) == 2 else {}
        return case(f"Resize/{mode}, {name}", CONV, step("Resize", "0", "", *target, **axes, **settings))

    nhwc = step("Transpose", "x", perm=[0, 2, 3, 1])
    batch = (step("Shape", "x", start=0, end=2), step("Concat", "0", np.array([20, 26]), axis=0))
    return [
        resized("twice", [1, 1, 2, 2], mode="nearest"),
        resized("twice, floor", [1, 1, 2, 2], mode="nearest", coordinate_transformation_mode="asymmetric",
                nearest_mode="floor"),
        resized("smaller", sizes=[7, 5], mode="nearest", nearest_mode="round_prefer_ceil"),
        resized("twice", [1, 1, 2, 2]),
        resized("three times", [3, 3]),
        resized("rows alone", [1, 1, 2, 1]),
        resized("corners", sizes=[19, 25], coordinate_transformation_mode="align_corners"),
        resized("asymmetric", [2, 2.5], coordinate_transformation_mode="asymmetric"),
        resized("symmetric", [1.5, 1.5], coordinate_transformation_mode="half_pixel_symmetric"),
        resized("smaller", sizes=[4, 13], coordinate_transformation_mode="pytorch_half_pixel"),
        case("Resize/linear, computed size", *batch, step("Resize", "x", "", "", "1", mode="linear")),
        case("Resize/linear, NaN under the mask", step("Abs", "x"), step("Log", "0"),
             step("Resize", "1", "", np.array([2, 2], np.float32), mode="linear", axes=[2, 3])),
        case("Resize/linear, channels last", nhwc,
             step("Resize", "0", "", np.array([1, 1.5, 2, 1], np.float32), mode="linear"),
             step("Transpose", "1", perm=[0, 3, 1, 2])),
        case("SpaceToDepth/2", CONV, step("SpaceToDepth", "0", blocksize=2), shape=(3, 10, 14)),
        case("SpaceToDepth/4", step("SpaceToDepth", "x", blocksize=4), shape=(2, 12, 16)),
        case("SpaceToDepth/1", step("SpaceToDepth", "x", blocksize=1)),
        *[
            case(f"SpaceToDepth/taken apart, {name}", CONV, step("Reshape", "0", np.array([-1, 4, 5, 2, 7, 2])),
                 step("Transpose", "1", perm=perm), step("Reshape", "2", np.array([-1, 16, 5, 7])), shape=(3, 10, 14))
            for name, perm in (("block first", [0, 3, 5, 1, 2, 4]), ("channels first", [0, 1, 3, 5, 2, 4]),
                               ("columns first", [0, 5, 3, 1, 2, 4]))
        ],
        case("SpaceToDepth/taken apart, channels last", nhwc, step("Reshape", "0", np.array([-1, 5, 2, 7, 2, 3])),
             step("Transpose", "1", perm=[0, 1, 3, 2, 4, 5]), step("Reshape", "2", np.array([-1, 5, 7, 12])),
             step("Transpose", "3", perm=[0, 3, 1, 2]), shape=(3, 10, 14)),
    ]  # fmt: skip
