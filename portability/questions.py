"""What every runtime is asked about a file, and what the reference answers, on disk in a form that any language reads.

``questions.json`` lists the questions: a name, and for ``image`` and ``mask`` the file, the type and the shape. Each
file holds the numbers alone, in C order and little endian. A runtime answers with ``<name>.bin``, float32, and its
shape.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from lmonnx.exporters.proof import LEAST, inputs, suite
from lmonnx.exporters.verification import CEILINGS, FLOOR, SLACK, Verification
from lmonnx.runtime import Runner

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Reference: TypeAlias = Callable[[Array, Array], tuple[Array, ...]]

#: The mask that several images have in common.
COMMON = "16 px patches"
ROWS_AT_ONCE = 4
#: Rows of the pairs that the slow evaluators are asked: nothing removed, everything, patches.
FEW = 3


def write_questions(
    folder: Path,
    runner: Runner,
    channels: int,
    size: tuple[int, int],
    reference: Reference,
    proof: Verification | None = None,
    only: Collection[str] | None = None,
) -> float:
    """Writes the questions and, as ``expected.npz``, what the float64 reference answers; returns what may be off.

    The unit is how the reference's answers vary over the masks. A graph may be off by as much as in the proof: four
    times what the float32 reference is off, where float32 can tell at all, plus 2e-5. Of one in float16 its own proof
    says what it may be off, and where float16 can tell.

    Args:
        folder: where to.
        runner: a graph of this form.
        channels: of the image.
        size: height and width of the image.
        reference: the masked network in PyTorch, in the precision of its image.
        proof: of a graph in float16.
        only: names of the masks, :data:`COMMON` among them and at least as many as :data:`FEW`; all if None.
    """
    folder.mkdir(parents=True, exist_ok=True)
    masks = {name: mask for name, mask in suite(size).items() if only is None or name in only}
    mask = np.stack(list(masks.values()))
    asked = inputs(runner.contract.form, runner.contract.preprocessing, channels, size, mask)
    common = mask[list(masks).index(COMMON)][None]
    probabilities = "probabilities" in runner.contract.outputs.values()

    def answers(image: Array, rows: Array) -> Array:
        return comparable(_in_parts(reference, image, rows), probabilities, logits=True)

    n = len(mask)
    exact, single = answers(asked.exact, mask), answers(asked.single, mask)
    scale = variation(exact)
    if proof is None:
        off = np.abs(single - exact).max(axis=1) / scale
        decided = off * SLACK <= CEILINGS["float32"]
        tolerance = SLACK * float(off[decided].max()) + FLOOR
    else:
        told = {row.name: row.decided for row in proof.rows}
        decided, tolerance = np.array([told[name] for name in masks]), proof.tolerance
    expected = {
        "pairs": exact,
        "one image": answers(np.repeat(asked.exact[:1], n, axis=0), mask),
        "one mask": answers(asked.exact[:FEW], np.repeat(common, FEW, axis=0)),
    }
    questions = {
        "pairs": (asked.given, mask),
        "one image": (asked.given[:1], mask),
        "one mask": (asked.given[:FEW], common),
        "hidden": (asked.hidden, mask),
        "few": (asked.given[:FEW], mask[:FEW]),
        "few hidden": (asked.hidden[:FEW], mask[:FEW]),
        **{f"alone {i}": (asked.given[i : i + 1], mask[i : i + 1]) for i in range(n)},
    }
    np.savez(folder / "expected.npz", **expected, scale=scale, decided=decided, probabilities=probabilities)
    _write(folder, questions)
    return tolerance


def comparable(output: Array, probabilities: bool, logits: bool = False) -> Array:
    """Answers in float64, probabilities as logarithms, so that an unlikely class counts as much as a likely one.

    Args:
        output: ``[n, classes]``.
        probabilities: whether the graph answers with probabilities.
        logits: whether ``output`` holds logits all the same.
    """
    wide: Array = output.astype(np.float64)
    if not probabilities:
        return wide
    if logits:
        powers = np.exp(wide - wide.max(axis=1, keepdims=True))
        wide = powers / powers.sum(axis=1, keepdims=True)
    return np.log(np.maximum(wide, LEAST))


def variation(exact: Array) -> float:
    """The unit of all differences, as in the proof: the median over rows of the deviation from the median row."""
    away = exact - np.median(exact, axis=0)
    return float(np.median(np.sqrt(np.mean(away**2, axis=1))))


def _in_parts(reference: Reference, image: Array, mask: Array) -> Array:
    parts = [slice(i, i + ROWS_AT_ONCE) for i in range(0, len(mask), ROWS_AT_ONCE)]
    return np.concatenate([reference(image[part], mask[part])[0] for part in parts])


def _write(folder: Path, questions: Mapping[str, tuple[Array, Array]]) -> None:
    listed = []
    for name, arrays in questions.items():
        question: dict[str, Any] = {"name": name}
        for part, array in zip(("image", "mask"), arrays, strict=True):
            file = f"{name} {part}.bin".replace(" ", "-")
            (folder / file).write_bytes(np.ascontiguousarray(array).tobytes())
            question[part] = {"file": file, "type": str(array.dtype), "shape": list(array.shape)}
        listed.append(question)
    (folder / "questions.json").write_text(json.dumps(listed), encoding="utf-8")
