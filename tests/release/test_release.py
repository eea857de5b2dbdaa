"""What a stranger gets: the built files in environments of their own. ``make release`` runs these."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest
from PIL import Image

import lmonnx
from tests.release.conftest import ROOT, Environment

pytestmark = pytest.mark.release

NETWORKS = ("scenes-material", "scenes-material-grey", "scenes-shape", "scenes-shape-grey")
EXPORT_ONLY = {"torch", "torchvision", "onnx", "onnx-ir", "onnxscript", "safetensors"}


def packages(where: Environment) -> set[str]:
    listed = where.python("import importlib.metadata as m; print(*(d.name.lower() for d in m.distributions()))")
    return set(listed.split())


def test_the_wheel_holds_the_package_and_its_networks(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        fields = HeaderParser().parsestr(archive.read(metadata).decode())
    assert {f"lmonnx/weights/{network}.safetensors" for network in NETWORKS} <= names
    assert {"lmonnx/py.typed", "lmonnx/weights/README.md"} <= names
    assert {name.partition("/")[0] for name in names} == {"lmonnx", f"lmonnx-{lmonnx.__version__}.dist-info"}
    assert (fields["Version"], fields["License-Expression"]) == (lmonnx.__version__, "Apache-2.0")
    assert set(fields.get_all("Provides-Extra", [])) == {"export", "timm", "dev"}
    for package in EXPORT_ONLY:
        wanted = [line for line in fields.get_all("Requires-Dist", []) if re.match(rf"{package}\b(?!-)", line)]
        assert all("extra ==" in line for line in wanted), wanted
    assert str(fields.get_payload()).startswith("# lmonnx")


def test_the_sdist_holds_what_the_tests_and_the_training_need(dist: Path) -> None:
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    wanted = {"tests/cases.py", "training/__main__.py", "docs/limits.md", "Makefile", "constraints.txt", "CHANGELOG.md"}
    assert wanted <= names


def test_the_changelog_has_this_version() -> None:
    assert f"\n## {lmonnx.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    with open(ROOT / "pyproject.toml", "rb") as file:
        assert tomllib.load(file)["project"]["version"] == lmonnx.__version__


@pytest.fixture(scope="module")
def demo(desk: Environment) -> str:
    """What the demo prints where networks are exported; it writes the folder ``demo``."""
    return desk.lmonnx("demo").stdout


def test_the_demo_runs_where_networks_are_exported(desk: Environment, demo: str) -> None:
    paths = re.findall(r"^wrote ([^\s,]+)", demo, re.MULTILINE)
    assert len(paths) == 6
    assert all((desk.folder / path).exists() for path in paths), demo
    with Image.open(desk.folder / "demo" / "comparison.png") as picture:
        assert min(picture.size) > 500
    assert desk.lmonnx("doctor").stdout.endswith("all is well\n")


@pytest.mark.usefixtures("demo")
def test_a_production_host_needs_neither_torch_nor_onnx(desk: Environment, host: Environment) -> None:
    """It loads, predicts and explains a file that was exported elsewhere."""
    assert not packages(host) & EXPORT_ONLY
    for name in ("scenes.onnx", "scene.png", "object.png"):
        shutil.copy(desk.folder / "demo" / name, host.folder)
    host.lmonnx("doctor")
    answer = json.loads(host.lmonnx("predict", "scenes.onnx", "scene.png", "--mask", "object.png", "--json").stdout)
    assert 0 < answer["kept"] < 0.5
    host.lmonnx("explain", "scenes.onnx", "scene.png", "-o", "out", "--samples", "100")
    assert {path.name for path in (host.folder / "out").iterdir()} == {
        "explanation.json",
        "overlay.png",
        "segments.png",
    }
    inspected = host.lmonnx("inspect", "scenes.onnx")
    assert "scenes-material" in inspected.stdout
    assert "lmonnx[export]" in inspected.stderr
    code = "import lmonnx; print(lmonnx.load('scenes.onnx').predict('scene.png')[0].top(1)[0].name)"
    assert host.python(code).strip() == answer["top"][0]["name"]


@pytest.mark.parametrize(
    "command", ["export scenes-material -o x.onnx", "verify x.onnx --against scenes-material", "demo"]
)
def test_a_production_host_is_told_which_extra_a_command_needs(host: Environment, command: str) -> None:
    done = host.lmonnx(*command.split(), status=1)
    assert done.stderr.endswith("install it with: pip install 'lmonnx[export]'\n")
    assert done.stderr.count("\n") == 1
    assert not (host.folder / "x.onnx").exists()
