"""Whether onnxruntime really computes, tried in a process of its own: it may crash, and it logs to the stream itself.

python -m lmonnx.runtime.probe cpu|cuda      one line of JSON, the fields of an Attempt
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import warnings
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from lmonnx.errors import MissingExtraError
from lmonnx.runtime.distributions import import_onnxruntime
from lmonnx.runtime.providers import first_line, open_session

TIMEOUT = 120.0
"""Seconds; the first session on a GPU may take tens of them."""

MODEL = (  # ONNX, opset 18: y [1, 1, 1, 1] = Conv(x, x), x float32 [1, 1, 3, 3]; on CUDA a Conv needs cuDNN
    b'\x08\x08:R\n\x0f\n\x01x\n\x01x\x12\x01y"\x04Conv\x12\x05probe'
    b"Z\x1b\n\x01x\x12\x16\n\x14\x08\x01\x12\x10\n\x02\x08\x01\n\x02\x08\x01\n\x02\x08\x03\n\x02\x08\x03"
    b"b\x1b\n\x01y\x12\x16\n\x14\x08\x01\x12\x10\n\x02\x08\x01\n\x02\x08\x01\n\x02\x08\x01\n\x02\x08\x01"
    b"B\x04\n\x00\x10\x12"
)


@dataclass(frozen=True)
class Attempt:
    """What came of computing on a provider.

    Attributes:
        error: why it does not work, in one line; ``None`` if it does.
        providers: the providers that onnxruntime was built with.
        cuda: the version of CUDA that it was built for; ``None`` if it does not say.
    """

    error: str | None
    providers: tuple[str, ...] = ()
    cuda: str | None = None


def attempt(provider: Literal["cpu", "cuda"], timeout: float = TIMEOUT) -> Attempt:
    """Computes on ``provider`` in another process; takes a second or so.

    Args:
        provider: where to compute.
        timeout: in seconds.
    """
    command = [sys.executable, "-P", "-m", "lmonnx.runtime.probe", provider]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            command, env=environment, timeout=timeout, capture_output=True, check=False, text=True, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return Attempt(f"it gave no answer within {timeout:g} s")
    except OSError as error:
        return Attempt(f"it cannot be tried: {error}")
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.strip().rpartition("\n")[2]
        return Attempt(f"the process that tried it ended with code {done.returncode}{last and ': '}{last}")
    why = answer["error"] and (reason(done.stderr) or answer["error"])
    return Attempt(why, tuple(answer["providers"]), answer["cuda"])


def reason(log: str) -> str:
    """What onnxruntime's log says is in CUDA's way, in one line; empty if it says nothing."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", log)
    missing = dict.fromkeys(re.findall(r"^Failed to load (?!library )(\S+): ", text, re.MULTILINE))
    if missing:
        return f"these libraries do not load: {', '.join(missing)}"
    found = re.search(r"with error: (.+)", text) or re.search(r"\[E:onnxruntime.*?\] (.+)", text)
    return found[1].strip() if found else ""


def _try(provider: Literal["cpu", "cuda"]) -> Attempt:
    providers: tuple[str, ...] = ()
    cuda: str | None = None
    try:
        onnxruntime = import_onnxruntime()
        providers = tuple(onnxruntime.get_available_providers())
        cuda = getattr(onnxruntime, "cuda_version", None) or None
        session = open_session(MODEL, provider, None)
        session.disable_fallback()
        (result,) = session.run(None, {"x": np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)})
        error = None if result.item() == 204 else f"it computes {result.item()} instead of 204"
    except MissingExtraError as failure:  # what to do is the doctor's to say
        error = first_line(failure.__cause__ or failure)
    except Exception as failure:  # whatever it is, it is the answer
        error = first_line(failure) or type(failure).__name__
    return Attempt(error, providers, cuda)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(sys.stderr):
        outcome = _try("cuda" if sys.argv[1] == "cuda" else "cpu")
    sys.stdout.write(json.dumps(asdict(outcome)))
