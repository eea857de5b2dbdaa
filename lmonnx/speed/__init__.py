"""What a mask costs: a network's plain and masked graph, and other programs, against each other in one process."""

from __future__ import annotations

import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from lmonnx.errors import OptionError
from lmonnx.exporters import export
from lmonnx.exporters.sources import Network, resolve
from lmonnx.masking import MaskRules
from lmonnx.runtime.providers import open_session
from lmonnx.runtime.resources import processors
from lmonnx.speed.profile import Profile, grouped, purposes
from lmonnx.speed.race import WARMUP, race
from lmonnx.speed.report import Report, Row, machine, versions

__all__ = ["MASKED", "PLAIN", "PYTORCH", "Program", "Report", "Row", "bench"]

#: (image float32 ``[n, C, H, W]``, mask bool ``[n, 1, H, W]``) -> anything: what is timed.
Program = Callable[[np.ndarray, np.ndarray], object]
PLAIN, MASKED, PYTORCH = "plain graph", "masked graph", "PyTorch, no mask"
PATCH = 16
#: Runs that a profile is the mean of.
PROFILED = 10


def bench(
    source: str | os.PathLike[str] | torch.nn.Module,
    *,
    weights: str | os.PathLike[str] = "default",
    size: tuple[int, int] | None = None,
    rules: MaskRules | None = None,
    opset: int | None = None,
    batches: Sequence[int] = (8, 32),
    rounds: int = 15,
    threads: int | None = None,
    profile: bool = False,
    others: Mapping[str, Program] | None = None,
) -> Report:
    """Times a network on the CPU: its plain graph, its masked graph, and PyTorch where it is a module.

    All run in this process, in turns, on the same images; half of the 16 px patches are removed from each.

    Args:
        source: the network, and how it is exported; see :func:`lmonnx.exporters.export` for this, ``weights``,
            ``size``, ``rules`` and ``opset``. Nothing is proven.
        weights: likewise; a time does not depend on their values, so that ``"seed:0"`` says as much.
        size: likewise.
        rules: likewise.
        opset: likewise, of the masked graph.
        batches: images in a run.
        rounds: how often each program runs at each batch size.
        threads: of every program; as many as this process has processors if None.
        profile: measure also where the time of the masked graph goes, at the largest batch.
        others: more programs by name, timed with the same images and masks.

    Raises:
        SourceError, UnsupportedOpError: as an export does.
        OptionError: if a number is not positive.
    """
    threads = processors() if threads is None else threads
    for name, numbers in (("batches", batches), ("rounds", (rounds,)), ("threads", (threads,))):
        if not numbers or min(numbers) < 1:
            raise OptionError(f"{name}={numbers if name == 'batches' else numbers[0]} is not positive")
    network = resolve(source, weights=weights, size=size)
    with tempfile.TemporaryDirectory() as folder, _torch_threads(threads):
        plain, masked = pathlib.Path(folder, "plain.onnx"), pathlib.Path(folder, "masked.onnx")
        ir.save(network.graph, plain, external_data="plain.data")
        export(source, masked, weights=weights, size=size, rules=rules, opset=opset, verify=False)
        programs = {**_programs(network, plain, masked, threads), **(others or {})}
        rows = [row for batch in batches for row in _rows(network, programs, batch, rounds)]
        found = _profile(network, masked, threads, max(batches)) if profile else None
        written = ir.load(masked).opset_imports[""]
    name = network.origin.get("name") or str(source)
    return Report(str(name), network.size, written, threads, rounds, rows, found, machine(), versions())


def _programs(network: Network, plain: pathlib.Path, masked: pathlib.Path, threads: int) -> dict[str, Program]:
    without, with_mask = (open_session(str(path), "cpu", threads) for path in (plain, masked))
    (only,) = without.get_inputs()
    order = (0, 1, 2, 3) if network.layout == "NCHW" else (0, 2, 3, 1)

    def as_before(image: np.ndarray, _: np.ndarray) -> object:
        return without.run(None, {only.name: image.transpose(order)})

    def as_exported(image: np.ndarray, mask: np.ndarray) -> object:
        return with_mask.run(None, {"image": image, "mask": mask})

    programs: dict[str, Program] = {PLAIN: as_before, MASKED: as_exported}
    if network.front_end == "aten":
        programs[PYTORCH] = lambda image, _: network.plain(image)
    return programs


def _rows(network: Network, programs: Mapping[str, Program], batch: int, rounds: int) -> Iterator[Row]:
    image, mask = inputs(batch, network.channels, network.size)
    times = race({name: partial(program, image, mask) for name, program in programs.items()}, rounds)
    for name in programs:
        low, middle, high = (1000 * seconds / batch for seconds in times.quartiles(name))
        yield Row(batch, name, (low, middle, high), times.ratio(name, PLAIN), times.ratio(name, MASKED))


def inputs(batch: int, channels: int, size: tuple[int, int]) -> tuple[Any, Any]:
    """Images float32 ``[batch, C, H, W]`` of noise, and masks bool ``[batch, 1, H, W]`` without half of the patches."""
    rng, (height, width) = np.random.default_rng(0), size
    rows, columns = -(-height // PATCH), -(-width // PATCH)
    ranks = rng.permuted(np.tile(np.arange(rows * columns), (batch, 1)), axis=1).reshape(batch, 1, rows, columns)
    patches = (ranks >= rows * columns // 2).repeat(PATCH, axis=2).repeat(PATCH, axis=3)
    return rng.normal(size=(batch, channels, *size)).astype(np.float32), patches[:, :, :height, :width].copy()


def _profile(network: Network, masked: pathlib.Path, threads: int, batch: int) -> Profile:
    image, mask = inputs(batch, network.channels, network.size)
    session = open_session(str(masked), "cpu", threads, trace=str(masked.with_suffix(".trace")))
    for _ in range(WARMUP + PROFILED):
        session.run(None, {"image": image, "mask": mask})
    return grouped(pathlib.Path(session.end_profiling()), purposes(masked, network.size), WARMUP, PROFILED)


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
