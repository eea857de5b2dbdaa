"""Processors and memory as affinity and control groups limit them, on made-up trees of control groups."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmonnx.runtime import resources

GIB = 1 << 30


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("own", "files", "left"),
    [
        ("0::/\n", {}, []),
        ("0::/job\n", {"job/memory.max": "max\n", "job/memory.current": "5\n"}, []),
        (
            "0::/a/b\n",
            {
                "a/b/memory.max": str(4 * GIB),
                "a/b/memory.current": str(3 * GIB),
                "a/b/memory.stat": f"anon 1\ninactive_file {GIB}\n",
                "a/memory.max": str(8 * GIB),
                "a/memory.current": str(7 * GIB),
            },
            [2 * GIB, GIB],
        ),
        (
            "5:cpu,cpuacct:/x\n4:memory:/x\n",
            {
                "memory/x/memory.limit_in_bytes": str(2 * GIB),
                "memory/x/memory.usage_in_bytes": str(3 * GIB),
                "memory/x/memory.stat": "total_inactive_file 7\n",
            },
            [0],
        ),
    ],
    ids=["none", "no limit", "version 2", "version 1, over its limit"],
)
def test_memory_left_in_control_groups(tmp_path: Path, own: str, files: dict[str, str], left: list[int]) -> None:
    groups = tree(tmp_path / "groups", files)
    (tmp_path / "own").write_text(own)
    assert [*resources._left_in_groups(groups, tmp_path / "own")] == left


def test_the_least_memory_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < resources.free_memory() < 1 << 50
    monkeypatch.setattr(resources, "GROUPS", tree(tmp_path, {"memory.max": "1000000", "memory.current": "400000"}))
    monkeypatch.setattr(resources, "OWN", tmp_path / "own")
    (tmp_path / "own").write_text("0::/\n")
    assert resources.free_memory() == 600000


def test_what_this_process_holds() -> None:
    before = resources.resident_memory()
    held = bytearray(os.urandom(1 << 20) * 64)
    assert 48 << 20 < resources.resident_memory() - before < 256 << 20
    assert len(held) == 64 << 20


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity masks")
def test_threads_follow_the_affinity_mask() -> None:
    code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); " \
           "from lmonnx.runtime.resources import processors; print(processors())"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    assert resources.processors() <= len(os.sched_getaffinity(0))
