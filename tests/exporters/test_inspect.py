"""What a finished file consists of: the network is found again in it, and costs are those of arithmetic by hand."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import lmonnx
from lmonnx.errors import ModelError
from lmonnx.exporters.anatomy import WORK, dissect
from lmonnx.exporters.costs import OPERATIONS, Cost, cost_of, one_row
from lmonnx.exporters.inspection import Inspection, Stage, inspect
from lmonnx.exporters.lowering.engine import lower
from lmonnx.exporters.lowering.registry import RULES
from lmonnx.exporters.normalise import normalise
from lmonnx.exporters.package import contract_of, write
from lmonnx.exporters.sources import resolve
from lmonnx.exporters.sources.torchvision import import_torchvision
from lmonnx.masking import MaskRules
from tests.cases import CASES, Case, w
from tests.graphs import build, lowered, step

SIZE = (96, 64)
HEAD = (
    step("Conv", "x", w(4, 3, 3, 3), strides=[2, 2]),
    step("Relu", "0"),
    step("GlobalAveragePool", "1"),
    step("Flatten", "2"),
)
#: A pool over all of space is written as a reduction.
WRITTEN_AS = {"AveragePool": "ReduceMean", "GlobalAveragePool": "ReduceMean", "GlobalMaxPool": "ReduceMax"}
#: Cases whose network the file cannot show node by node, and how often it lacks which operator: Pads that became a
#: convolution's own, an Identity, the Transpose that meets the one behind an NHWC input.
LACKING = {
    "Pad/zero, then Conv": {"Pad": 1},
    "Pad/zero, then padded Conv": {"Pad": 1},
    "Pad/no pixels": {"Pad": 1},
    "Conv/residual behind a Pad": {"Pad": 1},
    "Concat/one operand": {"Identity": 1},
    "Transpose/NHWC input": {"Transpose": 1},
    "Transpose/behind a Pad": {"Transpose": 2, "Pad": 1},
}
#: What is written as several operators or as another one: normalisations over space, a Pad that cuts or wraps, and what
#: means SpaceToDepth or a dense layer over channels.
TAKEN_APART = (
    "InstanceNormalization",
    "GroupNormalization",
    "LayerNormalization/over space",
    "MeanVarianceNormalization",
    "Pad/cut",
    "Pad/wrap",
    "Pad/zero, cut by a Pad",
    "SpaceToDepth/taken apart",
    "Gemm/over pixels as rows",
)


def export(folder: Path, *steps: object, shape: tuple[int, ...] = (3, 32, 32)) -> Path:
    onnx.save(build(steps, shape, 18), folder / "in.onnx")  # type: ignore[arg-type]
    return lmonnx.export(folder / "in.onnx", folder / "out.onnx", verify=False).path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("small"), *HEAD)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_the_network_is_found_again(name: str, tmp_path: Path) -> None:
    network = resolve(name, weights="seed:0", size=SIZE)
    source = normalise(network.graph, network.size, network.layout)
    model = lower(source, MaskRules()).model
    passes.RemoveUnusedNodesPass()(model)
    write(model, contract_of(network, model, MaskRules(), {"passed": None}), tmp_path / "out.onnx")
    inspection = inspect(tmp_path / "out.onnx")
    one_row(source)
    nodes = list(source.graph)
    assert inspection.operators == Counter(node.op_type for node in nodes)
    assert inspection.total.network == sum(map(cost_of, nodes), Cost())
    read = {value for node in nodes for value in node.inputs if value is not None and value.const_value is not None}
    assert inspection.weights == sum(value.const_value.nbytes for value in read if value.const_value is not None)
    products = sum(cost_of(node).operations or 0 for node in nodes if node.op_type in ("Conv", "Gemm"))
    assert products == _counted_by_torch(name)
    _sums_agree(inspection)


def _counted_by_torch(name: str) -> int:
    """Convolutions and linear layers of one image, a multiply-add being two."""
    module = import_torchvision().models.get_model(name, weights=None).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros(1, 3, *SIZE))
    return int(counter.get_total_flops())


def _sums_agree(inspection: Inspection) -> None:
    rules = sum(inspection.rules.values(), Cost())
    assert rules == inspection.total.added
    proto = onnx.load(inspection.description.path)
    assert len(proto.graph.node) == inspection.total.network.nodes + inspection.total.added.nodes


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_operator_is_found_again(case: Case) -> None:
    model = lowered(case.model(), case.rules, case.layout).model
    passes.RemoveUnusedNodesPass()(model)
    found = Counter(part.node.op_type for part in dissect(model.graph).parts if not part.added)
    if case.name.startswith(TAKEN_APART):
        assert set(found) - {step.operator for step in case.steps} <= set(WORK.get(case.operator, ()))
        return
    assert _means(found + Counter(LACKING.get(case.name, {}))) == _means(_as_written(case))


def _means(operators: Counter[str]) -> Counter[str]:
    """The same with one name for all means: over rows of odd extents a reduction is a pool."""
    return Counter("ReduceMean" if name in WORK["ReduceMean"] else name for name in operators.elements())


def _as_written(case: Case) -> Counter[str]:
    """The operators of the normalised source, a pool over the whole map as a reduction."""
    source = ir.from_proto(case.model())
    shape = [extent if isinstance(extent, int) else 0 for extent in source.graph.inputs[0].shape or ()]
    size = (shape[1], shape[2]) if case.layout == "NHWC" else (shape[2], shape[3])
    nodes = normalise(source, size, case.layout).graph
    whole = "whole map" in case.name
    names = WRITTEN_AS | {"MaxPool": "ReduceMax"} if whole else {k: v for k, v in WRITTEN_AS.items() if "Global" in k}
    return Counter(names.get(node.op_type, node.op_type) for node in nodes)


def test_every_rule_has_a_formula() -> None:
    assert set(RULES) <= set(OPERATIONS)


def test_costs_by_hand(small: Path) -> None:
    inspection = inspect(small)
    image, mask, out, kept = 3 * 32 * 32, 32 * 32, 4 * 15 * 15, 15 * 15
    assert [stage.extents for stage in inspection.stages] == [(32, 32), (15, 15), None]
    first, second, last = inspection.stages
    assert first.network == Cost(1, 2 * out * 27, 4 * (image + out))
    assert second.network == Cost(2, out + out, 4 * (2 * out + out + 4))
    assert last.network == Cost(1, 0, 0)
    # Of each of two rings: cast, ⋅ 9, pool, 9 −, + epsilon, ÷; of the data pool, multiply, add. What the first reaches.
    ring = mask * (2 + 9 + 3) + image * (9 + 1 + 1)
    seen = kept * (18 + 1)
    assert inspection.rules["Conv"].operations == 2 * ring + mask + seen
    # The Where; the mask expanded to the batch, whose shape is int64: read and written as one number, then four, twice.
    assert inspection.rules["contract"] == Cost(4, image, mask + 4 * (image + image) + 2 * mask + 8 * (1 + 4 + 4))
    assert inspection.rules["GlobalAveragePool"].operations == kept + out + kept + 1 + 4
    # The input; grown by one ring; what the stride keeps.
    assert [stage.masks for stage in inspection.stages] == [2, 1, 0]
    assert inspection.weights == 4 * (4 * 27) + 8 * 2  # the shape of the Flatten is int64
    _sums_agree(inspection)


def test_maps_are_found_in_either_layout(tmp_path: Path) -> None:
    there, back = step("Transpose", "x", perm=[0, 3, 1, 2]), step("Transpose", "1", perm=[0, 2, 3, 1])
    steps = (there, step("Conv", "0", w(4, 3, 3, 3)), back, step("Relu", "2"), step("MatMul", "3", w(4, 5)))
    path = export(tmp_path, *steps, step("ReduceMean", "4", np.array([1, 2]), keepdims=0), shape=(24, 40, 3))
    assert [(stage.extents, stage.network.nodes) for stage in inspect(path).stages] == [((24, 40), 1), ((22, 38), 4)]


def test_what_is_not_known_is_a_question_mark(tmp_path: Path) -> None:
    inspection = inspect(export(tmp_path, *HEAD, step("CumSum", "3", np.array(1))))
    assert inspection.total.network.operations is None
    assert inspection.total.added.operations is not None
    assert inspection.to_json()["total"]["network"]["operations"] is None
    (line,) = [line for line in str(inspection).splitlines() if line.startswith("no map")]
    assert line.split().count("?") == 2


def test_shapes_that_cannot_be_inferred() -> None:
    value = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT))
    assert cost_of(ir.node("Relu", [value])) == Cost(1, None, None)
    assert cost_of(ir.node("Conv", [value, value])) == Cost(1, None, None)
    assert Cost(1, 5, None) + Cost(2, 6, 7) == Cost(3, 11, None)


def test_the_report_fits_a_terminal(small: Path) -> None:
    text = str(inspect(small))
    assert max(map(len, text.splitlines())) <= 100
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for line in (
        "input mask bool [masks, 1, 32, 32], True = keep; the batch axes broadcast",
        "graph opset 18, ir_version 10",
        "network 4 nodes: 1 Conv, 1 Relu, 1 ReduceMean, 1 Flatten; 448 bytes of weights",
        "32×32 2 1 25 48.6 k 104.6 k +215.3% 15.9 kB 319.5 kB +2011%",
        "contract 4 3.1 k +6.1% 27.7 kB +103.8%",
    ):
        assert line in lines


def test_the_report_as_json(small: Path) -> None:
    inspection = inspect(small)
    parsed = json.loads(json.dumps(inspection.to_json(), allow_nan=False))
    assert parsed["metadata"]["source"]["kind"] == "onnx"
    assert parsed["opset"] == 18
    assert parsed["inputs"][1] == {"name": "mask", "kind": "bool", "shape": ["masks", 1, 32, 32]}
    assert parsed["stages"]["15×15"]["network"]["nodes"] == 2
    assert parsed["rules"]["Conv"]["operations"] == inspection.rules["Conv"].operations
    assert parsed["total"]["added"]["nodes"] == inspection.total.added.nodes


def _without_rules(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        del node.metadata_props[:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: model.ClearField("metadata_props"), "not a graph exported by lmonnx"),
        (_without_rules, "does not say which rule made it, so another tool has rewritten the graph"),
    ],
)
def test_a_file_that_is_not_ours(
    change: Callable[[onnx.ModelProto], None], message: str, small: Path, tmp_path: Path
) -> None:
    model = onnx.load(small)
    change(model)
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ModelError, match=rf"other\.onnx: .*{message}"):
        inspect(tmp_path / "other.onnx")


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "missing", "folder"])
def test_a_damaged_file(damage: str, small: Path, tmp_path: Path) -> None:
    path, whole = tmp_path / "damaged.onnx", small.read_bytes()
    contents = {"truncated": whole[: len(whole) // 2], "text": b"not a model", "empty": b""}
    if damage in contents:
        path.write_bytes(contents[damage])
    elif damage == "folder":
        path.mkdir()
    with pytest.raises(ModelError, match=r"damaged\.onnx: [^\n]+$"):
        inspect(path)


def test_stages_have_names() -> None:
    names = [Stage(extents, 0, Cost(), Cost()).name for extents in ((56, 40), (49,), None)]
    assert names == ["56×40", "49", "no map"]
