from __future__ import annotations

import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from lmonnx.errors import LmonnxError, MissingExtraError
from lmonnx.runtime import distributions

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _each_test_is_a_process() -> None:
    distributions._warn_of_several.cache_clear()


def install(folder: Path, name: str, version: str, files: str = "onnxruntime/__init__.py,,\n") -> None:
    """What is left in site-packages of a distribution, as far as its metadata goes."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text(files)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The only folder that packages are found in, and nothing of onnxruntime is loaded yet."""
    loaded = sys.modules.pop("onnxruntime", None)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    yield tmp_path
    sys.modules.pop("onnxruntime", None)
    if loaded is not None:
        sys.modules["onnxruntime"] = loaded


def test_the_installed_ones_are_found_and_fast() -> None:
    distributions.installed()
    start = time.perf_counter()
    found = distributions.installed()
    assert time.perf_counter() - start < 0.02
    assert len(found) == 1


def test_only_those_that_bring_the_package_count(site: Path) -> None:
    assert distributions.installed() == {}
    install(site, "onnxruntime-directml", "1.24.4")
    install(site, "onnxruntime-qnn", "2.7.0", files="onnxruntime_qnn/__init__.py,,\n")
    install(site, "onnxruntime-extensions", "0.15.2")
    assert distributions.installed() == {"onnxruntime-directml": "1.24.4"}
    assert distributions.several(distributions.installed()) is None


def test_two_are_told_of_once(site: Path) -> None:
    install(site, "onnxruntime", "1.20.0")
    install(site, "onnxruntime-gpu", "1.31.1")
    with pytest.warns(RuntimeWarning) as told:
        distributions._warn_of_several()
    distributions._warn_of_several()  # a warning would be an error here
    (message,) = [str(warning.message) for warning in told]
    assert message.startswith("onnxruntime 1.20.0 and onnxruntime-gpu 1.31.1 are installed together")
    assert "run: pip uninstall onnxruntime onnxruntime-gpu, then: pip install onnxruntime" in message
    assert "\n" not in message


def test_opening_a_session_tells_of_two_and_where(tmp_path: Path, graph_file: object) -> None:
    install(tmp_path / "site", "onnxruntime-openvino", "1.24.1")
    program = (
        "import sys, warnings; warnings.simplefilter('always')\n"
        f"sys.path.append({str(tmp_path / 'site')!r})\n"
        "from lmonnx.runtime import load\n"
        f"for _ in range(2): load({str(graph_file())!r}, provider='cpu')\n"  # type: ignore[operator]
    )
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run([sys.executable, tmp_path / "program.py"], capture_output=True, text=True, check=True)
    assert done.stderr.count("RuntimeWarning: ") == 1
    assert "onnxruntime-openvino 1.24.1 are installed together" in done.stderr


def test_a_missing_onnxruntime_is_named(site: Path) -> None:
    with pytest.raises(MissingExtraError, match=r"^onnxruntime is not installed; run: pip install onnxruntime"):
        distributions.import_onnxruntime()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "raise ImportError('libx.so: cannot open\\nmore')",
            "cannot be loaded: libx.so: cannot open; run",
        ),
        ("raise AttributeError('_ARRAY_API')", "cannot be loaded: _ARRAY_API; run"),
        (
            "",
            "files of it are missing; run: pip uninstall onnxruntime, then: pip install onnxruntime",
        ),
    ],
)
def test_a_broken_onnxruntime_is_named(site: Path, content: str, message: str) -> None:
    install(site, "onnxruntime", "1.20.0")
    (site / "onnxruntime").mkdir()
    (site / "onnxruntime" / "__init__.py").write_text(content)
    with pytest.raises(LmonnxError, match=message):
        distributions.import_onnxruntime()


@pytest.mark.parametrize(
    ("system", "machine", "name"),
    [
        ("linux", "x86_64", "onnxruntime-gpu"),
        ("linux", "aarch64", "onnxruntime"),
        ("win32", "AMD64", "onnxruntime-gpu"),
        ("win32", "ARM64", "onnxruntime"),
        ("darwin", "arm64", "onnxruntime"),
        ("darwin", "x86_64", "onnxruntime"),
    ],
)
def test_the_fitting_one_is_what_the_package_depends_on(system: str, machine: str, name: str) -> None:
    assert distributions.fitting(system, machine) == name
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needs = [Requirement(text) for text in project["dependencies"] if text.startswith("onnxruntime")]
    here = {"sys_platform": system, "platform_machine": machine}
    assert [need.name for need in needs if need.marker is None or need.marker.evaluate(here)] == [name]
