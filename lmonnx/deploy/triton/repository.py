"""A folder of a model in Triton's model repository, there whole or not at all.

::

    DIR/<name>/config.pbtxt          how the model is served, all of its versions
    DIR/<name>/labels.txt            names of the classes, one a line
    DIR/<name>/<version>/model.onnx  the graph
    DIR/<name>/<version>/<data>      its weights, if it stores them in a file beside it, under the name it stores
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from lmonnx.deploy.triton.configuration import MODEL, Configuration
from lmonnx.deploy.triton.publication import publish, require_free, staging
from lmonnx.deploy.triton.settings import Settings
from lmonnx.errors import ModelError, OptionError, PublishError
from lmonnx.runtime.description import Description, describe

#: A name that stands in the path of a URL, and is no hidden folder.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
#: Triton counts versions in 64 bits, and ignores those that begin with 0.
_LAST_VERSION = (1 << 63) - 1


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

    Everything is made in a hidden folder, loaded there, and moved when it is complete: a new model as a whole, a new
    version behind the configuration. Triton serves no model without the folder of a version, so one that polls the
    repository never serves half of one. The hidden folder is beside the repository; where that is another file system
    or may not be written, it is in the repository, and a Triton that polls may try to load it for a model.

    Args:
        model: a file that ``lmonnx export`` wrote; weights in a file beside it come along.
        repository: the folder that Triton is started with, made if it does not exist.
        name: of the model; the file's name without ``.onnx`` if None.
        version: of the model, 1 … 2⁶³ − 1. Of several Triton serves the highest.
        overwrite: replace the version if it exists, and configuration and labels, which all versions share, if they
            are others and all other versions have the same.
        settings: batching, instances, TensorRT; the defaults if None.

    Returns:
        The model's folder.

    Raises:
        ModelError: if there is no such file, it is not a graph exported by lmonnx, it needs a file that its metadata
            does not name, or it was replaced while it was being copied.
        OptionError: if the name, the version or the repository is none, or the settings do not fit the graph.
        PublishError: if the version exists, configuration or labels differ from those there or are not those of another
            version, or they cannot be written; what was there before is there again.
    """
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= _LAST_VERSION:
        raise OptionError(f"version={version!r} is not a version of Triton, a whole number, 1 … {_LAST_VERSION}")
    folder = _required_folder(repository)
    graph = describe(model)
    chosen = _required_name(Path(graph.path).stem if name is None else name)
    configuration = Configuration(chosen, graph, settings or Settings())
    sources = _sources(graph)
    before = _states(sources.values())
    target = folder / chosen
    try:
        require_free(target, version, configuration, overwrite)
        with staging(target) as temporary:
            _make(temporary / chosen, sources, version, configuration)
            if _states(sources.values()) != before:
                raise ModelError(f"{graph.path}: was replaced while it was being copied; run this again")
            _require_whole(temporary / chosen / str(version) / MODEL, graph)
            publish(temporary, target, version, configuration, overwrite)
    except OSError as error:
        raise PublishError(f"cannot write {target}: {error.strerror}; choose another repository") from error
    return target


def _required_folder(repository: str | os.PathLike[str]) -> Path:
    path = os.fspath(repository)
    try:
        known = os.fsencode(path)
    except UnicodeEncodeError:
        known = b""
    if not known or b"\0" in known:
        raise OptionError(f"repository={path!r} is no path; name the folder that Triton is started with")
    return Path(path)


def _required_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise OptionError(
            f"name={name!r} does not fit a URL; name the model with up to 128 letters, digits, dots, hyphens and "
            "underscores, the first a letter or a digit"
        )
    return name


def _sources(graph: Description) -> dict[str, Path]:
    """The files of a graph, by the names that they have in the folder of a version."""
    path, data = Path(graph.path), graph.contract.data
    if data is None:
        return {MODEL: path}
    if data in ("", "..", MODEL) or Path(data).name != data or not data.isprintable():
        raise ModelError(
            f"{path}: stores its weights in {data!r}, which cannot stand beside {MODEL}; export the network again"
        )
    return {MODEL: path, data: path.with_name(data)}


def _states(files: Iterable[Path]) -> list[tuple[int, int, int]]:
    """What changes of each file when it is replaced."""
    found = []
    for file in files:
        try:
            with file.open("rb") as opened:
                state = os.fstat(opened.fileno())
        except OSError as error:
            raise ModelError(
                f"{file}: cannot be read: {error.strerror}; make it readable, or export the network again"
            ) from error
        found.append((state.st_ino, state.st_size, state.st_mtime_ns))
    return found


def _make(folder: Path, sources: Mapping[str, Path], version: int, configuration: Configuration) -> None:
    """All files of a model of one version."""
    files = folder / str(version)
    files.mkdir(parents=True)
    for name, text in configuration.files().items():
        if text is not None:
            (folder / name).write_bytes(text)
    for name, source in sources.items():
        shutil.copyfile(source, files / name)


def _require_whole(copy: Path, graph: Description) -> None:
    """Refuses a copy that is not what was described, or does not load where nothing else is."""
    try:
        found = describe(copy)
    except ModelError as error:
        raise ModelError(
            f"{graph.path}: cannot be loaded from its copy, so it needs a file that its metadata does not name; "
            "export the network again"
        ) from error
    if replace(found, path=graph.path) != graph:
        raise ModelError(f"{graph.path}: was replaced while it was being read; run this again")
