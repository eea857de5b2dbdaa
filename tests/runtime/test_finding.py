"""What paths, folders and patterns mean."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lmonnx.errors import ImageError
from lmonnx.runtime.finding import find, is_many, listed

FILES = ("b.jpg", "a.PNG", "notes.txt", ".hidden.png", "inner/c.webp", "inner/deep/d.jpeg", ".cache/e.jpg", "x[1].jpg")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in FILES:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


ALL = ("a.PNG", "b.jpg", "inner/c.webp", "inner/deep/d.jpeg", "x[1].jpg")


@pytest.mark.parametrize(
    ("where", "root", "names"),
    [
        (["photos"], "photos", ALL),
        (["photos/"], "photos", ALL),
        (["photos/*.jpg"], "photos", ("b.jpg", "x[1].jpg")),
        (["photos/**/*.jpeg"], "photos", ("inner/deep/d.jpeg",)),
        (["photos/inne?"], "photos", ("inner/c.webp", "inner/deep/d.jpeg")),
        (["photos/x[1].jpg"], "photos", ("x[1].jpg",)),
        (["photos/notes.txt"], "photos", ("notes.txt",)),
        (["photos/missing.jpg"], "photos", ("missing.jpg",)),
        (["photos/b.jpg", "photos/inner"], "photos", ("b.jpg", "inner/c.webp", "inner/deep/d.jpeg")),
        (["photos", "photos/b.jpg"], "photos", ALL),
    ],
)
def test_photographs_below_one_folder(folder: Path, where: list[str], root: str, names: tuple[str, ...]) -> None:
    found = find(where)
    assert (found.root, found.names) == (folder.parent / root, names)
    assert all(os.path.isabs(found.root / name) for name in names)


def test_pictures_of_explanations_are_left_out(folder: Path) -> None:
    explained = folder / "inner" / "out" / "a.PNG"
    explained.mkdir(parents=True)
    for name in ("explanation.json", "segments.png", "overlay.png"):
        (explained / name).touch()
    for where in (["photos"], ["photos/**/*"], ["photos/*"]):
        names = find(where).names
        assert not any("out" in name for name in names), where
    assert find([explained / "overlay.png"]).names == ("overlay.png",)


def test_a_file_that_several_links_lead_to_is_taken_once(folder: Path) -> None:
    (folder / "inner" / "loop").symlink_to(folder)
    (folder / "again.jpg").symlink_to(folder / "b.jpg")
    (folder / "linked").symlink_to(folder.parent / "elsewhere")
    (folder.parent / "elsewhere").mkdir()
    (folder.parent / "elsewhere" / "e.jpg").touch()
    for where in (["photos"], ["photos/**/*.*"], ["photos", "photos/inner/loop/b.jpg"]):
        names = [name for name in find(where).names if not name.endswith(".txt")]
        assert sorted(names) == sorted((*ALL, "linked/e.jpg")), where


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_pipes_are_left_out(folder: Path) -> None:
    os.mkfifo(folder / "pipe.jpg")
    assert find(["photos"]).names == ALL


@pytest.mark.parametrize("where", [["photos/*.tif"], ["photos/.cache/nothing*"]])
def test_nothing_found(folder: Path, where: list[str]) -> None:
    with pytest.raises(ImageError, match="there is no photograph in "):
        find(where)
    with pytest.raises(ImageError, match="there is no photograph in "):
        listed(where)


def test_paths_stay_as_they_were_typed(folder: Path) -> None:
    assert listed(["photos/b.jpg", "missing.jpg"]) == ["photos/b.jpg", "missing.jpg"]
    assert listed(["photos"]) == [os.path.join("photos", name) for name in ALL]
    assert listed(["photos/*.PNG", "photos/b.jpg"]) == [str(folder / "a.PNG"), "photos/b.jpg"]
    many = {"photos": True, "photos/*.jpg": True, "photos/x[1].jpg": False, "missing.jpg": False}
    assert {name: is_many([name]) for name in many} == many
    assert is_many(["photos/b.jpg", "photos/a.PNG"])
