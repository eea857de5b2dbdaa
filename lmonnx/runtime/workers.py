"""What is prepared of photographs in other processes, while this one computes."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Generic, TypeVar

from lmonnx.errors import ImageError, LmonnxError, OptionError
from lmonnx.runtime.resources import processors

_T = TypeVar("_T")

AHEAD = 2
"""Photographs that each process has before it."""

MOST = 4
"""Processes, where nobody says how many."""


def usual_workers() -> int:
    """Half of the processors, at least 1 and at most ``MOST``."""
    return max(1, min(MOST, processors() // 2))


def prepared(
    names: Sequence[str], path_of: Callable[[str], Path], prepare: Callable[[Path], _T], workers: int
) -> Iterator[tuple[str, _T | LmonnxError]]:
    """What ``prepare`` makes of each photograph, or why it cannot, in their order.

    A process that dies, as Linux kills who takes too much memory, is replaced, and what it had is tried again, alone;
    the photograph at which a process dies twice is told as one that cannot be prepared.

    Args:
        names: of the photographs.
        path_of: the file of a name.
        prepare: known to pickle, as is what it returns.
        workers: processes; with 0 everything is done in this one, when its turn comes.
    """
    if workers == 0:
        yield from ((name, _tried(prepare, path_of(name))) for name in names)
        return
    rest, pool = iter(names), _Pool(prepare, workers)
    waiting: deque[tuple[str, Future[_T | LmonnxError]]] = deque()
    try:
        while True:
            for name in itertools.islice(rest, workers * AHEAD - len(waiting)):
                waiting.append((name, pool.submit(path_of(name))))
            if not waiting:
                return
            name, future = waiting.popleft()
            try:
                yield name, future.result()
            except BrokenProcessPool:
                yield name, pool.alone(path_of(name))
                waiting = deque((other, pool.submit(path_of(other))) for other, _ in waiting)
    finally:
        pool.close()


#: What is wrong with a script whose main module cannot be imported again.
GUARD = (
    "the processes that prepare photographs import the main module, and that cannot be imported again; put what runs "
    'in it behind `if __name__ == "__main__":`, or pass workers=0'
)


def require_main(workers: int) -> None:
    """Refuses to start where a process that was started to prepare photographs imports the main module.

    Raises:
        OptionError: if so.
    """
    if workers and getattr(multiprocessing.current_process(), "_inheriting", False):
        raise OptionError(GUARD)


class _Pool(Generic[_T]):
    """Processes that can be replaced, and end at once."""

    def __init__(self, prepare: Callable[[Path], _T], workers: int) -> None:
        self._prepare, self._workers = prepare, workers
        self._open(workers)

    def submit(self, path: Path) -> Future[_T | LmonnxError]:
        try:
            return self._submit(path)
        except BrokenProcessPool:
            self.close()
            self._open(self._workers)
            return self._submit(path)

    def alone(self, path: Path) -> _T | LmonnxError:
        """What comes of a photograph in a process of its own; the others are new ones afterwards."""
        self.close()
        self._open(1)
        try:
            return self.submit(path).result()
        except BrokenProcessPool:
            if not self._begun.poll():
                raise OptionError(GUARD) from None
            return ImageError(f"{path}: the process that prepares it dies; is it too large for the memory here?")
        finally:
            self.close()
            self._open(self._workers)

    def close(self) -> None:
        self._leash.close()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _open(self, workers: int) -> None:
        # Not forked: this process has threads of onnxruntime's, which a fork does not take along.
        context = multiprocessing.get_context("spawn")
        held, self._leash = context.Pipe(duplex=False)
        self._begun, begin = context.Pipe(duplex=False)
        self._executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_obey, initargs=(held, begin))

    def _submit(self, path: Path) -> Future[_T | LmonnxError]:
        """Starts a process, if there are not enough, in which no Ctrl-C is heard before it says what that means."""
        if not hasattr(signal, "pthread_sigmask"):
            return self._executor.submit(_tried, self._prepare, path)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            return self._executor.submit(_tried, self._prepare, path)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _obey(held: Connection, begin: Connection) -> None:
    """A process says that it begins, and ends when the other end of ``held`` is closed, or its parent dies.

    Ctrl-C reaches every process of a terminal; what it means is for the first one to say.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    begin.send_bytes(b"begun")
    threading.Thread(target=_end_with, args=(held,), daemon=True).start()


def _end_with(held: Connection) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([held, parent.sentinel])
    os._exit(0)


def _tried(prepare: Callable[[Path], _T], path: Path) -> _T | LmonnxError:
    try:
        return prepare(path)
    except LmonnxError as error:
        return error
    except Exception as error:  # one photograph is not to stop all others
        return ImageError(f"{path}: {type(error).__name__}: {error}")
