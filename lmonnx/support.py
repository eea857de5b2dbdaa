"""Which published networks can be masked: the table that a sweep over them wrote, ``models.jsonl`` in this package."""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib.resources
import json
from dataclasses import dataclass, field
from typing import Any, Literal

#: ``"supported"``: exported, equal to the reference and lawful. ``"refused"``: masking is not defined for some of its
#: operators, or it cannot be had. ``"defect"``: a check failed, or something broke.
Verdict = Literal["supported", "refused", "defect"]
FILE = importlib.resources.files("lmonnx") / "models.jsonl"


@dataclass(frozen=True)
class Support:
    """What became of one network, with random weights.

    Attributes:
        name: as ``lmonnx export`` takes it.
        verdict: whether it can be masked.
        versions: of the packages that the network and its graph come from.
        size: height and width of the image that it was tried with, in pixels.
        operators: how often the network's own nodes have an operator.
        nodes: the network's own.
        masked_nodes: with those that were added for the mask.
        difference: largest difference between the masked graph in float32 and the reference in float64 over the masks
            of the proof, in units of how the output varies over them.
        tolerance: what that difference may be.
        laws: the laws that were checked on the graph, all of which held if the verdict is "supported".
        why: for what is not supported, the reasons; one for each kind of offending node.
        code: digest of the code that made the row, by which a sweep knows what is left to do.
    """

    name: str
    verdict: Verdict
    versions: dict[str, str] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    operators: dict[str, int] = field(default_factory=dict)
    nodes: int | None = None
    masked_nodes: int | None = None
    difference: float | None = None
    tolerance: float | None = None
    laws: tuple[str, ...] = ()
    why: tuple[str, ...] = ()
    code: str = ""

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Support:
        """The inverse of :meth:`to_json`."""
        size = row["size"]
        tuples = {"size": size and tuple(size), "laws": tuple(row["laws"]), "why": tuple(row["why"])}
        return cls(**{**row, **tuples})

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON knows it."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        """One line for a terminal."""
        if self.verdict == "supported":
            height, width = self.size or (0, 0)
            nodes = f"{self.nodes} nodes, {self.masked_nodes} masked"
            return f"{self.name:<36} {nodes:<28} off by {self.difference:.0e} at {height}×{width}"
        first, *others = self.why or ("unknown",)
        more = f" (and {len(others)} more reasons)" if others else ""
        return f"{self.name:<36} {self.verdict}: {first}{more}"


def supported(pattern: str = "*") -> list[Support]:
    """The rows of the table whose names match ``pattern``, a glob such as ``"timm:*"``, supported or not."""
    rows = [Support.from_json(json.loads(line)) for line in FILE.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if fnmatch.fnmatchcase(row.name, pattern)]
