"""What a comparison of speed found, for people and for programs."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lmonnx.runtime.resources import processor
from lmonnx.speed.profile import Profile

#: Packages of which a time depends.
PACKAGES = ("lmonnx", "numpy", "onnxruntime-gpu", "onnxruntime", "torch", "torchvision", "timm")
#: Rows of a profile that are written; the rest is added up.
LINES = 15

Quartiles = tuple[float, float, float]


@dataclass(frozen=True)
class Row:
    """One program at one batch size.

    Attributes:
        batch: images in a run, each with a mask of its own.
        program: what ran.
        milliseconds: an image: first quartile, median and third quartile over the rounds.
        to_plain: quartiles of the ratios to the plain graph in the same round.
        to_masked: quartiles of the ratios to the masked graph in the same round.
    """

    batch: int
    program: str
    milliseconds: Quartiles
    to_plain: Quartiles
    to_masked: Quartiles


@dataclass(frozen=True)
class Report:
    """A comparison; ``str()`` is Markdown.

    Attributes:
        source: the network.
        size: height and width of its image in pixels.
        opset: of the masked graph.
        threads: of every program.
        rounds: how often each ran at each batch size.
        rows: what came of it.
        profile: of the masked graph at the largest batch; None if it was not asked for.
        machine: processor and system.
        versions: of the packages.
    """

    source: str
    size: tuple[int, int]
    opset: int
    threads: int
    rounds: int
    rows: Sequence[Row]
    profile: Profile | None
    machine: str
    versions: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON knows it."""
        found = asdict(self)
        if self.profile is not None:
            operators = [
                {"operator": name, "added": added, "milliseconds": time}
                for (name, added), time in self.profile.operators.items()
            ]
            found["profile"] = {"operators": operators, "rules": dict(self.profile.rules)}
        return found

    def __str__(self) -> str:
        height, width = self.size
        packages = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        lines = [
            f"## {self.source}, {height}×{width}, opset {self.opset}",
            "",
            f"{self.machine}; {self.threads} threads; {packages}. Medians of {self.rounds} interleaved rounds, "
            "quartiles in brackets; half of the 16 px patches removed.",
            "",
            "| batch | program | ms an image | ÷ plain graph | ÷ masked graph |",
            "|---|---|---|---|---|",
        ]
        for row in self.rows:
            cells = [_with_quartiles(row.milliseconds, 1), _with_quartiles(row.to_plain, 2)]
            cells = [str(row.batch), row.program, *cells, _with_quartiles(row.to_masked, 2)]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join([*lines, *([] if self.profile is None else _profile_lines(self.profile))])


def versions() -> dict[str, str]:
    """Of the packages of which a time depends, those that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """The processor, as far as the system names it, and the system."""
    return f"{processor()}, {platform.system()} {platform.machine()}"


def _with_quartiles(values: Quartiles, digits: int) -> str:
    low, middle, high = (f"{value:.{digits}f}" for value in values)
    return f"{middle} ({low}–{high})"


def _profile_lines(profile: Profile) -> Iterator[str]:
    total = sum(profile.rules.values())
    operators = {f"{name}{' for the mask' if added else ''}": time for (name, added), time in profile.operators.items()}
    for title, times in (("made for", profile.rules), ("operator", operators)):
        yield from ("", f"| {title} | ms a run | share |", "|---|---|---|")
        listed = [*times.items()]
        rest = sum(time for _, time in listed[LINES:])
        for name, time in [*listed[:LINES], *([("others", rest)] if rest else [])]:
            yield f"| {name} | {time:.1f} | {time / total:.1%} |"
