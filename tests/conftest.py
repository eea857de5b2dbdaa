"""What all tests share: the golden logits, where they are at hand."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import hypothesis
import pytest

if (worker := os.environ.get("PYTEST_XDIST_WORKER")) and hasattr(os, "sched_setaffinity"):
    # Each process has cores of its own: threads that wait for each other's cores take a quarter of the time.
    cores, count = sorted(os.sched_getaffinity(0)), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.sched_setaffinity(0, cores[int(worker[2:]) % len(cores) :: count])

# The ordinary tests draw the same examples each time; `make fuzz` draws other ones, and more.
hypothesis.settings.register_profile("ordinary", derandomize=True, max_examples=30)
hypothesis.settings.register_profile("fuzz", max_examples=2500)
hypothesis.settings.load_profile("ordinary")

GOLDEN = Path(os.environ.get("LMONNX_TEST_GOLDEN", Path(__file__).resolve().parents[2] / "shared" / "golden"))


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of logits that the method's authors' own code computed."""
    if not GOLDEN.is_dir():
        pytest.skip(f"no golden logits in {GOLDEN} (LMONNX_TEST_GOLDEN)")
    return GOLDEN


@pytest.fixture(scope="session")
def recipe(golden: Path) -> ModuleType:
    """The weights, images and masks behind the golden logits."""
    spec = importlib.util.spec_from_file_location("golden_recipe", golden / "recipe.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
