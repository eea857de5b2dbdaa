from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lmonnx.errors import ImageError
from lmonnx.runtime.photos import decode, listed, path_of

PIXELS = np.random.default_rng(3).integers(0, 256, (4, 9, 7, 3), dtype=np.uint8)
COLOUR, GREY = PIXELS[0], PIXELS[0, ..., 0]


def shown(photo: Any) -> np.ndarray:
    picture = decode(photo)
    assert picture.mode == "RGB"
    return np.asarray(picture)


def test_arrays_are_pictures() -> None:
    np.testing.assert_array_equal(shown(COLOUR), COLOUR)
    np.testing.assert_array_equal(shown(COLOUR[:, ::-1]), COLOUR[:, ::-1])
    np.testing.assert_array_equal(shown(GREY), np.repeat(GREY[..., None], 3, axis=-1))


def test_tensors_are_pictures_in_torchvisions_layout() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: there are no tensors")
    tensor = torch.from_numpy(np.moveaxis(PIXELS, -1, 1).copy())
    np.testing.assert_array_equal(shown(tensor[0]), COLOUR)
    np.testing.assert_array_equal(shown(tensor[0, :1]), np.repeat(GREY[..., None], 3, axis=-1))
    np.testing.assert_array_equal([shown(photo) for photo in listed(tensor)], PIXELS)
    np.testing.assert_array_equal([shown(photo) for photo in listed(list(tensor))], PIXELS)
    assert len(listed(tensor[0])) == 1
    assert len(listed(tensor[:, :1])) == 4
    assert len(listed(torch.zeros(2, 1, 9, 3, dtype=torch.uint8))) == 2
    with pytest.raises(ImageError, match=r"a tensor of photographs is uint8 \[3, H, W\].* given uint8 \[9, 7, 3\]"):
        shown(torch.from_numpy(COLOUR))
    with pytest.raises(ImageError, match=r"given float32 \[7, 9, 3\]; Runner.run takes preprocessed images"):
        shown(torch.zeros(3, 7, 9))
    with pytest.raises(ImageError, match="the tensor cannot become an array"):
        shown(torch.zeros(3, 7, 9, device="meta"))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (COLOUR / 255, r"given float64 \[9, 7, 3\]; Runner\.run takes preprocessed images"),
        (COLOUR.astype(np.uint16), r"uint8 \[H, W, 3\] or \[H, W\] .* given uint16"),
        (COLOUR > 99, "given bool"),
        (np.moveaxis(COLOUR, -1, 0), r"given uint8 \[3, 9, 7\]"),
        (np.concatenate([COLOUR, COLOUR[..., :1]], -1), r"given uint8 \[9, 7, 4\]"),
        (COLOUR[0, 0], r"given uint8 \[3\]"),
        (PIXELS, r"given uint8 \[4, 9, 7, 3\]"),
        (COLOUR[:0], "is empty"),
    ],
)
def test_arrays_that_are_no_photograph_are_refused(array: np.ndarray, message: str) -> None:
    with pytest.raises(ImageError, match=f"the photograph: .*{message}"):
        decode(array)


def test_one_or_many(tmp_path: Path) -> None:
    picture = Image.fromarray(COLOUR)
    for one in ("a.png", tmp_path / "a.png", picture, COLOUR, GREY):
        assert listed(one)[0] is one
        assert len(listed(one)) == 1
    assert listed(["a.png", picture]) == ["a.png", picture]
    assert listed(path for path in [tmp_path]) == [tmp_path]
    np.testing.assert_array_equal(listed(PIXELS), PIXELS)
    for nothing in ([], PIXELS[:0]):
        with pytest.raises(ImageError, match="there is no photograph"):
            listed(nothing)


def test_paths() -> None:
    assert [path_of(photo) for photo in ("a", Path("b"), COLOUR, Image.fromarray(GREY))] == ["a", "b", None, None]
