"""The photographs that paths, folders and patterns mean."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

from lmonnx.errors import ImageError


@dataclass(frozen=True)
class Found:
    """Photographs.

    Attributes:
        root: the folder that all of them are below, absolute.
        names: of each the path below ``root``, with forward slashes, sorted, each once.
    """

    root: Path
    names: tuple[str, ...]


def find(where: Sequence[str | os.PathLike[str]]) -> Found:
    """The photographs that ``where`` means.

    A folder means all files in it, at any depth, whose names end as those of pictures do; hidden ones are left out, and
    so are the pictures of explanations. A path that does not exist and holds ``*``, ``?`` or ``[`` is a pattern, in
    which ``**`` means folders of any depth. Links are followed, and a file that several lead to is taken once. Any
    other path means itself, so that a missing file is told when its turn comes.

    Raises:
        ImageError: if there are none.
    """
    groups = [_group(os.fspath(path)) for path in where]
    files = [file for _, some in groups for file in some]
    if not files:
        raise ImageError(f"there is no photograph in {', '.join(os.fspath(path) for path in where)}")
    root = Path(os.path.commonpath([folder for folder, _ in groups]))
    once = {os.path.realpath(file): file for file in sorted(files, key=len, reverse=True)}
    return Found(root, tuple(sorted(Path(os.path.relpath(file, root)).as_posix() for file in once.values())))


def listed(where: Sequence[str | os.PathLike[str]]) -> list[str]:
    """The paths of the photographs that ``where`` means, in its order; see :func:`find`.

    Raises:
        ImageError: if a folder or a pattern means none.
    """
    named: list[str] = []
    for path in where:
        if is_many([path]):
            found = find([path])
            named += [os.path.join(path if os.path.isdir(path) else found.root, name) for name in found.names]
        else:
            named.append(os.fspath(path))
    return named


def is_many(where: Sequence[str | os.PathLike[str]]) -> bool:
    """Whether ``where`` means other than one photograph by its path."""
    return len(where) != 1 or os.path.isdir(where[0]) or _is_pattern(os.fspath(where[0]))


def _group(path: str) -> tuple[str, list[str]]:
    """The folder that files are named below, and the files, all absolute."""
    if os.path.isdir(path):
        return os.path.abspath(path), [*_below(os.path.abspath(path))]
    if _is_pattern(path):
        fixed = path[: next(i for i, letter in enumerate(path) if letter in "*?[")]
        matches = glob.glob(path, recursive=True)
        inside = (file for match in matches for file in (_below(match) if os.path.isdir(match) else [match])
                  if os.path.isdir(match) or not _is_explanation(os.path.dirname(match)))  # fmt: skip
        return os.path.abspath(os.path.dirname(fixed)), [os.path.abspath(file) for file in inside]
    return os.path.dirname(os.path.abspath(path)), [os.path.abspath(path)]


def _is_pattern(path: str) -> bool:
    return glob.has_magic(path) and not os.path.lexists(path)


def _below(folder: str) -> Iterator[str]:
    seen = set[str]()
    for parent, folders, files in os.walk(folder, followlinks=True):
        where = os.path.realpath(parent)
        if where in seen or _is_explanation(parent):
            folders.clear()
            continue
        seen.add(where)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            path = os.path.join(parent, name)
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in _endings() and os.path.isfile(path):
                yield path


def _is_explanation(folder: str) -> bool:
    """Whether a folder holds an explanation, whose pictures are no photographs."""
    return all(os.path.exists(os.path.join(folder, name)) for name in ("explanation.json", "segments.png"))


@cache
def _endings() -> frozenset[str]:
    """Those of the formats that Pillow reads."""
    Image.init()
    return frozenset(ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN)
