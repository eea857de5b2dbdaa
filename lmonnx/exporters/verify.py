"""The proof: one suite of masks through the graph and through the reference, and what may differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmonnx.errors import VerificationError
from lmonnx.exporters.sources.network import Array, Network
from lmonnx.masking import MaskRules
from lmonnx.runtime.session import Runner

#: A float32 graph may be off the float64 reference by this many times what the float32 reference is, …
SLACK = 4.0
#: … plus this floor, …
FLOOR = 2e-5
#: … and never by more than this. All three relative to the standard deviation of the reference's output.
CEILING = 1e-2
ROWS_AT_ONCE = 4


@dataclass(frozen=True)
class Row:
    """One mask of the suite, or the comparison with the original network.

    Attributes:
        name: what was compared.
        difference: largest difference of the graph from the float64 reference, over all outputs, in standard
            deviations of the output; NaN if the graph's output was not finite.
        reference: the same for the float32 reference.
    """

    name: str
    difference: float
    reference: float


@dataclass(frozen=True)
class Verification:
    """The result of the suite.

    Attributes:
        rows: one for each mask, and one for the original network.
        tolerance: what each difference may be, in standard deviations of the output.
        front_end: which front end of the reference was asked.
    """

    rows: tuple[Row, ...]
    tolerance: float
    front_end: str

    @property
    def passed(self) -> bool:
        """Whether every difference is a number within the tolerance."""
        return all(row.difference <= self.tolerance for row in self.rows)

    @property
    def largest(self) -> float:
        """The largest difference; NaN if any is."""
        return float(np.max([row.difference for row in self.rows]))

    def __str__(self) -> str:
        width = max(len(row.name) for row in self.rows)
        head = f"{'mask':<{width}}  {'graph':>9}  {'float32 reference':>17}  allowed {self.tolerance:.1e}"
        lines = [
            f"{row.name:<{width}}  {row.difference:9.1e}  {row.reference:17.1e}  "
            f"{'ok' if row.difference <= self.tolerance else 'FAILED'}"
            for row in self.rows
        ]
        note = "largest difference from the float64 reference, in standard deviations of the output"
        return "\n".join([note, head, *lines])

    def summary(self) -> dict[str, Any]:
        """What the metadata keeps."""
        return {
            "passed": self.passed,
            "reference": self.front_end,
            "largest": float(f"{self.largest:.3g}"),
            "tolerance": float(f"{self.tolerance:.3g}"),
            "masks": [row.name for row in self.rows],
        }


def suite(size: tuple[int, int], seed: int = 0) -> dict[str, Array]:
    """The masks of the proof, bool [1, H, W] by name, True = keep."""
    height, width = size
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    patches = rng.random((-(-height // 16), -(-width // 16))) > 0.5
    radius = 0.3 * min(size)
    one = np.zeros(size, bool)
    one[height // 2, width // 3] = True
    masks = {
        "all True": np.ones(size, bool),
        "all False": np.zeros(size, bool),
        "16 px patches": np.kron(patches, np.ones((16, 16), bool))[:height, :width],
        "disc removed": (y - 0.45 * height) ** 2 + (x - 0.55 * width) ** 2 > radius**2,
        "right half removed": x < width // 2,
        "thin stripes": (y // 5) % 3 > 0,
        "one pixel removed": ~one,
        "one pixel kept": one,
    }
    return {name: mask[None] for name, mask in masks.items()}


def images(count: int, channels: int, size: tuple[int, int], seed: int = 1) -> Array:
    """Random images, float32 [count, channels, H, W]: coarse blobs and fine noise, mean 0 and variance 1."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(count, channels, -(-size[0] // 8), -(-size[1] // 8)))
    blobs = np.kron(coarse, np.ones((8, 8)))[:, :, : size[0], : size[1]]
    mixed = blobs + 0.3 * rng.normal(size=blobs.shape)
    scaled: Array = (mixed / mixed.std()).astype(np.float32)
    return scaled


def verify(runner: Runner, network: Network, rules: MaskRules) -> Verification:
    """Compares an exported graph with the reference, and with the original network where nothing is removed.

    Args:
        runner: the written file, on a CPU.
        network: where it comes from.
        rules: the mask rules that it was lowered with.

    Raises:
        VerificationError: if the graph and the reference cannot be compared at all.
        ModelError: if the graph does not run.
    """
    masks = suite(network.size)
    mask = np.stack(list(masks.values()))
    image = images(len(masks), network.channels, network.size)
    reference = network.reference(rules)
    exact = _in_parts(reference, image.astype(np.float64), mask)
    single = _in_parts(reference, image, mask)
    names = list(runner.contract.outputs)
    graph = _in_parts(lambda a, b: _ordered(runner.run(a, b), names), image, mask)
    if [a.shape for a in graph] != [a.shape for a in exact]:
        raise VerificationError(
            f"the graph's outputs have shapes {[a.shape for a in graph]} and the reference's {[a.shape for a in exact]}"
        )
    scales = [float(np.std(a)) or float(np.abs(a).max()) or 1.0 for a in exact]
    mine, theirs = _differences(graph, exact, scales), _differences(single, exact, scales)
    rows = [Row(name, mine[i], theirs[i]) for i, name in enumerate(masks)]
    rows.append(_original(rows, graph, network, image, scales, list(masks).index("all True")))
    tolerance = min(CEILING, SLACK * float(np.max(theirs)) + FLOOR)
    return Verification(tuple(rows), tolerance, network.front_end)


def _original(
    rows: list[Row], graph: tuple[Array, ...], network: Network, image: Array, scales: list[float], row: int
) -> Row:
    """The law that no reference can vouch for: an all-True mask gives the original network's output."""
    plain = network.plain(image[row : row + 1])
    kept = tuple(a[row : row + 1] for a in graph)
    return Row("original network", _differences(kept, plain, scales)[0], rows[row].reference)


def _in_parts(run: Callable[[Array, Array], tuple[Array, ...]], image: Array, mask: Array) -> tuple[Array, ...]:
    """Runs a few rows at a time, because wide networks in float64 take much memory."""
    parts = [run(image[i : i + ROWS_AT_ONCE], mask[i : i + ROWS_AT_ONCE]) for i in range(0, len(image), ROWS_AT_ONCE)]
    return tuple(np.concatenate(outputs) for outputs in zip(*parts, strict=True))


def _ordered(outputs: Mapping[str, Array], names: list[str]) -> tuple[Array, ...]:
    return tuple(outputs[name] for name in names)


def _differences(some: tuple[Array, ...], exact: tuple[Array, ...], scales: list[float]) -> list[float]:
    """For each row the largest difference over all outputs, each in units of its scale."""
    each = [
        np.abs(a.astype(np.float64) - b).reshape(len(b), -1).max(axis=1) / scale
        for a, b, scale in zip(some, exact, scales, strict=True)
    ]
    return [float(value) for value in np.max(each, axis=0)]
