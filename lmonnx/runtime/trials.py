"""Batches of more and more rows, timed; see :mod:`lmonnx.runtime.tuning`.

python -m lmonnx.runtime.trials MODEL cpu|cuda THREADS SHA256      a line of JSON for each number of rows, a Trial's
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np

from lmonnx.runtime.resources import free_memory, resident_memory
from lmonnx.runtime.session import Runner
from lmonnx.runtime.tuning import GAIN, SHARE, Trial

SIZES = {"cpu": (1, 4, 8, 16, 32, 64), "cuda": (8, 16, 32, 64, 128, 256, 512, 1024)}
"""Numbers of rows that are tried, by what computes."""

RUNS, SECONDS = 3, 0.2
"""Of each so many at least, and as many as take so long; the quickest counts, the first allocates."""


def trials(runner: Runner) -> Iterator[Trial]:
    """Measures larger and larger batches, until more rows are not worth it, or might not fit into memory."""
    rng, (height, width) = np.random.default_rng(0), runner.size
    form, channels = runner.contract.form, runner.channels
    image = rng.integers(0, 256, (1, *form.shape(channels, runner.size))).astype(form.image)
    before, free, times = resident_memory(), free_memory(), list[float]()
    for rows in SIZES[runner.provider]:
        mask = (rng.random((rows, 1, height, 1)) < 0.5).repeat(width, axis=3)
        runs = list[float]()
        while len(runs) < RUNS or sum(runs) < SECONDS:
            start = time.perf_counter()
            runner.run(image, mask)
            runs.append(time.perf_counter() - start)
        trial = Trial(rows, min(runs), max(0, resident_memory() - before))
        yield trial
        times.append(trial.seconds / rows)
        if 2 * trial.memory > SHARE * free or min(times[-2:]) > (1 - GAIN) * min(times[:-2], default=np.inf):
            return


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    runner = Runner(sys.argv[1], "cuda" if sys.argv[2] == "cuda" else "cpu", int(sys.argv[3]))
    if runner.sha256 != sys.argv[4]:
        sys.exit(f"{runner.path} was replaced")
    for one in trials(runner):
        sys.stdout.write(json.dumps(asdict(one)) + "\n")
        sys.stdout.flush()
