"""LIME (Ribeiro et al., "Why Should I Trust You?", KDD 2016) on masks instead of painted pictures."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lmonnx.errors import ImageError, OptionError
from lmonnx.explain import sampling, segmentation, surrogate
from lmonnx.explain.explanation import Explanation
from lmonnx.explain.segmentation import Labels
from lmonnx.runtime.batching import require_batch_size
from lmonnx.runtime.photos import Photo, decode, path_of
from lmonnx.runtime.preprocessing import Preprocessing
from lmonnx.runtime.session import Runner
from lmonnx.runtime.tuning import WORTH


@dataclass(frozen=True, eq=False)
class Scene:
    """A photograph as the network sees it, cut into superpixels.

    Attributes:
        photo: its path; ``None`` if it was not a file.
        pixels: uint8 ``[H, W, 3]``, RGB.
        segments: int32 ``[H, W]``: the segment of each pixel.
    """

    photo: str | None
    pixels: npt.NDArray[np.uint8]
    segments: Labels


@dataclass(frozen=True)
class Lime:
    """How an explanation is made; see :func:`explain`.

    Raises:
        OptionError: if an option has a value that is not allowed.
    """

    target: int | None = None
    samples: int = 1000
    segments: int = 50
    seed: int = 0
    batch_size: int | None = None
    paint: int | None = None

    def __post_init__(self) -> None:
        require_class(self.target, None)
        _require_grey(self.paint)
        sampling.require(self.samples, self.seed)
        segmentation.require(self.segments)
        if self.batch_size is not None:
            require_batch_size(self.batch_size)

    def scene(self, photo: Photo, preprocessing: Preprocessing) -> Scene:
        """What is done before the network is asked, which needs no network.

        Raises:
            ImageError: if the photograph cannot be read.
            OptionError: if it is to have more segments than pixels.
        """
        path = path_of(photo)
        picture = decode(photo, path or "the photograph")
        try:
            pixels = preprocessing.crop(picture)
        except ImageError as error:
            raise ImageError(f"{path}: {error}" if path else str(error)) from error
        return Scene(path, pixels, segmentation.superpixels(pixels, self.segments))

    def rows_at_once(self, runner: Runner) -> int:
        """Masks in a pass: those asked for, or what is best here, which is measured where that is worth it."""
        if runner.batch is not None:
            return runner.batch
        if self.batch_size is None and self.samples >= WORTH:
            return runner.tune()
        return min(self.batch_size or runner.rows_at_once, self.samples)


def explain(
    model: Runner | str | os.PathLike[str],
    photo: Photo,
    *,
    target: int | None = None,
    samples: int = 1000,
    segments: int = 50,
    seed: int = 0,
    batch_size: int | None = None,
    paint: int | None = None,
) -> Explanation:
    """Explains one class of one photograph: masks random segments and fits a linear model to the answers.

    The same seed, model, settings, batch size and machine give the same numbers.

    Args:
        model: a graph that ``lmonnx export`` wrote, or its runner.
        photo: a path, a PIL image, an array uint8 ``[H, W, 3]`` or a tensor of torch uint8 ``[3, H, W]``.
        target: the class to explain; ``None`` takes the most probable one of the unmasked picture.
        samples: passes of the network, the first with nothing masked.
        segments: superpixels aimed at.
        seed: of the random choice of masks.
        batch_size: masks per pass. ``None`` takes what is best here: from 500 samples on that is measured once and
            remembered beside the model, see :meth:`lmonnx.Runner.tune`. A graph whose batch is fixed takes its own.
        paint: for comparison, how other tools remove segments: they are painted with this grey, 0 … 255, in the
            photograph, and nothing is masked. ``None`` masks.

    Raises:
        OptionError: if an option has a value that is not allowed.
        ImageError: if the photograph cannot be read.
        ModelError: if the graph cannot be loaded or fails, or does not say how to prepare a photograph.
    """
    runner = model if isinstance(model, Runner) else Runner(model)
    lime = Lime(target, samples, segments, seed, batch_size, paint)
    require_class(target, runner.classes)
    return explained(runner, lime.scene(photo, runner.preprocessing), lime)


def explained(runner: Runner, scene: Scene, lime: Lime, tell: Callable[[int], None] | None = None) -> Explanation:
    """The explanation of a scene; ``tell`` is told how many more rows were computed.

    Raises:
        OptionError: if the target is not a class of the network.
        ModelError: if the graph fails.
    """
    labels, rows = scene.segments, lime.rows_at_once(runner)
    keep = sampling.keep_vectors(lime.samples, int(labels.max()) + 1, lime.seed)
    if lime.paint is None:
        fixed = {"image": runner.encode(scene.pixels)}
        varying = ({"mask": masks} for masks in sampling.masks(keep, labels, rows))
    else:
        pictures = sampling.painted(keep, labels, scene.pixels, lime.paint, rows)
        fixed = {"mask": np.ones((1, 1, *labels.shape), np.bool_)}
        varying = ({"image": np.concatenate([*map(runner.encode, batch)])} for batch in pictures)
    index, answers = lime.target, list[npt.NDArray[np.float32]]()
    for _, probabilities in runner.answers(fixed, varying, rows):  # of a thousand classes one is kept
        require_class(index, probabilities.shape[1])
        index = int(probabilities[0].argmax()) if index is None else index
        answers.append(probabilities[:, index].copy())
        if tell is not None:
            tell(len(probabilities))
    assert index is not None
    support = np.concatenate(answers)
    fitted = surrogate.fit(keep, support)
    return Explanation(
        index=index,
        name=runner.label(index),
        probability=float(support[0]),
        pixels=scene.pixels,
        segments=labels,
        weights=fitted.weights,
        intercept=fitted.intercept,
        score=fitted.score,
        settings=_settings(lime, rows),
        provenance=_provenance(runner, scene),
    )


def require_class(target: int | None, classes: int | None) -> None:
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


def _settings(lime: Lime, rows: int) -> dict[str, Any]:
    return {
        "method": "lime",
        "seed": lime.seed,
        "samples": lime.samples,
        "paint": lime.paint,
        "keep_probability": sampling.KEEP_PROBABILITY,
        "batch_size": rows,
        "segmentation": {**segmentation.SLIC, "segments": lime.segments},
        "surrogate": {
            "model": "ridge",
            "alpha": surrogate.ALPHA,
            "distance": "cosine",
            "kernel": "sqrt(exp(-d^2/width^2))",
            "width": surrogate.KERNEL_WIDTH,
        },
    }


def _provenance(runner: Runner, scene: Scene) -> dict[str, Any]:
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
            "path": scene.photo,
            "crop_sha256": hashlib.sha256(scene.pixels.tobytes()).hexdigest(),
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
