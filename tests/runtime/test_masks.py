from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lmonnx.errors import ImageError, OptionError
from lmonnx.runtime import masks
from lmonnx.runtime.masks import Box, fit, load, read_mask
from lmonnx.runtime.preprocessing import Preprocessing

KEPT = np.random.default_rng(5).random((20, 30)) < 0.5


def greys(kept: np.ndarray = KEPT, white: int = 255) -> Image.Image:
    return Image.fromarray((kept * white).astype(np.uint8))


def colourmap(*colours: tuple[int, int, int]) -> Image.Image:
    """A palette picture whose index is 1 where KEPT."""
    picture = Image.fromarray(KEPT.astype(np.uint8)).convert("P")
    picture.putpalette([value for colour in colours for value in colour])
    return picture


ENCODINGS = {
    "grey.png": greys(),
    "bits.png": greys().convert("1"),
    "rgb.png": greys().convert("RGB"),
    "grey_alpha.png": greys().convert("LA"),
    "opaque.png": greys().convert("RGBA"),
    "palette.png": colourmap((0, 0, 0), (255, 255, 255)),
    "swapped.png": colourmap((255, 255, 255), (0, 0, 0)),
    "sixteen.png": Image.fromarray((KEPT * 65535).astype(np.uint16)),
    "sixteen.tif": Image.fromarray((KEPT * 65535).astype(np.uint16)),
    "bits.tif": greys().convert("1"),
    "cmyk.tif": greys().convert("RGB").convert("CMYK"),
    "grey.bmp": greys(),
    "grey.gif": greys(),
    "half.png": greys(white=128),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_white_is_kept_in_any_encoding(tmp_path: Path, name: str) -> None:
    ENCODINGS[name].save(tmp_path / name)
    expected = ~KEPT if name.startswith("swapped") else KEPT
    np.testing.assert_array_equal(read_mask(tmp_path / name), expected)
    with Image.open(tmp_path / name) as opened:
        kept = load(opened)
    assert isinstance(kept, np.ndarray)
    assert kept.dtype == np.bool_
    np.testing.assert_array_equal(kept, expected)


@pytest.mark.parametrize("name", ["mask.jpg", "mask.webp"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_lossy_compression_changes_nothing(tmp_path: Path, name: str, mode: str) -> None:
    kept = np.repeat(np.repeat(KEPT, 8, axis=0), 8, axis=1)
    greys(kept).convert(mode).save(tmp_path / name, quality=60)
    np.testing.assert_array_equal(read_mask(tmp_path / name), kept)


@pytest.mark.parametrize("kept", [np.zeros((4, 4), bool), np.ones((4, 4), bool)])
def test_all_black_and_all_white(kept: np.ndarray) -> None:
    np.testing.assert_array_equal(read_mask(greys(kept)), kept)


def with_alpha(lowest: int) -> Image.Image:
    picture = greys().convert("RGBA")
    alpha = np.full(KEPT.shape, 255, np.uint8)
    alpha[3, 3] = lowest
    picture.putalpha(Image.fromarray(alpha))
    return picture


REFUSED = {
    "a mask of 0 and 1": (greys(white=1), "largest value is 1 of 255, so nothing in it counts as white"),
    "class indices": (greys(white=20), "largest value is 20 of 255"),
    "just below half": (greys(white=127), "largest value is 127 of 255"),
    "8 bits in 16": (Image.fromarray((KEPT * 255).astype(np.uint16)), "largest value is 255 of 65535"),
    "8 bits in 32": (Image.fromarray((KEPT * 255).astype(np.int32)), "largest value is 255 of 65535"),
    "beyond 16 bits": (Image.fromarray(KEPT * np.int32(70_000)), "beyond 16 bits"),
    "a palette of indices": (colourmap((0, 0, 0), (1, 1, 1)), "largest value is 1 of 255"),
    "a colourful palette": (colourmap((0, 0, 0), (128, 0, 0)), "is coloured"),
    "one red pixel": (Image.new("RGB", (3, 3), (255, 240, 240)), "is coloured"),
    "a transparent pixel": (with_alpha(0), "has transparent pixels"),
    "a translucent pixel": (with_alpha(254), "has transparent pixels"),
    "floating point": (Image.fromarray(KEPT.astype(np.float32)), "floating point"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_say_what_is_kept_is_refused(name: str) -> None:
    picture, message = REFUSED[name]
    with pytest.raises(ImageError, match=f"the mask: .*{message}"):
        read_mask(picture)


def test_a_transparent_palette_index_is_refused_where_it_is_used(tmp_path: Path) -> None:
    picture = colourmap((0, 0, 0), (255, 255, 255), (9, 9, 9))
    picture.save(tmp_path / "used.png", transparency=0)
    with pytest.raises(ImageError, match=r"used\.png: has transparent pixels"):
        read_mask(tmp_path / "used.png")
    picture.save(tmp_path / "unused.png", transparency=2)
    np.testing.assert_array_equal(read_mask(tmp_path / "unused.png"), KEPT)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"nowhere\.png: there is no such file"):
        read_mask(tmp_path / "nowhere.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"broken\.png: is not an image"):
        read_mask(tmp_path / "broken.png")
    with pytest.raises(ImageError, match=r"the mask is not a path, a PIL image or an array, but int"):
        read_mask(7)  # type: ignore[arg-type]


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    greys().transpose(Image.Transpose.ROTATE_90).save(tmp_path / "mask.png", exif=exif)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), KEPT)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (KEPT.astype(np.uint8), r"given uint8 \[20, 30\]; of 0 and 1, astype\(bool\) makes a mask"),
        (KEPT.astype(np.float32), r"given float32 \[20, 30\]; compare it: array >= 0.5"),
        (KEPT[0], r"the mask is bool \[H, W\], given bool \[30\]"),
        (np.stack([KEPT, KEPT]), r"given bool \[2, 20, 30\]"),
    ],
)
def test_arrays_that_are_no_mask_are_refused(array: np.ndarray, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        load(array)


def test_arrays_and_tensors_of_one_and_of_many() -> None:
    many = np.stack([KEPT, ~KEPT, KEPT])
    for given in (many, many[:, None], list(many), list(many[:, None]), iter(many)):
        np.testing.assert_array_equal([load(mask) for mask in masks.listed(given)], many)
    for single in (KEPT, KEPT[None], KEPT[None, None]):
        (mask,) = masks.listed(single)
        np.testing.assert_array_equal(load(mask), KEPT)
    with pytest.raises(ImageError, match="there is no mask"):
        masks.listed([])
    with pytest.raises(ImageError, match="there is no mask"):
        masks.listed(many[:0])
    torch = pytest.importorskip("torch", reason="torch is not installed: there are no tensors")
    for given in (torch.from_numpy(many), torch.from_numpy(many)[:, None], list(torch.from_numpy(many))):
        np.testing.assert_array_equal([load(mask) for mask in masks.listed(given)], many)


SIZES = [(20, 30), (30, 20), (9, 9), (8, 8), (33, 8), (3, 50), (1, 1)]
SETTINGS = [
    Preprocessing((8, 8), 10),
    Preprocessing((8, 12), 15, "bicubic"),
    Preprocessing((7, 5)),
    Preprocessing((9, 9), 6),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_mask_takes_the_photographs_way(size: tuple[int, int], settings: Preprocessing) -> None:
    kept = np.random.default_rng(6).random(size) < 0.5
    photo = Image.fromarray(np.where(kept, 255, 1).astype(np.uint8))
    nearest = Preprocessing(settings.size, settings.resize, "nearest")
    expected = nearest.crop(photo)[..., 0] != 1  # a margin is 0
    np.testing.assert_array_equal(fit(kept, size, settings), expected)
    removed = Image.fromarray(np.where(kept, 1, 255).astype(np.uint8))
    np.testing.assert_array_equal(fit(kept, size, settings, removes=True), nearest.crop(removed)[..., 0] != 1)
    assert fit(None, size, settings).all()
    assert fit(None, size, settings, removes=True).all()


def test_the_margin_of_a_small_photograph_is_kept() -> None:
    settings = Preprocessing((9, 9), 5)
    expected = np.ones((9, 9), bool)
    expected[2:7, 2:7] = False
    np.testing.assert_array_equal(fit(np.zeros((5, 5), bool), (5, 5), settings), expected)
    np.testing.assert_array_equal(fit(np.ones((5, 5), bool), (5, 5), settings, removes=True), expected)


def test_a_mask_of_the_networks_size_is_used_as_it_is() -> None:
    settings = Preprocessing((20, 30), 40)
    np.testing.assert_array_equal(fit(KEPT, (100, 90), settings), KEPT)
    np.testing.assert_array_equal(fit(KEPT, (100, 90), settings, removes=True), ~KEPT)


def test_where_both_sizes_are_equal_it_is_a_mask_of_the_photograph() -> None:
    settings = Preprocessing((20, 30), 30)
    photo = Preprocessing((20, 30), 30, "nearest").crop(greys())[..., 0] > 0
    np.testing.assert_array_equal(fit(KEPT, (20, 30), settings), photo)
    assert (photo != KEPT).any()


def test_any_other_size_is_refused() -> None:
    with pytest.raises(ImageError, match=r"30×20 pixels, neither .* photograph, 64×48 .* input, 8×9 pixels"):
        fit(KEPT, (48, 64), Preprocessing((9, 8), 10))
    with pytest.raises(ImageError, match="20×30 pixels"):
        fit(KEPT.T, (20, 30), Preprocessing((9, 8), 10))


def test_a_box_is_half_open_in_the_photographs_pixels() -> None:
    kept = Box(2, 1, 5, 3).mask((4, 6))
    expected = np.zeros((4, 6), bool)
    expected[1:3, 2:5] = True
    np.testing.assert_array_equal(kept, expected)
    assert Box(0, 0, 6, 4).mask((4, 6)).all()
    settings = Preprocessing((8, 8), 10)
    np.testing.assert_array_equal(fit(Box(2, 1, 5, 3), (4, 6), settings), fit(expected, (4, 6), settings))
    removed = fit(Box(2, 1, 5, 3), (4, 6), settings, removes=True)
    np.testing.assert_array_equal(removed, fit(~expected, (4, 6), settings))


@pytest.mark.parametrize(
    "sides", [(2, 1, 2, 3), (2, 3, 5, 1), (0, 0, 7, 4), (0, 0, 6, 5), (-1, 0, 6, 4), (0, -1, 6, 4)]
)
def test_boxes_that_are_empty_or_outside_are_refused(sides: tuple[int, int, int, int]) -> None:
    with pytest.raises(ImageError, match=rf"the box {','.join(map(str, sides))} .* photograph of 6×4 pixels"):
        Box(*sides).mask((4, 6))


def test_a_box_has_whole_pixels() -> None:
    assert Box(*np.array([1, 2, 3, 4])) == Box(1, 2, 3, 4)
    wrong: Any = 2.5
    with pytest.raises(OptionError, match=r"its top is 2\.5"):
        Box(1, wrong, 3, 4)
