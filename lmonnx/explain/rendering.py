"""An explanation as a picture: the photograph, tinted where a segment supports or opposes the class."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

if TYPE_CHECKING:
    from lmonnx.explain.explanation import Explanation

WIDTH = 672
"""Pixels that the photograph's longer side is enlarged to at least, by a whole factor."""

SUPPORTS = (255, 96, 0)
OPPOSES = (32, 96, 255)
"""Orange and blue: colour-blind readers tell them apart, and foliage, a common background, is neither."""

OUTLINED = 5
"""How many of the strongest segments get an outline, if they are no fainter than FAINT."""

FAINT = 0.05
"""Share of full colour."""

INK, PAPER = (24, 24, 24), (255, 255, 255)
_FAINT = (110, 110, 110)
_OPACITY = 0.72  # of the strongest segment
_COLOUR_LEFT = 0.12  # of the photograph, so that tints are not taken for its own colours
_BLACK = 36  # the darkest value left, so that tints show there too
_OUTLINE = 3  # pixels

Rgb = npt.NDArray[np.float32]
Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont


def overlay(explanation: Explanation, strongest: float | None = None) -> Image.Image:
    """The photograph with its segments tinted by weight, a title with class and probability, and a scale.

    Orange supports the class, blue opposes it; the strongest segment is the least transparent. The photograph
    is enlarged by a whole factor to 672 pixels or more.

    Args:
        explanation: what is drawn.
        strongest: the weight of full colour, for several pictures in one scale; that of the strongest segment if
            None.
    """
    height, width = explanation.segments.shape
    factor = max(1, -(-WIDTH // max(height, width)))
    size = (width * factor, height * factor)
    labels = enlarge_labels(explanation.segments, factor)
    pixels = _faded(Image.fromarray(explanation.pixels).resize(size, Image.Resampling.BICUBIC))
    strongest = float(np.abs(explanation.weights).max()) if strongest is None else strongest
    strength = (explanation.weights / strongest if strongest > 0 else explanation.weights).clip(-1, 1)
    pixels = _tinted(pixels, strength.astype(np.float32)[labels])
    for number in np.argsort(np.abs(strength), kind="stable")[-OUTLINED:]:  # the strongest last, on top
        if abs(strength[number]) > FAINT:
            outline(pixels, labels == number, SUPPORTS if strength[number] > 0 else OPPOSES)
    picture = Image.fromarray(np.rint(pixels).clip(0, 255).astype(np.uint8))
    return _framed(picture, explanation, strongest)


def figure(explanation: Explanation) -> str:
    """The overlay and how it was made as one HTML figure that needs no other file."""
    stream = io.BytesIO()
    overlay(explanation).save(stream, "PNG")
    settings = explanation.settings
    how = "layer masking" if settings["paint"] is None else f"paint of grey {settings['paint']}"
    title = html.escape(f"{explanation.name}, {_percent(explanation.probability)}")
    caption = (
        f"{title}: {settings['samples']} samples over {len(explanation.weights)} segments, removed by {how}, "
        f"seed {settings['seed']}; R² of the surrogate {explanation.score:.2f}"
    )
    source = f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
    image = f'<img src="{source}" alt="{title}: orange supports the class, blue opposes it" style="max-width: 100%">'
    return f'<figure style="margin: 0">{image}<figcaption>{caption}</figcaption></figure>'


def enlarge_labels(labels: npt.NDArray[np.int32], factor: int) -> npt.NDArray[np.int32]:
    """Labels ``[H, W]`` on a grid finer by ``factor``, with smooth borders.

    Each pixel goes to the segment whose enlarged and blurred indicator is the largest there, the first one at
    equality; details of one pixel are smoothed away.
    """
    from skimage.measure import regionprops

    height, width = labels.shape
    margin = 4  # pixels of ``labels`` that enlarging and blurring reach
    best = np.full((height * factor, width * factor), -1, np.int16)
    fine = np.zeros(best.shape, np.int32)
    for region in regionprops(labels + 1):  # type: ignore[no-untyped-call]  # 0 is background to it
        top, left, bottom, right = region.bbox
        top, left = max(top - margin, 0), max(left - margin, 0)
        bottom, right = min(bottom + margin, height), min(right + margin, width)
        inside = labels[top:bottom, left:right] == region.label - 1
        size = ((right - left) * factor, (bottom - top) * factor)
        indicator = Image.fromarray(inside.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)
        share = np.asarray(indicator.filter(ImageFilter.GaussianBlur(factor)), np.int16)
        window = np.s_[top * factor : bottom * factor, left * factor : right * factor]
        wins = share > best[window]
        best[window][wins], fine[window][wins] = share[wins], region.label - 1
    return fine


def _faded(picture: Image.Image) -> Rgb:
    """The photograph with most of its colour and its deepest black taken out, float32 ``[H, W, 3]`` to 255."""
    colour, grey = np.asarray(picture, np.float32), np.asarray(picture.convert("L"), np.float32)[..., None]
    faded: Rgb = grey + _COLOUR_LEFT * (colour - grey)
    return _BLACK + faded * ((255 - _BLACK) / 255)


def _tinted(pixels: Rgb, strength: npt.NDArray[np.float32]) -> Rgb:
    """Tints ``[H, W, 3]`` by ``strength`` ``[H, W]`` in −1 … 1."""
    opacity = (_OPACITY * np.abs(strength))[..., None]
    supports, opposes = np.array(SUPPORTS, np.float32), np.array(OPPOSES, np.float32)
    colour = np.where(strength[..., None] > 0, supports, opposes)
    return (pixels * (1 - opacity) + colour * opacity).astype(np.float32)


def outline(pixels: Rgb, region: npt.NDArray[np.bool_], colour: tuple[int, int, int]) -> None:
    """Draws the inner border of a region ``[H, W]`` into ``pixels`` ``[H, W, 3]``, white inside of the colour."""
    from skimage.morphology import isotropic_erosion

    if not region.any():
        return
    rows, columns = (np.flatnonzero(region.any(axis)) for axis in (1, 0))
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    pixels, region = pixels[window], region[window]
    inside = np.pad(region, 1)  # so that the edge of the picture is a border too
    core, inner = (
        isotropic_erosion(inside, depth)[1:-1, 1:-1]  # type: ignore[no-untyped-call]
        for depth in (_OUTLINE, _OUTLINE + 1.5)
    )
    pixels[region & ~core] = colour
    pixels[core & ~inner] = PAPER


def _framed(picture: Image.Image, explanation: Explanation, strongest: float) -> Image.Image:
    """The picture under a title and over a colour scale."""
    unit = max(picture.width // 28, 8)
    pad, head, foot = unit // 2, 2 * unit, 3 * unit // 2
    sheet = Image.new("RGB", (picture.width, picture.height + head + foot), PAPER)
    sheet.paste(picture, (0, head))
    draw = ImageDraw.Draw(sheet)
    big, small = ImageFont.load_default(unit * 1.0), ImageFont.load_default(unit * 0.7)
    percent = _percent(explanation.probability)
    room = picture.width - 3 * pad - draw.textlength(percent, big)
    draw.text((pad, head // 2), _shortened(draw, explanation.name, big, room), INK, big, anchor="lm")
    draw.text((picture.width - pad, head // 2), percent, INK, big, anchor="rm")
    middle = head + picture.height + foot // 2
    _scale(sheet, small, (pad, middle), unit, strongest)
    draw.text((picture.width - pad, middle), f"fit {explanation.score:.2f}", _FAINT, small, anchor="rm")
    return sheet


def _scale(sheet: Image.Image, font: Font, corner: tuple[int, int], unit: int, strongest: float) -> None:
    """``opposes -w [colours] +w supports``, its left middle at ``corner``."""
    draw, (x, y) = ImageDraw.Draw(sheet), corner
    length, half = 7 * unit, unit // 3
    for text, gap in (("opposes", unit // 3), (f"-{strongest:.2g}", unit // 3)):
        draw.text((x, y), text, OPPOSES if text == "opposes" else INK, font, anchor="lm")
        x += round(draw.textlength(text, font)) + gap
    strength = np.tile(np.linspace(-1, 1, length, dtype=np.float32), (2 * half, 1))
    paper = np.full((2 * half, length, 3), 225, np.float32)
    bar = Image.fromarray(np.rint(_tinted(paper, strength)).astype(np.uint8))
    sheet.paste(bar, (x, y - half))
    x += length + unit // 3
    draw.text((x, y), f"+{strongest:.2g}", INK, font, anchor="lm")
    x += round(draw.textlength(f"+{strongest:.2g}", font)) + unit // 3
    draw.text((x, y), "supports", SUPPORTS, font, anchor="lm")


def _percent(probability: float) -> str:
    """A probability for people; what is not certain is not shown as 0 or 100 %."""
    if 0 < probability < 0.001:
        return "< 0.1 %"
    if 0.999 < probability < 1:
        return "> 99.9 %"
    return f"{probability:.1%}".replace("%", " %")


def _shortened(draw: ImageDraw.ImageDraw, text: str, font: Font, room: float) -> str:
    """The text, cut off with an ellipsis where it is wider than ``room``."""
    if draw.textlength(text, font) <= room:
        return text
    while text and draw.textlength(text + "…", font) > room:
        text = text[:-1]
    return text.rstrip() + "…"
