"""Serving an exported graph: sessions, batching, image decoding. Never imports torch or onnx."""

from __future__ import annotations

import os

from lmonnx.runtime.jobs import Outcome
from lmonnx.runtime.many import predict_many
from lmonnx.runtime.masks import Box
from lmonnx.runtime.predictions import ClassProbability, Prediction
from lmonnx.runtime.preprocessing import Preprocessing
from lmonnx.runtime.providers import Provider
from lmonnx.runtime.session import Runner

__all__ = ["Box", "ClassProbability", "Outcome", "Prediction", "Preprocessing", "Runner", "load", "predict_many"]


def load(path: str | os.PathLike[str], *, provider: Provider = "auto", threads: int | None = None) -> Runner:
    """An exported graph, ready to run.

    Args:
        path: a file that ``lmonnx export`` wrote.
        provider: ``"auto"`` takes CUDA if it works and the CPU otherwise; ``"cpu"`` and ``"cuda"`` take that.
        threads: threads within an operator; ``None`` takes as many as this process has processors.

    Raises:
        ModelError: if there is no such file, it is not an ONNX file, or not a graph exported by lmonnx.
        OptionError: if an option has a value that is not allowed, or CUDA is asked for and does not work.
        MissingExtraError: if onnxruntime is not installed, or does not load.
    """
    return Runner(path, provider, threads)
