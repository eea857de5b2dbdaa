"""One exported graph, ready to run: images and masks in, outputs or probabilities out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from lmonnx.errors import ImageError, ModelError, OptionError
from lmonnx.runtime.contract import REMEDY, Contract
from lmonnx.runtime.providers import Provider, first_line, open_session, took_cuda

BATCH_SIZE = 32
"""Masks per pass of the network, where nothing else is asked for."""

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]

_INPUTS = {"image": "tensor(float)", "mask": "tensor(bool)"}
_RANGE_SLACK = 1e-3  # of probabilities that a float16 graph rounds beyond 0 … 1


class Runner:
    """An exported graph and its session.

    Args:
        path: a file that ``lmonnx export`` wrote.
        provider: ``"auto"`` takes CUDA if it works and the CPU otherwise; ``"cpu"`` and ``"cuda"`` take that.
        threads: threads within an operator; ``None`` leaves the number to onnxruntime.

    Attributes:
        path: the file, as given.
        contract: what the graph says about itself.
        provider: what computes, ``"cpu"`` or ``"cuda"``.

    Raises:
        ModelError: if there is no such file, it is not an ONNX file, or not a graph exported by lmonnx.
        OptionError: if an option has a value that is not allowed, or CUDA is asked for and does not work.
    """

    def __init__(self, path: str | os.PathLike[str], provider: Provider = "auto", threads: int | None = None) -> None:
        self.path = os.fspath(path)
        if os.path.isdir(self.path):
            raise ModelError(f"{self.path}: is a directory; name the .onnx file in it")
        if not os.path.exists(self.path):
            raise ModelError(f"{self.path}: there is no such file; `lmonnx export` writes one")
        self._session = open_session(self.path, provider, threads)
        self.provider = "cuda" if took_cuda(self._session) else "cpu"
        try:
            self.contract = Contract.from_props(self._session.get_modelmeta().custom_metadata_map)
            self._channels, self.size = self._read_inputs()
            self._outputs = self._read_outputs()
        except ModelError as error:
            raise ModelError(f"{self.path}: {error}") from error

    size: tuple[int, int]
    """Height and width of the network's input, in pixels."""

    @property
    def classes(self) -> int | None:
        """Number of classes; ``None`` if neither the names nor the graph say it before it runs."""
        if self.contract.labels is not None:
            return len(self.contract.labels)
        shape = self._session.get_outputs()[0].shape
        return shape[1] if len(shape) == 2 and isinstance(shape[1], int) else None

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the model file, in hexadecimal; weights in a file beside it are not part of it."""
        try:
            with open(self.path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ModelError(f"{self.path}: cannot be read any more: {error}") from error

    def label(self, index: int) -> str:
        """Name of a class, ``"class 7"`` if the graph holds no names."""
        return f"class {index}" if self.contract.labels is None else self.contract.labels[index]

    def run(self, image: Floats, mask: Bools) -> dict[str, npt.NDArray[Any]]:
        """The outputs of the graph by name, ``[batch, …]``, as it computes them.

        Args:
            image: float32 ``[images, C, H, W]``, preprocessed.
            mask: bool ``[masks, 1, H, W]``, True = keep. The batch axes broadcast: equal, or one of them 1.

        Raises:
            ImageError: if an array has another type or shape.
            ModelError: if the graph fails.
        """
        height, width = self.size
        _require("image", image, np.float32, (self._channels, height, width))
        _require("mask", mask, np.bool_, (1, height, width))
        if len(image) != len(mask) and 1 not in (len(image), len(mask)):
            raise ImageError(f"{len(image)} images and {len(mask)} masks do not pair; give as many, or one of either")
        try:
            results = self._session.run(self._outputs, {"image": image, "mask": mask})
        except Exception as error:  # onnxruntime raises a class of its own for each status code
            raise ModelError(f"{self.path}: the graph failed: {first_line(error)}") from error
        return dict(zip(self._outputs, results, strict=True))

    def probabilities(self, image: Floats, masks: Bools | Iterable[Bools], batch_size: int = BATCH_SIZE) -> Floats:
        """Probabilities of the classes for one image under many masks, from the first output of the graph.

        Masks are consumed a batch at a time and every batch has the same size (the last is padded, its
        surplus dropped), so that memory is bounded and onnxruntime meets one shape only.

        Args:
            image: float32 ``[1, C, H, W]``, preprocessed.
            masks: bool ``[n, 1, H, W]``, True = keep, or an iterable of such arrays, each with any n.
            batch_size: masks per pass.

        Returns:
            float32 ``[n, classes]``. Logits went through a softmax in float64.

        Raises:
            ImageError: if an array has another type or shape, or there is no mask.
            OptionError: if ``batch_size`` is not positive.
            ModelError: if the graph fails, or its output cannot be turned into probabilities.
        """
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
            raise OptionError(f"batch_size={batch_size!r} is not a positive number")
        _require("image", image, np.float32, (self._channels, *self.size))
        if len(image) != 1:
            raise ImageError(f"image holds {len(image)} pictures; many masks go with one")
        name = self._outputs[0]
        if self.contract.outputs[name] == "unknown":
            raise ModelError(
                f"{self.path}: it is not known whether output {name!r} holds logits or probabilities; "
                "say so when exporting the network"
            )
        rows = [
            self._to_probabilities(self.run(image, batch)[name][:count])
            for batch, count in self._batches(masks, batch_size)
        ]
        if not rows:
            raise ImageError("there is no mask; an all-True mask gives the unmasked prediction")
        return np.concatenate(rows)

    def _batches(self, masks: Bools | Iterable[Bools], batch_size: int) -> Iterator[tuple[Bools, int]]:
        """Masks in one buffer of ``batch_size`` that is filled anew, with the number that are not padding."""
        buffer = np.ones((batch_size, 1, *self.size), np.bool_)
        filled = 0
        for chunk in [masks] if isinstance(masks, np.ndarray) else masks:
            _require("mask", chunk, np.bool_, (1, *self.size))
            taken = 0
            while taken < len(chunk):
                part = chunk[taken : taken + batch_size - filled]
                buffer[filled : filled + len(part)] = part
                taken, filled = taken + len(part), filled + len(part)
                if filled == batch_size:
                    yield buffer, batch_size
                    filled = 0
        if filled:
            buffer[filled:] = True
            yield buffer, filled

    def _to_probabilities(self, output: npt.NDArray[Any]) -> Floats:
        """The first output ``[batch, classes]`` as probabilities."""
        name, labels = self._outputs[0], self.contract.labels
        if output.ndim != 2:
            raise ModelError(f"{self.path}: output {name!r} is {list(output.shape)}, not [batch, classes]")
        if labels is not None and len(labels) != output.shape[1]:
            raise ModelError(
                f"{self.path}: output {name!r} has {output.shape[1]} classes and the metadata names "
                f"{len(labels)}; export with the right labels"
            )
        if not np.isfinite(output).all():
            raise ModelError(f"{self.path}: output {name!r} holds NaN or infinity; the image or the graph is broken")
        values = output.astype(np.float64)
        if self.contract.outputs[name] == "logits":
            values = np.exp(values - values.max(axis=1, keepdims=True))
            values /= values.sum(axis=1, keepdims=True)
        elif values.min() < -_RANGE_SLACK or values.max() > 1 + _RANGE_SLACK:
            raise ModelError(
                f"{self.path}: output {name!r} is said to hold probabilities and holds {values.min():.3g} … "
                f"{values.max():.3g}; export it as logits"
            )
        return values.astype(np.float32)

    def _read_inputs(self) -> tuple[int, tuple[int, int]]:
        """Channels and size of the image; the graph has to have the inputs of the contract."""
        inputs = {value.name: value for value in self._session.get_inputs()}
        if {name: value.type for name, value in inputs.items()} != _INPUTS:
            given = ", ".join(f"{name} {value.type}" for name, value in inputs.items())
            raise ModelError(f"inputs are {given}, not image tensor(float), mask tensor(bool); export it again")
        image, mask = inputs["image"].shape, inputs["mask"].shape
        if len(image) != 4 or len(mask) != 4 or not all(isinstance(side, int) for side in image[1:]):
            raise ModelError(
                f"image is {image} and mask {mask}, not [images, C, H, W] of fixed size and [masks, 1, H, W]; {REMEDY}"
            )
        channels, height, width = image[1:]
        preprocessing = self.contract.preprocessing
        if preprocessing is not None and (len(preprocessing.mean), *preprocessing.size) != (
            channels,
            height,
            width,
        ):
            raise ModelError(
                f"image is {image} and its preprocessing makes [1, {len(preprocessing.mean)}, "
                f"{', '.join(map(str, preprocessing.size))}]; export it again with the right size"
            )
        return channels, (height, width)

    def _read_outputs(self) -> list[str]:
        names = [value.name for value in self._session.get_outputs()]
        if set(names) != set(self.contract.outputs):
            raise ModelError(
                f"outputs are {', '.join(names)} and the metadata describes "
                f"{', '.join(self.contract.outputs)}; {REMEDY}"
            )
        return names


def _require(name: str, array: Any, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    """An array ``[n, *shape]`` of ``dtype`` with n ≥ 1, or an ImageError."""
    wanted = f"{np.dtype(dtype)} [n, {', '.join(map(str, shape))}]"
    if not isinstance(array, np.ndarray):
        raise ImageError(f"{name} has to be a numpy array, {wanted}, not {type(array).__name__}")
    if array.dtype != dtype or array.ndim != 1 + len(shape) or array.shape[1:] != shape:
        raise ImageError(f"{name} has to be {wanted}, given {array.dtype} {list(array.shape)}")
    if not len(array):
        raise ImageError(f"{name} is empty: {list(array.shape)}")
