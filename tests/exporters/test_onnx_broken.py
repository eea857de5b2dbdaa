"""ONNX files that are not as they should be: put right where that is plain, and otherwise said in one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import lmonnx
from lmonnx.errors import SourceError, UnsupportedOpError
from lmonnx.runtime import Runner
from tests.cases import w
from tests.graphs import build, step

SHAPE = (3, 16, 16)
STEPS = (
    step("Conv", "x", w(4, 3, 3, 3), strides=[2, 2]),
    step("Relu", "0"),
    step("GlobalAveragePool", "1"),
    step("Flatten", "2"),
)
Change = Callable[[onnx.ModelProto], object]


def saved(path: Path, *changes: Change) -> Path:
    model = build(STEPS, SHAPE, 18)
    for change in changes:
        change(model)
    onnx.save(model, path)
    return path


def wide_kernel(model: onnx.ModelProto) -> None:
    weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    weight.CopyFrom(numpy_helper.from_array(np.ones((4, 5, 3, 3), np.float32), weight.name))


def added_to_another_size(model: onnx.ModelProto) -> None:
    model.graph.node[1].CopyFrom(helper.make_node("Add", ["value0", "offset"], ["value1"], "added"))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 4, 5, 5), np.float32), "offset"))
    del model.graph.value_info[:]


def added_as_integers(model: onnx.ModelProto) -> None:
    added_to_another_size(model)
    model.graph.initializer[-1].CopyFrom(numpy_helper.from_array(np.ones(1, np.int64), "offset"))


def sequence(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("SequenceConstruct", ["value3"], ["several"]))
    model.graph.output.append(helper.make_tensor_sequence_value_info("several", TensorProto.FLOAT, None))


def without_its_weights(model: onnx.ModelProto) -> None:
    del model.graph.initializer[:]


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (wide_kernel, r"do not fit each other: Conv 'node0': Input channels .* C: 3 kernel channels: 5"),
        (added_to_another_size, r"do not fit each other: (Add )?.*added.*; write the model again"),
        (added_as_integers, r"do not fit each other: .*tensor\(int64\).*; write the model again"),
        (sequence, r"the output 'several' of \S+in\.onnx is a sequence, not a tensor; write the model without it"),
        (without_its_weights, r"Conv 'node0' of \S+ reads 'constant0_1', which is neither an input nor an initializer"),
        (lambda model: setattr(model, "ir_version", 99), "with a lower ir_version, or upgrade the package onnx"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_made_of_it(
    change: Change, message: str, verify: bool, tmp_path: Path
) -> None:
    path = saved(tmp_path / "in.onnx", change)
    with pytest.raises(SourceError, match=message) as caught:
        lmonnx.export(path, tmp_path / "out.onnx", verify=verify)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in.onnx"]


@pytest.mark.parametrize("content", [b"", b"hello world" * 100, None])
def test_what_is_no_onnx_file(content: bytes | None, tmp_path: Path) -> None:
    path = saved(tmp_path / "in.onnx")
    path.write_bytes(path.read_bytes()[:300] if content is None else content)
    with pytest.raises(SourceError, match="it is damaged, or no ONNX file; fetch or write it again"):
        lmonnx.export(path, tmp_path / "out.onnx")


def test_a_size_that_the_nodes_do_not_fit(tmp_path: Path) -> None:
    path = saved(tmp_path / "in.onnx", added_to_another_size, open_size)
    with pytest.raises(SourceError, match=r"images of 20×20: .*; try another size, or write the model again"):
        lmonnx.export(path, tmp_path / "out.onnx", size=20)
    assert lmonnx.export(path, tmp_path / "out.onnx", size=12).verification


def open_size(model: onnx.ModelProto) -> None:
    for axis, name in ((2, "h"), (3, "w")):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name


@pytest.mark.parametrize("beside", [True, False])
def test_nodes_in_any_order(beside: bool, tmp_path: Path) -> None:
    """As onnxruntime's converter to float16 leaves the Cast of the image behind the node that reads it."""
    path = saved(tmp_path / "in.onnx")
    model = onnx.load(path)
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, path, save_as_external_data=beside, location="in.data", size_threshold=0)
    with pytest.raises(onnx.checker.ValidationError, match="topologically sorted"):
        onnx.checker.check_model(str(path))
    assert lmonnx.export(path, tmp_path / "out.onnx").verification


@pytest.mark.parametrize("field", ["type", "shape"])
def test_an_output_without_a_shape(field: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "in.onnx", lambda model: _without(model.graph.output[0], field))
    with pytest.raises(onnx.checker.ValidationError, match=f"Field '{field}' of"):
        onnx.checker.check_model(str(path))
    assert lmonnx.export(path, tmp_path / "out.onnx").verification
    path = saved(tmp_path / "in.onnx", lambda model: _without(model.graph.input[0], field))
    with pytest.raises(SourceError, match="write it again with the types and shapes of its inputs and outputs"):
        lmonnx.export(path, tmp_path / "out.onnx")


def _without(value: onnx.ValueInfoProto, field: str) -> None:
    if field == "type":
        value.ClearField("type")
    else:
        value.type.tensor_type.ClearField("shape")


def test_nodes_that_wait_for_each_other(tmp_path: Path) -> None:
    def cycle(model: onnx.ModelProto) -> None:
        model.graph.node[0].input[0] = "value1"

    with pytest.raises(SourceError, match="nodes that wait for each other"):
        lmonnx.export(saved(tmp_path / "in.onnx", cycle), tmp_path / "out.onnx")


def test_float16_between_casts(tmp_path: Path) -> None:
    """What onnxruntime's converter makes of a model whose inputs and outputs stay float32."""
    float16 = pytest.importorskip("onnxruntime.transformers.float16")
    model = float16.convert_float_to_float16(build(STEPS, SHAPE, 18), keep_io_types=True)
    onnx.save(model, tmp_path / "in.onnx")
    result = lmonnx.export(tmp_path / "in.onnx", tmp_path / "out.onnx")
    assert result.verification
    assert result.verification.passed


def branching(condition: str) -> Change:
    """An If in place of the Relu: a Relu where it is true, its negative where it is not."""
    value = [helper.make_empty_tensor_value_info("branch")]
    branches = {
        f"{name}_branch": helper.make_graph(nodes, name, [], value)
        for name, nodes in {
            "then": [helper.make_node("Relu", ["value0"], ["branch"])],
            "else": [
                helper.make_node("Relu", ["value0"], ["kept"]), helper.make_node("Neg", ["kept"], ["branch"]),
            ],
        }.items()
    }  # fmt: skip
    steps = {
        "initializer": [],
        "size": [
            helper.make_node("Shape", ["x"], ["shape"]),
            helper.make_node("Gather", ["shape", "three"], ["width"]),
            helper.make_node("Equal", ["width", "wide"], ["condition"]),
        ],
        "image": [
            helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
            helper.make_node("Cast", ["sum"], ["condition"], to=TensorProto.BOOL),
        ],
        "batch": [
            helper.make_node("Shape", ["x"], ["shape"]),
            helper.make_node("Gather", ["shape", "zero"], ["rows"]),
            helper.make_node("Equal", ["rows", "three"], ["condition"]),
        ],
    }[condition]
    numbers = {"zero": np.array(0), "three": np.array(3), "wide": np.array(16)}
    numbers |= {"condition": np.array(False)} if condition == "initializer" else {}

    def change(model: onnx.ModelProto) -> None:
        nodes = list(model.graph.node)
        del model.graph.node[:], model.graph.value_info[:]
        chosen = helper.make_node("If", ["condition"], ["value1"], "chosen", **branches)
        model.graph.node.extend([nodes[0], *steps, chosen, *nodes[2:]])
        model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in numbers.items())

    return change


@pytest.mark.parametrize(("condition", "size"), [("initializer", 16), ("size", 16), ("size", 12)])
def test_an_if_that_is_decided_before_the_graph_runs(condition: str, size: int, tmp_path: Path) -> None:
    """It is the branch that is taken, to the lowering and to the reference."""
    path = saved(tmp_path / "in.onnx", branching(condition), open_size)
    result = lmonnx.export(path, tmp_path / "out.onnx", size=size)
    assert result.verification
    assert "If" not in {node.op_type for node in onnx.load(result.path).graph.node}
    image = np.random.default_rng(0).normal(size=(1, 3, size, size)).astype(np.float32)
    (output,) = Runner(result.path, provider="cpu").run(image, np.ones((1, 1, size, size), bool)).values()
    assert (output.sum() > 0) == (condition == "size" and size == 16)


@pytest.mark.parametrize("condition", ["image", "batch"])
def test_an_if_that_is_decided_when_the_graph_runs_is_refused(condition: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "in.onnx", branching(condition))
    for verify in (True, False):
        with pytest.raises(UnsupportedOpError, match=r"If 'chosen' .*control flow is not followed"):
            lmonnx.export(path, tmp_path / "out.onnx", verify=verify)


def test_weights_beside_a_source_that_are_not_there(tmp_path: Path) -> None:
    path = saved(tmp_path / "in.onnx")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="in.data", size_threshold=0)
    (tmp_path / "in.data").write_bytes((tmp_path / "in.data").read_bytes()[:100])
    with pytest.raises(SourceError, match=r"in\.data does not hold 'constant0_1' .*; fetch or write both files again"):
        lmonnx.export(path, tmp_path / "out.onnx")
    (tmp_path / "moved").mkdir()
    shutil.move(path, tmp_path / "moved" / "in.onnx")
    with pytest.raises(SourceError, match=r"should be stored in .*; put that file there, or write the model again"):
        lmonnx.export(tmp_path / "moved" / "in.onnx", tmp_path / "out.onnx")
