"""The folders that Triton is started with: what is in them, and that nothing half is ever there."""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from lmonnx import cli
from lmonnx.deploy.triton import Settings, repository, write
from lmonnx.errors import LmonnxError, ModelError, OptionError, PublishError
from lmonnx.runtime import Runner
from tests.deploy.conftest import GraphFile
from tests.deploy.triton import parsed


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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


def test_weights_elsewhere_are_refused(graph_file: GraphFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    model = graph_file(data="sub/weights")
    with pytest.raises(ModelError, match="stores its weights in 'sub/weights', which is not a file beside it"):
        write(model, tmp_path / "models")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "a b", "é", "x" * 129, "a\n"])
def test_names(name: str, graph_file: GraphFile, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="does not fit a URL; name the model with up to 128 letters") as caught:
        write(graph_file(), tmp_path / "models", name=name)
    assert "\n" not in str(caught.value)
    assert write(graph_file(), tmp_path / "models", name="Ok_1.0-b").name == "Ok_1.0-b"


@pytest.mark.parametrize("version", [0, -1, 1.0, True, 2**63, "1"])
def test_versions_are_numbers(version: Any, graph_file: GraphFile, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"is not a version of Triton, a whole number from 1 on"):
        write(graph_file(), tmp_path / "models", version=version)


def test_a_version_is_added_and_none_is_overwritten(graph_file: GraphFile, tmp_path: Path) -> None:
    models = tmp_path / "models"
    folder = write(graph_file(), models)
    before = content(folder)
    with pytest.raises(PublishError, match=r"net: version 1 exists; choose another version, or overwrite it"):
        write(graph_file(seed=1), models)
    assert content(folder) == before
    write(graph_file(seed=1), models, version=12)
    after = content(folder)
    assert after.keys() - before.keys() == {"12/model.onnx"}
    assert {name: after[name] for name in before} == before
    assert after["12/model.onnx"] != after["1/model.onnx"]
    write(graph_file(seed=2), models, version=12, overwrite=True)
    assert {name for name, text in content(folder).items() if text != after[name]} == {"12/model.onnx"}
    assert sorted(path.name for path in models.iterdir()) == ["net"]


def test_a_configuration_that_is_shared_is_not_replaced_unasked(graph_file: GraphFile, tmp_path: Path) -> None:
    models, eight = tmp_path / "models", Settings(max_batch_size=8)
    folder = write(graph_file(), models)
    before = content(folder)
    with pytest.raises(PublishError, match=r"config\.pbtxt: is not what this version needs, and all versions share it"):
        write(graph_file(), models, version=2, settings=eight)
    with pytest.raises(PublishError, match=r"labels\.txt: is not what this version needs"):
        write(graph_file(labels=("a", "b", "c")), models, version=2)
    assert content(folder) == before
    write(graph_file(labels=("a", "b", "c")), models, version=2, settings=eight, overwrite=True)
    assert parsed(folder).max_batch_size == 8
    assert (folder / "labels.txt").read_text() == "a\nb\nc\n"
    assert (folder / "1" / "model.onnx").read_bytes() == before["1/model.onnx"]


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("there", [False, True])
def test_an_interrupted_write_leaves_what_was_there(
    there: bool, fault: BaseException, graph_file: GraphFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "served" / "models"
    model = graph_file(data="net.onnx.data")
    if there:
        write(graph_file(labels=("a", "b", "c")), models)
        model = graph_file(data="net.onnx.data", seed=1)
    before = content(tmp_path)
    moves = itertools.count()

    def failing(real: Callable[..., Any], last: int) -> Callable[..., Any]:
        def move(*paths: Any, **options: Any) -> Any:
            if next(moves) == last:
                raise fault
            return real(*paths, **options)

        return move

    steps = 0
    while True:
        moves = itertools.count()
        with monkeypatch.context() as patch:
            for module, name in ((os, "rename"), (os, "replace"), (shutil, "copyfile"), (shutil, "copy2")):
                patch.setattr(module, name, failing(getattr(module, name), steps))
            try:
                write(model, models, settings=Settings(max_batch_size=8), overwrite=True)
                break
            except (PublishError, KeyboardInterrupt) as error:
                told = repr(error)
        assert "cannot write" in told or "KeyboardInterrupt" in told
        assert content(tmp_path) == before
        assert (tmp_path / "served").exists() == there
        steps += 1
    assert steps == (10 if there else 3)  # every copy and move, of which a copy2 is two
    assert parsed(models / "net").max_batch_size == 8
    assert sorted(path.name for path in models.parent.iterdir()) == ["models"]
    assert (models / "net" / "1" / "net.onnx.data").exists()


def test_no_version_stands_under_a_configuration_that_is_not_its_own(
    graph_file: GraphFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models"
    folder = write(graph_file(), models)
    config = (folder / "config.pbtxt").read_bytes()
    old = (folder / "1" / "model.onnx").read_bytes()
    model, seen = graph_file(seed=1, batch=2), set()

    def watch(real: Callable[..., Any]) -> Callable[..., Any]:
        def move(*paths: Any, **options: Any) -> Any:
            result = real(*paths, **options)
            assert [path.name for path in models.iterdir()] == ["net"]  # Triton takes all in it for models
            assert {path.name for path in folder.iterdir()} <= {"1", "config.pbtxt", "labels.txt"}
            served = content(folder).get("1/model.onnx")
            ours = (folder / "config.pbtxt").read_bytes() != config
            assert served in {None, model.read_bytes() if ours else old}
            seen.add((served is not None, ours))
            return result

        return move

    for module, name in ((os, "rename"), (os, "replace"), (shutil, "copyfile"), (shutil, "copy2")):
        monkeypatch.setattr(module, name, watch(getattr(module, name)))
    write(model, models, overwrite=True)
    assert seen == {(True, False), (False, False), (False, True), (True, True)}


def test_what_cannot_be_put_back_is_not_lost(
    graph_file: GraphFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models"
    write(graph_file(), models)
    before = (models / "net" / "1" / "model.onnx").read_bytes()

    def replace(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(PublishError, match="Input/output error"):
        write(graph_file(seed=1), models, overwrite=True)
    (kept,) = tmp_path.glob(".models-*/earlier/1/model.onnx")
    assert kept.read_bytes() == before


def test_a_repository_whose_parent_is_not_ours(
    graph_file: GraphFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, models = repository.tempfile.mkdtemp, tmp_path / "models"

    def mkdtemp(prefix: str, dir: Path) -> str:  # noqa: A002
        if dir == tmp_path:
            raise PermissionError(13, "Permission denied")
        return real(prefix=prefix, dir=dir)

    monkeypatch.setattr(repository.tempfile, "mkdtemp", mkdtemp)
    write(graph_file(), models)
    assert [path.name for path in models.iterdir()] == ["net"]


def test_a_file_that_is_replaced_meanwhile(
    graph_file: GraphFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, real = graph_file(), shutil.copyfile

    def copyfile(*paths: Any) -> None:
        real(*paths)
        graph_file(batch=2)

    monkeypatch.setattr(shutil, "copyfile", copyfile)
    with pytest.raises(ModelError, match=r"net\.onnx: was replaced while it was being copied"):
        write(model, tmp_path / "models")
    assert not (tmp_path / "models").exists()


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


def run(command: str) -> Result:
    return CliRunner().invoke(cli.main, ["deploy", "triton", *shlex.split(command)])


def test_the_command(graph_file: GraphFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    graph_file()
    result = run("net.onnx --repository models")
    assert (result.exit_code, result.output) == (0, "wrote models/net/1 and models/net/config.pbtxt\n")
    options = "--max-batch-size 64 --preferred 8,16 --delay 500 --instances 2 --kind gpu --tensorrt"
    result = run(f"net.onnx --repository models --name fast --version 3 {options} --tensorrt-precision FP16")
    assert (result.exit_code, result.output) == (0, "wrote models/fast/3 and models/fast/config.pbtxt\n")
    config = parsed(Path("models", "fast"))
    assert (config.max_batch_size, list(config.dynamic_batching.preferred_batch_size)) == (64, [8, 16])
    assert (config.dynamic_batching.max_queue_delay_microseconds, config.instance_group[0].count) == (500, 2)
    accelerator = config.optimization.execution_accelerators.gpu_execution_accelerator[0]
    assert (accelerator.name, accelerator.parameters["precision_mode"]) == ("tensorrt", "FP16")
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
        ("net.onnx --repository new --tensorrt-precision FP16", "is for TensorRT; give --tensorrt too"),
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
