"""One exported graph, ready to run: photographs or images and masks in, predictions or outputs out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from lmonnx.errors import ImageError, ModelError
from lmonnx.runtime import masks as masking
from lmonnx.runtime import photos as photographs
from lmonnx.runtime import tuning
from lmonnx.runtime.ahead import ahead
from lmonnx.runtime.arrays import Array, Floats, bools, floats, is_array, pixels
from lmonnx.runtime.batching import Feeds, batches, passes, require_batch_size
from lmonnx.runtime.contract import REMEDY, Contract
from lmonnx.runtime.engine import Engine
from lmonnx.runtime.masks import Mask
from lmonnx.runtime.photos import Photo
from lmonnx.runtime.predictions import Prediction, to_probabilities
from lmonnx.runtime.preprocessing import Preprocessing
from lmonnx.runtime.providers import Provider
from lmonnx.runtime.questions import pair
from lmonnx.runtime.resources import free_memory, processors

_KINDS = {"float32": "tensor(float)", "uint8": "tensor(uint8)"}


class Runner:
    """An exported graph and its session.

    Args:
        path: a file that ``lmonnx export`` wrote.
        provider: ``"auto"`` takes CUDA if it works and the CPU otherwise; ``"cpu"`` and ``"cuda"`` take that.
        threads: threads within an operator; ``None`` takes as many as this process has processors.
        cuda_options: options of onnxruntime's CUDA provider, such as ``{"enable_cuda_graph": "1"}``, which wants a
            graph of a fixed batch, or ``{"prefer_nhwc": "1"}``. TF32 is off unless ``use_tf32`` says otherwise.

    Attributes:
        path: the file, as given.
        contract: what the graph says about itself.
        provider: what computes, ``"cpu"`` or ``"cuda"``.
        threads: threads within an operator.
        channels: of the image.
        sha256: of the model file that was loaded, in hexadecimal; weights in a file beside it are not part of it.
        batch: rows of every run, where the graph fixes them; ``None`` if it takes any number. Other numbers of rows are
            cut and padded to it, so that all methods take as many as ever.

    Raises:
        ModelError: if there is no such file, it is not an ONNX file, or not a graph exported by lmonnx.
        OptionError: if an option has a value that is not allowed, or CUDA is asked for and does not work.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        provider: Provider = "auto",
        threads: int | None = None,
        cuda_options: Mapping[str, str] | None = None,
    ) -> None:
        self.path = os.fspath(path)
        if os.path.isdir(self.path):
            raise ModelError(f"{self.path}: is a directory; name the .onnx file in it")
        if not os.path.exists(self.path):
            raise ModelError(f"{self.path}: there is no such file; `lmonnx export` writes one")
        self._engine = Engine(self.path, provider, threads, cuda_options)
        self.provider, self.sha256, self.threads = self._engine.provider, self._engine.sha256, threads or processors()
        try:
            self.contract = Contract.from_props(self._engine.session.get_modelmeta().custom_metadata_map)
            self.channels, self.size, self.batch = self._read_inputs()
            self._outputs = self._read_outputs()
        except ModelError as error:
            raise ModelError(f"{self.path}: {error}") from error
        self._tuned: int | None = None
        self._measured = False

    size: tuple[int, int]
    """Height and width of the network's input, in pixels; of a graph that takes any size what photographs become."""

    @property
    def device(self) -> str:
        """What computes, for people."""
        return "the GPU" if self.provider == "cuda" else "the CPU"

    @property
    def classes(self) -> int | None:
        """Number of classes; ``None`` if neither the names nor the graph say it before it runs."""
        if self.contract.labels is not None:
            return len(self.contract.labels)
        shape = self._engine.session.get_outputs()[0].shape
        return shape[1] if len(shape) == 2 and isinstance(shape[1], int) else None

    def tune(self) -> int:
        """Measures how many rows are best computed at once here, unless that is remembered; returns the number.

        That takes a few seconds, in a process of its own, and is remembered in a file ``<model>.tuned.json`` beside the
        model: for this model, provider, number of threads, processor and version of onnxruntime. More than half of the
        memory that is free they never take. Where the graph fixes its batch, nothing is measured.
        """
        if not self._measured and self.batch is None:
            trials, self._measured = tuning.tuned(self), True
            self._tuned = tuning.best(trials, free_memory()) if trials else None
        return self.rows_at_once

    @property
    def rows_at_once(self) -> int:
        """Rows of a pass where nothing else is asked for: the graph's, or those that were measured here, or 32.

        Where nothing was measured and memory is short they are fewer.
        """
        if self.batch is not None:
            return self.batch
        if self._tuned is None:
            trials = tuning.remembered(self)
            free = free_memory()
            self._tuned = tuning.best(trials, free) if trials else tuning.guess(self.size, free)
        return self._tuned

    def label(self, index: int) -> str:
        """Name of a class, ``"class 7"`` if the graph holds no names."""
        return f"class {index}" if self.contract.labels is None else self.contract.labels[index]

    @property
    def preprocessing(self) -> Preprocessing:
        """How a photograph becomes the network's input.

        Raises:
            ModelError: if the graph does not say.
        """
        if self.contract.preprocessing is None:
            raise ModelError(
                f"{self.path}: its metadata does not say how a photograph is prepared; give the preprocessing "
                "when exporting the network"
            )
        return self.contract.preprocessing

    def encode(self, crop: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """What the network sees, uint8 ``[H, W, 3]`` in RGB, as the graph's input ``image`` of one row.

        Args:
            crop: what ``Runner.preprocessing.crop`` makes of a photograph.

        Returns:
            float32 ``[1, C, H, W]``, normalised; or uint8 ``[1, H, W, C]``, if the graph takes pixels.

        Raises:
            ImageError: if it has another type or shape.
            ModelError: if the graph does not say how a photograph is prepared.
        """
        takes_pixels = self.contract.form.image == "uint8"
        return self.preprocessing.channels(crop) if takes_pixels else self.preprocessing.normalise(crop)

    def run(self, image: Array, mask: Array) -> dict[str, npt.NDArray[Any]]:
        """The outputs of the graph by name, ``[batch, …]``, as it computes them.

        Args:
            image: float32 ``[images, C, H, W]``, preprocessed; an array or a tensor of torch on any device. Other
                floating point is converted, float64 rounded to the nearest float32. If the graph takes pixels,
                uint8 ``[images, H, W, C]`` in RGB or grey. H and W are those of ``size``, or any if the graph was
                exported so.
            mask: bool ``[masks, 1, H, W]``, True = keep. The batch axes broadcast: equal, or one of them 1.

        Raises:
            ImageError: if an array has another type or shape.
            ModelError: if the graph fails.
        """
        size = self._size_of(image, self.contract.form.layout.index("H"))
        feeds = {
            "image": self._require_images("image", image, self.contract.form.shape(self.channels, size)),
            "mask": bools("mask", mask, (1, *size)),
        }
        images, masks = map(len, feeds.values())
        if images != masks and 1 not in (images, masks):
            raise ImageError(f"{images} images and {masks} masks do not pair; give as many, or one of either")
        if self.batch is None:
            one = {name: rows for name, rows in feeds.items() if len(rows) == 1 < max(images, masks)}
            varying = {name: rows for name, rows in feeds.items() if name not in one}
            return dict(zip(self._outputs, self._engine.holding(one).run(varying), strict=True))
        call = self._engine.holding({}, self.batch)
        parts = [self._rows(call.run(part), count) for part, count in passes(feeds, self.batch)]
        return {name: np.concatenate(rows) for name, rows in zip(self._outputs, zip(*parts, strict=True), strict=True)}

    def predict(
        self,
        photos: Photo | Iterable[Photo],
        masks: Mask | Iterable[Mask | None] | None = None,
        *,
        mask_removes: bool = False,
        batch_size: int | None = None,
    ) -> list[Prediction]:
        """What the network says about photographs, or about what masks leave of them.

        One photograph goes with n masks, n photographs with one mask, or n with n. Photographs and masks are decoded
        when their turn comes.

        A mask of the photograph's size (upright by its EXIF orientation) is resized and cropped as the photograph is;
        one of another size that is the network's is used as it is. Where the crop reaches beyond the photograph, the
        margin is kept. A mask that keeps nothing gives a finite prediction, with ``kept`` 0.

        Args:
            photos: one or many: a path, a PIL image, an array uint8 ``[H, W, 3]`` or ``[H, W]``, a tensor of torch
                uint8 ``[3, H, W]`` or ``[1, H, W]``. ``[n, H, W, 3]`` and ``[n, 3, H, W]`` are many.
            masks: one or many: a path or a PIL image (white = keep), bool ``[H, W]``, a :class:`~lmonnx.runtime.Box`,
                or ``None``, which keeps everything. ``[n, H, W]`` is many.
            mask_removes: white, True and the box are what is removed, not what is kept.
            batch_size: rows per pass, at most; all passes of a call have as many; ``None`` for ``rows_at_once``. A
                graph whose batch is fixed takes its own.

        Returns:
            One prediction a photograph or a mask, whichever are more, in their order.

        Raises:
            ImageError: if a photograph or a mask cannot be read or does not fit, or there is none.
            OptionError: if ``batch_size`` is not positive.
            ModelError: if the graph fails, does not say how a photograph is prepared, or its output cannot be turned
                into probabilities.
        """
        size = self._batch_size(batch_size)
        preprocessing = self.preprocessing
        scenes, chosen = photographs.listed(photos), masking.listed(masks)
        fixed, varying = pair(preprocessing, scenes, chosen, mask_removes, self.encode)
        count = max(len(scenes), len(chosen))
        names = [photographs.path_of(photo) for photo in scenes] * (count // len(scenes))
        found: list[Prediction] = []
        labels: tuple[str, ...] = ()
        for feeds, rows in self.answers(fixed, varying, min(size, count)):
            labels = labels or tuple(map(self.label, range(rows.shape[1])))
            kept = np.broadcast_to(feeds["mask"].mean(axis=(1, 2, 3)), len(rows))
            for row, share in zip(rows, kept, strict=True):
                found.append(Prediction(row, labels, float(share), names[len(found)]))
        return found

    def probabilities(
        self, image: Array | Iterable[Array], mask: Array | Iterable[Array], batch_size: int | None = None
    ) -> Floats:
        """Probabilities of the classes from the first output of the graph: one image, many masks, or the reverse.

        The many are consumed a batch at a time and every batch has the same size (the last is padded, its
        surplus dropped), so that memory is bounded and onnxruntime meets one shape only.

        Args:
            image: one row, float32 ``[1, C, H, W]`` or uint8 ``[1, H, W, C]``, as :meth:`run` takes it; with one mask,
                any number of rows, or an iterable of such arrays.
            mask: bool ``[n, 1, H, W]``, True = keep, or an iterable of such arrays, each with any n; n is 1 if there
                are many images.
            batch_size: rows per pass; ``None`` for ``rows_at_once``. A graph whose batch is fixed takes its own.

        Returns:
            float32 ``[n, classes]``. Logits went through a softmax in float64.

        Raises:
            ImageError: if an array has another type or shape, there is none, or both are many.
            OptionError: if ``batch_size`` is not positive.
            ModelError: if the graph fails, or its output cannot be turned into probabilities.
        """
        at_once, form = self._batch_size(batch_size), self.contract.form
        size = self._size_of(image, form.layout.index("H")) if is_array(image) else self._size_of(mask, 2)
        images = _chunks("image", image, self._require_images, form.shape(self.channels, size))
        masks = _chunks("mask", mask, bools, (1, *size))
        for one, many in ((images, masks), (masks, images)):
            if isinstance(one, list) and all(len(rows) == 1 for rows in one[0].values()):
                fixed, varying = one[0], many
                break
        else:
            raise ImageError("many images and many masks do not pair here; give one image or one mask")
        rows = [rows for _, rows in self.answers(fixed, varying, at_once)]
        if not rows:
            raise ImageError("there is no mask and no image beside the one; an all-True mask removes nothing")
        return np.concatenate(rows)

    def require_probabilities(self) -> None:
        """Refuses a graph whose first output cannot be turned into probabilities.

        Raises:
            ModelError: if nothing says what it holds.
        """
        name = self._outputs[0]
        if self.contract.outputs[name] == "unknown":
            raise ModelError(
                f"{self.path}: output {name!r} holds neither logits nor probabilities, as far as can be told; "
                "Runner.run gives its values as they are"
            )

    def _batch_size(self, asked: int | None) -> int:
        if asked is not None:
            require_batch_size(asked)
        return self.rows_at_once if asked is None else asked

    def answers(self, fixed: Feeds, varying: Iterable[Feeds], batch_size: int) -> Iterator[tuple[Feeds, Floats]]:
        """Probabilities from the first output, a batch at a time, with the inputs they belong to.

        ``fixed`` goes along with every batch of ``varying``.
        """
        self.require_probabilities()
        name = self._outputs[0]
        kind, labels = self.contract.outputs[name], self.contract.labels
        call = self._engine.holding(fixed, self.batch)
        size = self.batch or batch_size
        fed = batches(varying, size)
        for batch, count in ahead(fed) if self.provider == "cuda" else fed:  # on a CPU both want the same processors
            output = self._rows(call.run(batch), count, size)[0]
            try:
                rows = to_probabilities(output, name, kind, None if labels is None else len(labels))
            except ModelError as error:
                raise ModelError(f"{self.path}: {error}") from error
            yield {**fixed, **{input_: rows[:count] for input_, rows in batch.items()}}, rows

    def _size_of(self, rows: object, axis: int) -> tuple[int, int]:
        """Height and width that go with ``rows``, an input of which ``axis`` is the height; the graph may fix them.

        Raises:
            ImageError: if they are less than the graph takes.
        """
        form, shape = self.contract.form, tuple(getattr(rows, "shape", ()))
        if form.size is None or len(shape) != 4:
            return self.size
        height, width = shape[axis : axis + 2]
        if min(height, width) < form.smallest:
            raise ImageError(
                f"{height}×{width} pixels are too few; this graph is the network from {form.smallest}×{form.smallest} "
                "pixels on"
            )
        return height, width

    @property
    def _require_images(self) -> Callable[[str, object, tuple[int, ...]], npt.NDArray[Any]]:
        return pixels if self.contract.form.image == "uint8" else floats

    def _rows(self, outputs: list[npt.NDArray[Any]], count: int, size: int | None = None) -> list[npt.NDArray[Any]]:
        """The first ``count`` rows of the outputs of one pass of a fixed batch, or of ``size`` rows."""
        size = self.batch or size
        for name, output in zip(self._outputs, outputs, strict=True):
            if output.ndim == 0 or len(output) != size:
                raise ModelError(f"{self.path}: output {name!r} is {list(output.shape)}, not [{size}, …]; {REMEDY}")
        return [output[:count] for output in outputs]

    def _read_inputs(self) -> tuple[int, tuple[int, int], int | None]:
        """Channels and size of the image, and the batch if it is fixed; the inputs have to be those of the contract."""
        form = self.contract.form
        wanted = {"image": _KINDS[form.image], "mask": "tensor(bool)"}
        inputs = {value.name: value for value in self._engine.session.get_inputs()}
        if {name: value.type for name, value in inputs.items()} != wanted:
            given, needed = (
                ", ".join(f"{name} {kind}" for name, kind in kinds)
                for kinds in (((name, value.type) for name, value in inputs.items()), wanted.items())
            )
            raise ModelError(f"inputs are {given}, not {needed}; export it again")
        image, mask = inputs["image"].shape, inputs["mask"].shape
        axes = form.layout[1:]
        sides = dict(zip(axes, image[1:], strict=False))
        fits = [isinstance(side, int) is (name == "C" or form.size is None) for name, side in sides.items()]
        if len(image) != 4 or len(mask) != 4 or not all(fits):
            kind = "fixed" if form.size is None else "open"
            raise ModelError(
                f"image is {image} and mask {mask}, not [images, {', '.join(axes)}] of {kind} size and "
                f"[masks, 1, H, W]; {REMEDY}"
            )
        fixed = {side if isinstance(side, int) else None for side in (image[0], mask[0])}
        if fixed != {form.batch}:
            raise ModelError(f"image is {image}, mask {mask}, and the metadata's batch {form.batch}; {REMEDY}")
        channels, (height, width) = sides["C"], form.size or (sides["H"], sides["W"])
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
        return channels, (height, width), form.batch

    def _read_outputs(self) -> list[str]:
        names = [value.name for value in self._engine.session.get_outputs()]
        if set(names) != set(self.contract.outputs):
            raise ModelError(
                f"outputs are {', '.join(names)} and the metadata describes "
                f"{', '.join(self.contract.outputs)}; {REMEDY}"
            )
        return names


def _chunks(
    name: str,
    given: Array | Iterable[Array],
    require: Callable[[str, object, tuple[int, ...]], npt.NDArray[Any]],
    shape: tuple[int, ...],
) -> list[Feeds] | Iterator[Feeds]:
    """The rows of one input: a list of one chunk if they were given as an array, and otherwise chunks as they come."""
    if is_array(given):
        return [{name: require(name, given, shape)}]
    return ({name: require(name, chunk, shape)} for chunk in given)
