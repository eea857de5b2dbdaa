"""Networks of one's own: found by the name of what makes them, and what is wrong with it said in one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import lmonnx
from lmonnx.errors import OptionError, SourceError, WeightsError
from lmonnx.exporters.finished import verify
from lmonnx.exporters.sources import resolve
from lmonnx.exporters.sources.module import weights_hash
from lmonnx.exporters.sources.seeds import seeded
from lmonnx.runtime import Preprocessing, Runner

SIZE = (32, 40)
NETWORKS = '''
"""A user's file."""
import torch
from torch import nn

class Small(nn.Module):
    def __init__(self, num_classes=4, channels=3):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.head = nn.Conv2d(channels, 8, 3, 2, 1), nn.Linear(8, num_classes)
    def forward(self, x):
        return self.head(torch.relu(self.first(x)).mean((2, 3)))

def late(num_classes=4):
    from own_parts import count
    assert count == 1
    return Small(num_classes)

def drawn():
    network = Small()
    torch.seed()
    nn.init.normal_(network.head.weight)
    return network

class Networks:
    grey = staticmethod(lambda: Small(channels=1))

made = Small()
number = 3
def fixed(): return Small()
def broken(): return nn.Linear(0, 1)(torch.ones(1, 2))
def left(): raise SystemExit(2)
def nothing(): pass
'''


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "own_networks.py").write_text(NETWORKS, encoding="utf-8")
    (tmp_path / "own_parts.py").write_text("count = 1", encoding="utf-8")
    (tmp_path / "own_wrong.py").write_text("def f(:", encoding="utf-8")
    (tmp_path / "own_stops.py").write_text("1 / 0", encoding="utf-8")
    (tmp_path / "own_needs.py").write_text("import no_such_package.part", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield tmp_path
    assert sys.path == path
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["Small", "late", "made"])
def test_a_class_a_function_and_a_module(name: str) -> None:
    network = resolve(f"own_networks:{name}", size=SIZE)
    made = sys.modules["own_networks"].Small()
    assert {**network.origin} == {
        "kind": "factory", "name": f"own_networks:{name}", "weights": "default", "weights_sha256": weights_hash(made),
    }  # fmt: skip
    assert network.channels == 3
    assert network.preprocessing is None
    assert network.labels is None


def test_channels_are_those_of_the_first_convolution() -> None:
    network = resolve("own_networks:Networks.grey", weights="seed:1", size=SIZE)
    assert network.channels == 1
    (logits,) = network.plain(torch.ones(2, 1, *SIZE).numpy())
    assert logits.shape == (2, 4)


def test_export_and_verify(tmp_path: Path) -> None:
    """From a file of weights, with a number of classes and what the user says of the images and classes."""
    resolve("own_networks:Small", size=SIZE)
    torch.save(seeded(sys.modules["own_networks"].Small(6), 2).state_dict(), tmp_path / "six.pth")
    preprocessing, labels = Preprocessing(size=SIZE, std=(0.5, 0.5, 0.5)), tuple("abcdef")
    result = lmonnx.export(
        "own_networks:Small",
        tmp_path / "own.onnx",
        weights="six.pth",
        classes=6,
        preprocessing=preprocessing,
        labels=labels,
    )
    contract = Runner(result.path, provider="cpu").contract
    assert contract.preprocessing == preprocessing
    assert contract.labels == labels
    assert contract.source["weights"] == "six.pth"
    assert verify(result.path, "own_networks:Small", weights="six.pth") == result.verification
    with pytest.raises(WeightsError, match=r"a file six\.pth; give it: --weights FILE"):
        verify(result.path, "own_networks:Small")
    with pytest.raises(SourceError, match="was made from own_networks:Small, not from own_networks:late"):
        verify(result.path, "own_networks:late")


def test_a_factory_that_draws_its_weights_cannot_be_verified(tmp_path: Path) -> None:
    result = lmonnx.export("own_networks:drawn", tmp_path / "own.onnx", size=SIZE, verify=False)
    with pytest.raises(WeightsError, match=r"drawn gives other weights than .*; if it draws them, save them once"):
        verify(result.path, "own_networks:drawn")
    result = lmonnx.export("own_networks:drawn", tmp_path / "own.onnx", size=SIZE, weights="seed:3", verify=False)
    assert verify(result.path, "own_networks:drawn").passed


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("own_netwroks:Small", r"there is no module 'own_netwroks', neither installed nor in /\S+; go to the folder"),
        ("own_networks.part:Small", "importing own_networks.part needs|there is no module 'own_networks.part'"),
        ("own_needs:f", "importing own_needs needs the module 'no_such_package'; install it"),
        ("own_wrong:f", r"importing own_wrong fails: SyntaxError: .*own_wrong\.py, line 1\)"),
        ("own_stops:f", r"importing own_stops fails: ZeroDivisionError: division by zero \(\S+own_stops\.py, line 1\)"),
        ("own_networks:Smal", "own_networks has no 'Smal'; did you mean Small?"),
        ("own_networks:Networks.gray", "own_networks has no 'Networks.gray'"),
        ("own_networks:x_y_z", "name a function, a class or a module in it"),
        ("own_networks:broken", r"called with no arguments, fails: RuntimeError: .* \(\S+, line \d+\)"),
        ("own_networks:left", r"fails: SystemExit: 2 \(\S+own_networks\.py, line \d+\)"),
        ("own_networks:nothing", "gives a NoneType; it has to give a torch.nn.Module"),
        ("own_networks:number", "is a int, neither a torch.nn.Module nor something to call"),
        ("own_networks:", "is neither a file nor a network"),
    ],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_what_is_wrong_with_it(source: str, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        resolve(source, size=SIZE)
    assert "\n" not in str(caught.value)


def test_classes_go_to_the_factory() -> None:
    with pytest.raises(SourceError, match=r"fixed, called with num_classes=7, fails: TypeError: .*num_classes"):
        resolve("own_networks:fixed", classes=7)
    with pytest.raises(OptionError, match="is a network already, and 7 classes are asked for"):
        resolve("own_networks:made", classes=7)
    network = resolve("own_networks:Small", weights="seed:1", classes=7, size=SIZE)
    assert network.plain(torch.ones(1, 3, *SIZE).numpy())[0].shape == (1, 7)
    with pytest.raises(WeightsError, match="own_networks:Small has no weights 'best'; choose one of default, seed:N"):
        resolve("own_networks:Small", weights="best")
