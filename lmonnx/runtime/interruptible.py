"""Calls of onnxruntime that Ctrl-C ends within a node of the graph, instead of after the whole batch."""

from __future__ import annotations

import os
import queue
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from lmonnx.runtime.distributions import import_onnxruntime

if TYPE_CHECKING:
    import onnxruntime

_T = TypeVar("_T")

#: Seconds between looks for a signal, on systems that do not wake up for one.
_LOOK = 0.2


class RunThread:
    """A thread that runs a session, so that the main thread can hear of signals meanwhile.

    Python's signal handlers run in the main thread, and not while that is inside onnxruntime. So the main thread waits
    while this one computes, and what a handler raises, a KeyboardInterrupt or a SystemExit, makes onnxruntime stop
    before the next node. It is the same thread from run to run, because what CUDA records (CUDA graphs) belongs to a
    thread. Other threads, which get no signals, compute themselves.

    Args:
        always: runs of other threads are made here too.
    """

    def __init__(self, always: bool = False) -> None:
        self._always = always
        self._process: int | None = None

    def run(self, call: Callable[[onnxruntime.RunOptions], _T]) -> _T:
        """What ``call`` returns, given the options that it has to run a session with."""
        options = import_onnxruntime().RunOptions()
        if not self._always and threading.current_thread() is not threading.main_thread():
            return call(options)
        task = _Task(call, options)
        try:
            self._tasks().put(task)
            while not task.done.wait(_LOOK):
                pass
        except BaseException:
            options.terminate = True
            task.done.wait()
            raise
        if task.error is not None:
            raise task.error
        return task.result  # type: ignore[no-any-return]

    def _tasks(self) -> queue.SimpleQueue[_Task | None]:
        """The queue of the thread, which is started for the first run, and anew in a process that was forked."""
        if self._process != os.getpid():
            self._process, self._queue = os.getpid(), queue.SimpleQueue[_Task | None]()
            weakref.finalize(self, self._queue.put, None)
            threading.Thread(target=_work, args=(self._queue,), name="lmonnx-run", daemon=True).start()
        return self._queue


class _Task:
    """One run; ``done`` is set when there is a result or an error."""

    def __init__(self, call: Callable[[Any], Any], options: Any) -> None:
        self.call, self.options, self.done = call, options, threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result = self.call(self.options)
        except BaseException as error:
            self.error = error
        finally:
            self.done.set()


def _work(tasks: queue.SimpleQueue[_Task | None]) -> None:
    while True:
        task = tasks.get()
        if task is None:
            return
        task.run()
        del task  # it holds the arrays of the run
