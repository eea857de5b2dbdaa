"""The runtimes of the table: how each is installed, and how it is asked. All of it goes to ``build/portability``."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lmonnx.exporters.opsets import NEWEST
from lmonnx.runtime.providers import ask_driver
from portability import browser
from portability.rows import HALF, Row

ROOT = Path(__file__).parent.parent
RUNNERS = Path(__file__).parent / "runners"
BUILD = ROOT / "build" / "portability"
NODE = BUILD / "node"
#: What onnxruntime-node's own script downloads is for CUDA; nothing here needs it.
NPM = ("npm", "install", "--ignore-scripts", "--no-fund", "--no-audit", "--no-package-lock")
#: onnxruntime -> what has to be installed with it.
OLD = {"1.20.0": (), "1.18.1": ("numpy<2",)}
#: The newest opset of files that they read.
OLD_OPSET = 21
#: What of those is not asked, by version and form, and why. In 1.19.2 it is no better.
SPOILT = {
    "1.18.1": {HALF: "its float16 on CPUs goes wrong by chance, from one start to the next, without a mask as well"}
}


class MissingError(Exception):
    """A runtime needs what this machine has not; the text says what to do."""


class InstallError(Exception):
    """A runtime cannot be installed though this machine has what that needs."""


@dataclass(frozen=True)
class Runtime:
    """One column of answers.

    Attributes:
        key: what a row calls it.
        title: what the page calls it.
        command: makes what it needs, once, and returns what runs it; MODEL, QUESTIONS, ANSWERS and the names of
            questions follow. Raises :class:`MissingError` or :class:`InstallError`.
        version: what would answer; a row of another version is made again.
        environment: variables beside the usual ones.
        networks: what it is asked about, everything if None.
        questions: which, all if empty.
        unasked: form of files that it is not asked about -> why.
        precision: what it computes in, whatever the file is of.
        opset: the newest of files that it has to read.
    """

    key: str
    title: str
    command: Callable[[], list[str]]
    version: Callable[[], str]
    environment: Mapping[str, str] = field(default_factory=dict)
    networks: tuple[str, ...] | None = None
    questions: tuple[str, ...] = ()
    unasked: Mapping[str, str] = field(default_factory=dict)
    precision: str = "float32"
    opset: int = NEWEST

    def coarser(self, form: str) -> bool:
        """Whether it computes in less than what a file of that form was proven for."""
        return self.precision == "bfloat16" or (self.precision == "float16" and form != HALF)

    def fails(self, row: Row) -> bool:
        """Whether a row of this runtime is not what we promise.

        Not promised are float32 files in float16, and how near they are in bfloat16.
        """
        if row.verdict == "differs":
            return not self.coarser(row.form) or (self.precision == "bfloat16" and not row.lawful)
        return row.verdict == "failed" or (row.verdict == "refused" and row.opset <= self.opset)


def environment(runtime: Runtime) -> dict[str, str]:
    """That of a runner: without what concerns the Python that asks, and with the folder of packages."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, "NODE_PATH": str(packages() or ""), "PYTHONPATH": str(ROOT), **runtime.environment}


def packages() -> Path | None:
    """The ``node_modules`` with onnxruntime-node and onnxruntime-web; None if there is none.

    That which ``make portability`` installs, or the one that ``LMONNX_NODE_MODULES`` names.
    """
    named = os.environ.get("LMONNX_NODE_MODULES")
    places = [Path(named)] if named else [NODE / "node_modules"]
    return next((place for place in places if (place / "onnxruntime-node").is_dir()), None)


def _here(runner: str, package: str) -> Callable[[], list[str]]:
    """A runner in the environment that asks."""

    def command() -> list[str]:
        if importlib.util.find_spec(package) is None:
            raise MissingError(f"{package} is not installed; pip install '.[dev]'")
        return [sys.executable, str(RUNNERS / runner)]

    return command


def cuda() -> list[str]:
    """That of this environment on an NVIDIA GPU.

    Raises:
        MissingError: without one.
    """
    if not ask_driver().devices:
        raise MissingError("there is no NVIDIA GPU")
    return _here("onnxruntime_python.py", "onnxruntime")()


def _old(version: str) -> Callable[[], list[str]]:
    """An onnxruntime of old, in an environment of its own."""

    def command() -> list[str]:
        python = BUILD / f"onnxruntime-{version}" / "bin" / "python"
        if not (python.parent / "done").exists():
            _run([sys.executable, "-m", "venv", "--clear", str(python.parent.parent)])
            _run([str(python), "-m", "pip", "install", "--quiet", f"onnxruntime=={version}", *OLD[version]])
            (python.parent / "done").touch()
        return [str(python), str(RUNNERS / "onnxruntime_python.py")]

    return command


def node() -> list[str]:
    """onnxruntime-node.

    Raises:
        MissingError: without Node.
        InstallError: if its packages cannot be installed.
    """
    _install_packages()
    return ["node", str(RUNNERS / "node.cjs")]


def web() -> list[str]:
    """onnxruntime-web.

    Raises:
        MissingError: without Chromium or Node.
        InstallError: if the packages cannot be installed.
    """
    if browser.find() is None:
        raise MissingError("there is no Chromium; apt-get install chromium, or name one with LMONNX_CHROMIUM")
    _install_packages()
    return [sys.executable, str(RUNNERS / "browser.py")]


def _install_packages() -> None:
    named = packages() if os.environ.get("LMONNX_NODE_MODULES") else None
    for program in ("node",) if named else ("node", "npm"):
        if shutil.which(program) is None:
            raise MissingError(f"there is no {program}; install Node.js 20 or later")
    wanted = (RUNNERS / "package.json").read_text(encoding="utf-8")
    have = NODE / "package.json"
    if named or (packages() and have.exists() and have.read_text(encoding="utf-8") == wanted):
        return
    shutil.rmtree(NODE, ignore_errors=True)
    NODE.mkdir(parents=True)
    have.write_text(wanted, encoding="utf-8")
    _run([*NPM, "--prefix", str(NODE)])


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=BUILD)
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["nothing was said"])[-1]
        raise InstallError(f"{Path(command[0]).name} failed: {last}")


def _pinned(package: str) -> Callable[[], str]:
    return lambda: str(json.loads((RUNNERS / "package.json").read_text())["dependencies"][package])


def _installed(package: str) -> Callable[[], str]:
    def version() -> str:
        if importlib.util.find_spec(package) is None:
            return ""
        return str(importlib.import_module(package).__version__).partition("-")[0]

    return version


RUNTIMES = (
    Runtime("onnxruntime", "onnxruntime", _here("onnxruntime_python.py", "onnxruntime"), _installed("onnxruntime")),
    Runtime(
        "onnxruntime-cuda",
        "onnxruntime, CUDA",
        cuda,
        _installed("onnxruntime"),
        environment={"LMONNX_PROVIDER": "cuda"},
    ),
    *(
        Runtime(
            f"onnxruntime-{old}",
            "onnxruntime",
            _old(old),
            lambda old=old: old,
            unasked=SPOILT.get(old, {}),
            opset=OLD_OPSET,
        )
        for old in OLD
    ),
    Runtime("onnxruntime-node", "onnxruntime-node", node, _pinned("onnxruntime-node")),
    Runtime("onnxruntime-web", "onnxruntime-web (WebAssembly)", web, _pinned("onnxruntime-web")),
    Runtime("openvino", "OpenVINO, float32", _here("openvino_python.py", "openvino"), _installed("openvino")),
    Runtime(
        "openvino-default",
        "OpenVINO, default precision",
        _here("openvino_python.py", "openvino"),
        _installed("openvino"),
        environment={"LMONNX_OPENVINO": "default"},
        precision="bfloat16",
    ),
    Runtime(
        "openvino-f16",
        "OpenVINO, float16",
        _here("openvino_python.py", "openvino"),
        _installed("openvino"),
        environment={"LMONNX_OPENVINO": "f16"},
        precision="float16",
    ),
    Runtime(
        "onnx",
        "onnx's ReferenceEvaluator",
        _here("onnx_reference.py", "onnx"),
        _installed("onnx"),
        networks=("scenes-material",),
        questions=("few", "few hidden"),
    ),
)  # fmt: skip
