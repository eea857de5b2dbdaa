"""Weights from files: what training scripts write is taken, and what does not fit is said in full."""

from __future__ import annotations

import argparse
import hashlib
import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

import lmonnx
from lmonnx.errors import OptionError, SourceError, WeightsError
from lmonnx.exporters.finished import verify
from lmonnx.exporters.sources import resolve, torchvision
from lmonnx.exporters.sources.checkpoint import fill, read, restore
from lmonnx.exporters.sources.module import weights_hash
from lmonnx.exporters.sources.scenes import SceneNet
from lmonnx.exporters.sources.seeds import seeded
from lmonnx.runtime import Preprocessing, Runner

SIZE = (64, 64)
Wrap = Callable[[Mapping[str, torch.Tensor]], Any]


def trained(classes: int = 10) -> SceneNet:
    return seeded(SceneNet(classes), 5)


def prefixed(prefix: str) -> Wrap:
    return lambda state: {prefix + name: value for name, value in state.items()}


#: Names that averages of the weights have, and those of what they are averages of.
AVERAGES = {
    "state_dict_ema": "state_dict",
    "model_ema": "model",
    "ema": "model",
    "ema_state_dict": "state_dict",
    "ema_model_state_dict": "model_state_dict",
    "EMA": "network",
    "params_ema": "params",
    "swa_model": "model",
}
WRAPPINGS: dict[str, tuple[Wrap, str]] = {
    "bare": (lambda state: state, ""),
    "state_dict": (lambda state: {"epoch": 3, "state_dict": state}, "state_dict"),
    "model": (lambda state: {"model": state, "optimizer": {"lr": 0.1}}, "model"),
    "averages first": (lambda state: {"model": {}, "model_ema": state}, "model_ema"),
    **{
        f"{average} beside {raw}": (
            lambda state, average=average, raw=raw: {raw: trained(3).state_dict(), average: state, "updates": 3},
            average,
        )
        for average, raw in AVERAGES.items()
    },
    "an average in an entry": (lambda state: {"model": {"a": {}}, "ema": {"module": state, "decay": 1}}, "ema.module"),
    "an average that has no weights": (lambda state: {"ema": {"decay": 0.9}, "model": state}, "model"),
    "nested twice": (lambda state: {"model": {"state_dict": state}}, "model.state_dict"),
    "PyTorch's tutorial": (
        lambda state: {"epoch": 3, "model_state_dict": state, "optimizer_state_dict": {"state": {0: {}}}, "loss": 0.1},
        "model_state_dict",
    ),
    "a name of its own": (lambda state: {"net": state, "acc": 91.5, "epoch": 7}, "net"),
    "a name of its own beside a tensor": (lambda state: {"loss": torch.tensor(0.1), "net": state}, "net"),
    "a name of its own in an entry": (lambda state: {"model": {"backbone": state}}, "model.backbone"),
    "options of a training": (lambda state: {"args": argparse.Namespace(lr=1), "state_dict": state}, "state_dict"),
    "data parallel": (prefixed("module."), ""),
    "compiled data parallel": (prefixed("_orig_mod.module."), ""),
    "averaged": (lambda state: {"n_averaged": torch.tensor(7), **prefixed("module.")(state)}, ""),
    "a framework": (lambda state: {"state_dict": prefixed("model.")(state)}, "state_dict"),
    "before there were counters": (
        lambda state: {name: value for name, value in state.items() if "num_batches" not in name},
        "",
    ),
    "sparse": (lambda state: {name: value.to_sparse() for name, value in state.items()}, ""),
    "half precision": (lambda state: {name: value.half() for name, value in state.items()}, ""),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_what_trainings_write_is_taken(wrapping: str, tmp_path: Path) -> None:
    wrap, entry = WRAPPINGS[wrapping]
    source, module = trained(), SceneNet()
    if wrapping == "half precision":
        source = source.half().float()
    torch.save(wrap(source.state_dict()), tmp_path / "last.pth")
    said = fill(module, str(tmp_path / "last.pth"), SIZE)
    others = {"other_entries": AVERAGES[entry]} if " beside " in wrapping and entry in AVERAGES else {}
    assert said == {"weights": "last.pth"} | ({"entry": entry} if entry else {}) | others
    assert weights_hash(module) == weights_hash(source)


@pytest.mark.parametrize("legacy", [True, False])
def test_formats(tmp_path: Path, legacy: bool) -> None:
    for name, safe in (("a.pt", False), ("a.safetensors", True), ("b.pth", True), ("b.safetensors", False)):
        if safe:
            safetensors.torch.save_file(prefixed("module.")(trained().state_dict()), tmp_path / name)
        else:
            torch.save(trained().state_dict(), tmp_path / name, _use_new_zipfile_serialization=not legacy)
        module = SceneNet()
        fill(module, str(tmp_path / name), SIZE)
        assert weights_hash(module) == weights_hash(trained())


class Unpickled:
    """Says so if anything of it is run."""

    def __reduce__(self) -> Any:
        return _run, ()


def _run() -> None:
    raise AssertionError("code in a file of weights was run")


def test_a_network_that_has_a_part_called_module(tmp_path: Path) -> None:
    network = nn.Sequential()
    network.add_module("module", nn.Linear(2, 2))
    twin = nn.Sequential()
    twin.add_module("module", nn.Linear(2, 2))
    torch.save(network.state_dict(), tmp_path / "a.pth")
    restore(twin, read(tmp_path / "a.pth")[0], "a.pth")
    assert weights_hash(twin) == weights_hash(network)
    with pytest.raises(WeightsError, match=r"1 unexpected: module\.bias"):  # it would be bias, which there is already
        restore(nn.Linear(2, 2), {"weight": torch.ones(2, 2), "bias": torch.ones(2), "module.bias": torch.ones(2)}, "a")


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (lambda _: None, "there is no file"),
    "a folder": (Path.mkdir, "there is no file"),
    "empty": (lambda path: path.write_bytes(b"") and None, "is empty; fetch"),
    "text": (lambda path: path.write_text("<!DOCTYPE html>") and None, "is damaged, or was written neither"),
    "cut off": (lambda path: _cut(path), "is damaged, or was written neither"),
    "a whole module": (lambda path: torch.save(trained(), path), r"holds lmonnx\S+SceneNet, which is not weights but"),
    "an old whole module": (
        lambda path: torch.save(trained(), path, _use_new_zipfile_serialization=False),
        r"holds lmonnx\S+SceneNet, which is not weights but",
    ),
    "code": (lambda path: path.write_bytes(pickle.dumps(Unpickled(), 2)) and None, "_run, which is not weights but"),
    "a program": (
        lambda path: torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), path),
        "is a TorchScript archive",
    ),
    "a tensor": (lambda path: torch.save(torch.ones(3), path), "holds no weights by name"),
    "numbers": (lambda path: torch.save({"epoch": 3}, path), "holds no weights by name"),
    "several": (
        lambda path: torch.save({"epoch": 3, **{name: {"weight": torch.ones(2)} for name in ("netG", "netD")}}, path),
        r"several sets of weights, netG, netD; write the one that is meant .*torch\.load\(FILE\)\['netG'\], NEW\)",
    ),
    "numbered": (lambda path: torch.save({0: {"weight": torch.ones(2)}}, path), "holds no weights by name"),
    "nothing": (lambda path: torch.save({"state_dict": {}}, path), "holds no weights by name"),
}


def _cut(path: Path) -> None:
    torch.save(trained().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-2000])


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:.*TracerWarning")
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_cannot_be_read(damage: str, tmp_path: Path) -> None:
    write, message = DAMAGES[damage]
    path = tmp_path / "last.pth"
    write(path)
    with pytest.raises(WeightsError, match=message) as caught:
        read(path)
    assert "last.pth" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"abc", b"x" * 100])
def test_a_damaged_safetensors_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match=r"a\.safetensors is (empty|damaged)"):
        read(tmp_path / "a.safetensors")


def test_a_mismatch_is_listed_and_nothing_is_loaded() -> None:
    module = trained()
    before = weights_hash(module)
    state = {name: value for name, value in module.state_dict().items() if not name.startswith("blocks.0")}
    state |= {f"more.{i}": torch.ones(1) for i in range(10)} | {"head.weight": torch.ones(7, 96)}
    state["stem.0.0.weight"] = torch.ones(24, 3, 5, 5, dtype=torch.int8)
    with pytest.raises(WeightsError) as caught:
        restore(module, state, "other.pth")
    message = str(caught.value)
    assert message.startswith(
        "other.pth does not hold the weights of this network: 15 missing: blocks.0.first.0.weight,"
    )
    assert " and 7 more; 10 unexpected: more.0, more.1," in message
    assert "more.7 and 2 more; 2 of another shape: " in message
    assert "head.weight 7×96 instead of 10×96" in message
    assert "stem.0.0.weight 24×3×5×5 int8 instead of 24×3×5×5" in message
    assert "\n" not in message
    assert weights_hash(module) == before


def test_another_number_of_classes_is_told(tmp_path: Path) -> None:
    torch.save(trained(7).state_dict(), tmp_path / "seven.pth")
    with pytest.raises(WeightsError, match=r"2 of another shape: .*; if they are for 7 classes, say so: --num-cl.* 7$"):
        resolve("scenes-shape", weights=str(tmp_path / "seven.pth"))
    network = resolve("scenes-shape", weights=tmp_path / "seven.pth", classes=7, size=SIZE)
    assert network.labels is None
    assert network.origin["classes"] == 7
    assert network.origin["weights_sha256"] == weights_hash(trained(7))


def test_published_weights_have_their_own_number_of_classes() -> None:
    for source, own in (("scenes-shape", 10), ("resnet18", 1000)):
        with pytest.raises(OptionError, match=rf"are for {own} classes and 3 are asked for, whose classifier would be"):
            resolve(source, classes=3)
    with pytest.raises(OptionError, match="classes=0 is not a positive number"):
        resolve("resnet18", weights="seed:0", classes=0)
    with pytest.raises(OptionError, match="classes=3 is for networks by name"):
        resolve(trained(), classes=3)


def test_weights_are_not_a_network() -> None:
    with pytest.raises(SourceError, match=r"holds weights and no network; name the network too: NAME --weights a\.pth"):
        resolve("a.pth")


def test_a_file_by_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of torchvision's brings the preprocessing of its own weights and auxiliary parts; names were dotted."""
    models = torchvision.import_torchvision().models
    source = seeded(models.squeezenet1_1(weights=None), 4)
    auxiliary = {"aux1.conv.weight": torch.ones(2), "AuxLogits.fc.bias": torch.ones(2)}
    path = tmp_path / "squeezenet1_1-b8a52dc0.pth"
    torch.save(source.state_dict() | auxiliary, path)
    network = resolve("squeezenet1_1", weights=str(path), size=SIZE)
    assert network.origin["weights"] == path.name
    assert network.origin["weights_sha256"] == weights_hash(source)
    assert network.labels is None  # it has that file's name, and other weights
    named = resolve("squeezenet1_1", weights=str(path), size=SIZE, preprocessing={"crop": "0.8"})
    assert network.preprocessing is not None
    assert named.preprocessing == replace(network.preprocessing, resize=80)
    assert network.preprocessing.mean == (0.485, 0.456, 0.406)
    published = models.SqueezeNet1_1_Weights.DEFAULT
    monkeypatch.setattr(torchvision, "_published", lambda *_: published)
    assert resolve("squeezenet1_1", weights=str(path), size=SIZE).labels == tuple(published.meta["categories"])
    dotted = torchvision._DOTTED.sub(r"\1\2", "features.denseblock1.denselayer12.norm.1.running_mean")
    assert dotted == "features.denseblock1.denselayer12.norm1.running_mean"
    monkeypatch.undo()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    choices = [SimpleNamespace(url=f"https://x/a-{digits}.pth") for digits in ("0676ba61", digest[:8])]
    assert torchvision._published(path, choices) is choices[1]
    assert torchvision._published(path, choices[:1]) is None


def test_networks_are_built_as_they_are_served() -> None:
    models = torchvision.import_torchvision().models
    for name in ("googlenet", "inception_v3"):
        module = models.get_model(name, weights=None, **torchvision._FORM[name])
        assert module.transform_input
        assert not [entry for entry in module.state_dict() if entry.startswith(torchvision._AUXILIARY)]
        full = models.get_model(name, weights=None, aux_logits=True, init_weights=False, transform_input=True)
        restore(module, full.state_dict(), name, ignored=torchvision._AUXILIARY)


def test_export_and_verify_with_a_file(tmp_path: Path) -> None:
    torch.save({"state_dict": trained(3).state_dict()}, tmp_path / "mine.pth")
    asked: dict[str, Any] = {
        "preprocessing": Preprocessing(size=SIZE, resize=70, mean=(0.1, 0.2, 0.3)),
        "labels": ("a", "b", "c"),
    }
    weights = str(tmp_path / "mine.pth")
    result = lmonnx.export("scenes-shape", tmp_path / "mine.onnx", weights=weights, classes=3, verify=False, **asked)
    contract = Runner(result.path, provider="cpu").contract
    assert contract.labels == asked["labels"]
    assert contract.preprocessing == asked["preprocessing"]
    assert {**contract.source, "weights_sha256": ""} == {
        "kind": "scenes", "name": "scenes-shape", "weights": "mine.pth", "entry": "state_dict", "classes": 3,
        "given": ["labels", "preprocessing"], "layout": "NCHW", "weights_sha256": "",
    }  # fmt: skip
    with pytest.raises(WeightsError, match=r"was made with the weights in a file mine\.pth; give it: --weights FILE"):
        verify(result.path, "scenes-shape")
    (tmp_path / "mine.pth").rename(tmp_path / "moved.pt")
    assert verify(result.path, "scenes-shape", weights=tmp_path / "moved.pt").passed
    torch.save(seeded(SceneNet(3), 6).state_dict(), tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"made from other\.pth are not those of scenes-shape made from mine\.pth"):
        verify(result.path, "scenes-shape", weights=tmp_path / "other.pth")
