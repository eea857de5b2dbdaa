"""A folder of a model in Triton's model repository, there whole or not at all.

::

    DIR/<name>/config.pbtxt          how the model is served, all of its versions
    DIR/<name>/labels.txt            names of the classes, one a line
    DIR/<name>/<version>/model.onnx  the graph
    DIR/<name>/<version>/<data>      its weights, if it stores them in a file beside it, under the name it stores
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lmonnx.deploy.triton.configuration import LABELS, Configuration
from lmonnx.deploy.triton.settings import Settings
from lmonnx.errors import ModelError, OptionError, PublishError
from lmonnx.runtime.description import Description, describe

CONFIG = "config.pbtxt"
MODEL = "model.onnx"
"""The file that the onnxruntime backend looks for in the folder of a version."""

#: A name that stands in the path of a URL, and is no hidden folder.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
#: Triton counts versions in 64 bits, and ignores those that begin with 0.
_LAST_VERSION = (1 << 63) - 1
#: The folder in the temporary one that what is replaced is put aside in.
_EARLIER = "earlier"


def write(
    model: str | os.PathLike[str],
    repository: str | os.PathLike[str],
    *,
    name: str | None = None,
    version: int = 1,
    overwrite: bool = False,
    settings: Settings | None = None,
) -> Path:
    """Writes a model repository of Triton, or adds a model or a version to one.

    Everything is made in a folder beside the repository and moved when it is complete: a new model as a whole, a new
    version behind the configuration. Triton serves no model without the folder of a version, so one that polls the
    repository never meets half of one.

    Args:
        model: a file that ``lmonnx export`` wrote; weights in a file beside it come along.
        repository: the folder that Triton is started with, made if it does not exist.
        name: of the model; the file's name without ``.onnx`` if None.
        version: of the model, from 1 on. Of several Triton serves the highest.
        overwrite: replace the version if it exists, and configuration and labels, which all versions share, if they
            are others.
        settings: batching, instances, TensorRT; the defaults if None.

    Returns:
        The model's folder.

    Raises:
        ModelError: if there is no such file, or it is not a graph exported by lmonnx.
        OptionError: if the name or the version is none, or the settings do not fit the graph.
        PublishError: if the version exists, configuration or labels differ from those there, or they cannot be written;
            what was there before is there again.
    """
    source = Path(model)
    chosen = _required_name(source.stem if name is None else name)
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= _LAST_VERSION:
        raise OptionError(f"version={version!r} is not a version of Triton, a whole number from 1 on")
    before = _state_of(source)
    graph = describe(source)
    texts = {CONFIG: str(Configuration(chosen, graph, settings or Settings()))}
    if graph.contract.labels:
        texts[LABELS] = "".join(f"{' '.join(label.split())}\n" for label in graph.contract.labels)
    target = Path(repository) / chosen
    _require_free(target, version, texts, overwrite)
    try:
        with _staging(target) as staging:
            _make(staging / chosen, graph, version, texts)
            if _state_of(source) != before:
                raise ModelError(f"{source}: was replaced while it was being copied; run this again")
            _publish(staging, target, version)
    except OSError as error:
        raise PublishError(f"cannot write {target}: {error.strerror}; choose another repository") from error
    return target


def _required_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise OptionError(
            f"name={name!r} does not fit a URL; name the model with up to 128 letters, digits, dots, hyphens and "
            "underscores, the first a letter or a digit"
        )
    return name


def _require_free(target: Path, version: int, texts: dict[str, str], overwrite: bool) -> None:
    """Refuses what would replace something, unless that is asked for."""
    if target.exists() and not target.is_dir():
        raise PublishError(f"{target}: is a file; choose another name for the model")
    if overwrite:
        return
    if (target / str(version)).exists():
        raise PublishError(f"{target}: version {version} exists; choose another version, or overwrite it")
    for file, text in texts.items():
        if (target / file).exists() and _read(target / file) != text:
            raise PublishError(
                f"{target / file}: is not what this version needs, and all versions share it; choose another name for "
                "the model, or overwrite it"
            )


@contextlib.contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A folder on the repository's file system, beside it if that can be, since Triton takes what is in it for models.

    It vanishes, and with it the repository if that was made here and is empty, unless something in it could not be put
    back.
    """
    repository = target.parent.absolute()
    made = [folder for folder in (repository, *repository.parents) if not folder.exists()]
    folder = None
    try:
        repository.mkdir(parents=True, exist_ok=True)
        folder = _temporary(repository)
        yield folder
    finally:
        if folder is not None and not any((folder / _EARLIER).glob("*")):
            shutil.rmtree(folder, ignore_errors=True)
        for each in made:
            with contextlib.suppress(OSError):  # it holds something
                each.rmdir()


def _temporary(repository: Path) -> Path:
    prefix = f".{repository.name}-"
    if repository.parent.stat().st_dev == repository.stat().st_dev:
        with contextlib.suppress(OSError):  # the folder above may be somebody else's
            return Path(tempfile.mkdtemp(prefix=prefix, dir=repository.parent))
    return Path(tempfile.mkdtemp(prefix=prefix, dir=repository))


def _make(folder: Path, graph: Description, version: int, texts: dict[str, str]) -> None:
    """All files of a model of one version."""
    files = folder / str(version)
    files.mkdir(parents=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    data = graph.contract.data
    if data is not None:
        if Path(data).name != data or data == MODEL:
            raise ModelError(f"{graph.path}: stores its weights in {data!r}, which is not a file beside it")
        shutil.copyfile(Path(graph.path).with_name(data), files / data)
    shutil.copyfile(graph.path, files / MODEL)


def _publish(staging: Path, target: Path, version: int) -> None:
    """Moves a model of one version to its place: as a whole, or into the folder of its other versions.

    There the version that is replaced goes first and the new one comes last, so that no version ever stands under a
    configuration that is not its own; and what was there is put back if a move fails or is interrupted.
    """
    made, earlier, number = staging / target.name, staging / _EARLIER, str(version)
    if not target.exists():
        os.rename(made, target)
        return
    earlier.mkdir()
    texts = [file.name for file in made.iterdir() if file.is_file() and _read(file) != _read(target / file.name)]
    moved: list[str] = []
    try:
        if (target / number).exists():
            os.rename(target / number, earlier / number)
        for name in texts:
            if (target / name).exists():
                shutil.copy2(target / name, earlier / name)
        for name in (*texts, number):
            moved.append(name)
            os.replace(made / name, target / name)
    except BaseException:  # a Ctrl-C too
        _put_back(made, earlier, target, moved)
        raise
    shutil.rmtree(earlier, ignore_errors=True)


def _put_back(made: Path, earlier: Path, target: Path, moved: list[str]) -> None:
    """Undoes a publication that stopped half-way."""
    for name in reversed(moved):
        if not (made / name).exists():
            os.replace(target / name, made / name)
    for there in earlier.iterdir():
        os.replace(there, target / there.name)


def _read(path: Path) -> str | None:
    """The text of a file; None if there is none."""
    try:
        return path.read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return None


def _state_of(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is replaced; None if there is none."""
    with contextlib.suppress(OSError):
        state = path.stat()
        return state.st_ino, state.st_size, state.st_mtime_ns
    return None
