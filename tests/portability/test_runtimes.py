"""The bundled network in other runtimes, and that the table says what its rows do."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lmonnx
from lmonnx.exporters.sources import resolve
from lmonnx.exporters.verification import FLOOR, SLACK
from lmonnx.masking import MaskRules
from lmonnx.runtime.providers import Driver
from portability import __main__ as sweep
from portability import rows, runtimes
from portability.networks import FORMS
from portability.page import page
from portability.questions import write_questions
from portability.rows import HALF, Row, judge
from portability.runtimes import RUNTIMES

NETWORK, FORM = "scenes-material", "plain"


MASKS = ("all True", "all False", "16 px patches")


def questions(form: str, folder: Path, only: Collection[str] | None) -> float:
    """Puts file and questions into a folder, and says what an answer may be off."""
    half = form == HALF
    made = lmonnx.export(NETWORK, folder / f"{form}-18.onnx", verify=half, **FORMS[form])
    runner, network = lmonnx.load(made.path), resolve(NETWORK)
    reference = network.reference(MaskRules())
    where, proof = folder / form, made.verification if half else None
    return write_questions(where, runner, network.channels, network.size, reference, proof, only)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, float]:
    """A folder with file and questions, the file's opset, and what an answer may be off."""
    folder = tmp_path_factory.mktemp("questions")
    return folder, 18, questions(FORM, folder, MASKS)


def answered(key: str, asked: tuple[Path, int, float], form: str = FORM) -> Row:
    folder, opset, allowed = asked
    (runtime,) = [runtime for runtime in RUNTIMES if runtime.key == key]
    return sweep.asked(Row(NETWORK, form, opset, key), runtime, folder, allowed)


def test_onnxruntime(asked: tuple[Path, int, float]) -> None:
    row = answered("onnxruntime", asked)
    assert row.verdict == "same", row


def test_openvino(asked: tuple[Path, int, float]) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install '.[dev]'")
    row = answered("openvino", asked)
    assert row.verdict == "same", row


@pytest.mark.parametrize("key", ["openvino", "openvino-f16"])
def test_a_file_in_float16(tmp_path: Path, key: str) -> None:
    """Also where all of it is computed in float16, what is float32 in the file too, and hardly anything is kept."""
    pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install '.[dev]'")
    row = answered(key, (tmp_path, 18, questions(HALF, tmp_path, None)), HALF)
    assert row.verdict == "same", row
    if key == "openvino-f16" and not row.version.endswith(", f16"):
        pytest.skip(f"on this processor OpenVINO computes in another precision: {row.version}")


def test_node(asked: tuple[Path, int, float], packages: Path) -> None:
    row = answered("onnxruntime-node", asked)
    assert row.verdict == "same", row


def test_web(asked: tuple[Path, int, float], packages: Path, chromium: str) -> None:
    row = answered("onnxruntime-web", asked)
    assert row.verdict == "same", row


def test_a_runtime_that_is_not_there_is_a_row(asked: tuple[Path, int, float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("LMONNX_CHROMIUM", raising=False)
    assert answered("onnxruntime-web", asked).why.startswith("there is no Chromium; apt-get install")
    assert answered("onnxruntime-node", asked).why.startswith("there is no node")
    monkeypatch.setattr(runtimes, "ask_driver", Driver)
    assert answered("onnxruntime-cuda", asked).why == "there is no NVIDIA GPU"


def test_what_a_runtime_refuses_is_told(asked: tuple[Path, int, float], tmp_path: Path) -> None:
    (tmp_path / f"{FORM}-18.onnx").write_bytes(b"no graph")
    (tmp_path / FORM).symlink_to(asked[0] / FORM, target_is_directory=True)
    row = answered("onnxruntime", (tmp_path, 18, 1e-5))
    assert row.verdict == "refused"
    assert "plain-18.onnx" in row.why
    assert str(tmp_path) not in row.why


def faulty(change: str, drop: bool = False) -> dict[str, object]:
    """The judgement of answers that are right but for one, which has a fault or is left out."""
    rng = np.random.default_rng(0)
    exact = rng.normal(size=(4, 5))
    expected = {"pairs": exact, "one image": exact, "one mask": exact[:3], "scale": 1.0, "decided": np.full(4, True)}
    answers = {"pairs": exact, "one image": exact, "one mask": exact[:3], "hidden": exact, "few": exact[:3]}
    answers |= {"few hidden": exact[:3], **{f"alone {i}": exact[i : i + 1] for i in range(4)}}
    answers = {name: answer.astype(np.float32) for name, answer in answers.items()}
    if drop:
        del answers[change]
    elif change:
        answers[change][-1, 0] += 1e-3
    return judge(answers, {**expected, "probabilities": False}, allowed=1e-4, rounding=1e-4)


@pytest.mark.parametrize("change", ["pairs", "one image", "one mask", "hidden", "few hidden", "alone 2"])
def test_every_fault_is_seen(change: str) -> None:
    assert faulty("")["verdict"] == "same"
    assert faulty(change)["verdict"] == "differs"


def test_an_answer_that_is_not_finite_is_seen() -> None:
    expected = {"pairs": np.eye(3), "one image": np.eye(3), "one mask": np.eye(3), "scale": 1.0, "probabilities": False}
    nothing = np.full((3, 3), np.nan, np.float32)
    asked = ("few", "few hidden")
    expected["decided"] = np.full(3, True)
    found = judge(dict.fromkeys(asked, nothing), expected, allowed=1.0, rounding=1.0, asked=asked)
    assert found["verdict"] == "differs"
    assert "finite" in found["why"]


@pytest.mark.parametrize("left_out", ["pairs", "one image", "few hidden", "alone 3"])
def test_a_question_without_an_answer_is_seen(left_out: str) -> None:
    found = faulty(left_out, drop=True)
    assert found["verdict"] == "failed"
    assert left_out in str(found["why"])


def test_what_is_not_promised() -> None:
    """A float32 file in float16, the digits of bfloat16, and what is older than the opset; everything else fails."""
    by_key, row = sweep.BY_KEY, Row(NETWORK, FORM, 18, "", verdict="differs", lawful=True)
    half, broken = replace(row, form=HALF), replace(row, lawful=False)
    refused, newer = replace(row, verdict="refused"), replace(row, verdict="refused", opset=26)
    fails = {key: [by_key[key].fails(each) for each in (row, half, broken, refused, newer)] for key in by_key}
    assert fails["onnxruntime-node"] == [True, True, True, True, True]
    assert fails["onnxruntime-1.20.0"] == [True, True, True, True, False]
    assert fails["openvino-f16"] == [False, True, False, True, True]
    assert fails["openvino-default"] == [False, False, True, True, True]
    assert all(runtime.fails(replace(row, verdict="failed")) for runtime in RUNTIMES)
    assert not any(runtime.fails(replace(row, verdict="not run")) for runtime in RUNTIMES)


def test_the_page_is_that_of_the_rows() -> None:
    table = sweep.ordered(rows.read())
    assert table
    assert page(table) == sweep.PAGE.read_text(encoding="utf-8")
    assert all(row.why for row in table if row.verdict != "same")
    assert not [row for row in table if row.runtime != "export" and sweep.BY_KEY[row.runtime].fails(row)]


def test_what_the_page_says_of_bfloat16() -> None:
    table = rows.read()
    assert any(key[3] == "openvino-default" for key in table)
    for (network, form, opset, runtime), row in table.items():
        single = table[network, form, opset, "onnxruntime"].allowed if form != HALF else None
        if runtime == "openvino-default" and row.difference and single:
            assert row.difference <= 2**16 * (single - FLOOR) / SLACK
