"""LIME (Ribeiro et al., "Why Should I Trust You?", KDD 2016) on masks instead of painted pictures."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from lmonnx.errors import OptionError
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
    paint: int | None = None,
) -> Explanation:
    """Explains one class of one photograph: masks random segments and fits a linear model to the answers.

    The same seed, model, settings and machine give the same numbers.

    Args:
        model: a graph that ``lmonnx export`` wrote, or its runner.
        photo: a path, a PIL image, an array uint8 ``[H, W, 3]`` or a tensor of torch uint8 ``[3, H, W]``.
        target: the class to explain; ``None`` takes the most probable one of the unmasked picture.
        samples: passes of the network, the first with nothing masked.
        segments: superpixels aimed at.
        seed: of the random choice of masks.
        batch_size: masks per pass. A graph whose batch is fixed takes its own.
        paint: for comparison, how other tools remove segments: they are painted with this grey, 0 … 255, in the
            photograph, and nothing is masked. ``None`` masks.

    Raises:
        OptionError: if an option has a value that is not allowed.
        ImageError: if the photograph cannot be read.
        ModelError: if the graph cannot be loaded or fails, or does not say how to prepare a photograph.
    """
    runner = model if isinstance(model, Runner) else Runner(model)
    preprocessing = runner.preprocessing
    _require_class(target, runner.classes)
    _require_grey(paint)
    pixels = preprocessing.crop(photo)
    labels = segmentation.superpixels(pixels, segments)
    keep = sampling.keep_vectors(samples, int(labels.max()) + 1, seed)
    if paint is None:
        image, masks = runner.encode(pixels), sampling.masks(keep, labels, batch_size)
        probabilities = runner.probabilities(image, masks, batch_size)
    else:
        pictures = sampling.painted(keep, labels, pixels, paint, batch_size)
        images = (np.concatenate([*map(runner.encode, batch)]) for batch in pictures)
        probabilities = runner.probabilities(images, np.ones((1, 1, *labels.shape), np.bool_), batch_size)
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
        settings=_settings(samples, segments, seed, runner.batch or batch_size, paint),
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


def _require_grey(paint: int | None) -> None:
    if paint is not None and (not isinstance(paint, int) or isinstance(paint, bool) or not 0 <= paint <= 255):
        raise OptionError(f"paint={paint!r} is not a grey, 0 … 255; None masks")


def _settings(samples: int, segments: int, seed: int, batch_size: int, paint: int | None) -> dict[str, Any]:
    return {
        "method": "lime",
        "seed": seed,
        "samples": samples,
        "paint": paint,
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
