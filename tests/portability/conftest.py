"""The bundled network as one file, and what runs it outside of Python, where that is at hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lmonnx
from lmonnx.demo import SCENE
from lmonnx.evaluate.scenes import draw
from portability import browser, runtimes


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what docs/production.md begins with: the file, its description, a photograph, a mask."""
    folder = tmp_path_factory.mktemp("production")
    lmonnx.export("scenes-material", folder / "scenes.onnx", image="uint8", softmax=True, verify=False)
    about = json.dumps(lmonnx.inspect(folder / "scenes.onnx").to_json())
    (folder / "scenes.json").write_text(about, encoding="utf-8")
    scene = draw(SCENE, "material")
    Image.fromarray(scene.pixels).save(folder / "scene.png")
    Image.fromarray(np.uint8(scene.object) * 255).save(folder / "object.png")
    return folder


@pytest.fixture(scope="session")
def packages() -> Iterator[Path]:
    """The folder of npm's packages, which a test does not install."""
    found = runtimes.packages()
    if found is None or shutil.which("node") is None:
        pytest.skip("no Node.js with onnxruntime-node: make node installs it, or LMONNX_NODE_MODULES names it")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMONNX_NODE_MODULES", str(found))
        yield found


@pytest.fixture(scope="session")
def chromium() -> str:
    found = browser.find()
    if found is None:
        pytest.skip("no Chromium: apt-get install chromium, or name one with LMONNX_CHROMIUM")
    return found
