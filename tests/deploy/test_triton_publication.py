"""What a repository holds already, and that nothing half and nothing that does not fit is ever there."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmonnx.deploy.triton import Settings, publication, repository, write
from lmonnx.errors import ModelError, PublishError
from tests.deploy.conftest import GraphFile, content
from tests.deploy.triton import parsed


def test_a_version_is_added_and_none_is_overwritten(
    graph_file: GraphFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models"
    folder = write(graph_file(), models)
    before = content(folder)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", None)  # it is refused before anything is copied
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
    write(graph_file(seed=1), models, version=2, settings=eight, overwrite=True)
    assert parsed(folder).max_batch_size == 8
    assert (folder / "1" / "model.onnx").read_bytes() == before["1/model.onnx"]


@pytest.mark.parametrize(
    "changes",
    [{"batch": 4}, {"size": (9, 7)}, {"image": "uint8"}, {"labels": ("a", "b", "c")}, {"labels": None}],
)
def test_other_versions_keep_a_configuration_that_fits(
    changes: dict[str, Any], graph_file: GraphFile, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    folder = write(graph_file(), models, version=9)
    write(graph_file(seed=1), models, version=10)
    before = content(tmp_path / "models")
    other = graph_file("other.onnx", **changes)
    for version, misfit in ((10, 9), (9, 10), (11, 9)):
        refused = rf"net/{misfit}: does not fit the configuration of version {version}, and all .* remove that version"
        with pytest.raises(PublishError, match=refused):
            write(other, models, name="net", version=version, overwrite=True)
        assert content(models) == before
    shutil.rmtree(folder / "9")
    write(other, models, name="net", version=10, overwrite=True)
    assert (folder / "10" / "model.onnx").read_bytes() == other.read_bytes()


@pytest.mark.parametrize("name", ["3", "03", "notes", "4.old", "4²", "4٣"])
def test_other_versions_that_cannot_be_read(name: str, graph_file: GraphFile, tmp_path: Path) -> None:
    folder = write(graph_file(), tmp_path / "models")
    (folder / name).mkdir()
    (folder / name / "model.onnx").write_text("not ours")
    write(graph_file(seed=1), tmp_path / "models", overwrite=True)  # with the same configuration
    if name != "3":  # Triton takes none of them for a version
        write(graph_file(batch=2), tmp_path / "models", overwrite=True)
        return
    with pytest.raises(PublishError, match=r"net/3: does not fit the configuration of version 1"):
        write(graph_file(batch=2), tmp_path / "models", overwrite=True)


def test_labels_of_a_model_without_any_go(graph_file: GraphFile, tmp_path: Path) -> None:
    models = tmp_path / "models"
    write(graph_file(), models)
    folder = write(graph_file(labels=None), models, overwrite=True)
    assert set(content(models)) == {"net/config.pbtxt", "net/1/model.onnx"}
    (folder / "labels.txt").write_text("of somebody else\n")
    write(graph_file(labels=None), models, version=2)
    assert (folder / "labels.txt").exists()


def another_run(monkeypatch: pytest.MonkeyPatch, name: str, run: Callable[[], Any]) -> None:
    """Lets ``run`` write once, when ``write`` begins to ``name``: the copies are made, and nothing is published."""
    real = getattr(repository, name)

    def step(*arguments: Any) -> Any:
        monkeypatch.setattr(repository, name, real)
        run()
        return real(*arguments)

    monkeypatch.setattr(repository, name, step)


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize(
    ("theirs", "refused"),
    [
        ({"version": 2}, r"net: version 2 exists; choose another version, or overwrite it"),
        ({"version": 3, "settings": Settings(max_batch_size=8)}, r"config\.pbtxt: is not what this version needs"),
        ({"version": 3}, None),
    ],
)
def test_what_another_run_writes_meanwhile_stays(
    there: bool,
    theirs: dict[str, Any],
    refused: str | None,
    graph_file: GraphFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models, model = tmp_path / "models", graph_file("other.onnx", seed=1)
    if there:
        write(graph_file(), models)
    written: dict[str, bytes] = {}

    def run() -> None:
        write(graph_file(), models, overwrite=True, **theirs)
        written.update(content(models))

    another_run(monkeypatch, "publish", run)
    if refused:
        with pytest.raises(PublishError, match=refused):
            write(model, models, name="net", version=2)
        assert content(models) == written
    else:
        write(model, models, name="net", version=2)
        assert content(models) == {**written, "net/2/model.onnx": model.read_bytes()}
    assert [path.name for path in models.iterdir()] == ["net"]
    assert not list(tmp_path.glob(".models-*"))


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_another_run_writes_at_the_last_moment_stays(
    overwrite: bool, graph_file: GraphFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, theirs = tmp_path / "models", tmp_path / "models" / "net" / "2" / "theirs"
    write(graph_file(), models)
    real, calls = publication.require_free, []

    def require(*arguments: Any) -> list[str]:
        changes = real(*arguments)
        calls.append(theirs.parent.mkdir())
        theirs.touch()
        return changes

    monkeypatch.setattr(publication, "require_free", require)
    rename = os.rename

    def move(source: Path, place: Path) -> None:
        rename(source, place)
        if place.parent.name == "earlier":  # what is replaced is aside, and the other run comes again
            theirs.parent.mkdir()
            theirs.touch()

    monkeypatch.setattr(os, "rename", move)
    with pytest.raises(PublishError, match=r"version 2 was written by another run meanwhile") as caught:
        write(graph_file(seed=1), models, version=2, overwrite=overwrite)
    assert calls
    assert [path.name for path in theirs.parent.iterdir()] == ["theirs"]
    if overwrite:
        assert "what was there and cannot be put back is in" in str(caught.value)
    assert bool(list(tmp_path.glob(".models-*/earlier/2/theirs"))) == overwrite


def test_a_model_that_another_run_makes_at_the_last_moment_gets_a_version(
    graph_file: GraphFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rename = graph_file(), os.rename

    def move(source: Path, place: Path) -> None:
        monkeypatch.setattr(os, "rename", rename)
        assert write(model, place.parent) == place
        rename(source, place)

    monkeypatch.setattr(os, "rename", move)
    folder = write(model, tmp_path / "models", version=2)
    assert set(content(folder)) == {"config.pbtxt", "labels.txt", "1/model.onnx", "2/model.onnx"}


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
    failed = set()

    def failing(real: Callable[..., Any], last: int) -> Callable[..., Any]:
        def move(*paths: Any, **options: Any) -> Any:
            if next(moves) == last:
                failed.add(Path(paths[-1]).name)
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
    whole = {"model.onnx", "net.onnx.data"}
    assert failed == whole | ({"1", "config.pbtxt", "labels.txt"} if there else {"net"})
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
    with pytest.raises(
        PublishError, match=r"Input/output error; what was there and cannot be put back is in \S*earlier"
    ):
        write(graph_file(batch=2), models, overwrite=True)
    (kept,) = tmp_path.glob(".models-*/earlier/1/model.onnx")
    assert kept.read_bytes() == before


def test_a_repository_whose_parent_is_not_ours(
    graph_file: GraphFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, models = tempfile.mkdtemp, tmp_path / "models"

    def mkdtemp(prefix: str, dir: Path) -> str:  # noqa: A002
        if dir == tmp_path:
            raise PermissionError(13, "Permission denied")
        return real(prefix=prefix, dir=dir)

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    write(graph_file(), models)
    assert [path.name for path in models.iterdir()] == ["net"]


@pytest.mark.parametrize("replaced", ["net.onnx", "net.onnx.data"])
def test_a_file_that_is_replaced_meanwhile(
    replaced: str, graph_file: GraphFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, real = graph_file(data="net.onnx.data"), shutil.copyfile

    def copyfile(source: Path, copy: Path) -> None:
        real(source, copy)
        if source.name == replaced:
            source.write_bytes(source.read_bytes()[::-1])

    monkeypatch.setattr(shutil, "copyfile", copyfile)
    with pytest.raises(ModelError, match=r"net\.onnx: was replaced while it was being copied"):
        write(model, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_file_that_is_replaced_before_it_is_copied(
    graph_file: GraphFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    another_run(monkeypatch, "_sources", lambda: graph_file(batch=2))
    with pytest.raises(ModelError, match=r"net\.onnx: was replaced while it was being read"):
        write(graph_file(), tmp_path / "models")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("file", ["config.pbtxt", "labels.txt"])
def test_a_shared_file_that_cannot_be_read(file: str, overwrite: bool, graph_file: GraphFile, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "net"
    (folder / file).mkdir(parents=True)
    with pytest.raises(PublishError, match=rf"{file}: cannot be read: Is a directory; remove it, or choose another na"):
        write(graph_file(), tmp_path / "models", overwrite=overwrite)
    assert [path.name for path in folder.iterdir()] == [file]
