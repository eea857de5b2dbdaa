"""Explanations for folders of photographs, written down one by one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from lmonnx.errors import LmonnxError, ModelError, OptionError
from lmonnx.explain.explanation import STAGING, Explanation
from lmonnx.explain.lime import Lime, Scene, explained, require_class
from lmonnx.runtime.finding import Found, find
from lmonnx.runtime.jobs import Outcome, Progress, Record, Silent, run_job
from lmonnx.runtime.many import require_workers
from lmonnx.runtime.preprocessing import Preprocessing
from lmonnx.runtime.session import Runner


def explain_many(
    model: Runner | str | os.PathLike[str],
    where: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    target: int | None = None,
    samples: int = 1000,
    segments: int = 50,
    seed: int = 0,
    batch_size: int | None = None,
    paint: int | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Explains many photographs, each into a folder of its name, and writes a line for each to ``results.jsonl``.

    A line is ``{"photo": name, "class", "surrogate", "segments"}``, the last three as in ``explanation.json``, which
    stands in the folder of that name beside it. What has a line is left out when the same call is made again; a
    photograph that cannot be read has its reason in ``errors.jsonl``.

    Photographs are decoded and segmented in other processes, which import the main module: in a script of your own
    this call has to stand behind ``if __name__ == "__main__":``, or be made with ``workers=0``.

    Args:
        model: a graph that ``lmonnx export`` wrote, or its runner.
        where: photographs, folders, or patterns; see :func:`lmonnx.runtime.finding.find`.
        output: the folder, made if it does not exist.
        target: see :func:`lmonnx.explain.explain`; so for ``samples``, ``segments``, ``seed``, ``batch_size`` and
            ``paint``.
        samples: likewise.
        segments: likewise.
        seed: likewise.
        batch_size: likewise.
        paint: likewise.
        workers: processes that decode and segment; ``None`` takes half of the processors, at most 4; 0 does it in this
            one.
        progress: is told how far it is.

    Raises:
        ImageError: if there is no photograph.
        ModelError: if the graph cannot be loaded, or does not say how to prepare a photograph.
        OptionError: if an option has a value that is not allowed, or the folder holds results of other settings.
        PublishError: if the folder cannot be written to.
    """
    lime = Lime(target, samples, segments, seed, batch_size, paint)
    runner, found = model if isinstance(model, Runner) else Runner(model), find(where)
    require_class(target, runner.classes)
    runner.require_probabilities()
    _require_apart(Path(output), found)
    settings = {"command": "explain", "model": runner.sha256, **asdict(lime)}
    prepare = partial(_scene, lime=lime, preprocessing=runner.preprocessing)
    work = partial(_work, runner=runner, lime=lime, output=Path(output), tell=progress or Silent())
    return run_job(Path(output), settings, found, prepare, work, require_workers(workers), progress)


def _require_apart(output: Path, found: Found) -> None:
    """Refuses a folder in which a photograph stands where the folder of its explanation would.

    Raises:
        OptionError: if so.
    """
    if output.resolve() == found.root.resolve():
        raise OptionError(f"{output} is the folder of the photographs; name another one for their explanations")


def _scene(path: Path, lime: Lime, preprocessing: Preprocessing) -> Scene:
    return lime.scene(path, preprocessing)


def _work(
    scenes: Iterator[tuple[str, Scene]], runner: Runner, lime: Lime, output: Path, tell: Progress
) -> Iterator[tuple[str, Record | LmonnxError]]:
    for left in output.rglob(f"{STAGING}*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    lime.rows_at_once(runner)  # measured before other processes take a part of the processors
    for name, scene in scenes:
        try:
            explanation = explained(runner, scene, lime, tell.rows)
        except ModelError as error:
            yield name, error
            continue
        explanation.save(output / name)
        yield name, _line(explanation)


def _line(explanation: Explanation) -> Record:
    whole = explanation.to_json()
    return {key: whole[key] for key in ("class", "surrogate", "segments")}
