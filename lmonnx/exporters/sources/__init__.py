"""Where a network comes from: a name (bundled, torchvision's, timm's, a factory's), a PyTorch module, an ONNX file."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lmonnx.errors import OptionError, SourceError, WeightsError
from lmonnx.exporters.graphs import weights_with
from lmonnx.exporters.sources import scenes, timm, torchvision
from lmonnx.exporters.sources.checkpoint import close, is_file, is_pretrained, some
from lmonnx.exporters.sources.described import Said, described
from lmonnx.exporters.sources.factory import from_factory
from lmonnx.exporters.sources.module import from_module
from lmonnx.exporters.sources.network import Network
from lmonnx.exporters.sources.onnx_file import from_onnx
from lmonnx.runtime.preprocessing import DEFAULT_SIZE, Preprocessing

__all__ = ["Network", "resolve"]


@dataclass(frozen=True)
class Kind:
    """One kind of name.

    Attributes:
        means: whether a name is of this kind.
        build: (name, weights, size, classes, dynamic) -> the network.
        complete: whether published weights always come with preprocessing and class names.
    """

    means: Callable[[str], object]
    build: Callable[[str, str, tuple[int, int] | None, int | None, bool], Network]
    complete: bool = False


FACTORY = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*")
#: A name is of the first of these kinds that it can be.
KINDS = (
    Kind(lambda name: name.startswith(timm.PREFIX), timm.from_timm),
    Kind(FACTORY.fullmatch, from_factory),
    Kind(lambda name: name in scenes.NAMES, scenes.from_scenes, complete=True),
    Kind(lambda name: name in torchvision.names(), torchvision.from_torchvision, complete=True),
)


def resolve(
    source: str | os.PathLike[str] | torch.nn.Module,
    *,
    weights: str | os.PathLike[str] = "default",
    classes: int | None = None,
    size: tuple[int, int] | None = None,
    dynamic: bool = False,
    preprocessing: Said | None = None,
    labels: tuple[str, ...] | None = None,
    image_input: str | None = None,
) -> Network:
    """The network that ``source`` names.

    Args:
        source: a module in evaluation mode, a path that ends in ``.onnx``, a bundled network such as
            ``"scenes-material"``, a name of torchvision's, ``"timm:NAME"`` or ``"package.module:factory"``.
        weights: for names: ``"default"``, ``"seed:N"``, a file, or what else :func:`from_torchvision`,
            :func:`from_timm`, :func:`from_scenes` and :func:`from_factory` of the modules here take.
        classes: for names, with a seed or a file: the number of classes.
        size: height and width in pixels.
        dynamic: take images of any size; ``size`` is then that of the proof and of photographs.
        preprocessing: for sources that do not say, such as modules, files and factories; or fields of one by name, see
            :func:`lmonnx.exporters.sources.described.described`, which change what a name with weights of your own
            says. Names with published weights bring their own, which cannot be changed.
        labels: likewise.
        image_input: for ``.onnx`` files with several inputs: the one that takes the image.

    Raises:
        SourceError: if there is no such network.
        WeightsError: if it cannot have the weights asked for, or they hold NaN.
        OptionError: if an option does not apply to this kind of source.
    """
    weights = os.fspath(weights)
    asked = size or (preprocessing.size if isinstance(preprocessing, Preprocessing) else None)
    given: dict[str, Any] = {"preprocessing": preprocessing or None, "labels": labels}
    given = {key: value for key, value in given.items() if value is not None}
    if preprocessing:  # what is not allowed is said before the network is built
        described(preprocessing, Preprocessing(size=asked or DEFAULT_SIZE), asked or DEFAULT_SIZE, str(source))
    if isinstance(source, str) and not source.endswith(".onnx"):
        _require(size, preprocessing, image_input=image_input)
        network = _by_name(source, weights, classes, asked, given, dynamic=dynamic)
    else:
        _require(size, preprocessing, weights=None if weights == "default" else weights, classes=classes)
        if isinstance(source, torch.nn.Module):
            _require(size, preprocessing, image_input=image_input)
            network = _with(from_module(source, size=asked, dynamic=dynamic), given, "the module")
        else:
            made = from_onnx(pathlib.Path(source), size=asked, dynamic=dynamic, image_input=image_input)
            network = _with(made, given, str(source))
    if names := weights_with(network.graph, np.isnan):
        raise WeightsError(f"the weights hold NaN: {some(names)}; give others, or train again from before")
    return network


def _with(network: Network, given: dict[str, Any], source: str) -> Network:
    """The network with what the caller says of its images and classes."""
    if "preprocessing" in given:
        said = described(given["preprocessing"], network.preprocessing, network.size, source)
        given = {**given, "preprocessing": said}
    return dataclasses.replace(network, **given)


#: Options that apply to one kind of source: what that is, and why not to others.
ONLY_FOR = {
    "weights": "is for networks by name; a module or a file brings its own",
    "classes": "is for networks by name; a module or a file has its own number",
    "image_input": "is for .onnx files; other networks have one input",
}


def _require(size: tuple[int, int] | None, preprocessing: Said | None, **inapplicable: object) -> None:
    """Refuses options that do not apply, unless they are None, and sizes that contradict each other."""
    for option, value in inapplicable.items():
        if value is not None:
            raise OptionError(f"{option}={value!r} {ONLY_FOR[option]}")
    if size and isinstance(preprocessing, Preprocessing) and size != preprocessing.size:
        raise OptionError(f"size {size} and preprocessing.size {preprocessing.size} differ; leave size out")


def _by_name(
    source: str,
    weights: str,
    classes: int | None,
    size: tuple[int, int] | None,
    given: dict[str, Any],
    *,
    dynamic: bool,
) -> Network:
    """The network of a name, with what the caller says of its images and classes where it does not bring that."""
    if is_file(source):
        raise SourceError(f"{source} holds weights and no network; name the network too: NAME --weights {source}")
    kind = next((kind for kind in KINDS if kind.means(source)), None)
    if kind is None:
        raise SourceError(_unknown(source))
    if classes is not None and classes < 1:
        raise OptionError(f"classes={classes!r} is not a positive number")
    fixed = f"{source} with published weights brings its own"
    if kind.complete and given and is_pretrained(weights):
        raise OptionError(f"preprocessing and labels are for other sources; {fixed}")
    network = kind.build(source, weights, size, classes, dynamic)
    for key in given:
        if is_pretrained(weights) and getattr(network, key) is not None:
            raise OptionError(f"{key} is for other sources; {fixed}")
    said: dict[str, Any] = {"classes": classes} if classes is not None else {}
    said |= {"given": sorted(given)} if given else {}
    return _with(dataclasses.replace(network, origin={**network.origin, **said}), given, source)


def _unknown(source: str) -> str:
    """What is wrong with a name that means nothing."""
    if not source.strip():
        return "the source is empty; name a network, lmonnx models has the names, or a file"
    if os.path.exists(source):
        return f"{source} is not a file whose name ends in .onnx; only ONNX models are read"
    if ":" in source:
        return f"{source!r} is neither a file nor a network by name; a function that makes one is {_factory(source)}"
    others = [name.removeprefix(timm.PREFIX) for name in timm.names()]
    near = timm.PREFIX + source if source in others else close(source, [*scenes.NAMES, *torchvision.names()])
    near = near or close(source, others, timm.PREFIX)
    hint = f"did you mean {near}?" if near else "lmonnx models has the names"
    return f"{source!r} is neither a file nor a network that is known by name; {hint}"


def _factory(source: str) -> str:
    """What a name with a colon may have meant."""
    module, _, factory = source.partition(":")
    module = module.removesuffix(".py").removeprefix("./").replace("/", ".")
    meant = f"{module or 'package.module'}:{factory or 'factory'}"
    return meant if FACTORY.fullmatch(meant) else "package.module:factory"
