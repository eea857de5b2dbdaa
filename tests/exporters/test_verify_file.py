"""The proof on a finished file: it holds for what was exported, and for nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import lmonnx
from lmonnx.errors import LmonnxError, ModelError, SourceError, VerificationError, WeightsError
from lmonnx.exporters import finished
from lmonnx.exporters.finished import verify
from lmonnx.exporters.sources import torchvision
from lmonnx.exporters.sources.seeds import seeded
from lmonnx.masking import MaskRules
from lmonnx.runtime import Runner
from tests.cases import w
from tests.graphs import build, step

Change = Callable[[onnx.ModelProto], None]

SIZE = (33, 40)
NAME = "scenes-material"
RULES = MaskRules(average="area")
HEAD = (
    step("Conv", "x", w(4, 3, 3, 3), strides=[2, 2]),
    step("Relu", "0"),
    step("GlobalAveragePool", "1"),
    step("Flatten", "2"),
)


class Small(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        return self.head((x + self.second(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def of_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported from a module, without the proof."""
    path = tmp_path_factory.mktemp("module") / "small.onnx"
    return lmonnx.export(Small().eval(), path, size=SIZE, verify=False).path


@pytest.fixture(scope="module")
def of_name(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported from a name, with the weights of a seed, a size and rules that are not the defaults."""
    path = tmp_path_factory.mktemp("name") / "named.onnx"
    return lmonnx.export(NAME, path, weights="seed:3", size=(64, 72), rules=RULES, verify=False).path


@pytest.fixture
def not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is refused before anything is computed."""

    def never(*_: object) -> None:
        raise AssertionError("the proof ran")

    monkeypatch.setattr(finished, "prove", never)


def source_file(folder: Path) -> Path:
    onnx.save(build(HEAD, (3, 32, 32), 18), folder / "in.onnx")
    return folder / "in.onnx"


def changed(path: Path, folder: Path, change: Change) -> Path:
    """A copy of an exported file with one thing changed."""
    model = onnx.load(path)
    change(model)
    onnx.save(model, folder / "changed.onnx")
    return folder / "changed.onnx"


def metadata(key: str, value: Any) -> Change:
    def change(model: onnx.ModelProto) -> None:
        (entry,) = [entry for entry in model.metadata_props if entry.key == f"lmonnx.{key}"]
        entry.value = json.dumps(value)

    return change


def test_a_file_without_a_proof_is_proven_later(of_module: Path) -> None:
    before = of_module.read_bytes()
    verification = verify(of_module, Small().eval())
    assert verification.passed
    assert len(verification.rows) == 9
    assert of_module.read_bytes() == before


def test_the_table_is_that_of_the_export(tmp_path: Path) -> None:
    result = lmonnx.export(source_file(tmp_path), tmp_path / "out.onnx")
    assert verify(result.path, tmp_path / "in.onnx") == result.verification


def test_a_name_is_built_with_what_the_file_records(of_name: Path) -> None:
    assert verify(of_name, NAME).passed
    assert verify(str(of_name), NAME, weights="seed:3").passed


def test_weights_by_name_are_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = torchvision.import_torchvision().models.squeezenet1_1(weights=None)
    state = seeded(network, 5).state_dict()
    monkeypatch.setattr(torchvision, "_downloaded", lambda *_: state)
    path = lmonnx.export("squeezenet1_1", tmp_path / "default.onnx", size=48, verify=False).path
    assert Runner(path, provider="cpu").contract.source["weights"] == "SqueezeNet1_1_Weights.IMAGENET1K_V1"
    assert verify(path, "squeezenet1_1").passed


def flip_a_weight(model: onnx.ModelProto) -> None:
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == "second.weight"]
    array = onnx.numpy_helper.to_array(tensor).copy()
    array.reshape(-1)[17] *= -1
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def count_in_eights(model: onnx.ModelProto) -> None:
    """What the fill counts by means of nines."""
    (tensor,) = [t for t in model.graph.initializer if np.array_equal(onnx.numpy_helper.to_array(t), 9.0)]
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(8.0, np.float32), tensor.name))


def replace(old: str, new: str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        node = next(node for node in model.graph.node if node.op_type == old)
        node.op_type = new

    change.__name__ = f"{new} for {old}"
    return change


def forget_the_mask(model: onnx.ModelProto) -> None:
    """The head reads the whole map."""
    mean = next(node for node in model.graph.node if node.op_type == "ReduceMean")
    (zeroed,) = [node for node in model.graph.node if mean.input[0] in node.output]
    mean.input[0] = zeroed.input[0]


@pytest.mark.parametrize(
    "fault",
    [flip_a_weight, count_in_eights, forget_the_mask, replace("Relu", "Abs"), replace("Greater", "Less")],
    ids=lambda fault: fault.__name__,
)
def test_a_fault_in_the_file_is_found(fault: Change, of_module: Path, tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"changed\.onnx and the reference of its source differ\n(.*\n)+.*FAIL"):
        verify(changed(of_module, tmp_path, fault), Small().eval())


@pytest.mark.usefixtures("not_compared")
@pytest.mark.parametrize(
    ("source", "weights", "error", "message"),
    [
        (
            NAME,
            "seed:4",
            WeightsError,
            r"weights of scenes-material made from seed:4 are not those of scenes-material made from seed:3, which",
        ),
        ("resnet18", None, SourceError, "was made from scenes-material, not from resnet18"),
        ("scenes-shape", None, SourceError, "was made from scenes-material, not from scenes-shape"),
        (Small().eval(), None, WeightsError, r"weights of .*Small are not .*: sha256 \w{16}… here, \w{16}… recorded"),
        ("no-such-network", "seed:3", SourceError, "no-such-network' is neither"),
    ],
)
def test_another_network_is_refused_before_the_comparison(
    source: Any, weights: str | None, error: type[LmonnxError], message: str, of_name: Path
) -> None:
    with pytest.raises(error, match=message):
        verify(of_name, source, weights=weights)


@pytest.mark.usefixtures("not_compared")
def test_a_seed_that_gives_other_weights_than_recorded_is_said(of_name: Path, tmp_path: Path) -> None:
    source = Runner(of_name, provider="cpu").contract.source
    path = changed(of_name, tmp_path, metadata("source", {**source, "weights_sha256": "0" * 64}))
    hashes = f"sha256 {source['weights_sha256'][:16]}… here, 0000000000000000… recorded"
    with pytest.raises(WeightsError, match=f"made from seed:3 differ here from those that .* records: {hashes}"):
        verify(path, NAME)


@pytest.mark.usefixtures("not_compared")
def test_another_file_or_module_is_refused(of_module: Path, tmp_path: Path) -> None:
    source = source_file(tmp_path)
    path = lmonnx.export(source, tmp_path / "out.onnx", verify=False).path
    with pytest.raises(SourceError, match=r"made from a network in PyTorch, .*Small, not from an .onnx file"):
        verify(of_module, source)
    with pytest.raises(SourceError, match=r"made from an .onnx file, in.onnx, not from a network"):
        verify(path, Small().eval())
    with pytest.raises(WeightsError, match="are not those of"):
        verify(of_module, Small(seed=1).eval())
    with pytest.raises(SourceError, match=r"made from a module, .*Small, .* lmonnx\.verify\(path, module\)"):
        verify(of_module, "squeezenet1_1")
    model = onnx.load(source)
    model.doc_string = "another"
    onnx.save(model, source)
    with pytest.raises(SourceError, match=r"in\.onnx is not the file that .*out\.onnx was made from"):
        verify(path, source)


@pytest.mark.usefixtures("not_compared")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (metadata("rules", {"average": "most"}), "rule average='most' is unknown"),
        (metadata("rules", {"colour": "red"}), "lmonnx.rules cannot be used"),
        (metadata("source", {"kind": "scenes", "name": NAME, "weights": 3}), "names no weights: 3"),
        (metadata("source", {"kind": "scenes", "name": NAME, "weights": "seed:3"}), "holds no weights_sha256"),
        (lambda model: model.ClearField("metadata_props"), "not a graph exported by lmonnx"),
    ],
)
def test_metadata_that_cannot_be_used(change: Change, message: str, of_name: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        verify(changed(of_name, tmp_path, change), NAME)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("labels", ["one", "two"]),
        ("labels", []),
        ("outputs", {"linear": "probabilities"}),
        (
            "preprocessing",
            {"size": [64, 72], "resize": None, "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3,
             "scale": 255.0, "channel_order": "RGB"},
        ),
    ],
)  # fmt: skip
def test_what_a_name_brings_is_compared_with_the_metadata(key: str, value: Any, of_name: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"lmonnx\.{key} has been changed"):
        verify(changed(of_name, tmp_path, metadata(key, value)), NAME)


def test_a_fault_in_an_unlikely_class_behind_a_softmax_is_found(tmp_path: Path) -> None:
    weights = w(4, 3, 3, 3)
    bias = np.array([0, 9, -9, 0], np.float32)  # the third class has a probability of about 1e-8
    onnx.save(
        build(
            (
                step("Conv", "x", weights, bias, strides=[2, 2]),
                step("GlobalAveragePool", "0"),
                step("Flatten", "1"),
                step("Softmax", "2"),
            ),
            (3, 32, 32),
            18,
        ),
        tmp_path / "in.onnx",
    )
    path = lmonnx.export(tmp_path / "in.onnx", tmp_path / "out.onnx").path
    assert Runner(path, provider="cpu").contract.outputs == {"value3": "probabilities"}

    def change(model: onnx.ModelProto) -> None:
        (tensor,) = [t for t in model.graph.initializer if list(t.dims) == [4, 3, 3, 3]]
        array = onnx.numpy_helper.to_array(tensor).copy()
        array[2, 1, 1, 1] *= 1.01
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))

    with pytest.raises(VerificationError, match="differ"):
        verify(changed(path, tmp_path, change), tmp_path / "in.onnx")
