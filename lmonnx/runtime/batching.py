"""Rows of any number in batches of one fixed size, so that a session meets no new shape and memory is bounded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lmonnx.errors import OptionError
from lmonnx.runtime.form import MAX_BATCH

BATCH_SIZE = 32
"""Rows per pass of the network, where nothing else is asked for."""

Feeds: TypeAlias = dict[str, npt.NDArray[Any]]
"""Inputs of a graph by name, with as many rows in each."""


def require_batch_size(batch_size: object) -> None:
    """Refuses what is not a number of rows.

    Raises:
        OptionError: if it is not a positive number.
    """
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise OptionError(f"batch_size={batch_size!r} is not a positive number")
    if batch_size > MAX_BATCH:
        raise OptionError(f"batch_size={batch_size!r} is too much; at most {MAX_BATCH} rows are computed at once")


def passes(feeds: Feeds, size: int) -> Iterator[tuple[Feeds, int]]:
    """Cuts the rows of inputs into batches of one fixed size, for a graph whose batch is fixed.

    Args:
        feeds: inputs of n rows, or of one row that goes with all n.
        size: rows in a batch.

    Yields:
        Inputs of ``size`` rows each, and how many of the rows are asked for; the last batch is padded with copies of
        its first row, and an input of one row repeated.
    """
    rows = max(map(len, feeds.values()))
    for start in range(0, rows, size):
        index = np.arange(start, start + size)
        index[index >= rows] = start
        whole = size == rows
        yield (
            {
                name: values if whole and len(values) == size else values[index if len(values) > 1 else index * 0]
                for name, values in feeds.items()
            },
            min(size, rows - start),
        )


def batches(chunks: Iterable[Feeds], size: int) -> Iterator[tuple[Feeds, int]]:
    """Regroups the rows of ``chunks``, which are consumed as they are needed.

    Args:
        chunks: each with any number of rows, all with the same names, types and shapes of a row.
        size: rows in a batch.

    Yields:
        ``size`` rows, and how many of them are asked for; the last batch is padded with copies of its first row.
    """
    buffers: Feeds = {}
    filled = 0
    for chunk in chunks:
        if not buffers:
            buffers = {name: np.empty((size, *rows.shape[1:]), rows.dtype) for name, rows in chunk.items()}
        count = len(next(iter(chunk.values())))
        start = 0
        while start < count:
            taken = min(size - filled, count - start)
            for name, rows in chunk.items():
                buffers[name][filled : filled + taken] = rows[start : start + taken]
            start, filled = start + taken, filled + taken
            if filled == size:
                yield buffers, size
                buffers, filled = {name: np.empty_like(rows) for name, rows in buffers.items()}, 0
    if filled:
        for buffer in buffers.values():
            buffer[filled:] = buffer[0]
        yield buffers, filled
