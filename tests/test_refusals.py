"""What masking is not defined for is refused with its own reason, and every such node is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from lmonnx.errors import UnsupportedOpError
from tests.cases import w
from tests.graphs import Step, build, lowered, step

FINE, ZERO = np.array(0.125, np.float32), np.array(3, np.int8)
QUANTISED = step("QuantizeLinear", "x", FINE, ZERO)
TURNED = step("Transpose", "x", perm=[0, 2, 3, 1])


def refused(*steps: Step, shape: tuple[int, ...] = (3, 8, 8), opset: int = 18) -> UnsupportedOpError:
    with pytest.raises(UnsupportedOpError) as caught:
        lowered(build(steps, shape, opset))
    return caught.value


REFUSALS = {
    "cubic": (step("Resize", "x", "", np.array([1, 1, 2, 2], np.float32), mode="cubic"), "'cubic' weighs"),
    "cropped": (
        step("Resize", "x", np.array([0, 0, 0, 0, 1, 1, 1, 1], np.float32), np.array([1, 1, 2, 2], np.float32),
             coordinate_transformation_mode="tf_crop_and_resize"),
        "cropping",
    ),
    "antialiased": (
        step("Resize", "x", "", np.array([1, 1, 0.5, 0.5], np.float32), mode="linear", antialias=1), "antialiasing"
    ),
    "channels resized": (step("Resize", "x", "", np.array([1, 2, 1, 1], np.float32)), "resizes channels"),
    "batch split": (step("Split", "x", np.array([1, 1]), axis=0, outputs=2), "splits the batch"),
    "batch sliced": (step("Slice", "x", np.array([0]), np.array([1]), np.array([0])), "part of the batch"),
    "batch repeated": (step("Tile", "x", np.array([2, 1, 1, 1])), "repeats the batch"),
    "batch padded": (step("Pad", "x", np.array([1, 0, 0, 0, 0, 0, 0, 0])), "pads the batch"),
    "channels as images": (step("Reshape", "x", np.array([-1, 1, 8, 8])), "folds channels into the batch"),
    "a new first axis": (step("Unsqueeze", "x", np.array([0])), "mixes the batch with other axes"),
    "MVN of the batch": (step("MeanVarianceNormalization", "x"), "over the batch"),
    "MVN of rows": (step("MeanVarianceNormalization", "x", axes=[2]), "a part of space"),
    "product of space": (step("ReduceProd", "x", np.array([2, 3])), "over space it is not defined"),
    "DepthToSpace": (step("DepthToSpace", "x", blocksize=1), "spreads a pixel"),
    "ConvTranspose": (step("ConvTranspose", "x", w(3, 3, 2, 2)), "spreads pixels"),
    "CumSum": (step("CumSum", "x", np.array(2)), "a sum along positions"),
    "Einsum of two": (step("Einsum", "x", "x", equation="nchw,ndhw->ncd"), "as attention does"),
    "Einsum over space": (step("Einsum", "x", w(8, 4), equation="nchw,wd->nchd"), "as an MLP over space does"),
    "Einsum with an ellipsis": (step("Einsum", "x", w(8, 4), equation="...w,wd->...d"), "write it as MatMul"),
    "one row of pixels": (step("Gather", "x", np.array(2), axis=2), "single positions of space"),
    "batch moved": (step("Transpose", "x", perm=[1, 0, 2, 3]), "moves the batch"),
    "TopK": (step("TopK", "x", np.array([1]), axis=1, outputs=2), "an order among positions"),
    "GridSample": (step("GridSample", "x", np.zeros((1, 4, 4, 2))), "where it reads"),
    "DynamicQuantizeLinear": (step("DynamicQuantizeLinear", "x", outputs=3), "quantise statically"),
    "hard choice over space": (step("Hardmax", "x", axis=3), "compares positions"),
    "Bernoulli": (step("Bernoulli", "x"), "draws random numbers"),
    "RandomNormalLike": (step("RandomNormalLike", "x"), "draws random numbers"),
    "RandomUniformLike": (step("RandomUniformLike", "x"), "draws random numbers"),
    "Dropout in training": (step("Dropout", "x", np.array(0.5), np.array(True)), "drops values at random"),
    "indices of a MaxPool": (
        step("MaxPool", "x", kernel_shape=[2, 2], outputs=2), "only its first output is defined"
    ),
}  # fmt: skip


ONE_MAP = (step("Conv", "x", w(1, 3, 3, 3)), step("Flatten", "0"))
AGAIN = (step("Reshape", "1", np.array([0, 1, 6, 6])),)


@pytest.mark.parametrize(
    "behind",
    [
        (step("Softmax", "1", axis=1),),
        (step("ReduceMean", "1", np.array([1])),),
        (step("ReduceMax", "1", np.array([1])),),
        (step("LayerNormalization", "1", w(36), w(36)),),
        (step("TopK", "1", np.array([2]), outputs=2),),
        (*AGAIN, step("Conv", "2", w(4, 1, 3, 3))),
        (*AGAIN, step("GlobalAveragePool", "2")),
        (step("Sigmoid", "1"), step("Softmax", "2", axis=1)),
    ],
    ids=lambda steps: steps[-1].operator,
)
def test_pixels_in_a_vector_are_not_compared(behind: tuple[Step, ...]) -> None:
    (offence,) = refused(*ONE_MAP, *behind).offences
    assert offence.operator == behind[-1].operator
    assert "removed ones count as pixels that are 0" in offence.why


@pytest.mark.parametrize(
    "behind",
    [
        (step("Relu", "1"), step("Gemm", "2", w(36, 5))),
        (
            step("ReduceL2", "1", np.array([1])),
            step("Div", "1", "2"),
            step("MatMul", "3", w(36, 5)),
            step("Softmax", "4"),
        ),
        (*AGAIN, step("ReduceSum", "2", np.array([2, 3]))),
    ],
)
def test_pixels_in_a_vector_may_be_added_up(behind: tuple[Step, ...]) -> None:
    assert lowered(build((*ONE_MAP, *behind), (3, 8, 8), 18))


def test_one_pixel_is_not_a_vector_of_pixels() -> None:
    assert lowered(build((step("Conv", "x", w(5, 3, 8, 8)), step("Flatten", "0"), step("Softmax", "1")), (3, 8, 8), 18))


@pytest.mark.parametrize(
    ("begin", "end", "by", "reason"),
    [(0, 2, 1, "nothing but the constant of a Pad"), (-1, -(2**31), -1, "turns a constant Pad around")],
)
def test_a_slice_of_a_border(begin: int, end: int, by: int, reason: str) -> None:
    cut = step("Slice", "0", *(np.array([number]) for number in (begin, end, 3, by)))
    (offence,) = refused(step("Pad", "x", np.array([0, 0, 0, 2, 0, 0, 0, 0])), cut).offences
    assert offence.operator == "Slice"
    assert reason in offence.why


@pytest.mark.parametrize("name", REFUSALS)
def test_each_reason(name: str) -> None:
    one, reason = REFUSALS[name]
    after = (step("Cast", "0:1", to=onnx.TensorProto.FLOAT),) if name.startswith("indices") else ()
    (offence,) = refused(one, *after).offences
    assert offence.node == "node0"
    assert offence.operator == one.operator
    assert reason in str(offence)


POOLED = (step("GlobalAveragePool", "x"), step("Flatten", "0"))
MIXING = {
    "mean": step("ReduceMean", "1", np.array([0])),
    "mean of all": step("ReduceMean", "1"),
    "softmax": step("Softmax", "1", axis=0),
    "cumulative sum": step("CumSum", "1", np.array(0)),
    "reversed": step("Slice", "1", np.array([-1]), np.array([-(2**31)]), np.array([0]), np.array([-1])),
    "rows with rows": step("Gemm", "1", "1", transB=1),
    "over rows": step("Gemm", "1", "1", transA=1),
    "layer norm": step("LayerNormalization", "1", np.ones(3), axis=0),
    "aligned with channels": step("Add", "0", "1"),
    "concatenated": step("Concat", "1", "1", axis=0),
}


@pytest.mark.parametrize("name", MIXING)
def test_rows_that_mix_behind_a_pool(name: str) -> None:
    error = refused(*POOLED, MIXING[name])
    assert [offence.operator for offence in error.offences] == [MIXING[name].operator]
    assert "mixes the rows of a batch" in str(error)


def test_every_row_at_the_places_of_every_other() -> None:
    (offence,) = refused(*POOLED, step("ArgMax", "1", axis=1, keepdims=0), step("Gather", "1", "2", axis=1)).offences
    assert (offence.operator, "mixes the rows" in offence.why) == ("Gather", True)


def test_rows_that_stay_apart_behind_a_pool() -> None:
    """A dense layer from the left, with the batch last in between."""
    turned = step("Transpose", "1", perm=[1, 0])
    steps = (*POOLED, turned, step("MatMul", w(5, 3), "2"), step("ReduceMax", "3", np.array([0])),
             step("Sub", "3", "4"), step("Transpose", "5", perm=[1, 0]))  # fmt: skip
    lowered(build(steps, (3, 8, 8), 18))


def test_what_is_random_is_refused_wherever_it_stands() -> None:
    """Behind the mask, beside the image, and as noise that is added to the image, with all that is computed of it."""
    head = step("GlobalAveragePool", "x"), step("Flatten", "0"), step("Dropout", "1", np.array(0.5), np.array(True))
    error = refused(*head, step("RandomNormal", shape=[1, 3]), step("Add", "2", "3"))
    assert [offence.operator for offence in error.offences] == ["Dropout", "RandomNormal"]
    behind = step("Conv", "1", w(4, 3, 3, 3)), step("ReduceMean", "2", np.array([2, 3]), keepdims=0)
    error = refused(step("RandomUniformLike", "x"), step("Add", "x", "0"), *behind)
    assert [offence.operator for offence in error.offences] == ["RandomUniformLike"]


def test_quantised_zeros() -> None:
    error = refused(QUANTISED, step("Flatten", "0"))
    assert "quantised integers is not defined" in str(error)
    assert "DequantizeLinear" in str(error)


def test_quantised_output() -> None:
    (offence,) = refused(QUANTISED).offences
    assert offence.operator == "QuantizeLinear"
    assert "quantised integers" in offence.why


def test_global_pool_of_another_layout() -> None:
    """Whose axes 2 and 3 are columns and channels."""
    assert "needs the layout" in str(refused(TURNED, step("GlobalAveragePool", "0")))


def test_batch_merged_with_space() -> None:
    error = refused(TURNED, step("Reshape", "0", np.array([-1, 3])), step("MatMul", "1", w(3, 5)))
    assert "mixes batch and space" in str(error)
    assert "keep the batch an axis of its own" in str(error)


def test_debris_of_attention() -> None:
    """The Transpose that moves the batch behind queries, keys and values is none of its reasons."""
    tokens = step("Reshape", "x", np.array([0, 3, 64])), step("Transpose", "0", perm=[0, 2, 1])
    parts = step("MatMul", "1", w(3, 12)), step("Reshape", "2", np.array([0, 64, 3, 4]))
    split = step("Transpose", "3", perm=[2, 0, 1, 3]), step("Split", "4", axis=0, num_outputs=3, outputs=3)
    keys = step("Transpose", "5:1", perm=[0, 1, 3, 2])
    error = refused(*tokens, *parts, *split, keys, step("MatMul", "5:0", "6"), step("Softmax", "7", axis=-1))
    assert [offence.operator for offence in error.offences] == ["MatMul", "Softmax"]


def test_equal_offences_are_told_once() -> None:
    several = [step("CumSum", "x", np.array(2)) for _ in range(12)]
    error = refused(step("Tile", "x", np.array([2, 1, 1, 1])), *several, step("Sum", *map(str, range(13))))
    assert [offence.operator for offence in error.offences] == ["Tile", *["CumSum"] * 12]
    head, tile, sums = str(error).splitlines()
    assert head == "13 nodes cannot be masked:"
    assert tile.startswith("  Tile 'node0'")
    assert sums.startswith("  CumSum 'node1'")
    assert sums.endswith("(and 11 more like it)")


def adaptive(shape: tuple[int, int], windows: tuple[int, int], last: str) -> tuple[Step, ...]:
    """What PyTorch exports an adaptive average pool of value ``last`` as that does not divide its map."""
    rows, columns = (np.array([[i * n // k, -(-(i + 1) * n // k) - 1] for i in range(k)])
                     for n, k in zip(shape, windows, strict=True))  # fmt: skip
    indices = np.empty((*(windows[0], 2), *(windows[1], 2), 2), np.int64)
    indices[..., 0], indices[..., 1] = rows[:, :, None, None], columns
    at = int(last) if last != "x" else -1
    return (
        step("Transpose", last, perm=[2, 3, 0, 1]),
        step("GatherND", str(at + 1), indices),
        step("Transpose", str(at + 2), perm=[4, 5, 0, 1, 2, 3]),
        step("ReduceMean", str(at + 3), np.array([3, 5]), keepdims=0),
    )


@pytest.mark.parametrize(("size", "works"), [((20, 31), "18×31"), ((40, 40), "34×34")])
def test_adaptive_pool(size: tuple[int, int], works: str) -> None:
    """Once, with the nearest size that works: a convolution and a pool make a map of (size + 1) // 4."""
    head: tuple[Step, ...] = (
        step("Conv", "x", w(4, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1]),
        step("MaxPool", "0", kernel_shape=[2, 2], strides=[2, 2]),
    )
    inner = ((size[0] + 1) // 4, (size[1] + 1) // 4)
    error = refused(*head, *adaptive(inner, (4, 4), "1"), shape=(3, *size))
    (offence,) = error.offences
    assert f"an adaptive pool of {inner[0]}×{inner[1]} pixels to 4×4" in offence.why
    assert offence.remedy.endswith(f"the nearest is {works}"), offence.remedy


def test_pixels_by_their_places() -> None:
    places = np.stack(np.meshgrid(np.arange(0, 8, 2), np.arange(0, 8, 2), indexing="ij"), axis=-1)
    turned = step("Transpose", "x", perm=[2, 3, 0, 1]), step("GatherND", "0", places)
    (offence,) = refused(*turned, step("Transpose", "1", perm=[2, 3, 0, 1])).offences
    assert "single pixels by their places" in offence.why


def test_a_slice_that_is_written_to() -> None:
    """As PyTorch's exporter writes it where nobody stops it."""
    turned = step("Transpose", "x", perm=[1, 0, 2, 3]), step("Slice", "0", *map(np.array, ([1], [2], [0])))
    written = step("ScatterND", "0", np.array([[0]]), "1"), step("Transpose", "2", perm=[1, 0, 2, 3])
    first, *_ = refused(*turned, *written).offences
    assert (first.operator, first.remedy) == ("Transpose", "join the parts with a Concat")


def test_adaptive_pool_behind_what_is_not_followed() -> None:
    head: tuple[Any, ...] = (step("Slice", "x", np.array([0]), np.array([7]), np.array([2])),)
    (offence,) = refused(*head, *adaptive((7, 8), (3, 3), "0")).offences
    assert "a size of the image that makes the map a multiple of 3×3" in offence.remedy
