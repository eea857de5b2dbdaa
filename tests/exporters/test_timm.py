"""Networks of timm: names and tags, weights, preprocessing equal to timm's, class names."""

from __future__ import annotations

import math
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import lmonnx
from lmonnx.errors import LmonnxError, MissingExtraError, OptionError, SourceError, WeightsError
from lmonnx.exporters.finished import verify
from lmonnx.exporters.sources import resolve
from lmonnx.exporters.sources import timm as source
from lmonnx.exporters.sources.module import weights_hash
from lmonnx.exporters.sources.seeds import seeded
from lmonnx.exporters.sources.torchvision import import_torchvision
from lmonnx.runtime import Preprocessing, Runner

import_torchvision()
timm = pytest.importorskip("timm", reason="timm is not installed")
#: A miniature of timm's own tests, 160 × 160 pixels, 0.5 M weights.
NAME, TAG, SIZE = "timm:test_resnet", "r160_in1k", (64, 64)


def configs() -> list[Any]:
    """One configuration of each way in which timm prepares images."""
    found = {}
    for name in timm.list_models(include_tags=True):
        config = timm.models.get_pretrained_cfg(name)
        key = (config.input_size, config.crop_pct, config.crop_mode, config.interpolation, config.mean, config.std)
        found[key] = config
    return list(found.values())


def photographs() -> list[Image.Image]:
    rng = np.random.default_rng(5)
    coarse = [rng.integers(0, 256, (h // 9, w // 9, 3), np.uint8) for h, w in ((300, 410), (431, 257), (90, 97))]
    sizes = ((410, 300), (257, 431), (97, 90))
    return [Image.fromarray(c).resize(size, Image.Resampling.BICUBIC) for c, size in zip(coarse, sizes, strict=True)]


def test_preprocessing_is_timms() -> None:
    """Bit for bit, for every configuration of a square image of which the middle is cropped, or all is taken."""
    pictures, compared = photographs(), 0
    for config in configs():
        _, height, width = config.input_size
        ours = source.preprocessing_of(config, (height, width))
        squashed = config.crop_mode == "squash" and config.crop_pct == 1
        assert (ours is not None) == (config.crop_mode == "center" or squashed)
        if ours is None or height != width or height > 600:
            continue
        data = timm.data.resolve_data_config(pretrained_cfg=config.to_dict())
        transform = timm.data.create_transform(**data, is_training=False)
        for picture in pictures:
            np.testing.assert_array_equal(ours.prepare(picture)[0], transform(picture).numpy())
        compared += 1
    assert compared > 100


def test_another_size_keeps_the_share_that_is_cropped() -> None:
    config = timm.models.get_pretrained_cfg("resnet18.a1_in1k")
    assert (config.input_size, config.crop_pct) == ((3, 224, 224), 0.95)
    preprocessing = source.preprocessing_of(config, (96, 160))
    assert preprocessing is not None
    assert (preprocessing.size, preprocessing.resize) == ((96, 160), math.floor(160 / 0.95))


def test_labels() -> None:
    labels = {
        name: source.labels_of(timm.models.get_pretrained_cfg(name))
        for name in ("resnet18.a1_in1k", "convnext_nano.in12k", "convnext_tiny.fb_in22k", "resnet50_clip.openai")
    }
    assert [None if names is None else len(names) for names in labels.values()] == [1000, 11821, 21841, None]
    assert labels["resnet18.a1_in1k"] is not None
    assert labels["resnet18.a1_in1k"][207] == "golden retriever"
    config = timm.models.get_pretrained_cfg("resnet18.a1_in1k")
    config.label_names, config.label_descriptions = ("n1", "n2"), {"n1": "a cat"}
    assert source.labels_of(config) == ("a cat", "n2")


def test_seeded_export_and_verify(tmp_path: Path) -> None:
    result = lmonnx.export(f"{NAME}.{TAG}", tmp_path / "a.onnx", weights="seed:2", classes=7, size=SIZE, verify=False)
    contract = Runner(result.path, provider="cpu").contract
    assert contract.labels is None
    module = seeded(timm.create_model("test_resnet", num_classes=7), 2)
    assert {name: contract.source[name] for name in ("kind", "name", "weights", "weights_sha256", "classes")} == {
        "kind": "timm", "name": f"{NAME}.{TAG}", "weights": "seed:2", "weights_sha256": weights_hash(module),
        "classes": 7,
    }  # fmt: skip
    assert verify(result.path, f"{NAME}.{TAG}").passed


def test_timms_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the hub would answer; the weights' name in the metadata gives the same network again."""
    state = seeded(timm.create_model("test_resnet"), 3).state_dict()
    asked = []

    def answer(hub_id: str, **_: object) -> Any:
        asked.append(hub_id)
        return dict(state)

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", answer)
    for weights in ("default", f"test_resnet.{TAG}"):
        network = resolve(NAME, weights=weights, size=SIZE)
        assert network.origin["weights"] == f"test_resnet.{TAG}"
        assert network.origin["weights_sha256"] == weights_hash(seeded(timm.create_model("test_resnet"), 3))
        assert network.labels is not None
        assert network.labels[207] == "golden retriever"
        assert network.preprocessing is not None
        assert network.preprocessing.size == SIZE
    assert asked == [f"timm/test_resnet.{TAG}"] * 2
    with pytest.raises(
        OptionError, match="labels is for other sources; timm:test_resnet with published weights brings"
    ):
        resolve(NAME, labels=("a",), size=SIZE)


def test_a_file_has_no_labels_of_timm(tmp_path: Path) -> None:
    """A thousand classes are not ImageNet's for being as many."""
    torch.save(seeded(timm.create_model("test_resnet"), 3).state_dict(), tmp_path / "a.pth")
    network = resolve(NAME, weights=tmp_path / "a.pth", size=SIZE)
    assert network.labels is None
    assert network.preprocessing is not None
    assert network.origin["weights"] == "a.pth"
    changed = resolve(NAME, weights=tmp_path / "a.pth", size=SIZE, preprocessing={"mean": (0.5,)})
    assert changed.preprocessing == replace(network.preprocessing, mean=(0.5, 0.5, 0.5))


def test_preprocessing_that_cannot_be_said_is_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    config = timm.models.get_pretrained_cfg("dm_nfnet_f0.dm_in1k")
    assert (config.crop_mode, config.crop_pct) == ("squash", 0.9)
    monkeypatch.setattr(source, "preprocessing_of", lambda *_: None)
    given = Preprocessing(size=SIZE, interpolation="bicubic")
    assert resolve(NAME, weights="seed:0", size=SIZE).preprocessing is None
    with pytest.raises(OptionError, match=r"crop='0\.9' is a part of .* give --mean and --std too"):
        resolve(NAME, weights="seed:0", size=SIZE, preprocessing={"crop": "0.9"})
    network = resolve(NAME, weights="seed:0", preprocessing=given)
    assert network.preprocessing == given
    assert network.size == SIZE
    assert network.origin["given"] == ["preprocessing"]


def test_without_a_connection(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError) as caught:
        resolve(NAME)
    message = str(caught.value)
    assert message.startswith(
        f"the weights test_resnet.{TAG} cannot be had from huggingface.co/timm/test_resnet.{TAG} ("
    )
    assert message.endswith(
        "); connect to a network, or put them into a file and give it: --weights FILE, or take random weights: "
        "--weights seed:0"
    )
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("timm:resnt18", {}, SourceError, "timm has no network 'resnt18'; did you mean timm:resnet18,"),
        ("timm:tv_resnet50", {}, SourceError, r"no network 'tv_resnet50'; did you mean timm:resnet50\.tv_in1k\?"),
        ("timm:", {}, SourceError, r"timm has no network ''; timm\.list_models\(\) has the names"),
        ("timm:resnet18.a9", {}, SourceError, r"resnet18 has no tag 'a9'; choose one of timm:resnet18\.a1_in1k, "),
        ("resnet18d", {}, SourceError, r"did you mean timm:resnet18d\?"),
        ("resnet50.a1_in1k", {}, SourceError, r"did you mean timm:resnet50\.a1_in1k\?"),
        ("cs3darknet_sx", {}, SourceError, "did you mean timm:cs3darknet_x, "),
        ("timm:cs3darknet_s", {}, WeightsError, "timm has no weights for cs3darknet_s.*; put them into a file"),
        (
            "timm:resnet18",
            {"weights": "a9"},
            WeightsError,
            "has no weights 'a9'; choose one of default, seed:N, a file",
        ),
        ("timm:resnet18", {"weights": "seed:x"}, WeightsError, "do not end in a whole number"),
        ("timm:resnet18", {"classes": 3}, OptionError, r"weights resnet18\.a1_in1k are for 1000 classes and 3 are"),
        (
            "timm:bat_resnext26ts",
            {"weights": "seed:0", "size": (128, 128)},
            SourceError,
            "cannot take 3 channels of 128×128 pixels: .*; try the size of its configuration, 256×256",
        ),
        (
            "timm:vit_small_patch16_224.dino",
            {"weights": "seed:0"},
            SourceError,
            r"has no classifier, its answer is features; take another tag \(timm:vit_small_patch16_224\.augreg",
        ),
    ],
)
def test_what_is_refused(name: str, options: dict[str, Any], error: type[LmonnxError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        resolve(name, **options)
    assert "\n" not in str(caught.value)


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        MissingExtraError, match=r"need the package timm; install it with: pip install 'lmonnx\[timm\]'"
    ):
        resolve(NAME)
    with pytest.raises(SourceError, match="'rexnet_100_x' is neither a file nor a network"):
        resolve("rexnet_100_x")
