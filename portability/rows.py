"""One file in one runtime: what it answered, against what the reference does."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from portability.questions import FEW, Array, comparable

FILE = Path(__file__).parent / "rows.jsonl"
#: The form of a file in float16; those of all others are in float32.
HALF = "half"
Verdict: TypeAlias = Literal["same", "differs", "refused", "failed", "not run"]


@dataclass(frozen=True)
class Row:
    """What came of one file in one runtime.

    Attributes:
        network: its name.
        form: how the graph was asked for, see ``portability.networks.FORMS``.
        opset: of the file.
        runtime: key of the runtime.
        version: of the runtime; empty if it was not run.
        verdict: ``"same"``; ``"differs"`` if an answer is further off than allowed or a law does not hold;
            ``"refused"`` if the runtime says that it does not load or run the file; ``"failed"`` if it cannot be
            installed though it should be, ends, takes too long or leaves questions out; ``"not run"``.
        why: what does not hold, what the runtime said, or why it was not run.
        lawful: whether all laws hold; None if nothing was asked.
        difference: largest difference from the float64 reference, in units of how that varies over the masks, over the
            masks that float32 can tell; None if it is not finite, or nothing was compared.
        allowed: what it may be.
        alone: the largest difference of a row alone from the same row in a batch, in that unit.
        seconds: that all questions took, loading included.
        code: digest of the code that made the file and the row.
    """

    network: str
    form: str
    opset: int
    runtime: str
    version: str = ""
    verdict: Verdict = "not run"
    why: str = ""
    lawful: bool | None = None
    difference: float | None = None
    allowed: float | None = None
    alone: float | None = None
    seconds: float | None = None
    code: str = ""

    @property
    def key(self) -> tuple[str, str, int, str]:
        """What it is the row of."""
        return self.network, self.form, self.opset, self.runtime


def read() -> dict[tuple[str, str, int, str], Row]:
    """The table as it is now."""
    lines = FILE.read_text(encoding="utf-8").splitlines() if FILE.exists() else []
    return {row.key: row for row in (Row(**json.loads(line)) for line in lines)}


def write(rows: Sequence[Row]) -> None:
    """The table in the order given; the file appears whole."""
    new = FILE.with_suffix(".new")
    new.write_text("".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    os.replace(new, FILE)


def judge(
    answers: Mapping[str, Array],
    expected: Mapping[str, Any],
    allowed: float,
    rounding: float,
    asked: Sequence[str] = (),
) -> dict[str, Any]:
    """Verdict, reasons and figures of a runtime's answers, as fields of a row.

    Args:
        answers: by question, ``[n, classes]``.
        expected: ``expected.npz`` of the questions.
        allowed: what an answer may be off.
        rounding: what a row alone may be off the same row in a batch.
        asked: the questions, all if empty.
    """
    shapes = _shapes(expected)
    missing = [name for name in asked or shapes if name not in answers or answers[name].shape != shapes[name]]
    if missing:
        return {"verdict": "failed", "why": f"not answered, or not with a row for each pair: {', '.join(missing)}"}
    scale, decided = float(expected["scale"]), expected["decided"]
    probabilities = bool(expected["probabilities"])
    given = {name: comparable(answer, probabilities) for name, answer in answers.items()}
    exact = {"few": expected["pairs"][:FEW], **{name: expected[name] for name in ("pairs", "one image", "one mask")}}
    told = {"pairs": decided, "one image": decided, "few": decided[:FEW], "one mask": slice(None)}
    off = {name: _off(given[name], exact[name], scale, told[name]) for name in exact if name in given}
    rows = len(given.get("pairs", ()))
    alone = max(
        (_off(given[f"alone {i}"], given["pairs"][i : i + 1], scale, slice(None)) for i in range(rows)), default=None
    )
    broken = [f"{name}: off by {value:.1e}" for name, value in off.items() if not value <= allowed]
    if broken:
        whole = next(name for name in ("pairs", "few") if name in given)
        broken.append(f"with nothing removed: {_off(given[whole][:1], exact[whole][:1], scale, slice(None)):.1e}")
    laws = [law for law, holds in LAWS.items() if not holds(answers)]
    if alone is not None and not alone <= rounding:
        laws.append(f"a row alone is that row in a batch ({alone:.1e})")
    broken += [f"broken: {law}" for law in laws]
    return {
        "verdict": "differs" if broken else "same",
        "why": "; ".join(broken),
        "lawful": not laws,
        "difference": _rounded(float(np.max(list(off.values())))),
        "allowed": float(f"{allowed:.3g}"),
        "alone": None if alone is None else _rounded(alone),
    }


def _rounded(value: float) -> float | None:
    """To three digits, for JSON, which knows no NaN."""
    return float(f"{value:.3g}") if np.isfinite(value) else None


def _shapes(expected: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """That of each answer, by question."""
    rows, classes = expected["pairs"].shape
    few = min(FEW, rows)
    return {
        **{name: expected[name].shape for name in ("pairs", "one image", "one mask")},
        "hidden": (rows, classes),
        "few": (few, classes),
        "few hidden": (few, classes),
        **{f"alone {i}": (1, classes) for i in range(rows)},
    }


def _off(some: Array, exact: Array, scale: float, told: Any) -> float:
    return float((np.abs(some - exact).max(axis=1) / scale)[told].max())


def _hidden(answers: Mapping[str, Array]) -> bool:
    pairs = (("pairs", "hidden"), ("few", "few hidden"))
    return all(answers[a].tobytes() == answers[b].tobytes() for a, b in pairs if a in answers)


#: Law -> whether it holds of answers.
LAWS: dict[str, Callable[[Mapping[str, Array]], bool]] = {
    "outputs are finite, with nothing kept too": lambda answers: all(np.isfinite(a).all() for a in answers.values()),
    "what lies under the mask changes nothing, NaN included": _hidden,
}
