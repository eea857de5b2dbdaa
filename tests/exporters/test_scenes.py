"""The bundled networks: they are there, they are what the model card says, and nothing is fetched for them."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch

import lmonnx
from lmonnx.errors import SourceError, WeightsError
from lmonnx.evaluate import CLASSES, draw
from lmonnx.exporters.sources import resolve, scenes
from lmonnx.exporters.sources.module import weights_hash
from lmonnx.exporters.sources.scenes import NAMES, SceneNet, weights_file
from lmonnx.exporters.sources.seeds import seeded
from lmonnx.runtime import Runner

#: The first seed of scenes that no network was trained on and none was measured on.
FRESH = 1_500_000_000


def labelling(name: str) -> str:
    return "shape" if "shape" in name else "material"


def accuracy(runner: Runner, name: str, count: int) -> float:
    drawn = [draw(FRESH + number, labelling(name)) for number in range(count)]  # type: ignore[arg-type]
    preprocessing = runner.contract.preprocessing
    assert preprocessing is not None
    image = np.concatenate([preprocessing.normalise(scene.pixels) for scene in drawn])
    (logits,) = runner.run(image, np.ones((1, 1, 128, 128), np.bool_)).values()
    return float((logits.argmax(axis=1) == [scene.label for scene in drawn]).mean())


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_export_offline(tmp_path: Path, offline: None) -> None:
    """From the name alone to a proven file that knows the scenes."""
    exported = lmonnx.export("scenes-material", tmp_path / "scenes.onnx")
    assert exported.verification is not None
    assert exported.verification.passed
    runner = Runner(exported.path, provider="cpu", threads=1)
    contract = runner.contract
    assert runner.size == (128, 128)
    assert contract.labels == CLASSES["material"]
    assert contract.outputs.popitem()[1] == "logits"
    assert contract.source["kind"] == "scenes"
    assert contract.source["name"] == "scenes-material"
    assert accuracy(runner, "scenes-material", 200) >= 0.93


@pytest.mark.parametrize("name", NAMES)
def test_weights(name: str) -> None:
    """Each file is small, loads, and says what its network was trained on and how well it does."""
    path = weights_file(name)
    assert path.stat().st_size <= 1_500_000
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    recipe = json.loads(metadata["recipe"])
    assert recipe["labelling"] == labelling(name)
    assert recipe["grey"] == name.endswith("-grey")
    assert json.loads(metadata["measured"])["accuracy"] >= 0.95
    module = SceneNet()
    assert scenes._load(module, name) == CLASSES[labelling(name)]  # type: ignore[index]
    drawn = [draw(FRESH + number, labelling(name)) for number in range(100)]  # type: ignore[arg-type]
    image = torch.tensor(np.stack([scene.pixels for scene in drawn])).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        found = module.eval()((image - 0.5) / 0.25).argmax(1)
    assert (found.numpy() == [scene.label for scene in drawn]).mean() >= 0.9


def test_names_are_all_there() -> None:
    assert sorted(path.stem for path in weights_file(NAMES[0]).parent.glob("*.safetensors")) == sorted(NAMES)


def test_seeded_weights_and_another_size() -> None:
    network = resolve("scenes-shape", weights="seed:3", size=(96, 160))
    twin = seeded(SceneNet(), 3)
    assert network.origin["weights_sha256"] == weights_hash(twin)
    assert network.origin["weights"] == "seed:3"
    assert network.labels is None
    assert network.size == (96, 160)
    assert network.preprocessing is not None
    assert network.preprocessing.size == (96, 160)


@pytest.mark.parametrize("weights", ["IMAGENET1K_V1", "seed", "seed:-1"])
def test_unknown_weights(weights: str) -> None:
    with pytest.raises(WeightsError):
        resolve("scenes-material", weights=weights)


def test_near_name_is_suggested() -> None:
    with pytest.raises(SourceError, match="did you mean scenes-material"):
        resolve("scene-material")


def test_missing_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(scenes, "weights_file", lambda name: tmp_path / name)
    with pytest.raises(WeightsError, match=r"the weights of scenes-material are not in .*; install lmonnx again"):
        resolve("scenes-material")


@pytest.mark.parametrize("damage", [b"", b"not a safetensors file", None])
def test_damaged_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, damage: bytes | None) -> None:
    whole = weights_file("scenes-material").read_bytes()
    (tmp_path / "damaged").write_bytes(whole[:-1000] if damage is None else damage)
    monkeypatch.setattr(scenes, "weights_file", lambda _: tmp_path / "damaged")
    with pytest.raises(WeightsError, match="does not hold the weights of scenes-material") as caught:
        resolve("scenes-material")
    assert "\n" not in str(caught.value)
