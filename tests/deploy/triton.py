"""What Triton and its onnxruntime backend make of a configuration, as far as it can be told without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

TYPES = {"tensor(float)": "TYPE_FP32", "tensor(uint8)": "TYPE_UINT8", "tensor(bool)": "TYPE_BOOL"}
DTYPES = {"TYPE_FP32": np.float32, "TYPE_UINT8": np.uint8, "TYPE_BOOL": np.bool_}


def parsed(folder: Path) -> Any:
    """The configuration in a model's folder, read as Triton reads it."""
    text = (folder / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def session_of(folder: Path, version: int = 1) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(folder / str(version) / "model.onnx", providers=["CPUExecutionProvider"])


def type_of(tensor: Any) -> str:
    return str(model_config_pb2.DataType.Name(tensor.data_type))


def refusals(config: Any, session: onnxruntime.InferenceSession) -> list[str]:
    """Why the backend would not load the graph under a configuration, by the rules of its ``CompareDimsSupported``."""
    found = []
    for given, wanted, exact in (
        (config.input, session.get_inputs(), False),
        (config.output, session.get_outputs(), True),
    ):
        if sorted(each.name for each in given) != sorted(each.name for each in wanted):
            found.append("names")
        for each in given:
            value = next(value for value in wanted if value.name == each.name)
            shape = [side if isinstance(side, int) else -1 for side in value.shape]
            dims = [*([-1] if config.max_batch_size else []), *each.dims]
            if config.max_batch_size and shape[0] != -1:
                found.append(f"{each.name}: first axis {shape[0]} is not free")
            if TYPES[value.type] != type_of(each):
                found.append(f"{each.name}: {type_of(each)}")
            pairs = list(zip(shape, dims, strict=False))
            if len(shape) != len(dims) or any(a != b for a, b in pairs if exact or a != -1):
                found.append(f"{each.name}: {dims} for {shape}")
    return found


def warmed(config: Any, session: onnxruntime.InferenceSession) -> list[tuple[int, int]]:
    """Runs the warm-up requests; images and masks of each.

    Where requests are joined, each is as many of one row as its ``batch_size`` says.
    """
    found = []
    for sample in config.model_warmup:
        assert set(sample.inputs) == {"image", "mask"}
        assert sample.batch_size == 1 or config.max_batch_size >= sample.batch_size
        rows = [sample.batch_size] if config.max_batch_size else []
        feeds = {
            name: np.zeros([*rows, *value.dims], DTYPES[type_of(value)])
            for name, value in sample.inputs.items()
            if value.zero_data
        }
        (output,) = config.output
        (scores,) = session.run([output.name], feeds)
        counts = (len(feeds["image"]), len(feeds["mask"]))
        assert scores.shape == (max(counts), output.dims[-1])
        found.append(counts)
    return found
