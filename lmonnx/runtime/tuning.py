"""How many rows a pass of a graph has at best: measured once, in a process of its own, and remembered beside the model.

In a process of its own because what it takes of memory is measured too, and because Linux kills who takes too much.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmonnx.runtime.batching import BATCH_SIZE
from lmonnx.runtime.distributions import import_onnxruntime
from lmonnx.runtime.form import MAX_BATCH
from lmonnx.runtime.resources import processor
from lmonnx.runtime.written import replace_text

if TYPE_CHECKING:
    from lmonnx.runtime.session import Runner

FORMAT = 1
"""Version of the file that remembers."""

GAIN = 0.03
"""Twice as many rows are worth it if a row then takes less time by this share."""

WORTH = 500
"""From so many rows on it is worth measuring."""

SHARE = 0.5
"""Of the free memory, what a batch may take."""

ROW = 32 << 20
"""Bytes that a row of 224×224 pixels takes, of larger networks (ResNet-50 9, MobileNetV3-L 27 millions)."""

TIMEOUT = 120.0
"""Seconds after which what was measured by then has to do."""


_TRIALS = "lmonnx.runtime.trials"
"""The program that measures."""


@dataclass(frozen=True)
class Trial:
    """One number of rows.

    Attributes:
        rows: how many were computed at once.
        seconds: that a run took.
        memory: bytes that the process held more than before the first run.
    """

    rows: int
    seconds: float
    memory: int


def tuned(runner: Runner) -> Sequence[Trial]:
    """What was measured of a graph here, now or before; nothing if it could not be.

    It is remembered for this model, provider, number of threads, processor and version of onnxruntime, in
    ``<model>.tuned.json``. Where that cannot be written, it is measured again by the next process.
    """
    return remembered(runner) or _remember(runner, _measured(runner))


def remembered(runner: Runner) -> Sequence[Trial]:
    """What was measured of a graph here before; nothing if it was not."""
    here = _machine(runner)
    return next((trials for machine, trials in _entries(runner) if machine == here), ())


def best(trials: Sequence[Trial], free: int) -> int:
    """The fewest rows of which one takes hardly more time than at best, and that fit into ``SHARE`` of the free bytes.

    Args:
        trials: what was measured, one at least.
        free: bytes of free memory.
    """
    quickest = min(trial.seconds / trial.rows for trial in trials)
    wanted = min(trial.rows for trial in trials if trial.seconds / trial.rows <= (1 + GAIN) * quickest)
    largest = max(trials, key=lambda trial: trial.rows)
    fitting = int(SHARE * free * largest.rows / max(largest.memory, 1))
    return max(1, min(wanted, fitting))


def guess(size: tuple[int, int], free: int) -> int:
    """Rows at once where nothing was measured: ``BATCH_SIZE``, or as many as fit if a row takes ``ROW``.

    Args:
        size: height and width of the image.
        free: bytes of free memory.
    """
    row = ROW * size[0] * size[1] // (224 * 224)
    return max(1, min(BATCH_SIZE, int(SHARE * free) // max(row, 1)))


def _measured(runner: Runner) -> Sequence[Trial]:
    model = os.path.abspath(runner.path)
    command = [sys.executable, "-P", "-m", _TRIALS, model, runner.provider, str(runner.threads), runner.sha256]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            command, env=environment, timeout=TIMEOUT, capture_output=True, check=False, text=True, errors="replace"
        )
        output, why = done.stdout, f"it ended with code {done.returncode}"
    except subprocess.TimeoutExpired as late:
        output = late.stdout.decode() if isinstance(late.stdout, bytes) else late.stdout or ""
        why = f"it took more than {TIMEOUT:g} s"
    except OSError as error:
        output, why = "", str(error)
    trials = _trials(json.loads(line) for line in output.splitlines() if line.endswith("}"))
    if not trials:
        warnings.warn(f"{runner.path}: the best batch size could not be measured, {why}", RuntimeWarning, stacklevel=4)
    return trials


def _remember(runner: Runner, trials: Sequence[Trial]) -> Sequence[Trial]:
    if not trials:
        return trials
    here, file = _machine(runner), _file(runner)
    entries = [*((machine, known) for machine, known in _entries(runner) if machine != here), (here, trials)]
    machines = [{"machine": machine, "trials": [asdict(trial) for trial in some]} for machine, some in entries]
    text = json.dumps({"format": FORMAT, "sha256": runner.sha256, "machines": machines}, indent=1)
    with contextlib.suppress(OSError):  # a folder of somebody else's
        replace_text(file, text + "\n")
    return trials


def _entries(runner: Runner) -> list[tuple[dict[str, Any], Sequence[Trial]]]:
    """What the file holds of this model: machines, and what was measured there."""
    try:
        content = json.loads(_file(runner).read_text(encoding="utf-8"))
        if (content["format"], content["sha256"]) != (FORMAT, runner.sha256):
            return []
        entries = [(entry["machine"], _trials(entry["trials"])) for entry in content["machines"]]
        return [(machine, trials) for machine, trials in entries if trials]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # not there, or not ours
        return []


def _trials(entries: Iterable[Any]) -> Sequence[Trial]:
    """What was written down.

    Raises:
        TypeError, KeyError: if it is not of that form.
        ValueError: if a number is none that is measured.
    """
    trials = tuple(Trial(one["rows"], float(one["seconds"]), int(one["memory"])) for one in entries)
    for one in trials:
        if not isinstance(one.rows, int) or not 1 <= one.rows <= MAX_BATCH or not 0 < one.seconds < math.inf:
            raise ValueError(f"{one} was not measured")
    return trials


def _file(runner: Runner) -> Path:
    return Path(f"{runner.path}.tuned.json")


def _machine(runner: Runner) -> dict[str, Any]:
    return {
        "provider": runner.provider,
        "threads": runner.threads,
        "processor": processor(),
        "onnxruntime": import_onnxruntime().__version__,
    }
