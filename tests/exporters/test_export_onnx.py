"""ONNX files of every layout, batch and precision become masked graphs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import lmonnx
from lmonnx.errors import VerificationError
from lmonnx.exporters.sources import resolve
from lmonnx.exporters.verification import Row, Verification
from lmonnx.runtime import Preprocessing, Runner
from tests.cases import w
from tests.exporters.small import HEAD, onnx_file
from tests.graphs import Step, build, step
from tests.mutations import any_for_all, one_ring_fewer


def test_onnx_file_is_proven_by_the_other_front_end(tmp_path: Path) -> None:
    preprocessing = Preprocessing(size=(32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)
    source = onnx_file(tmp_path / "in.onnx", *HEAD, step("Softmax", "3", axis=1))
    result = lmonnx.export(source, tmp_path / "out.onnx", preprocessing=preprocessing)
    contract = Runner(result.path, provider="cpu").contract
    assert contract.verified["reference"] == "onnx"
    assert contract.outputs == {"value4": "probabilities"}
    assert contract.preprocessing == preprocessing
    assert json.loads(contract.to_props()["lmonnx.source"])["name"] == "in.onnx"


@pytest.mark.parametrize("name", ["image", "mask", "value0"])
def test_names_of_the_source_may_be_those_of_the_contract(name: str, tmp_path: Path) -> None:
    model = build(HEAD, (3, 32, 32), 18)
    for node in model.graph.node:
        for names in (node.input, node.output):
            for i, value in enumerate(names):
                names[i] = {"value1": name, "value0": "first"}.get(value, value)
    onnx.save(model, tmp_path / "in.onnx")
    assert lmonnx.export(tmp_path / "in.onnx", tmp_path / "out.onnx").verification


def test_nhwc_input_becomes_nchw(tmp_path: Path) -> None:
    there, back = step("Transpose", "x", perm=[0, 3, 1, 2]), step("Transpose", "1", perm=[0, 2, 3, 1])
    steps = (there, step("Conv", "0", w(4, 3, 3, 3)), back, step("ReduceMean", "2", np.array([1, 2]), keepdims=0))
    source = onnx_file(tmp_path / "in.onnx", *steps, shape=(32, 40, 3))
    result = lmonnx.export(source, tmp_path / "out.onnx")
    runner = Runner(result.path, provider="cpu")
    assert runner.size == (32, 40)
    assert runner.contract.source["layout"] == "NHWC"


def test_batch_of_one_in_the_file(tmp_path: Path) -> None:
    model = build(HEAD, (3, 32, 32), 18)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "in.onnx")
    assert lmonnx.export(tmp_path / "in.onnx", tmp_path / "out.onnx").verification


@pytest.mark.parametrize("target", [[1, 4], [1, -1]])
def test_reshape_to_a_batch_of_one_keeps_the_batch(target: list[int], tmp_path: Path) -> None:
    model = build((*HEAD[:3], step("Reshape", "2", np.array(target))), (3, 32, 32), 18)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "in.onnx")
    assert lmonnx.export(tmp_path / "in.onnx", tmp_path / "out.onnx").verification


def test_reshape_by_the_size_of_the_batch(tmp_path: Path) -> None:
    size = (step("Shape", "2"), step("Gather", "3", np.array(0)), step("Unsqueeze", "4", np.array([0])))
    steps = (*HEAD[:3], *size, step("Concat", "5", np.array([-1]), axis=0), step("Reshape", "2", "6"))
    assert lmonnx.export(onnx_file(tmp_path / "in.onnx", *steps), tmp_path / "out.onnx").verification


def test_weights_beside_the_file(tmp_path: Path) -> None:
    model = build(HEAD, (3, 32, 32), 18)
    onnx.save(model, tmp_path / "in.onnx", save_as_external_data=True, location="in.data", size_threshold=0)
    (tmp_path / "elsewhere").mkdir()
    result = lmonnx.export(tmp_path / "in.onnx", tmp_path / "elsewhere" / "out.onnx")
    assert result.verification
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["out.onnx"]


def test_old_files_list_initializers_among_the_inputs(tmp_path: Path) -> None:
    model = build(HEAD, (3, 32, 32), 9)
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    onnx.save(model, tmp_path / "in.onnx")
    assert lmonnx.export(tmp_path / "in.onnx", tmp_path / "out.onnx").verification


def test_outputs_keep_their_names(tmp_path: Path) -> None:
    model = build((*HEAD, step("Flatten", "2"), step("Add", "3", "4")), (3, 32, 32), 18)
    model.graph.output.append(onnx.helper.make_tensor_value_info("value4", 1, ["n", 4]))
    onnx.save(model, tmp_path / "in.onnx")
    result = lmonnx.export(tmp_path / "in.onnx", tmp_path / "out.onnx")
    assert list(Runner(result.path, provider="cpu").contract.outputs) == ["value5", "value4"]


def half(*steps: Step) -> onnx.ModelProto:
    """A model that takes, computes in and gives float16."""
    return build(steps, (3, 32, 32), 18, np.float16)


def quantised() -> onnx.ModelProto:
    """A convolution whose input, weights and output are 8 bits wide."""
    scale, zero = np.array(0.03), np.array(120, np.uint8)
    weight = np.random.default_rng(0).integers(-90, 90, (8, 3, 3, 3)).astype(np.int8)
    steps = (
        step("QuantizeLinear", "x", scale, zero),
        step("DequantizeLinear", "0", scale, zero),
        step("DequantizeLinear", weight, np.array(0.004)),
        step("Conv", "1", "2", strides=[2, 2]),
        step("QuantizeLinear", "3", np.array(0.05), zero),
        step("DequantizeLinear", "4", np.array(0.05), zero),
        step("Relu", "5"),
        step("Conv", "6", w(4, 8, 3, 3)),
        step("GlobalAveragePool", "7"),
        step("Flatten", "8"),
    )
    return build(steps, (3, 32, 32), 18)


@pytest.mark.parametrize("kind", ["float16", "int8"])
@pytest.mark.parametrize("fault", [None, one_ring_fewer, any_for_all])
def test_what_rounds_coarsely_is_measured_by_its_own_rounding(
    kind: str, fault: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    residual = (step("Conv", "1", w(4, 4, 3, 3), pads=[1, 1, 1, 1]), step("Add", "1", "2"))
    behind = (step("Conv", "3", w(4, 4, 3, 3)), step("GlobalAveragePool", "4"), step("Flatten", "5"))
    onnx.save(half(*HEAD[:2], *residual, *behind) if kind == "float16" else quantised(), tmp_path / "in.onnx")
    network = resolve(tmp_path / "in.onnx")
    assert network.precision == kind
    if fault is not None and not (fault is any_for_all and kind == "int8"):  # nothing is joined there
        fault(monkeypatch)  # type: ignore[operator]
        with pytest.raises(VerificationError, match="FAILED"):
            lmonnx.export(tmp_path / "in.onnx", tmp_path / "out.onnx")
        return
    verification = lmonnx.export(tmp_path / "in.onnx", tmp_path / "out.onnx").verification
    assert verification is not None
    rounding = verification.rows[0].reference
    if kind == "float16":
        assert rounding > 1e-5
        assert min(row.reference for row in verification.rows) == rounding  # a mask may make more of it, never less
    assert verification.tolerance == pytest.approx(4 * max(row.reference for row in verification.rows) + 2e-5)


def test_a_proof_that_float32_tells_nothing_about_has_a_largest_difference() -> None:
    rows = tuple(Row(name, 1e-6, 1.0) for name in ("all True", "all False", "original, no mask"))
    assert Verification(rows, 2e-5, "onnx").passed
    assert Verification(rows, 2e-5, "onnx").summary()["largest"] == 1e-6
