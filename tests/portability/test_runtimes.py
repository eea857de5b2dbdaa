"""The bundled network in other runtimes, and that the table says what its rows do."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest

import lmonnx
from lmonnx.exporters.sources import resolve
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


def faulty(change: str) -> dict[str, object]:
    """The judgement of answers that are right but for one fault."""
    rng = np.random.default_rng(0)
    exact = rng.normal(size=(4, 5))
    expected = {"pairs": exact, "one image": exact, "one mask": exact[:3], "scale": 1.0, "decided": np.full(4, True)}
    answers = {"pairs": exact, "one image": exact, "one mask": exact[:3], "hidden": exact, "few": exact[:3]}
    answers |= {"few hidden": exact[:3], **{f"alone {i}": exact[i : i + 1] for i in range(4)}}
    answers = {name: answer.astype(np.float32) for name, answer in answers.items()}
    if change:
        answers[change][-1, 0] += 1e-3
    return judge(answers, {**expected, "probabilities": False}, allowed=1e-4)


@pytest.mark.parametrize("change", ["pairs", "one image", "one mask", "hidden", "few hidden", "alone 2"])
def test_every_fault_is_seen(change: str) -> None:
    assert faulty("")["verdict"] == "same"
    assert faulty(change)["verdict"] == "differs"


def test_an_answer_that_is_not_finite_is_seen() -> None:
    expected = {"pairs": np.eye(3), "one image": np.eye(3), "one mask": np.eye(3), "scale": 1.0, "probabilities": False}
    nothing = np.full((3, 3), np.nan, np.float32)
    found = judge({"few": nothing, "few hidden": nothing}, {**expected, "decided": np.full(3, True)}, allowed=1.0)
    assert found["verdict"] == "differs"
    assert "finite" in found["why"]


def test_the_page_is_that_of_the_rows() -> None:
    table = sweep.ordered(rows.read())
    assert table
    assert page(table) == sweep.PAGE.read_text(encoding="utf-8")
    assert all(row.why for row in table if row.verdict != "same")
