"""Which nodes of an exported graph are the network's, which were added for the mask, and where.

Everything is read off the file: each node says by which rule it was made and for which node of the source. One that
does the source's own work on the activations is the network's. What depends on the mask alone, what puts mask and
activation together, and what fills removed pixels was added.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import onnx_ir as ir

from lmonnx.errors import ModelError
from lmonnx.exporters.ops.builder import CONTRACT, RULE_KEY, SOURCE_KEY
from lmonnx.runtime.contract import REMEDY

#: Height and width of a map in pixels, or the one extent that is left of them.
Extents: TypeAlias = tuple[int, ...]

_MEANS = ("AveragePool", "GlobalAveragePool", "ReduceMean")
_STATISTICS = ("Add", *_MEANS, "Div", "Mul", "ReduceSum", "Reshape", "Sqrt", "Sub", "Unsqueeze")
#: Rule -> the operators that do the work of the source's operator, where that is not the rule's own name.
WORK: dict[str, tuple[str, ...]] = {
    "AveragePool": ("Pad", *_MEANS),
    "Conv": ("Conv", "Pad"),
    "GlobalAveragePool": _MEANS,
    "GlobalMaxPool": ("ReduceMax",),
    "GroupNormalization": _STATISTICS,
    "InstanceNormalization": _STATISTICS,
    "LayerNormalization": ("LayerNormalization", *_STATISTICS),
    "MaxPool": ("MaxPool", "Pad", "ReduceMax"),
    "Pad": ("Concat", "Pad", "Slice"),
    "MeanVarianceNormalization": ("MeanVarianceNormalization", *_STATISTICS),
    "ReduceMean": _MEANS,
    "SpaceToDepth": ("Reshape", "SpaceToDepth", "Transpose"),
}
#: The rule of nodes that no mask reaches.
COPY = "copy"


@dataclass(frozen=True)
class Part:
    """One node and what it is there for.

    Attributes:
        node: the node.
        rule: the rule that made it.
        added: whether it was added for the mask.
        stage: extents of the map that it works on; None where there is none, as behind a global pool.
    """

    node: ir.Node
    rule: str
    added: bool
    stage: Extents | None


@dataclass(frozen=True)
class Anatomy:
    """The nodes of a graph, and its masks.

    Attributes:
        parts: every node, in graph order.
        masks: how many different masks there are of each extents: bool expressions of the mask alone that say which
            pixels are kept; complements are left out.
    """

    parts: tuple[Part, ...]
    masks: dict[Extents, int]


def dissect(graph: ir.Graph) -> Anatomy:
    """Takes apart a graph of known shapes whose nodes carry the metadata of the lowering.

    Raises:
        ModelError: if a node does not say which rule made it.
    """
    made_by = {node: _made_by(node) for node in graph}
    image, mask = (next((v for v in graph.inputs if v.name == name), None) for name in ("image", "mask"))
    if image is None or mask is None:
        raise ModelError(f"the graph lacks the input image or mask; {REMEDY}")
    seen = _depending(graph, image)
    alone = _depending(graph, mask) - seen
    kept = [extents for value in alone if _is_mask(value) and (extents := extents_of(value)) is not None]
    stages = {extents for extents in kept if math.prod(extents) > 1}
    added = {node for node in graph if not _is_work(node, *made_by[node], seen, alone)}
    groups: dict[tuple[str, str], list[Extents]] = defaultdict(list)
    for node in graph:
        if node in added:
            sizes = map(extents_of, _read(node, alone))
            groups[made_by[node]] += [size for size in sizes if size in stages]
    parts = []
    for node in graph:
        if node in added:
            stage = max(groups[made_by[node]], key=math.prod, default=None)
        else:
            stage = _stage_of(node, seen, stages)
        parts.append(Part(node, made_by[node][0], node in added, stage))
    return Anatomy(tuple(parts), {stage: kept.count(stage) for stage in sorted(stages, key=math.prod, reverse=True)})


def _made_by(node: ir.Node) -> tuple[str, str]:
    """Rule and source."""
    try:
        return node.metadata_props[RULE_KEY], node.metadata_props[SOURCE_KEY]
    except KeyError:
        raise ModelError(
            f"node {node.name!r} does not say which rule made it, so another tool has rewritten the graph; "
            "inspect the file that `lmonnx export` wrote"
        ) from None


def _depending(graph: ir.Graph, start: ir.Value) -> set[ir.Value]:
    """``start`` and every value that is computed from it; the mask takes no more than the image's batch."""
    found = {start}
    for node in graph:
        if node.op_type == "Expand" and _made_by(node)[0] == CONTRACT and node.inputs[0] not in found:
            continue
        if not found.isdisjoint(value for value in node.inputs if value is not None):
            found.update(node.outputs)
    return found


def _is_mask(value: ir.Value) -> bool:
    """Whether a value that depends on the mask alone says which pixels are kept, and no other said so before."""
    node = value.producer()
    return value.dtype == ir.DataType.BOOL and (node is None or node.op_type not in ("Expand", "Not"))


def _is_work(node: ir.Node, rule: str, source: str, seen: set[ir.Value], alone: set[ir.Value]) -> bool:
    """Whether ``node`` does the source's work: on values that have seen the image, with nothing of the mask.

    Rings are filled by convolutions too, which do not have the source's name.
    """
    if rule == COPY:
        return True
    return (
        node.op_type in WORK.get(rule, (rule,))
        and (node.op_type != "Conv" or node.name == source)
        and not seen.isdisjoint(node.outputs)
        and not any(True for _ in _read(node, alone))
    )


def _read(node: ir.Node, values: set[ir.Value]) -> Iterator[ir.Value]:
    """The operands of ``node`` that are among ``values``."""
    return (value for value in node.inputs if value is not None and value in values)


def extents_of(mask: ir.Value) -> Extents | None:
    """Extents in space of a mask, [N, 1, H, W] in any order that keeps H before W; None if not known."""
    if mask.shape is None or not all(isinstance(extent, int) for extent in mask.shape):
        return None
    extents = [extent for extent in mask.shape if isinstance(extent, int)][1:]
    if len(extents) == 2 and 1 in extents:  # [N, 1, H·W]
        return (math.prod(extents),)
    for end in (0, -1):
        while len(extents) > 2 and extents[end] == 1:
            extents.pop(end)
    return tuple(extents)


def _stage_of(node: ir.Node, seen: set[ir.Value], stages: set[Extents]) -> Extents | None:
    """The largest map that a node of the network reads: axes beside each other that have the extents of a mask."""
    found: list[Extents] = []
    for value in _read(node, seen):
        shape = [extent if isinstance(extent, int) else 0 for extent in value.shape or ()][1:]
        windows = [tuple(shape[i : i + length]) for length in (2, 1) for i in reversed(range(len(shape) - length + 1))]
        found += [window for window in windows if window in stages][:1]
    return max(found, key=math.prod, default=None)
