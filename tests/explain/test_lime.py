from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lmonnx.errors import ImageError, ModelError, OptionError
from lmonnx.explain.lime import explain
from lmonnx.runtime.session import Runner

BlockGraph = Callable[..., Path]
BLOCK = 16


def share(region: np.ndarray, number: int) -> float:
    """Part of a region that lies in a block of the photograph."""
    rows, columns = np.nonzero(region)
    return float(((rows // BLOCK) * 4 + columns // BLOCK == number).mean())


@pytest.mark.parametrize(("supports", "opposes"), [(5, 10), (15, 0), (2, 12)])
def test_the_true_segments_get_the_extreme_weights(
    block_graph: BlockGraph, photo: Image.Image, supports: int, opposes: int
) -> None:
    result = explain(block_graph(supports, opposes), photo, target=1, samples=400, segments=16)
    order = result.order()
    assert share(result.segments == order[0], supports) > 0.6
    assert share(result.segments == order[-1], opposes) > 0.6
    assert result.weights[order[0]] > 0.1 > -0.05 > result.weights[order[-1]]
    assert result.score > 0.5
    assert sorted(order) == list(range(len(result.weights)))
    assert (np.diff(result.weights[order]) <= 0).all()


def test_target_name_and_probability(block_graph: BlockGraph, photo: Image.Image) -> None:
    runner = Runner(block_graph())
    preprocessing = runner.contract.preprocessing
    assert preprocessing is not None
    unmasked = runner.probabilities(preprocessing.prepare(photo), np.ones((1, 1, 64, 64), bool))[0]
    top = explain(runner, photo, samples=20, segments=9)
    assert (top.index, top.name) == (int(unmasked.argmax()), "red block")
    assert top.probability == pytest.approx(float(unmasked.max()), abs=1e-6)
    other = explain(runner, photo, target=0, samples=20, segments=9)
    assert (other.index, other.name) == (0, "nothing")
    np.testing.assert_allclose(other.weights, -top.weights, atol=1e-6)  # two classes sum to 1


def test_seeds_reproduce(block_graph: BlockGraph, photo: Image.Image) -> None:
    path = block_graph()
    first, again, other = (explain(path, photo, samples=50, segments=16, seed=seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first.weights, again.weights)
    assert (first.intercept, first.score, first.to_json()) == (again.intercept, again.score, again.to_json())
    assert (first.weights != other.weights).any()


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_the_batch_size_changes_nothing_but_rounding(
    block_graph: BlockGraph, photo: Image.Image, batch_size: int
) -> None:
    path = block_graph()
    usual = explain(path, photo, samples=50, segments=16)
    result = explain(path, photo, samples=50, segments=16, batch_size=batch_size)
    np.testing.assert_allclose(result.weights, usual.weights, atol=1e-6)


def test_paint_stays_in_the_picture_and_a_mask_does_not(block_graph: BlockGraph, photo: Image.Image) -> None:
    path = block_graph()  # a linear network, for which a removed pixel and a black one are the same
    masked, black, white = (
        explain(path, photo, target=1, samples=300, segments=16, batch_size=7, paint=paint) for paint in (None, 0, 255)
    )
    np.testing.assert_allclose(black.weights, masked.weights, atol=1e-6)
    assert (masked.settings["paint"], white.settings["paint"]) == (None, 255)
    supporting = masked.order()[0]
    assert masked.weights[supporting] > 0.1
    assert white.weights[supporting] < 0.05  # white is as red as the block, or more


def test_all_that_is_needed_to_repeat_it_is_told(block_graph: BlockGraph, photo: Image.Image, tmp_path: Path) -> None:
    photo.save(tmp_path / "photo.png")
    runner = Runner(block_graph())
    result = explain(runner, tmp_path / "photo.png", samples=30, segments=9, seed=5, batch_size=8)
    told = {name: result.settings[name] for name in ("seed", "samples", "batch_size")}
    assert told == {"seed": 5, "samples": 30, "batch_size": 8}
    assert result.settings["segmentation"]["segments"] == 9
    assert result.provenance["model"]["sha256"] == runner.sha256
    assert result.provenance["photo"]["path"] == str(tmp_path / "photo.png")
    assert {"onnxruntime", "numpy", "scikit-image", "scikit-learn"} <= set(result.provenance["versions"])


def test_a_batch_is_no_larger_than_the_work(block_graph: BlockGraph, photo: Image.Image) -> None:
    assert explain(block_graph(), photo, samples=20, segments=9, batch_size=512).settings["batch_size"] == 20


class NeverRun:
    def run(self, *_: Any) -> Any:
        raise AssertionError("the network ran before the options were checked")


@pytest.mark.parametrize(
    "options",
    [
        {"target": 2},
        {"target": -1},
        {"target": "red block"},
        {"target": True},
        {"samples": 1},
        {"samples": 10**9},
        {"segments": 1},
        {"seed": -1},
        {"batch_size": 0},
        {"batch_size": 10**8},
        {"paint": 256},
        {"paint": True},
    ],
)
def test_wrong_options_are_found_before_the_work(
    block_graph: BlockGraph, photo: Image.Image, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    runner = Runner(block_graph())
    monkeypatch.setattr(runner._engine, "session", NeverRun())
    with pytest.raises(OptionError, match=f"{next(iter(options))}="):
        explain(runner, photo, **options)


def test_what_cannot_be_explained_is_named(block_graph: BlockGraph, photo: Image.Image, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not say how a photograph is prepared"):
        explain(block_graph(preprocessing=False), photo)
    with pytest.raises(ModelError, match="there is no such file"):
        explain(tmp_path / "nowhere.onnx", photo)
    with pytest.raises(ImageError, match="there is no such file"):
        explain(block_graph(), tmp_path / "nowhere.png")
