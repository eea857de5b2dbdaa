"""Graphs that take pixels and normalise them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import lmonnx
from lmonnx.errors import ImageError, OptionError, VerificationError
from lmonnx.exporters.proof import Inputs, images, inputs, photographs
from lmonnx.runtime import Preprocessing, Runner
from lmonnx.runtime.form import Form
from tests.cases import w
from tests.exporters.forms import PREPROCESSING, SIZE, Exported, encoded, source
from tests.graphs import step


def test_pixels_are_normalised_to_the_last_bit(exported: Exported, crops: np.ndarray, masks: np.ndarray) -> None:
    plain, runner = exported(), exported("pixels")
    assert (runner.encode(crops[0]).dtype, runner.encode(crops[0]).shape) == (np.uint8, (1, *SIZE, 3))
    answers = [next(iter(each.run(encoded(each, crops), masks).values())) for each in (plain, runner)]
    np.testing.assert_array_equal(*answers)


@pytest.mark.parametrize("form", ["pixels", "all at once"])
def test_a_removed_pixel_may_hold_anything(form: str, exported: Exported, crops: np.ndarray, masks: np.ndarray) -> None:
    runner = exported(form)
    image, keep = encoded(runner, crops), masks.transpose(0, 2, 3, 1)
    expected = runner.run(image, masks)
    for value in (0, 1, 127, 255):
        hidden = np.where(keep, image, np.uint8(value))
        for name, output in runner.run(hidden, masks).items():
            np.testing.assert_array_equal(output, expected[name])


def test_nothing_but_a_where_reads_the_pixels(exported: Exported) -> None:
    readers = [node.op_type for node in onnx.load(exported("pixels").path).graph.node if "image" in node.input]
    assert readers == ["Where"]


def test_what_are_no_pixels_is_refused(exported: Exported, crops: np.ndarray, masks: np.ndarray) -> None:
    image = encoded(exported("pixels"), crops[:1])
    for wrong, message in (
        (
            image.astype(np.float32),
            r"image has to be uint8 \[n, 24, 20, 3\], given float32 .* normalises pixels itself",
        ),
        (image.transpose(0, 3, 1, 2), r"given uint8 \[1, 3, 24, 20\]"),
        (image.astype(np.int64), r"given int64 \[1, 24, 20, 3\]"),
    ):
        with pytest.raises(ImageError, match=message):
            exported("pixels").run(wrong, masks)
        with pytest.raises(ImageError, match=message):
            exported("pixels").probabilities(wrong, masks)


def test_grey_pixels_and_channels_last(tmp_path: Path) -> None:
    steps = (
        step("Transpose", "x", perm=[0, 3, 1, 2]), step("Conv", "0", w(5, 1, 3, 3)), step("Relu", "1"),
        step("GlobalAveragePool", "2"), step("Flatten", "3"),
    )  # fmt: skip
    grey = Preprocessing(size=SIZE, mean=(0.5,), std=(0.25,))
    path = source(tmp_path, *steps, shape=(*SIZE, 1))
    crop = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    answers = []
    for image in ("float32", "uint8"):
        runner = Runner(lmonnx.export(path, tmp_path / f"{image}.onnx", preprocessing=grey, image=image).path)  # type: ignore[arg-type]
        answers.append(next(iter(runner.run(runner.encode(crop), np.ones((1, 1, *SIZE), bool)).values())))
    assert runner.encode(crop).shape == (1, *SIZE, 1)
    np.testing.assert_array_equal(*answers)


@pytest.mark.parametrize(
    ("preprocessing", "message"),
    [
        (None, "nothing says what it is; give the preprocessing: mean, std and scale"),
        (replace(PREPROCESSING, scale=1e-46), "normalises in float32, which does not hold"),
        (replace(PREPROCESSING, std=(1e-46,) * 3), "normalises in float32, which does not hold"),
        (replace(PREPROCESSING, scale=1e39), "normalises in float32, which does not hold"),
    ],
)
def test_pixels_need_a_normalisation(preprocessing: Preprocessing | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=message):
        lmonnx.export(source(tmp_path), tmp_path / "out.onnx", preprocessing=preprocessing, image="uint8")
    assert [path.name for path in tmp_path.iterdir()] == ["in.onnx"]


def test_images_of_an_unknown_kind(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="image='int8' is unknown; choose one of float32, uint8"):
        lmonnx.export(source(tmp_path), tmp_path / "out.onnx", image="int8")  # type: ignore[arg-type]


@pytest.mark.parametrize("operand", ["mean", "scale", "order"])
def test_the_proof_sees_a_wrong_normalisation(operand: str, exported: Exported, tmp_path: Path) -> None:
    model = onnx.load(exported("pixels").path)
    changes = {"mean": (PREPROCESSING.mean, 1.01), "scale": (254.0, 1.01), "order": ([2, 1, 0], None)}
    value, factor = changes[operand]
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if tensor.name.startswith("image/form/") and np.array_equal(array, np.asarray(value, array.dtype)):
            other = array[::-1] if factor is None else array * array.dtype.type(factor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(other), tensor.name))
    onnx.save(model, tmp_path / "changed.onnx")
    with pytest.raises(VerificationError, match="FAILED"):
        lmonnx.verify(tmp_path / "changed.onnx", Path(exported("pixels").path).with_name("in.onnx"))


def test_the_images_of_the_proof_are_pixels() -> None:
    mask = np.random.default_rng(0).random((2, 1, *SIZE)) < 0.5
    asked = inputs(Form("uint8"), PREPROCESSING, 3, SIZE, mask)
    assert isinstance(asked, Inputs)
    assert (asked.given.dtype, asked.given.shape) == (np.uint8, (2, *SIZE, 3))
    assert asked.given.min() == 0
    assert asked.given.max() == 255
    np.testing.assert_array_equal(asked.given, photographs(2, 3, SIZE))
    expected = (asked.given[..., ::-1] / 254.0 - np.array(PREPROCESSING.mean)) / np.array(PREPROCESSING.std)
    np.testing.assert_allclose(asked.exact, expected.transpose(0, 3, 1, 2), rtol=1e-14, atol=1e-14)
    keep = np.broadcast_to(mask.transpose(0, 2, 3, 1), asked.given.shape)
    np.testing.assert_array_equal(asked.hidden == asked.given, keep)
    plain = inputs(Form(), None, 3, SIZE, mask)
    np.testing.assert_array_equal(plain.given, images(2, 3, SIZE))
    np.testing.assert_array_equal(np.isnan(plain.hidden), ~np.broadcast_to(mask, plain.given.shape))
