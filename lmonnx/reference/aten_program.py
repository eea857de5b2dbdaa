"""A PyTorch module as an exported ATen graph."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Graph, GraphModule, Node

from lmonnx.errors import SourceError

#: Reductions of a stack, and what joins two of its parts.
JOINS: dict[Any, Any] = {
    torch.ops.aten.amax.default: torch.ops.aten.maximum.default,
    torch.ops.aten.amin.default: torch.ops.aten.minimum.default,
    torch.ops.aten.mean.dim: torch.ops.aten.add.Tensor,
    torch.ops.aten.sum.dim_IntList: torch.ops.aten.add.Tensor,
}

_Module = TypeVar("_Module", bound=torch.nn.Module)


def own_dtype(module: torch.nn.Module) -> torch.dtype:
    """What a module computes in: the dtype of its first floating parameter or buffer, else PyTorch's default."""
    tensors = (*module.parameters(), *module.buffers())
    return next((t.dtype for t in tensors if t.is_floating_point()), torch.get_default_dtype())


def duplicate(module: _Module) -> _Module:
    """A deep copy; of what a module computed of its parameters, as weight norm by hooks does, the values."""
    memo = {
        id(value): value.detach().clone()
        for part in module.modules()
        for value in vars(part).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    return copy.deepcopy(module, memo)


def exported(module: torch.nn.Module, example: Tensor) -> ExportedProgram:
    """The graph of a module for images like the example, with a free batch, in the form that the walk reads.

    Raises:
        SourceError: if torch.export cannot trace the module, or it takes several inputs.
    """
    dynamic = ({0: torch.export.Dim("batch")},)
    try:
        program = torch.export.export(module, (example,), dynamic_shapes=dynamic)
        if any(_writes_a_part(node) for node in program.graph.nodes):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # PyTorch 2.13 warns of what it does itself
                program = program.run_decompositions({})  # which leaves no writing in place
    except Exception as error:
        raise SourceError(
            f"torch.export cannot trace {type(module).__name__} for {list(example.shape[1:])}: {error}"
        ) from error
    inputs = [spec for spec in program.graph_signature.input_specs if spec.kind == InputKind.USER_INPUT]
    if len(inputs) != 1:
        raise SourceError(f"{type(module).__name__} takes {len(inputs)} inputs; a classifier takes one image")
    _open_regions(program.graph_module, example.device.type)
    _give_epsilons(program.graph_module)
    _join_parts(program.graph)
    return program


def _writes_a_part(node: Node) -> bool:
    """Whether an operator writes into a slice of another tensor, as `x[:, :4] = y` does."""
    target: Any = node.target
    if not isinstance(target, torch._ops.OpOverload) or not target._schema.is_mutable:
        return False
    part: Any = node.args[0]
    return isinstance(part, Node) and part.target in (torch.ops.aten.slice.Tensor, torch.ops.aten.select.int)


def _give_epsilons(module: GraphModule) -> None:
    """RMSNorm's epsilon is that of the dtype by default; it stays what it is in the module's own."""
    for node in module.graph.nodes:
        if node.target is torch.ops.aten.rms_norm.default and len(node.args) < 4 and node.kwargs.get("eps") is None:
            node.kwargs = {**node.kwargs, "eps": torch.finfo(node.meta["val"].dtype).eps}


def _join_parts(graph: Graph) -> None:
    """A reduction over the new first axis of a stack joins its parts; elsewhere the first axis is the batch."""
    for stack in graph.find_nodes(op="call_function", target=torch.ops.aten.stack.default):
        first, *others = stack.args[0]
        reduced = all(node.target in JOINS and node.args[1:] == ([0],) and not node.kwargs for node in stack.users)
        if stack.args[1:] not in ((), (0,)) or not others or not reduced:
            continue
        for node in [*stack.users]:
            with graph.inserting_before(stack):
                joined = first
                for other in others:
                    joined = graph.call_function(JOINS[node.target], (joined, other))
                if node.target is torch.ops.aten.mean.dim:
                    joined = graph.call_function(torch.ops.aten.div.Tensor, (joined, len(others) + 1))
            node.replace_all_uses_with(joined)
            graph.erase_node(node)
        graph.erase_node(stack)


def _open_regions(module: GraphModule, device: str) -> None:
    """Puts what runs under `torch.no_grad`, or under an `autocast` that changes nothing, into the graph itself.

    What leaves a region without gradients is detached. An autocast that rounds stays, and the walk refuses it.
    """
    for node, place, inputs in [*_regions(module, device)]:
        body = getattr(module, str(place.target))
        _open_regions(body, device)
        given = [inner for inner in body.graph.nodes if inner.op == "placeholder"]
        with module.graph.inserting_before(node):
            results: Any = module.graph.graph_copy(body.graph, dict(zip(given, inputs, strict=True)))
            if node.args[0] is False:
                results = [_detached(module.graph, made) for made in results]
        for user in [*node.users]:
            user.replace_all_uses_with(results[user.args[1]])
            module.graph.erase_node(user)
        module.graph.erase_node(node)
        module.graph.erase_node(place)


def _regions(module: GraphModule, device: str) -> Iterator[tuple[Node, Node, list[Node]]]:
    """The nodes that run a graph of their own in another mode, the node that names that graph, and its inputs."""
    for node in module.graph.nodes:
        arguments: Any = node.args
        if node.target is torch.ops.higher_order.wrap_with_set_grad_enabled:
            _, place, *inputs = arguments
        elif node.target is torch.ops.higher_order.wrap_with_autocast and not (arguments[2] and arguments[0] == device):
            _, _, _, _, place, *inputs = arguments
        else:
            continue
        yield node, place, inputs


def _detached(graph: Graph, made: Any) -> Any:
    """A tensor of a graph without its gradients; numbers as they are."""
    is_tensor = isinstance(made, Node) and isinstance(made.meta.get("val"), Tensor)
    return graph.call_function(torch.ops.aten.detach.default, (made,)) if is_tensor else made
