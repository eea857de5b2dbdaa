"""When a proof holds, and when it says nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import lmonnx
from lmonnx.errors import VerificationError, WeightsError
from lmonnx.exporters.sources import resolve
from lmonnx.exporters.verification import UNDECIDED, Row, Verification
from tests.cases import w
from tests.graphs import build, step
from tests.mutations import one_ring_fewer

GOOD, WRONG, NOISE = Row("good", 1e-6, 1e-6), Row("wrong", 1e-3, 1e-6), Row("noise", 5.0, 4.0)
BROKEN = Row("not finite", np.nan, 4.0)


@pytest.mark.parametrize(
    ("rows", "passed"),
    [
        ((GOOD, GOOD, GOOD), True),
        ((GOOD, WRONG, GOOD), False),
        ((GOOD, NOISE, GOOD), True),
        ((GOOD, BROKEN, GOOD), False),
        ((NOISE, GOOD, GOOD), False),
        ((GOOD, GOOD, NOISE), False),
        ((GOOD, NOISE, NOISE, NOISE, GOOD), False),
    ],
    ids=lambda value: "-".join(row.name for row in value) if isinstance(value, tuple) else "",
)
def test_a_proof_holds_if_all_that_can_be_told_is_right(rows: tuple[Row, ...], passed: bool) -> None:
    verification = Verification(rows, 1e-4, "aten")
    assert verification.passed is passed
    assert verification.differs is bool({WRONG, BROKEN} & set(rows))
    assert verification.summary()["undecided"] == [row.name for row in rows if row is NOISE]
    assert (UNDECIDED in str(verification)) is (NOISE in rows)


def changed(path: Path, value: float, *between: str) -> Path:
    """A network with one weight of that value, and operators that take and give back 1e9 between its halves."""
    weight = w(4, 3, 3, 3)
    weight[1, 2, 0, 1] = value
    noise = [step(operator, str(i), np.array(1e9)) for i, operator in enumerate(between)]
    last = len(noise)
    head = step("GlobalAveragePool", str(last)), step("Flatten", str(last + 1))
    onnx.save(build((step("Conv", "x", weight), *noise, *head), (3, 24, 24), 18), path)
    return path


def test_nan_in_the_weights_is_said_at_once(tmp_path: Path) -> None:
    for verify in (True, False):
        with pytest.raises(WeightsError, match="the weights hold NaN: constant0_1; give others"):
            lmonnx.export(changed(tmp_path / "in.onnx", np.nan), tmp_path / "out.onnx", verify=verify)
    assert [path.name for path in tmp_path.iterdir()] == ["in.onnx"]


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_a_proof_that_fails_says_which_weights_are_infinite(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"nothing to compare; the weights hold infinity: constant0_1$"):
        lmonnx.export(changed(tmp_path / "in.onnx", np.inf), tmp_path / "out.onnx")


def test_a_proof_that_fails_for_some_masks_says_which_weights_are_infinite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = changed(tmp_path / "in.onnx", 0.5, "Max")
    model = onnx.load(path)
    model.graph.node[1].op_type = "Clip"
    model.graph.node[1].input.append("bound")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(np.inf, np.float32), "bound"))
    model.graph.node[1].input[1] = ""
    onnx.save(model, path)
    assert lmonnx.export(path, tmp_path / "out.onnx").verification  # a bound may be infinite
    one_ring_fewer(monkeypatch)
    with pytest.raises(VerificationError, match=r"FAILED\n(.*\n)*the weights hold infinity: bound$"):
        lmonnx.export(path, tmp_path / "out.onnx")


def test_a_proof_that_tells_nothing_is_not_one_that_finds_a_difference(tmp_path: Path) -> None:
    path = changed(tmp_path / "in.onnx", 0.5, "Add", "Sub")
    with pytest.raises(VerificationError) as caught:
        lmonnx.export(path, tmp_path / "out.onnx")
    first, *_, last = str(caught.value).splitlines()
    assert first == "float32 cannot tell whether graph and reference agree; nothing was published"
    assert last == "its values grow beyond what float32 tells apart; check the weights"
    lmonnx.export(path, tmp_path / "out.onnx", verify=False)
    with pytest.raises(VerificationError, match=r"^float32 cannot tell whether .*out\.onnx and the reference of its"):
        lmonnx.verify(tmp_path / "out.onnx", path)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_a_network_that_divides_by_a_sum_over_no_pixel_is_said_to_be_infinite(tmp_path: Path) -> None:
    pooled = [step("GlobalAveragePool", "0"), step("Sigmoid", "x"), step("ReduceSum", "2", np.array([1, 2, 3]))]
    model = build((step("Conv", "x", w(4, 3, 3, 3)), *pooled, step("Div", "1", "3")), (3, 24, 24), 18)
    onnx.save(model, tmp_path / "in.onnx")
    with pytest.raises(VerificationError, match=r"the network itself gives NaN(.*\n)+.*add a small number"):
        lmonnx.export(tmp_path / "in.onnx", tmp_path / "out.onnx")


class Labelled(torch.nn.Module):
    """Logits, the class, which is always the same one, and what it stands for."""

    def __init__(self, worth: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.worth = torch.nn.Conv2d(3, 4, 3), worth

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        logits = self.conv(image).mean((2, 3)) + torch.tensor([0.0, 0.0, 9.0, 0.0])
        label = logits.argmax(1)
        return logits, label, label * self.worth


def test_an_output_that_never_varies_stands_beside_one_that_does(tmp_path: Path) -> None:
    lmonnx.export(Labelled(0.5).eval(), tmp_path / "out.onnx", size=24)
    with pytest.raises(VerificationError, match=r"differ\n"):
        lmonnx.verify(tmp_path / "out.onnx", Labelled(0.6).eval())


def test_an_original_that_alone_is_different_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = changed(tmp_path / "in.onnx", 1.0)
    network = resolve(path, weights="default", size=None)
    wrong = dataclasses.replace(network, plain=lambda image: tuple(2 * output for output in network.plain(image)))
    monkeypatch.setattr("lmonnx.exporters.pipeline.resolve", lambda *_, **__: wrong)
    with pytest.raises(VerificationError, match="onnxruntime gives another result for the original network than graph"):
        lmonnx.export(path, tmp_path / "out.onnx")
