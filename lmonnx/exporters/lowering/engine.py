"""Plain ONNX graph -> mask-aware ONNX graph, by abstract interpretation.

The engine walks the source graph in order and builds a new graph beside it. A value of the source becomes a
plain value, or a :class:`Masked` one: data, mask, and what is known about removed positions. A node that reads
no masked value is copied; any other is lowered by the rule of its operator, and never passed through without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from lmonnx.errors import Offence, OptionError, SourceError, UnsupportedOpError
from lmonnx.exporters.lowering import rules as _rules
from lmonnx.exporters.lowering.dense import recognise_dense
from lmonnx.exporters.lowering.gates import close_gates
from lmonnx.exporters.lowering.order import EXTENTS, arrange
from lmonnx.exporters.lowering.patterns import NCHW_TO_NHWC, NHWC_TO_NCHW, recognise_blocks
from lmonnx.exporters.lowering.reach import note_rings
from lmonnx.exporters.lowering.registry import FIXED, INTERNAL_DOMAIN, RULES, Operand, Refused
from lmonnx.exporters.lowering.rows import mixed
from lmonnx.exporters.lowering.rules.joins import JOINS
from lmonnx.exporters.lowering.undefined import ATTENTION, SUSPECTS, drawing, undefined
from lmonnx.exporters.lowering.vectors import REMEDY, REMOVED, Vectors
from lmonnx.exporters.ops.builder import Op, UnknownShapeError, extents, ints, scalar, sides
from lmonnx.exporters.ops.fill import QUANTISED, QuantisedError, zeroed
from lmonnx.exporters.ops.masked import Masked
from lmonnx.masking import MaskRules

__all__ = ["IR_VERSION", "SUSPECTS", "Lowered", "lower"]

assert _rules.__all__, "importing the rules fills the table"

#: The lowest IR version that carries metadata on nodes, which is where the rules are recorded.
IR_VERSION = 10


class Unknown:
    """Stands for what a refused node would have given, so that the nodes behind it are looked at too."""


#: Operators any of whose operands may be masked; of the others only the first.
JOINING = {*JOINS, "Concat", "Einsum", "MatMul"}
FOREIGN = "it belongs to the domain {!r}, and only standard operators are known"


@dataclass(frozen=True)
class Lowered:
    """A mask-aware graph.

    Attributes:
        model: inputs ``image`` and ``mask``, outputs by the names of the source.
        values: what each value of the source became, by name.
    """

    model: ir.Model
    values: dict[str, Masked | ir.Value]


def lower(source: ir.Model, rules: MaskRules, *, layout: str = "NCHW", all_kept: bool = False) -> Lowered:
    """Lowers a normalised model with one image input of known channels, height and width.

    Args:
        source: what :func:`lmonnx.exporters.normalise.normalise` returns; it is left as it is.
        rules: the mask rules; of ``rings`` and ``removed`` the defaults only.
        layout: of the source's image input, ``"NCHW"`` or ``"NHWC"``. The new image input is NCHW.
        all_kept: compute every value at all positions that it keeps, also at those that nothing reads.

    Raises:
        OptionError: if the rules ask for what only the reference has.
        UnsupportedOpError: naming every node that masking is not defined for.
    """
    for name, only in (("rings", "window"), ("removed", "zero")):
        if getattr(rules, name) != only:
            raise OptionError(f"rule {name}={getattr(rules, name)!r} exists in the reference only; use {only!r}")
    source = source.clone()
    recognise_blocks(source.graph)
    recognise_dense(source.graph)
    if not all_kept:
        first = _Lowering(source, rules, layout)
        first.run()
        note_rings(source.graph, first.op, first.values)
    last = _Lowering(source, rules, layout)
    lowered = last.run()
    close_gates(lowered.model.graph, last.op)
    arrange(lowered.model.graph)
    return lowered


class _Lowering:
    def __init__(self, source: ir.Model, rules: MaskRules, layout: str) -> None:
        self.source = source.graph
        self.layout = layout
        self.graph = ir.Graph([], [], nodes=[], opset_imports={"": source.opset_imports[""]}, name="lmonnx")
        values = [*self.source.inputs, *self.source.initializers.values()]
        values += [value for node in self.source for value in node.outputs]
        names = {str(value.name) for value in values} | {str(node.name) for node in self.source}
        (image,) = self.source.inputs
        wide = ir.DataType.DOUBLE if image.dtype == ir.DataType.DOUBLE else ir.DataType.FLOAT
        self.names = names | {"image", "mask"}
        half = any(value.dtype == ir.DataType.FLOAT16 for value in values)
        self.op = Op(self.graph, rules, wide, half, taken=self.names)
        self.values: dict[ir.Value, Masked | ir.Value | Unknown] = {}
        self.offences: list[Offence] = []
        self.debris: set[str] = set()
        self.vectors = Vectors()
        self.following: set[ir.Value] = set(self.source.inputs)

    def run(self) -> Lowered:
        self.open()
        for node in self.source:
            if node.op_type not in EXTENTS and any(value in self.following for value in node.inputs):
                self.following.update(node.outputs)
            if not node.domain and (drawn := drawing(node)) is not None:
                self.refuse(node, Refused(*drawn))
                continue
            if any(isinstance(self.values.get(value), Unknown) for value in node.inputs if value is not None):
                self.look_at(node)
                continue
            operands = [self.operand(value) for value in node.inputs]
            if node.domain not in ("", INTERNAL_DOMAIN):
                self.refuse(node, Refused(FOREIGN.format(node.domain)))
            elif any(isinstance(x, Masked) for x in operands):
                self.lower(node, operands)
            else:
                self.copy(node, operands)
        for output in self.source.outputs:
            self.check_output(output)
        if any(offence.why == ATTENTION for offence in self.offences):
            self.offences = [offence for offence in self.offences if offence.node not in self.debris]
        if self.offences:
            raise UnsupportedOpError(self.offences)
        self.close()
        model = ir.Model(self.graph, ir_version=IR_VERSION, producer_name="lmonnx")
        return Lowered(model, {str(v.name): x for v, x in self.values.items() if not isinstance(x, Unknown)})

    def check_output(self, output: ir.Value) -> None:
        """An output that is still masked has to be one whose removed positions can be 0."""
        made, producer = self.values.get(output), output.producer()
        if not isinstance(made, Masked) or producer is None:
            return
        if made.border is not None:
            self.refuse(producer, Refused("an output is a constant Pad that no window has read"))
        elif made.data.dtype in QUANTISED:
            self.refuse(producer, Refused("an output is quantised integers, of which a removed one is not defined"))

    def open(self) -> None:
        """The contract's two inputs; their Where is all that ever reads the image.

        The mask takes the batch that image and mask have together, under one name: onnxruntime keeps its layout in
        blocks of channels between operands that it can prove to be of one shape.
        """
        (given,) = self.source.inputs
        assert given.dtype is not None
        shape = sides(given)
        nchw = [shape[axis] for axis in NHWC_TO_NCHW] if self.layout == "NHWC" else list(shape)
        shapes = ir.Shape(["images", *nchw[1:]]), ir.Shape(["masks", 1, *nchw[2:]])
        image = ir.Value(name="image", type=ir.TensorType(given.dtype), shape=shapes[0])
        mask = ir.Value(name="mask", type=ir.TensorType(ir.DataType.BOOL), shape=shapes[1])
        self.graph.inputs.extend([image, mask])
        joined = self.op.Where(mask, image, scalar(0, image))
        joined.shape = ir.Shape(["batch", *nchw[1:]])
        mask = self.op.Expand(mask, self.op.Concat(self.op.Shape(joined, end=1), ints([1, 1, 1]), axis=0))
        mask.shape = ir.Shape(["batch", 1, *nchw[2:]])
        x = Masked(joined, mask, (2, 3), zero=True)
        if self.layout == "NHWC":
            data, turned = (self.op.Transpose(v, perm=NCHW_TO_NHWC) for v in (joined, mask))
            x = x.but(data=data, mask=turned, axes=(1, 2))
        self.values[given] = x

    def operand(self, value: ir.Value | None) -> Operand:
        if value is None:
            return None
        if value not in self.values:
            assert value.const_value is not None, f"{value.name} has no producer"
            self.values[value] = self.op.initializer(self.free_name(value), value.const_value)
        made = self.values[value]
        assert not isinstance(made, Unknown)
        return made

    def free_name(self, value: ir.Value) -> str:
        """The source's name for ``value``, unless the contract's inputs have taken it."""
        name = str(value.name)
        if name in ("image", "mask"):
            while name in self.names:
                name += "_"
        return name

    def copy(self, node: ir.Node, operands: Sequence[Operand]) -> None:
        if any(isinstance(a.value, ir.Graph) for a in node.attributes.values()):
            self.refuse(node, Refused("control flow is not followed", "export without it"))
            return
        if why := mixed(node, [value in self.following for value in node.inputs]):
            self.refuse(node, Refused(why))  # and copied, so that the nodes behind it are looked at too
        if self.vectors.misread(node):
            self.refuse(node, Refused(REMOVED, REMEDY))
        if node.domain == INTERNAL_DOMAIN:
            if node.inputs[0] is None or None in extents(node.inputs[0])[1:]:
                self.refuse(node, Refused("the height and width of its map are not known", FIXED))
                return
            self.lower(node, [self.kept_everywhere(operands[0]), *operands[1:]])
            lowered = self.values[node.outputs[0]]
            self.values[node.outputs[0]] = lowered.data if isinstance(lowered, Masked) else lowered
            return
        with self.op.made_by("copy", str(node.name)):
            result = self.op.call(node.op_type, *operands, **dict(node.attributes), _outputs=len(node.outputs))  # type: ignore[arg-type]
        made = [result] if isinstance(result, ir.Value) else list(result)
        for value, new in zip(node.outputs, made, strict=True):
            self.adopt(node, value, new)

    def kept_everywhere(self, value: Operand) -> Masked:
        """A plain map [N, C, …space] as a masked one of which nothing is removed."""
        assert isinstance(value, ir.Value)
        _, _, *space = extents(value)
        mask = self.op.constant(np.ones((1, 1, *(extent or 1 for extent in space)), np.bool_))
        return Masked(value, mask, tuple(range(2, 2 + len(space))))

    def lower(self, node: ir.Node, operands: Sequence[Operand]) -> None:
        try:
            masked = [i for i, x in enumerate(operands) if isinstance(x, Masked)]
            if node.op_type not in RULES:
                raise Refused(undefined(node.op_type, len(masked)) or "there is no rule for this operator")
            if node.op_type not in JOINING and masked != [0]:
                raise Refused("one of its parameters depends on the image")
            with self.op.made_by(node.op_type, str(node.name)):
                made = RULES[node.op_type](self.op, node, *operands)
            results = made if isinstance(made, list) else [made]
            if any(value.uses() or value.is_graph_output() for value in node.outputs[len(results) :]):
                raise Refused("only its first output is defined, and another one is read")
            for value, result in zip(node.outputs, results, strict=False):
                self.adopt(node, value, result)
            if isinstance(operands[0], Masked) and not isinstance(results[0], Masked):
                self.vectors.note(node, operands[0])
        except (Refused, QuantisedError) as refusal:
            self.refuse(node, refusal if isinstance(refusal, Refused) else Refused(*refusal.args))
        except UnknownShapeError as unknown:
            self.refuse(node, Refused(str(unknown), FIXED))

    def adopt(self, node: ir.Node, value: ir.Value, made: Masked | ir.Value) -> None:
        """Gives what the rule made for ``value`` the source's name and shape, unless it has them from before.

        What waits for its border is not yet what the source has under that name.
        """
        self.values[value] = made
        if isinstance(made, Masked) and made.border is not None:
            return
        data = made.data if isinstance(made, Masked) else made
        producer = data.producer()
        if producer is None or data.name == self.free_name(value) or not str(data.name).startswith(f"{node.name}/"):
            return
        data.name = self.free_name(value)
        data.type = data.type or value.type
        if value.shape is not None:
            data.shape = value.shape
        if producer.op_type == node.op_type:
            producer.name = node.name

    def refuse(self, node: ir.Node, refusal: Refused) -> None:
        """Notes the offence and makes up the outputs, so that the nodes behind it are looked at too."""
        shapes = tuple(_text(value) for value in node.inputs if value is not None)
        remedy = {} if refusal.remedy is None else {"remedy": refusal.remedy}
        if refusal.debris:
            self.debris.add(str(node.name))
        self.offences.append(Offence(str(node.name), node.op_type, shapes, refusal.why, **remedy))
        known = refusal.axes is not None and node.outputs[0].shape is not None
        made = self.stand_in(node, refusal.axes or ()) if known else Unknown()
        self.values.update(dict.fromkeys(node.outputs, made))

    def look_at(self, node: ir.Node) -> None:
        """A node behind a refused one: it is refused too if that does not depend on which axes are space.

        Where an unknown value meets a masked one in a sum, as behind a residual branch, the layout is known again.
        """
        operands = [self.values.get(value) for value in node.inputs if value is not None]
        activations = [x for x in operands if isinstance(x, (Masked, Unknown))]
        if (why := undefined(node.op_type, len(activations))) is not None:
            self.refuse(node, Refused(why))
        known = next((x for x in activations if isinstance(x, Masked)), None)
        joined = node.op_type in JOINS and node.outputs[0].shape is not None
        made = self.stand_in(node, known.axes) if joined and known else Unknown()
        self.values.update(dict.fromkeys(node.outputs, made))

    def stand_in(self, node: ir.Node, axes: tuple[int, ...]) -> Masked:
        """A masked value of the shape of the node's output, with a mask as large, that no graph will ever compute."""
        (output, *_) = node.outputs
        kind = output.type or ir.TensorType(ir.DataType.FLOAT)
        data = ir.Value(name=f"{output.name}/refused", type=kind, shape=output.shape)
        space = [extent or 1 if axis in axes else 1 for axis, extent in enumerate(extents(data))]
        return Masked(data, self.op.constant(np.ones(space, np.bool_)), axes, finite=False)

    def close(self) -> None:
        """Outputs by the source's names; one that is still masked is 0 where it is removed."""
        for output in self.source.outputs:
            made = self.operand(output)
            with self.op.made_by("output", str(output.name)):
                data = zeroed(self.op, made) if isinstance(made, Masked) else made
                assert isinstance(data, ir.Value)
                if data in self.graph.outputs or data.producer() is None:
                    data = self.op.Identity(data)
            self.rename(data, self.free_name(output))
            if output.shape is not None and extents(output):
                data.shape = ir.Shape(["batch", *extents(output)[1:]])
            self.graph.outputs.append(data)
        joined = self.graph.node(0).outputs[0]
        if all(use.node.op_type in EXTENTS for use in joined.uses()) and joined not in self.graph.outputs:
            raise SourceError("no output of the network depends on its image")
        if None in extents(self.graph.inputs[0])[1:]:
            self.forget_names()

    def forget_names(self) -> None:
        """No name of an open extent between inputs and outputs: two inferences gave them, and one may be of both."""
        for value in (value for node in self.graph for value in node.outputs):
            if value.shape is not None and value not in self.graph.outputs:
                value.shape = ir.Shape([side if isinstance(side, int) else None for side in value.shape])

    def rename(self, data: ir.Value, name: str) -> None:
        """Gives ``data`` a name, and the value that had it the name of ``data``."""
        values = [*self.graph.initializers.values(), *(value for node in self.graph for value in node.outputs)]
        for value in values:
            if value is not data and value.name == name:
                value.name = data.name
        data.name = name


def _text(value: ir.Value) -> str:
    return "unknown" if value.shape is None else "×".join(str(d) for d in value.shape) or "scalar"
