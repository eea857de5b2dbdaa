"""One network of the zoo, from its name to its row: python -m zoo.attempt NAME CODE prints it."""

from __future__ import annotations

import importlib.metadata
import json
import pathlib
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import click
import numpy as np
import torch

import lmonnx
from lmonnx.errors import LmonnxError, SourceError, UnsupportedOpError, VerificationError
from lmonnx.exporters.proof import images, suite
from lmonnx.runtime import Runner
from lmonnx.support import Support
from tests import laws

WEIGHTS = "seed:0"
#: Height and width in pixels; a network that cannot take them is tried with its own.
SIZE = (128, 128)
#: law -> how :mod:`tests.laws` checks it on the graph, images, masks and the graph's answer.
LAWS: dict[str, Callable[..., None]] = {
    "removed pixels change nothing": lambda run, image, mask, result, _: laws.removed_pixels_change_nothing(
        run, image, mask, result
    ),
    "rows are alone": laws.rows_are_alone,
    "batches broadcast": lambda run, image, mask, *_: laws.batches_broadcast(run, image, mask),
}
#: The masks of the proof that the laws are checked with.
MASKS = ("all True", "all False", "16 px patches")


def attempt(name: str, code: str) -> Support:
    """Exports, proves and checks; whatever goes wrong is the row, not an exception."""
    torch.set_num_threads(1)
    packages = ("timm", "torch") if name.startswith("timm:") else ("torchvision", "torch")
    versions = {package: importlib.metadata.version(package).partition("+")[0] for package in packages}
    row = Support(name, "defect", versions, code=code)
    try:
        try:
            return _at(row, SIZE)
        except (SourceError, UnsupportedOpError):
            return _at(row, None)
    except UnsupportedOpError as error:
        return replace(row, verdict="refused", why=_reasons(error))
    except VerificationError as error:
        return replace(row, why=tuple(str(error).splitlines()))
    except LmonnxError as error:
        return replace(row, why=(f"{type(error).__name__}: {error}",))
    except Exception:
        return replace(row, why=tuple(traceback.format_exc().splitlines()[-4:]))


def _at(row: Support, size: tuple[int, int] | None) -> Support:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "network.onnx"
        verification = lmonnx.export(row.name, path, weights=WEIGHTS, size=size).verification
        assert verification is not None
        runner = Runner(path, provider="cpu")
        checked = _lawful(runner, verification.tolerance)
        graph = lmonnx.inspect(path)
    return replace(
        row,
        verdict="supported",
        size=runner.size,
        operators=graph.operators,
        nodes=graph.total.network.nodes,
        masked_nodes=graph.total.network.nodes + graph.total.added.nodes,
        difference=float(f"{verification.largest:.3g}"),
        tolerance=float(f"{verification.tolerance:.3g}"),
        laws=checked,
    )


def _lawful(runner: Runner, rounding: float) -> tuple[str, ...]:
    """Names of the laws that were checked; ``rounding`` is what a row alone may be off.

    Raises:
        VerificationError: if one does not hold.
    """
    mask = np.stack([suite(runner.size)[name] for name in MASKS])
    image = images(len(mask), 3, runner.size, seed=2)
    (output, *_) = runner.contract.outputs

    def run(some: np.ndarray, masks: np.ndarray) -> np.ndarray:
        return np.asarray(runner.run(some, masks)[output])

    result = run(image, mask)
    checks: Sequence[tuple[str, Callable[[], object]]] = [
        ("outputs are finite", lambda: np.testing.assert_array_equal(np.isfinite(result), True)),
        *((law, lambda check=check: check(run, image, mask, result, rounding)) for law, check in LAWS.items()),
    ]
    for law, check in checks:
        try:
            check()
        except AssertionError as error:
            raise VerificationError(f"the law does not hold: {law}\n{error}") from error
    return tuple(law for law, _ in checks)


def _reasons(error: UnsupportedOpError) -> tuple[str, ...]:
    """One for each kind of offence, with how many nodes it holds for."""
    kinds = Counter((offence.operator, offence.why) for offence in error.offences)
    return tuple(f"{operator}: {why}" + f" ({n} nodes)" * (n > 1) for (operator, why), n in kinds.items())


if __name__ == "__main__":
    click.echo(json.dumps(attempt(*sys.argv[1:]).to_json()))
