"""What an exported graph consists of, and what the mask costs: read off the file."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import onnx_ir as ir

from lmonnx.errors import ModelError
from lmonnx.exporters.anatomy import Anatomy, Extents, dissect
from lmonnx.exporters.costs import Cost, cost_of, one_row
from lmonnx.runtime.contract import REMEDY
from lmonnx.runtime.description import Description, describe, in_bytes, laid_out

NOTE = (
    "one image under one mask; an operation is an addition, a multiplication, a comparison or a function of one "
    "number; bytes are activations read and written by every node, weights apart and nothing fused"
)


@dataclass(frozen=True)
class Stage:
    """The part of a graph that works on maps of one size.

    Attributes:
        extents: height and width in pixels; None for what works on no map, as behind a global pool.
        masks: how many different masks of this size there are.
        network: the network's own nodes.
        added: those added for the mask.
    """

    extents: Extents | None
    masks: int
    network: Cost
    added: Cost

    @property
    def name(self) -> str:
        """``56×56``, or ``no map``."""
        return "no map" if self.extents is None else "×".join(map(str, self.extents))


@dataclass(frozen=True)
class Inspection:
    """An exported file; ``str()`` is the report for a terminal of 100 columns.

    Costs are those of one image under one mask, a batch of 1; see :mod:`lmonnx.exporters.costs`.

    Attributes:
        description: what it says about itself.
        opset: of the default domain.
        ir_version: of the file.
        operators: how often the network's own nodes have an operator.
        stages: by size of the map, from the image on; last what works on no map, if there is such.
        rules: the nodes that each rule added, the costliest first.
        weights: bytes of the network's weights.
        constants: bytes of the constants added.
    """

    description: Description
    opset: int
    ir_version: int
    operators: dict[str, int]
    stages: tuple[Stage, ...]
    rules: dict[str, Cost]
    weights: int
    constants: int

    @property
    def total(self) -> Stage:
        """All stages together."""
        return Stage(
            None,
            sum(stage.masks for stage in self.stages),
            sum((stage.network for stage in self.stages), Cost()),
            sum((stage.added for stage in self.stages), Cost()),
        )

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON knows it; null is what is not known."""
        return {
            **self.description.to_json(),
            "opset": self.opset,
            "ir_version": self.ir_version,
            "operators": self.operators,
            "stages": {stage.name: _stage_json(stage) for stage in self.stages},
            "rules": {rule: _cost_json(cost) for rule, cost in self.rules.items()},
            "total": _stage_json(self.total),
            "weights": self.weights,
            "constants": self.constants,
        }

    def __str__(self) -> str:
        return f"{self.description}\n\n{self.graph_report()}"

    def graph_report(self) -> str:
        """The part that takes onnx: nodes and costs by stage and by rule."""
        total = self.total
        operators = ", ".join(f"{count} {name}" for name, count in self.operators.items())
        rows = [
            ("graph", f"opset {self.opset}, ir_version {self.ir_version}"),
            ("network", f"{total.network.nodes} nodes: {operators}; {in_bytes(self.weights)} of weights"),
            (
                "added",
                f"{total.added.nodes} nodes, {total.masks} different masks, {in_bytes(self.constants)} of constants",
            ),
            ("costs", NOTE),
        ]
        stages = [_stage_row(stage.name, stage) for stage in self.stages]
        rules = [_rule_row(rule, cost, total.network) for rule, cost in self.rules.items()]
        tables = [STAGE_HEAD, *stages, _stage_row("all", total)], [RULE_HEAD, *rules]
        return "\n\n".join([laid_out(rows), *("\n".join(_table(table)) for table in tables)])


_Row: TypeAlias = tuple[str, ...]
#: A plus stands before what was added; the share is that of what the network takes.
STAGE_HEAD: _Row = ("map", "masks", "nodes", "+nodes", "operations", "+operations", "", "bytes", "+bytes", "")
RULE_HEAD: _Row = ("rule", "+nodes", "+operations", "of all", "+bytes", "of all")


def inspect(path: str | os.PathLike[str]) -> Inspection:
    """Takes apart a file that ``lmonnx export`` wrote.

    Args:
        path: the file; it is read and not run.

    Raises:
        ModelError: if there is no such file, it is not an ONNX file, or not a graph as lmonnx exported it.
    """
    description = describe(path)
    try:
        model = _read(path, description.contract.form.size)
        anatomy = dissect(model.graph)
    except ModelError as error:
        raise ModelError(f"{description.path}: {error}") from error
    work = [part.node for part in anatomy.parts if not part.added]
    own = _initializers(work)
    return Inspection(
        description=description,
        opset=model.opset_imports[""],
        ir_version=model.ir_version,
        operators=dict(Counter(node.op_type for node in work).most_common()),
        stages=_stages(anatomy),
        rules=_rules(anatomy),
        weights=_bytes(own),
        constants=_bytes(_initializers(part.node for part in anatomy.parts) - own),
    )


def _read(path: str | os.PathLike[str], size: tuple[int, int] | None) -> ir.Model:
    """The model with the shapes of one image under one mask.

    Raises:
        ModelError: if it cannot be read.
    """
    try:
        model = ir.load(path)
        one_row(model, size)
    except Exception as error:  # protobuf, onnx and onnx_ir each have their own
        line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(f"the graph cannot be read: {line}; {REMEDY}") from error
    return model


def _stages(anatomy: Anatomy) -> tuple[Stage, ...]:
    """By size, from the image on; what works on no map comes last."""
    costs: dict[tuple[Extents | None, bool], Cost] = defaultdict(Cost)
    for part in anatomy.parts:
        costs[part.stage, part.added] += cost_of(part.node)
    every: list[Extents | None] = [*anatomy.masks]
    every += [None] if any(part.stage is None for part in anatomy.parts) else []
    return tuple(
        Stage(extents, anatomy.masks[extents] if extents else 0, costs[extents, False], costs[extents, True])
        for extents in every
    )


def _rules(anatomy: Anatomy) -> dict[str, Cost]:
    """What each rule added, the costliest first."""
    costs: dict[str, Cost] = defaultdict(Cost)
    for part in anatomy.parts:
        if part.added:
            costs[part.rule] += cost_of(part.node)
    return dict(sorted(costs.items(), key=lambda item: item[1].operations or 0, reverse=True))


def _initializers(nodes: Iterable[ir.Node]) -> set[ir.Value]:
    return {value for node in nodes for value in node.inputs if value is not None and value.const_value is not None}


def _bytes(values: Iterable[ir.Value]) -> int:
    return sum(value.const_value.nbytes for value in values if value.const_value is not None)


def _cost_json(cost: Cost) -> dict[str, int | None]:
    return {"nodes": cost.nodes, "operations": cost.operations, "bytes": cost.bytes}


def _stage_json(stage: Stage) -> dict[str, Any]:
    return {"masks": stage.masks, "network": _cost_json(stage.network), "added": _cost_json(stage.added)}


def _stage_row(name: str, stage: Stage) -> _Row:
    network, added = stage.network, stage.added
    return (
        name,
        str(stage.masks or ""),
        str(network.nodes),
        str(added.nodes),
        _text(network.operations, _count),
        _text(added.operations, _count),
        _share(added.operations, network.operations),
        _text(network.bytes, in_bytes),
        _text(added.bytes, in_bytes),
        _share(added.bytes, network.bytes),
    )


def _rule_row(rule: str, added: Cost, network: Cost) -> _Row:
    operations, moved = _text(added.operations, _count), _text(added.bytes, in_bytes)
    shares = _share(added.operations, network.operations), _share(added.bytes, network.bytes)
    return rule, str(added.nodes), operations, shares[0], moved, shares[1]


def _text(number: int | None, unit: Callable[[float], str]) -> str:
    return "?" if number is None else unit(number)


def _count(number: float) -> str:
    """``3.6 G``: a number in thousands, millions or billions."""
    return in_bytes(number).removesuffix("bytes").removesuffix("B").strip()


def _share(part: int | None, whole: int | None) -> str:
    if part is None or whole is None:
        return "?"
    return f"+{part / whole:.{0 if part > 10 * whole else 1}%}" if whole else ""


def _table(rows: Sequence[_Row]) -> Iterator[str]:
    """Columns of one width, the first to the left and numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        yield "  ".join([row[0].ljust(widths[0]), *cells]).rstrip()
