"""A network of one's own by the name of what makes it: ``package.module:factory``."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import torch

from lmonnx.errors import OptionError, SourceError, WeightsError
from lmonnx.exporters.sources.checkpoint import close, fill, is_pretrained
from lmonnx.exporters.sources.module import from_module, unwrapped
from lmonnx.exporters.sources.network import Network
from lmonnx.exporters.sources.torchvision import import_torchvision
from lmonnx.runtime.preprocessing import DEFAULT_SIZE


def from_factory(
    source: str,
    weights: str = "default",
    size: tuple[int, int] | None = None,
    classes: int | None = None,
    dynamic: bool = False,
) -> Network:
    """A module that a Python object makes, or is. Modules in the current folder are found, as by ``python -m``.

    Args:
        source: ``"package.module:factory"``: a function or a class that is called without arguments and gives a
            ``torch.nn.Module``, or such a module itself. It is put in evaluation mode.
        weights: ``"default"`` for those that the factory gives it, ``"seed:N"`` for random weights from the seed N, or
            a file, see :mod:`lmonnx.exporters.sources.checkpoint`.
        size: height and width in pixels; 224 × 224 if not given.
        classes: number of classes, which the factory is called with as ``num_classes``.
        dynamic: take images of any size; ``size`` is then that of the proof and of photographs.

    Raises:
        SourceError: if there is no such module or object, or it fails, or gives something else.
        WeightsError: if the file cannot be read, or holds the weights of another network.
        OptionError: if classes are asked of what is not called.
    """
    if is_pretrained(weights) and weights != "default":
        raise WeightsError(f"{source} has no weights {weights!r}; choose one of default, seed:N, a file (.pth, …)")
    with contextlib.suppress(ImportError):  # a module that imports torchvision finds it, also where it needs help
        import_torchvision()
    with _current_folder_importable():
        module = _made(source, _found(source), classes).eval()
    origin = {"weights": weights} if weights == "default" else fill(module, weights, size or DEFAULT_SIZE)
    return from_module(module, size=size, dynamic=dynamic, origin={"kind": "factory", "name": source, **origin})


def _found(source: str) -> Any:
    """The object of the name."""
    name, _, path = source.partition(":")
    if name.endswith(".py"):
        raise SourceError(f"{source}: a module is named without .py; write {name.removesuffix('.py')}:{path}")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise SourceError(
                f"{source}: there is no module {error.name!r}, neither installed nor in {os.getcwd()}; "
                "go to the folder that it is in, or install it"
            ) from error
        raise SourceError(f"{source}: importing {name} needs the module {error.name!r}; install it") from error
    except (Exception, SystemExit) as error:
        raise SourceError(f"{source}: importing {name} fails: {_line(error)}") from error
    try:
        return functools.reduce(getattr, path.split("."), module)
    except AttributeError as error:
        near = close(path, [known for known in vars(module) if not known.startswith("_")])
        hint = f"; did you mean {near}?" if near else "; name a function, a class or a module in it"
        raise SourceError(f"{source}: {module.__name__} has no {path!r}{hint}") from error


def _made(source: str, found: Any, classes: int | None) -> torch.nn.Module:
    """The module that ``found`` is, or makes."""
    if isinstance(found, torch.nn.Module):
        if classes is not None:
            raise OptionError(f"{source} is a network already, and {classes} classes are asked for; name its class")
        return unwrapped(found)
    if not callable(found):
        raise SourceError(f"{source} is a {type(found).__name__}, neither a torch.nn.Module nor something to call")
    asked = {} if classes is None else {"num_classes": classes}
    try:
        made = found(**asked)
    except (Exception, SystemExit) as error:
        call = f"num_classes={classes}" if asked else "no arguments"
        raise SourceError(f"{source}, called with {call}, fails: {_line(error)}") from error
    if not isinstance(made, torch.nn.Module):
        raise SourceError(f"{source} gives a {type(made).__name__}; it has to give a torch.nn.Module")
    return unwrapped(made)


def _line(error: BaseException) -> str:
    """An error in one line, with the place it comes from."""
    text = " ".join(str(error).split())
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {text}"  # which says where
    _, *frames = traceback.extract_tb(error.__traceback__)  # the first is of this module
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{place}"


@contextlib.contextmanager
def _current_folder_importable() -> Iterator[None]:
    """The folder's modules can be imported, by the factory too."""
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
