"""The command line: exit codes, one line for each error, and what the README says."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from lmonnx import cli
from lmonnx.errors import OptionError
from lmonnx.masking import MaskRules
from tests.cases import w
from tests.graphs import build, step
from tests.mutations import one_ring_fewer

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a network, a photograph and class names, where the commands run."""
    monkeypatch.chdir(tmp_path)
    steps = (
        step("Conv", "x", w(5, 3, 5, 5), strides=[4, 4]),
        step("Relu", "0"),
        step("Conv", "1", w(5, 5, 3, 3)),
        step("GlobalAveragePool", "2"),
        step("Flatten", "3"),
    )
    onnx.save(build(steps, (3, 64, 64), 18), "mobilenet.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    Image.fromarray(pixels).resize((240, 180)).save("photo.jpg")
    Path("classes.txt").write_text("one\ntwo\nthree\nfour\nfive\n")
    return tmp_path


def run(command: str) -> Result:
    """A command as typed, without the name of the program."""
    return CliRunner().invoke(cli.main, shlex.split(command))


EXPORT = "export mobilenet.onnx -o masked.onnx --size 64 --resize 72 --mean 0.5 --std 0.5 --labels classes.txt"


def test_export_then_explain(folder: Path) -> None:
    exported = run(EXPORT)
    assert exported.exit_code == 0, exported.output
    assert re.search(r"all False +\S+ +\S+ +ok\n", exported.output)
    assert exported.output.endswith("wrote masked.onnx\n")
    explained = run("explain masked.onnx photo.jpg -o explanation --samples 30 --segments 9")
    assert explained.exit_code == 0, explained.output
    assert {path.name for path in (folder / "explanation").iterdir()} == {
        "overlay.png",
        "explanation.json",
        "segments.png",
    }
    assert json.loads((folder / "explanation" / "explanation.json").read_text())
    assert re.match(r"(one|two|three|four|five) \(\d+\.\d%\)", explained.output)


def test_a_failed_proof_prints_the_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one_ring_fewer(monkeypatch)
    result = run(EXPORT)
    assert result.exit_code == 1
    assert "nothing was published" in result.output
    assert "FAILED" in result.output
    assert not Path("masked.onnx").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("export missing.onnx -o out.onnx", "there is no file missing.onnx"),
        ("export classes.txt -o out.onnx", "not a file whose name ends in .onnx"),
        ("export resnet500 -o out.onnx", "did you mean resnet50"),
        ("export mobilenet.onnx -o out.onnx --mean 0.5", "give --size too"),
        ("export mobilenet.onnx -o out.onnx --rules area", "rule 'area' is unknown"),
        ("export mobilenet.onnx -o out.onnx --rules concat=most", "choose one of all, any, majority"),
        ("export mobilenet.onnx -o out.onnx --labels none.txt", "cannot read the labels in none.txt"),
        ("export mobilenet.onnx -o out.onnx --size 32", "made for 64×64"),
        ("export mobilenet.onnx -o no/folder/out.onnx", "cannot write to no/folder"),
        ("explain mobilenet.onnx photo.jpg -o out", "not a graph exported by lmonnx"),
        ("explain missing.onnx photo.jpg -o out", "there is no such file"),
    ],
)
def test_errors_are_one_line(command: str, message: str, folder: Path) -> None:
    before = set(folder.iterdir())
    result = run(command)
    assert result.exit_code == 1
    assert message in result.output
    assert result.output.count("\n") == 1
    assert set(folder.iterdir()) == before


@pytest.mark.parametrize("photo", ["classes.txt", "missing.jpg"])
def test_a_photograph_that_cannot_be_read(photo: str) -> None:
    assert run(EXPORT).exit_code == 0
    result = run(f"explain masked.onnx {photo} -o out")
    assert result.exit_code == 1
    assert photo in result.output
    assert result.output.count("\n") == 1


def test_a_file_without_preprocessing_says_so() -> None:
    assert run("export mobilenet.onnx -o masked.onnx --no-verify").output == "not verified\nwrote masked.onnx\n"
    result = run("explain masked.onnx photo.jpg -o out")
    assert result.exit_code == 1
    assert "preprocessing" in result.output


def test_a_host_without_torch_says_what_to_install() -> None:
    without = "import sys; sys.modules['torch'] = None"
    command = f"{without}; from lmonnx import cli; cli.main(['export', 'x.onnx', '-o', 'y.onnx'])"
    result = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == "error: export needs the package torch; install it with: pip install 'lmonnx[export]'\n"


def test_rules_are_read() -> None:
    assert cli.parse_rules("average=area,concat=any") == MaskRules(average="area", concat="any")
    assert cli.parse_rules("") == MaskRules()
    with pytest.raises(OptionError, match="rings"):
        cli.parse_rules("rings=kernel")


def test_readme_names_commands_and_options_that_exist() -> None:
    commands = re.findall(r"^\$ lmonnx (.+)$", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        name, *words = shlex.split(command)
        known = {option for parameter in cli.main.commands[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= known


def test_readme_export_of_a_file_runs_as_printed() -> None:
    (command,) = re.findall(r"^\$ lmonnx (export mobilenet.+)$", README.read_text(encoding="utf-8"), re.MULTILINE)
    steps = (step("Conv", "x", w(5, 3, 5, 5), strides=[16, 16]), step("GlobalAveragePool", "0"), step("Flatten", "1"))
    onnx.save(build(steps, (3, 224, 224), 18), "mobilenet.onnx")
    result = run(command)
    assert result.exit_code == 0, result.output
