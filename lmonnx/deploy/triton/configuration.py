"""The configuration of a model: what Triton has to know of a graph, and why it is as it is.

The fields are those of ``model_config.proto`` (triton-inference-server/common); what the onnxruntime backend takes
and refuses is from its README and from ``CompareDimsSupported`` and ``AutoCompleteConfig`` of its source:

* where ``max_batch_size`` is above 0, the first axis of every tensor of the graph has to be free, and ``dims`` leaves
  it out; where it is 0, ``dims`` has all axes;
* an axis that the graph fixes has to be the same in ``dims``; of an output a free one has to be -1;
* where inputs and outputs are given, nothing is filled in, so a ``max_batch_size`` of 0 stays 0;
* ``cudnn_conv_algo_search`` is read from ``parameters`` and overwritten where it is said elsewhere; ``use_tf32`` is
  handed to onnxruntime from the parameters of the accelerator ``cuda``.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from lmonnx.deploy.triton.prototext import Message, Value, Word, prototext
from lmonnx.deploy.triton.settings import DELAY, WORKSPACE, Settings
from lmonnx.errors import ModelError, OptionError
from lmonnx.runtime.batching import BATCH_SIZE
from lmonnx.runtime.description import Description, Tensor

MODEL = "model.onnx"
"""Name of the file that the onnxruntime backend looks for in the folder of a version."""

CONFIG = "config.pbtxt"
LABELS = "labels.txt"
"""Names of the files in the model's folder that all its versions share: the configuration, and the class names."""

_TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
}
#: What TensorRT is allowed for a graph of that precision: no less, since numbers of a float32 graph are not float16's.
_MODES = {None: "FP32", "float32": "FP32", "float16": "FP16", "int8": "INT8"}
_HEURISTIC = "1"
_WIDTH = 100


@dataclass(frozen=True)
class Configuration:
    """The configuration of a graph.

    Args:
        name: the model's, which is that of its folder.
        graph: what the exported file says about itself.
        settings: what its operator chooses.

    Raises:
        OptionError: if the settings do not fit the graph.
        ModelError: if Triton has no name for a type of the graph, or cannot join rows of an output.
    """

    name: str
    graph: Description
    settings: Settings

    def __post_init__(self) -> None:
        batch = self.graph.contract.form.batch
        if batch is not None:
            why = f"{self.graph.path} has a batch fixed at {batch}, so requests are not joined"
            self.settings.require_no_batching(why)
            if self.settings.one_image:
                raise OptionError(
                    f"{self.graph.path} has a batch fixed at {batch}, so it takes as many images as masks; "
                    "leave one_image=True out, or export the network without a fixed batch"
                )
        for tensor in (*self.graph.inputs, *self.graph.outputs):
            if tensor.kind not in _TYPES:
                raise ModelError(f"{self.graph.path}: {tensor} is of a type that is not served")
            if not tensor.shape or (batch is None and isinstance(tensor.shape[0], int)):
                raise ModelError(f"{self.graph.path}: the first axis of {tensor} is not the batch; export it again")

    @property
    def joined(self) -> bool:
        """Whether Triton joins requests."""
        return self.graph.contract.form.batch is None and not self.settings.one_image

    def files(self) -> dict[str, bytes | None]:
        """What all versions of the model share, by file; None for class names that no output has a score for."""
        named = any(map(self._has_labels, self.graph.outputs))
        labels = "".join(f"{' '.join(label.split())}\n" for label in self.graph.contract.labels or ())
        return {CONFIG: str(self).encode(), LABELS: labels.encode() if named else None}

    def fits(self, other: Configuration) -> bool:
        """Whether Triton would serve the graph as well with the files of ``other``: comments apart they are its own."""
        return self.message() == other.message() and self.files()[LABELS] == other.files()[LABELS]

    def __str__(self) -> str:
        comments = "".join(
            textwrap.fill(each, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False) + "\n"
            for each in self.comments()
        )
        return f"{comments}\n{prototext(self.message())}"

    def message(self) -> Message:
        """The fields of a ``ModelConfig``."""
        settings = self.settings
        batching: dict[str, Value] = {
            **({"preferred_batch_size": sorted(set(settings.preferred))} if settings.preferred else {}),
            "max_queue_delay_microseconds": DELAY if settings.delay is None else settings.delay,
        }
        return {
            "name": self.name,
            "backend": "onnxruntime",
            "max_batch_size": settings.rows if self.joined else 0,
            "input": [self._tensor(each) for each in self.graph.inputs],
            "output": [self._tensor(each) for each in self.graph.outputs],
            **({"dynamic_batching": batching} if self.joined else {}),
            "instance_group": [{"count": settings.instances, "kind": Word(f"KIND_{settings.kind.upper()}")}],
            **self._optimisation(),
            "model_warmup": [self._warmup(images, masks) for images, masks in self._samples()],
        }

    def comments(self) -> list[str]:
        """Why the fields are as they are, a paragraph each."""
        form, settings, rows = self.graph.contract.form, self.settings, self.settings.rows
        image, mask = self.graph.inputs
        found = [f"{image} and {mask}, True = keep. Both are in every request."]
        if self.joined:
            found.append(
                f"Batching: Triton joins requests along the first axis of both inputs, which dims leaves out. So a "
                f"request has as many masks as images, 1 to {rows}; one image under n masks is sent n times (a model "
                "written with --one-image takes it once)."
            )
        elif form.batch is not None:
            found.append(
                f"Batching is off (0), and dims has all axes: the graph fixes both batch axes at {form.batch}, and the "
                "onnxruntime backend refuses a max_batch_size above 0 unless the first axis of every tensor is free. "
                f"Every request has {form.batch} images and {form.batch} masks; fill it up, and drop the surplus rows."
            )
        else:
            found.append(
                "Batching is off (0), and dims has all axes, the batch axes free: a request has one image and any "
                "number of masks, or one mask and any number of images, or as many of both. Requests are not joined, "
                "since Triton would join both inputs; so a request had better bring many masks."
            )
        if form.size is not None:
            joined = "; requests of other sizes are not joined with it" if self.joined else ""
            found.append(f"Height and width are -1: any from {form.smallest} on, equal in image and mask{joined}.")
        if self.graph.contract.labels and not self.joined:
            found.append("Ask for scores, not for classes (class_count): Triton would rank all rows as one.")
        found.append("Warm-up is with zeros: a mask that keeps nothing runs through the same nodes as any other.")
        return [*found, *self._computes(settings)]

    def _computes(self, settings: Settings) -> list[str]:
        found = []
        if self.graph.contract.form.precision == "int8":
            others = "; TensorRT fuses its own all the same" if settings.tensorrt else ""
            found.append(
                "level -1 leaves out the integer kernels that onnxruntime fuses, which round otherwise than ONNX "
                f"defines{others}."
            )
        if settings.kind != "cpu":
            found.append(
                "use_tf32 0: TF32 keeps 10 bits of the operands, less than the proof of a float32 graph allows. "
                "cudnn_conv_algo_search 1: by rule, so that a restart computes the same."
            )
        if settings.tensorrt:
            found.append(
                "TensorRT: the proof of the exported file was not made with it. It takes TF32 for float32 unless the "
                "server runs with NVIDIA_TF32_OVERRIDE=0. It builds engines, for minutes, at every start and for each "
                "instance, and anew for shapes outside those it has seen; so the largest warm-up request comes first."
            )
            if settings.one_image:
                found.append(f"Send up to {BATCH_SIZE} masks a request, as the warm-up does: more are a new shape.")
        return found

    def _tensor(self, tensor: Tensor) -> Message:
        """An input or an output; with the class names if it has a score for each."""
        dims = [side if isinstance(side, int) else -1 for side in tensor.shape]
        return {
            "name": tensor.name,
            "data_type": Word(_TYPES[tensor.kind]),
            "dims": dims[1:] if self.joined else dims,
            **({"label_filename": LABELS} if self._has_labels(tensor) else {}),
        }

    def _has_labels(self, tensor: Tensor) -> bool:
        """Whether it is ``[batch, classes]``."""
        labels = self.graph.contract.labels
        return bool(labels) and len(tensor.shape) == 2 and tensor.shape[1] == len(labels or ())

    def _optimisation(self) -> Message:
        """Fields that say how onnxruntime computes."""
        settings, precision = self.settings, self.graph.contract.form.precision
        graph = {"level": -1 if precision == "int8" else 0}
        if settings.kind == "cpu":
            return {"optimization": {"graph": graph}}
        accelerators: list[Message] = [{"name": "cuda", "parameters": _map({"use_tf32": "0"})}]
        if settings.tensorrt:
            chosen = {
                "precision_mode": _MODES[precision],
                "max_workspace_size_bytes": str(settings.tensorrt_workspace or WORKSPACE),
            }
            accelerators.insert(0, {"name": "tensorrt", "parameters": _map(chosen)})
        execution = {"gpu_execution_accelerator": accelerators}
        return {
            "optimization": {"graph": graph, "execution_accelerators": execution},
            "parameters": [{"key": "cudnn_conv_algo_search", "value": {"string_value": _HEURISTIC}}],
        }

    def _samples(self) -> list[tuple[int, int]]:
        """Images and masks of each request of the warm-up, ascending; for TensorRT the largest comes first.

        An engine of TensorRT's holds for all between the least and the most rows that were seen: with those two first,
        none is built for the others.
        """
        batch = self.graph.contract.form.batch
        if batch is not None:
            return [(batch, batch)]
        found = [(rows, rows) for rows in sorted({1, *self.settings.preferred, self.settings.rows})]
        if self.settings.one_image:
            found = [(1, 1), (1, BATCH_SIZE)]
        return [found[-1], *found[:-1]] if self.settings.tensorrt else found

    def _warmup(self, images: int, masks: int) -> Message:
        """One request; where Triton joins requests, as many of one row each as ``batch_size`` says."""
        inputs: list[Message] = []
        for tensor, rows in zip(self.graph.inputs, (images, masks), strict=True):
            sides = iter(self.graph.contract.form.size or ())
            dims = [side if isinstance(side, int) else next(sides) for side in tensor.shape[1:]]
            zeros: Message = {
                "data_type": Word(_TYPES[tensor.kind]),
                "dims": dims if self.joined else [rows, *dims],
                "zero_data": True,
            }
            inputs.append({"key": tensor.name, "value": zeros})
        return {
            "name": f"{_counted(images, 'image')}, {_counted(masks, 'mask')}",
            "batch_size": masks if self.joined else 1,
            "inputs": inputs,
        }


def _map(values: dict[str, str]) -> list[Message]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
