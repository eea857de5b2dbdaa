"""A session that is fed batch by batch: what stays is bound once, what changes moves, and what does not fit is cut."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lmonnx.errors import ModelError
from lmonnx.runtime.batching import Feeds, passes
from lmonnx.runtime.distributions import import_onnxruntime
from lmonnx.runtime.interruptible import RunThread
from lmonnx.runtime.providers import Provider, first_line, open_session, took_cuda

if TYPE_CHECKING:
    import onnxruntime

Rows = npt.NDArray[Any]

#: What onnxruntime, CUDA and its libraries say when memory is at its end.
_OUT_OF_MEMORY = re.compile(
    r"failed to allocate memory|out of memory|bad_alloc|bad allocation|ALLOC_FAILED|cudaErrorMemoryAllocation",
    re.IGNORECASE,
)
#: onnxruntime's names of the types that an output may have.
_TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}
#: The provider option with which CUDA repeats a recorded run, for which all addresses have to stay what they are.
_RECORDS = "enable_cuda_graph"


class Engine:
    """The session of a model file.

    Args:
        path: the file.
        provider: see :func:`lmonnx.runtime.providers.open_session`.
        threads: likewise.
        cuda_options: likewise.

    Attributes:
        path: the file, as given.
        session: onnxruntime's.
        outputs: their names, in the order of the graph.
        provider: what computes, ``"cpu"`` or ``"cuda"``.
        sha256: of the file that the session was made from, in hexadecimal.
        most: rows that fit into memory, once that many and no more were found to; None before.

    Raises:
        ModelError: if the file cannot be read, is no ONNX file, or was replaced meanwhile.
        OptionError: see :func:`lmonnx.runtime.providers.open_session`.
    """

    def __init__(
        self, path: str, provider: Provider, threads: int | None, cuda_options: Mapping[str, str] | None = None
    ) -> None:
        self.path = path
        before = _state_of(path)
        self.sha256 = _sha256_of(path)
        self.session: onnxruntime.InferenceSession = open_session(path, provider, threads, cuda_options=cuda_options)
        if _state_of(path) != before:
            raise ModelError(f"{path}: was replaced while it was being loaded; load it again")
        self.outputs = [value.name for value in self.session.get_outputs()]
        self.provider = "cuda" if took_cuda(self.session) else "cpu"
        self.records = self.provider == "cuda" and (cuda_options or {}).get(_RECORDS) == "1"
        self.most: int | None = None
        self._thread = RunThread(always=self.records)
        self._recorded: Binding | None = None

    def holding(self, fixed: Feeds, batch: int | None = None) -> Call:
        """Runs that share the inputs ``fixed``, of one row each; ``batch`` is that of the graph, if it is fixed."""
        if batch is not None:
            fixed = {name: np.repeat(rows, batch, axis=0) for name, rows in fixed.items()}
        return Call(self, fixed, batch)

    def binding(self, fixed: Feeds) -> Binding | None:
        """Where inputs and outputs live, on CUDA: one place for all calls if runs are recorded, else one a call."""
        if self.provider != "cuda":
            return None
        if not self.records:
            return Binding(self.session, fixed, "cuda")
        if self._recorded is None:
            self._recorded = Binding(self.session, fixed, "cuda", records=True)
        else:
            self._recorded.put(fixed)
        return self._recorded

    def run(self, call: Callable[[onnxruntime.RunOptions], list[Rows]]) -> list[Rows]:
        """What ``call`` returns, which Ctrl-C ends."""
        return self._thread.run(call)

    def failure(self, error: Exception) -> ModelError:
        """What is told of an error of onnxruntime's."""
        return ModelError(f"{self.path}: the graph failed: {first_line(error)}")


class Call:
    """Runs of a session, of which some inputs stay the same from run to run."""

    def __init__(self, engine: Engine, fixed: Feeds, batch: int | None) -> None:
        self._engine, self._fixed, self._batch = engine, fixed, batch
        self._binding = engine.binding(fixed)

    def run(self, feeds: Feeds) -> list[Rows]:
        """The outputs, in the order of the graph, for inputs ``feeds`` of n rows each beside those that stay.

        On a graph of free batch axes, rows that do not fit into memory together are computed in halves, and from then
        on never so many at once.

        Raises:
            ModelError: if the graph fails, or not even one row fits.
        """
        engine = self._engine
        count = max(map(len, feeds.values()), default=1)
        while True:
            size = min(count, engine.most or count)
            try:
                if size == count:
                    return self._once(feeds)
                parts = [[rows[:kept] for rows in self._once(part)] for part, kept in passes(feeds, size)]
                return [np.concatenate(rows) for rows in zip(*parts, strict=True)]
            except Exception as error:  # onnxruntime raises a class of its own for each status code
                if not _OUT_OF_MEMORY.search(str(error)):
                    raise engine.failure(error) from error
                if self._batch is not None or size == 1:
                    smaller = "export it with a smaller --batch, or" if self._batch else "one row does not fit;"
                    raise ModelError(
                        f"{engine.path}: memory is at its end ({first_line(error)}); {smaller} close what else takes it"
                    ) from error
                engine.most = size // 2
                warnings.warn(
                    f"{size} rows at once do not fit into memory; going on with {engine.most}",
                    RuntimeWarning,
                    stacklevel=2,
                )

    def _once(self, feeds: Feeds) -> list[Rows]:
        engine, binding = self._engine, self._binding
        if binding is not None:
            return engine.run(lambda options: binding.run(feeds, options))
        whole = {**self._fixed, **feeds}
        return engine.run(lambda options: engine.session.run(engine.outputs, whole, options))


class Binding:
    """Inputs that live where the session computes: those that stay are copied there once, the others in place.

    Args:
        session: onnxruntime's.
        fixed: the inputs that stay.
        device: onnxruntime's name of where they are to live, ``"cuda"`` or ``"cpu"``.
        records: the outputs are to stay where they are too, which a recorded run (CUDA graph) wants. They have to be of
            known shape.
    """

    def __init__(self, session: onnxruntime.InferenceSession, fixed: Feeds, device: str, records: bool = False) -> None:
        self._session, self._device = session, device
        self._values = import_onnxruntime().OrtValue
        self._binding = session.io_binding()
        self._inputs: dict[str, onnxruntime.OrtValue] = {}
        self._results: list[onnxruntime.OrtValue] = []
        self.put(fixed)
        for output in session.get_outputs():
            if records:
                value = self._values.ortvalue_from_shape_and_type(_known(output.shape), _TYPES[output.type], device, 0)
                self._binding.bind_ortvalue_output(output.name, value)
                self._results.append(value)
            else:
                self._binding.bind_output(output.name, "cpu")

    def run(self, feeds: Feeds, options: onnxruntime.RunOptions) -> list[Rows]:
        """The outputs on the host, copied, because the next run writes to where they were."""
        self.put(feeds)
        self._session.run_with_iobinding(self._binding, options)
        results = [value.numpy() for value in self._results] or self._binding.copy_outputs_to_cpu()
        return [rows.copy() for rows in results]

    def put(self, feeds: Feeds) -> None:
        """Copies inputs to where they are computed with, into what is there already if that has their shape."""
        for name, rows in feeds.items():
            held = self._inputs.get(name)
            if held is None or list(held.shape()) != list(rows.shape):
                held = self._values.ortvalue_from_shape_and_type(rows.shape, rows.dtype.type, self._device, 0)
                self._binding.bind_ortvalue_input(name, held)
                self._inputs[name] = held
            held.update_inplace(np.ascontiguousarray(rows))


def _known(shape: Sequence[Any]) -> list[int]:
    if not all(isinstance(side, int) for side in shape):
        raise ModelError(f"{_RECORDS} needs a graph of a fixed batch, and an output is {list(shape)}; export --batch N")
    return list(shape)


def _state_of(path: str) -> tuple[int, int, int]:
    """What changes when a file is replaced or written to."""
    try:
        state = os.stat(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    return state.st_ino, state.st_size, state.st_mtime_ns


def _sha256_of(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
