"""docs/portability.md, from the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from portability.rows import HALF, Row, Verdict
from portability.runtimes import RUNTIMES, Runtime

HEAD = """# The same file in every runtime

Made by `make portability`, which installs what it needs into `build/portability` and goes on where it stopped; its
rows are in `portability/rows.jsonl`. Every network, torchvision's with random weights (`seed:0`) at 128×128, was
exported in float32 at the lowest opset that it has, at the one that it gets if none is asked for, and at the highest,
and, but for ResNet-50, in float16. Every runtime got the same images and the eight masks of the proof: as pairs, one
image with all masks, several images with one mask, and each row alone; onnx's evaluator, which takes seconds a row, got
three pairs. A number is the largest difference from the PyTorch reference in float64, in units of how that varies over
the masks, over those masks that the file's precision can tell; allowed is four times what the float32 reference is off,
plus 2e-5, and in float16 what the proof of the file allows. Everything but CUDA runs on a CPU.

Held as well, or the cell says so: outputs are finite, those of the mask that keeps nothing too; what lies under the
mask, NaN included, changes no bit of any output; a row alone is that row in a batch, to 2e-5, or where a runtime
computes in less than the file is of, to 0.3.
"""
OPTIONS = {
    "plain": "",
    HALF: "`--precision fp16`",
    "pixels": "`--image uint8 --softmax`",
    "any-size": "`--size dynamic`",
}
ELSEWHERE = """
In bfloat16, and where a file in float32 is computed in float16, 0.3 is allowed. That bfloat16 is further off for some
networks is what its rounding explains, 2¹⁶ times that of float32: none is off by more than so many times what the
float32 reference is. Its answers about these random weights are of no use all the same, and all laws hold.

Float16 is another matter: **let no runtime convert a float32 file to float16.** It holds numbers that float16 does
not, 2³⁰ in convolutions that fill and 10³⁰ where removed values are pushed below a ReLU. For a runtime that computes in
float16, by default or if asked, export with `--precision fp16`. Such a file counts its masks in float32, and holds all
the same where a runtime puts that into float16 too, as OpenVINO does with this hint. ResNet-50 has none here: what
float16 rounds of its random weights and its maps is too much for a proof, and the export is refused.

Not tried: onnxruntime-web on WebGPU and WebNN, TensorRT, CoreML, DirectML and NNAPI (no such device here). For C++ and
C# onnxruntime is the same library as for Python, behind other headers; [production.md](production.md) has a program in
C++ that was run.
"""
NOTES = {
    "onnxruntime": "with which lmonnx is tested",
    "onnxruntime-cuda": "without TF32, where there is a GPU",
    "onnxruntime-1.20.0": "the oldest that lmonnx itself may be installed with",
    "onnxruntime-1.18.1": "the oldest that reads files of ir_version 10, which all below opset 21 are",
    "onnxruntime-web": "one thread, headless Chromium",
    "openvino": "`INFERENCE_PRECISION_HINT=f32`",
    "openvino-default": "bfloat16, on processors that have it; see below",
    "openvino-f16": "`INFERENCE_PRECISION_HINT=f16`; see below",
    "onnx": "three pairs, bundled network only",
}


def page(rows: Sequence[Row]) -> str:
    """The whole page, Markdown."""
    refusals = [row for row in rows if row.runtime == "export"]
    rows = [row for row in rows if row.runtime != "export"]
    states = len({row.code for row in rows})
    mixed = f"\nThe rows are of {states} states of the code; `make portability` makes those of earlier ones again.\n"
    notes = _notes(rows)
    parts = [HEAD + (mixed if states > 1 else ""), _runtimes(rows), ELSEWHERE, "## Every file\n", _files(rows, notes)]
    parts += [f"{number}. {why}" for why, number in notes.items()]
    if refusals:
        parts += ["\nThere is no lower opset than the lowest where an operator is younger:\n"]
        parts += [f"- `{row.network}`: {row.why}" for row in refusals]
    return "\n".join(parts) + "\n"


def _of(rows: Sequence[Row], runtime: Runtime) -> list[Row]:
    return [row for row in rows if row.runtime == runtime.key]


def _runtimes(rows: Sequence[Row]) -> str:
    """How each runtime did, one line each."""
    lines = ["| runtime | version | as the reference | differs | refused | failed | not run | of what is allowed | |"]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    for runtime in RUNTIMES:
        mine = _of(rows, runtime)
        counts = [sum(row.verdict == verdict for row in mine) for verdict in get_args(Verdict)]
        versions = ", ".join(sorted({row.version for row in mine if row.version})) or "–"
        shares = [row.difference / row.allowed for row in mine if row.difference is not None and row.allowed]
        share = f"{100 * max(shares):.0f} %" if shares else "–"
        cells = [runtime.title, versions, *map(str, counts), share, NOTES.get(runtime.key, "")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _notes(rows: Sequence[Row]) -> dict[str, int]:
    """What the runtimes said, each once, with its number."""
    reasons = dict.fromkeys(row.why for row in rows if row.why)
    return {why: number for number, why in enumerate(reasons, start=1)}


def _files(rows: Sequence[Row], notes: dict[str, int]) -> str:
    """A line for each file, a column for each runtime."""
    lines = ["| file | opset | allowed | " + " | ".join(_title(rows, runtime) for runtime in RUNTIMES) + " |"]
    lines.append("|---" * (3 + len(RUNTIMES)) + "|")
    files = dict.fromkeys((row.network, row.form, row.opset) for row in rows)
    for network, form, opset in files:
        mine = {row.runtime: row for row in rows if (row.network, row.form, row.opset) == (network, form, opset)}
        exact = [mine[runtime.key] for runtime in RUNTIMES if runtime.key in mine and not runtime.coarser(form)]
        allowed = next((f"{row.allowed:.1e}" for row in exact if row.allowed), "")
        cells = [_cell(mine.get(runtime.key), notes) for runtime in RUNTIMES]
        name = f"`{network}` {OPTIONS[form]}".strip()
        lines.append(f"| {name} | {opset} | {allowed} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _title(rows: Sequence[Row], runtime: Runtime) -> str:
    versions = {row.version for row in _of(rows, runtime) if row.version}
    return " ".join([runtime.title, *sorted(versions)])


def _cell(row: Row | None, notes: dict[str, int]) -> str:
    if row is None:
        return "not run"
    note = f" ({notes[row.why]})" if row.why else ""
    if row.verdict == "same":
        return f"{row.difference:.1e}"
    if row.verdict == "differs":
        return ("**not finite**" if row.difference is None else f"**{row.difference:.1e}**") + note
    return f"not run{note}" if row.verdict == "not run" else f"**{row.verdict}**{note}"
