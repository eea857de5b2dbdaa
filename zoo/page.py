"""docs/models.md, from the table."""

from __future__ import annotations

from collections.abc import Sequence

from lmonnx.support import Support
from zoo.names import is_cnn

HEAD = """# Which networks can be masked

Made by `make zoo`; `lmonnx models` prints the same table. Every row was exported with random weights (`seed:0`),
compared with the PyTorch reference under the eight masks of the proof, and held to the laws: outputs are finite,
removed pixels change nothing (bitwise, NaN and infinity included), a row alone is that row in a batch, batches
broadcast.
The difference is that of the float32 graph from the float64 reference, the largest over the masks that float32 can
tell, in units of how the output varies over the masks; allowed is four times what the float32 reference is off, plus
2e-5. The size is 128×128 where the network takes it, else its own. `lmonnx models --json` has for each row a digest of
the code that made it.
"""
TIMM = """
The list is fixed before the sweep, by `zoo/denominator.py`: of each file of `timm/models` the smallest network that is
a CNN, by an operator test that knows nothing of lmonnx (no product of two activations, no softmax and no order along
positions, no weight tied to the number of positions).
"""


def page(rows: Sequence[Support]) -> str:
    """The whole page, Markdown."""
    torchvision = [row for row in rows if not row.name.startswith("timm:")]
    timm = [row for row in rows if row.name.startswith("timm:")]
    cnns = [row for row in torchvision if is_cnn(row.name)]
    others = [row for row in torchvision if not is_cnn(row.name)]
    parts = [
        HEAD,
        f"## torchvision {_version(cnns, 'torchvision')}: {_share(cnns)} CNN classifiers tried\n",
        _table(cnns),
        f"## timm {_version(timm, 'timm')}: {_share(timm)} tried of the list\n{TIMM}",
        _table(timm),
        "## Not CNNs: refused, by name of the operator\n",
        *(f"- `{row.name}`: {'; '.join(row.why)}" if row.verdict == "refused" else f"- `{row.name}`: {row.verdict}"
          for row in others),
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def _version(rows: Sequence[Support], package: str) -> str:
    return ", ".join(sorted({row.versions[package] for row in rows}))


def _share(rows: Sequence[Support]) -> str:
    return f"{sum(row.verdict == 'supported' for row in rows)} of {len(rows)}"


def _table(rows: Sequence[Support]) -> str:
    lines = ["| network | size | nodes | masked | difference | allowed | operators |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        if row.verdict != "supported" or row.size is None:
            lines.append(f"| `{row.name}` | **{row.verdict}** |  |  |  |  | {'; '.join(row.why)} |")
            continue
        operators = ", ".join(f"{count} {operator}" for operator, count in row.operators.items())
        size = "×".join(map(str, row.size))
        lines.append(
            f"| `{row.name}` | {size} | {row.nodes} | {row.masked_nodes} | {row.difference:.1e} "
            f"| {row.tolerance:.1e} | {operators} |"
        )
    return "\n".join(lines) + "\n"
