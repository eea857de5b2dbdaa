"""Graphs that take images of any size are the network at each, or are refused."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lmonnx
from lmonnx.errors import ImageError, OptionError, SourceError, UnsupportedOpError
from lmonnx.exporters.lowering.engine import lower
from lmonnx.exporters.normalise import normalise
from lmonnx.exporters.proof import images, suite
from lmonnx.exporters.sources.seeds import seeded
from lmonnx.masking import MaskRules
from lmonnx.runtime import Preprocessing, Runner
from tests.cases import CASES, Case, w
from tests.exporters.test_onnx_exporters import Written, averaged, gated, over_channels, shuffled
from tests.graphs import Step, build, by_onnxruntime, by_reference, masks, proto_of, session, step
from tests.graphs import images as noise
from tests.laws import assert_close, check_laws
from tests.test_networks import TORCHVISION

SIZE = (64, 80)
PREPROCESSING = Preprocessing(size=SIZE, mean=(0.5,), std=(0.25,))
#: The proof's own are 64×80, 49×61 and 97×150.
SIZES = ((64, 80), (51, 67), (96, 75))
FAMILIES = ("convnext", "densenet", "mobilenet_v3", "resnet", "shufflenet_v2")
#: The smaller size of the proof, where the network is not what PyTorch has traced below that.
LEAST = {"densenet": "61×61"}


@pytest.mark.parametrize("family", FAMILIES)
def test_networks(family: str, tmp_path: Path) -> None:
    """The proof holds at three sizes, and at others the laws, and the network exported for that size alone."""
    made, rules = TORCHVISION[family]
    module = seeded(made(), seed=3).eval()
    result = lmonnx.export(module, tmp_path / "any.onnx", size="dynamic", rules=rules, preprocessing=PREPROCESSING)
    assert result.verification
    rows = [row.name for row in result.verification.rows]
    told = f"16 px patches, {LEAST.get(family, '49×61')}", "all True, 97×150", "original, no mask, 97×150"
    assert {"all True", *told} <= set(rows)
    runner = Runner(result.path, provider="cpu")
    assert runner.size == SIZE
    for size in SIZES[:: 2 if family in LEAST else 1]:
        mask = np.stack(list(suite(size).values()))
        image = images(len(mask), 3, size, seed=4)
        with torch.no_grad():
            original = module(torch.from_numpy(image)).numpy()
        check_laws(answers(runner), image, mask, original=original, tolerance=1e-3, rounding=1e-5)
    fixed = lmonnx.export(module, tmp_path / "fixed.onnx", size=size, rules=rules, verify=False)
    assert_close(answers(runner)(image, mask), answers(Runner(fixed.path, provider="cpu"))(image, mask), 1e-3)


def answers(runner: Runner) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    (output,) = runner.contract.outputs
    return lambda image, mask: runner.run(image, mask)[output]


class Branching(nn.Module):
    """A convolution of stride 2, and something that looks at sizes: of its map, and of the image."""

    def __init__(self, looks: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.looks, self.head = nn.Conv2d(3, 4, 3, 2, 1), looks, nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.looks(torch.relu(self.first(x)), x).mean((2, 3)))
        return scores


DEPENDING: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str]] = {
    "a multiple of 4": (lambda y, x: y + 1 if x.shape[2] % 4 == 0 else y * 2, r"where \(height % 4\) == 0"),
    "an even map": (lambda y, _: y + 1 if y.shape[3] % 2 == 0 else y * 2, "some sizes only"),
    "higher than wide": (lambda y, x: y + 1 if x.shape[2] > x.shape[3] else y * 2, "where height <= width"),
    "square": (lambda y, x: y + 1 if x.shape[2] == x.shape[3] else y * 2, "where height != width"),
    "not too large": (lambda y, x: y + 1 if x.shape[3] < 300 else y * 2, "where width < 300"),
    "one size": (lambda y, x: y + 1 if x.shape[2] == 64 else y * 2, "reads height or width as a number"),
    "a number": (lambda y, x: y * float(x.shape[2]), "reads height or width as a number"),
    "a share": (lambda y, _: y[:, :, : round(y.shape[2] * 0.6)], "for every size"),
    "blocks": (lambda y, _: F.pixel_unshuffle(y, 2)[:, :4], "some sizes only"),
    "adaptive windows": (lambda y, _: F.adaptive_avg_pool2d(y, (4, 5)), "some sizes only"),
}


@pytest.mark.parametrize("case", DEPENDING)
def test_what_pytorch_assumes_of_one_size_is_refused(case: str, tmp_path: Path) -> None:
    looks, message = DEPENDING[case]
    with pytest.raises(SourceError, match=message) as error:
        lmonnx.export(Branching(looks).eval(), tmp_path / "out.onnx", size="dynamic", preprocessing=PREPROCESSING)
    assert "fixed size, such as --size" in str(error.value)
    assert not list(tmp_path.iterdir())


def test_an_assumption_about_small_images_becomes_a_least_size(tmp_path: Path) -> None:
    """Below it the network does something else, which the graph does not know of."""
    module = Branching(lambda y, _: y + 1 if y.shape[2] > 7 else y * 2).eval()
    result = lmonnx.export(module, tmp_path / "out.onnx", size="dynamic", preprocessing=PREPROCESSING)
    runner = Runner(result.path, provider="cpu")
    assert runner.contract.form.smallest == 15
    image, mask = images(1, 3, (15, 15)), np.ones((1, 1, 15, 15), bool)
    assert_close(answers(runner)(image, mask), module(torch.from_numpy(image)).detach().numpy(), 1e-5)
    with pytest.raises(ImageError, match="14×15 pixels are too few; this graph is the network from 15×15 pixels on"):
        runner.run(image[:, :, :14], mask[:, :, :14])


# ONNX files


def opened(model: onnx.ModelProto, layout: str = "NCHW") -> onnx.ModelProto:
    """The model with open height and width."""
    sides = model.graph.input[0].type.tensor_type.shape.dim
    for axis, name in zip((2, 3) if layout == "NCHW" else (1, 2), ("H", "W"), strict=True):
        sides[axis].dim_param = name
    del model.graph.value_info[:]
    for output in model.graph.output:
        kind = output.type.tensor_type
        for side in kind.shape.dim if kind.HasField("shape") else (kind.shape.dim.add(), kind.shape.dim.add()):
            side.Clear()
    return model


def saved(path: Path, *steps: Step, shape: tuple[int, ...] = (3, 24, 20), opset: int = 18) -> Path:
    onnx.save(opened(build(steps, shape, opset)), path)
    return path


#: The newer exporter computes sizes from those of the image, of which a file does not prove that they are the map's.
WRITTEN = [(shuffled, False), (gated, False), (over_channels, False), (over_channels, True), (averaged, True)]


@pytest.mark.parametrize(("between", "dynamo"), WRITTEN)
def test_files_of_pytorch(between: Callable[[Tensor], Tensor], dynamo: bool, tmp_path: Path) -> None:
    network = Written(between, lambda x: torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)).eval()
    network.groups = nn.Identity()
    axes = {0: "n", 2: "h", 3: "w"}
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # PyTorch's own, about the older exporter and about constants in traces
        torch.onnx.export(
            network,
            (torch.zeros(2, 3, 48, 40),),
            tmp_path / "in.onnx",
            input_names=["x"],
            opset_version=18 if dynamo else 17,
            dynamo=dynamo,
            dynamic_axes=None if dynamo else {"x": axes},
            dynamic_shapes=(dict.fromkeys(axes, torch.export.Dim.DYNAMIC),) if dynamo else None,
            verbose=False,
        )
    result = lmonnx.export(tmp_path / "in.onnx", tmp_path / "out.onnx", size="dynamic", preprocessing=PREPROCESSING)
    assert result.verification
    runner = Runner(result.path, provider="cpu")
    for size in SIZES:
        image, mask = images(1, 3, size), np.ones((1, 1, *size), bool)
        assert_close(answers(runner)(image, mask), network(torch.from_numpy(image)).detach().numpy(), 1e-4)


ELSEWHERE = ((11, 17), (16, 16), (7, 5), (3, 2), (1, 1), (1, 6))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_operator(case: Case) -> None:
    """Where height and width are open an operator is the reference's at every size that it takes, or refused."""
    channels, *own = (int(side) for side in (case.shape if case.layout == "NCHW" else np.roll(case.shape, 1)))
    model = opened(case.model(), case.layout)
    try:
        made = lower(normalise(ir.from_proto(model), None, case.layout), case.rules, layout=case.layout)
    except (SourceError, UnsupportedOpError) as refusal:
        told = str(refusal)
    else:
        told = ""
    assert not told or "export with a fixed size" in told
    if told:
        return
    graph, plain = by_onnxruntime(proto_of(made)), session(model)
    reference = by_reference(model, case.rules, case.layout)
    for size in (tuple(own), *ELSEWHERE):
        mask = masks(size)
        image = noise(len(mask), (channels, *size))
        try:
            expected, rounded = reference(image.astype(np.float64), mask), reference(image, mask)
        except Exception:  # of the size; first: what has no pixels may end onnxruntime, and all with it
            assert size != tuple(own)
            continue
        if expected.size == 0:
            continue
        try:
            plain.run(None, {"x": image if case.layout == "NCHW" else image.transpose(0, 2, 3, 1)})
        except Exception:
            assert size != tuple(own)
            continue
        if not np.isfinite(expected).all():
            assert size != tuple(own)
            continue
        scale = float(np.std(expected)) or 1.0
        assert_close(graph(image, mask), expected, 4 * float(np.abs(rounded - expected).max()) / scale + 1e-5)


def anywhere(*between: Step) -> tuple[Step, ...]:
    """A convolution, something, a global average and a classifier."""
    first = step("Conv", "x", w(4, 3, 3, 3), pads=[1, 1, 1, 1])
    last = str(len(between))
    head = step("MatMul", str(len(between) + 2), w(5, 4).T)
    return first, *between, step("GlobalAveragePool", last), step("Flatten", str(len(between) + 1)), head


ROWS = np.array([1, 0, 1, 1], np.int64)
UNDECIDED: dict[str, tuple[tuple[Step, ...], str]] = {
    "a plain operand as large": (
        anywhere(
            step("MaxPool", "0", kernel_shape=[2, 2]),
            step("Shape", "1", start=2, end=4),
            step("ConstantOfShape", "2"),
            step("Add", "0", "3"),
        ),
        "whether 'value3' has the height and width of the others is not known",
    ),
    "repeated over a size": (
        anywhere(
            step("GlobalAveragePool", "0"),
            step("AveragePool", "0", kernel_shape=[5, 1], strides=[5, 1]),
            step("Shape", "0"),
            step("Expand", "2", "3"),
            step("Add", "4", "1"),
        ),
        "the height and width over which it is repeated are not known",
    ),
    "padding that depends on the size": (
        anywhere(step("MaxPool", "0", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")),
        "auto_pad SAME with strides needs a known height and width",
    ),
    "a last window that may be none": (
        anywhere(step("MaxPool", "0", kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1)),
        "whether the last window of its ceil_mode counts",
    ),
    "resized to one size": (
        anywhere(step("Resize", "0", "", "", np.array([1, 4, 30, 30], np.int64), mode="linear")),
        "height or width of 'value0' is not known",
    ),
    "blocks": (anywhere(step("SpaceToDepth", "0", blocksize=2)), "the height or width of 'value0' is not known"),
    "what may be a group norm": (
        anywhere(
            step("Reshape", "0", np.array([0, 2, -1], np.int64)),
            step("InstanceNormalization", "1", np.ones(2, np.float32), np.zeros(2, np.float32)),
            step("Reshape", "2", np.array([0, 4, 24, 20], np.int64)),
        ),
        "whether InstanceNormalization 'node2' is a group norm is not known",
    ),
    "squeezed without axes": (anywhere(step("Squeeze", "0")), "names no axes"),
}


@pytest.mark.parametrize("case", UNDECIDED)
def test_what_cannot_be_decided_is_refused(case: str) -> None:
    steps, message = UNDECIDED[case]
    model = ir.from_proto(opened(build(steps, (3, 24, 20), 18)))
    with pytest.raises((SourceError, UnsupportedOpError), match=message) as error:
        lower(normalise(model, None, "NCHW"), MaskRules())
    assert "export with a fixed size" in str(error.value)


ONE_SIZE = {
    "head": (
        step("Conv", "x", w(4, 3, 3, 3), pads=[1, 1, 1, 1]),
        step("Flatten", "0"),
        step("MatMul", "1", w(5, 4 * 24 * 20).T),
    ),
    "operand": anywhere(step("Add", "0", w(1, 4, 24, 20))),
}


@pytest.mark.parametrize("case", ONE_SIZE)
def test_a_network_that_takes_one_size_alone_is_refused(case: str, tmp_path: Path) -> None:
    source = saved(tmp_path / "in.onnx", *ONE_SIZE[case])
    preprocessing = Preprocessing(size=(24, 20))
    with pytest.raises(SourceError, match=r"24×20 pixels and none of other sizes .* --size 24,20"):
        lmonnx.export(source, tmp_path / "out.onnx", size="dynamic", preprocessing=preprocessing)


def test_a_network_that_takes_multiples_alone_is_tried_at_those(tmp_path: Path) -> None:
    """A map that is halved and doubled again is added to itself."""
    halved = step("MaxPool", "0", kernel_shape=[2, 2], strides=[2, 2])
    beside = step("Conv", "0", w(4, 4, 2, 2), strides=[2, 2]), step("Add", "1", "2")
    source = saved(tmp_path / "in.onnx", *anywhere(halved, *beside, step("Concat", "3", "3", axis=2)))
    network = lmonnx.export(source, tmp_path / "out.onnx", size="dynamic", preprocessing=PREPROCESSING)
    assert network.verification


def test_a_pool_over_what_may_be_the_whole_map(tmp_path: Path) -> None:
    """At the size where it is, it is global: kept everywhere."""
    pool = step("AveragePool", "0", kernel_shape=[12, 12])
    source = saved(tmp_path / "in.onnx", *anywhere(pool, step("Conv", "1", w(4, 4, 3, 3), pads=[1, 1, 1, 1])))
    path = lmonnx.export(source, tmp_path / "out.onnx", size="dynamic", preprocessing=PREPROCESSING).path
    run = answers(Runner(path, provider="cpu"))
    reference = by_reference(onnx.load(source))
    for size in ((12, 12), (12, 13), (24, 20)):
        mask, image = masks(size), noise(7, (3, *size))
        assert_close(run(image, mask), reference(image.astype(np.float64), mask), 1e-4)


def test_a_file_of_one_size_says_so(tmp_path: Path) -> None:
    onnx.save(build(anywhere(), (3, 24, 20), 18), tmp_path / "in.onnx")
    with pytest.raises(OptionError, match=r"made for images of 24×20 pixels; leave --size out"):
        lmonnx.export(tmp_path / "in.onnx", tmp_path / "out.onnx", size="dynamic")
    with pytest.raises(OptionError, match="'any' is neither a number of pixels nor 'dynamic'"):
        lmonnx.export(tmp_path / "in.onnx", tmp_path / "out.onnx", size="any")  # type: ignore[arg-type]
