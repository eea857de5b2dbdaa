"""The command line: exit codes, one line for each error, and what the README says."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

import lmonnx
from lmonnx import cli
from lmonnx.bar import Bar
from lmonnx.errors import OptionError
from lmonnx.exporters.package import publication
from lmonnx.masking import MaskRules
from lmonnx.options import one_line_errors, parse_rules
from lmonnx.runtime import distributions
from tests.cases import w
from tests.graphs import build, step
from tests.mutations import one_ring_fewer


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
    Path("few.txt").write_text("one\ntwo\n")
    return tmp_path


def run(command: str) -> Result:
    """A command as typed, without the name of the program."""
    return CliRunner().invoke(cli.main, shlex.split(command))


EXPORT = "export mobilenet.onnx -o masked.onnx --size 64 --crop 64/72 --mean 0.5 --std 0.5 --labels classes.txt"


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


def test_which_weights_were_taken_is_told() -> None:
    Path("networks.py").write_text("from torch import nn\ndef net(): return nn.Conv2d(3, 2, 5)\n")
    for content, told in (({"ema": 1.0, "model": 0.0}, True), ({"model": 0.0}, False)):
        state = {name: {"weight": torch.full((2, 3, 5, 5), w), "bias": torch.ones(2)} for name, w in content.items()}
        torch.save(state, "last.pth")
        said = run("export networks:net --weights last.pth -o out.onnx --size 16 --no-verify")
        assert said.exit_code == 0, said.output
        assert ("the weights are ema of last.pth, which holds model too\n" in said.output) == told


def test_any_size(folder: Path) -> None:
    model = onnx.load("mobilenet.onnx")
    for side in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        side.Clear()
    del model.graph.value_info[:]
    onnx.save(model, "open.onnx")
    exported = run("export open.onnx -o masked.onnx --size dynamic --crop 0.875 --mean 0.5 --std 0.5")
    assert exported.exit_code == 0, exported.output
    assert re.search(r"16 px patches, 169×169 +\S+ +\S+ +ok\n", exported.output)
    inspected = run("inspect masked.onnx")
    assert "[images, 3, height, width]" in inspected.output
    assert "short side resized to 256, centre crop 224×224" in inspected.output
    assert run("predict masked.onnx photo.jpg").exit_code == 0
    assert run("verify masked.onnx --against open.onnx").exit_code == 0
    assert "'any' is not of the form N,N, nor dynamic" in run("export open.onnx -o out.onnx --size any").output


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
        (
            "export mobilenet.onnx -o out.onnx --mean 0.5",
            "--mean 0.5 is a part of how photographs become images, and mobilenet.onnx does not say the rest; "
            "give --std too",
        ),
        ("export mobilenet.onnx -o out.onnx --channel-order BGR", "--channel-order BGR is a part of how"),
        ("export mobilenet.onnx -o out.onnx --crop 0.9 --std 1", "give --mean too"),
        ("export mobilenet.onnx -o out.onnx --size 64 --crop 256", "--crop 256 is not a share"),
        ("export mobilenet.onnx -o out.onnx --size 64 --crop 1e-9", "such large ones are not made"),
        ("export mobilenet.onnx -o out.onnx --size 64 --mean 1,2,3 --std 0", "--std 0.0,0.0,0.0 has to be positive"),
        ("export mobilenet.onnx -o out.onnx --size 64 --labels few.txt", "there are 2 labels for 5 classes"),
        ("export scenes-wood -o out.onnx", "did you mean"),
        ("export scenes-material -o out.onnx --weights best", "'best'"),
        ("export mobilenet.onnx -o out.onnx --rules area", "rule 'area' is unknown"),
        ("export mobilenet.onnx -o out.onnx --rules average=area,average=valid", "say one rule twice"),
        ("export scenes-shape -o out.onnx --image-input x", "error: --image-input x is for .onnx files"),
        ("export mobilenet.onnx -o out.onnx --image uint8", "error: --image uint8 puts the normalisation into the"),
        ("export mobilenet.onnx -o out.onnx --opset 12", "error: --opset 12 is not one that is written"),
        ("export mobilenet.onnx -o out.onnx --num-classes 5", "error: --num-classes 5 is for networks by name"),
        ("export mobilenet.onnx -o out.onnx --batch 99999", "error: --batch 99999 is not a number of rows"),
        ("export mobilenet.onnx -o out.onnx --rules concat=most", "choose one of all, any, majority"),
        ("export mobilenet.onnx -o out.onnx --labels none.txt", "cannot read the labels in none.txt"),
        ("export mobilenet.onnx -o out.onnx --size 32", "made for 64×64"),
        ("export mobilenet.onnx -o out.onnx --size dynamic", "made for images of 64×64 pixels; leave --size out"),
        ("export mobilenet.onnx -o no/folder/out.onnx", "cannot write to no/folder"),
        ("explain mobilenet.onnx photo.jpg -o out", "not a graph exported by lmonnx"),
        ("explain missing.onnx photo.jpg -o out", "there is no such file"),
        ("predict missing.onnx photo.jpg", "there is no such file"),
        ("predict mobilenet.onnx photo.jpg", "not a graph exported by lmonnx"),
        ("predict mobilenet.onnx photo.jpg --mask photo.jpg --box 0,0,1,1", "give one of them"),
        ("predict mobilenet.onnx photo.jpg --mask-removes", "--mask-removes says what --mask or --box means"),
        ("inspect missing.onnx", "there is no such file"),
        ("inspect mobilenet.onnx", "not a graph exported by lmonnx"),
        ("verify mobilenet.onnx --against mobilenet.onnx", "not a graph exported by lmonnx"),
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
    assert parse_rules("average=area,concat=any") == MaskRules(average="area", concat="any")
    assert parse_rules("") == MaskRules()
    with pytest.raises(OptionError, match="rings"):
        parse_rules("rings=kernel")


def test_predict_under_masks_and_boxes(folder: Path) -> None:
    assert run(EXPORT).exit_code == 0
    Image.fromarray(np.tile(np.arange(240) < 120, (180, 1))).save("left.png")
    Image.new("RGB", (50, 300)).save("other.png")
    whole = run("predict masked.onnx photo.jpg other.png --top 2")
    assert re.fullmatch(
        r"(photo.jpg|other.png), 100.0% kept\n( +\d+\.\d%  (one|two|three|four|five)\n){2}" * 2, whole.output
    ), whole.output
    answers = {}
    for options in ("", "--mask left.png", "--box 0,0,120,180", "--box 120,0,240,180 --mask-removes"):
        result = run(f"predict masked.onnx photo.jpg {options} --json --top 5")
        assert result.exit_code == 0, result.output
        answers[options] = json.loads(result.output)
    assert answers[""]["kept"] == 1.0
    left = answers.pop("--mask left.png")
    assert left["kept"] == pytest.approx(0.5, abs=0.03)
    assert left != answers.pop("")
    assert all(answer == left for answer in answers.values())
    result = run("predict masked.onnx photo.jpg --box 0,0,500,10")
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert "240×180" in result.output


def test_inspect_and_verify(folder: Path) -> None:
    assert run(EXPORT).exit_code == 0
    report = run("inspect masked.onnx").output
    assert re.search(r"^labels +5: one, two, three", report, re.MULTILINE)
    assert re.search(r"added +\d+ nodes", report)
    told = json.loads(run("inspect masked.onnx --json").output)
    assert told["metadata"]["preprocessing"]["resize"] == 72
    proof = run("verify masked.onnx --against mobilenet.onnx")
    assert proof.exit_code == 0, proof.output
    assert re.search(r"all False +\S+ +\S+ +ok\n", proof.output)
    onnx.save(build((step("GlobalAveragePool", "x"), step("Flatten", "0")), (3, 64, 64), 18), "other.onnx")
    other = run("verify masked.onnx --against other.onnx")
    assert other.exit_code == 1
    assert "is not the file that masked.onnx was made from" in other.output


def test_a_mask_that_the_network_does_not_see_is_told_of(folder: Path) -> None:
    assert run(EXPORT).exit_code == 0
    for options, lost in (("--box 0,0,9,180", "keeps nothing"), ("--box 0,0,9,180 --mask-removes", "removes nothing")):
        result = run(f"predict masked.onnx photo.jpg {options}")
        assert result.exit_code == 0
        assert f"warning: photo.jpg: the mask {lost} of what the network sees" in result.output


def test_labels_with_a_byte_order_mark_and_none_at_all(folder: Path) -> None:
    Path("bom.txt").write_bytes(b"\xef\xbb\xbf" + Path("classes.txt").read_bytes())
    assert run("export mobilenet.onnx -o masked.onnx --no-verify --labels bom.txt").exit_code == 0
    assert lmonnx.load("masked.onnx").contract.labels == ("one", "two", "three", "four", "five")
    Path("empty.txt").write_text("")
    for source in ("mobilenet.onnx", "scenes-material"):
        assert run(f"export {source} -o out.onnx --no-verify --labels empty.txt").exit_code == 1


def test_one_option_changes_what_the_source_says_and_nothing_else() -> None:
    own = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}  # of the scenes' networks
    for options, changed in (
        ("--size 64 --crop 0.8", {"size": (64, 64), "resize": 80}),
        ("--crop 128/160", {"size": (128, 128), "resize": 160}),
        ("--interpolation bicubic", {"size": (128, 128), "interpolation": "bicubic"}),
        ("--mean 0.4", {"size": (128, 128), "mean": (0.4, 0.4, 0.4)}),
    ):
        exported = run(f"export scenes-shape -o masked.onnx --no-verify --weights seed:0 {options}")
        assert exported.exit_code == 0, exported.output
        assert lmonnx.load("masked.onnx").preprocessing == lmonnx.Preprocessing(**{**own, **changed})  # type: ignore[arg-type]
    published = run("export scenes-shape -o masked.onnx --no-verify --crop 0.8")
    assert (published.exit_code, "brings its own" in published.output) == (1, True)


def test_the_size_that_the_source_says_is_enough_for_a_description() -> None:
    assert run("export mobilenet.onnx -o masked.onnx --no-verify --mean 0 --std 1 --crop 0.5").exit_code == 0
    assert lmonnx.load("masked.onnx").preprocessing == lmonnx.Preprocessing((64, 64), 128)


def test_preprocessing_options_reach_the_file(folder: Path) -> None:
    command = (
        "export mobilenet.onnx -o masked.onnx --no-verify --size 64 --crop 0.875 --interpolation bicubic --mean 0.4"
    )
    assert run(f"{command} --std 0.2,0.3,0.4 --scale 1 --channel-order BGR").exit_code == 0
    preprocessing = lmonnx.load("masked.onnx").preprocessing
    assert preprocessing == lmonnx.Preprocessing(
        (64, 64), 73, "bicubic", (0.4, 0.4, 0.4), (0.2, 0.3, 0.4), scale=1.0, channel_order="BGR"
    )


def test_grey_networks_take_one_number(folder: Path) -> None:
    steps = (step("Conv", "x", w(5, 1, 5, 5)), step("GlobalAveragePool", "0"), step("Flatten", "1"))
    onnx.save(build(steps, (1, 32, 32), 18), "grey.onnx")
    for options in ("--mean 0.5 --std 0.5", "--mean 0 --std 1"):
        assert run(f"export grey.onnx -o masked.onnx --no-verify --size 32 --scale 255 {options}").exit_code == 0
        result = run("predict masked.onnx photo.jpg")
        assert result.exit_code == 0, result.output
    for options, message in (
        ("--mean 0.1,0.2,0.3 --std 1", "1 channels"),
        ("--mean 0 --std 1 --channel-order BGR", "one channel"),
    ):
        result = run(f"export grey.onnx -o masked.onnx --no-verify --size 32 {options}")
        assert (result.exit_code, message in result.output) == (1, True)


def test_the_doctor_finds_this_environment_in_order() -> None:
    result = run("doctor")
    assert result.exit_code == 0, result.output
    assert result.output.endswith("all is well\n")


def test_the_doctor_fails_where_something_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributions, "installed", lambda: {"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"})
    result = run("doctor")
    assert result.exit_code == 1
    assert "pip uninstall onnxruntime onnxruntime-gpu" in result.output


@pytest.mark.filterwarnings("default:onnxruntime:RuntimeWarning")
def test_two_onnxruntimes_are_told_of_in_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(EXPORT).exit_code == 0
    monkeypatch.setattr(distributions, "installed", lambda: {"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"})
    distributions._warn_of_several.cache_clear()
    result = run("predict masked.onnx photo.jpg")
    assert result.exit_code == 0
    assert re.search(r"^warning: onnxruntime 1.31.1 and onnxruntime-gpu 1.31.1 are installed", result.output, re.M)


def test_a_termination_takes_the_temporary_folder_along(folder: Path) -> None:
    before = set(folder.iterdir())

    @click.command
    @one_line_errors
    def stopped() -> None:
        with publication(folder / "masked.onnx"):
            assert set(folder.iterdir()) > before
            signal.raise_signal(signal.SIGTERM)

    assert CliRunner().invoke(stopped).exit_code == 143
    assert set(folder.iterdir()) == before
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_folders(folder: Path) -> None:
    assert run(EXPORT).exit_code == 0
    Path("photos").mkdir()
    for name in ("a.jpg", "b.jpg"):
        Path("photos", name).write_bytes(Path("photo.jpg").read_bytes())
    printed = run("predict masked.onnx photos --top 1 --box 0,0,100,100")
    assert printed.exit_code == 0, printed.output
    assert [line.split(",")[0] for line in printed.output.splitlines()[::2]] == ["photos/a.jpg", "photos/b.jpg"]

    predicted = run("predict masked.onnx 'photos/*.jpg' -o out --workers 0")
    assert (predicted.exit_code, predicted.output) == (0, "2 of 2 photographs done; computed on the CPU\n")
    Path("photos", "c.jpg").write_text("no picture")
    command = "explain masked.onnx photos -o explained --samples 30 --segments 9 --workers 0 --quiet"
    for before in ("", ", 2 were there before"):
        explained = run(command)
        done = 0 if before else 2
        assert explained.exit_code == 3
        told = f"{done} of 3 photographs done{before}, 1 failed, see explained/errors.jsonl; computed on the CPU\n"
        assert explained.output == told
    assert Path("explained", "a.jpg", "overlay.png").exists()
    other = run(f"{command} --seed 1")
    assert other.exit_code == 1
    assert other.output.startswith("error: explained holds results of other settings (seed was 0, is 1); name another")
    empty = run("explain masked.onnx 'photos/*.png' -o empty")
    assert (empty.exit_code, empty.output) == (1, "error: there is no photograph in photos/*.png\n")


@pytest.mark.parametrize("colour", ["FORCE_COLOR", "NO_COLOR"])
def test_progress_is_for_terminals(
    colour: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(colour, "1")
    for terminal, quiet, shown in ((False, False, False), (True, True, False), (True, False, True)):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        with Bar("the CPU", rows=10, unit="masks", quiet=quiet) as bar:
            bar.begin(images=5, finished=1)
            bar.rows(10)
            bar.image()
        said = capsys.readouterr()
        assert said.out == ""
        assert ("the CPU" in said.err) == shown
        assert ("2 of 5 photographs" in re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", said.err)) == shown


def test_what_is_written_is_json_already(folder: Path) -> None:
    said = run("predict masked.onnx photo.jpg -o out --json")
    assert (said.exit_code, said.output[:31]) == (1, "error: --json says how results ")


def test_ctrl_c_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(lmonnx, "load", interrupt, raising=False)
    said = run("predict masked.onnx photo.jpg")
    assert (said.exit_code, said.output) == (130, "interrupted\n")
