"""Many photographs, one after the other: found, prepared in other processes, worked on here, and written down.

A job's folder holds ``job.json``, what it is; ``results.jsonl``, a line for each photograph that is finished; and
``errors.jsonl``, a line for each that the last run could not do. A line is there whole or not at all, and a photograph
that has one among the results is not done again. A folder is one process's at a time.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias, TypeVar

from lmonnx.errors import LmonnxError, OptionError, PublishError
from lmonnx.runtime.finding import Found
from lmonnx.runtime.workers import prepared, require_main
from lmonnx.runtime.written import replace_text, to_text

try:
    import fcntl
except ImportError:  # Windows, where two processes in one folder are not told apart
    fcntl = None  # type: ignore[assignment]

_T = TypeVar("_T")

FORMAT = 1
"""Version of the files of a job."""

JOB, RESULTS, ERRORS, LOCK = "job.json", "results.jsonl", "errors.jsonl", ".lock"

Record: TypeAlias = Mapping[str, Any]
"""What a line says beside the name of the photograph."""

Work: TypeAlias = Callable[[Iterator[tuple[str, _T]]], Iterator[tuple[str, Record | LmonnxError]]]
"""(name, what was prepared of the photograph) one after the other -> (name, what came of it), in any order."""


class Progress(Protocol):
    """Is told how far a job is."""

    def begin(self, images: int, finished: int) -> None:
        """There are so many photographs, of which some were finished before."""

    def rows(self, count: int) -> None:
        """So many more rows were computed."""

    def image(self) -> None:
        """One more photograph is finished, or failed."""


class Silent:
    """Tells nobody."""

    def begin(self, images: int, finished: int) -> None:
        """Nothing."""

    def rows(self, count: int) -> None:
        """Nothing."""

    def image(self) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Outcome:
    """What came of a run of a job.

    Attributes:
        folder: of the job.
        images: photographs in all.
        finished: of them, those that were finished before.
        failed: those that could not be done, by name, with the reason.
    """

    folder: Path
    images: int
    finished: int
    failed: Mapping[str, str]

    def __str__(self) -> str:
        done = self.images - self.finished - len(self.failed)
        before = f", {self.finished} were there before" if self.finished else ""
        lost = f", {len(self.failed)} failed, see {self.folder / ERRORS}" if self.failed else ""
        return f"{done} of {self.images} photographs done{before}{lost}"


def run_job(
    folder: Path,
    settings: Mapping[str, Any],
    found: Found,
    prepare: Callable[[Path], _T],
    work: Work[_T],
    workers: int,
    progress: Progress | None = None,
) -> Outcome:
    """Works through photographs, leaving out what is finished.

    Args:
        folder: of the job; made if it does not exist.
        settings: what decides the results, as JSON knows it; a folder takes results of one kind only.
        found: the photographs.
        prepare: what is done with each first, in other processes: it and what it returns have to be known to pickle.
        work: what is done with that in this process.
        workers: processes that prepare; 0 prepares in this one.
        progress: is told how far it is.

    Raises:
        OptionError: if the folder holds results of other settings.
        PublishError: if it cannot be written to.
    """
    require_main(workers)
    progress = progress or Silent()
    with Journal(folder, {"root": str(found.root), **settings}) as journal:
        return _run(journal, found, prepare, work, workers, progress)


def _run(
    journal: Journal,
    found: Found,
    prepare: Callable[[Path], _T],
    work: Work[_T],
    workers: int,
    progress: Progress,
) -> Outcome:
    left = [name for name in found.names if name not in journal.finished]
    progress.begin(len(found.names), len(found.names) - len(left))
    failed: dict[str, str] = {}

    def fit() -> Iterator[tuple[str, _T]]:
        for name, result in prepared(left, lambda name: found.root / name, prepare, workers):
            if isinstance(result, LmonnxError):
                fail(name, result)
            else:
                yield name, result

    def fail(name: str, error: LmonnxError) -> None:
        failed[name] = str(error)
        journal.fail(name, str(error))
        progress.image()

    for name, record in work(fit()):
        if isinstance(record, LmonnxError):
            fail(name, record)
        else:
            journal.finish(name, record)
            progress.image()
    return Outcome(journal.folder, len(found.names), len(found.names) - len(left), failed)


class Journal:
    """The files of a job, locked for this process until it is closed.

    Args:
        folder: made if it does not exist.
        settings: what decides the results.

    Attributes:
        finished: names of the photographs that have a line.

    Raises:
        OptionError: if the folder holds results of other settings.
        PublishError: if it cannot be written to.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        job = {"format": FORMAT, **settings}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as held:
                held.enter_context(_locked(folder))
                self.finished = _names(folder / RESULTS)
                if (folder / JOB).exists() and self.finished:
                    _require_same(folder, job)
                else:
                    replace_text(folder / JOB, to_text(job, indent=2) + "\n")
                (folder / ERRORS).unlink(missing_ok=True)
                self._held = held.pop_all()
        except OSError as error:
            raise PublishError(f"{folder}: cannot be written: {error}") from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def finish(self, name: str, record: Record) -> None:
        """Writes what came of a photograph."""
        self._append(RESULTS, {"photo": name, **record})

    def fail(self, name: str, reason: str) -> None:
        """Writes why a photograph could not be done; the next run of the job tries it again."""
        self._append(ERRORS, {"photo": name, "error": reason})

    def _append(self, file: str, record: Record) -> None:
        line = to_text(record) + "\n"
        try:
            with open(self.folder / file, "ab") as stream:
                stream.write(line.encode())
        except OSError as error:
            raise PublishError(f"{self.folder / file}: cannot be written: {error}") from error


def _locked(folder: Path) -> BinaryIO:
    """A file that is this process's alone, until it is closed or the process ends.

    Raises:
        OptionError: if another process works in the folder.
    """
    file = open(folder / LOCK, "ab")  # noqa: SIM115
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise OptionError(f"another process works in {folder}; wait for it, or name another folder") from None
    return file


def _require_same(folder: Path, job: Mapping[str, Any]) -> None:
    try:
        known = json.loads((folder / JOB).read_text(encoding="utf-8"))
        differing = {key for key in {*known, *job} if known.get(key) != job.get(key)}
    except (ValueError, TypeError, AttributeError) as error:
        raise OptionError(f"{folder / JOB} is not a job's; name another folder") from error
    if differing:
        told = "; ".join(f"{key} was {known.get(key)!r}, is {job.get(key)!r}" for key in sorted(differing))
        raise OptionError(f"{folder} holds results of other settings ({told}); name another folder, or empty it")


def _names(file: Path) -> frozenset[str]:
    """The photographs that have a line; one that was cut off when a process was killed is taken away."""
    if not file.exists():
        return frozenset()
    content = file.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with open(file, "r+b") as stream:
            stream.truncate(len(whole))
    try:
        return frozenset(json.loads(line)["photo"] for line in whole.splitlines())
    except (ValueError, KeyError, TypeError) as error:
        raise OptionError(f"{file} holds a line that is not a job's; name another folder") from error
