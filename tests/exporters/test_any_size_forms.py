"""The forms of a graph that takes images of any size, and what serves it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import lmonnx
from lmonnx.errors import ImageError, ModelError
from lmonnx.explain import explain
from lmonnx.runtime import Runner
from tests.cases import w
from tests.exporters.test_any_size import PREPROCESSING, SIZE, SIZES, answers, anywhere, saved
from tests.graphs import build, step
from tests.graphs import images as noise

FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "pixels": {"image": "uint8"},
    "batch": {"batch": 3},
    "all at once": {"batch": 2, "image": "uint8", "softmax": True, "opset": 13},
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Runner]:
    folder = tmp_path_factory.mktemp("any")
    pool = step("AveragePool", "1", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1)
    source = saved(folder / "in.onnx", *anywhere(step("Relu", "0"), pool))

    def export(form: str) -> Runner:
        path = folder / f"{form}.onnx"
        if not path.exists():
            options = FORMS[form]
            assert lmonnx.export(source, path, size="dynamic", preprocessing=PREPROCESSING, **options).verification
        return Runner(path, provider="cpu", threads=1)

    return export


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str, exported: Callable[[str], Runner]) -> None:
    """Every form answers as the plain one does, at any size, and photographs are brought to the recorded one."""
    plain, runner = exported("plain"), exported(form)
    rng = np.random.default_rng(0)
    for height, width in SIZES:
        pixels = rng.integers(0, 256, (3, height, width, 3), np.uint8)
        image = PREPROCESSING.scaled(pixels, np.float32)
        mask = rng.random((3, 1, height, width)) > 0.4
        given = pixels if runner.contract.form.image == "uint8" else image
        expected = plain.probabilities(image[:1], mask)
        np.testing.assert_allclose(runner.probabilities(given[:1], mask), expected, atol=1e-5)
        np.testing.assert_allclose(runner.probabilities(given[:1], iter(mask[:, None])), expected, atol=1e-5)
        np.testing.assert_allclose(runner.probabilities(iter(given[:1, None]), mask[:1]), expected[:1], atol=1e-5)
    photo = rng.integers(0, 256, (90, 120, 3), np.uint8)
    assert runner.predict(photo)[0].top(1)[0].index == plain.predict(photo)[0].top(1)[0].index
    assert explain(runner, photo, samples=20, segments=5).segments.shape == SIZE
    assert lmonnx.verify(runner.path, Path(runner.path).with_name("in.onnx")).passed


def test_what_does_not_fit_is_refused(exported: Callable[[str], Runner]) -> None:
    runner, image = exported("plain"), np.zeros((1, 3, 30, 40), np.float32)
    with pytest.raises(ImageError, match=r"mask has to be bool \[n, 1, 30, 40\]"):
        runner.run(image, np.ones((1, 1, 40, 30), bool))
    with pytest.raises(ImageError, match="image has to be float32"):
        runner.run(image[0], np.ones((1, 1, 30, 40), bool))


def test_the_file_says_that_it_takes_any_size(exported: Callable[[str], Runner]) -> None:
    runner = exported("plain")
    inspection = lmonnx.inspect(runner.path)
    told = str(inspection)
    assert "image float32 [images, 3, height, width]" in told
    assert "any from 1×1 on; photographs become 64×80" in told
    assert inspection.to_json()["metadata"]["form"]["size"] == [64, 80]
    assert inspection.total.added.operations  # at that size
    assert next(iter(inspection.to_json()["stages"])) == "64×80"


def test_metadata_and_graph_have_to_agree(exported: Callable[[str], Runner], tmp_path: Path) -> None:
    proto = onnx.load(exported("plain").path)
    props = {entry.key: entry for entry in proto.metadata_props}
    form = props["lmonnx.form"].value
    for wrong, message in ((form.replace("[64, 80]", "null"), "of fixed size"), (form.replace("64", "0"), "size=")):
        props["lmonnx.form"].value = wrong
        onnx.save(proto, tmp_path / "wrong.onnx")
        with pytest.raises(ModelError, match=message):
            Runner(tmp_path / "wrong.onnx", provider="cpu")


def test_files_from_before_can_be_read(exported: Callable[[str], Runner], tmp_path: Path) -> None:
    source = tmp_path / "in.onnx"
    onnx.save(build(anywhere(), (3, 24, 20), 18), source)
    proto = onnx.load(lmonnx.export(source, tmp_path / "out.onnx", verify=False).path)
    (form,) = (entry for entry in proto.metadata_props if entry.key == "lmonnx.form")
    form.value = form.value.replace(', "size": null, "smallest": 1', "")
    assert "size" not in form.value
    onnx.save(proto, tmp_path / "out.onnx")
    assert Runner(tmp_path / "out.onnx", provider="cpu").size == (24, 20)


def test_what_no_window_fits_into_is_refused(tmp_path: Path) -> None:
    """It would end onnxruntime, and the process with it."""
    pool = step("MaxPool", "0", kernel_shape=[3, 3], strides=[2, 2])
    source = saved(tmp_path / "in.onnx", *anywhere(pool, step("Conv", "1", w(4, 4, 3, 3))))
    runner = Runner(lmonnx.export(source, tmp_path / "out.onnx", size="dynamic", verify=False).path, provider="cpu")
    for side in (7, 6):
        image, mask = noise(1, (3, side, 9)), np.ones((1, 1, side, 9), bool)
        if side == 7:
            assert np.isfinite(answers(runner)(image, mask)).all()
            continue
        with pytest.raises(ImageError, match="6×9 pixels are too few"):
            runner.run(image, mask)
