"""Photographs prepared in other processes, some of which die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from lmonnx.errors import ImageError
from lmonnx.runtime.workers import prepared, usual_workers

NAMES = [f"{number}" for number in range(12)]


def told(path: Path) -> tuple[str, int]:
    return path.name, os.getpid()


def picky(path: Path) -> str:
    if path.name == "3":
        raise ImageError("3: is damaged")
    if path.name == "5":
        raise ZeroDivisionError("a bug")
    return path.name


def deadly(path: Path, once: Path) -> str:
    """At 4 a process dies always, at 7 the first time."""
    if path.name == "4" or (path.name == "7" and not once.exists()):
        if path.name == "7":
            once.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return path.name


def lazy(path: Path) -> str:
    time.sleep(0 if path.name == "first" else 60)
    return path.name


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_in_order_and_beside_this_process(workers: int) -> None:
    found = [*prepared(NAMES, Path, told, workers)]
    assert [(name, name) for name in NAMES] == [(name, result[0]) for name, result in found]  # type: ignore[index]
    processes = {result[1] for _, result in found}  # type: ignore[index]
    assert (os.getpid() in processes) == (workers == 0)
    assert len(processes) <= max(workers, 1)


@pytest.mark.parametrize("workers", [0, 1])
def test_one_that_cannot_be_prepared_stops_no_other(workers: int) -> None:
    found = dict(prepared(NAMES, Path, picky, workers))
    assert isinstance(found["3"], ImageError)
    assert str(found["3"]) == "3: is damaged"
    assert str(found["5"]) == "5: ZeroDivisionError: a bug"
    assert all(result == name for name, result in found.items() if name not in ("3", "5"))


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_that_die_are_replaced(workers: int, tmp_path: Path) -> None:
    found = [*prepared(NAMES, Path, partial(deadly, once=tmp_path / "once"), workers)]
    assert [name for name, _ in found] == NAMES
    assert str(dict(found)["4"]) == "4: the process that prepares it dies; is it too large for the memory here?"
    assert all(result == name for name, result in found if name != "4")


def test_who_stops_early_leaves_no_process() -> None:
    some = prepared(["first", *NAMES], Path, lazy, 2)
    next(some)
    start = time.monotonic()
    some.close()  # type: ignore[attr-defined]
    assert time.monotonic() - start < 1
    assert not [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


PROGRAM = """
import sys, time
from pathlib import Path
from lmonnx.runtime.workers import prepared
from tests.runtime.test_workers import told
if __name__ == "__main__":
    some = prepared([str(n) for n in range(9)], Path, told, 2)
    print(next(some)[1][1], flush=True)
    time.sleep(60)
"""


def test_processes_die_with_the_one_that_made_them(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    program = subprocess.Popen(
        [sys.executable, tmp_path / "program.py"], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    with program, program.stdout as said:
        worker = psutil.Process(int(said.readline()))
        assert worker.is_running()
        program.kill()
    worker.wait(10)


UNGUARDED = """
import sys
from pathlib import Path
from lmonnx.errors import OptionError
from lmonnx.runtime.finding import Found
from lmonnx.runtime.jobs import run_job
from tests.runtime.test_workers import lines_of, told
found = Found(Path("."), tuple(str(n) for n in range(9)))
try:
    outcome = run_job(Path(sys.argv[1]), {}, found, told, lines_of, int(sys.argv[2]))
except OptionError as error:
    sys.exit(f"told: {error}")
print(outcome)
"""


def lines_of(some: Any) -> Any:
    return ((name, {"process": result[1]}) for name, result in some)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_script_that_cannot_be_imported_again_is_told_so(workers: int, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(UNGUARDED)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, tmp_path / "script.py", tmp_path / "out", str(workers)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if workers:
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("told: the processes that prepare photographs import the main")
    else:
        assert done.stdout == "9 of 9 photographs done\n"


def test_usual_workers() -> None:
    assert 1 <= usual_workers() <= 4
