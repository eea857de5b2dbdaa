"""Ten faults that the tests must see, and which of them do: ``python -m tests.mutations``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import click
import numpy as np
import onnx_ir as ir
import pytest

from lmonnx.exporters.lowering import reach
from lmonnx.exporters.lowering.registry import RULES, attributes
from lmonnx.exporters.lowering.rules import joins, windows
from lmonnx.exporters.ops import fill, masks, norms, pools
from lmonnx.exporters.ops.builder import Op
from lmonnx.exporters.ops.masked import Masked
from tests import test_operators
from tests.cases import CASES, Case

Mutation = Callable[[pytest.MonkeyPatch], None]


def one_ring_fewer(patch: pytest.MonkeyPatch) -> None:
    rings = fill.rings
    patch.setattr(fill, "rings", lambda window: max(0, rings(window) - 1))


def one_ring_nearer(patch: pytest.MonkeyPatch) -> None:
    found = reach.reach
    patch.setattr(reach, "reach", lambda *given: max(0, found(*given) - 1))


def no_zeroing_before_a_pool(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(pools, "zeroed", lambda _, x: x.data)


def any_for_all(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(joins, "intersection", masks.union)


def border_filled(patch: pytest.MonkeyPatch) -> None:
    """A convolution's zero padding is treated as removed area."""

    def conv(op: Op, node: ir.Node, x: Masked, weight: ir.Value, *bias: Any) -> Masked:
        settings = attributes(node)
        window = windows.window_of(tuple(weight.shape)[2:], settings)
        befores, afters = zip(*pools.joint(window, x.border).pads, strict=True)
        pads = np.array([0, 0, *befores, 0, 0, *afters], np.int64)
        grown = op.Greater(op.Pad(masks.as_float(op, x.mask), pads), op.number(0.5))
        padded = x.but(data=op.Pad(fill.zeroed(op, x), pads), mask=grown, border=None, zero=True)
        settings["pads"] = [0] * len(settings["pads"])
        unpadded = windows.window_of(window.kernel, settings)
        data = fill.neighbour_pad(op, padded, unpadded)
        return Masked(op.Conv(data, weight, *bias, **settings), masks.covers(op, grown, unpadded), x.axes)

    patch.setitem(RULES, "Conv", conv)


def epsilon(patch: pytest.MonkeyPatch) -> None:
    """Ten times too large: 1e-4 in the neighbour fill, 1e-7 in the global average."""
    number, wrong = Op.number, (1e-5, 1e-8)
    patch.setattr(Op, "number", lambda op, value: number(op, value * 10 if value in wrong else value))


def mask_stride(patch: pytest.MonkeyPatch) -> None:
    """A strided window samples the mask instead of covering it."""
    covers = masks.covers

    def sampled(op: Op, mask: ir.Value, window: Any) -> ir.Value:
        if set(window.strides) != {1}:
            window = replace(window, kernel=(1, 1), pads=((0, 0), (0, 0)))
        return covers(op, mask, window)

    for module in (windows, pools):
        patch.setattr(module, "covers", sampled)


def batch_axis(patch: pytest.MonkeyPatch) -> None:
    """The global average counts the kept pixels of the whole batch."""

    def mean(op: Op, x: Masked, axes: Any, spatial: Any, keepdims: int) -> ir.Value:
        result = op.ReduceMean(fill.zeroed(op, x), np.array(axes, np.int64), keepdims=keepdims)
        kept = op.ReduceMean(masks.as_float(op, x.mask), np.array([0, *spatial], np.int64), keepdims=1)
        share = op.Add(kept, op.number(1e-8))
        return op.Div(result, share if keepdims else op.Squeeze(share, np.array(axes, np.int64)))

    patch.setattr(windows, "mean_over_kept", mean)


def pool_divisor(patch: pytest.MonkeyPatch) -> None:
    """op(1) is left out, so that counted padding divides twice."""
    patch.setattr(pools, "_pooled_ones", lambda *_: None)


def group_norm_count(patch: pytest.MonkeyPatch) -> None:
    """Statistics are divided by all positions instead of the kept ones."""
    patch.setattr(norms, "as_float", lambda op, mask, dtype: op.Cast(op.Or(mask, op.Not(mask)), to=dtype))


def where_to_mul(patch: pytest.MonkeyPatch) -> None:
    """Zeroing by a product, where NaN · 0 = NaN."""
    call = Op.call

    def product(op: Op, operator: str, *inputs: Any, **settings: Any) -> Any:
        if operator == "Where" and isinstance(inputs[2], np.ndarray) and not inputs[2].any():
            mask, data, _ = inputs
            return call(op, "Mul", data, call(op, "Cast", mask, to=data.dtype))
        return call(op, operator, *inputs, **settings)

    patch.setattr(Op, "call", product)


MUTATIONS: dict[str, Mutation] = {
    "t - 1": one_ring_fewer,
    "reach - 1": one_ring_nearer,
    "no zeroing before a pool": no_zeroing_before_a_pool,
    "all/any swapped": any_for_all,
    "border filled": border_filled,
    "epsilon": epsilon,
    "mask stride": mask_stride,
    "batch axis": batch_axis,
    "pool divisor": pool_divisor,
    "GroupNorm count": group_norm_count,
    "Where to Mul": where_to_mul,
}


def red(case: Case) -> list[str]:
    """The tests of the operators that a case turns red now; a crash is not what they are to see."""
    names = []
    for test in (test_operators.test_graph_equals_reference_in_float64, test_operators.test_laws):
        try:
            test(case)
        except AssertionError:
            names.append(test.__name__)
        except Exception:
            continue
    return names


@contextmanager
def switched_on(name: str) -> Iterator[None]:
    """One fault, until the end."""
    with pytest.MonkeyPatch.context() as patch:
        MUTATIONS[name](patch)
        patch.setattr(test_operators, "_graph", test_operators._graph.__wrapped__)
        yield


def main() -> None:
    """Prints, for no fault and for each, how many cases each test saw red, and which operators they are about."""
    cases = [case for case in CASES if case.wide]
    for name in ("no fault", *MUTATIONS):
        with switched_on(name) if name in MUTATIONS else nullcontext():
            seen = {case: red(case) for case in cases}
        tests = Counter(test.removeprefix("test_") for tests in seen.values() for test in tests)
        operators = Counter(case.operator for case, tests in seen.items() if tests)
        click.echo(f"{name}: {dict(tests) or 'none red'}; {', '.join(name for name, _ in operators.most_common(8))}")


if __name__ == "__main__":
    main()
