"""How far a job is, in a terminal."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class Bar:
    """One bar on stderr: photographs, rows a second, time left. Nothing where that is no terminal, or with ``quiet``.

    Args:
        label: what computes.
        rows: of the graph's input that each photograph takes.
        unit: what a row is called, in the plural.
        quiet: show nothing.
    """

    def __init__(self, label: str, rows: int, unit: str, quiet: bool) -> None:
        console = Console(stderr=True)
        self._each = rows
        self._images = 0
        self._progress = Progress(
            TextColumn(label),
            BarColumn(),
            TextColumn("{task.fields[done]} of {task.fields[images]} photographs"),
            _Speed(unit),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not sys.stderr.isatty(),
        )

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

    def begin(self, images: int, finished: int) -> None:
        """There are so many photographs, of which some were finished before."""
        left = images - finished
        self._task = self._progress.add_task("", total=left * self._each, done=finished, images=images)
        self._finished = finished

    def rows(self, count: int) -> None:
        """So many more rows were computed."""
        self._progress.advance(self._task, count)

    def image(self) -> None:
        """One more photograph is finished, or failed."""
        self._images += 1
        least = self._images * self._each  # of one that failed nothing was computed
        done = max(least, int(self._progress.tasks[0].completed))
        self._progress.update(self._task, completed=done, done=self._finished + self._images)


class _Speed(ProgressColumn):
    """Rows a second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """The text, empty before there is a speed."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.0f} {self._unit}/s")
