"""Pictures that cannot be read, or make no sense, are refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lmonnx.errors import ImageError
from lmonnx.runtime.photos import decode
from lmonnx.runtime.preprocessing import Preprocessing
from tests.pictures import picture


def broken(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    return path


def jpeg(tmp_path: Path) -> bytes:
    picture(200, 200).save(tmp_path / "whole.jpg")
    return (tmp_path / "whole.jpg").read_bytes()


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    settings = Preprocessing((32, 32))
    with pytest.raises(ImageError, match=r"nowhere\.png: there is no such file"):
        settings.prepare(tmp_path / "nowhere.png")
    with pytest.raises(ImageError, match="is a directory"):
        settings.prepare(tmp_path)
    for content in (b"", b"no picture", jpeg(tmp_path)[:4]):
        with pytest.raises(ImageError, match=r"photo\.jpg: is not an image"):
            settings.prepare(broken(tmp_path, content))
    whole = jpeg(tmp_path)
    with pytest.raises(ImageError, match=r"photo\.jpg: is damaged, cut off"):
        settings.prepare(broken(tmp_path, whole[: len(whole) // 2]))
    with pytest.raises(ImageError, match="not a path, a PIL image or an array, but int"):
        settings.prepare(7)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "tif", "bmp"])
def test_damaged_files_are_refused_or_read(tmp_path: Path, suffix: str) -> None:
    """Cut off and flipped bytes give a picture or an ImageError, never anything else."""
    settings = Preprocessing((32, 32), 40)
    picture(60, 50).save(tmp_path / f"whole.{suffix}")
    whole = (tmp_path / f"whole.{suffix}").read_bytes()
    rng = np.random.default_rng(9)
    refused = 0
    for number in range(60):
        content = bytearray(whole)
        if number % 2:
            content = content[: rng.integers(len(content))]
        else:
            for position in rng.integers(min(len(content), 400), size=4):
                content[position] ^= 1 << int(rng.integers(8))
        try:
            settings.prepare(broken(tmp_path, bytes(content)))
        except ImageError:
            refused += 1
    assert refused >= 20


def test_whatever_a_decoder_raises_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: str) -> None:
        raise RuntimeError("Failed to decode image: Not implemented")

    monkeypatch.setattr(Image, "open", fails)
    with pytest.raises(ImageError, match=r"photo\.avif: cannot be read: Failed to decode image: Not implemented"):
        decode(tmp_path / "photo.avif")


def test_values_of_unknown_range_are_refused() -> None:
    with pytest.raises(ImageError, match="floating point"):
        decode(Image.new("F", (4, 4), 0.5))
    with pytest.raises(ImageError, match="beyond 16 bits"):
        decode(Image.fromarray(np.full((4, 4), 70_000, np.int32)))


def test_pictures_without_sensible_size_are_refused() -> None:
    with pytest.raises(ImageError, match="100000×1 pixels is too thin"):
        Preprocessing((32, 32), 256).prepare(Image.new("RGB", (100_000, 1)))
    with pytest.raises(ImageError, match="empty"):
        Preprocessing((32, 32), 256).prepare(Image.new("RGB", (0, 5)))


def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    picture(200, 200).save(tmp_path / "photo.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match="decompression bomb"):
        decode(tmp_path / "photo.png")
