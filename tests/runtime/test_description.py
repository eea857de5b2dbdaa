"""What a file says about itself, on a host that has neither torch nor onnx."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lmonnx.errors import ModelError
from lmonnx.runtime.contract import Contract
from lmonnx.runtime.description import Description, Tensor, describe, in_bytes
from lmonnx.runtime.form import Form
from lmonnx.runtime.preprocessing import Preprocessing

GraphFile = Callable[..., Path]


def rows(contract: Contract) -> dict[str, str]:
    tensor = Tensor("scores", "float32", ("batch", None))
    return dict(Description("model.onnx", 46_800_000, (), (tensor,), contract).rows())


def test_a_file_is_described(graph_file: GraphFile) -> None:
    path = graph_file()
    description = describe(path)
    assert [str(each) for each in description.inputs] == [
        "image float32 [images, 3, 8, 8]",
        "mask bool [masks, 1, 8, 8]",
    ]
    assert [each.name for each in description.outputs] == ["scores"]
    assert description.size == path.stat().st_size
    assert ["labels", "3:", "cat,", "dog,", "owl"] in [line.split() for line in str(description).splitlines()]


def test_a_host_without_torch_and_onnx_describes(graph_file: GraphFile) -> None:
    without = "import sys; sys.modules.update(torch=None, onnx=None, onnx_ir=None)"
    command = f"{without}; from lmonnx.runtime.description import describe; print(describe(sys.argv[1]))"
    arguments = [sys.executable, "-c", command, str(graph_file())]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "mask bool [masks, 1, 8, 8], True = keep; the batch axes broadcast" in result.stdout


@pytest.mark.parametrize(
    ("changes", "row", "finding"),
    [
        ({"labels": None}, "labels", "not recorded"),
        ({"labels": ("a", "b", "c", "d")}, "labels", "4: a, b, c, …"),
        ({"outputs": {"scores": "unknown"}}, "output", "scores float32 [batch, ?], not known whether"),
        ({"preprocessing": None}, "photos", "not recorded"),
        (
            {"preprocessing": Preprocessing((224, 160), 256, "bicubic", channel_order="BGR")},
            "photos",
            "short side resized to 256, centre crop 224×160 (height×width), bicubic, BGR",
        ),
        ({"preprocessing": Preprocessing((8, 9))}, "photos", "resized to 8×9 (height×width), bilinear, RGB"),
        ({"preprocessing": Preprocessing((8, 9), mean=(0.5,), std=(1.0,))}, "photos", "bilinear, grey"),
        ({"preprocessing": Preprocessing((8, 9), scale=1)}, "pixels", "(pixel / 1 − mean) / std, mean 0, 0, 0, std 1"),
        (
            {"preprocessing": Preprocessing((8, 9), channel_order="BGR"), "form": Form("uint8")},
            "photos",
            "resized to 8×9 (height×width), bilinear, RGB",
        ),
        (
            {"preprocessing": Preprocessing((8, 9), channel_order="BGR"), "form": Form("uint8")},
            "pixels",
            "std 1, 1, 1, done by the graph, which makes BGR of RGB",
        ),
        ({"data": "model.onnx.data"}, "file", "model.onnx, 46.8 MB with the weights in model.onnx.data beside it, by"),
        ({"rules": {"average": "area", "concat": "any"}}, "rules", "average=area, concat=any"),
        ({"source": {"kind": "torchvision", "name": "vgg16", "weights": "seed:1"}}, "source", "vgg16, weights seed:1"),
        ({"source": {}}, "source", "not recorded"),
        ({"source": {"weights_sha256": "abc"}}, "weights sha256", "abc"),
        ({"verified": {"passed": None}}, "proof", "not made; lmonnx verify makes it"),
        (
            {"verified": {"passed": True, "largest": 2e-6, "tolerance": 3e-5, "masks": ["a", "b"], "undecided": ["b"]}},
            "proof",
            "passed on 2 masks, of which float32 cannot tell 1: largest difference 2e-06, allowed 3e-05",
        ),
        ({"verified": {"passed": False, "masks": 3}}, "proof", "FAILED: largest difference ?, allowed ?"),
        ({"versions": {"torch": "2.13.0"}}, "versions", "torch 2.13.0"),
    ],
)  # fmt: skip
def test_rows(contract: Contract, changes: dict[str, object], row: str, finding: str) -> None:
    assert finding in rows(replace(contract, **changes))[row]  # type: ignore[arg-type]


def test_lines_fit_a_terminal(contract: Contract) -> None:
    names = {f"package-{i}": "1.2.3" for i in range(30)}
    description = Description("model.onnx", 1, (), (), replace(contract, versions=names))
    assert max(map(len, str(description).splitlines())) <= 100


def test_json(graph_file: GraphFile, contract: Contract) -> None:
    parsed = json.loads(json.dumps(describe(graph_file()).to_json(), allow_nan=False))
    assert parsed["inputs"][0] == {"name": "image", "kind": "float32", "shape": ["images", 3, 8, 8]}
    assert parsed["metadata"]["labels"] == ["cat", "dog", "owl"]
    assert parsed["metadata"]["version"] == contract.version


def test_a_file_that_is_not_ours(graph_file: GraphFile) -> None:
    with pytest.raises(ModelError, match="not a graph exported by lmonnx"):
        describe(graph_file(props={}))


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (46_840_000, "46.8 MB"), (3e15, "3000.0 TB")],
)
def test_bytes(count: float, text: str) -> None:
    assert in_bytes(count) == text
