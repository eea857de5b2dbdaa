"""Which networks of timm the sweep is measured on: one name for each file of timm/models that defines CNNs.

    python -m zoo.denominator > zoo/timm.txt

Of each file the smallest network, by parameters, that passes the operator test. A network is a CNN if, in the ATen
graph that torch.export makes of it,

1. no operator of :data:`CONTRACTIONS` has two operands that depend on the image (attention in all its forms, state
   space models), and none of :data:`ORDERED` reads one (sums along, orders of and recurrences over positions);
2. no softmax runs along positions: its axis is as long for an image 64 pixels larger in both directions;
3. no weight is tied to the number of positions (mixing MLPs, position embeddings): with the same weights it runs on
   that larger image.

Nothing of lmonnx takes part, so that what it cannot do is no reason to leave a network out.
"""

from __future__ import annotations

import collections
import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout

import click
import timm
import torch
from timm.models._registry import _model_to_module

CONTRACTIONS = {
    "baddbmm", "bmm", "einsum", "linear", "matmul", "mm", "scaled_dot_product_attention", "tensordot",
}  # fmt: skip
ORDERED = {"cummax", "cumprod", "cumsum", "gru", "lstm", "rnn_relu", "rnn_tanh", "sort", "topk"}
LARGER = 64


def files() -> dict[str, list[str]]:
    """Names by the file of timm/models that defines them."""
    names = collections.defaultdict(list)
    for name in timm.list_models(exclude_filters="test_*"):  # miniatures, for timm's own tests
        names[_model_to_module[name]].append(name)
    return dict(sorted(names.items()))


def by_size(names: list[str]) -> Iterator[tuple[int, str]]:
    """Number of parameters and name, smallest first; built without memory for the weights."""
    sizes = []
    for name in names:
        with torch.device("meta"):
            module = timm.create_model(name)
        sizes.append((sum(parameter.numel() for parameter in module.parameters()), name))
    yield from sorted(sizes)


def objection(name: str) -> str | None:
    """Why the network is no CNN; None if it is one."""
    with torch.device("meta"):
        module = timm.create_model(name).eval()
    if not module.num_classes:
        return "it has no classifier"
    channels, height, width = module.pretrained_cfg["input_size"]
    larger = torch.zeros(1, channels, height + LARGER, width + LARGER, device="meta")
    try:
        with torch.no_grad():
            module(larger)
    except Exception as error:
        reason = [*str(error).splitlines(), type(error).__name__][0]
        return f"its weights are tied to the size of the image ({reason[:80]})"
    nodes = list(depending(module, torch.zeros(1, channels, height, width, device="meta")))
    for operator, operands, _ in nodes:
        if operator in CONTRACTIONS and operands > 1:
            return f"{operator} of two activations"
        if operator in ORDERED:
            return f"{operator} over an activation"
    lengths = [along for operator, _, along in nodes if "softmax" in operator]
    if lengths != [along for operator, _, along in depending(module, larger) if "softmax" in operator]:
        return "a softmax along positions"
    return None


def depending(module: torch.nn.Module, image: torch.Tensor) -> Iterator[tuple[str, int, int]]:
    """The operators that depend on the image: name, how many operands do, and how long a softmax's axis is."""
    graph = torch.export.export(module, (image,)).graph
    reached = {node for node in graph.nodes if node.op == "placeholder" and node.name == "x"}
    assert reached, "forward does not call its image x"
    for node in graph.nodes:
        operands = [operand for operand in node.all_input_nodes if operand in reached]
        if not operands:
            continue
        reached.add(node)
        operator = str(node.target).removeprefix("aten.").partition(".")[0]
        along = node.meta["val"].shape[node.args[1]] if "softmax" in operator else 0
        yield operator, len(operands), along


def main() -> None:
    """Prints the list, with what was left out and why as comments; of the files that are named, or of all."""
    click.echo(
        f"# timm {timm.__version__}, torch {torch.__version__.partition('+')[0]}; made by python -m zoo.denominator"
    )
    only = sys.argv[1:]
    for file, names in files().items():
        why = ""
        if only and file not in only:
            continue
        for _, name in by_size(names):
            with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                why = objection(name) or ""
            click.echo(f"{file}: {name}: {why or 'CNN'}", err=True)
            if not why:
                click.echo(name)
                break
        else:
            click.echo(f"# {file}: {why}")


if __name__ == "__main__":
    main()
