"""In which dtype a graph that was traced in one dtype is computed in another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


@dataclass(frozen=True)
class Precision:
    """What becomes of the floating dtypes of a graph, of its constants and of its arguments.

    1. In the module's own dtype everything is as the module says, conversions to fewer bits and back included.
    2. In a wider dtype nothing is rounded to less: every narrower one, of a constant, of a `float()` or of a
       deliberate `half()`, becomes the wider one.
    3. In a narrower dtype the module's own becomes that, and all others stay.

    Attributes:
        own: the dtype that the module was traced in.
        wanted: the dtype of the image, that of the computation.
    """

    own: torch.dtype
    wanted: torch.dtype

    def of(self, dtype: torch.dtype) -> torch.dtype:
        """What stands for a dtype of the traced graph."""
        if dtype == self.own:
            return self.wanted
        wider = torch.finfo(self.wanted).bits > torch.finfo(self.own).bits
        return torch.promote_types(dtype, self.wanted) if wider and dtype.is_floating_point else dtype

    def tensor(self, value: Tensor, device: torch.device) -> Tensor:
        """A parameter or a constant of the traced graph; gradients flow."""
        return value.to(device, self.of(value.dtype))

    def arguments(self, values: Any) -> Any:
        """Arguments of a node, dtypes among them replaced."""
        return pytree.tree_map(lambda leaf: self.of(leaf) if isinstance(leaf, torch.dtype) else leaf, values)

    @contextlib.contextmanager
    def default(self) -> Iterator[None]:
        """What PyTorch makes without being told a dtype, a quotient of integers for one, has the right one.

        PyTorch knows one default for the whole process; it is set back afterwards.
        """
        before = torch.get_default_dtype()
        torch.set_default_dtype(self.of(before))
        try:
            yield
        finally:
            torch.set_default_dtype(before)
