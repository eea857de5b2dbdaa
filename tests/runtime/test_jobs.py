"""The files of a job: whole lines, what is finished, and what the folder was begun with."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lmonnx.errors import ImageError, LmonnxError, OptionError, PublishError
from lmonnx.runtime.finding import Found
from lmonnx.runtime.jobs import Journal, Outcome, Record, run_job

NAMES = ("a.jpg", "b.jpg", "inner/ü.jpg")


def length(path: Path) -> int:
    if path.name == "b.jpg" and not path.exists():
        raise ImageError(f"{path}: there is no such file")
    return len(path.name)


def lines(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


class Counted:
    """Notes what a job tells, and what was worked on."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.worked: list[str] = []

    def begin(self, images: int, finished: int) -> None:
        self.told.append((images, finished))

    def rows(self, count: int) -> None:
        self.told.append(count)

    def image(self) -> None:
        self.told.append("image")

    def work(self, some: Iterator[tuple[str, int]]) -> Iterator[tuple[str, Record | LmonnxError]]:
        for name, size in some:
            self.worked.append(name)
            yield name, {"length": size}


def run(folder: Path, root: Path, counted: Counted, **settings: Any) -> Outcome:
    return run_job(folder, {"command": "test", **settings}, Found(root, NAMES), length, counted.work, 0, counted)


def test_what_is_finished_is_not_done_again(tmp_path: Path) -> None:
    folder, first, second, third = tmp_path / "new" / "out", Counted(), Counted(), Counted()
    outcome = run(folder, tmp_path, first)
    assert str(outcome) == f"2 of 3 photographs done, 1 failed, see {folder / 'errors.jsonl'}"
    assert lines(folder / "results.jsonl") == [{"photo": n, "length": 5} for n in ("a.jpg", "inner/ü.jpg")]
    assert lines(folder / "errors.jsonl") == [
        {"photo": "b.jpg", "error": f"{tmp_path / 'b.jpg'}: there is no such file"}
    ]
    assert first.told == [(3, 0), "image", "image", "image"]

    (tmp_path / "b.jpg").touch()
    outcome = run(folder, tmp_path, second)
    assert str(outcome) == "1 of 3 photographs done, 2 were there before"
    assert (second.worked, second.told) == (["b.jpg"], [(3, 2), "image"])
    assert not (folder / "errors.jsonl").exists()
    assert str(run(folder, tmp_path, third)) == "0 of 3 photographs done, 3 were there before"
    assert third.worked == []


def test_a_line_that_was_cut_off_is_taken_away(tmp_path: Path) -> None:
    (tmp_path / "b.jpg").touch()
    run(tmp_path / "out", tmp_path, Counted())
    whole = (tmp_path / "out" / "results.jsonl").read_bytes()
    for cut in range(len(whole) - 1, len(whole) - 40, -7):
        (tmp_path / "out" / "results.jsonl").write_bytes(whole[:cut])
        counted = Counted()
        run(tmp_path / "out", tmp_path, counted)
        assert counted.worked == ["inner/ü.jpg"]
        assert (tmp_path / "out" / "results.jsonl").read_bytes() == whole


def test_a_folder_takes_results_of_one_kind(tmp_path: Path) -> None:
    run(tmp_path / "out", tmp_path, Counted(), samples=10)
    with pytest.raises(OptionError, match=r"holds results of other settings \(samples was 10, is 20\); name another"):
        run(tmp_path / "out", tmp_path, Counted(), samples=20)
    with pytest.raises(OptionError, match=r"root was "):
        run(tmp_path / "out", tmp_path / "elsewhere", Counted(), samples=10)
    assert lines(tmp_path / "out" / "results.jsonl")
    for content in ("", "[1]", "{"):
        (tmp_path / "out" / "job.json").write_text(content)
        with pytest.raises(OptionError, match=r"job\.json is not a job's"):
            run(tmp_path / "out", tmp_path, Counted(), samples=10)


def test_a_folder_without_results_takes_any(tmp_path: Path) -> None:
    class Failing(Counted):
        def work(self, some: Iterator[tuple[str, int]]) -> Iterator[tuple[str, Record | LmonnxError]]:
            for name, _ in some:
                yield name, ImageError("as it is")

    run(tmp_path / "out", tmp_path, Failing(), mask="misspelt.png")
    run(tmp_path / "out", tmp_path, Counted(), mask="mask.png")
    assert json.loads((tmp_path / "out" / "job.json").read_text())["mask"] == "mask.png"


def test_a_folder_is_one_process_s_at_a_time(tmp_path: Path) -> None:
    with Journal(tmp_path / "out", {}), pytest.raises(OptionError, match="another process works in "):
        run(tmp_path / "out", tmp_path, Counted())
    run(tmp_path / "out", tmp_path, Counted())


def test_names_that_are_no_text(tmp_path: Path) -> None:
    names = (os.fsdecode(b"a\xff.jpg"), "\U0001f600\n.jpg")
    for done in (2, 0):
        counted = Counted()
        found = Found(tmp_path, names)
        outcome = run_job(tmp_path / "out", {"root": names[0]}, found, length, counted.work, 0, counted)
        assert outcome.images - outcome.finished == len(counted.worked) == done
    text = (tmp_path / "out" / "results.jsonl").read_bytes().decode()
    assert [json.loads(line)["photo"] for line in text.splitlines()] == [*names]


def test_a_line_of_somebody_elses(tmp_path: Path) -> None:
    run(tmp_path / "out", tmp_path, Counted())
    (tmp_path / "out" / "results.jsonl").write_text('{"name": "a.jpg"}\n')
    with pytest.raises(OptionError, match="holds a line that is not a job's"):
        run(tmp_path / "out", tmp_path, Counted())


def test_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PublishError, match="file: cannot be written"):
        run(tmp_path / "file", tmp_path, Counted())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.jsonl").mkdir()
    with pytest.raises(PublishError, match="cannot be written"):
        run(tmp_path / "out", tmp_path, Counted())


def test_an_interrupted_job_goes_on(tmp_path: Path) -> None:
    (tmp_path / "b.jpg").touch()

    class Interrupted(Counted):
        def work(self, some: Iterator[tuple[str, int]]) -> Iterator[tuple[str, Record | LmonnxError]]:
            yield from super().work(iter([next(some)]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", tmp_path, Interrupted())
    counted = Counted()
    assert str(run(tmp_path / "out", tmp_path, counted)) == "2 of 3 photographs done, 1 were there before"
    assert counted.worked == ["b.jpg", "inner/ü.jpg"]
