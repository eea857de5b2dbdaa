"""Comparisons of speed: turns, ratios, what a profile is grouped by, and the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import lmonnx
from lmonnx import cli
from lmonnx.errors import OptionError
from lmonnx.speed import MASKED, PLAIN, PYTORCH, inputs
from lmonnx.speed.profile import grouped, purposes
from lmonnx.speed.race import Times, race
from tests.exporters.small import HEAD, onnx_file

NETWORK = "scenes-material"


def test_programs_take_turns_and_each_begins_a_round() -> None:
    ran: list[str] = []
    times = race({name: lambda name=name: ran.append(name) for name in "abc"}, rounds=4)
    assert "".join(ran) == "abcabc" + "abc" + "bca" + "cab" + "abc"
    assert {name: len(taken) for name, taken in times.seconds.items()} == dict.fromkeys("abc", 4)
    assert all((taken > 0).all() for taken in times.seconds.values())


def test_ratios_are_those_of_single_rounds() -> None:
    times = Times({"fast": np.array([1.0, 10.0, 1.0]), "slow": np.array([2.0, 20.0, 4.0])})
    assert times.ratio("slow", "fast") == (2.0, 2.0, 3.0)
    assert times.quartiles("fast") == (1.0, 1.0, 5.5)


def test_half_of_the_patches_is_removed() -> None:
    image, mask = inputs(3, 3, (64, 80))
    assert image.shape == (3, 3, 64, 80)
    assert image.dtype == np.float32
    patches = mask[:, 0, ::16, ::16]
    assert (patches.sum(axis=(1, 2)) == 10).all()
    np.testing.assert_array_equal(mask[:, 0], patches.repeat(16, axis=1).repeat(16, axis=2))
    assert len(np.unique(patches, axis=0)) == 3


def test_a_network_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    report = lmonnx.bench(
        NETWORK,
        batches=(1, 2),
        rounds=3,
        threads=1,
        profile=True,
        others={"other": lambda image, mask: seen.append((len(image), len(mask)))},
    )
    assert [(row.batch, row.program) for row in report.rows] == [
        (batch, program) for batch in (1, 2) for program in (PLAIN, MASKED, PYTORCH, "other")
    ]
    assert set(seen) == {(1, 1), (2, 2)}
    for row in report.rows:
        assert row.milliseconds[0] <= row.milliseconds[1] <= row.milliseconds[2]
        own = {PLAIN: row.to_plain, MASKED: row.to_masked}.get(row.program)
        assert own in (None, (1.0, 1.0, 1.0))
    assert report.threads == 1
    assert report.profile is not None
    assert "network" in report.profile.rules
    assert "mask: Conv" in report.profile.rules
    assert sum(report.profile.rules.values()) == pytest.approx(sum(report.profile.operators.values()))
    assert json.loads(json.dumps(report.to_json()))["rows"][0]["program"] == PLAIN
    assert "| 2 | masked graph |" in str(report)


def test_every_millisecond_of_a_profile_has_a_purpose(tmp_path: Path) -> None:
    path = lmonnx.export(onnx_file(tmp_path / "plain.onnx", *HEAD), tmp_path / "masked.onnx", verify=False).path
    made = purposes(path, (32, 32))
    node = next(name for name, (rule, added) in made.items() if rule == "Conv" and not added)
    fill = next(name for name, (rule, added) in made.items() if rule == "Conv" and added)
    kernels = {
        f"{node}_nchwc_kernel_time": ("Conv", 4000),
        f"{fill}_kernel_time": ("Mul", 2000),
        "ReorderOutput_kernel_time": ("ReorderOutput", 1000),
    }
    events = [{"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 500, "args": {}}]
    for start, slower in ((1000, 5), (40000, 1), (50000, 1)):
        events.append({"cat": "Session", "name": "model_run", "ts": start, "dur": slower * 7000, "args": {}})
        for name, (operator, took) in kernels.items():
            dur = slower * took // 2
            events.append({"cat": "Node", "name": name, "ts": start, "dur": dur, "args": {"op_name": operator}})
    trace = tmp_path / "trace.json"
    trace.write_text(json.dumps(events), encoding="utf-8")
    found = grouped(trace, made, warmup=1, runs=2)
    assert found.rules == {"network": 2.0, "mask: Conv": 1.0, "onnxruntime: ReorderOutput": 0.5}
    assert found.operators == {("Conv", False): 2.0, ("Mul", True): 1.0, ("ReorderOutput", False): 0.5}


def test_a_file_is_timed_without_pytorch(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "plain.onnx", *HEAD)
    result = CliRunner().invoke(cli.main, ["bench", str(path), "--batch", "1", "--rounds", "1", "--json"])
    assert result.exit_code == 0, result.output
    assert [row["program"] for row in json.loads(result.output)["rows"]] == [PLAIN, MASKED]


@pytest.mark.parametrize(("option", "value"), [("batches", (8, 0)), ("batches", ()), ("rounds", 0), ("threads", -1)])
def test_numbers_that_are_not_positive(option: str, value: object) -> None:
    with pytest.raises(OptionError, match=f"{option}=.* is not positive"):
        lmonnx.bench(NETWORK, **{option: value})
