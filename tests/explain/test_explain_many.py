"""Explanations for folders: the same as one by one, each in a folder of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lmonnx.errors import OptionError
from lmonnx.explain import explain, explain_many
from lmonnx.runtime.session import Runner

BlockGraph = Callable[..., Path]
OPTIONS: dict[str, Any] = {"samples": 40, "segments": 16, "seed": 3, "batch_size": 16}


@pytest.fixture
def folder(tmp_path: Path, photo: Image.Image) -> Path:
    (tmp_path / "photos" / "inner").mkdir(parents=True)
    for name, turn in (("a.png", 0), ("b.png", 90), ("inner/c.png", 180)):
        photo.rotate(turn).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "broken.png").write_bytes(b"no picture")
    return tmp_path / "photos"


def results(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("workers", [0, 1])
def test_the_same_as_one_by_one(block_graph: BlockGraph, folder: Path, tmp_path: Path, workers: int) -> None:
    runner = Runner(block_graph(), "cpu", threads=1)
    outcome = explain_many(runner, [folder], tmp_path / "out", workers=workers, **OPTIONS)
    assert [*outcome.failed] == ["broken.png"]
    found = {line["photo"]: line for line in results(tmp_path / "out")}
    assert sorted(found) == ["a.png", "b.png", "inner/c.png"]
    for name, line in found.items():
        one = explain(runner, folder / name, **OPTIONS).to_json()
        assert json.loads((tmp_path / "out" / name / "explanation.json").read_text()) == json.loads(json.dumps(one))
        assert {key: one[key] for key in line if key != "photo"} == {k: line[k] for k in line if k != "photo"}
        assert (tmp_path / "out" / name / "overlay.png").stat().st_size > 0


def test_pictures_of_the_job_are_not_photographs(block_graph: BlockGraph, folder: Path, tmp_path: Path) -> None:
    path = block_graph()
    first = explain_many(path, [folder], folder / "out", workers=0, **OPTIONS)
    again = explain_many(path, [folder], folder / "out", workers=0, **OPTIONS)
    assert (first.images, again.images, again.finished) == (4, 4, 3)


def test_what_is_wrong_is_said_before_the_work(block_graph: BlockGraph, folder: Path, tmp_path: Path) -> None:
    for options in ({"target": 2}, {"samples": 1}, {"segments": 1}, {"seed": -1}, {"paint": 300}, {"workers": -1}):
        with pytest.raises(OptionError, match=f"{next(iter(options))}="):
            explain_many(block_graph(), [folder], tmp_path / "out", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
    with pytest.raises(OptionError, match="is the folder of the photographs; name another"):
        explain_many(block_graph(), [folder], folder, workers=0, **OPTIONS)


def test_what_a_killed_process_left_is_taken_away(block_graph: BlockGraph, folder: Path, tmp_path: Path) -> None:
    left = tmp_path / "out" / "inner" / ".lmonnx-abc"
    left.mkdir(parents=True)
    (left / "overlay.png").touch()
    explain_many(block_graph(), [folder], tmp_path / "out", workers=0, **OPTIONS)
    assert not left.exists()


def test_a_long_name(block_graph: BlockGraph, photo: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    photo.save(tmp_path / "photos" / f"{'x' * 246}.png")
    outcome = explain_many(block_graph(), [tmp_path / "photos"], tmp_path / "out", workers=0, **OPTIONS)
    assert not outcome.failed


#: What a shell starts in the background ignores Ctrl-C, and so do the tests there.
PROGRAM = """
import signal, sys
from lmonnx.cli import main
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_job_may_be_ended_at_any_moment(
    block_graph: BlockGraph, folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """Wherever it is ended, every line is whole, what has a line has its folder, and the job goes on to the end."""
    (tmp_path / "program.py").write_text(PROGRAM)
    for i in range(20):
        (folder / f"more{i}.png").write_bytes((folder / "a.png").read_bytes())
    out = tmp_path / "out"
    options = [f"--{key.replace('_size', '')}={value}" for key, value in OPTIONS.items()]
    command = [sys.executable, tmp_path / "program.py", "explain", block_graph(), folder, "-o", out, *options]
    rng, counts = np.random.default_rng(int(number)), []
    for _ in range(1 if number == signal.SIGTERM else 2):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as program:
            deadline = time.monotonic() + 60
            known = counts[-1] if counts else 0
            while not (out / "results.jsonl").exists() or len(results_of(out)) <= known:
                assert time.monotonic() < deadline
                assert program.poll() is None
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.05))
            program.send_signal(number)
            start = time.monotonic()
            _, said = program.communicate(timeout=20)
            took = time.monotonic() - start
        assert program.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
        assert "Traceback" not in said
        assert took < 1.5
        counts.append(len(results_of(out)))
        for line in results_of(out):
            assert json.loads((out / line["photo"] / "explanation.json").read_text())["class"] == line["class"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert re_counts(done.stdout) == (24 - 1 - counts[-1], counts[-1])
    assert len({line["photo"] for line in results(out)}) == len(results(out)) == 23
    assert not [path for path in out.rglob(".*") if path.name != ".lock"]


def results_of(out: Path) -> list[dict[str, Any]]:
    """The whole lines."""
    text = (out / "results.jsonl").read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def re_counts(said: str) -> tuple[int, int]:
    """How many were done, and how many were there before."""
    words = said.split()
    return int(words[0]), int(words[words.index("were") - 1])
