"""Which networks of timm the sweep is measured on: one name for each file of timm/models that defines CNNs.

    python -m zoo.denominator > zoo/timm.txt

Of each file the smallest network, by parameters, that passes the operator test. A network is a CNN if, in the ATen
graph that torch.export makes of it,

1. no operator of :data:`CONTRACTIONS` has two operands that depend on the image (attention in all its forms, state
   space models), and none of :data:`ORDERED` reads one (sums along, orders of and recurrences over positions);
2. no weight is tied to the number of positions (mixing MLPs, position embeddings): with the same weights it runs on
   an image 64 pixels larger in both directions.

Nothing of lmonnx takes part, so that what it cannot do is no reason to leave a network out.
"""

from __future__ import annotations

import collections
import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout

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
    try:
        with torch.no_grad():
            module(torch.zeros(1, channels, height + LARGER, width + LARGER, device="meta"))
    except Exception as error:
        reason = [*str(error).splitlines(), type(error).__name__][0]
        return f"its weights are tied to the size of the image ({reason[:80]})"
    graph = torch.export.export(module, (torch.zeros(2, channels, height, width, device="meta"),)).graph
    depending = {node for node in graph.nodes if node.op == "placeholder" and node.name == "x"}
    assert depending, [node.name for node in graph.nodes if node.op == "placeholder"][-1:]
    for node in graph.nodes:
        operands = [operand for operand in node.all_input_nodes if operand in depending]
        if not operands:
            continue
        depending.add(node)
        operator = str(node.target).removeprefix("aten.").partition(".")[0]
        if operator in CONTRACTIONS and len(operands) > 1:
            return f"{operator} of two activations"
        if operator in ORDERED:
            return f"{operator} over an activation"
    return None


def main() -> None:
    """Prints the list, with what was left out and why as comments."""
    print(f"# timm {timm.__version__}, torch {torch.__version__.partition('+')[0]}; made by python -m zoo.denominator")
    for file, names in files().items():
        why = ""
        for _, name in by_size(names):
            with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                why = objection(name) or ""
            print(f"{file}: {name}: {why or 'CNN'}", file=sys.stderr, flush=True)
            if not why:
                print(name, flush=True)
                break
        else:
            print(f"# {file}: {why}", flush=True)


if __name__ == "__main__":
    main()
