"""What an exported graph says about itself, for people: inputs, outputs and metadata, read without onnx."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lmonnx.runtime.contract import Contract
from lmonnx.runtime.form import Form
from lmonnx.runtime.preprocessing import Preprocessing
from lmonnx.runtime.session import Runner

COLUMNS = 100
"""Of the terminal that reports are laid out for."""

_FIRST_LABELS = 3
_KINDS = {
    "tensor(float)": "float32",
    "tensor(uint8)": "uint8",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
}
_PRECISIONS = {
    "float32": "float32",
    "float16": "float16; image, outputs, and what is added up or counted are float32",
    "int8": "int8 between QuantizeLinear and DequantizeLinear, float32 otherwise",
}


@dataclass(frozen=True)
class Tensor:
    """An input or an output of a graph.

    Attributes:
        name: its name in the graph.
        kind: its dtype, such as ``"float32"``.
        shape: its extents; a name for an axis that is free, such as a batch, ``None`` for one that is not known.
    """

    name: str
    kind: str
    shape: tuple[int | str | None, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.kind} [{', '.join('?' if side is None else str(side) for side in self.shape)}]"


@dataclass(frozen=True)
class Description:
    """The contract of an exported graph; ``str()`` is the report for a terminal of 100 columns.

    Attributes:
        path: the file, as given.
        size: bytes of the file, and of the one beside it if that holds its weights.
        inputs: ``image`` and ``mask``.
        outputs: in the order of the graph.
        contract: its metadata.
    """

    path: str
    size: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    contract: Contract

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON knows it; the metadata under the keys that the file has it."""
        metadata = {key.removeprefix("lmonnx."): text for key, text in self.contract.to_props().items()}
        plain = ("version",)
        return {
            "path": self.path,
            "bytes": self.size,
            **{
                part: [{"name": each.name, "kind": each.kind, "shape": list(each.shape)} for each in tensors]
                for part, tensors in (("inputs", self.inputs), ("outputs", self.outputs))
            },
            "metadata": {key: text if key in plain else json.loads(text) for key, text in metadata.items()},
        }

    def rows(self) -> list[tuple[str, str]]:
        """The report as pairs of what and finding, each finding one line of any length."""
        contract = self.contract
        beside = "" if contract.data is None else f" with the weights in {contract.data} beside it"
        made = f"by lmonnx {contract.version}, format {contract.format}"
        rows = [("file", f"{self.path}, {in_bytes(self.size)}{beside}, {made}")]
        broadcast = "; the batch axes broadcast" if contract.form.batch is None else ""
        takes = ", pixels 0 … 255, RGB or grey" if contract.form.image == "uint8" else ""
        meanings = {"image": takes, "mask": f", True = keep{broadcast}"}
        rows += [("input", f"{each}{meanings.get(each.name, '')}") for each in self.inputs]
        rows += _sizes(contract.form)
        rows += [("output", f"{each}, {_holds(contract.outputs[each.name])}") for each in self.outputs]
        rows += [("precision", _PRECISIONS[kind])] if (kind := contract.form.precision) else []
        return [
            *rows,
            *_photos(contract.preprocessing, by_graph=contract.form.image == "uint8"),
            ("labels", _labels(contract.labels)),
            ("rules", _pairs(contract.rules)),
            *_source(contract.source),
            ("proof", _proof(contract.verified, contract.form.precision or "float32")),
            ("versions", _pairs(contract.versions, " ") or "not recorded"),
        ]

    def __str__(self) -> str:
        return laid_out(self.rows())


def describe(path: str | os.PathLike[str]) -> Description:
    """Reads what a file says about itself. It takes onnxruntime and neither torch nor onnx.

    Args:
        path: a file that ``lmonnx export`` wrote.

    Raises:
        ModelError: if there is no such file, it is not an ONNX file, or not a graph exported by lmonnx.
    """
    runner = Runner(path, provider="cpu", threads=1)
    session = runner._engine.session  # of this package
    inputs, outputs = (
        tuple(Tensor(each.name, _KINDS.get(each.type, each.type), tuple(each.shape)) for each in values)
        for values in (session.get_inputs(), session.get_outputs())
    )
    by_name = sorted(inputs, key=lambda each: each.name)  # image, mask
    files = [runner.path]
    if runner.contract.data is not None:
        files.append(os.path.join(os.path.dirname(runner.path), runner.contract.data))
    size = sum(os.path.getsize(file) for file in files if os.path.exists(file))
    return Description(runner.path, size, tuple(by_name), outputs, runner.contract)


def laid_out(rows: Iterable[tuple[str, str]]) -> str:
    """Pairs of what and finding in two columns, the second wrapped at 100 columns."""
    rows = list(rows)
    width = max(len(what) for what, _ in rows) + 2
    lines: list[str] = []
    for what, finding in rows:
        lines += textwrap.wrap(
            finding,
            COLUMNS,
            initial_indent=f"{what:<{width}}",
            subsequent_indent=" " * width,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def in_bytes(count: float) -> str:
    """``46.8 MB``: bytes in a unit of a power of 1000."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while abs(count) >= 1000 and len(units) > 1:
        count, units = count / 1000, units[1:]
    return f"{count:.0f} {units[0]}" if units[0] == "bytes" else f"{count:.1f} {units[0]}"


def _sizes(form: Form) -> list[tuple[str, str]]:
    """Which sizes an image of open height and width may have; nothing where they are fixed."""
    if form.size is None:
        return []
    height, width = form.size
    return [("sizes", f"any from {form.smallest}×{form.smallest} on; photographs become {height}×{width}")]


def _holds(kind: str) -> str:
    return "not known whether logits or probabilities" if kind == "unknown" else kind


def _photos(preprocessing: Preprocessing | None, *, by_graph: bool) -> list[tuple[str, str]]:
    """Steps from a photograph to ``image``; whether the graph takes the last ones itself."""
    if preprocessing is None:
        return [("photos", "not recorded; images have to be prepared as the network wants them")]
    height, width = preprocessing.size
    fit = f"resized to {height}×{width}"
    if preprocessing.resize is not None:
        fit = f"short side resized to {preprocessing.resize}, centre crop {height}×{width}"
    order = preprocessing.channel_order if len(preprocessing.mean) == 3 else "grey"
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (preprocessing.mean, preprocessing.std))
    scaling = f"(pixel / {preprocessing.scale:g} − mean) / std, mean {mean}, std {std}"
    if by_graph:
        scaling += f", done by the graph{', which makes BGR of RGB' if order == 'BGR' else ''}"
        order = "RGB" if order == "BGR" else order
    return [
        ("photos", f"{fit} (height×width), {preprocessing.interpolation}, {order}"),
        ("pixels", scaling),
    ]


def _source(source: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where the network comes from, and the hash that it is known by."""
    hashes = {key: value for key, value in source.items() if key.endswith("sha256")}
    head = " ".join(str(source[key]) for key in ("kind", "name") if key in source)
    others = _pairs({key: value for key, value in source.items() if key not in {"kind", "name", *hashes}}, " ")
    named = [(key.replace("_", " "), str(value)) for key, value in hashes.items()]
    return [("source", ", ".join(part for part in (head, others) if part) or "not recorded"), *named]


def _labels(labels: tuple[str, ...] | None) -> str:
    if labels is None:
        return "not recorded"
    more = ", …" if len(labels) > _FIRST_LABELS else ""
    return f"{len(labels)}: {', '.join(labels[:_FIRST_LABELS])}{more}"


def _pairs(values: Mapping[str, Any], between: str = "=") -> str:
    return ", ".join(f"{key}{between}{value}" for key, value in values.items())


def _proof(verified: Mapping[str, Any], precision: str) -> str:
    """What the exporter found when it compared the graph with the reference."""
    if verified.get("passed") is None:
        return "not made; lmonnx verify makes it"
    masks, undecided = (verified.get(key) for key in ("masks", "undecided"))
    rows = f" on {len(masks)} masks" if isinstance(masks, list) else ""
    open_ = f", of which {precision} cannot tell {len(undecided)}" if isinstance(undecided, list) and undecided else ""
    found = f"largest difference {verified.get('largest', '?')}, allowed {verified.get('tolerance', '?')}"
    return f"{'passed' if verified['passed'] is True else 'FAILED'}{rows}{open_}: {found}"
