"""docs/production.md: its snippets are the files of examples/, and print what the page says."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import lmonnx
from portability import browser

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PAGE = (ROOT / "docs" / "production.md").read_text(encoding="utf-8")
QUOTED = re.compile(r"^\[`examples/([\w.]+)`\]\(\.\./examples/\1\)\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ ((?:python|node) .*)\n((?:.+\n)+?)```$", re.MULTILINE)
NOT_RUN = {"Predict.cs"}
#: By how much processors and libraries that resize may differ, in percentages printed.
POINTS = 0.3


def printed(program: str) -> tuple[list[str], str]:
    """The command of the page that runs a file, and what it prints there."""
    ((command, output),) = [pair for pair in COMMAND.findall(PAGE) if f" {program} " in pair[0]]
    return command.split(), output


def percentages(text: str) -> tuple[str, list[float]]:
    numbers = [float(number) for number in re.findall(r"([\d.]+)%", text)]
    return re.sub(r"[\d.]+%", "#", text), numbers


def agree(some: str, other: str, points: float = POINTS) -> None:
    (words, numbers), (more_words, more_numbers) = percentages(some), percentages(other)
    assert words == more_words, f"{some!r} is not {other!r}"
    assert numbers == pytest.approx(more_numbers, abs=points)


def run(command: list[str], place: Path, packages: Path | None = None) -> str:
    """What an example prints in a folder that has it and all that it needs."""
    program = {"python": sys.executable, "node": "node"}[command[0]]
    shutil.copy(EXAMPLES / command[1], place)
    if packages and not (place / "node_modules").exists():
        (place / "node_modules").symlink_to(packages, target_is_directory=True)
    return subprocess.run([program, *command[1:]], cwd=place, capture_output=True, text=True, check=True).stdout


def test_the_page_quotes_every_example_as_it_is() -> None:
    quoted = dict(QUOTED.findall(PAGE))
    assert quoted == {file.name: file.read_text(encoding="utf-8") for file in EXAMPLES.iterdir() if file.is_file()}


def test_what_was_not_run_says_so() -> None:
    sections = {
        name: PAGE[: PAGE.index(f"[`examples/{name}`]")].rpartition("\n## ")[2] for name, _ in QUOTED.findall(PAGE)
    }
    assert {name for name, section in sections.items() if "**Not run.**" in section} == NOT_RUN


def test_python(place: Path) -> None:
    command, output = printed("predict.py")
    agree(run(command, place), output)


def test_openvino(place: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install '.[dev]'")
    command, output = printed("predict_openvino.py")
    agree(run(command, place), output)


def test_node(place: Path, packages: Path) -> None:
    command, output = printed("predict.mjs")
    agree(run(command, place, packages), output)


@pytest.mark.parametrize("command", ["python predict.py scenes.onnx", "node predict.mjs scenes.onnx scenes.json"])
def test_classes_without_names(place: Path, tmp_path: Path, command: str, request: pytest.FixtureRequest) -> None:
    packages = request.getfixturevalue("packages") if command.startswith("node") else None
    model = onnx.load(place / "scenes.onnx")
    (labels,) = [prop for prop in model.metadata_props if prop.key == "lmonnx.labels"]
    labels.value = "null"
    onnx.save(model, tmp_path / "scenes.onnx")
    description = lmonnx.inspect(tmp_path / "scenes.onnx").to_json()
    (tmp_path / "scenes.json").write_text(json.dumps(description), encoding="utf-8")
    shutil.copy(place / "scene.png", tmp_path)
    assert run([*command.split(), "scene.png"], tmp_path, packages).startswith("whole: class 9 ")


def test_cpp(place: Path, tmp_path: Path) -> None:
    release = os.environ.get("LMONNX_ONNXRUNTIME_CPP")
    if not release or shutil.which("g++") is None:
        pytest.skip("no g++, or LMONNX_ONNXRUNTIME_CPP names no onnxruntime release for C and C++, which PyPI has not")
    shutil.copy(EXAMPLES / "predict.cpp", tmp_path)
    (tmp_path / "onnxruntime").symlink_to(release, target_is_directory=True)
    with Image.open(place / "scene.png") as scene:
        (tmp_path / "pixels").write_bytes(scene.convert("RGB").tobytes())
    shutil.copy(place / "scenes.onnx", tmp_path)
    ((build, ask, output),) = re.findall(
        r"^\$ (g\+\+ .*)\n\$ convert .*\n\$ (\./predict .*)\n((?:.+\n)+?)```$", PAGE, re.M
    )
    subprocess.run(build.split(), cwd=tmp_path, check=True)
    agree(subprocess.run(ask.split(), cwd=tmp_path, capture_output=True, text=True, check=True).stdout, output)


@pytest.fixture(scope="module")
def cropped(place: Path) -> Path:
    """A folder with a file whose photographs are cropped, and with a photograph that lies on its side."""
    folder = place / "cropped"
    folder.mkdir()
    model = onnx.load(place / "scenes.onnx")
    (preprocessing,) = [prop for prop in model.metadata_props if prop.key == "lmonnx.preprocessing"]
    preprocessing.value = json.dumps({**json.loads(preprocessing.value), "resize": 160})
    onnx.save(model, folder / "scenes.onnx")
    description = lmonnx.inspect(folder / "scenes.onnx")
    (folder / "scenes.json").write_text(json.dumps(description.to_json()), encoding="utf-8")
    with Image.open(place / "scene.png") as scene:
        photo = scene.resize((420, 300), Image.Resampling.BICUBIC).rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn clockwise
    photo.save(folder / "photo.jpg", exif=exif, quality=95)
    mask = np.zeros((300, 420), np.uint8)
    mask[:200, :250] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    return folder


def expected(folder: Path) -> str:
    """What lmonnx itself says, in the words of the examples."""
    masks = [None, folder / "mask.png"]
    found = lmonnx.load(folder / "scenes.onnx").predict(folder / "photo.jpg", masks)
    tops = [prediction.top(1)[0] for prediction in found]
    return "".join(
        f"{name}: {top.name} {top.probability:.1%}\n" for name, top in zip(("whole", "masked"), tops, strict=True)
    )


def test_python_crops_as_lmonnx_does(cropped: Path) -> None:
    agree(run(["python", "predict.py", "scenes.onnx", "photo.jpg", "mask.png"], cropped), expected(cropped), 0.01)


def test_node_crops_nearly_as_lmonnx_does(cropped: Path, packages: Path) -> None:
    command = ["node", "predict.mjs", "scenes.onnx", "scenes.json", "photo.jpg", "mask.png"]
    agree(run(command, cropped, packages), expected(cropped), 5.0)


@contextlib.contextmanager
def opened(place: Path, packages: Path, chromium: str) -> Iterator[browser.Page]:
    """The page of the example, beside the model of a folder, when it takes photographs."""
    served = {name: place / name for name in ("scenes.onnx", "scenes.json")}
    served |= {"node_modules": packages, "index.html": EXAMPLES / "index.html"}
    with browser.serving(served) as address, browser.Page(chromium) as page:
        page.open(f"{address}/index.html")
        page.until("!document.getElementById('photo').disabled")
        yield page


def said(page: browser.Page, what: str) -> str:
    return str(page.evaluate(f"document.getElementById('{what}').textContent"))


def drag(page: browser.Page, start: tuple[int, int], end: tuple[int, int]) -> None:
    """From a pixel of the network's image, (row, column), to another."""
    left, top, shown = page.evaluate(
        "(({left, top, width}) => [left, top, width])(document.getElementById('canvas').getBoundingClientRect())"
    )
    ends = [(left + column * shown / 128, top + row * shown / 128) for row, column in (start, end)]
    page.drag(*ends)


def test_the_browser(place: Path, packages: Path, chromium: str) -> None:
    _, output = printed("predict.mjs")
    rows, columns = np.nonzero(np.asarray(Image.open(place / "object.png")))
    with opened(place, packages, chromium) as page:
        page.choose("#photo", place / "scene.png")
        page.until("document.getElementById('whole').textContent")
        drag(page, (rows.min(), columns.min()), (rows.max() + 1, columns.max() + 1))
        page.until("document.getElementById('masked').textContent")
        agree("".join(f"{said(page, what)}\n" for what in ("whole", "masked")), output)


def test_the_browser_asks_about_boxes_of_the_photograph_that_is_shown(
    place: Path, cropped: Path, packages: Path, chromium: str
) -> None:
    with opened(place, packages, chromium) as page:
        drag(page, (10, 10), (50, 50))  # no photograph yet
        page.choose("#photo", place / "scene.png")
        page.until("document.getElementById('whole').textContent")
        drag(page, (20, 20), (20, 20))
        assert not said(page, "masked")
        drag(page, (20, 20), (300, 140))  # beyond two edges
        page.until("document.getElementById('masked').textContent")
        page.choose("#photo", cropped / "photo.jpg")
        page.until("!document.getElementById('masked').textContent")


def test_the_browser_crops_nearly_as_lmonnx_does(cropped: Path, packages: Path, chromium: str) -> None:
    with opened(cropped, packages, chromium) as page:
        page.choose("#photo", cropped / "photo.jpg")
        page.until("document.getElementById('whole').textContent")
        agree(said(page, "whole") + "\n", expected(cropped).splitlines(keepends=True)[0], 5.0)
