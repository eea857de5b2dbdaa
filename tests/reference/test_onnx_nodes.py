"""The ONNX front end: against ONNX's own evaluator without a mask, against the ATen front end with one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_cases import CASES, f32, i64
from reference_networks import SIZE, Everything
from torch import Tensor

from lmonnx.errors import OptionError, UnsupportedOpError
from lmonnx.masking import MaskRules
from lmonnx.reference import ONNX_OPERATORS, Masked, Node, NodeProgram, mask_aware, mask_aware_nodes

VALID, AREA = MaskRules(), MaskRules(average="area")


def nodes_of(graph: onnx.GraphProto) -> list[Node]:
    def value(attribute: onnx.AttributeProto) -> Any:
        found = helper.get_attribute_value(attribute)
        if isinstance(found, onnx.TensorProto):
            return numpy_helper.to_array(found)
        return found.decode() if isinstance(found, bytes) else found

    return [
        Node(
            node.name,
            node.op_type,
            tuple(node.input),
            tuple(node.output),
            {attribute.name: value(attribute) for attribute in node.attribute},
            node.domain,
        )
        for node in graph.node
    ]


def program_of(model: onnx.ModelProto, rules: MaskRules = VALID, layout: str = "NCHW") -> NodeProgram:
    graph = model.graph
    return mask_aware_nodes(
        nodes_of(graph),
        {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer},
        image=graph.input[0].name,
        outputs=[output.name for output in graph.output],
        opset=model.opset_import[0].version,
        rules=rules,
        layout=layout,
    )


def model_of(nodes: list[onnx.NodeProto], parameters: dict[str, Any], opset: int) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "c", "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in parameters.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


IDS = [f"{operator}-{opset}-{index}" for index, (operator, opset, _, _) in enumerate(CASES)]


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def mask() -> Tensor:
    return torch.rand(2, 1, 6, 5, generator=torch.Generator().manual_seed(2)) > 0.5


def test_every_operator_has_a_case() -> None:
    assert {operator for operator, *_ in CASES} == set(ONNX_OPERATORS)


@pytest.mark.parametrize(("operator", "opset", "nodes", "parameters"), CASES, ids=IDS)
def test_operator_is_onnxs_where_all_is_kept_and_blind_where_not(
    operator: str, opset: int, nodes: Any, parameters: Any, image: Tensor, mask: Tensor
) -> None:
    model = model_of(nodes, parameters, opset)
    (expected,) = ReferenceEvaluator(model).run(None, {"x": image.numpy()})
    (found,) = program_of(model, AREA)(image, torch.ones_like(mask))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-5)

    program = program_of(model)
    (masked,) = program(image, mask)
    (blind,) = program(torch.where(mask, image, math.nan), mask)
    assert torch.equal(masked, blind)
    assert masked.isfinite().all()
    assert program(image, torch.zeros_like(mask))[0].isfinite().all()


# torch.onnx.export itself does what this warns about.
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning")
@pytest.mark.parametrize("opset", [18, 21])
def test_both_front_ends_agree(opset: int) -> None:
    torch.manual_seed(0)
    network = Everything().eval()
    example = torch.zeros(2, 3, *SIZE)
    exported = torch.onnx.export(
        network,
        (example,),
        dynamo=True,
        opset_version=opset,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    assert exported is not None
    model = exported.model_proto
    assert model.opset_import[0].version == opset
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(3, 3, *SIZE, generator=generator, dtype=torch.float64)
    mask = torch.rand(3, 1, *SIZE, generator=generator) > 0.6
    with torch.no_grad():
        for rules in (MaskRules(), MaskRules(average="area", concat="any")):
            (found,) = program_of(model, rules)(image, mask)
            expected = mask_aware(network, rules=rules)(image, mask)
            torch.testing.assert_close(found, expected, rtol=0, atol=3e-7)  # the file's constants are float32


def test_values_are_named_with_their_masks_and_axes(image: Tensor, mask: Tensor) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "w"], ["conv"], kernel_shape=[3, 3], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["conv"], ["y"]),
    ]
    program = program_of(model_of(nodes, {"w": f32(3, 4, 3, 3)}, 17), layout="NHWC")
    values = program.values(image, mask)
    assert list(values) == ["x", "nchw", "conv", "y"]
    start, conv, pooled = values["x"], values["conv"], values["y"]
    assert isinstance(start, Masked)
    assert start.axes == (1, 2)
    assert start.mask.shape == (2, 6, 5, 1)
    assert isinstance(conv, Masked)
    assert conv.axes == (2, 3)
    assert torch.equal(conv.mask, torch.nn.functional.max_pool2d(mask.float(), 3, 2) > 0)
    assert isinstance(pooled, Tensor)
    assert torch.equal(program(image, mask)[0], pooled)


def test_group_normalisation_as_exporters_unroll_it(image: Tensor, mask: Tensor) -> None:
    unrolled = [
        helper.make_node("Reshape", ["x", "folded"], ["f"]),
        helper.make_node("InstanceNormalization", ["f", "one", "zero"], ["n"]),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Reshape", ["n", "shape"], ["m"]),
        helper.make_node("Mul", ["m", "s"], ["y"]),
    ]
    ones, scale = np.ones(2, np.float32), f32(4, 1, 1)
    parameters = {"folded": i64(0, 2, -1), "one": ones, "zero": 0 * ones, "s": scale}
    whole = [helper.make_node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2)]
    (found,) = program_of(model_of(unrolled, parameters, 18))(image, mask)
    group = {"s": scale.reshape(4), "b": np.zeros(4, np.float32)}
    (expected,) = program_of(model_of(whole, group, 21))(image, mask)
    torch.testing.assert_close(found, expected)


def test_group_normalisation_by_hand(image: Tensor, mask: Tensor) -> None:
    nodes = [helper.make_node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2, epsilon=1e-3)]
    scale, bias = f32(2), f32(2, seed=1)
    (found,) = program_of(model_of(nodes, {"s": scale, "b": bias}, 18))(image, mask)
    for row in range(2):
        for group in range(2):
            kept = image[row, 2 * group : 2 * group + 2][:, mask[row, 0]]
            expected = (kept - kept.mean()) / (kept.var(correction=0) + 1e-3).sqrt()
            expected = expected * scale[group].item() + bias[group].item()
            torch.testing.assert_close(found[row, 2 * group : 2 * group + 2][:, mask[row, 0]], expected)


SINGULAR = {
    "Div": helper.make_node("Div", ["one", "c"], ["d"]),
    "Log": helper.make_node("Log", ["c"], ["d"]),
    "Pow": helper.make_node("Pow", ["c", "exponent"], ["d"]),
    "Reciprocal": helper.make_node("Reciprocal", ["c"], ["d"]),
    "Sqrt": helper.make_node("Sqrt", ["c"], ["d"]),
}


@pytest.mark.parametrize("operator", SINGULAR)
def test_functions_that_are_not_finite_at_zero_leave_gradients_finite(operator: str) -> None:
    """A removed pixel is far below the kept ones, so that its sigmoid is exactly 0."""
    nodes = [
        helper.make_node("InstanceNormalization", ["x", "scale", "bias"], ["n"]),
        helper.make_node("Sigmoid", ["n"], ["c"]),
        SINGULAR[operator],
        helper.make_node("GlobalAveragePool", ["d"], ["y"]),
    ]
    parameters = {"scale": np.full(4, 4, np.float32), "bias": np.zeros(4, np.float32)}
    parameters |= {"one": np.float32(1), "exponent": np.float32(-1)}
    image = 1 + 0.1 * torch.rand(1, 4, 9, 9, generator=torch.Generator().manual_seed(0))
    image.requires_grad_()
    mask = torch.zeros(1, 1, 9, 9, dtype=torch.bool)
    mask[..., :4] = True
    (found,) = program_of(model_of(nodes, parameters, 17))(image, mask)
    found.sum().backward()
    assert found.isfinite().all()
    assert image.grad is not None
    assert image.grad.isfinite().all()
    assert image.grad[..., :4].any()


REFUSED = {
    "indices": (helper.make_node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2]), 18, "indices"),
    "squeeze of all": (helper.make_node("Squeeze", ["x"], ["y"]), 12, "batch"),
    "softmax before 13": (helper.make_node("Softmax", ["x"], ["y"]), 12, "softmax over space"),
    "no rule": (helper.make_node("Trilu", ["x"], ["y"]), 18, "no rule"),
    "undefined": (helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=2), 18, "channels as pixels"),
    "resize to nothing": (helper.make_node("Resize", ["x"], ["y"]), 18, "neither scales nor sizes"),
    "cubic": (helper.make_node("Resize", ["x"], ["y"], mode="cubic"), 18, "cubic"),
    "antialiased": (helper.make_node("Resize", ["x"], ["y"], mode="linear", antialias=1), 18, "antialiased"),
    "logarithm over space": (helper.make_node("ReduceLogSumExp", ["x"], ["y"], axes=[2, 3]), 17, "over space"),
    "normalised batch": (helper.make_node("MeanVarianceNormalization", ["x"], ["y"]), 18, "over the batch"),
    "sliced batch": (helper.make_node("Slice", ["x"], ["y"], starts=[1], ends=[2], axes=[0]), 9, "slices the batch"),
    "unknown domain": (helper.make_node("Relu", ["x"], ["y"], domain="com.example"), 18, "com.example"),
    "pending output": (helper.make_node("Pad", ["x"], ["y"], pads=[0, 0, 1, 1, 0, 0, 1, 1]), 10, "constant Pad"),
    "two products": (helper.make_node("MatMul", ["x", "x"], ["y"]), 18, "two activations"),
    "masked parameter": (helper.make_node("Conv", ["x", "x"], ["y"]), 18, "parameters is masked"),
    "batch concatenation": (helper.make_node("Concat", ["x", "x"], ["y"], axis=0), 18, "batch"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_meaning_is_refused(name: str, image: Tensor, mask: Tensor) -> None:
    node, opset, why = REFUSED[name]
    node.name = "offender"
    with pytest.raises(UnsupportedOpError, match=why) as caught:
        program_of(model_of([node], {}, opset))(image, mask)
    assert len(caught.value.offences) == 1
    assert caught.value.offences[0].inputs[0].startswith("batch×4×")


def test_an_upsample_of_opset_9_is_a_resize(image: Tensor, mask: Tensor) -> None:
    scales = {"scales": np.array([1, 1, 2, 3], np.float32)}
    node = helper.make_node("Upsample", ["x", "scales"], ["y"], mode="nearest")
    (found,) = program_of(model_of([node], scales, 9))(image, mask)
    expected = torch.where(mask, image, 0).repeat_interleave(2, 2).repeat_interleave(3, 3)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_quantised_numbers_round_half_to_even_and_saturate() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    parameters = {"s": np.array(0.5, np.float16), "z": np.array(-3, np.int8)}
    image = torch.tensor([0.25, 0.75, -0.25, 1.25, 400, -400, 9, 9], dtype=torch.float64).reshape(1, 1, 2, 4)
    mask = torch.tensor([True] * 7 + [False]).reshape(1, 1, 2, 4)
    (found,) = program_of(model_of(nodes, parameters, 19))(image, mask)
    assert found.flatten().tolist() == [0, 1, 0, 1, 65, -62.5, 9, 0]


def test_a_quantised_map_is_not_zeroed(image: Tensor, mask: Tensor) -> None:
    nodes = [helper.make_node("QuantizeLinear", ["x", "s"], ["q"]), helper.make_node("Flatten", ["q"], ["y"])]
    with pytest.raises(UnsupportedOpError, match="quantised numbers"):
        program_of(model_of(nodes, {"s": np.array(0.5, np.float32)}, 19))(image, mask)


def test_strings_are_refused(image: Tensor, mask: Tensor) -> None:
    nodes = [Node("n", "Add", ("x", "names"), ("y",), {})]
    program = mask_aware_nodes(nodes, {"names": np.array(["a"])}, image="x", outputs=["y"], opset=18)
    with pytest.raises(UnsupportedOpError, match="strings"):
        program(image, mask)


def test_what_pytorch_cannot_compute_names_the_node(image: Tensor, mask: Tensor) -> None:
    nodes = [Node("sum of shapes", "Add", ("x", "odd"), ("y",), {})]
    program = mask_aware_nodes(nodes, {"odd": np.ones(64, np.float32)}, image="x", outputs=["y"], opset=18)
    with pytest.raises(UnsupportedOpError, match=r"'sum of shapes' .*: the reference cannot compute it: The size"):
        program(image, mask)


def test_arguments_are_checked() -> None:
    with pytest.raises(OptionError, match="opsets"):
        mask_aware_nodes([], {}, image="x", outputs=["x"], opset=8)
    with pytest.raises(OptionError, match="layout"):
        mask_aware_nodes([], {}, image="x", outputs=["x"], opset=9, layout="CHWN")
    with pytest.raises(OptionError, match="'z'"):
        mask_aware_nodes([], {}, image="x", outputs=["z"], opset=9)
