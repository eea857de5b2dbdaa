from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from lmonnx.errors import ImageError, OptionError
from lmonnx.runtime.photos import decode
from lmonnx.runtime.preprocessing import ChannelOrder, Preprocessing, short_side
from tests.pictures import picture

DATA = Path(os.environ.get("LMONNX_TEST_DATA", Path(__file__).parents[2] / "../shared/data"))
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.fixture(scope="module")
def preset() -> Callable[[Preprocessing, Image.Image], np.ndarray]:
    """torchvision's ``ImageClassification`` preset on a PIL image in RGB, float32 ``[1, 3, H, W]``."""
    pytest.importorskip("torch", reason="torch is not installed: nothing to compare with")
    from lmonnx.exporters.sources.torchvision import import_torchvision

    import_torchvision()
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms._presets import ImageClassification

    def apply(settings: Preprocessing, picture: Image.Image) -> np.ndarray:
        transform = ImageClassification(
            crop_size=settings.size[0],
            mean=settings.mean,
            std=settings.std,
            interpolation=InterpolationMode(settings.interpolation),
            antialias=True,
        )
        transform.crop_size = list(settings.size)  # its constructor takes squares only
        transform.resize_size = list(settings.size) if settings.resize is None else [settings.resize]
        return transform(picture).numpy()[None]

    return apply


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("size", [(500, 375), (375, 500), (333, 257), (257, 333), (64, 48), (9, 1), (224, 224)])
@pytest.mark.parametrize(
    ("crop", "resize"),
    [((224, 224), 256), ((224, 224), 232), ((97, 65), 101), ((65, 98), None), ((51, 64), 33)],
)
def test_equal_to_torchvision(
    preset: Any, size: tuple[int, int], crop: tuple[int, int], resize: int | None, interpolation: Any
) -> None:
    settings = Preprocessing(crop, resize, interpolation, **IMAGENET)
    photo = picture(*size)
    expected = preset(settings, photo)
    prepared = settings.prepare(photo)
    assert prepared.dtype == np.float32
    assert prepared.flags.c_contiguous
    np.testing.assert_array_equal(prepared, expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "P", "1", "CMYK", "YCbCr", "LAB", "HSV"])
def test_modes_as_torchvisions_loader_converts_them(preset: Any, tmp_path: Path, mode: str) -> None:
    settings = Preprocessing((56, 56), 64, **IMAGENET)
    photo = picture(81, 67).convert(mode) if mode != "LAB" else Image.new("LAB", (81, 67), (120, 30, 200))
    if mode in ("RGBA", "LA"):
        photo.putalpha(picture(81, 67, "L"))
    path = tmp_path / ("photo.tif" if mode in ("CMYK", "YCbCr", "LAB", "HSV") else "photo.png")
    if mode != "HSV":  # no file holds it
        photo.save(path)
        np.testing.assert_array_equal(settings.prepare(path), settings.prepare(str(path)))
        photo = Image.open(path)
    np.testing.assert_array_equal(settings.prepare(photo), preset(settings, photo.convert("RGB")))


@pytest.fixture(scope="module")
def presets() -> list[tuple[Any, Preprocessing]]:
    """``weights.transforms()`` of torchvision's classifiers, those that differ, each with our settings."""
    pytest.importorskip("torch", reason="torch is not installed: nothing to compare with")
    from lmonnx.exporters.sources.torchvision import import_torchvision

    models = import_torchvision().models
    found = {}
    for name in models.list_models(module=models):
        for weights in models.get_model_weights(name):
            preset = weights.transforms()
            (crop,), (resize,) = preset.crop_size, preset.resize_size
            channels = {"mean": tuple(preset.mean), "std": tuple(preset.std)}
            found[Preprocessing((crop, crop), resize, preset.interpolation.value, **channels)] = preset
    return [(preset, settings) for settings, preset in found.items()]


@pytest.mark.parametrize("size", [(640, 427), (333, 517), (97, 201), (1, 1), (3, 40), (401, 20)])
def test_equal_to_the_transforms_of_all_weights(presets: Any, size: tuple[int, int]) -> None:
    assert len(presets) > 20
    assert {settings.interpolation for _, settings in presets} == {"bilinear", "bicubic"}
    photo = picture(*size)
    for preset, settings in presets:
        np.testing.assert_array_equal(settings.prepare(photo)[0], preset(photo).numpy(), err_msg=str(settings))


FILES = {
    "png": ["1", "L", "LA", "P", "RGB", "RGBA"],
    "gif": ["1", "L", "P", "RGB"],
    "bmp": ["1", "L", "P", "RGB"],
    "webp": ["RGB", "RGBA"],
    "jpg": ["L", "RGB", "CMYK", "YCbCr"],
    "tif": ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"],
}


def stored(folder: Path) -> Iterator[Path]:
    """A file of every kind that people have."""
    colour, alpha = picture(101, 67), picture(101, 67, "L").rotate(180)
    for suffix, modes in FILES.items():
        for mode in modes:
            photo = Image.new("LAB", (101, 67), (120, 30, 200)) if mode == "LAB" else colour.convert(mode)
            if mode in ("RGBA", "LA"):
                photo.putalpha(alpha)
            photo.save(folder / f"{mode}.{suffix}")
            yield folder / f"{mode}.{suffix}"
    colour.quantize(16).save(folder / "clear.gif", transparency=3)
    colour.quantize(16).save(folder / "clear.png", transparency=bytes(range(0, 256, 16)))
    colour.save(folder / "key.png", transparency=colour.getpixel((0, 0)))
    yield from (folder / name for name in ("clear.gif", "clear.png", "key.png"))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for suffix in ("jpg", "png", "webp", "tif"):
            colour.save(folder / f"turned{orientation}.{suffix}", exif=exif)
            yield folder / f"turned{orientation}.{suffix}"


def test_files_as_torchvisions_loader_reads_them(presets: Any, tmp_path: Path) -> None:
    preset, settings = presets[0]
    shapes = set()
    for path in stored(tmp_path):
        with Image.open(path) as opened, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Palette images with Transparency", UserWarning)
            upright = ImageOps.exif_transpose(opened)  # which the loader leaves to the caller
            expected = preset(upright.convert("RGB")).numpy()
        np.testing.assert_array_equal(settings.prepare(path)[0], expected, err_msg=path.name)
        shapes.add((path.name, decode(path).size))
    turned = {(f"turned{number}.{suffix}", (67, 101)) for number in (5, 6, 7, 8) for suffix in ("jpg", "png", "tif")}
    assert turned <= shapes


def test_a_cmyk_jpeg(preset: Any, tmp_path: Path) -> None:
    settings = Preprocessing((56, 56), 64)
    picture(81, 67, "CMYK").save(tmp_path / "photo.jpg")
    with Image.open(tmp_path / "photo.jpg") as opened:
        assert opened.mode == "CMYK"
        expected = preset(settings, opened.convert("RGB"))
    np.testing.assert_array_equal(settings.prepare(tmp_path / "photo.jpg"), expected)


def test_a_palette_with_transparency_warns_nobody(tmp_path: Path) -> None:
    photo = picture(20, 20).quantize(16)
    photo.save(tmp_path / "photo.png", transparency=bytes(range(16)))
    np.testing.assert_array_equal(decode(tmp_path / "photo.png"), photo.convert("RGB"))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_of_sixteen_bits_the_high_byte_is_kept(tmp_path: Path, suffix: str) -> None:
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    path = tmp_path / f"photo.{suffix}"
    Image.fromarray(values).save(path)
    expected = np.repeat((values >> 8)[..., None], 3, axis=-1)
    np.testing.assert_array_equal(np.asarray(decode(path)), expected)
    np.testing.assert_array_equal(np.asarray(decode(Image.fromarray(values.astype(np.int32)))), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = picture(30, 20)
    back = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    stored = upright
    for step in back.get(orientation, []):
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "photo.png", exif=exif)
    np.testing.assert_array_equal(np.asarray(decode(tmp_path / "photo.png")), np.asarray(upright))


def test_a_given_picture_is_left_as_it_is() -> None:
    photo = picture(30, 20)
    before = photo.tobytes()
    Preprocessing((16, 16), 20).prepare(photo)
    assert photo.tobytes() == before
    assert photo.size == (30, 20)


def test_arithmetic_and_channel_order() -> None:
    settings = Preprocessing((2, 2), mean=(1, 2, 3), std=(2, 4, 8), scale=1, channel_order="BGR")
    photo = Image.new("RGB", (2, 2), (10, 20, 30))
    expected = np.array([(30 - 1) / 2, (20 - 2) / 4, (10 - 3) / 8], np.float32)
    np.testing.assert_array_equal(settings.prepare(photo)[0, :, 0, 0], expected)
    np.testing.assert_array_equal(settings.crop(photo)[0, 0], [10, 20, 30])


def test_a_network_of_one_channel_sees_grey() -> None:
    settings = Preprocessing((40, 56), 60, mean=(0.25,), std=(0.5,))
    grey = picture(90, 70, "L")
    prepared = settings.prepare(grey)
    assert prepared.shape == (1, 1, 40, 56)
    expected = (settings.crop(grey)[..., 0].astype(np.float32) / np.float32(255) - np.float32(0.25)) / np.float32(0.5)
    np.testing.assert_array_equal(prepared[0, 0], expected)
    single = Preprocessing((1, 1), mean=(0,), std=(1,), scale=1)
    luma = [round((299 * r + 587 * g + 114 * b) / 1000) for r, g, b in np.eye(3, dtype=int) * 200]
    assert [single.prepare(Image.new("RGB", (1, 1), c)).item() for c in ("#c80000", "#00c800", "#0000c8")] == luma


@pytest.mark.parametrize(
    ("size", "crop", "expected"),
    [
        ((224, 224), "0.875", 256),
        ((224, 224), "224/256", 256),
        ((224, 224), "224/232", 232),
        ((224, 224), Fraction(224, 235), 235),
        ((224, 224), "0.965", 232),
        ((299, 299), "0.875", 341),
        ((160, 224), "0.875", 256),
        ((224, 160), "1", 224),
        ((224, 224), "1.0", 224),
    ],
)
def test_a_share_of_the_picture_is_a_short_side(size: tuple[int, int], crop: Any, expected: int) -> None:
    assert short_side(size, crop) == expected


@pytest.mark.parametrize("number", range(100, 400))
def test_a_share_gives_back_its_pixels(number: int) -> None:
    assert short_side((97, 97), f"97/{number}") == number


@pytest.mark.parametrize("crop", ["0", "-1", "1.01", "257/256", "1/0", "nan", "inf", "half", "", 0.875, 1, None, True])
def test_what_is_no_share_is_refused(crop: Any) -> None:
    with pytest.raises(OptionError, match="crop="):
        short_side((224, 224), crop)


def test_the_crop_is_what_the_tensor_holds() -> None:
    settings = Preprocessing((40, 56), 60, "bicubic")
    photo = picture(90, 70)
    crop = settings.crop(photo)
    assert crop.dtype == np.uint8
    np.testing.assert_array_equal(settings.prepare(photo)[0].transpose(1, 2, 0), crop.astype(np.float32) / 255)


@pytest.mark.skipif(not (DATA / "images").is_dir(), reason="no photographs: LMONNX_TEST_DATA names no folder")
def test_real_photographs(preset: Any) -> None:
    settings = Preprocessing((224, 224), 256, **IMAGENET)
    for path in sorted((DATA / "images").iterdir())[::4]:
        with Image.open(path) as photo:
            np.testing.assert_array_equal(settings.prepare(path), preset(settings, photo.convert("RGB")))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", (224,)),
        ("size", 224),
        ("size", (224, 0)),
        ("size", (224.0, 224.0)),
        ("resize", 0),
        ("resize", True),
        ("resize", 25.6),
        ("interpolation", "lanczos"),
        ("mean", (0.5, 0.5)),
        ("mean", ("a", "b", "c")),
        ("std", (1.0, 1.0)),
        ("std", (1.0, 0.0, 1.0)),
        ("std", (1.0, float("nan"), 1.0)),
        ("scale", 0),
        ("scale", "255"),
        ("channel_order", "GBR"),
    ],
)
def test_a_wrong_option_is_named(field: str, value: Any) -> None:
    with pytest.raises(OptionError, match=field):
        Preprocessing(**{"size": (224, 224), field: value})


def test_json_is_exact() -> None:
    settings = Preprocessing((224, 160), None, "nearest", mean=(0.1, 1 / 3, 0.3), std=(1, 2, 3), scale=127.5)
    assert Preprocessing.from_json(settings.to_json()) == settings
    with pytest.raises(OptionError, match="unknown fields: colour"):
        Preprocessing.from_json({**settings.to_json(), "colour": 1})


def test_one_number_stands_for_every_channel() -> None:
    assert Preprocessing((8, 8), mean=(0.5,)) == Preprocessing((8, 8), mean=(0.5, 0.5, 0.5))
    grey = Preprocessing((8, 8), mean=(0.5,), std=(0.2,))
    assert (grey.mean, grey.for_channels(3).mean, grey.for_channels(3).std) == ((0.5,), (0.5,) * 3, (0.2,) * 3)
    assert Preprocessing((8, 8)).for_channels(1) == Preprocessing((8, 8), mean=(0.0,), std=(1.0,))
    for wrong, channels in (
        (Preprocessing((8, 8), mean=(0.1, 0.2, 0.3)), 1),
        (Preprocessing((8, 8), channel_order="BGR"), 1),
        (Preprocessing((8, 8)), 4),
    ):
        with pytest.raises(OptionError, match="channel"):
            wrong.for_channels(channels)


@pytest.mark.parametrize("order", ["RGB", "BGR"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_of_many_photographs_are_scaled_as_one_is(order: ChannelOrder, channels: int) -> None:
    mean, std = ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)) if channels == 3 else ((0.1,), (0.4,))
    preprocessing = Preprocessing((5, 4), mean=mean, std=std, channel_order=order)
    crops = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 3), dtype=np.uint8)
    pixels = np.concatenate([*map(preprocessing.channels, crops)])
    assert (pixels.dtype, pixels.shape) == (np.uint8, (3, 5, 4, channels))
    single, double = preprocessing.scaled(pixels, np.float32), preprocessing.scaled(pixels, np.float64)
    np.testing.assert_array_equal(single, np.concatenate([*map(preprocessing.normalise, crops)]))
    assert (single.dtype, double.dtype) == (np.float32, np.float64)
    ordered = pixels if order == "RGB" else pixels[..., ::-1]
    expected = (ordered / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(double, expected.transpose(0, 3, 1, 2), rtol=1e-14, atol=1e-14)


def test_what_is_no_crop_has_no_channels() -> None:
    with pytest.raises(ImageError, match=r"a crop is uint8 \[5, 4, 3\], given uint8 \[4, 5, 3\]"):
        Preprocessing((5, 4)).channels(np.zeros((4, 5, 3), np.uint8))
