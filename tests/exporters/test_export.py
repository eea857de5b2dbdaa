"""What is published, what is not, and what the file says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import lmonnx
from lmonnx.errors import OptionError, PublishError, SourceError, UnsupportedOpError, VerificationError, WeightsError
from lmonnx.exporters.lowering.engine import SUSPECTS, lower
from lmonnx.exporters.normalise import normalise
from lmonnx.exporters.sources import resolve
from lmonnx.exporters.sources.torchvision import import_torchvision
from lmonnx.exporters.trace import trace
from lmonnx.masking import MaskRules
from lmonnx.runtime import Runner
from tests.exporters.small import HEAD, onnx_file
from tests.graphs import build, step
from tests.mutations import any_for_all, one_ring_fewer


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        return self.head((x + self.second(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> lmonnx.Export:
    path = tmp_path_factory.mktemp("export") / "small.onnx"
    return lmonnx.export(Small().eval(), path, size=(33, 40), labels=("a", "b", "c", "d"))


def test_file_obeys_the_contract(exported: lmonnx.Export) -> None:
    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    inputs = {value.name: (value.type, value.shape) for value in session.get_inputs()}
    assert inputs == {
        "image": ("tensor(float)", ["images", 3, 33, 40]),
        "mask": ("tensor(bool)", ["masks", 1, 33, 40]),
    }
    assert [value.shape for value in session.get_outputs()] == [["batch", 4]]
    proto = onnx.load(exported.path)
    assert [(opset.domain, opset.version) for opset in proto.opset_import] == [("", 18)]
    readers = [node for node in proto.graph.node if "image" in node.input]
    assert [node.op_type for node in readers] == ["Where"]
    assert {"lmonnx.rule", "lmonnx.source"} == {prop.key for node in proto.graph.node for prop in node.metadata_props}


def test_nodes_say_what_made_them(exported: lmonnx.Export) -> None:
    made = {node.name: {p.key: p.value for p in node.metadata_props} for node in onnx.load(exported.path).graph.node}
    convolution = next(name for name in made if name == "node_conv2d_1")
    assert made[convolution]["lmonnx.rule"] == "Conv"
    assert made[f"{convolution}/mask/AveragePool"] == {"lmonnx.rule": "Conv", "lmonnx.source": convolution}


def test_file_describes_itself(exported: lmonnx.Export) -> None:
    contract = Runner(exported.path, provider="cpu").contract
    assert contract.labels == ("a", "b", "c", "d")
    assert set(contract.outputs.values()) == {"logits"}
    assert contract.rules == {"average": "valid", "concat": "all"}
    assert contract.source["kind"] == "module"
    assert len(contract.source["weights_sha256"]) == 64
    assert contract.verified["passed"] is True
    assert contract.verified["largest"] <= contract.verified["tolerance"] <= 1e-4
    assert {"torch", "onnx", "onnxscript"} <= set(contract.versions)


def test_proof_covers_the_suite(exported: lmonnx.Export) -> None:
    assert exported.verification is not None
    names = [row.name for row in exported.verification.rows]
    assert names == [
        "all True", "all False", "16 px patches", "disc removed", "right half removed", "thin stripes",
        "one pixel removed", "one pixel kept", "original, no mask",
    ]  # fmt: skip
    assert "allowed" in str(exported.verification)


def test_failed_proof_names_the_first_node_that_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one_ring_fewer(monkeypatch)
    first = "node_conv2d"  # of stride 2 and kernel 3, it reads both rings
    with pytest.raises(VerificationError, match=f"first node that differs: Conv '{first}'"):
        lmonnx.export(Small().eval(), tmp_path / "small.onnx", size=(33, 40))


@pytest.mark.parametrize("source", ["module", "file"])
def test_every_node_equals_the_reference(source: str, tmp_path: Path) -> None:
    given = Small().eval() if source == "module" else onnx_file(tmp_path / "in.onnx", *HEAD)
    network = resolve(given, size=(33, 40) if source == "module" else None)
    plain = normalise(network.graph, network.size, network.layout)
    lowered = lower(plain, MaskRules(), layout=network.layout, all_kept=True)
    steps = trace(lowered, network, MaskRules())
    assert len(steps) >= 4
    assert all(step.same_mask for step in steps)
    assert max(step.difference for step in steps) < 1e-4


@pytest.mark.parametrize("fault", [one_ring_fewer, any_for_all])
def test_a_graph_that_differs_is_not_published(fault: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)  # type: ignore[operator]
    with pytest.raises(VerificationError, match=r"nothing was published\n(.*\n)+.*FAILED"):
        lmonnx.export(Small().eval(), tmp_path / "small.onnx", size=(33, 40))
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_file_survives_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small.onnx").write_text("earlier")
    one_ring_fewer(monkeypatch)
    with pytest.raises(VerificationError):
        lmonnx.export(Small().eval(), tmp_path / "small.onnx", size=(33, 40))
    assert [path.read_text() for path in tmp_path.iterdir()] == ["earlier"]


def test_without_the_proof_the_file_says_so(tmp_path: Path) -> None:
    result = lmonnx.export(Small().eval(), tmp_path / "small.onnx", size=(33, 40), verify=False)
    assert result.verification is None
    assert Runner(result.path, provider="cpu").contract.verified == {"passed": None}


@pytest.mark.parametrize("case", ["foreign domain", "training mode", "no image", "constant output", "weights"])
def test_what_is_not_a_masked_network_is_said(case: str, tmp_path: Path) -> None:
    model = build(HEAD, (3, 32, 32), 18)
    if case == "foreign domain":
        model.graph.node[1].domain = "my.domain"
        model.opset_import.append(onnx.helper.make_opsetid("my.domain", 1))
    elif case == "training mode":
        four = [np.ones(4)] * 4
        steps = (HEAD[0], step("BatchNormalization", "0", *four), step("GlobalAveragePool", "1"))
        model = build(steps, (3, 32, 32), 18)
        model.graph.node[1].attribute.append(onnx.helper.make_attribute("training_mode", 1))
        model.graph.node[1].output.extend(["mean", "var"])
    elif case == "weights":
        model = build((step("Conv", np.ones((2, 3, 32, 32)), "x"),), (3, 32, 32), 18)
    elif case == "no image":
        model = build((*HEAD, step("Relu", np.ones((2, 4)))), (3, 32, 32), 18)
    else:
        model = build((step("Sub", "x", np.array(1e6)), step("Relu", "0"), *_behind(1)), (3, 32, 32), 18)
    onnx.save(model, tmp_path / "in.onnx")
    message = {
        "foreign domain": "belongs to the domain 'my.domain'",
        "training mode": "is in training mode",
        "weights": "one of its parameters depends on the image",
        "no image": "no output of the network depends on its image",
        "constant output": "the same for every image and mask",
    }[case]
    with pytest.raises(lmonnx.LmonnxError, match=message):
        lmonnx.export(tmp_path / "in.onnx", tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def _behind(last: int) -> tuple[object, ...]:
    return step("GlobalAveragePool", str(last)), step("Flatten", str(last + 1))


def test_the_source_is_not_overwritten(tmp_path: Path) -> None:
    source = onnx_file(tmp_path / "in.onnx", *HEAD)
    with pytest.raises(OptionError, match="is the source"):
        lmonnx.export(source, source)


@pytest.mark.parametrize("size", [0, (-3, 4), (3, 4, 5)])
def test_sizes_that_are_none(size: object, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="is not a number of pixels"):
        lmonnx.export(Small().eval(), tmp_path / "out.onnx", size=size)  # type: ignore[arg-type]


def test_attention_is_refused_with_every_node_named(tmp_path: Path) -> None:
    layers = 2
    network = import_torchvision().models.VisionTransformer(32, 8, layers, 2, 16, 32).eval()
    with pytest.raises(UnsupportedOpError) as refusal:
        lmonnx.export(network, tmp_path / "vit.onnx", size=32)
    operators = [offence.operator for offence in refusal.value.offences]
    assert operators.count("Softmax") == layers
    assert operators.count("MatMul") == 2 * layers
    assert set(SUSPECTS) >= {"Softmax", "MatMul"}
    text = str(refusal.value)
    assert all(f"{operator} '" in text for operator in operators)
    assert len(operators) == sum(
        1 + int(more or 0) for more in re.findall(r"\n  \w+ '.*?(?: \(and (\d+) more like it\))?$", text, re.M)
    )
    assert list(tmp_path.iterdir()) == []


def test_transposed_convolutions_are_refused(tmp_path: Path) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 4, 2, 2), nn.ReLU(), nn.ConvTranspose2d(4, 4, 2, 2)
    )
    with pytest.raises(UnsupportedOpError) as refusal:
        lmonnx.export(network.eval(), tmp_path / "up.onnx", size=32)
    assert [offence.operator for offence in refusal.value.offences] == ["ConvTranspose", "ConvTranspose"]


@pytest.mark.parametrize(
    ("source", "options", "error", "message"),
    [
        ("missing.onnx", {}, SourceError, "there is no file missing.onnx"),
        ("resnet5", {}, SourceError, "did you mean resnet50"),
        (Path(__file__).as_posix(), {}, SourceError, "not a file whose name ends in .onnx"),
        ("resnet18", {"weights": "V3"}, WeightsError, "choose one of default, IMAGENET1K_V1, seed:N"),
        ("resnet18", {"weights": "seed:one"}, WeightsError, "write seed:0"),
        ("missing.onnx", {"weights": "seed:0"}, OptionError, "is for networks by name"),
        ("resnet18", {"labels": ("a",)}, OptionError, "brings its own"),
        ("resnet18", {"weights": "seed:0", "rules": MaskRules(rings="kernel")}, OptionError, "in the reference only"),
        (Small(), {}, SourceError, "training mode"),
        (Small().eval().bfloat16(), {}, SourceError, r"weights of bfloat16.*call its float\(\) first"),
    ],
)
def test_what_cannot_be_had_is_said(
    source: str, options: dict[str, object], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        lmonnx.export(source, tmp_path / "out.onnx", **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_unreachable_weights_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", _unplugged)
    with pytest.raises(WeightsError, match=r"(?s)cannot be had.*put resnet18-.*\.pth.*--weights seed:0"):
        lmonnx.export("resnet18", tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def _unplugged(*_: object, **__: object) -> None:
    raise OSError("Name or service not known")


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_broken_files_are_named(damage: str, tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "in.onnx", *HEAD)
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[: len(whole) // 2], "text": b"not a model", "empty": b""}[damage])
    with pytest.raises(SourceError, match=r"in\.onnx is not a valid ONNX model"):
        lmonnx.export(path, tmp_path / "out.onnx")


def test_destinations_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="is a directory"):
        lmonnx.export(Small().eval(), tmp_path)
    with pytest.raises(PublishError, match="cannot write to"):
        lmonnx.export(Small().eval(), tmp_path / "no such folder" / "out.onnx")


def test_size_of_a_file(tmp_path: Path) -> None:
    source = onnx_file(tmp_path / "in.onnx", *HEAD)
    with pytest.raises(OptionError, match="made for 32×32"):
        lmonnx.export(source, tmp_path / "out.onnx", size=48)
    free = build(HEAD, (3, 32, 32), 18)
    for axis in (2, 3):
        free.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"side{axis}"
    onnx.save(free, tmp_path / "free.onnx")
    with pytest.raises(OptionError, match="give it, such as --size 224"):
        lmonnx.export(tmp_path / "free.onnx", tmp_path / "out.onnx")
    assert Runner(lmonnx.export(tmp_path / "free.onnx", tmp_path / "out.onnx", size=(40, 36)).path).size == (40, 36)


def test_two_inputs_are_refused(tmp_path: Path) -> None:
    model = build(HEAD, (3, 32, 32), 18)
    model.graph.input.append(onnx.helper.make_tensor_value_info("other", 1, [1]))
    onnx.save(model, tmp_path / "in.onnx")
    with pytest.raises(SourceError, match=r"2 inputs \(x, other\)"):
        lmonnx.export(tmp_path / "in.onnx", tmp_path / "out.onnx")
