"""The proof: one suite of masks through the graph and through the reference, and what may differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np

from lmonnx.errors import SourceError, VerificationError
from lmonnx.exporters.rounding import each_rounded
from lmonnx.exporters.sources.network import Array, Network, Reference
from lmonnx.exporters.verification import CEILINGS, FLOOR, ORIGINAL, SLACK, Row, Verification
from lmonnx.masking import MaskRules
from lmonnx.runtime.form import Form, Precision
from lmonnx.runtime.preprocessing import Preprocessing
from lmonnx.runtime.session import Runner

#: Probabilities below this are not told apart; float32 holds them to 1e-38.
LEAST = 1e-30
#: What float32 tells apart.
EPSILON = float(np.finfo(np.float32).eps)
ROWS_AT_ONCE = 4
#: Masks of the suite that a graph of any size is tried with at other sizes; nothing removed is the first.
SHORT = ("all True", "all False", "16 px patches")


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
    size with the whole suite, and at two others with a part of it. A graph in float16 is run on a CPU as a processor
    that computes in it does, see :mod:`lmonnx.exporters.rounding`.

    Args:
        runner: the written file.
        network: where it comes from.
        rules: the mask rules that it was lowered with.

    Raises:
        SourceError: if the network takes no other size.
        VerificationError: if the graph and the reference cannot be compared at all.
        ModelError: if the graph does not run.
    """
    simulated = network.precision == "float16" and runner.provider == "cpu"
    with each_rounded(runner) if simulated else nullcontext(runner) as running:
        return _proven(running, network, rules)


def _proven(runner: Runner, network: Network, rules: MaskRules) -> Verification:
    reference = _answering(runner.contract.form, network.reference(rules))
    main = _asked(runner, network, reference, network.size, suite(network.size))
    scales = _scales(main.exact)
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
    precision: Precision

    def rows(self, scales: list[float], where: str) -> list[Row]:
        """One for each mask, and one for the original network, whose names end in ``where``."""
        mine = _differences(self.graph, self.exact, scales)
        theirs = np.max([_differences(single, self.exact, scales) for single in self.singles], axis=0).tolist()
        # The law that the reference itself has to obey: an all-True mask, the first, gives the original's output.
        (original,) = _differences(self.original, [a[:1] for a in self.exact], scales)
        if self.coarse is not None:
            rounding = np.max(_differences(*self.coarse, scales))  # NaN if any is
            growth = np.maximum(1, np.divide(theirs, max(theirs[0], EPSILON))) if self.precision == "float16" else 1
            theirs = np.maximum(theirs, growth * rounding).tolist()
        rows = [Row(name + where, mine[i], theirs[i], self.precision) for i, name in enumerate(self.masks)]
        return [*rows, Row(ORIGINAL + where, original, theirs[0], self.precision)]


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
        everything, rounded = np.ones_like(mask), network.rounded or network.plain
        whole = _comparable(_in_parts(reference, asked.exact, everything), kinds)
        single = _in_parts(_answering(form, lambda a, _: rounded(a)), image, everything)
        coarse = _comparable(single, kinds), whole
    return _Answers(
        masks=tuple(masks),
        exact=_comparable(exact, kinds),
        singles=[_comparable(single, kinds) for single in singles],
        graph=_comparable(graph, kinds),
        original=_comparable(plain(image[:1], mask[:1]), kinds),
        coarse=coarse,
        precision=network.precision,
    )


def _answering(form: Form, reference: Reference) -> Reference:
    """The network with what the form puts behind its outputs."""
    return (lambda a, b: tuple(map(_softmax, reference(a, b)))) if form.softmax else reference


def _softmax(logits: Array) -> Array:
    """Over the classes, [n, classes], in the precision of the logits."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Array = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def _scales(outputs: Sequence[Array]) -> list[float]:
    """The unit of each output: how it varies; of one that does not, as a label may, how large it is.

    Raises:
        VerificationError: if none of them varies, or one is nowhere finite, so that no comparison says anything.
    """
    variations = [_variation(output) for output in outputs]
    if not any(variations):
        which = "the output is" if len(outputs) == 1 else "the outputs are"
        raise VerificationError(f"{which} the same for every image and mask, so there is nothing to compare")
    sizes = [float(np.nanmax(np.abs(output), initial=0.0)) for output in outputs]
    return [variation or size or 1.0 for variation, size in zip(variations, sizes, strict=True)]


def _variation(output: Array) -> float:
    """How much an output depends on image and mask: the median over rows of its deviation from the median row.

    Not the deviation of the output as a whole, most of which may be constants of the classes; and medians, because one
    mask that makes the activations grow out of bounds must not be the unit for all others, nor one that makes them NaN.
    0 if it is rounding.

    Raises:
        VerificationError: if it is nowhere finite.
    """
    rows = output.reshape(len(output), -1)
    rows = rows[np.isfinite(rows).all(axis=1)]
    if not len(rows):
        raise VerificationError("the reference's output is not finite for any mask, so there is nothing to compare")
    away = rows - np.median(rows, axis=0)
    spread = float(np.median(np.sqrt(np.mean(away**2, axis=1))))
    return spread if spread > 1e-9 * float(np.median(np.abs(rows).max(axis=1))) else 0.0


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
