"""The built distributions, and environments that hold nothing but them."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    """A command in ``cwd``, outside of the checkout; its exit status has to be ``status``."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == status, f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@dataclass(frozen=True)
class Environment:
    """A virtual environment with the built wheel, and an empty folder to work in."""

    bin: Path
    folder: Path

    def lmonnx(self, *arguments: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
        """``lmonnx ARGUMENTS`` in the folder."""
        return run(self.bin / "lmonnx", *arguments, cwd=self.folder, status=status)

    def python(self, code: str) -> str:
        """What ``python -c CODE`` prints in the folder."""
        return run(self.bin / "python", "-c", code, cwd=self.folder).stdout


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("*.whl")
    return found


def environment(folder: Path, wheel: Path, extras: str = "") -> Environment:
    """A fresh environment with the wheel and its dependencies, of the versions that are tested."""
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    constraints = ROOT / "constraints.txt"
    pip = (folder / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet", "--constraint", constraints)
    run(*pip, f"{wheel}{extras}", cwd=folder)
    work = folder / "work"
    work.mkdir()
    return Environment(folder / "venv" / "bin", work)


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Environment:
    """A production host: the wheel without extras."""
    return environment(tmp_path_factory.mktemp("host"), wheel)


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Environment:
    """Where networks are exported: the wheel with its extra."""
    return environment(tmp_path_factory.mktemp("desk"), wheel, "[export]")
