"""A production host has neither torch nor onnx; and importing is cheap."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("runtime", "explain")
    for path in (ROOT / "lmonnx" / package).glob("*.py")
)


def loaded(code: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after running ``code``."""
    program = f"{code}\nimport sys; print('loaded:', *sorted(name.partition('.')[0] for name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split("loaded:")[1].split())


def test_importing_loads_nothing_heavy() -> None:
    heavy = {"torch", "onnx", "onnxscript", "onnx_ir", "onnxruntime", "skimage", "sklearn", "scipy"}
    assert len(MODULES) > 8
    assert not heavy & loaded("\n".join(f"import {module}" for module in MODULES))


def test_explaining_loads_neither_torch_nor_onnx(
    block_graph: Callable[..., Path], photo: Image.Image, tmp_path: Path
) -> None:
    photo.save(tmp_path / "photo.png")
    arguments = f"{str(block_graph())!r}, {str(tmp_path / 'photo.png')!r}, samples=20, segments=9"
    packages = loaded(f"from lmonnx.explain.lime import explain\nexplain({arguments}).save({str(tmp_path / 'out')!r})")
    assert "onnxruntime" in packages
    assert not packages & {"torch", "torchvision", "onnx", "onnxscript", "onnx_ir"}
