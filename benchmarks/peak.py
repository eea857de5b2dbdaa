"""The most memory that a program holds, in a process of its own that imports nothing else.

    python -m benchmarks.peak plain|masked|explanation MODEL SAMPLES BATCH

MODEL is a plain graph of one image, or an exported one; printed are bytes. `plain` and `masked` are onnxruntime and
numpy alone, as a user without lmonnx has them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


def passes(model: str, samples: int, batch: int) -> None:
    """Runs a graph; half of the pixels of each image are removed, if it takes a mask."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    feeds = {}
    for value in session.get_inputs():
        shape = [batch, *(int(side) for side in value.shape[1:])]
        feeds[value.name] = np.zeros(shape, bool if "bool" in value.type else np.float32)
        feeds[value.name][..., ::2] = 1
    for _ in range(-(-samples // batch)):
        session.run(None, feeds)


def explanation(model: str, samples: int, batch: int) -> None:
    """Explains a photograph of noise."""
    import lmonnx
    from lmonnx.explain import explain

    photo = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    explain(lmonnx.load(model, provider="cpu"), photo, samples=samples, batch_size=batch)


if __name__ == "__main__":
    what, path, *numbers = sys.argv[1:]
    (explanation if what == "explanation" else passes)(path, *map(int, numbers))
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in status if line.startswith("VmHWM:"))  # getrusage would tell of the parent's too
    sys.stdout.write(f"{int(line.split()[1]) * 1024}\n")
