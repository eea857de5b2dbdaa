"""Weights that lie beside the graph: the pair is published whole, or not at all."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lmonnx
from lmonnx.errors import ModelError, PublishError, VerificationError
from lmonnx.exporters import package
from lmonnx.runtime import Runner
from tests.cases import w
from tests.exporters.forms import HEAD, PREPROCESSING, Exported, encoded, source
from tests.graphs import step


@pytest.fixture
def large(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every network is too large for one file, from now on."""
    exported()
    monkeypatch.setattr(package, "LARGEST", 100)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.usefixtures("large")
def test_large_weights_lie_beside_the_file(
    exported: Exported, tmp_path: Path, crops: np.ndarray, masks: np.ndarray
) -> None:
    path = source(tmp_path)
    result = lmonnx.export(path, tmp_path / "out.onnx", preprocessing=PREPROCESSING)
    assert result.verification
    assert names(tmp_path) == ["in.onnx", "out.onnx", "out.onnx.data"]
    runner, plain = Runner(result.path, provider="cpu", threads=1), exported()
    assert runner.contract.data == "out.onnx.data"
    assert runner.contract.verified["passed"] is True
    answers = [next(iter(each.run(encoded(each, crops), masks).values())) for each in (runner, plain)]
    np.testing.assert_array_equal(*answers)
    assert lmonnx.verify(result.path, path).passed
    inspection = lmonnx.inspect(result.path)
    assert "with the weights in out.onnx.data beside it" in " ".join(str(inspection).split())
    assert inspection.description.size == sum((tmp_path / name).stat().st_size for name in names(tmp_path)[1:])
    assert inspection.weights == lmonnx.inspect(plain.path).weights


@pytest.mark.usefixtures("large")
def test_large_weights_follow_a_moved_file_by_name(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    result = lmonnx.export(source(tmp_path), tmp_path / "out.onnx", verify=False)
    os.replace(result.path, tmp_path / "there" / "out.onnx")
    with pytest.raises(ModelError, match=r"out\.onnx: its weights are not there, in \S+out\.onnx\.data; put that file"):
        Runner(tmp_path / "there" / "out.onnx")
    whole = (tmp_path / "out.onnx.data").read_bytes()
    (tmp_path / "there" / "out.onnx.data").write_bytes(whole[:50])
    with pytest.raises(ModelError, match="that holds its weights is shorter than it was; copy both again"):
        Runner(tmp_path / "there" / "out.onnx", provider="cpu")
    assert capfd.readouterr() == ("", "")
    os.replace(tmp_path / "out.onnx.data", tmp_path / "there" / "out.onnx.data")
    Runner(tmp_path / "there" / "out.onnx")


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("stale", [True, False])
def test_an_earlier_pair_is_replaced_whole_or_not_at_all(
    stale: bool, fault: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = source(tmp_path), tmp_path / "out.onnx"
    if stale:
        (tmp_path / "out.onnx.data").write_bytes(b"of a model that is no more")
    lmonnx.export(path, out, verify=False)
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    other = source(tmp_path, step("Conv", "x", w(8, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1]), *HEAD[1:])
    before["in.onnx"] = other.read_bytes()
    real, moves = os.replace, itertools.count()

    def failing(last: int) -> Callable[..., None]:
        def replace(*paths: Any) -> None:
            if tmp_path in (Path(path).parent for path in paths) and next(moves) == last:
                raise fault
            real(*paths)

        return replace

    for last in range(4):  # two put aside, two moved
        moves = itertools.count()
        monkeypatch.setattr(package.os, "replace", failing(last))
        with pytest.raises((PublishError, KeyboardInterrupt), match=r"cannot write .*out\.onnx: No space left|^$"):
            lmonnx.export(other, out, verify=False)
        assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before
    monkeypatch.undo()
    monkeypatch.setattr(package, "LARGEST", 100)
    lmonnx.export(other, out, verify=False)
    assert names(tmp_path) == ["in.onnx", "out.onnx", "out.onnx.data"]
    assert (tmp_path / "out.onnx.data").read_bytes() != before["out.onnx.data"]


@pytest.mark.usefixtures("large")
def test_an_earlier_pair_that_cannot_be_put_back_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = source(tmp_path), os.replace
    lmonnx.export(path, tmp_path / "out.onnx", verify=False)
    before = {name: (tmp_path / name).read_bytes() for name in ("out.onnx", "out.onnx.data")}

    def replace(there: Path, here: Path) -> None:
        if Path(here).parent == tmp_path:
            raise OSError(5, "Input/output error")
        real(there, here)

    monkeypatch.setattr(package.os, "replace", replace)
    with pytest.raises(PublishError, match="Input/output error"):
        lmonnx.export(path, tmp_path / "out.onnx", verify=False)
    assert {file.name: file.read_bytes() for file in tmp_path.glob(".out.onnx.*/earlier/*")} == before


@pytest.mark.parametrize("own", [True, False])
def test_weights_that_a_smaller_file_has_no_use_for_go(
    own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If they are those of the file that is replaced, and nobody else's."""
    path, out = source(tmp_path), tmp_path / "out.onnx"
    monkeypatch.setattr(package, "LARGEST", 100 if own else package.LARGEST)
    lmonnx.export(path, out, verify=False)
    if not own:
        (tmp_path / "out.onnx.data").write_bytes(b"somebody's")
    monkeypatch.undo()
    lmonnx.export(path, out, verify=False)
    assert names(tmp_path) == ["in.onnx", "out.onnx", *([] if own else ["out.onnx.data"])]


@pytest.mark.usefixtures("large")
def test_nothing_is_left_of_a_pair_that_cannot_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = source(tmp_path), os.replace

    def replace(there: Path, here: Path) -> None:
        if Path(here).name == "out.onnx":
            raise OSError(5, "Input/output error")
        real(there, here)

    monkeypatch.setattr(package.os, "replace", replace)
    with pytest.raises(PublishError, match="Input/output error"):
        lmonnx.export(path, tmp_path / "out.onnx", verify=False)
    assert names(tmp_path) == ["in.onnx"]


@pytest.mark.usefixtures("large")
def test_a_failed_proof_of_a_large_network_is_traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.mutations import one_ring_fewer

    one_ring_fewer(monkeypatch)
    with pytest.raises(VerificationError, match="first node that differs: Conv 'node0'"):
        lmonnx.export(source(tmp_path), tmp_path / "out.onnx")
    assert names(tmp_path) == ["in.onnx"]
