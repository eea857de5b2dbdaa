"""The second front end: a list of ONNX nodes, in Python and NumPy values, as a mask-aware network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from lmonnx.errors import Offence, OptionError, UnsupportedOpError
from lmonnx.masking import MaskRules
from lmonnx.reference import layout as layouts
from lmonnx.reference.activation import Masked, RefusedError, Unknown, Value, failure, join, offence, settle
from lmonnx.reference.onnx_call import Call, Node
from lmonnx.reference.onnx_operators import masked_call, plain_call
from lmonnx.reference.vectors import Vectors


def mask_aware_nodes(
    nodes: Sequence[Node],
    initializers: Mapping[str, NDArray[Any]],
    *,
    image: str,
    outputs: Sequence[str],
    opset: int,
    rules: MaskRules | None = None,
    layout: str = "NCHW",
) -> NodeProgram:
    """Makes an ONNX graph mask-aware: `(image, mask) -> outputs`, by the definition and without optimisation.

    Args:
        nodes: in topological order, as the file has them, of one opset.
        initializers: the file's parameters by name.
        image: name of the graph's one input.
        outputs: names of the graph's outputs.
        opset: 9 to 28.
        rules: the choices of layer masking; the defaults of MaskRules if None.
        layout: of the graph's own input, "NCHW" or "NHWC"; the image given is NCHW and transposed first.

    Raises:
        OptionError: if the opset or the layout is not one of those, or an output is no value of the graph.
    """
    if not 9 <= opset <= 28:
        raise OptionError(f"the reference knows the opsets 9 to 28, not {opset}")
    if layout not in ("NCHW", "NHWC"):
        raise OptionError(f"layout {layout!r} is unknown; choose one of NCHW, NHWC")
    known = {image, *initializers, *(name for node in nodes for name in node.outputs)}
    if unknown := [name for name in outputs if name not in known]:
        raise OptionError(f"the graph has no value {unknown[0]!r}")
    return NodeProgram(tuple(nodes), initializers, image, tuple(outputs), opset, rules or MaskRules(), layout)


class NodeProgram:
    """A mask-aware ONNX graph, `(image, mask) -> outputs`; see `mask_aware_nodes`."""

    def __init__(
        self,
        nodes: tuple[Node, ...],
        initializers: Mapping[str, NDArray[Any]],
        image: str,
        outputs: tuple[str, ...],
        opset: int,
        rules: MaskRules,
        layout: str,
    ) -> None:
        self._nodes, self._initializers = nodes, initializers
        self._image, self._outputs = image, outputs
        self._opset, self._rules, self._layout = opset, rules, layout

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """The graph's outputs as if the removed pixels were not there, in the order of `outputs`.

        Args:
            image: floating `[images, C, H, W]`; its dtype and device are those of the computation.
            mask: bool `[masks, 1, H, W]`, True = keep; the batch axes broadcast.

        Raises:
            OptionError: if an argument is not as described.
            UnsupportedOpError: if masking is not defined for some nodes.
        """
        values = self._walk(join(image, mask), keep_all=False)
        return tuple(settle(values[name]) for name in self._outputs)

    def values(self, image: Tensor, mask: Tensor) -> dict[str, Value]:
        """Every value of the graph by name, the image and all outputs of nodes; arguments as for a call."""
        values = self._walk(join(image, mask), keep_all=True)
        return {name: value for name, value in values.items() if name not in self._initializers}

    def _walk(self, joined: Masked, *, keep_all: bool) -> dict[str, Any]:
        """Runs the nodes in order; without `keep_all` a value is forgotten after its last reader."""
        start = layouts.transpose(joined, (0, 2, 3, 1)) if self._layout == "NHWC" else joined
        blank = Call(Node("", "", (), (), {}), self._opset, self._rules, joined.data.dtype, joined.data.device)
        offences: list[Offence] = []
        values: dict[str, Any] = {}
        for name, array in self._initializers.items():
            try:
                values[name] = blank.tensor(array)
            except RefusedError as refusal:
                offences.append(offence(name, "initializer", [], refusal))
                values[name] = Unknown()
        values[self._image] = start
        vectors = Vectors()
        last = {name: index for index, node in enumerate(self._nodes) for name in node.inputs}
        for index, node in enumerate(self._nodes):
            inputs = [values[name] if name else None for name in node.inputs]
            call = Call(node, self._opset, self._rules, blank.dtype, blank.device)
            values.update(zip(node.outputs, self._results(call, inputs, offences, vectors), strict=False))
            for name in {*node.inputs, *node.outputs} - set(self._outputs) if not keep_all else ():
                if last.get(name, -1) <= index:
                    values.pop(name, None)
        for name in self._outputs:
            if isinstance(values[name], Masked) and values[name].border:
                refused = RefusedError("an output is a constant Pad that no window has read")
                offences.append(offence(name, "output", [values[name]], refused))
        if offences:
            raise UnsupportedOpError(offences)
        return values

    def _results(self, call: Call, inputs: list[Any], offences: list[Offence], vectors: Vectors) -> tuple[Any, ...]:
        """One value for each output of a node, Unknown where it was refused or follows one that was."""
        unknown = (Unknown(),) * len(call.node.outputs)
        if any(isinstance(value, Unknown) for value in inputs):
            return unknown
        node = call.node
        try:
            if call.node.domain not in ("", "ai.onnx"):
                raise RefusedError(f"the reference does not know the domain {call.node.domain!r}")
            masked = any(isinstance(value, Masked) for value in inputs)
            if not masked:
                vectors.demand(node.operator, node.inputs)
            result = masked_call(call, inputs) if masked else plain_call(call, inputs)
        except RefusedError as refused:
            offences.append(offence(call.node.name, call.node.operator, inputs, refused))
            return unknown
        except Exception as error:
            failed = offence(call.node.name, call.node.operator, inputs, failure(error))
            raise UnsupportedOpError([*offences, failed]) from error
        vectors.note(node.operator, node.inputs, node.outputs, inputs, result)
        return result if isinstance(result, tuple) else (result,)
