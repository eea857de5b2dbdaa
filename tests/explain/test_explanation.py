from __future__ import annotations

import base64
import io
import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from lmonnx.errors import PublishError
from lmonnx.explain import rendering
from lmonnx.explain.explanation import Explanation
from lmonnx.explain.lime import explain

BlockGraph = Callable[..., Path]
FILES = {"explanation.json", "segments.png", "overlay.png"}


@pytest.fixture
def explanation(block_graph: BlockGraph, photo: Image.Image) -> Explanation:
    return explain(block_graph(), photo, target=1, samples=300, segments=16)


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_saved_files_agree(explanation: Explanation, tmp_path: Path) -> None:
    directory = explanation.save(tmp_path / "deep" / "out")
    assert names(directory) == FILES
    assert names(tmp_path / "deep") == {"out"}
    saved = json.loads((directory / "explanation.json").read_text(encoding="utf-8"))
    assert saved == explanation.to_json()
    assert saved["class"] == {"index": 1, "name": "red block", "probability": explanation.probability}
    with Image.open(directory / saved["files"]["segments"]) as opened:
        labels = np.asarray(opened)
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels, explanation.segments)
    assert [segment["id"] for segment in saved["segments"]] == list(range(len(explanation.weights)))
    for segment in saved["segments"]:
        rows, columns = np.nonzero(labels == segment["id"])
        assert segment["weight"] == explanation.weights[segment["id"]]
        assert segment["area"] == len(rows)
        assert segment["box"] == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_saving_twice_gives_the_same_bytes(explanation: Explanation, tmp_path: Path) -> None:
    first, second = explanation.save(tmp_path / "first"), explanation.save(tmp_path / "second")
    for name in FILES:
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_an_earlier_explanation_is_replaced_and_other_files_stay(explanation: Explanation, tmp_path: Path) -> None:
    directory = explanation.save(tmp_path / "out")
    (directory / "notes.txt").write_text("mine")
    replace(explanation, name="other").save(directory)
    assert json.loads((directory / "explanation.json").read_text(encoding="utf-8"))["class"]["name"] == "other"
    assert names(directory) == FILES | {"notes.txt"}


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_failure_leaves_nothing(
    explanation: Explanation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(_: Explanation) -> Image.Image:
        raise error

    monkeypatch.setattr(rendering, "overlay", fail)
    before = names(tmp_path)
    expected = PublishError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        explanation.save(tmp_path / "out")
    assert names(tmp_path) == before


def test_failure_leaves_the_earlier_explanation(
    explanation: Explanation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = explanation.save(tmp_path / "out")
    before = {name: (directory / name).read_bytes() for name in FILES}
    monkeypatch.setattr(json, "dumps", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        explanation.save(directory)
    assert {name: (directory / name).read_bytes() for name in names(directory)} == before


def test_a_destination_that_is_no_directory(explanation: Explanation, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(PublishError, match="file: is a file; name a directory"):
        explanation.save(tmp_path / "file")
    with pytest.raises(PublishError, match="cannot be written"):
        explanation.save(tmp_path / "file" / "out")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_others_may_read_as_the_umask_says(explanation: Explanation, tmp_path: Path) -> None:
    directory = explanation.save(tmp_path / "out")
    (tmp_path / "plain").mkdir()
    assert stat.S_IMODE(directory.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    (tmp_path / "plain" / "file").touch()
    for name in FILES:
        assert (directory / name).stat().st_mode == (tmp_path / "plain" / "file").stat().st_mode


def colour_of(picture: Image.Image, explanation: Explanation, segment: int) -> np.ndarray:
    """Mean colour of a segment in the overlay, which is enlarged and has a title above."""
    factor = picture.width // explanation.segments.shape[1]
    labels = np.kron(explanation.segments, np.ones((factor, factor), int))
    head = 2 * max(picture.width // 28, 8)
    return np.asarray(picture)[head : head + labels.shape[0]][labels == segment].mean(axis=0)


def test_the_overlay_shows_what_supports_and_what_opposes(explanation: Explanation) -> None:
    picture = rendering.overlay(explanation)
    order = explanation.order()
    supports, opposes = (colour_of(picture, explanation, number) for number in (order[0], order[-1]))
    assert supports[0] > supports[2] + 60  # orange: red over blue
    assert opposes[2] > opposes[0] + 20
    assert picture.width >= 672


def test_an_outline_is_drawn_inside_of_its_region() -> None:
    region = np.zeros((40, 60), bool)
    rendering.outline(pixels := np.zeros((40, 60, 3), np.float32), region, (9, 9, 9))
    assert not pixels.any()
    region[5:35, 40:60] = True  # at the edge of the picture
    rendering.outline(pixels, region, (9, 9, 9))
    assert (pixels[5:8, 40:60] == 9).all()
    assert (pixels[:, 57:60][5:35] == 9).all()
    assert (pixels[20, 43] == rendering.PAPER).all()
    assert not pixels[20, 50].any()
    assert not pixels[~region].any()


def test_enlarged_labels_follow_the_segments(explanation: Explanation) -> None:
    fine = rendering.enlarge_labels(explanation.segments, 3)
    assert (fine == np.kron(explanation.segments, np.ones((3, 3), int))).mean() > 0.9
    np.testing.assert_array_equal(rendering.enlarge_labels(explanation.segments, 1).shape, (64, 64))


@pytest.mark.parametrize("shape", [(224, 160), (30, 90), (700, 800), (8, 8)])
def test_every_size_long_names_and_no_weights_can_be_drawn(explanation: Explanation, shape: tuple[int, int]) -> None:
    segments = (np.arange(shape[0] * shape[1]).reshape(shape) * 4 // (shape[0] * shape[1])).astype(np.int32)
    plain = replace(
        explanation,
        name="a very long name of a class " * 9,
        pixels=np.zeros((*shape, 3), np.uint8),
        segments=segments,
        weights=np.zeros(4),
        probability=1e-7,
    )
    picture = rendering.overlay(plain)
    factor = picture.width // shape[1]
    assert picture.width == shape[1] * factor
    assert picture.height > shape[0] * factor


@pytest.mark.parametrize(
    ("probability", "text"),
    [(0, "0.0 %"), (1e-5, "< 0.1 %"), (0.4567, "45.7 %"), (0.9999, "> 99.9 %"), (1, "100.0 %")],
)
def test_percentages_do_not_claim_certainty(probability: float, text: str) -> None:
    assert rendering._percent(probability) == text


def test_a_notebook_shows_the_overlay(explanation: Explanation) -> None:
    page = replace(explanation, name="<b>ox & cart</b>")._repr_html_()
    root = ElementTree.fromstring(page.replace('"max-width: 100%">', '"max-width: 100%"/>'))
    (image,), (caption,) = root.iter("img"), root.iter("figcaption")
    with Image.open(io.BytesIO(base64.b64decode(image.attrib["src"].removeprefix("data:image/png;base64,")))) as shown:
        assert np.array_equal(shown, rendering.overlay(replace(explanation, name="<b>ox & cart</b>")))
    assert "<b>ox & cart</b>" in str(caption.text)
    assert "300 samples over 16 segments, removed by layer masking, seed 0" in str(caption.text)
