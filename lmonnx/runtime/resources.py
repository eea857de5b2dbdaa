"""What this process may use of the machine: processors and memory, as affinity and control groups limit them."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from functools import cache
from pathlib import Path

#: Where Linux mounts control groups, and where it says to which ones a process belongs.
GROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
#: A group's files, of version 2 and of version 1: its limit in bytes, what it holds, how much of that is file cache.
_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


@cache
def processors() -> int:
    """How many threads compute at best: the processors that this process may use, two threads of a core being one.

    The smallest of the cores, the affinity mask, and the quota of the control groups, as joblib finds them
    (``LOKY_MAX_CPU_COUNT`` limits it too).
    """
    import joblib
    import psutil

    cores = psutil.cpu_count(logical=False)
    allowed: int = joblib.cpu_count()
    return min(allowed, cores or allowed)


def processor() -> str:
    """The processor, as far as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def free_memory() -> int:
    """Bytes that this process can still take before the system swaps or kills: the least of host and control groups."""
    import psutil

    return min([int(psutil.virtual_memory().available), *_left_in_groups(GROUPS, OWN)])


def resident_memory() -> int:
    """Bytes of memory that this process holds."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def _left_in_groups(mounted: Path, own: Path) -> Iterator[int]:
    """Bytes left in each control group of this process that has a limit, from its own up to the root."""
    for folder in _groups(mounted, own):
        for limit, held, cache_ in _FILES:
            most, used = _number(folder / limit), _number(folder / held)
            if most is not None and used is not None:
                yield max(0, most - used + _cached(folder / "memory.stat", cache_))


def _groups(mounted: Path, own: Path) -> Iterator[Path]:
    """The folders of the memory groups: version 2 has one tree, version 1 one of its own for memory."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "memory" in controllers.split(","):
            root = mounted / "memory" if controllers else mounted
            folder = root / path.strip("/")
            yield from (folder, *(parent for parent in folder.parents if parent.is_relative_to(root)))


def _number(file: Path) -> int | None:
    """The number in a file; None if there is no file, or it says "max"."""
    try:
        text = file.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _cached(file: Path, name: str) -> int:
    """Bytes of a group that are only a cache of files, which the system gives up first."""
    try:
        pairs = (line.split() for line in file.read_text(encoding="utf-8").splitlines())
        return next((int(value) for key, value in pairs if key == name), 0)
    except OSError:
        return 0
