"""An explanation: what each part of a picture did for one class, and all that is needed to repeat it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lmonnx.errors import PublishError
from lmonnx.explain.segmentation import Labels
from lmonnx.runtime.written import to_text

FORMAT = 1
"""Version of ``explanation.json``."""

STAGING = ".lmonnx-"
"""Beginning of the name of a folder in which an explanation is made before it is moved."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """How much each segment of a picture supports one class.

    Attributes:
        index: the class.
        name: its name.
        probability: its probability for the unmasked picture, 0 … 1.
        pixels: uint8 ``[H, W, 3]``: what the network saw, RGB.
        segments: int32 ``[H, W]``: the segment of each pixel, numbered from 0.
        weights: float64 ``[segments]``: what keeping a segment adds to the probability; negative opposes.
        intercept: the surrogate's probability where nothing is kept.
        score: weighted R² of the surrogate, 1 at best; a low one says that the weights explain little.
        settings: how the explanation was made: seed, samples, batch size, segmentation, surrogate.
        provenance: what it was made of: model, photograph, provider, versions.
    """

    index: int
    name: str
    probability: float
    pixels: npt.NDArray[np.uint8]
    segments: Labels
    weights: npt.NDArray[np.float64]
    intercept: float
    score: float
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]

    def order(self) -> npt.NDArray[np.intp]:
        """Segments by descending weight, ``[segments]``: the order of removal of a deletion curve."""
        return np.argsort(-self.weights, kind="stable")

    def to_json(self) -> dict[str, Any]:
        """The content of ``explanation.json``.

        Its keys::

            format        1
            class         index, name, probability (of the unmasked picture)
            surrogate     intercept, score (weighted R²)
            segments      one entry a segment, in order of its id:
                            id      its value in segments.png
                            weight  what keeping it adds to the probability
                            area    in pixels
                            box     [left, top, right, bottom] in pixels of the crop, the last two exclusive
            settings      method, seed, samples, keep_probability, batch_size, segmentation, surrogate,
                          paint (null where segments were masked)
            provenance    model (path, sha256, lmonnx version, rules, source, verified, preprocessing),
                          photo (path, crop_sha256: of the crop, uint8 [H, W, 3]), provider, versions
            files         segments (PNG, 16 bits: the id of each pixel), overlay (PNG, for people)
        """
        return {
            "format": FORMAT,
            "class": {"index": self.index, "name": self.name, "probability": self.probability},
            "surrogate": {"intercept": self.intercept, "score": self.score},
            "segments": self._segments(),
            "settings": dict(self.settings),
            "provenance": dict(self.provenance),
            "files": {"segments": "segments.png", "overlay": "overlay.png"},
        }

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Writes ``explanation.json``, ``segments.png`` and ``overlay.png``.

        The files are made in a directory beside and moved when all are there, ``explanation.json`` last:
        where it stands, the others belong to it. An earlier explanation in ``directory`` is replaced, other
        files stay.

        Args:
            directory: made if it does not exist.

        Returns:
            The directory.

        Raises:
            PublishError: if it cannot be written; nothing partial is left there.
        """
        target = Path(directory)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists() and not target.is_dir():
                raise PublishError(f"{target}: is a file; name a directory for the explanation")
            staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=STAGING))
            try:
                self._write(staging)
                _move(staging, target)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        except OSError as error:
            raise PublishError(f"{target}: the explanation cannot be written: {error}") from error
        return target

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from lmonnx.explain.rendering import figure

        return figure(self)

    def _write(self, directory: Path) -> None:
        from PIL import Image

        from lmonnx.explain.rendering import overlay

        Image.fromarray(self.segments.astype(np.uint16)).save(directory / "segments.png")
        overlay(self).save(directory / "overlay.png")
        text = to_text(self.to_json(), indent=2)
        (directory / "explanation.json").write_text(text + "\n", encoding="utf-8")

    def _segments(self) -> list[dict[str, Any]]:
        from skimage.measure import regionprops

        entries = []
        for region in regionprops(self.segments + 1):  # type: ignore[no-untyped-call]  # 0 is background to it
            number = region.label - 1
            top, left, bottom, right = map(int, region.bbox)
            weight, area = float(self.weights[number]), int(region.area)
            entries.append({"id": number, "weight": weight, "area": area, "box": [left, top, right, bottom]})
        return entries


def _move(staging: Path, target: Path) -> None:
    """Moves the files of ``staging`` to ``target``, which is complete whenever it holds explanation.json."""
    target.mkdir(exist_ok=True)
    (target / "explanation.json").unlink(missing_ok=True)
    for name in ("segments.png", "overlay.png", "explanation.json"):
        os.replace(staging / name, target / name)
