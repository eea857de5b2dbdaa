"""Graphs in float16: float32 networks that are brought to it, and what masks do in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import lmonnx
from lmonnx import cli
from lmonnx.errors import OptionError, SourceError, VerificationError, WeightsError
from lmonnx.exporters.halves import halved, in_float32
from lmonnx.exporters.lowering.engine import lower
from lmonnx.exporters.normalise import normalise
from lmonnx.exporters.sources.seeds import seeded
from lmonnx.masking import MaskRules
from lmonnx.runtime import Runner
from lmonnx.runtime.description import describe
from lmonnx.runtime.form import Form
from tests.cases import CASES, Case, w
from tests.exporters.forms import PREPROCESSING, encoded, source
from tests.exporters.small import HEAD, onnx_file
from tests.exporters.test_onnx_precision import STEPS, save
from tests.graphs import build, by_evaluator, by_onnxruntime, by_reference, images, lowered, masks, proto_of, step
from tests.laws import check_laws
from tests.test_networks import TORCHVISION

SHAPE = (3, 26, 24)
HALF = onnx.TensorProto.FLOAT16
#: What adds up, counts or divides in the arithmetic of masks.
ARITHMETIC = {"Div", "GlobalAveragePool", "ReduceMean", "ReduceSum", "ReduceSumSquare", "Sqrt"}
#: Operators whose rules add up over space, or divide by what is kept.
ADDING = {
    "AveragePool", "Conv", "GlobalAveragePool", "GroupNormalization", "InstanceNormalization", "LayerNormalization",
    "MeanVarianceNormalization", "ReduceL1", "ReduceL2", "ReduceMean", "ReduceSum", "ReduceSumSquare", "Resize",
}  # fmt: skip
OVER_SPACE = [case for case in CASES if case.operator in ADDING and "channels" not in case.name]


class Small(nn.Module):
    """Norms before and behind activations, over channels and groups; gates, pools, branches."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.GroupNorm(2, 8), nn.SiLU())
        self.before = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 5, padding=2), nn.AvgPool2d(2))
        self.squeeze, self.norm = nn.Conv2d(8, 8, 1), nn.LayerNorm(8)
        self.dense, self.head = nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = self.before(self.stem(x))
        x = x * torch.sigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))
        branch = self.dense(nn.functional.gelu(self.norm(x.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)
        return self.head(nn.functional.normalize(x + branch).amax((2, 3)))


def small() -> nn.Module:
    """For the test of factories; the same at every call."""
    return seeded(Small(), seed=1).eval()


def in_halves(*steps: Any, shape: tuple[int, ...] = SHAPE, opset: int = 18) -> onnx.ModelProto:
    """A float32 network, normalised, brought to float16, and lowered."""
    plain = normalise(ir.from_proto(build(steps, shape, opset)), (shape[1], shape[2]), "NCHW")
    return proto_of(lower(halved(plain), MaskRules()))


def types(model: onnx.ModelProto) -> dict[str, int]:
    """dtype of every value, by name."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    return {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output, *graph.input)}


# ---- the arithmetic of masks on float16 data ----


@pytest.mark.parametrize("run", [by_evaluator, by_onnxruntime])
def test_no_mask_makes_an_infinity(run: Any) -> None:
    """The share of a pixel without kept neighbours, 9 / 1e-5, is beyond float16: infinite times 0 is NaN."""
    steps = STEPS[:2]
    mask = masks(SHAPE[1:])
    image = images(len(mask), SHAPE).astype(np.float16)
    image[mask.any(axis=(1, 2, 3)).argmin()] = 0
    graph = proto_of(lowered(build((*steps, step("Conv", "1", w(8, 8, 5, 5))), SHAPE, 18, np.float16)))
    result = run(graph)(image, mask)
    assert result.dtype == np.float16
    exact = by_reference(build((*steps, step("Conv", "1", w(8, 8, 5, 5))), SHAPE, 18))(image.astype(np.float64), mask)
    assert np.isfinite(result).all()
    assert result.shape == exact.shape


def test_a_share_is_no_infinity_in_the_graph_itself() -> None:
    model = proto_of(lowered(build(STEPS[:1], SHAPE, 18, np.float16)))
    casts = [node for node in model.graph.node if node.op_type == "Cast" and node.attribute[0].i == HALF]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=node.output[0]) for node in casts)
    session = onnx.reference.ReferenceEvaluator(model)
    mask = masks(SHAPE[1:])
    found = session.run(None, {"image": images(len(mask), SHAPE).astype(np.float16), "mask": mask})
    assert len(found) >= 2
    assert all(np.isfinite(array).all() for array in found)


@pytest.mark.parametrize("case", OVER_SPACE, ids=lambda case: case.name)
def test_what_masks_add_up_is_float32(case: Case) -> None:
    model = proto_of(lowered(case.model(np.float16), case.rules, case.layout))
    kinds = types(model)
    for node in model.graph.node:
        rule = {prop.key: prop.value for prop in node.metadata_props}["lmonnx.rule"]
        if node.op_type in ARITHMETIC and rule in ADDING:
            assert kinds[node.output[0]] != HALF, f"{node.op_type} {node.name} of rule {rule}"


@pytest.mark.parametrize("size", [(20, 30), (160, 200)])
def test_a_mean_of_one_pixel_of_many_keeps_its_digits(size: tuple[int, int]) -> None:
    """In float16 one of 32000 numbers of 0.1 is a mean of 3e-6, which has 6 bits left."""
    mask = np.zeros((1, 1, *size), bool)
    mask[0, 0, 7, 5] = True
    model = build([step("GlobalAveragePool", "x")], (2, *size), 18, np.float16)
    result = by_onnxruntime(proto_of(lowered(model)))(np.full((1, 2, *size), 0.1, np.float16), mask)
    np.testing.assert_allclose(result.ravel(), np.float16(0.1), rtol=1e-3)


def test_what_a_removed_pixel_overflows_to_stays_there() -> None:
    """A bias of 6e4 and its double: infinite where the pixel is removed, 0 where it is −6e4."""
    ones = np.ones((1, 1, 1, 1))
    steps = step("Conv", "x", ones, np.array([6e4])), step("Add", "0", "0"), step("Conv", "1", w(2, 1, 3, 3))
    mask = masks(SHAPE[1:])[2:4]
    image = np.where(mask, -6e4, 0).astype(np.float16)
    for last in (step("GlobalAveragePool", "2"), step("InstanceNormalization", "2", np.ones(2), np.zeros(2))):
        run = by_onnxruntime(proto_of(lowered(build((*steps, last), (1, *SHAPE[1:]), 18, np.float16))))
        assert np.isfinite(run(image, mask)).all()


# ---- a float32 network in float16 ----

PROVEN = "something of everything"
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    PROVEN: small,
    "mobilenet_v3": lambda: seeded(TORCHVISION["mobilenet_v3"][0](), seed=3).eval(),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_obey_the_laws(name: str, tmp_path: Path) -> None:
    size, module = (40, 48), NETWORKS[name]()
    result = lmonnx.export(module, tmp_path / "half.onnx", size=size, precision="fp16", verify=name == PROVEN)
    tolerance = result.verification.tolerance if result.verification else 0.1
    runner = Runner(result.path, provider="cpu")
    (output,) = runner.contract.outputs
    mask = masks(size)
    image = images(len(mask), (3, *size))
    with torch.no_grad():
        original = module(torch.from_numpy(image)).numpy()

    def run(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return runner.run(image, mask)[output]

    check_laws(run, image, mask, original=original, tolerance=tolerance, rounding=1e-2)
    kinds = {"float16": 0, "float32": 0}
    for tensor in onnx.load(result.path).graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if str(array.dtype) in kinds:
            kinds[str(array.dtype)] += array.size
    assert kinds["float32"] < 0.05 * kinds["float16"]


@pytest.mark.parametrize(
    "options",
    [
        {"batch": 3, "softmax": True, "image": "uint8", "opset": 13},
        {"size": "dynamic", "image": "uint8"},
        {"opset": 26},
    ],
    ids=["fixed batch", "dynamic", "newest"],
)
def test_every_form_answers_as_the_float32_one(
    options: dict[str, Any], crops: np.ndarray, masks: np.ndarray, tmp_path: Path
) -> None:
    steps = HEADS["dynamic"] if "size" in options else HEADS["fixed"]
    path = source(tmp_path, *steps, shape=(3, "h", "w") if "size" in options else (3, *PREPROCESSING.size))  # type: ignore[arg-type]
    single, half = (
        lmonnx.export(path, tmp_path / f"{name}.onnx", preprocessing=PREPROCESSING, precision=name, **options)
        for name in ("fp32", "fp16")
    )
    assert half.verification
    runners = [Runner(result.path, provider="cpu") for result in (single, half)]
    expected, answers = (next(iter(each.run(encoded(each, crops), masks).values())) for each in runners)
    assert answers.dtype == np.float32
    difference = np.abs(answers - expected).max()
    assert 0 < difference < 5e-3 * np.ptp(expected)
    assert lmonnx.verify(half.path, path).tolerance == half.verification.tolerance
    session = runners[1]._engine.session
    assert {value.type for value in session.get_outputs()} == {"tensor(float)"}


HEADS = {
    "fixed": (),
    "dynamic": (
        step("Conv", "x", w(8, 3, 3, 3)),
        step("Relu", "0"),
        step("GlobalAveragePool", "1"),
        step("Flatten", "2"),
        step("MatMul", "3", w(8, 6).T.reshape(8, 6)),
    ),
}


def test_every_kind_of_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    out, file = tmp_path / "out.onnx", onnx_file(tmp_path / "in.onnx", *HEAD)
    sources: dict[Any, dict[str, Any]] = {
        "scenes-material": {},
        f"{__name__}:small": {"size": 24},
        file: {},
    }
    for given, options in sources.items():
        result = lmonnx.export(given, out, precision="fp16", verify=False, **options)
        runner = Runner(result.path, provider="cpu")
        assert runner.contract.form.precision == "float16"
        kinds = {tensor.data_type for tensor in onnx.load(out).graph.initializer if np.prod(tensor.dims) > 30}
        assert HALF in kinds
        assert onnx.TensorProto.FLOAT not in kinds, given
    assert lmonnx.verify(out, file).passed
    assert lmonnx.verify(lmonnx.export(small(), out, size=24, precision="fp16", verify=False).path, small()).passed


def test_the_file_says_so(tmp_path: Path) -> None:
    runner = CliRunner()
    path = str(onnx_file(tmp_path / "in.onnx", *HEAD))
    result = runner.invoke(cli.main, ["export", path, "-o", str(tmp_path / "out.onnx"), "--precision", "fp16"])
    assert result.exit_code == 0, result.output
    result = runner.invoke(cli.main, ["inspect", str(tmp_path / "out.onnx")])
    assert "precision  float16; image, outputs, and what is added up or counted are float32" in result.output
    result = runner.invoke(cli.main, ["export", path, "-o", str(tmp_path / "out.onnx"), "--precision", "int8"])
    assert result.exit_code == 2
    with pytest.raises(OptionError, match="precision='half' is unknown; choose one of fp32, fp16"):
        lmonnx.export("missing.onnx", tmp_path / "out.onnx", precision="half")  # type: ignore[arg-type]


def test_files_from_before_there_was_a_precision() -> None:
    written = Form("uint8", precision="float16").to_json()
    assert Form.from_json(json.loads(json.dumps(written))) == Form("uint8", precision="float16")
    del written["precision"]
    assert Form.from_json(written) == Form("uint8", precision=None)
    with pytest.raises(OptionError, match="precision='half' is unknown"):
        Form.from_json({**written, "precision": "half"})


def test_a_file_without_a_precision_is_described(tmp_path: Path) -> None:
    path = lmonnx.export(onnx_file(tmp_path / "in.onnx", *HEAD), tmp_path / "out.onnx", verify=False).path
    description = describe(path)
    assert ("precision", "float32") in description.rows()
    form = replace(description.contract.form, precision=None)
    rows = replace(description, contract=replace(description.contract, form=form)).rows()
    assert "precision" not in dict(rows)


# ---- what stays float32, and what is refused ----


def test_a_float16_file_stays_what_it_is(tmp_path: Path) -> None:
    path = save(build(STEPS, SHAPE, 17, np.float16), tmp_path)
    results = [
        lmonnx.export(path, tmp_path / f"{name}.onnx", precision=name, verify=False) for name in ("fp32", "fp16")
    ]
    assert results[0].path.read_bytes() == results[1].path.read_bytes()
    assert Runner(results[1].path, provider="cpu").contract.form.precision == "float16"


def test_a_quantised_file_is_refused(tmp_path: Path) -> None:
    scale, zero = np.float32(0.1), np.int8(0)
    steps = (
        step("QuantizeLinear", "x", np.asarray(scale), np.asarray(zero)),
        step("DequantizeLinear", "0", np.asarray(scale), np.asarray(zero)),
        *(replace(each, inputs=("1", *each.inputs[1:])) for each in HEAD[:1]),
    )
    path = onnx_file(tmp_path / "int8.onnx", *steps)
    with pytest.raises(SourceError, match=r"int8.onnx is quantised to int8, .*; leave the precision out, or"):
        lmonnx.export(path, tmp_path / "out.onnx", precision="fp16")


def test_weights_beyond_float16_are_named(tmp_path: Path) -> None:
    kernel = w(4, 3, 3, 3)
    kernel[1, 2, 0, 0] = 70_000
    path = onnx_file(tmp_path / "in.onnx", step("Conv", "x", kernel, strides=[2, 2]), *HEAD[1:])
    with pytest.raises(WeightsError, match=r"numbers beyond ±65504, at which float16 ends: constant0_1; export in fl"):
        lmonnx.export(path, tmp_path / "out.onnx", precision="fp16")
    assert not (tmp_path / "out.onnx").exists()


def test_a_bound_beyond_float16_is_none(tmp_path: Path) -> None:
    clip = step("Clip", "0", np.array(0.0), np.array(3e38))
    path = onnx_file(tmp_path / "in.onnx", HEAD[0], clip, *HEAD[2:])
    assert lmonnx.export(path, tmp_path / "out.onnx", precision="fp16").verification


def test_an_activation_that_overflows_is_named(tmp_path: Path) -> None:
    big = step("Mul", "0", np.array(6e4)), step("Mul", "1", np.array(1e-4))
    path = onnx_file(tmp_path / "in.onnx", HEAD[0], *big, step("GlobalAveragePool", "2"), step("Flatten", "3"))
    with pytest.raises(
        VerificationError,
        match=r"^float16, which ends at 65504, does not hold the values of this network; nothing was published\n(.*\n)+"
        r"Mul 'node1' gives infinity or NaN, first with the mask 'all True'; export it in float32$",
    ):
        lmonnx.export(path, tmp_path / "out.onnx", precision="fp16")


def test_an_epsilon_below_float16_does_its_work() -> None:
    """x / max(|x|, 1e-12) over all space: where all is removed it is 0 / 1e-12, and 1e-12 is 0 in float16."""
    norm = step("ReduceL2", "0", np.array([2, 3])), step("Max", "1", np.array(1e-12)), step("Div", "0", "2")
    run = by_onnxruntime(in_halves(HEAD[0], *norm, step("GlobalAveragePool", "3")))
    mask = masks(SHAPE[1:])
    result = run(images(len(mask), SHAPE), mask)
    assert result.dtype == np.float32
    assert np.isfinite(result).all()


def test_a_norm_that_is_taken_apart_is_float32() -> None:
    """Squares beyond 65504, a sum of them, and an epsilon: all between the map and the map."""
    steps = (
        step("Conv", "x", 400 * w(4, 3, 3, 3)),
        step("ReduceMean", "0", np.array([1])),
        step("Sub", "0", "1"),
        step("Mul", "2", "2"),
        step("ReduceMean", "3", np.array([1])),
        step("Add", "4", np.array(1e-6)),
        step("Sqrt", "5"),
        step("Div", "2", "6"),
        step("Conv", "7", w(4, 4, 3, 3)),
    )
    model = build(steps, SHAPE, 18)
    wide = {node.op_type for node in in_float32(normalise(ir.from_proto(model), (26, 24), "NCHW").graph)}
    assert wide == {"ReduceMean", "Sub", "Mul", "Add", "Sqrt", "Div"}
    mask = masks(SHAPE[1:])
    image = images(len(mask), SHAPE)
    exact = by_reference(model)(image.astype(np.float64), mask)
    result = by_onnxruntime(in_halves(*steps))(image, mask)
    assert np.abs(result - exact).max() < 1e-2 * exact.std()
