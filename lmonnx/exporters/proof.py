"""The proof: one suite of masks through the graph and through the reference, and what may differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmonnx.errors import SourceError, VerificationError
from lmonnx.exporters.sources.network import Array, Network, Reference
from lmonnx.masking import MaskRules
from lmonnx.runtime.form import Form
from lmonnx.runtime.preprocessing import Preprocessing
from lmonnx.runtime.session import Runner

#: A float32 graph may be off the float64 reference by this many times what the float32 reference is, …
SLACK = 4.0
#: … plus this floor, …
FLOOR = 2e-5
#: … and never by more than this. All three relative to how the reference's output varies over the suite.
CEILING = 1e-2
#: The ceiling by what a network computes in. Rounding to less than float32 is coarser than small faults are; one ring
#: fewer, a wrong stride or any for all change a seeded MobileNetV2 by 1 to 10.
CEILINGS = {"float32": CEILING, "float16": 0.3, "int8": 0.3}
#: Probabilities below this are not told apart; float32 holds them to 1e-38.
LEAST = 1e-30
ROWS_AT_ONCE = 4
#: Masks of the suite that a graph of any size is tried with at other sizes; nothing removed is the first.
SHORT = ("all True", "all False", "16 px patches")
UNDECIDED = "float32 cannot tell"
NOT_FINITE = "FAILED: the network itself gives NaN or infinity here"


@dataclass(frozen=True)
class Row:
    """One mask of the suite, or the comparison with the original network.

    Attributes:
        name: what was compared.
        difference: largest difference of the graph (or of the original network) from the float64 reference, over
            all outputs, in units of how the output varies over the suite; NaN if it was not finite.
        reference: the same for the float32 reference, the largest on the image and on the images whose pixels
            are the next larger and the next smaller float32: what rounding does to this network. Of a network in
            float16 or int8 also how far the source, unmasked, is off the float64 reference on any image.
        ceiling: a larger yardstick tells nothing.
    """

    name: str
    difference: float
    reference: float
    ceiling: float = CEILING

    @property
    def decided(self) -> bool:
        """Whether float32 resolves this mask: otherwise the float32 reference is as far off as a fault would be."""
        return SLACK * self.reference <= self.ceiling

    def verdict(self, tolerance: float) -> str:
        """What the table says about the row."""
        if self.difference <= tolerance:
            return "ok"
        if not np.isfinite(self.reference):
            return NOT_FINITE
        return "FAILED" if self.decided or not np.isfinite(self.difference) else UNDECIDED


@dataclass(frozen=True)
class Verification:
    """The result of the suite.

    Attributes:
        rows: one for each mask, and one for the original network.
        tolerance: what each difference may be, in the same unit.
        front_end: which front end of the reference was asked.
    """

    rows: tuple[Row, ...]
    tolerance: float
    front_end: str

    @property
    def passed(self) -> bool:
        """Whether every difference that float32 can tell is within the tolerance, and that most can be told.

        Nothing removed, the first row, and the original network, the last, have to be among them.
        """
        told = [row for row in self.rows if row.verdict(self.tolerance) != UNDECIDED]
        ends = {self.rows[0], self.rows[-1]} <= set(told)
        return ends and 2 * len(told) > len(self.rows) and all(row.difference <= self.tolerance for row in told)

    @property
    def differs(self) -> bool:
        """Whether a difference is too large. A proof that does not hold may also be one that tells too little."""
        return any(row.verdict(self.tolerance) not in ("ok", UNDECIDED) for row in self.rows)

    @property
    def infinite(self) -> bool:
        """Whether nothing but NaN and infinity of the network itself, under some masks, stands against the graph."""
        verdicts = {row.verdict(self.tolerance) for row in self.rows}
        return NOT_FINITE in verdicts and verdicts <= {"ok", UNDECIDED, NOT_FINITE}

    @property
    def largest(self) -> float:
        """The largest difference of those that float32 can tell, of those allowed if it tells none; NaN if any is."""
        rows = [row for row in self.rows if row.decided] or [
            row for row in self.rows if row.verdict(self.tolerance) != UNDECIDED
        ]
        return float(np.max([row.difference for row in rows], initial=0.0))

    def __str__(self) -> str:
        width = max(len(row.name) for row in self.rows)
        head = f"{'mask':<{width}}  {'graph':>9}  {'float32 reference':>17}  allowed {self.tolerance:.1e}"
        lines = [
            f"{row.name:<{width}}  {row.difference:9.1e}  {row.reference:17.1e}  {row.verdict(self.tolerance)}"
            for row in self.rows
        ]
        note = "largest difference from the float64 reference, in units of how the output varies over the masks"
        return "\n".join([note, head, *lines])

    def summary(self) -> dict[str, Any]:
        """What the metadata keeps."""
        return {
            "passed": self.passed,
            "reference": self.front_end,
            "largest": float(f"{self.largest:.3g}"),
            "tolerance": float(f"{self.tolerance:.3g}"),
            "masks": [row.name for row in self.rows],
            "undecided": [row.name for row in self.rows if row.verdict(self.tolerance) == UNDECIDED],
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


def photographs(count: int, channels: int, size: tuple[int, int], seed: int = 1) -> Array:
    """The same in pixels, uint8 [count, H, W, channels]: mean 127.5, two standard deviations within 0 … 255."""
    pixels: Array = np.clip(np.round(127.5 + 63.75 * images(count, channels, size, seed)), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


@dataclass(frozen=True)
class Inputs:
    """The images of the suite.

    Attributes:
        given: as the graph takes them.
        exact: as the network takes them, float64 [n, C, H, W].
        single: the same in float32.
        hidden: as the graph takes them, something else where a mask removes.
    """

    given: Array
    exact: Array
    single: Array
    hidden: Array


def inputs(
    form: Form, preprocessing: Preprocessing | None, channels: int, size: tuple[int, int], mask: Array
) -> Inputs:
    """One image for each of the masks, bool [n, 1, H, W]."""
    if form.image == "float32":
        image = images(len(mask), channels, size)
        return Inputs(image, image.astype(np.float64), image, np.where(mask, image, np.float32(np.nan)))
    assert preprocessing is not None
    pixels = photographs(len(mask), channels, size)
    exact, single = preprocessing.scaled(pixels, np.float64), preprocessing.scaled(pixels, np.float32)
    return Inputs(pixels, exact, single, np.where(mask.transpose(0, 2, 3, 1), pixels, 255 - pixels))


def prove(runner: Runner, network: Network, rules: MaskRules) -> Verification:
    """Compares an exported graph with the reference, and with the original network where nothing is removed.

    The reference in float64 is the measure, in float32 the yardstick. A graph of any size is asked at the network's
    size with the whole suite, and at two others with a part of it.

    Args:
        runner: the written file, on a CPU.
        network: where it comes from.
        rules: the mask rules that it was lowered with.

    Raises:
        SourceError: if the network takes no other size.
        VerificationError: if the graph and the reference cannot be compared at all.
        ModelError: if the graph does not run.
    """
    reference = _answering(runner.contract.form, network.reference(rules))
    main = _asked(runner, network, reference, network.size, suite(network.size))
    scales = [_variation(a) for a in main.exact]
    *rows, original = main.rows(scales, "")
    for size in others(network, runner.contract.form):
        masks = {name: mask for name, mask in suite(size).items() if name in SHORT}
        rows += _asked(runner, network, reference, size, masks).rows(scales, f", {size[0]}×{size[1]}")
    rows.append(original)
    decided = [row.reference for row in rows if row.decided]
    tolerance = min(CEILINGS[network.precision], SLACK * max(decided, default=0.0) + FLOOR)
    return Verification(tuple(rows), tolerance, network.front_end)


def others(network: Network, form: Form) -> list[tuple[int, int]]:
    """Sizes beside its own that a network of any size is tried at: one smaller, of odd sides, and one larger.

    Where the network itself does not take them, other ones, of which it may take more: multiples of 32 or of its own.

    Raises:
        SourceError: if it takes none of them.
    """
    if form.size is None:
        return []
    height, width = network.size
    smaller = [(3 * height // 4 | 1, 3 * width // 4 | 1), (height // 2, width // 2), (height - 32, width - 32)]
    larger = [(height + 33, width + 70), (height + 32, width + 64), (2 * height, 3 * width)]
    least = [(max(a, form.smallest), max(b, form.smallest)) for a, b in smaller if min(a, b) > 0]
    smaller = [size for size in least if size[0] <= height and size[1] <= width and size != network.size]
    found = [next((size for size in sizes if _takes(network, size)), None) for sizes in (smaller, larger)]
    if found == [None, None]:
        raise SourceError(
            f"the network takes images of {height}×{width} pixels and none of other sizes that were tried; "
            f"export it with that size: --size {height},{width}"
        )
    return [size for size in found if size is not None]


def _takes(network: Network, size: tuple[int, int]) -> bool:
    """Whether a network computes anything from an image of a size; what it raises if not is its own affair."""
    try:
        network.plain(images(1, network.channels, size))
    except Exception:
        return False
    return True


@dataclass(frozen=True)
class _Answers:
    """What graph, reference and original say to the same images, outputs by row, each comparable with the other."""

    masks: tuple[str, ...]
    exact: tuple[Array, ...]
    singles: list[tuple[Array, ...]]
    graph: tuple[Array, ...]
    original: tuple[Array, ...]
    coarse: tuple[tuple[Array, ...], tuple[Array, ...]] | None
    ceiling: float

    def rows(self, scales: list[float], where: str) -> list[Row]:
        """One for each mask, and one for the original network, whose names end in ``where``."""
        mine = _differences(self.graph, self.exact, scales)
        theirs = np.max([_differences(single, self.exact, scales) for single in self.singles], axis=0).tolist()
        # The law that the reference itself has to obey: an all-True mask, the first, gives the original's output.
        (original,) = _differences(self.original, [a[:1] for a in self.exact], scales)
        if self.coarse is not None:
            rounding = max(_differences(*self.coarse, scales))
            theirs = [max(one, rounding) for one in theirs]
        rows = [Row(name + where, mine[i], theirs[i], self.ceiling) for i, name in enumerate(self.masks)]
        return [*rows, Row(f"original, no mask{where}", original, theirs[0], self.ceiling)]


def _asked(
    runner: Runner, network: Network, reference: Reference, size: tuple[int, int], masks: dict[str, Array]
) -> _Answers:
    """Everybody's answers at one size."""
    mask = np.stack(list(masks.values()))
    form = runner.contract.form
    asked = inputs(form, runner.contract.preprocessing, network.channels, size, mask)
    image = asked.single
    exact = _in_parts(reference, asked.exact, mask)
    neighbours = (image, np.nextafter(image, np.float32(np.inf)), np.nextafter(image, np.float32(-np.inf)))
    singles = [_in_parts(reference, near, mask) for near in neighbours]
    names, kinds = list(runner.contract.outputs), list(runner.contract.outputs.values())
    graph = _in_parts(lambda a, b: _ordered(runner.run(a, b), names), asked.hidden, mask)
    if [a.shape for a in graph] != [a.shape for a in exact]:
        raise VerificationError(
            f"the graph's outputs have shapes {[a.shape for a in graph]} and the reference's {[a.shape for a in exact]}"
        )
    plain = _answering(form, lambda a, _: network.plain(a))
    coarse = None
    if network.precision != "float32":
        everything = np.ones_like(mask)
        whole = _comparable(_in_parts(reference, asked.exact, everything), kinds)
        coarse = _comparable(_in_parts(plain, image, everything), kinds), whole
    return _Answers(
        masks=tuple(masks),
        exact=_comparable(exact, kinds),
        singles=[_comparable(single, kinds) for single in singles],
        graph=_comparable(graph, kinds),
        original=_comparable(plain(image[:1], mask[:1]), kinds),
        coarse=coarse,
        ceiling=CEILINGS[network.precision],
    )


def _answering(form: Form, reference: Reference) -> Reference:
    """The network with what the form puts behind its outputs."""
    return (lambda a, b: tuple(map(_softmax, reference(a, b)))) if form.softmax else reference


def _softmax(logits: Array) -> Array:
    """Over the classes, [n, classes], in the precision of the logits."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Array = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def _variation(output: Array) -> float:
    """How much an output depends on image and mask: the median over rows of its deviation from the median row.

    Not the deviation of the output as a whole, most of which may be constants of the classes; and medians, because one
    mask that makes the activations grow out of bounds must not be the unit for all others, nor one that makes them NaN.

    Raises:
        VerificationError: if it does not vary, or is nowhere finite, so that no comparison says anything.
    """
    rows = output.reshape(len(output), -1)
    rows = rows[np.isfinite(rows).all(axis=1)]
    if not len(rows):
        raise VerificationError("the reference's output is not finite for any mask, so there is nothing to compare")
    away = rows - np.median(rows, axis=0)
    spread = float(np.median(np.sqrt(np.mean(away**2, axis=1))))
    if spread <= 1e-9 * float(np.median(np.abs(rows).max(axis=1))):
        raise VerificationError("an output is the same for every image and mask, so there is nothing to compare")
    return spread


def _comparable(outputs: tuple[Array, ...], kinds: list[str]) -> tuple[Array, ...]:
    """The outputs in float64, probabilities as logarithms: an unlikely class counts as much as a likely one."""
    wide = [output.astype(np.float64) for output in outputs]
    pairs = zip(wide, kinds, strict=True)
    return tuple(np.log(np.maximum(a, LEAST)) if kind == "probabilities" else a for a, kind in pairs)


def _with_batch(outputs: tuple[Array, ...], rows: int) -> tuple[Array, ...]:
    """The outputs, each of which must have a row for each image."""
    for i, output in enumerate(outputs):
        if output.ndim == 0 or len(output) != rows:
            raise VerificationError(
                f"output {i} of the network has the shape {output.shape} for {rows} images; its first axis is no batch"
            )
    return outputs


def _in_parts(run: Callable[[Array, Array], tuple[Array, ...]], image: Array, mask: Array) -> tuple[Array, ...]:
    """Runs a few rows at a time, because wide networks in float64 take much memory."""
    slices = [slice(i, i + ROWS_AT_ONCE) for i in range(0, len(image), ROWS_AT_ONCE)]
    parts = [_with_batch(run(image[part], mask[part]), len(image[part])) for part in slices]
    return tuple(np.concatenate(outputs) for outputs in zip(*parts, strict=True))


def _ordered(outputs: Mapping[str, Array], names: list[str]) -> tuple[Array, ...]:
    return tuple(outputs[name] for name in names)


def _differences(some: Sequence[Array], exact: Sequence[Array], scales: list[float]) -> list[float]:
    """For each row the largest difference over all outputs, each in units of its scale."""
    each = [
        np.abs(a.astype(np.float64) - b).reshape(len(b), -1).max(axis=1) / scale
        for a, b, scale in zip(some, exact, scales, strict=True)
    ]
    return [float(value) for value in np.max(each, axis=0)]
