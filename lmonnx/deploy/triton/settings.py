"""What a model's operator chooses: batching, instances, TensorRT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from lmonnx.errors import OptionError
from lmonnx.runtime.batching import BATCH_SIZE
from lmonnx.runtime.form import MAX_BATCH

Kind: TypeAlias = Literal["auto", "gpu", "cpu"]

DELAY = 100
"""Microseconds that Triton waits for further requests where nothing else is asked for."""

WORKSPACE = 1 << 30
"""Bytes that TensorRT may take while it computes, where nothing else is asked for: the backend's own default."""

_LARGEST: Mapping[str, int] = {
    "max_batch_size": MAX_BATCH,
    "delay": 60_000_000,
    "instances": 64,
    "tensorrt_workspace": 1 << 40,
}
#: Options that say how requests are joined, by their default; they have no meaning where none are.
_BATCHING = {"max_batch_size": None, "preferred": (), "delay": None}


@dataclass(frozen=True)
class Settings:
    """How Triton is to serve a graph.

    Attributes:
        one_image: a request has one image and any number of masks, or one mask and any number of images, which
            the graph broadcasts. Requests are not joined then.
        max_batch_size: rows of a request, and of requests that are joined, at most; ``None`` for 32.
        preferred: numbers of rows that are computed as soon as there are so many; empty leaves the choice to Triton.
        delay: microseconds that a request waits for others to be joined with; ``None`` for 100.
        instances: of the model, on every GPU or on the CPU.
        kind: ``"gpu"`` and ``"cpu"`` take that, ``"auto"`` all GPUs if there are any and the CPU otherwise.
        tensorrt: nodes that TensorRT knows are computed by it, in the precision of the graph, the others by CUDA.
        tensorrt_workspace: bytes that TensorRT may take while it computes; ``None`` for 1 GiB.

    Raises:
        OptionError: if one of them has a value that is not allowed, or goes with none of the others.
    """

    one_image: bool = False
    max_batch_size: int | None = None
    preferred: tuple[int, ...] = ()
    delay: int | None = None
    instances: int = 1
    kind: Kind = "auto"
    tensorrt: bool = False
    tensorrt_workspace: int | None = None

    def __post_init__(self) -> None:
        for name, largest in _LARGEST.items():
            self._require_number(name, 0 if name == "delay" else 1, largest)
        if self.kind not in get_args(Kind):
            raise OptionError(f"kind={self.kind!r} is unknown; choose one of {', '.join(get_args(Kind))}")
        sizes = self.preferred if isinstance(self.preferred, (tuple, list)) else (None,)
        if not all(isinstance(rows, int) and 0 < rows <= self.rows for rows in sizes):
            raise OptionError(f"preferred={self.preferred!r} are not numbers of rows, 1 … {self.rows} (max_batch_size)")
        object.__setattr__(self, "preferred", tuple(sizes))
        if self.one_image:
            self.require_no_batching("one_image=True joins no requests")
        self._require_tensorrt()

    @property
    def rows(self) -> int:
        """Rows that are computed at once, at most."""
        return BATCH_SIZE if self.max_batch_size is None else self.max_batch_size

    def require_no_batching(self, why: str) -> None:
        """Refuses the options of batching.

        Raises:
            OptionError: if there is one; it begins with ``why``.
        """
        for name, default in _BATCHING.items():
            if (value := getattr(self, name)) != default:
                raise OptionError(f"{why}, and {name}={value!r} is about joining them; leave it out")

    def _require_tensorrt(self) -> None:
        if self.tensorrt and self.kind == "cpu":
            raise OptionError("tensorrt=True wants a GPU, and kind='cpu' takes none; leave one of them out")
        if not self.tensorrt and self.tensorrt_workspace is not None:
            raise OptionError(f"tensorrt_workspace={self.tensorrt_workspace!r} is for TensorRT; give tensorrt=True too")

    def _require_number(self, name: str, least: int, most: int) -> None:
        value = getattr(self, name)
        if value is None and name != "instances":
            return
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise OptionError(f"{name}={value!r} is not a whole number, {least} … {most}")
