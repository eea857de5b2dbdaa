"""The demo: what it writes, what it says, and that what it shows is so."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import lmonnx
from lmonnx import cli
from lmonnx.demo import SCENE, Demo, run
from lmonnx.errors import PublishError
from lmonnx.evaluate.localisation import mass_accuracy
from lmonnx.evaluate.scenes import draw
from lmonnx.explain import sampling


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    return run(tmp_path_factory.mktemp("demo") / "deep" / "demo", samples=200)


def test_everything_it_names_is_there_and_belongs_together(demo: Demo) -> None:
    model, photo, truth, *folders, picture = demo.paths
    assert all(path.exists() for path in demo.paths)
    with Image.open(photo) as saved:
        assert np.array_equal(saved, draw(SCENE, "material").pixels)
    runner = lmonnx.load(model)
    assert runner.contract.verified["passed"] is True
    (kept,) = runner.predict(photo, truth)
    assert kept.kept == pytest.approx(demo.scene.object.mean())
    assert all((folder / "explanation.json").exists() for folder in folders)
    with Image.open(picture) as saved:
        assert saved.width > 3 * 600


def test_layer_masking_finds_the_object_and_paint_less_of_it(demo: Demo) -> None:
    layer, grey = (mass_accuracy(found, demo.scene.object) for found in demo.explanations.values())
    assert layer > 0.5 > grey
    assert layer > 5 * demo.scene.object.mean()
    assert f"{layer:.0%}" in str(demo)
    assert f"{grey:.0%}" in str(demo)


def test_painted_scenes_are_called_concrete_and_masked_ones_are_not(demo: Demo) -> None:
    runner, scene = lmonnx.load(next(iter(demo.paths))), demo.scene
    labels = demo.explanations["layer masking"].segments
    keep = sampling.keep_vectors(100, int(labels.max()) + 1, 0)
    painted = np.concatenate([*sampling.painted(keep, labels, scene.pixels, 128, 32)])
    masks = np.concatenate([*sampling.masks(keep, labels, 32)])
    grey, layer = (
        Counter(found.top(1)[0].name for found in runner.predict(*asked))
        for asked in ((painted,), (scene.pixels, masks))
    )
    assert grey["concrete"] > 90
    assert layer[scene.name] > 60


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PublishError, match="choose another folder"):
        run(tmp_path / "file")
    done = CliRunner().invoke(cli.main, ["demo", "-o", str(tmp_path / "file")])
    assert (done.exit_code, done.output.count("\n")) == (1, 1)
    done = CliRunner().invoke(cli.main, ["demo", "-o", str(tmp_path / "new"), "--scene", "-1"])
    assert (done.exit_code, done.output.count("\n")) == (1, 1)
    assert not (tmp_path / "new").exists()
