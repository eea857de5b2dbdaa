"""Imports go one way, files stay short, the public names are the ones we mean."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import lmonnx

PACKAGE = Path(lmonnx.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
VOCABULARY = {"lmonnx.errors", "lmonnx.masking"}
#: Part of the package -> what of lmonnx, and which of the large libraries, it may import.
ALLOWED = {
    "reference": (VOCABULARY | {"lmonnx.reference"}, {"torch"}),
    "runtime": (VOCABULARY | {"lmonnx.runtime"}, {"onnxruntime"}),
    "explain": (VOCABULARY | {"lmonnx", "lmonnx.explain", "lmonnx.runtime"}, {"onnxruntime"}),
    "evaluate": (VOCABULARY | {"lmonnx.evaluate", "lmonnx.explain", "lmonnx.runtime"}, set()),
    "deploy": ({"lmonnx.errors", "lmonnx.deploy", "lmonnx.runtime"}, set()),
    "exporters": (
        VOCABULARY | {"lmonnx", "lmonnx.exporters", "lmonnx.reference", "lmonnx.runtime"},
        {"torch", "onnx", "onnx_ir", "onnxscript", "onnxruntime"},
    ),
    "speed": (
        VOCABULARY | {"lmonnx.speed", "lmonnx.exporters", "lmonnx.runtime"},
        {"torch", "onnx_ir"},
    ),
    "exporters/ops": (VOCABULARY | {"lmonnx.exporters.ops"}, {"onnx_ir", "onnxscript"}),
    "exporters/lowering": (VOCABULARY | {"lmonnx.exporters.ops", "lmonnx.exporters.lowering"}, {"onnx_ir"}),
}
LARGE = {"torch", "torchvision", "onnx", "onnx_ir", "onnxscript", "onnxruntime"}


def imported(file: Path) -> set[str]:
    """Every module that a file imports, at its top or in a function."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names.add(str(node.module))
    return names


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_go_one_way(part: str) -> None:
    own, libraries = ALLOWED[part]
    for file in sorted((PACKAGE / part).rglob("*.py")):
        for name in imported(file):
            root = name.partition(".")[0]
            if root == "lmonnx":
                inside = any(name == prefix or name.startswith(f"{prefix}.") for prefix in own - {"lmonnx"})
                assert inside or name in own, f"{file} imports {name}"
            assert root not in LARGE - libraries, f"{file} imports {name}"


def test_lowering_and_reference_share_vocabulary_only() -> None:
    shared = {name for part in ("exporters/lowering", "exporters/ops") for file in (PACKAGE / part).rglob("*.py")
              for name in imported(file)}  # fmt: skip
    assert not any(name.startswith("lmonnx.reference") for name in shared)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_files_stay_short(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 400


def test_public_names() -> None:
    assert lmonnx.__all__ == [
        "Box",
        "Explanation",
        "Export",
        "LmonnxError",
        "MaskRules",
        "Prediction",
        "Preprocessing",
        "Runner",
        "Verification",
        "bench",
        "export",
        "inspect",
        "load",
        "verify",
    ]
    for name in lmonnx.__all__:
        assert getattr(lmonnx, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lmonnx.nothing
    assert importlib.metadata.version("lmonnx") == lmonnx.__version__
