"""LIME (Ribeiro et al., "Why Should I Trust You?", KDD 2016) on masks instead of painted pictures."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from lmonnx.errors import ModelError, OptionError
from lmonnx.explain import sampling, segmentation, surrogate
from lmonnx.explain.explanation import Explanation
from lmonnx.runtime.batching import BATCH_SIZE
from lmonnx.runtime.photos import Photo, path_of
from lmonnx.runtime.session import Runner


def explain(
    model: Runner | str | os.PathLike[str],
    photo: Photo,
    *,
    target: int | None = None,
    samples: int = 1000,
    segments: int = 50,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
) -> Explanation:
    """Explains one class of one photograph: masks random segments and fits a linear model to the answers.

    The same seed, model, settings and machine give the same numbers.

    Args:
        model: a graph that ``lmonnx export`` wrote, or its runner.
        photo: path of an image file, or a PIL image.
        target: the class to explain; ``None`` takes the most probable one of the unmasked picture.
        samples: passes of the network, the first with nothing masked.
        segments: superpixels aimed at.
        seed: of the random choice of masks.
        batch_size: masks per pass.

    Raises:
        OptionError: if an option has a value that is not allowed.
        ImageError: if the photograph cannot be read.
        ModelError: if the graph cannot be loaded or fails, or does not say how to prepare a photograph.
    """
    runner = model if isinstance(model, Runner) else Runner(model)
    preprocessing = runner.contract.preprocessing
    if preprocessing is None:
        raise ModelError(
            f"{runner.path}: its metadata does not say how a photograph is prepared; give the preprocessing "
            "when exporting the network"
        )
    _require_class(target, runner.classes)
    pixels = preprocessing.crop(photo)
    labels = segmentation.superpixels(pixels, segments)
    keep = sampling.keep_vectors(samples, int(labels.max()) + 1, seed)
    probabilities = runner.probabilities(
        preprocessing.normalise(pixels), sampling.masks(keep, labels, batch_size), batch_size
    )
    _require_class(target, probabilities.shape[1])
    index = int(probabilities[0].argmax()) if target is None else target
    fitted = surrogate.fit(keep, probabilities[:, index])
    return Explanation(
        index=index,
        name=runner.label(index),
        probability=float(probabilities[0, index]),
        pixels=pixels,
        segments=labels,
        weights=fitted.weights,
        intercept=fitted.intercept,
        score=fitted.score,
        settings=_settings(samples, segments, seed, batch_size),
        provenance=_provenance(runner, photo, pixels),
    )


def _require_class(target: int | None, classes: int | None) -> None:
    """Refuses a target that is not a class, before the work if the number of classes is known by then."""
    if target is None:
        return
    if not isinstance(target, int) or isinstance(target, bool) or target < 0:
        raise OptionError(f"target={target!r} is not the index of a class; the first is 0")
    if classes is not None and target >= classes:
        raise OptionError(f"target={target} is not a class of the network; the last is {classes - 1}")


def _settings(samples: int, segments: int, seed: int, batch_size: int) -> dict[str, Any]:
    return {
        "method": "lime",
        "seed": seed,
        "samples": samples,
        "keep_probability": sampling.KEEP_PROBABILITY,
        "batch_size": batch_size,
        "segmentation": {**segmentation.SLIC, "segments": segments},
        "surrogate": {
            "model": "ridge",
            "alpha": surrogate.ALPHA,
            "distance": "cosine",
            "kernel": "sqrt(exp(-d^2/width^2))",
            "width": surrogate.KERNEL_WIDTH,
        },
    }


def _provenance(runner: Runner, photo: Photo, pixels: npt.NDArray[np.uint8]) -> dict[str, Any]:
    import onnxruntime

    contract = runner.contract
    packages = ("lmonnx", "numpy", "pillow", "scikit-image", "scikit-learn")
    return {
        "model": {
            "path": runner.path,
            "sha256": runner.sha256,
            "lmonnx": contract.version,
            "rules": dict(contract.rules),
            "source": dict(contract.source),
            "verified": dict(contract.verified),
            "preprocessing": contract.preprocessing and contract.preprocessing.to_json(),
        },
        "photo": {
            "path": path_of(photo),
            "crop_sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
        },
        "provider": runner.provider,
        "versions": {"onnxruntime": onnxruntime.__version__, **{name: _version(name) for name in packages}},
    }


def _version(package: str) -> str | None:
    """Version of a package, ``None`` where it runs from a folder that was not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
