"""The first front end: a PyTorch module as a mask-aware network, by walking its exported ATen graph."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from lmonnx.errors import Offence, OptionError, UnsupportedOpError
from lmonnx.masking import MaskRules
from lmonnx.reference.activation import Masked, RefusedError, Unknown, failure, join, offence, settle
from lmonnx.reference.aten_operators import PLAIN, masked_call
from lmonnx.reference.aten_program import duplicate, exported, own_dtype
from lmonnx.reference.precision import Precision
from lmonnx.reference.vectors import Vectors


def mask_aware(
    module: torch.nn.Module, *, rules: MaskRules | None = None, size: int | tuple[int, int] | None = None
) -> MaskAware:
    """Makes a classifier mask-aware: `(image, mask) -> outputs`, by the definition and without optimisation.

    Args:
        module: takes one image `[N, C, H, W]`, in eval mode; never changed. Its parameters are read at every
            call, so gradients flow to them and updates are seen.
        rules: the choices of layer masking; the defaults of MaskRules if None.
        size: export at once for this (height, width), three channels, the module's own device.

    Raises:
        OptionError: if the module is in training mode.
        SourceError: if torch.export cannot trace it.
    """
    aware = MaskAware(module, rules or MaskRules())
    if size is not None:
        height, width = (size, size) if isinstance(size, int) else size
        like = next(module.parameters(), torch.zeros(()))
        aware.program((3, height, width), like.device)
    return aware


class MaskAware:
    """A mask-aware network, `(image, mask) -> outputs`; see `mask_aware`.

    Attributes:
        module: the network, as given.
        rules: the choices of layer masking.
    """

    def __init__(self, module: torch.nn.Module, rules: MaskRules) -> None:
        self.module, self.rules = module, rules
        self._programs: dict[tuple[Any, ...], ExportedProgram] = {}
        self._demand_eval()

    def __call__(self, image: Tensor, mask: Tensor) -> Any:
        """The network's outputs as if the removed pixels were not there.

        Args:
            image: floating `[images, C, H, W]`; its dtype and device are those of the computation, see `Precision`.
            mask: bool `[masks, 1, H, W]`, True = keep; the batch axes broadcast.

        Returns:
            What the module returns, with batch first; 0 where an output is a map and removed.

        Raises:
            OptionError: if an argument is not as described or the module is in training mode.
            SourceError: if torch.export cannot trace the module for this size.
            UnsupportedOpError: if masking is not defined for some nodes.
        """
        joined = join(image, mask)
        self._demand_eval()
        program = self.program(tuple(image.shape[1:]), image.device)
        values = [settle(value) if isinstance(value, Masked) else value for value in self._walk(program, joined)]
        return pytree.tree_unflatten(values, program.call_spec.out_spec)

    def program(self, shape: tuple[int, ...], device: torch.device) -> ExportedProgram:
        """The graph for images `[batch, *shape]` in the module's own dtype, made once for each shape and device."""
        if (shape, device) not in self._programs:
            module = self.module
            if any(t.device != device for t in (*module.parameters(), *module.buffers())):
                module = duplicate(module).to(device)
            example = torch.zeros(2, *shape, dtype=own_dtype(module), device=device)
            self._programs[shape, device] = exported(module, example)
        return self._programs[shape, device]

    def _demand_eval(self) -> None:
        if self.module.training:
            raise OptionError("the module is in training mode; call its eval() first")

    def _walk(self, program: ExportedProgram, joined: Masked) -> list[Any]:
        """The values of the user's outputs, in order."""
        precision = Precision(own_dtype(self.module), joined.data.dtype)
        walk = _Walk(program, self.rules, precision, joined.data.device)
        with precision.default():
            walk.run(dict(self._inputs(program, joined)))
        outputs = program.graph.output_node().args[0]
        kinds = [spec.kind for spec in program.graph_signature.output_specs]
        named = [output for output, kind in zip(outputs, kinds, strict=True) if kind == OutputKind.USER_OUTPUT]
        values = [walk.values[n] if isinstance(n, torch.fx.Node) else n for n in named]
        for value, node in zip(values, named, strict=True):
            if isinstance(value, Masked) and value.border:
                refusal = RefusedError("an output is a constant Pad that no window has read")
                walk.offences.append(offence(node.name, "output", [value], refusal))
        if walk.offences:
            raise UnsupportedOpError(walk.offences)
        return values

    def _inputs(self, program: ExportedProgram, joined: Masked) -> Iterator[tuple[str, Any]]:
        """What the placeholders stand for: live parameters and buffers, constants, the image."""
        for spec in program.graph_signature.input_specs:
            if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
                yield spec.arg.name, operator.attrgetter(str(spec.target))(self.module)
            elif spec.kind == InputKind.USER_INPUT:
                yield spec.arg.name, joined
            else:
                yield spec.arg.name, program.constants[str(spec.target)]


@dataclass
class _Walk:
    """One walk through a graph: operators that see a masked input go through the table, all others just run.

    In-place operators bind their result to every name of the object that they write. Views of one tensor are
    a family, named by its root; writing one while another is still read is refused, because a masked
    activation does not share memory with its views.
    """

    program: ExportedProgram
    rules: MaskRules
    precision: Precision
    device: torch.device
    values: dict[torch.fx.Node, Any] = field(default_factory=dict)
    family: dict[torch.fx.Node, torch.fx.Node] = field(default_factory=dict)
    offences: list[Offence] = field(default_factory=list)
    vectors: Vectors = field(default_factory=Vectors)

    def run(self, inputs: dict[str, Any]) -> None:
        """Gives every node its value, and forgets it after its last reader."""
        order = {node: index for index, node in enumerate(self.program.graph.nodes)}
        last = {node: max((order[user] for user in node.users), default=-1) for node in order}
        for node, index in order.items():
            if node.op == "output":
                return
            self.family[node] = node
            if node.op == "placeholder":
                self.values[node] = self._constant(inputs[node.name])
            elif node.op == "get_attr":
                self.values[node] = self._constant(operator.attrgetter(str(node.target))(self.program.graph_module))
            else:
                self._call(node, {other for other in self.values if last[other] > index})
            for other in [other for other in self.values if last[other] <= index]:
                del self.values[other]

    def _constant(self, value: Any) -> Any:
        return self.precision.tensor(value, self.device) if isinstance(value, Tensor) else value

    def _call(self, node: torch.fx.Node, alive: set[torch.fx.Node]) -> None:
        """Runs one node; `alive` are the nodes whose values are read after it."""
        given = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: self.values[n])
        args, kwargs = self.precision.arguments(given)
        leaves = pytree.tree_leaves((args, kwargs))
        if any(isinstance(leaf, Unknown) for leaf in leaves):
            self.values[node] = Unknown()
            return
        try:
            written = self._written(node)
            if written is not None:
                self._demand_no_live_view(written, alive)
            result = self._result(node, args, kwargs, [leaf for leaf in leaves if isinstance(leaf, Masked)])
        except RefusedError as refusal:
            self.offences.append(offence(node.name, str(node.target), leaves, refusal))
            result = Unknown()
            written = None
        except Exception as error:
            failed = offence(node.name, str(node.target), leaves, failure(error))
            raise UnsupportedOpError([*self.offences, failed]) from error
        self.values[node] = result
        self.vectors.note(_name(node.target), node.all_input_nodes, [node], leaves, result)
        source = written or _viewed(node)
        if source is not None:
            self.family[node] = self.family[source]
        if written is not None:
            old = self.values[written]
            self.values.update({other: result for other, value in self.values.items() if value is old})

    def _result(self, node: torch.fx.Node, args: Any, kwargs: Any, masked: list[Masked]) -> Any:
        target: Any = node.target
        if target is torch.ops.aten._assert_tensor_metadata.default:
            return None  # it asserts the dtype of the trace
        if target is torch.ops.higher_order.wrap_with_autocast:
            raise RefusedError("it rounds to fewer bits by itself", "leave autocast out of the module's forward")
        if not masked:
            self.vectors.demand(_name(target), node.all_input_nodes)
            return PLAIN.get(target, target)(*args, **kwargs)
        if target is operator.getitem:
            if args[0][args[1]] is None and node.users:
                raise RefusedError("the indices of a maximum have no masked meaning")
            return args[0][args[1]]
        if not isinstance(target, torch._ops.OpOverload):
            raise RefusedError("masking has no rule for it")
        return masked_call(target, self.rules, _bound(target, args, kwargs), masked)

    def _written(self, node: torch.fx.Node) -> torch.fx.Node | None:
        """The node whose value an in-place operator writes."""
        if not isinstance(node.target, torch._ops.OpOverload) or not node.target._schema.is_mutable:
            return None
        for argument, value in zip(node.target._schema.arguments, node.args, strict=False):
            if argument.is_write and isinstance(value, torch.fx.Node):
                return value
        raise RefusedError("it writes to something that is not its first operand")

    def _demand_no_live_view(self, written: torch.fx.Node, alive: set[torch.fx.Node]) -> None:
        root = self.family[written]
        relatives = [node for node, value in self.values.items() if self.family[node] is root]
        if root.op == "placeholder" and not isinstance(self.values[written], Masked):
            raise RefusedError("it writes to a parameter or a buffer of the module")
        views = [n for n in relatives if n in alive and self.values[n] is not self.values[written]]
        if any(isinstance(self.values[node], Masked) for node in [*views, written] if views):
            raise RefusedError("it writes in place to a tensor of which a view is read later", "do not write in place")


def _name(target: Any) -> str:
    """The name of an operator without its overload; of the largest of two, which is no maximum over axes, with it."""
    if not isinstance(target, torch._ops.OpOverload):
        return ""
    name = target._schema.name.partition("::")[2]
    return f"{name}.other" if target._overloadname == "other" else name


def _viewed(node: torch.fx.Node) -> torch.fx.Node | None:
    """The node that the result may share memory with, by the operator's schema."""
    if node.target is operator.getitem:
        return node.args[0] if isinstance(node.args[0], torch.fx.Node) else None
    if not isinstance(node.target, torch._ops.OpOverload) or not node.all_input_nodes:
        return None
    schema = node.target._schema
    shares = any(result.alias_info is not None for result in schema.returns) or "dropout" in schema.name
    return node.all_input_nodes[0] if shares else None


def _bound(target: torch._ops.OpOverload[Any, Any], args: Any, kwargs: Any) -> list[Any]:
    """The arguments in the order of the operator's schema, defaults filled in."""
    bound = list(args)
    for argument in target._schema.arguments[len(args) :]:
        bound.append(kwargs.get(argument.name, argument.default_value))
    return bound
