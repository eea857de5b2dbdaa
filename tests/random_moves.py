"""The moves that random graphs are made of: each adds one operator, or the few of a block, to a graph.

A move gets six small numbers, which choose operands, sizes and attributes by their remainders, so that every list of
moves is a graph; a move that does not fit adds nothing. Nothing jumps, as quantisation does: float32 and float64 could
fall on different sides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.random_draft import Draft, window

#: Extents of a map above which a move that makes it larger does nothing.
LARGEST, WIDEST = 16, 12


def _conv(draft: Draft, n: Sequence[int]) -> None:
    value, (channels, *space) = draft.pick(n[0])
    made = window(space, n[1:5])
    if made is None:
        return
    attributes, out = made
    if n[5] % 3 == 2:  # depthwise
        weight, outputs, group = draft.weights(channels, 1, *attributes["kernel_shape"]), channels, channels
    else:
        outputs, group = 2 + n[5] % 5, 1
        weight = draft.weights(outputs, channels, *attributes["kernel_shape"])
    bias = [draft.weights(outputs)] * (n[5] % 2)
    draft.map(draft.add("Conv", value, weight, *bias, group=group, **attributes), (outputs, *out))


def _same_conv(draft: Draft, n: Sequence[int]) -> None:
    """A 3×3 convolution that keeps the size, the channels too for every other number."""
    value, (channels, *space) = draft.pick(n[0])
    outputs = channels if n[1] % 2 else 2 + n[2] % 4
    weight = draft.weights(outputs, channels, 3, 3)
    draft.map(draft.add("Conv", value, weight, draft.weights(outputs), pads=[1, 1, 1, 1]), (outputs, *space))


def _pool(draft: Draft, n: Sequence[int]) -> None:
    value, (channels, *space) = draft.pick(n[0])
    made = window(space, n[1:5])
    if made is None:
        return
    attributes, out = made
    operator = ("MaxPool", "AveragePool")[n[5] % 2]
    if operator == "AveragePool":
        if attributes.pop("dilations") != [1, 1]:
            return
        attributes["count_include_pad"] = n[5] // 2 % 2
    if n[5] % 5 == 4:
        ceiled = _ceiled(space, attributes)
        if ceiled is None:
            return
        attributes["ceil_mode"], out = 1, ceiled
    draft.map(draft.add(operator, value, **attributes), (channels, *out))


def _ceiled(space: Sequence[int], settings: dict[str, Any]) -> list[int] | None:
    """Extents with ceil_mode; None where a last window would start beyond the map, on which backends differ."""
    pads, dilations = settings["pads"], settings.get("dilations", [1, 1])
    out = []
    for axis in (0, 1):
        k, s = settings["kernel_shape"][axis], settings["strides"][axis]
        room = space[axis] + pads[axis] + pads[axis + 2] - dilations[axis] * (k - 1) - 1
        count = -(-room // s) + 1
        if (count - 1) * s >= space[axis] + pads[axis]:
            return None
        out.append(count)
    return out


#: name of a function -> its nodes, each (operator, further inputs, attributes), applied in turn.
FUNCTIONS: tuple[tuple[tuple[str, tuple[float, ...], dict[str, Any]], ...], ...] = (
    (("Relu", (), {}),),
    (("Sigmoid", (), {}),),
    (("HardSigmoid", (), {}),),
    (("Elu", (), {}),),
    (("LeakyRelu", (), {"alpha": 0.2}),),
    (("Neg", (), {}),),
    (("Tanh", (), {}),),
    (("Clip", (-0.3, 1.5), {}),),
    (("Clip", (0.25, 2.0), {}),),
    (("Add", (0.75,), {}),),
    (("Abs", (), {}), ("Add", (0.5,), {}), ("Log", (), {})),
    (("Abs", (), {}), ("Sub", (1e-7,), {}), ("Sqrt", (), {})),
    (("Softplus", (), {}), ("Reciprocal", (), {}), ("Tanh", (), {})),
    (("Abs", (), {}), ("Max", (0.1,), {}), ("Pow", (-0.5,), {})),
)


def _function(draft: Draft, n: Sequence[int]) -> None:
    value, shape = draft.pick(n[0])
    for operator, constants, attributes in FUNCTIONS[(n[1] + 12 * (n[2] % 2)) % len(FUNCTIONS)]:
        value = draft.add(operator, value, *map(np.array, constants), **attributes)
    draft.map(value, shape)


def _swish(draft: Draft, n: Sequence[int]) -> None:
    value, shape = draft.pick(n[0])
    gate = draft.add(("Sigmoid", "HardSigmoid")[n[1] % 2], value)
    draft.map(draft.add("Mul", *((value, gate) if n[2] % 2 else (gate, value))), shape)


def _join(draft: Draft, n: Sequence[int]) -> None:
    first, shape = draft.pick(n[0])
    second, _ = draft.alike(shape, n[1])
    operator = ("Add", "Sub", "Mul", "Max", "Min", "Sum", "Mean")[n[2] % 7]
    third = [draft.alike(shape, n[3])[0]] * (operator in ("Sum", "Mean", "Max") and n[4] % 2)
    draft.map(draft.add(operator, first, second, *third), shape)


def _concat(draft: Draft, n: Sequence[int]) -> None:
    parts = [draft.pick(n[0])]
    parts += [draft.alike(parts[0][1], number, channels=False) for number in n[1 : 2 + n[4] % 3]]
    channels = sum(shape[0] for _, shape in parts)
    if channels <= WIDEST:
        draft.map(draft.add("Concat", *(value for value, _ in parts), axis=1), (channels, *parts[0][1][1:]))


def _concat_space(draft: Draft, n: Sequence[int]) -> None:
    first, (channels, *space) = draft.pick(n[0])
    second, _ = draft.alike((channels, *space), n[1])
    axis = n[2] % 2
    if 2 * space[axis] <= LARGEST:
        space[axis] *= 2
        draft.map(draft.add("Concat", first, second, axis=axis + 2), (channels, *space))


def _squeeze_excite(draft: Draft, n: Sequence[int]) -> None:
    """A gate for each channel from a global pool, over the map that it was made from or another."""
    value, (channels, *space) = draft.pick(n[0])
    target, shape = draft.alike((channels, *space), n[1])
    operator = ("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "ReduceSum")[n[2] % 5]
    pooled = draft.add(operator, value, *[np.array([2, 3])] * operator.startswith("Reduce"))
    gate = draft.add("Conv", pooled, draft.weights(channels, channels, 1, 1), draft.weights(channels))
    if n[3] % 3:
        gate = draft.add("Sigmoid", gate)
    draft.map(draft.add(("Mul", "Mul", "Add")[n[4] % 3], target, gate), shape)


def _coordinate_attention(draft: Draft, n: Sequence[int]) -> None:
    """Gates from reductions over one spatial axis each."""
    value, shape = draft.pick(n[0])
    for axis in ((2,), (3,), (2, 3))[n[1] % 3]:
        operator = ("ReduceMean", "ReduceMax", "ReduceSum")[(n[2] + axis) % 3]
        strip = draft.add(operator, value, np.array([axis]))
        strip = draft.add("Conv", strip, draft.weights(shape[0], shape[0], 1, 1), draft.weights(shape[0]))
        value = draft.add("Mul", value, draft.add("Sigmoid", strip))
    draft.map(value, shape)


def _spatial_attention(draft: Draft, n: Sequence[int]) -> None:
    """CBAM: reductions over channels, a convolution, a gate for each position."""
    value, shape = draft.pick(n[0])
    operators = ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2")
    parts = [draft.add(operators[(n[1] + i) % 4], value, np.array([1])) for i in range(2)]
    joined = draft.add("Concat", *parts, axis=1)
    gate = draft.add("Sigmoid", draft.add("Conv", joined, draft.weights(1, 2, 3, 3), pads=[1, 1, 1, 1]))
    draft.map(draft.add("Mul", value, gate), shape)


def _response_norm(draft: Draft, n: Sequence[int]) -> None:
    """GRN of ConvNeXt V2: a norm over space, divided by its mean over channels."""
    value, shape = draft.pick(n[0])
    norm = draft.add("ReduceL2", value, np.array([2, 3]))
    mean = draft.add("Add", draft.add("ReduceMean", norm, np.array([1])), np.array(0.1))
    scaled = draft.add("Mul", value, draft.add("Div", norm, mean))
    draft.map(draft.add("Add", scaled, value) if n[1] % 2 else scaled, shape)


def _batch_norm(draft: Draft, n: Sequence[int]) -> None:
    value, shape = draft.pick(n[0])
    parameters = [make(shape[0]) for make in (draft.positive, draft.weights, draft.weights, draft.positive)]
    draft.map(draft.add("BatchNormalization", value, *parameters), shape)


def _instance_norm(draft: Draft, n: Sequence[int]) -> None:
    value, shape = draft.pick(n[0])
    normed = draft.add("InstanceNormalization", value, draft.positive(shape[0]), draft.weights(shape[0]), epsilon=0.25)
    draft.map(normed, shape)


def _group_norm(draft: Draft, n: Sequence[int]) -> None:
    """The form that exporters leave."""
    value, shape = draft.pick(n[0])
    groups = next(g for g in (1 + n[1] % 3, 2, 1) if shape[0] % g == 0)
    flat = draft.add("Reshape", value, np.array([0, groups, -1]))
    normed = draft.add("InstanceNormalization", flat, np.ones(groups), np.zeros(groups), epsilon=0.25)
    back = draft.add("Reshape", normed, np.array([0, *shape]))
    draft.map(draft.add("Mul", back, draft.positive(shape[0], 1, 1)), shape)


def _channels_last(draft: Draft, n: Sequence[int]) -> None:
    """A block in NHWC, or over a matrix of its pixels: norm, product, softmax or function, and back."""
    value, (channels, *space) = draft.pick(n[0])
    value = draft.add("Transpose", value, perm=[0, 2, 3, 1])
    as_rows = n[5] % 3 == 0
    if as_rows:
        value = draft.add("Reshape", value, np.array([-1, channels]))
    for number in n[1 : 2 + n[4] % 3]:
        kind = number % 5
        if kind == 0:
            value = draft.add(
                "LayerNormalization", value, draft.positive(channels), draft.weights(channels), epsilon=0.1
            )
        elif kind == 1:
            outputs = 2 + number % 4
            product = ("Gemm", (draft.weights(outputs),)) if as_rows and number % 2 else ("MatMul", ())
            value = draft.add(product[0], value, draft.weights(channels, outputs), *product[1])
            channels = outputs
        elif kind == 2:
            value = draft.add("Softmax", value, axis=-1)
        else:
            value = draft.add(("Relu", "Sigmoid")[kind % 2], value)
    if as_rows:
        value = draft.add("Reshape", value, np.array([-1, *space, channels]))
    draft.map(draft.add("Transpose", value, perm=[0, 3, 1, 2]), (channels, *space))


def _mix(draft: Draft, n: Sequence[int]) -> None:
    """Channels by a matrix: an Einsum, or a product from the left."""
    value, (channels, *space) = draft.pick(n[0])
    outputs = 2 + n[1] % 4
    matrix = draft.weights(outputs, channels)
    if n[2] % 2:
        equation = ("nchw,kc->nkhw", "nchw, kc -> nkwh")[n[3] % 2]
        space = space[::-1] if n[3] % 2 else space
        draft.map(draft.add("Einsum", value, matrix, equation=equation), (outputs, *space))
        return
    product = draft.add("MatMul", matrix, draft.add("Reshape", value, np.array([0, channels, -1])))
    draft.map(draft.add("Reshape", product, np.array([0, outputs, *space])), (outputs, *space))


def _shuffle(draft: Draft, n: Sequence[int]) -> None:
    value, (channels, *space) = draft.pick(n[0])
    groups = next((g for g in (2, 3) if channels % g == 0), 1)
    split = draft.add("Reshape", value, np.array([0, groups, channels // groups, *space]))
    turned = draft.add("Transpose", split, perm=[0, 2, 1, 3, 4])
    draft.map(draft.add("Reshape", turned, np.array([0, channels, *space])), (channels, *space))


def _merge_space(draft: Draft, n: Sequence[int]) -> None:
    value, (channels, *space) = draft.pick(n[0])
    flat = draft.add("Reshape", value, np.array([0, channels, -1]))
    if n[1] % 2:
        flat = draft.add("Sigmoid", flat)
    draft.map(draft.add("Reshape", flat, np.array([0, channels, *space])), (channels, *space))


def _gather(draft: Draft, n: Sequence[int]) -> None:
    value, shape = draft.pick(n[0])
    axis = n[5] % 3
    indices = np.array([(number * 5) % shape[axis] for number in n[1 : 3 + n[4] % 3]])
    taken = draft.add("Gather", value, indices, axis=1 + axis)
    draft.map(taken, [len(indices) if i == axis else extent for i, extent in enumerate(shape)])


def _slice(draft: Draft, n: Sequence[int]) -> None:
    """Over channels, or over space with a stride."""
    value, shape = draft.pick(n[0])
    axis = 1 + n[1] % 3
    extent = shape[axis - 1]
    start, stride = n[2] % max(1, extent // 2), 1 + n[3] % 2
    end = extent - n[4] % 2
    count = len(range(start, end, stride))
    if count < 1:
        return
    ends = np.array([end if n[5] % 2 else end - extent or 2**31])
    sliced = draft.add("Slice", value, np.array([start]), ends, np.array([axis]), np.array([stride]))
    draft.map(sliced, [count if i == axis - 1 else n for i, n in enumerate(shape)])


def _pad(draft: Draft, n: Sequence[int]) -> None:
    """A constant Pad before a window, or one that is cropped, or a reflect or edge Pad."""
    value, (channels, *space) = draft.pick(n[0])
    amounts = [n[1] % 3, n[2] % 3, n[3] % 3, n[4] % 2]
    pads = np.array([0, 0, *amounts[:2], 0, 0, *amounts[2:]])
    grown = [space[0] + amounts[0] + amounts[2], space[1] + amounts[1] + amounts[3]]
    mode = ("constant", "reflect", "edge")[n[5] % 3]
    if max(grown) > LARGEST or min(space) < 4:
        return
    if mode != "constant":
        draft.map(draft.add("Pad", value, pads, mode=mode), (channels, *grown))
        return
    padded = draft.add("Pad", value, pads, np.array(float(n[5] // 3 % 2) * -0.5))
    if n[5] // 6:
        last = np.array([2**31 - 1] * 2)
        padded = draft.add("Slice", padded, np.array([1, 1]), last, np.array([2, 3]))
        grown = [grown[0] - 1, grown[1] - 1]
    if n[5] // 3 % 2 or n[4] % 2:
        weight = draft.weights(3, channels, 3, 3)
        draft.map(draft.add("Conv", padded, weight, pads=[0, 0, 0, 0]), (3, grown[0] - 2, grown[1] - 2))
    else:
        operator = ("MaxPool", "AveragePool")[n[3] % 2]
        draft.map(draft.add(operator, padded, kernel_shape=[3, 3]), (channels, grown[0] - 2, grown[1] - 2))


def _space_to_depth(draft: Draft, n: Sequence[int]) -> None:
    value, (channels, height, width) = draft.pick(n[0])
    if height % 2 or width % 2 or 4 * channels > 2 * WIDEST:
        return
    draft.map(draft.add("SpaceToDepth", value, blocksize=2), (4 * channels, height // 2, width // 2))


def _resize(draft: Draft, n: Sequence[int]) -> None:
    value, (channels, *space) = draft.pick(n[0])
    factor = (2.0, 0.5, 1.5)[n[1] % 3]
    out = [int(np.floor(extent * factor)) for extent in space]
    if max(out) > LARGEST or min(out) < 1:
        return
    scales = np.array([1, 1, factor, factor], np.float32)
    attributes = (
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
    )[n[2] % 2]
    draft.map(draft.add("Resize", value, "", scales, **attributes), (channels, *out))


def _local_response(draft: Draft, n: Sequence[int]) -> None:
    value, shape = draft.pick(n[0])
    draft.map(draft.add("LRN", value, size=3, alpha=0.5, bias=1.0), shape)


def _split(draft: Draft, n: Sequence[int]) -> None:
    """Into two parts of the channels, one of which is joined to a function of the other."""
    value, (channels, *space) = draft.pick(n[0])
    if channels < 2:
        return
    first = 1 + n[1] % (channels - 1)
    parts = draft.add("Split", value, np.array([first, channels - first]), axis=1, outputs=2)
    draft.map(parts, (first, *space))
    draft.map(draft.add("Concat", f"{parts}:1", draft.add("Sigmoid", parts), axis=1), (channels, *space))


#: A move's name -> what it adds; one that does not fit adds nothing.
MOVES: dict[str, Callable[[Draft, Sequence[int]], None]] = {
    "batch norm": _batch_norm,
    "channels last": _channels_last,
    "concat": _concat,
    "concat space": _concat_space,
    "conv": _conv,
    "coordinate attention": _coordinate_attention,
    "function": _function,
    "gather": _gather,
    "group norm": _group_norm,
    "instance norm": _instance_norm,
    "join": _join,
    "local response": _local_response,
    "merge space": _merge_space,
    "mix": _mix,
    "pad": _pad,
    "pool": _pool,
    "resize": _resize,
    "response norm": _response_norm,
    "same conv": _same_conv,
    "shuffle": _shuffle,
    "slice": _slice,
    "space to depth": _space_to_depth,
    "spatial attention": _spatial_attention,
    "split": _split,
    "squeeze excite": _squeeze_excite,
    "swish": _swish,
}
