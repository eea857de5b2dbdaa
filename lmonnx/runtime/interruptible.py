"""Calls of onnxruntime that Ctrl-C ends within a node of the graph, instead of after the whole batch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from lmonnx.runtime.distributions import import_onnxruntime

if TYPE_CHECKING:
    import onnxruntime

_T = TypeVar("_T")

#: Seconds between looks for a signal, on systems that do not wake up for one.
_LOOK = 0.2


def interruptible(call: Callable[[onnxruntime.RunOptions], _T]) -> _T:
    """What ``call`` returns, given the options that it has to run a session with.

    Python's signal handlers run in the main thread, and not while that is inside onnxruntime. So the main thread waits
    while another one computes, and what a handler raises, a KeyboardInterrupt or a SystemExit, makes onnxruntime stop
    before the next node. Other threads, which get no signals, compute themselves.
    """
    options = import_onnxruntime().RunOptions()
    if threading.current_thread() is not threading.main_thread():
        return call(options)
    results: list[_T] = []
    failures: list[BaseException] = []
    done = threading.Event()

    def work() -> None:
        try:
            results.append(call(options))
        except BaseException as error:
            failures.append(error)
        finally:
            done.set()

    threading.Thread(target=work, name="lmonnx-run", daemon=True).start()
    try:
        while not done.wait(_LOOK):
            pass
    except BaseException:
        options.terminate = True
        done.wait()
        raise
    if failures:
        raise failures[0]
    return results[0]
