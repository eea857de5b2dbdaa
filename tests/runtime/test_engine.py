"""Sessions fed batch by batch: inputs that stay, memory that ends, files that change."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from lmonnx.errors import ModelError
from lmonnx.runtime import engine as module
from lmonnx.runtime.engine import Binding, Engine
from lmonnx.runtime.interruptible import RunThread
from lmonnx.runtime.session import Runner

GraphFile = Callable[..., Path]
H, W = 8, 8
SAID = (  # by onnxruntime's arenas, by CUDA and by its libraries
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv node. Failed to "
    "allocate memory for requested buffer of size 822083584",
    "[ONNXRuntimeError] : 1 : FAIL : CUDA failure 2: out of memory ; GPU=0",
    "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED",
    "std::bad_alloc",
)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(1, 3, H, W)).astype(np.float32)


@pytest.fixture
def masks() -> np.ndarray:
    return np.random.default_rng(2).random((11, 1, H, W)) < 0.5


class Small:
    """A session in whose memory so many rows fit."""

    def __init__(self, session: Any, rows: int, message: str) -> None:
        self.session, self.rows, self.message, self.shapes = session, rows, message, list[int]()

    def run(self, names: list[str], feeds: dict[str, np.ndarray], options: Any) -> Any:
        self.shapes.append(max(map(len, feeds.values())))
        if self.shapes[-1] > self.rows:
            raise RuntimeError(self.message)
        return self.session.run(names, feeds, options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)


def small(runner: Runner, rows: int, message: str = SAID[0]) -> Small:
    runner._engine.session = session = Small(runner._engine.session, rows, message)  # type: ignore[assignment]
    return session


@pytest.mark.parametrize("message", SAID)
def test_what_does_not_fit_is_halved_and_stays_halved(
    graph_file: GraphFile, image: np.ndarray, masks: np.ndarray, message: str
) -> None:
    runner = Runner(graph_file(), "cpu", threads=1)
    whole = runner.run(image, masks)["scores"]
    session = small(runner, 3, message)
    with (
        pytest.warns(RuntimeWarning, match="8 rows at once do not fit into memory; going on with 4"),
        pytest.warns(RuntimeWarning, match="4 rows at once do not fit into memory; going on with 2"),
    ):
        halved = runner.probabilities(image, masks, batch_size=8)
    assert session.shapes == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2]
    np.testing.assert_allclose(np.log(halved) - np.log(halved[:, :1]), whole - whole[:, :1], atol=1e-5)
    session.shapes.clear()
    np.testing.assert_allclose(runner.run(image, masks)["scores"], whole, atol=1e-5)
    np.testing.assert_allclose(runner.run(np.repeat(image, 11, 0), masks)["scores"], whole, atol=1e-5)
    assert session.shapes == [2] * 12


def test_what_never_fits_is_an_error(graph_file: GraphFile, image: np.ndarray, masks: np.ndarray) -> None:
    runner = Runner(graph_file(), "cpu", threads=1)
    small(runner, 0)
    with (
        pytest.raises(ModelError, match=r"memory is at its end .*; one row does not fit"),
        pytest.warns(RuntimeWarning),
    ):
        runner.run(image, masks[:2])
    runner = Runner(graph_file(batch=4), "cpu", threads=1)
    small(runner, 3)
    with pytest.raises(ModelError, match=r"memory is at its end .*; export it with a smaller --batch"):
        runner.run(image, masks[:2])


def test_other_failures_are_told_as_they_are(graph_file: GraphFile, image: np.ndarray, masks: np.ndarray) -> None:
    runner = Runner(graph_file(), "cpu", threads=1)
    session = small(runner, 0, "a node is unwell\nin the second line")
    with pytest.raises(ModelError, match=r"the graph failed: a node is unwell$"):
        runner.run(image, masks)
    assert session.shapes == [11]


def on_cuda(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The path of CUDA, on onnxruntime's binding for the CPU."""
    engine.provider = "cuda"
    monkeypatch.setattr(
        module, "Binding", lambda session, fixed, _, records=False: Binding(session, fixed, "cpu", records)
    )
    return engine


@pytest.mark.parametrize("batch", [None, 4])
def test_inputs_that_stay_are_bound_once(
    graph_file: GraphFile, image: np.ndarray, masks: np.ndarray, monkeypatch: pytest.MonkeyPatch, batch: int | None
) -> None:
    engine = on_cuda(Engine(str(graph_file(batch=batch)), "cpu", 1), monkeypatch)
    copied: list[str] = []
    put = Binding.put
    monkeypatch.setattr(Binding, "put", lambda self, feeds: copied.extend(feeds) or put(self, feeds))
    call = engine.holding({"image": image}, batch)
    found = [call.run({"mask": masks[i : i + 4]})[0] for i in (0, 4)]
    assert copied == ["image", "mask", "mask"]
    plain = Runner(graph_file(), "cpu", threads=1).run(image, masks[:8])["scores"]
    np.testing.assert_allclose(np.concatenate(found), plain, atol=1e-5)


def test_recorded_runs_are_of_one_thread_and_one_place(
    graph_file: GraphFile, image: np.ndarray, masks: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = graph_file(batch=4)
    engine = on_cuda(Engine(str(path), "cpu", 1), monkeypatch)
    engine.records, engine._thread = True, RunThread(always=True)
    where: set[tuple[int, ...]] = set()
    run = Binding.run

    def noted(binding: Binding, feeds: Any, options: Any) -> Any:
        found = run(binding, feeds, options)
        values = [*binding._inputs.values(), *binding._results]
        where.add((threading.get_ident(), *(value.data_ptr() for value in values)))
        return found

    monkeypatch.setattr(Binding, "run", noted)
    results: list[np.ndarray] = []

    def ask(picture: np.ndarray) -> None:
        call = engine.holding({"image": picture}, 4)
        results.extend(call.run({"mask": masks[i : i + 4]})[0] for i in (0, 4))

    ask(image)
    thread = threading.Thread(target=ask, args=(2 * image,))
    thread.start()
    thread.join()
    assert len(where) == 1
    plain = [Runner(path, "cpu", threads=1).run(factor * image, masks[:8])["scores"] for factor in (1, 2)]
    np.testing.assert_allclose(np.concatenate(results), np.concatenate(plain), atol=1e-4)


def test_a_recorded_run_reads_and_writes_the_same_memory(
    graph_file: GraphFile, image: np.ndarray, masks: np.ndarray
) -> None:
    path = graph_file(batch=4)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    plain = Runner(path, "cpu", threads=1).run(image, masks[:8])["scores"]
    binding = Binding(session, {"image": np.repeat(image, 4, 0)}, "cpu", records=True)
    where, found = [], []
    for i in (0, 4):
        found += binding.run({"mask": masks[i : i + 4]}, onnxruntime.RunOptions())
        where.append([value.data_ptr() for value in (*binding._inputs.values(), *binding._results)])
    assert where[0] == where[1]
    np.testing.assert_allclose(np.concatenate(found), plain, atol=1e-5)
    free = onnxruntime.InferenceSession(graph_file(), providers=["CPUExecutionProvider"])
    with pytest.raises(ModelError, match="enable_cuda_graph needs a graph of a fixed batch"):
        Binding(free, {}, "cpu", records=True)


def test_a_file_that_is_replaced_later_is_still_the_one_that_was_loaded(
    graph_file: GraphFile, image: np.ndarray, masks: np.ndarray, tmp_path: Path
) -> None:
    path = graph_file()
    runner = Runner(path, "cpu", threads=1)
    before, known = runner.run(image, masks)["scores"], runner.sha256
    os.replace(shutil.copy(__file__, tmp_path / "other"), path)
    assert runner.sha256 == known
    np.testing.assert_array_equal(runner.run(image, masks)["scores"], before)


def test_a_file_that_is_replaced_while_it_is_loaded_is_refused(
    graph_file: GraphFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = graph_file()
    opened = module.open_session

    def replacing(*given: Any, **named: Any) -> Any:
        session = opened(*given, **named)
        os.utime(path, ns=(0, 0))
        return session

    monkeypatch.setattr(module, "open_session", replacing)
    with pytest.raises(ModelError, match=f"^{re.escape(str(path))}: was replaced while it was being loaded"):
        Runner(path, "cpu")
