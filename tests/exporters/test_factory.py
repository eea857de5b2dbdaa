"""Networks of one's own: found by the name of what makes them, and what is wrong with it said in one line."""

from __future__ import annotations

import subprocess
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

class Branching(Small):
    def forward(self, x):
        return super().forward(x) * (1 if x.sum() > 0 else 2)

def compiled(): return torch.compile(Small())
def parallel(): return nn.DataParallel(torch.compile(Small()))
def half(): return Small().half()
def double(): return Small().double()
def frozen(): return torch.jit.freeze(torch.jit.script(Small().eval()))
def program():
    free = ({0: torch.export.Dim.DYNAMIC},)
    return torch.export.export(Small(), (torch.zeros(2, 3, 32, 40),), dynamic_shapes=free).module()

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


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", ["compiled", "parallel"])
def test_wrappers_are_taken_off(name: str, tmp_path: Path) -> None:
    network = resolve(f"own_networks:{name}", size=SIZE)
    module = sys.modules["own_networks"].Small()
    assert network.origin["weights_sha256"] == weights_hash(module)
    torch.save(module.state_dict(), tmp_path / "a.pth")
    assert resolve(f"own_networks:{name}", weights="a.pth", size=SIZE).origin["weights_sha256"] == weights_hash(module)
    assert resolve(getattr(sys.modules["own_networks"], name)().eval(), size=SIZE).channels == 3


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_programs_of_pytorch() -> None:
    """One of TorchScript is refused; one of torch.export has no modes that it could be put in."""
    with pytest.raises(SourceError, match=r"is a TorchScript program, which .*; give the module that it was made of"):
        resolve("own_networks:frozen", size=SIZE)
    hashes = {resolve(f"own_networks:{name}", size=SIZE).origin["weights_sha256"] for name in ("program", "fixed")}
    assert len(hashes) == 1


@pytest.mark.parametrize(("name", "kind"), [("half", "float16"), ("double", "float64")])
def test_weights_of_another_precision(name: str, kind: str) -> None:
    with pytest.raises(SourceError, match=f"^Small has weights of {kind}, such as first.weight; call its float"):
        resolve(f"own_networks:{name}", size=SIZE)


def test_a_network_that_looks_at_its_values(capfd: pytest.CaptureFixture[str]) -> None:
    """PyTorch prints its graph; what is said of it is one line."""
    with pytest.raises(SourceError, match="PyTorch could not export Branching at 32×40: ") as caught:
        resolve("own_networks:Branching", size=SIZE)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_factory_finds_torchvision(tmp_path: Path) -> None:
    """Also where its compiled operators do not load; in a fresh process, into which it has not been imported."""
    text = "import torchvision\ndef make(): return torchvision.models.squeezenet1_1(weights=None, num_classes=4)\n"
    (tmp_path / "own_vision.py").write_text(text, encoding="utf-8")
    code = "from lmonnx.exporters.sources import resolve; resolve('own_vision:make', size=(64, 64))"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True)


def test_without_torchvision(tmp_path: Path) -> None:
    """A factory that does not want it works; a name says what to install."""
    without = "import sys; sys.modules['torchvision'] = None; from lmonnx.exporters.sources import resolve"
    made = f"{without}; resolve('own_networks:fixed', size=(32, 32))"
    subprocess.run([sys.executable, "-W", "ignore", "-c", made], check=True, capture_output=True)
    command = f"{without}; from lmonnx import cli; cli.main(['export', 'resnet18', '-o', 'out.onnx'])"
    said = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=False)
    assert said.returncode == 1
    message = "networks by name need the package torchvision; install it with: pip install 'lmonnx[export]'"
    assert said.stderr == f"error: {message}\n"


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
        ("own_networks:", "is neither a file nor a network by name; .* own_networks:factory$"),
        ("./own_networks.py:Small", "a function that makes one is own_networks:Small$"),
        ("own_networks.py:Small", "a module is named without .py; write own_networks:Small$"),
        ("a:b:c", "a function that makes one is package.module:factory$"),
        ("", "the source is empty; name a network"),
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
