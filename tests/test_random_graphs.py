"""Random graphs: graph = reference, and the laws. ``make fuzz`` draws ten thousand of them.

This is where a value that was left unzeroed, or a fact that does not hold, is seen.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.graphs import build, by_onnxruntime, by_reference, images, lowered, proto_of, session
from tests.laws import ENDS, assert_close, check_laws
from tests.random_graphs import HEADS, Recipe, recipes

SLACK, FLOOR = 4.0, 2e-6
#: Graphs of which float32 knows less than this, in standard deviations of the output, say nothing.
CEILING = 1e-2
#: Nor do those whose output varies less than this, relative to its largest number.
LEAST = 1e-4

#: What failed once: a convolution of a strip, one axis of which a reduction had left with one pixel; a global pool, a
#: convolution and a Concat of a strip that a Reshape had left with one; a linear resize of which little is kept; a
#: channel shuffle of a strip.
FOUND = (
    Recipe((("coordinate attention", 11, 5, 8, 3, 4, 9),), head=2, space=(11, 7)),
    Recipe((("pool", 10, 10, 4, 7, 8, 2), ("merge space", 2, 3, 4, 4, 6, 1)), head=2, space=(12, 7)),
    Recipe(
        (
            ("resize", 2, 4, 2, 2, 11, 0),
            ("slice", 1, 4, 2, 3, 9, 8),
            ("group norm", 4, 2, 7, 2, 8, 10),
            ("spatial attention", 5, 9, 3, 5, 3, 0),
        ),
        head=0,
        space=(6, 10),
    ),
    Recipe(
        (
            *[("batch norm", 0, 0, 0, 0, 0, 0)] * 4,
            ("space to depth", 0, 0, 0, 0, 0, 0),
            ("conv", 0, 0, 0, 3, 0, 0),
            ("merge space", 0, 0, 0, 0, 0, 0),
            ("concat", 0, 0, 0, 1, 2, 0),
        ),
        head=0,
        space=(6, 6),
    ),
    Recipe(
        (*[("batch norm", 0, 0, 0, 0, 0, 0)] * 2, ("split", 0, 0, 0, 0, 0, 0), ("space to depth", 1, 0, 0, 0, 0, 0)),
        head=2,
        space=(6, 6),
    ),
    Recipe((("resize", 3, 8, 1, 0, 0, 0),), space=(9, 11), masks=456),
    Recipe(
        (("pool", 0, 0, 0, 2, 0, 0), ("pool", 0, 0, 0, 3, 0, 0), ("shuffle", 0, 0, 0, 0, 0, 0)), head=2, space=(6, 6)
    ),
)


def check(recipe: Recipe) -> bool:
    """One graph against the reference, by the laws, and against itself without a mask; False if float32 cannot tell."""
    draft, mask = recipe.draft(), recipe.mask()
    model = build(draft.steps, (3, *recipe.space), opset=18)
    image = images(len(mask), (3, *recipe.space))
    original = session(model).run(None, {"x": image})[0]
    largest = np.abs(original).max()
    if not (largest < 1e6 and np.std(original) > LEAST * largest):
        return False
    reference = by_reference(model, recipe.rules)
    expected = reference(image.astype(np.float64), mask)
    scale = float(np.std(expected)) or 1.0
    near = (image, np.nextafter(image, np.float32(np.inf)), np.nextafter(image, np.float32(-np.inf)))
    rounding = max(float(np.abs(reference(some, mask) - expected).max()) for some in near) / scale
    allowed = SLACK * rounding + FLOOR
    if not allowed < CEILING:
        return False
    # onnxruntime has roundings that the reference has not, of Resize's coordinates for one.
    whole = reference(image.astype(np.float64), np.ones_like(mask))
    kernels = float(np.abs(original - whole).max()) / scale
    assert kernels <= 10 * allowed, f"the original is off by {kernels:.2e} from the reference"
    tolerance = max(allowed, SLACK * kernels + FLOOR)
    graph = by_onnxruntime(proto_of(lowered(model, recipe.rules)))
    assert_close(graph(image, mask), expected, tolerance)
    # What a global pool makes of whole images can vary far less than what it makes of masked ones.
    unit = max(1.0, scale / float(np.std(original)))
    bits = ENDS.isdisjoint(step.operator for step in draft.steps)
    laws = {"tolerance": 10 * tolerance * unit, "rounding": 10 * tolerance, "bits": bits}
    check_laws(graph, image, mask, original=original, **laws)
    return True


@pytest.mark.parametrize("head", range(len(HEADS)), ids=HEADS)
@given(data=st.data())
@settings(deadline=None, suppress_health_check=list(HealthCheck))
def test_random_graph(head: int, data: st.DataObject) -> None:
    assume(check(data.draw(recipes(head))))


@pytest.mark.parametrize("recipe", FOUND, ids=str)
def test_what_failed_once(recipe: Recipe) -> None:
    assert check(recipe)
