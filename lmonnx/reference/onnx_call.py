"""A node of an ONNX graph, and the circumstances in which it is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmonnx.masking import MaskRules
from lmonnx.reference.activation import RefusedError

#: Torch's dtype of each TensorProto data type that is not floating.
INTEGERS = {
    2: torch.uint8,
    3: torch.int8,
    4: torch.uint16,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    12: torch.uint32,
}
FLOATING = frozenset({1, 10, 11, 16})


@dataclass(frozen=True)
class Node:
    """One node of an ONNX graph, in Python and NumPy values.

    Attributes:
        name: the node's name, for messages.
        operator: such as `"Conv"`.
        inputs: names of values; `""` is an absent optional input.
        outputs: names of values; `""` is an output that is not asked for.
        attributes: integers, floats, strings, lists of them, arrays for tensors.
        domain: `""` for ONNX's own operators.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    domain: str = ""


@dataclass(frozen=True)
class Call:
    """A node in its circumstances.

    Attributes:
        node: what is called.
        opset: of the file.
        rules: the choices of layer masking.
        dtype: floating, of the computation.
        device: of the computation.
    """

    node: Node
    opset: int
    rules: MaskRules
    dtype: torch.dtype
    device: torch.device

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or ONNX's default for it."""
        return self.node.attributes.get(name, default)

    def tensor(self, array: NDArray[Any] | Sequence[Any] | float) -> Tensor:
        """A tensor of a file's numbers on the device; floating ones in the dtype of the computation."""
        array = np.asarray(array)
        if array.dtype.kind in "OSU":
            raise RefusedError("the reference has no strings")
        name = array.dtype.name
        if name.startswith(("bfloat", "float")):
            return torch.from_numpy(np.array(array, np.float64)).to(self.device, self.dtype)
        narrow = name in ("int2", "int4", "uint2", "uint4")
        return torch.from_numpy(np.array(array, np.int32 if narrow else array.dtype)).to(self.device)

    def numbers(self, name: str, given: Tensor | None) -> list[int] | None:
        """Integers that older opsets have as the attribute `name` and newer ones as an input."""
        if given is not None:
            return [int(number) for number in given.reshape(-1).tolist()]
        value = self.get(name)
        return None if value is None else [int(number) for number in np.atleast_1d(value)]

    def numeric_type(self, to: int) -> torch.dtype:
        """The torch dtype of a TensorProto data type."""
        if to in FLOATING:
            return self.dtype
        if to not in INTEGERS:
            raise RefusedError(f"the reference has no data type {to}")
        return INTEGERS[to]
