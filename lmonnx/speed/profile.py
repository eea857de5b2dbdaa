"""Where the time of a masked graph goes: by operator, and by the rule that made the node."""

from __future__ import annotations

import json
import pathlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from lmonnx.exporters.anatomy import dissect
from lmonnx.exporters.costs import one_row

#: Ends of onnxruntime's names of events, and of the nodes that it brought into its blocked layout.
_KERNEL, _BLOCKED = "_kernel_time", "_nchwc"
#: Its name of the event that is a whole run.
_RUN = "model_run"
#: What nodes belong to that onnxruntime made itself: reorders of layouts, fusions of several nodes.
OWN = "onnxruntime"


@dataclass(frozen=True)
class Profile:
    """Milliseconds of one run, the most first.

    Attributes:
        operators: (operator, whether it was added for the mask) -> milliseconds.
        rules: what a node is there for -> milliseconds: ``"network"`` for what the plain graph computes too,
            ``"mask: RULE"`` for what a rule added, ``"onnxruntime: OPERATOR"`` for what onnxruntime made itself.
    """

    operators: Mapping[tuple[str, bool], float]
    rules: Mapping[str, float]


def purposes(path: pathlib.Path, size: tuple[int, int]) -> dict[str, tuple[str, bool]]:
    """Node of an exported file -> rule, and whether it was added for the mask.

    The values that it makes stand for it too: onnxruntime names a fused node after the value that it ends in.
    """
    model = ir.load(path)
    one_row(model, size)
    found = {}
    for part in dissect(model.graph).parts:
        for name in (part.node.name, *(value.name for value in part.node.outputs)):
            found[str(name)] = part.rule, part.added
    return found


def grouped(trace: pathlib.Path, made: Mapping[str, tuple[str, bool]], warmup: int, runs: int) -> Profile:
    """What onnxruntime wrote about ``runs`` runs, by operator and by what the nodes are there for.

    ``warmup`` runs before them, 1 or more, are left out: they allocate memory.
    """
    events = json.loads(trace.read_text(encoding="utf-8"))
    ends = sorted(event["ts"] + event["dur"] for event in events if event["name"] == _RUN)
    operators: Counter[tuple[str, bool]] = Counter()
    rules: Counter[str] = Counter()
    for event in events:
        if event["cat"] != "Node" or not event["name"].endswith(_KERNEL) or event["ts"] < ends[warmup - 1]:
            continue
        name, operator = event["name"].removesuffix(_KERNEL).removesuffix(_BLOCKED), event["args"]["op_name"]
        rule, added = made.get(name, (f"{OWN}: {operator}", False))
        milliseconds = event["dur"] / 1000 / runs
        operators[operator, added] += milliseconds
        rules[rule if name not in made else f"mask: {rule}" if added else "network"] += milliseconds
    return Profile(dict(operators.most_common()), dict(rules.most_common()))
