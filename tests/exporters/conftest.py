"""The network of tests/exporters/forms.py, exported in every form, and its photographs and masks."""

from __future__ import annotations

import numpy as np
import pytest

import lmonnx
from lmonnx.runtime import Runner
from tests.exporters.forms import FORMS, PREPROCESSING, SIZE, Exported, source


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Exports the network in a form, once, with its proof."""
    folder = tmp_path_factory.mktemp("forms")
    path = source(folder)
    made: dict[str, Runner] = {}

    def export(form: str = "plain") -> Runner:
        if form not in made:
            out = folder / f"{form}.onnx"
            options = FORMS.get(form, {})
            assert lmonnx.export(path, out, preprocessing=PREPROCESSING, **options).verification
            made[form] = Runner(out, provider="cpu", threads=1)
        return made[form]

    return export


@pytest.fixture(scope="session")
def crops() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (7, *SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def masks() -> np.ndarray:
    keep = np.random.default_rng(4).random((7, 1, *SIZE)) < 0.6
    keep[0], keep[1] = True, False
    return keep
