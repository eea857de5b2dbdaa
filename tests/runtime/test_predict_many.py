"""Predictions for folders: the same as one by one, in whatever batches, and nothing stops at one bad photograph."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lmonnx.errors import ImageError, ModelError, OptionError
from lmonnx.runtime import Box, load, predict_many
from lmonnx.runtime.contract import Contract
from lmonnx.runtime.engine import Call
from lmonnx.runtime.preprocessing import Preprocessing
from lmonnx.runtime.session import Runner
from tests.runtime.test_jobs import Counted, lines

GraphFile = Callable[..., Path]
SETTINGS = Preprocessing((8, 8), 10, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
SIZE = (12, 15)


@pytest.fixture
def runner(graph_file: GraphFile) -> Runner:
    return load(graph_file(preprocessing=SETTINGS), provider="cpu", threads=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven photographs, of which one is none."""
    rng = np.random.default_rng(3)
    for name in ("a", "b", "inner/c", "inner/d", "inner/deep/e", "f"):
        path = tmp_path / "photos" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*SIZE, 3), np.uint8)).save(path)
    (tmp_path / "photos" / "broken.png").write_bytes((tmp_path / "photos" / "a.png").read_bytes()[:60])
    return tmp_path / "photos"


GOOD = ("a.png", "b.png", "f.png", "inner/c.png", "inner/d.png", "inner/deep/e.png")


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    "options",
    [{}, {"batch_size": 4}, {"mask": Box(1, 2, 9, 9), "batch_size": 4, "mask_removes": True}, {"mask": "mask.png"}],
    ids=["whole", "batches", "box removed", "mask"],
)
def test_the_same_as_one_by_one(
    runner: Runner, folder: Path, tmp_path: Path, options: dict[str, Any], workers: int
) -> None:
    asked = dict(options)
    if "mask" in asked and not isinstance(asked["mask"], Box):
        asked["mask"] = tmp_path / "mask.png"
        Image.fromarray(np.random.default_rng(4).random(SIZE) > 0.3).save(asked["mask"])
    counted = Counted()
    outcome = predict_many(runner, [folder], tmp_path / "out", top=2, workers=workers, progress=counted, **asked)
    assert str(outcome) == f"6 of 7 photographs done, 1 failed, see {tmp_path / 'out' / 'errors.jsonl'}"
    assert list(outcome.failed) == ["broken.png"]
    found = {line.pop("photo"): line for line in lines(tmp_path / "out" / "results.jsonl")}
    assert sorted(found) == sorted(GOOD)
    mask = asked.get("mask")
    for name, line in found.items():
        (one,) = runner.predict(folder / name, mask, mask_removes=asked.get("mask_removes", False))
        expected = one.to_json(2)
        assert line["kept"] == pytest.approx(expected["kept"])
        assert [entry["index"] for entry in line["top"]] == [entry["index"] for entry in expected["top"]]
        for entry, other in zip(line["top"], expected["top"], strict=True):
            assert entry == {**other, "probability": pytest.approx(other["probability"], abs=1e-6)}
    assert counted.told[0] == (7, 0)
    assert counted.told.count("image") == 7
    assert sum(entry for entry in counted.told if isinstance(entry, int)) == 6


def test_every_pass_has_the_same_shape(
    runner: Runner, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = []
    run = Call.run
    monkeypatch.setattr(Call, "run", lambda call, feeds: shapes.append(feeds["image"].shape) or run(call, feeds))
    predict_many(runner, [folder], tmp_path / "out", batch_size=4, workers=0)
    assert shapes == [(4, 3, 8, 8)] * 2
    shapes.clear()
    predict_many(runner, [folder / "a.png", folder / "b.png"], tmp_path / "two", batch_size=1000, workers=0)
    assert shapes == [(2, 3, 8, 8)]


def test_a_photograph_that_makes_the_graph_fail_is_found(
    runner: Runner, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = runner.encode(SETTINGS.crop(folder / "f.png"))
    run = Call.run

    def fail(call: Call, feeds: dict[str, np.ndarray]) -> Any:
        if any((row == bad[0]).all() for row in feeds["image"]):
            raise ModelError("the graph failed: f")
        return run(call, feeds)

    monkeypatch.setattr(Call, "run", fail)
    outcome = predict_many(runner, [folder], tmp_path / "out", batch_size=4, workers=0)
    assert outcome.failed.keys() == {"broken.png", "f.png"}
    assert outcome.failed["f.png"] == "the graph failed: f"
    assert len(lines(tmp_path / "out" / "results.jsonl")) == 5


def test_what_is_wrong_is_said_before_the_work(runner: Runner, folder: Path, tmp_path: Path) -> None:
    for options in ({"top": 0}, {"workers": -1}, {"batch_size": 0}):
        with pytest.raises(OptionError, match=f"{next(iter(options))}="):
            predict_many(runner, [folder], tmp_path / "out", **options)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="there is no photograph in "):
        predict_many(runner, [folder / "*.tif"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_mask_is_looked_at_first(runner: Runner, folder: Path, tmp_path: Path) -> None:
    mask = tmp_path / "mask.png"
    with pytest.raises(ImageError, match=r"mask\.png: there is no such file"):
        predict_many(runner, [folder], tmp_path / "out", mask=mask, workers=0)
    Image.new("L", SIZE[::-1], 255).save(mask)
    predict_many(runner, [folder], tmp_path / "out", mask=mask, workers=0)
    Image.new("L", SIZE[::-1], 0).save(mask)
    with pytest.raises(OptionError, match="holds results of other settings"):
        predict_many(runner, [folder], tmp_path / "out", mask=mask, workers=0)


def test_a_graph_without_probabilities_is_refused_first(
    graph_file: GraphFile, contract: Contract, folder: Path, tmp_path: Path
) -> None:
    props = replace(contract, outputs={"scores": "unknown"}).to_props()
    with pytest.raises(ModelError, match="holds neither logits nor"):
        predict_many(graph_file(props=props), [folder], tmp_path / "out", workers=0)
    assert not (tmp_path / "out").exists()


def test_another_model_is_another_job(graph_file: GraphFile, matrix: np.ndarray, folder: Path, tmp_path: Path) -> None:
    predict_many(graph_file(preprocessing=SETTINGS), [folder], tmp_path / "out", workers=0)
    other = graph_file(preprocessing=SETTINGS, weights=2 * matrix)
    with pytest.raises(OptionError, match="holds results of other settings"):
        predict_many(other, [folder], tmp_path / "out", workers=0)
    job = json.loads((tmp_path / "out" / "job.json").read_text())
    assert (job["command"], job["root"], job["top"]) == ("predict", str(folder), 5)
