"""Predictions for folders of photographs, written down one by one."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lmonnx.errors import LmonnxError, ModelError, OptionError
from lmonnx.runtime.batching import require_batch_size
from lmonnx.runtime.finding import find
from lmonnx.runtime.jobs import Outcome, Progress, Record, Silent, run_job
from lmonnx.runtime.masks import Box, load
from lmonnx.runtime.predictions import TOP, Prediction
from lmonnx.runtime.preprocessing import Preprocessing
from lmonnx.runtime.questions import pair
from lmonnx.runtime.session import Runner
from lmonnx.runtime.tuning import WORTH
from lmonnx.runtime.workers import usual_workers


@dataclass(frozen=True, eq=False)
class _Picture:
    """What the network sees of a photograph, uint8 [H, W, 3], and what is kept of it, bool [1, 1, H, W]."""

    pixels: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]


def predict_many(
    model: Runner | str | os.PathLike[str],
    where: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    mask: str | os.PathLike[str] | Box | None = None,
    mask_removes: bool = False,
    top: int = TOP,
    batch_size: int | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Predicts many photographs, and writes a line for each to ``results.jsonl`` in a folder.

    A line is ``{"photo": name, "kept": share, "top": [{"index", "name", "probability"}, …]}``. What has a line is left
    out when the same call is made again; a photograph that cannot be read has its reason in ``errors.jsonl``.

    Photographs are decoded in other processes, which import the main module: in a script of your own this call has to
    stand behind ``if __name__ == "__main__":``, or be made with ``workers=0``.

    Args:
        model: a graph that ``lmonnx export`` wrote, or its runner.
        where: photographs, folders, or patterns; see :func:`lmonnx.runtime.finding.find`.
        output: the folder, made if it does not exist.
        mask: what is kept of every photograph: a file (white = keep) or a box; ``None`` keeps everything.
        mask_removes: white, and the box, are what is removed, not what is kept.
        top: classes in a line, at most.
        batch_size: photographs per pass; ``None`` takes what is best here, see :meth:`lmonnx.Runner.tune`.
        workers: processes that decode; ``None`` takes half of the processors, at most 4; 0 decodes in this one.
        progress: is told how far it is.

    Raises:
        ImageError: if there is no photograph, or the mask cannot be read.
        ModelError: if the graph cannot be loaded, or does not say how to prepare a photograph.
        OptionError: if an option has a value that is not allowed, or the folder holds results of other settings.
        PublishError: if the folder cannot be written to.
    """
    if top < 1:
        raise OptionError(f"top={top!r} is not a positive number of classes")
    if batch_size is not None:
        require_batch_size(batch_size)
    runner, found = model if isinstance(model, Runner) else Runner(model), find(where)
    runner.require_probabilities()
    kept = asdict(mask) if isinstance(mask, Box) else mask and _sha256_of(mask)
    settings = {"command": "predict", "model": runner.sha256, "mask": kept, "mask_removes": mask_removes, "top": top}
    prepare = partial(_picture, preprocessing=runner.preprocessing, mask=mask, removes=mask_removes)
    work = partial(_work, runner=runner, rows=batch_size, images=len(found.names), top=top, progress=progress)
    return run_job(Path(output), settings, found, prepare, work, require_workers(workers), progress)


def require_workers(workers: int | None) -> int:
    """A number of processes, the usual one for None.

    Raises:
        OptionError: if it is negative.
    """
    if workers is not None and (not isinstance(workers, int) or isinstance(workers, bool) or workers < 0):
        raise OptionError(f"workers={workers!r} is not a number of processes; 0 prepares in this one")
    return usual_workers() if workers is None else workers


def _sha256_of(mask: str | os.PathLike[str]) -> str:
    """The content of a mask, after a look whether it is one."""
    load(mask, os.fspath(mask))
    return hashlib.sha256(Path(mask).read_bytes()).hexdigest()


def _picture(path: Path, preprocessing: Preprocessing, mask: Any, removes: bool) -> _Picture:
    fixed, masks = pair(preprocessing, [path], [mask], removes, _as_it_is)
    return _Picture(fixed["image"], next(masks)["mask"])


def _as_it_is(crop: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return crop


def _work(
    pictures: Iterator[tuple[str, _Picture]],
    runner: Runner,
    rows: int | None,
    images: int,
    top: int,
    progress: Progress | None,
) -> Iterator[tuple[str, Record | LmonnxError]]:
    """Lines, a batch at a time; a photograph that makes a batch fail is found by asking for each alone."""
    size = min(rows or (runner.tune() if images >= WORTH else runner.rows_at_once), images)
    while some := [*itertools.islice(pictures, size)]:
        try:
            yield from _lines(runner, some, size, top)
        except ModelError:
            for one in some:
                try:
                    yield from _lines(runner, [one], size, top)
                except ModelError as error:
                    yield one[0], error
        (progress or Silent()).rows(len(some))


def _lines(runner: Runner, some: Sequence[tuple[str, _Picture]], size: int, top: int) -> list[tuple[str, Record]]:
    feeds = ({"image": runner.encode(picture.pixels), "mask": picture.mask} for _, picture in some)
    rows = np.concatenate([answer for _, answer in runner.answers({}, feeds, size)])
    labels = tuple(map(runner.label, range(rows.shape[1])))
    predictions = [Prediction(row, labels, float(one.mask.mean())) for row, (_, one) in zip(rows, some, strict=True)]
    lines = [{key: value for key, value in one.to_json(top).items() if key != "photo"} for one in predictions]
    return [(name, line) for (name, _), line in zip(some, lines, strict=True)]
