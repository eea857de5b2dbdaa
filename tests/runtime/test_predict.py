from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lmonnx.errors import ImageError, ModelError, OptionError
from lmonnx.runtime import Box, Prediction, load, questions
from lmonnx.runtime.contract import Contract
from lmonnx.runtime.engine import Call
from lmonnx.runtime.preprocessing import Preprocessing
from lmonnx.runtime.session import Runner

GraphFile = Callable[..., Path]
SETTINGS = Preprocessing((8, 8), 10, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
SHAPES = [(12, 15), (15, 12), (20, 20), (8, 8), (10, 31)]


def draw(seed: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.fixture
def photos() -> list[np.ndarray]:
    return [draw(seed, size) for seed, size in enumerate(SHAPES)]


@pytest.fixture
def masks() -> list[np.ndarray]:
    return [np.random.default_rng(seed).random(size) < 0.5 for seed, size in enumerate(SHAPES)]


@pytest.fixture
def runner(graph_file: GraphFile) -> Runner:
    return load(graph_file(preprocessing=SETTINGS), provider="cpu", threads=1)


def seen(mask: np.ndarray) -> np.ndarray:
    """The mask ``[1, 1, H, W]`` of the network's input, by way of a picture."""
    picture = Image.fromarray(np.where(mask, 255, 1).astype(np.uint8))
    return Preprocessing((8, 8), 10, "nearest").crop(picture)[None, None, ..., 0] != 1


def expected(runner: Runner, photo: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    keep = np.ones((1, 1, 8, 8), bool) if mask is None else seen(mask)
    return runner.probabilities(SETTINGS.prepare(photo), keep, batch_size=1)[0]


def rows(predictions: list[Prediction]) -> np.ndarray:
    return np.stack([prediction.probabilities for prediction in predictions])


@pytest.mark.parametrize("batch_size", [1, 2, 5, 32])
class TestPairing:
    def test_photographs_without_masks(self, runner: Runner, photos: list[np.ndarray], batch_size: int) -> None:
        found = runner.predict(photos, batch_size=batch_size)
        np.testing.assert_allclose(rows(found), [expected(runner, photo) for photo in photos], atol=1e-6)
        assert [prediction.kept for prediction in found] == [1.0] * len(photos)

    def test_n_with_n(self, runner: Runner, photos: list[Any], masks: list[Any], batch_size: int) -> None:
        found = runner.predict(photos, [*masks[:-1], None], batch_size=batch_size)
        pairs = zip(photos, [*masks[:-1], None], strict=True)
        np.testing.assert_allclose(rows(found), [expected(runner, *pair) for pair in pairs], atol=1e-6)
        shares = [seen(mask).mean() for mask in masks[:-1]]
        assert [prediction.kept for prediction in found] == pytest.approx([*shares, 1.0])

    def test_one_photograph_with_n_masks(self, runner: Runner, photos: list[Any], batch_size: int) -> None:
        many = np.random.default_rng(8).random((7, *SHAPES[0])) < 0.5
        found = runner.predict(photos[0], many, batch_size=batch_size)
        np.testing.assert_allclose(rows(found), [expected(runner, photos[0], mask) for mask in many], atol=1e-6)
        assert [prediction.kept for prediction in found] == pytest.approx([seen(mask).mean() for mask in many])

    def test_n_photographs_with_one_mask(self, runner: Runner, photos: list[Any], batch_size: int) -> None:
        box = Box(2, 1, 7, 8)
        found = runner.predict(photos, box, batch_size=batch_size)
        pairs = [(photo, box.mask(photo.shape[:2])) for photo in photos]
        np.testing.assert_allclose(rows(found), [expected(runner, *pair) for pair in pairs], atol=1e-6)
        assert [prediction.kept for prediction in found] == pytest.approx([seen(mask).mean() for _, mask in pairs])


def test_one_with_one(runner: Runner, photos: list[Any], masks: list[Any], tmp_path: Path) -> None:
    Image.fromarray(photos[0]).save(tmp_path / "photo.png")
    Image.fromarray(masks[0]).save(tmp_path / "mask.png")
    (found,) = runner.predict(tmp_path / "photo.png", str(tmp_path / "mask.png"))
    np.testing.assert_allclose(found.probabilities, expected(runner, photos[0], masks[0]), atol=1e-6)
    assert found.photo == str(tmp_path / "photo.png")
    (removed,) = runner.predict(tmp_path / "photo.png", tmp_path / "mask.png", mask_removes=True)
    np.testing.assert_allclose(removed.probabilities, expected(runner, photos[0], ~masks[0]), atol=1e-6)
    assert removed.kept == pytest.approx(1 - found.kept)


def test_every_kind_of_photograph_is_the_same(runner: Runner, photos: list[np.ndarray], tmp_path: Path) -> None:
    Image.fromarray(photos[0]).save(tmp_path / "photo.png")
    kinds: list[Any] = [photos[0], Image.fromarray(photos[0]), tmp_path / "photo.png", str(tmp_path / "photo.png")]
    found = runner.predict(kinds)
    np.testing.assert_array_equal(rows(found), rows(runner.predict([photos[0]] * 4)))
    assert [prediction.photo for prediction in found] == [None, None, *[str(tmp_path / "photo.png")] * 2]
    np.testing.assert_array_equal(rows(runner.predict(np.stack([photos[0]] * 4))), rows(found))


def test_tensors_are_photographs_and_masks(runner: Runner, photos: list[Any], masks: list[Any]) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: there are no tensors")
    photo, mask = torch.from_numpy(photos[0]).permute(2, 0, 1), torch.from_numpy(masks[0])
    found = runner.predict(torch.stack([photo, photo]), mask)
    np.testing.assert_array_equal(rows(found), rows(runner.predict([photos[0]] * 2, masks[0])))


def test_a_mask_upright_by_exif_fits_its_photograph(runner: Runner, masks: list[np.ndarray], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo, mask = draw(1, SHAPES[0]), masks[0]
    turned = Image.fromarray(photo).transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "photo.png", exif=exif)
    (found,) = runner.predict(tmp_path / "photo.png", mask)
    np.testing.assert_allclose(found.probabilities, expected(runner, photo, mask), atol=1e-6)
    with pytest.raises(ImageError, match=r"photo\.png: masks\[0\] has 12×15 pixels, neither .* 15×12 .* nor .* 8×8"):
        runner.predict(tmp_path / "photo.png", mask.T)


def test_all_is_removed(runner: Runner, photos: list[np.ndarray]) -> None:
    for mask, removes in (
        (np.zeros(SHAPES[0], bool), False),
        (np.ones(SHAPES[0], bool), True),
        (Box(0, 0, 1, 1), False),
    ):
        (found,) = runner.predict(photos[0], mask, mask_removes=removes)
        assert found.kept == 0
        np.testing.assert_allclose(found.probabilities, 1 / 3, atol=1e-6)  # the graph has no bias


def test_a_prediction_tells_its_classes(runner: Runner, photos: list[np.ndarray]) -> None:
    (found,) = runner.predict(photos[1])
    top = found.top()
    assert [entry.name for entry in top] == [found.labels[entry.index] for entry in top]
    assert {entry.name for entry in top} == {"cat", "dog", "owl"}
    assert [entry.probability for entry in top] == sorted(found.probabilities.tolist(), reverse=True)
    assert found.top(1) == top[:1]
    told = json.loads(json.dumps(found.to_json(2), allow_nan=False))
    assert told == {
        "photo": None,
        "kept": 1.0,
        "top": [{"index": one.index, "name": one.name, "probability": one.probability} for one in top[:2]],
    }
    assert top[0].name in repr(found)
    for count in (0, -1, 1.5, True):
        with pytest.raises(OptionError, match="count="):
            found.top(count)  # type: ignore[arg-type]


def test_of_equal_probabilities_the_lower_index_comes_first() -> None:
    found = Prediction(np.array([0.2, 0.4, 0.4], np.float32), ("a", "b", "c"), 1.0)
    assert [entry.name for entry in found.top()] == ["b", "c", "a"]


def test_without_labels_classes_have_numbers(graph_file: GraphFile, contract: Contract, photos: list[Any]) -> None:
    props = replace(contract, labels=None, preprocessing=SETTINGS).to_props()
    (found,) = load(graph_file(props=props)).predict(photos[0])
    assert found.labels == ("class 0", "class 1", "class 2")


def test_a_single_photograph_is_a_single_row(runner: Runner, photos: list[Any], monkeypatch: Any) -> None:
    shapes = []
    run = Call.run
    monkeypatch.setattr(
        Call, "run", lambda call, feeds: shapes.append(*{*map(len, feeds.values())}) or run(call, feeds)
    )
    runner.predict(photos[0])
    runner.predict(photos, batch_size=2)
    assert shapes == [1, 2, 2, 2]


def test_photographs_are_decoded_when_their_turn_comes(runner: Runner, photos: list[Any], monkeypatch: Any) -> None:
    events: list[str] = []
    decode, run = questions.decode, Call.run
    monkeypatch.setattr(questions, "decode", lambda *given: events.append("decode") or decode(*given))
    monkeypatch.setattr(Call, "run", lambda *given: events.append("run") or run(*given))
    runner.predict(photos, batch_size=2)
    assert events == ["decode", "decode", "run", "decode", "decode", "run", "decode", "run"]


def test_one_mask_file_is_read_once(runner: Runner, masks: list[Any], tmp_path: Path, monkeypatch: Any) -> None:
    Image.fromarray(masks[0]).save(tmp_path / "mask.png")
    reads = []
    load_mask = questions.masking.load
    monkeypatch.setattr(questions.masking, "load", lambda *given: reads.append(given) or load_mask(*given))
    runner.predict([draw(seed, SHAPES[0]) for seed in range(5)], tmp_path / "mask.png", batch_size=2)
    assert len(reads) == 1


def test_what_cannot_be_asked_is_named(runner: Runner, photos: list[Any], masks: list[Any], tmp_path: Path) -> None:
    cases: list[tuple[Any, Any, str]] = [
        (photos, masks[:2], "5 photographs and 2 masks do not pair"),
        ([], None, "there is no photograph"),
        (photos, [], "there is no mask"),
        ([photos[0], 7], None, r"photos\[1\] is not a path, a PIL image or an array, but int"),
        ([photos[0], photos[0] / 255], None, r"photos\[1\]: .* given float64 .* Runner\.run takes preprocessed images"),
        (
            photos[0],
            [masks[0], masks[0].astype(np.uint8)],
            r"masks\[1\] is bool \[H, W\], given uint8 .* astype\(bool\)",
        ),
        (photos[:2], masks[0], r"photos\[1\]: masks\[0\] has 15×12 pixels, neither"),
        ([photos[2], photos[0]], Box(0, 0, 20, 20), r"photos\[1\]: the box 0,0,20,20 .* photograph of 15×12 pixels"),
        (tmp_path / "nowhere.png", None, r"nowhere\.png: there is no such file"),
        (photos[0], tmp_path / "nowhere.png", r"nowhere\.png: there is no such file"),
    ]
    for wrong_photos, wrong_masks, message in cases:
        with pytest.raises(ImageError, match=message):
            runner.predict(wrong_photos, wrong_masks)
    for size in (0, True, 1.5):
        with pytest.raises(OptionError, match="batch_size"):
            runner.predict(photos, batch_size=size)  # type: ignore[arg-type]


def test_graphs_that_cannot_predict_are_named(graph_file: GraphFile, contract: Contract, photos: list[Any]) -> None:
    silent = Runner(graph_file(props=replace(contract, preprocessing=None).to_props()))
    with pytest.raises(ModelError, match=r"model\.onnx: its metadata does not say how a photograph is prepared"):
        silent.predict(photos)
    unknown = Runner(graph_file(props=replace(contract, outputs={"scores": "unknown"}).to_props()))
    with pytest.raises(ModelError, match="output 'scores' holds neither logits nor"):
        unknown.predict(photos)


def test_predicting_loads_neither_torch_nor_onnx(graph_file: GraphFile, photos: list[Any], tmp_path: Path) -> None:
    Image.fromarray(photos[0]).save(tmp_path / "photo.png")
    program = (
        "import sys; from lmonnx.runtime import load; "
        f"print(load({str(graph_file())!r}).predict({str(tmp_path / 'photo.png')!r})); "
        "print(*{'torch', 'onnx', 'onnxscript', 'torchvision'}.intersection(sys.modules), 'are loaded')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\nare loaded\n")


def test_an_iterator_of_photographs_is_taken(runner: Runner, photos: list[Any]) -> None:
    def given() -> Iterator[np.ndarray]:
        yield from photos

    np.testing.assert_array_equal(rows(runner.predict(given())), rows(runner.predict(photos)))
