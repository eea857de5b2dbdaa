"""What happens in other threads: runs that a signal ends, and items made ahead."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from lmonnx.runtime.ahead import ahead
from lmonnx.runtime.interruptible import RunThread


def slow(nodes: int, side: int = 1500) -> onnxruntime.InferenceSession:
    """A graph of products that together take many seconds."""
    names = ["x", *(f"x{i}" for i in range(nodes))]
    made = [helper.make_node("MatMul", [a, "x"], [b]) for a, b in itertools.pairwise(names)]
    kinds = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [side, side]) for name in (names[0], names[-1])]
    model = helper.make_model(
        helper.make_graph(made, "slow", kinds[:1], kinds[1:]), opset_imports=[helper.make_opsetid("", 18)], ir_version=8
    )
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_within_a_second(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    session, feeds = slow(2000), {"x": np.zeros((1500, 1500), np.float32)}
    before, thread = signal.signal(number, stop), RunThread()
    timer = threading.Timer(0.5, signal.raise_signal, [number])
    start = time.perf_counter()
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            thread.run(lambda options: session.run(None, feeds, options))
    finally:
        signal.signal(number, before)
        timer.join()
    assert time.perf_counter() - start < 1.5
    assert thread.run(lambda _: "the next one") == "the next one"


def test_results_and_errors_come_back() -> None:
    def fail(_: Any) -> None:
        raise ValueError("as it was")

    runs = RunThread()
    names = [runs.run(lambda _: threading.current_thread().name) for _ in range(3)]
    assert names == ["lmonnx-run"] * 3
    with pytest.raises(ValueError, match="as it was"):
        runs.run(fail)
    for always, name in ((False, "mine"), (True, "lmonnx-run")):
        seen: list[Any] = []
        both = RunThread(always)
        ask = partial(both.run, lambda _: threading.current_thread().name)
        thread = threading.Thread(target=lambda ask=ask, seen=seen: seen.append(ask()), name="mine")
        thread.start()
        thread.join()
        assert seen == [name]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_process_that_was_forked_has_a_thread_of_its_own() -> None:
    runs = RunThread()
    assert runs.run(lambda _: "before") == "before"
    code = 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of newer Pythons: there are threads
        child = os.fork()
    if not child:
        try:
            code = 0 if runs.run(lambda _: "child") == "child" else 1
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def test_the_thread_ends_with_its_owner() -> None:
    runs = RunThread()
    thread = runs.run(lambda _: threading.current_thread())
    assert thread.is_alive()
    del runs
    thread.join(5)
    assert not thread.is_alive()


def test_items_come_in_order_and_one_is_made_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for i in range(20):
            made.append(i)
            yield i

    seen = []
    for i in ahead(items()):
        time.sleep(0.01)
        assert len(made) <= i + 3
        seen.append(i)
    assert seen == list(range(20))
    assert len(made) == 20


def test_an_error_stands_in_the_place_of_its_item() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("the second is broken")

    some = ahead(items())
    assert next(some) == 1
    with pytest.raises(ValueError, match="the second is broken"):
        next(some)


def test_what_nobody_wants_is_not_made() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for i in range(1000):
            made.append(i)
            yield i

    threads = threading.active_count()
    some = ahead(items())
    assert next(some) == 0
    some.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 5
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == threads
    assert len(made) <= 3
