"""What is installed, what computes, and what is wrong: the report of ``lmonnx doctor``.

:func:`observe` gathers facts, :data:`CHECKS` turn facts into problems; a machine without a GPU has none.
"""

from __future__ import annotations

import importlib.metadata
import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from lmonnx.runtime import distributions
from lmonnx.runtime.probe import Attempt, attempt
from lmonnx.runtime.providers import CUDA, Driver, ask_driver

_REQUIREMENT = re.compile(
    r"(?P<name>[\w.-]+)(?:\[.*?\])?(?:\s*>=\s*(?P<least>[\w.]+))?(?:.*extra == .(?P<extra>[\w-]+))?"
)
_FOR_DEVELOPERS = "dev"
_CUDA_LIBRARIES = "pip install 'onnxruntime-gpu[cuda,cudnn]'"


@dataclass(frozen=True)
class Package:
    """A package that lmonnx uses.

    Attributes:
        name: of its distribution.
        version: what is installed; ``None`` if it is not.
        least: the lowest version that will do; ``None`` if any does.
        extra: the extra that brings it; ``None`` for the base installation.
    """

    name: str
    version: str | None
    least: str | None = None
    extra: str | None = None

    @property
    def too_old(self) -> bool:
        """Whether the installed version is lower than the lowest that will do."""
        return None not in (self.version, self.least) and _release(self.version) < _release(self.least)


@dataclass(frozen=True)
class Facts:
    """What was seen on a machine.

    Attributes:
        lmonnx: its version; ``None`` where it runs from a folder that was not installed.
        python: version of Python.
        platform: system and machine.
        packages: the packages that lmonnx uses, onnxruntime left out.
        onnxruntime: the distributions of onnxruntime that are installed.
        fitting: the one of them that fits this machine.
        driver: what the NVIDIA driver says.
        cpu: what came of computing on the CPU.
        cuda: what came of computing on CUDA; ``None`` if there is no GPU, or this onnxruntime is not for it.
    """

    lmonnx: str | None
    python: str
    platform: str
    packages: tuple[Package, ...]
    onnxruntime: tuple[Package, ...]
    fitting: str
    driver: Driver
    cpu: Attempt
    cuda: Attempt | None


@dataclass(frozen=True)
class Section:
    """A part of the report: a title and rows of (what, finding)."""

    title: str
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Diagnosis:
    """The report; ``str()`` is how people read it.

    Attributes:
        sections: what was found.
        problems: what is wrong and what to do, one line each; empty if all is well.
    """

    sections: tuple[Section, ...]
    problems: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Sections as objects of what → finding, and the problems, as JSON knows them."""
        return {
            "sections": {section.title: dict(section.rows) for section in self.sections},
            "problems": list(self.problems),
        }

    def __str__(self) -> str:
        width = max(len(what) for section in self.sections for what, _ in section.rows)
        lines = []
        for section in self.sections:
            lines += [section.title, *(f"  {what:<{width}}  {finding}" for what, finding in section.rows), ""]
        if not self.problems:
            return "\n".join([*lines, "all is well"])
        return "\n".join([*lines, "problems", *(f"  {problem}" for problem in self.problems)])


def diagnose() -> Diagnosis:
    """Looks at this machine; takes a second or so, longer with a GPU."""
    return report(observe())


def observe() -> Facts:
    """The facts of this machine."""
    needs = _needs()
    least = next((least for name, least, _ in needs if name.startswith("onnxruntime")), None)
    driver, cpu = ask_driver(), attempt("cpu")
    return Facts(
        lmonnx=_version("lmonnx"),
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        packages=tuple(
            Package(name, _version(name), least, extra)
            for name, least, extra in needs
            if not name.startswith("onnxruntime") and name != "lmonnx" and extra != _FOR_DEVELOPERS
        ),
        onnxruntime=tuple(Package(name, version, least) for name, version in distributions.installed().items()),
        fitting=distributions.fitting(),
        driver=driver,
        cpu=cpu,
        cuda=attempt("cuda") if driver.devices and CUDA in cpu.providers else None,
    )


def report(facts: Facts) -> Diagnosis:
    """What the facts say."""
    extras = dict.fromkeys(package.extra for package in facts.packages if package.extra is not None)
    sections = [
        Section(
            "environment",
            (
                ("lmonnx", facts.lmonnx or "not installed, runs from a folder"),
                ("Python", facts.python),
                ("platform", facts.platform),
            ),
        ),
        Section("packages", _rows(facts, None)),
        *(Section(f"extra: {extra}", _rows(facts, extra)) for extra in extras),
        Section("onnxruntime", _computing(facts)),
    ]
    problems = tuple(problem for check in CHECKS for problem in check(facts))
    return Diagnosis(tuple(section for section in sections if section.rows), problems)


def _rows(facts: Facts, extra: str | None) -> tuple[tuple[str, str], ...]:
    remedy = "" if extra is None else f"; pip install 'lmonnx[{extra}]' brings it"
    return tuple(
        (
            package.name,
            f"not installed{remedy}"
            if package.version is None
            else f"{package.version}{f', older than {package.least}{remedy}' if package.too_old else ''}",
        )
        for package in facts.packages
        if package.extra == extra
    )


def _computing(facts: Facts) -> tuple[tuple[str, str], ...]:
    driver, cpu, cuda = facts.driver, facts.cpu, facts.cuda
    if cuda is not None:
        on_cuda = "works" if cuda.error is None else f"does not work: {cuda.error}"
    else:
        on_cuda = "not tried: " + ("not in this onnxruntime" if driver.devices else "no NVIDIA GPU")
    newest = "" if driver.cuda is None else f", up to CUDA {driver.cuda[0]}.{driver.cuda[1]}"
    failed = f", fails with error {driver.error}" if driver.error else ""
    return (
        ("installed", ", ".join(f"{one.name} {one.version}" for one in facts.onnxruntime) or "nothing"),
        ("built for", ", ".join(cpu.providers) + (f" (CUDA {cpu.cuda})" if cpu.cuda else "") or "unknown"),
        ("NVIDIA driver", "none" if driver.cuda is None else f"GPUs: {driver.devices}{newest}{failed}"),
        ("CPU", "works" if cpu.error is None else f"does not work: {cpu.error}"),
        ("CUDA", on_cuda),
    )


def _packages(facts: Facts) -> Iterator[str]:
    for package in (*facts.packages, *facts.onnxruntime):
        if package.extra is None and (package.version is None or package.too_old):
            found = "not installed" if package.version is None else f"{package.version}, lmonnx needs {package.least}"
            yield f"{package.name} is {found}; run: pip install '{package.name}{_at_least(package)}'"


def _onnxruntime(facts: Facts) -> Iterator[str]:
    found = {package.name: str(package.version) for package in facts.onnxruntime}
    many = distributions.several(found)
    if many is not None:
        yield many
    elif facts.cpu.error is not None and not found:
        yield f"onnxruntime is not installed; run: pip install {facts.fitting}"
    elif facts.cpu.error is not None:
        yield f"onnxruntime does not work on the CPU: {facts.cpu.error}; {_reinstall(facts)}"


def _driver(facts: Facts) -> Iterator[str]:
    if facts.driver.error:
        yield (
            f"the NVIDIA driver fails with error {facts.driver.error} (cuInit); restart the machine if the driver was "
            "updated, else install the driver again"
        )


def _cuda(facts: Facts) -> Iterator[str]:
    if not facts.driver.devices or facts.cpu.error is not None or len(facts.onnxruntime) > 1:
        return
    built, newest = facts.cpu.cuda, facts.driver.cuda
    if facts.cuda is None:
        if facts.fitting == "onnxruntime-gpu":
            yield f"there is an NVIDIA GPU and this onnxruntime is not for it; {_reinstall(facts)}"
    elif facts.cuda.error is not None and built is not None and newest is not None and _release(built)[:1] > newest:
        yield (
            f"CUDA does not work: the NVIDIA driver supports CUDA up to {newest[0]}.{newest[1]} and onnxruntime was "
            f"built for {built}; update the driver"
        )
    elif facts.cuda.error is not None:
        yield f"CUDA does not work: {facts.cuda.error}; run: {_CUDA_LIBRARIES}"


def _reinstall(facts: Facts) -> str:
    removed = "".join(f"pip uninstall {package.name}, then: " for package in facts.onnxruntime)
    return f"run: {removed}pip install {facts.fitting}"


CHECKS: tuple[Callable[[Facts], Iterator[str]], ...] = (_packages, _onnxruntime, _driver, _cuda)
"""Each tells the problems of its kind, in one line: what is wrong and what to do."""


def _at_least(package: Package) -> str:
    return "" if package.least is None else f">={package.least}"


def _needs() -> list[tuple[str, str | None, str | None]]:
    """Name, lowest version and extra of every requirement in lmonnx's metadata.

    An extra that takes in another one repeats its requirements there; each belongs to the first that lists it.
    """
    try:
        requirements = importlib.metadata.requires("lmonnx") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    needs: dict[str, tuple[str, str | None, str | None]] = {}
    for match in filter(None, map(_REQUIREMENT.match, requirements)):
        needs.setdefault(match["name"], (match["name"], match["least"], match["extra"]))
    return [*needs.values()]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _release(version: str | None) -> tuple[int, ...]:
    """The numbers of a version's release, without zeros at the end: ``"2.10.0rc1+cpu"`` gives (2, 10)."""
    match = re.match(r"\d+(\.\d+)*", version or "")
    numbers = [int(part) for part in match[0].split(".")] if match else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
