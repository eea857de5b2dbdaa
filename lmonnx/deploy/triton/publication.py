"""How a model that is complete comes to its place in a repository, and what it never replaces there."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lmonnx.deploy.triton.configuration import MODEL, Configuration
from lmonnx.errors import LmonnxError, PublishError
from lmonnx.runtime.description import describe

#: The folder in the temporary one that what is replaced is put aside in.
_EARLIER = "earlier"


def require_free(target: Path, version: int, configuration: Configuration, overwrite: bool) -> list[str]:
    """Refuses what would replace something unasked, or change what another version is served with.

    Args:
        target: the model's folder, which need not exist.
        version: to be written.
        configuration: of that version.
        overwrite: whether it is asked for that the version and the files that versions share are replaced.

    Returns:
        Names of the files that versions share which have to be written, replaced or removed.

    Raises:
        PublishError: if it would.
    """
    if target.exists() and not target.is_dir():
        raise PublishError(f"{target}: is a file; choose another name for the model")
    if not overwrite and (target / str(version)).exists():
        raise PublishError(f"{target}: version {version} exists; choose another version, or overwrite it")
    changes = []
    for file, text in configuration.files().items():
        there = _read(target / file)
        if there == text or (text is None and not overwrite):
            continue
        if there is not None and not overwrite:
            raise PublishError(
                f"{target / file}: is not what this version needs, and all versions share it; choose another name for "
                "the model, or overwrite it"
            )
        changes.append(file)
    for other in _others(target, version) if changes else ():
        if not _fits(other, configuration):
            raise PublishError(
                f"{other}: does not fit the configuration of version {version}, and all versions share it; choose "
                "another name for the model, or remove that version"
            )
    return changes


def _others(target: Path, version: int) -> list[Path]:
    """The folders of the other versions that Triton sees."""
    names = [folder.name for folder in target.glob("[1-9]*") if folder.is_dir()]
    numbers = sorted(int(name) for name in names if name.isascii() and name.isdecimal())
    return [target / str(number) for number in numbers if number != version]


def _fits(other: Path, configuration: Configuration) -> bool:
    """Whether the version in a folder, as far as it can be read, is served as well with that configuration."""
    try:
        theirs = Configuration(configuration.name, describe(other / MODEL), configuration.settings)
    except LmonnxError:
        return False
    return theirs.fits(configuration)


@contextlib.contextmanager
def staging(target: Path) -> Iterator[Path]:
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


def publish(temporary: Path, target: Path, version: int, configuration: Configuration, overwrite: bool) -> None:
    """Moves a model of one version to its place: as a whole, or into the folder of its other versions.

    There the version that is replaced goes first and the new one comes last, so that no version ever stands under a
    configuration that is not its own; and what was there is put back if a move fails or is interrupted. What another
    run wrote meanwhile is refused as if it had been there before.

    Raises:
        PublishError: see :func:`require_free`.
    """
    made, earlier, number = temporary / target.name, temporary / _EARLIER, str(version)
    if not target.exists() and _moved(made, target):
        return
    changes = require_free(target, version, configuration, overwrite)
    earlier.mkdir()
    moved: list[str] = []
    try:
        if overwrite and (target / number).exists():
            os.rename(target / number, earlier / number)
        for name in changes:
            if (target / name).exists():
                shutil.copy2(target / name, earlier / name)
        for name in changes:
            if (made / name).exists():
                moved.append(name)
                os.replace(made / name, target / name)
            else:
                os.remove(target / name)
        moved.append(number)
        if not _moved(made / number, target / number):
            raise PublishError(f"{target}: version {version} was written by another run meanwhile; run this again")
    except BaseException as error:  # a Ctrl-C too
        _put_back(made, earlier, target, moved)
        if any(earlier.iterdir()):
            raise PublishError(f"{target}: {error}; what was there and cannot be put back is in {earlier}") from error
        raise
    shutil.rmtree(earlier, ignore_errors=True)


def _moved(folder: Path, place: Path) -> bool:
    """Moves a folder to where none is that holds anything; False if one is there."""
    try:
        os.rename(folder, place)
    except OSError:
        if place.exists():
            return False
        raise
    return True


def _put_back(made: Path, earlier: Path, target: Path, moved: list[str]) -> None:
    """Undoes a publication that stopped half-way, as far as the file system lets it."""
    for name in reversed(moved):
        if not (made / name).exists():
            with contextlib.suppress(OSError):
                os.replace(target / name, made / name)
    for there in earlier.iterdir():
        with contextlib.suppress(OSError):  # it stays where it is, see `staging`
            os.replace(there, target / there.name)


def _read(path: Path) -> bytes | None:
    """The content of a file; None if there is none.

    Raises:
        PublishError: if it cannot be read.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise PublishError(
            f"{path}: cannot be read: {error.strerror}; remove it, or choose another name for the model"
        ) from error
