"""The folders that Triton is started with: what is in them, and what is refused."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

from lmonnx import cli
from lmonnx.deploy.triton import write
from lmonnx.errors import LmonnxError, ModelError, OptionError, PublishError
from lmonnx.runtime import Runner
from tests.deploy.conftest import GraphFile, content, restate
from tests.deploy.triton import parsed


def test_the_layout(graph_file: GraphFile, tmp_path: Path) -> None:
    model, models = graph_file(), tmp_path / "served" / "models"
    assert write(model, models) == models / "net"
    found = content(models)
    assert set(found) == {"net/config.pbtxt", "net/labels.txt", "net/1/model.onnx"}
    assert found["net/1/model.onnx"] == model.read_bytes()
    assert found["net/labels.txt"].decode() == "cat\ndog\nbarn owl\n"
    assert [output.label_filename for output in parsed(models / "net").output] == ["labels.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx", "served"]
    assert [path.name for path in models.parent.iterdir()] == ["models"]
    assert (models / "net" / "1").stat().st_mode & 0o777 == 0o777 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_without_labels(graph_file: GraphFile, tmp_path: Path) -> None:
    folder = write(graph_file(labels=None), tmp_path / "models")
    assert set(content(folder)) == {"config.pbtxt", "1/model.onnx"}
    assert [output.label_filename for output in parsed(folder).output] == [""]


def test_weights_beside_the_graph_come_along(graph_file: GraphFile, tmp_path: Path) -> None:
    model = graph_file(data="net.onnx.data")
    folder = write(model, tmp_path / "models", name="other", version=7)
    assert set(content(folder)) == {"config.pbtxt", "labels.txt", "7/model.onnx", "7/net.onnx.data"}
    image, mask = np.ones((2, 3, 8, 6), np.float32), np.eye(8, 6, dtype=bool)[None, None]
    answers = [Runner(path, "cpu", 1).run(image, mask)["scores"] for path in (model, folder / "7" / "model.onnx")]
    np.testing.assert_array_equal(*answers)
    (tmp_path / "net.onnx.data").unlink()
    with pytest.raises(ModelError, match=r"its weights are not there, in \S*net\.onnx\.data"):
        write(model, tmp_path / "models", name="none")
    assert not (tmp_path / "models" / "none").exists()


@pytest.mark.parametrize("data", ["sub/weights", "model.onnx", "", ".", "..", "a\0b", "\ud800"])
def test_weights_that_cannot_be_placed(data: str, graph_file: GraphFile, tmp_path: Path) -> None:
    model = graph_file()
    restate(model, data=data)
    with pytest.raises(ModelError, match=r"net\.onnx: stores its weights in '.*', which cannot stand beside") as caught:
        write(model, tmp_path / "models")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "models").exists()


def test_weights_that_would_replace_the_graph(graph_file: GraphFile, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"net\.onnx: stores its weights in 'model\.onnx', which cannot stand beside"):
        write(graph_file(data="model.onnx"), tmp_path / "models")


def test_weights_that_the_metadata_names_and_nobody_can_read(graph_file: GraphFile, tmp_path: Path) -> None:
    model = graph_file()
    restate(model, data="folder")
    for message in ("No such file or directory", "Is a directory"):
        with pytest.raises(ModelError, match=rf"folder: cannot be read: {message}; make it readable, or export"):
            write(model, tmp_path / "models")
        (tmp_path / "folder").mkdir(exist_ok=True)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("named", [None, "net.onnx.data"])
def test_weights_that_the_metadata_does_not_name(named: str | None, graph_file: GraphFile, tmp_path: Path) -> None:
    folder = write(graph_file(), tmp_path / "models")
    before = content(folder)
    model = graph_file(seed=1)
    onnx.save(onnx.load(model), model, save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "net.onnx.data").touch()
    restate(model, data=named)
    assert Runner(model, "cpu", 1).batch is None  # it loads where it is
    with pytest.raises(
        ModelError, match=r"net\.onnx: cannot be loaded from its copy, so it needs a file that"
    ) as caught:
        write(model, tmp_path / "models", overwrite=True)
    assert "\n" not in str(caught.value)
    assert content(folder) == before
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["net"]


def test_labels_that_no_file_takes(graph_file: GraphFile, tmp_path: Path) -> None:
    model = graph_file()
    restate(model, labels=["a", "\ud800", "c"])
    with pytest.raises(ModelError, match=r"net\.onnx: the metadata is damaged: labels are not all text") as caught:
        write(model, tmp_path / "models")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "a b", "é", "x" * 129, "a\n"])
def test_names(name: str, graph_file: GraphFile, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="does not fit a URL; name the model with up to 128 letters") as caught:
        write(graph_file(), tmp_path / "models", name=name)
    assert "\n" not in str(caught.value)
    assert write(graph_file(), tmp_path / "models", name="Ok_1.0-b").name == "Ok_1.0-b"


@pytest.mark.parametrize("version", [0, -1, 1.0, True, 2**63, "1"])
def test_versions_are_numbers(version: Any, graph_file: GraphFile, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"is not a version of Triton, a whole number, 1 … 9223372036854775807"):
        write(graph_file(), tmp_path / "models", version=version)


def test_places_that_cannot_be_written(graph_file: GraphFile, tmp_path: Path) -> None:
    model = graph_file()
    (tmp_path / "file").write_text("")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "net").write_text("")
    for place, message in (("file", "cannot write .*file/net: "), ("models", "models/net: is a file; choose another")):
        with pytest.raises(PublishError, match=message):
            write(model, tmp_path / place)
    for path in ("missing.onnx", "file"):
        with pytest.raises(LmonnxError, match=path):
            write(tmp_path / path, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    for repository_, error, message in (
        ("x" * 300, PublishError, "File name too long; choose another repository"),
        ("", OptionError, "repository='' is no path; name the folder"),
        ("a\0b", OptionError, "is no path; name the folder"),
        ("\ud800", OptionError, "is no path; name the folder"),
    ):
        with pytest.raises(error, match=message) as caught:
            write(model, repository_)
        assert "\n" not in str(caught.value)


def run(command: str) -> Result:
    return CliRunner().invoke(cli.main, ["deploy", "triton", *shlex.split(command)])


def test_the_command(graph_file: GraphFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    graph_file()
    result = run("net.onnx --repository models")
    assert (result.exit_code, result.output) == (0, "wrote models/net/1 and models/net/config.pbtxt\n")
    options = "--max-batch-size 64 --preferred 8,16 --delay 500 --instances 2 --kind gpu --tensorrt"
    result = run(f"net.onnx --repository models --name fast --version 3 {options} --tensorrt-workspace 5")
    assert (result.exit_code, result.output) == (0, "wrote models/fast/3 and models/fast/config.pbtxt\n")
    config = parsed(Path("models", "fast"))
    assert (config.max_batch_size, list(config.dynamic_batching.preferred_batch_size)) == (64, [8, 16])
    assert (config.dynamic_batching.max_queue_delay_microseconds, config.instance_group[0].count) == (500, 2)
    accelerator = config.optimization.execution_accelerators.gpu_execution_accelerator[0]
    assert (accelerator.name, accelerator.parameters["max_workspace_size_bytes"]) == ("tensorrt", "5")
    assert run("net.onnx --repository models --name one --one-image").exit_code == 0
    assert parsed(Path("models", "one")).max_batch_size == 0
    assert run("net.onnx --repository models --name one --one-image --overwrite --kind cpu").exit_code == 0


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("missing.onnx --repository new", "error: missing.onnx: there is no such file"),
        ("net.onnx --repository models", "error: models/net: version 1 exists; choose another version"),
        ("net.onnx --repository models --version 2 --delay 5", "models/net/config.pbtxt: is not what this version"),
        ("net.onnx --repository new --name 'a b'", "error: --name a b does not fit a URL"),
        (
            "net.onnx --repository new --one-image --max-batch-size 8",
            "error: --one-image joins no requests, and --max-",
        ),
        ("net.onnx --repository new --preferred 8,99", "error: --preferred 8,99 are not numbers of rows, 1 … 32"),
        ("net.onnx --repository new --tensorrt --kind cpu", "error: --tensorrt wants a GPU, and --kind cpu takes none"),
        ("net.onnx --repository new --tensorrt-workspace 5", "is for TensorRT; give --tensorrt too"),
        ("net.onnx --repository ''", "error: --repository  is no path; name the folder that Triton is started with"),
        (f"net.onnx --repository {'x' * 300}", "x/net: File name too long; choose another repository"),
        (f"net.onnx --repository new --version {2**63}", f"a whole number, 1 … {2**63 - 1}"),
        (". --repository new", "error: .: is a directory; name the .onnx file in it"),
    ],
)
def test_errors_are_one_line(
    command: str, message: str, graph_file: GraphFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    graph_file()
    assert run("net.onnx --repository models").exit_code == 0
    before = content(tmp_path)
    result = run(command)
    assert (result.exit_code, result.output.count("\n")) == (1, 1), result.output
    assert message in result.output
    assert content(tmp_path) == before
    assert not Path("new").exists()
