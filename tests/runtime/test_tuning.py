"""The batch size: measured in another process, remembered beside the model, and never more than fits."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmonnx.runtime import session, trials, tuning
from lmonnx.runtime.session import Runner
from lmonnx.runtime.tuning import Trial, best

GraphFile = Callable[..., Path]
MIB = 1 << 20
#: A row takes 10, 6, 5, 4.95 and 5.2 ms, and 10 MiB.
TRIALS = [Trial(n, n * ms / 1000, n * 10 * MIB) for n, ms in ((1, 10), (2, 6), (4, 5), (8, 4.95), (16, 5.2))]


@pytest.mark.parametrize(("free", "rows"), [(1 << 40, 4), (80 * MIB, 4), (79 * MIB, 3), (20 * MIB, 1), (0, 1)])
def test_the_fewest_rows_that_are_quick_and_fit(free: int, rows: int) -> None:
    assert best(TRIALS, free) == rows
    assert best(TRIALS[::-1], free) == rows


def test_measured_once_and_remembered(graph_file: GraphFile, monkeypatch: pytest.MonkeyPatch) -> None:
    path = graph_file()
    runner = Runner(path, "cpu", threads=1)
    assert runner.rows_at_once == 32
    rows = runner.tune()
    file = Path(f"{path}.tuned.json")
    (entry,) = json.loads(file.read_text())["machines"]
    assert rows in [trial["rows"] for trial in entry["trials"]]
    assert all(trial["seconds"] > 0 for trial in entry["trials"])
    monkeypatch.setattr(tuning.subprocess, "run", None)
    again = Runner(path, "cpu", threads=1)
    assert (again.rows_at_once, again.tune()) == (rows, rows)
    assert sorted(item.name for item in path.parent.iterdir()) == ["model.onnx", "model.onnx.tuned.json"]


def test_it_holds_for_one_model_and_one_way_to_run_it(
    graph_file: GraphFile, matrix: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[Runner] = []

    def some(runner: Runner) -> Sequence[Trial]:
        measured.append(runner)
        return TRIALS

    monkeypatch.setattr(tuning, "_measured", some)
    path = graph_file()
    for threads in (1, 2, 1, 2):
        assert Runner(path, "cpu", threads=threads).tune() == 4
    assert [runner.threads for runner in measured] == [1, 2]
    graph_file(weights=2 * matrix)
    assert Runner(path, "cpu", threads=1).rows_at_once == 32
    Runner(path, "cpu", threads=1).tune()
    assert len(measured) == 3
    assert len(json.loads(Path(f"{path}.tuned.json").read_text())["machines"]) == 1


ENTRY = '{"format": 1, "sha256": "SHA", "machines": [{"machine": MACHINE, "trials": [TRIAL]}]}'


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        '{"format": 1}',
        '{"format": 1, "sha256": "SHA", "machines": [5]}',
        ENTRY.replace("TRIAL", ""),
        *(
            ENTRY.replace("TRIAL", f'{{"rows": {rows}, "seconds": {seconds}, "memory": {memory}}}')
            for rows, seconds, memory in (
                ("0", "1", "1"),
                ("2.5", "1", "1"),
                ('"2"', "1", "1"),
                ("1000000000", "1", "1"),
                ("2", "null", "1"),
                ("2", "0", "1"),
                ("2", "1e999", "1"),
                ("2", "1", "null"),
            )
        ),
    ],
)
def test_a_file_of_somebody_elses_is_replaced(
    graph_file: GraphFile, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setattr(tuning, "_measured", lambda _: TRIALS)
    path = graph_file()
    runner = Runner(path, "cpu", threads=1)
    machine = json.dumps(tuning._machine(runner))
    Path(f"{path}.tuned.json").write_text(content.replace("SHA", runner.sha256).replace("MACHINE", machine))
    assert runner.rows_at_once == 32
    assert runner.tune() == 4
    assert Runner(path, "cpu", threads=1).rows_at_once == 4


def test_less_memory_fewer_rows(graph_file: GraphFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "_measured", lambda _: TRIALS)
    path = graph_file()
    assert Runner(path, "cpu", threads=1).tune() == 4
    monkeypatch.setattr(session, "free_memory", lambda: 40 * MIB)
    assert Runner(path, "cpu", threads=1).rows_at_once == 2


def test_a_fixed_batch_is_the_batch(graph_file: GraphFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "_measured", None)
    runner = Runner(graph_file(batch=5), "cpu", threads=1)
    assert (runner.tune(), runner.rows_at_once) == (5, 5)


def test_where_nothing_can_be_written_it_holds_for_the_process(
    graph_file: GraphFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError("read only")

    monkeypatch.setattr(tuning, "_measured", lambda _: TRIALS)
    monkeypatch.setattr(tuning, "replace_text", refuse)
    path = graph_file()
    runner = Runner(path, "cpu", threads=1)
    assert (runner.tune(), runner.rows_at_once) == (4, 4)
    assert not Path(f"{path}.tuned.json").exists()


def test_what_was_measured_before_the_process_died_counts(
    graph_file: GraphFile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dying = tmp_path / "dying"
    dying.write_text(
        "#!/bin/sh\n"
        """echo '{"rows": 1, "seconds": 0.5, "memory": 10}'; echo '{"rows": 2, "seconds": 0.6, "memory": 20}'\n"""
        """printf '{"rows": 4, "sec'; kill -9 $$\n"""
    )
    dying.chmod(0o755)
    monkeypatch.setattr(tuning.sys, "executable", str(dying))
    runner = Runner(graph_file(), "cpu", threads=1)
    assert runner.tune() == 2
    dying.write_text("#!/bin/sh\nexit 3\n")
    os.remove(f"{runner.path}.tuned.json")
    with pytest.warns(RuntimeWarning, match="best batch size could not be measured, it ended with code 3"):
        assert Runner(runner.path, "cpu", threads=1).tune() == 32


class Slow:
    """A runner of which a batch of any size takes as long, and memory as its rows."""

    provider, size, channels = "cpu", (4, 4), 3

    def __init__(self, contract: Any, seconds: Callable[[int], float]) -> None:
        self.contract, self.seconds, self.clock, self.held = contract, seconds, 0.0, 0

    def run(self, image: np.ndarray, mask: np.ndarray) -> None:
        assert image.shape == (1, 3, 4, 4)
        assert mask.shape[1:] == (1, 4, 4)
        self.clock += self.seconds(len(mask))
        self.held = max(self.held, len(mask) * MIB)


@pytest.mark.parametrize(
    ("seconds", "free", "tried"),
    [
        (lambda _: 1.0, 1 << 40, [1, 4, 8, 16, 32, 64]),
        (lambda rows: 1.0 * rows, 1 << 40, [1, 4, 8]),
        (lambda rows: max(8.0, rows), 1 << 40, [1, 4, 8, 16, 32]),
        (lambda _: 1.0, 20 * MIB, [1, 4, 8]),
    ],
    ids=["always better", "never better", "up to 8", "little memory"],
)
def test_larger_batches_are_tried_while_they_are_better_and_fit(
    contract: Any, monkeypatch: pytest.MonkeyPatch, seconds: Callable[[int], float], free: int, tried: list[int]
) -> None:
    runner = Slow(contract, seconds)
    monkeypatch.setattr(trials.time, "perf_counter", lambda: runner.clock)
    monkeypatch.setattr(trials, "free_memory", lambda: free)
    monkeypatch.setattr(trials, "resident_memory", lambda: runner.held)
    found = [*trials.trials(runner)]  # type: ignore[arg-type]
    assert [trial.rows for trial in found] == tried
    assert [trial.memory for trial in found] == [rows * MIB for rows in tried]
