"""Networks by torchvision's names, with torchvision's weights, preprocessing and class names."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import logging
import pathlib
import re
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any
from unittest import mock

from lmonnx.errors import MissingExtraError, WeightsError
from lmonnx.exporters.sources.checkpoint import fill, is_file, is_pretrained, require_classes, restore
from lmonnx.exporters.sources.module import from_module
from lmonnx.exporters.sources.network import Network
from lmonnx.runtime.preprocessing import Preprocessing

#: What torchvision's builders need beside their defaults to give the network that is served.
_SERVED = {"aux_logits": False, "init_weights": False, "transform_input": True}
_FORM: dict[str, dict[str, Any]] = {"googlenet": _SERVED, "inception_v3": _SERVED}
#: Beginnings of the names of auxiliary classifiers, which train a network and are not part of its answer.
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
#: Names in the DenseNets' files from before modules could not have a dot in theirs.
_DOTTED = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


def import_torchvision() -> ModuleType:
    """Imports torchvision, also where its compiled operators do not load.

    torchvision's wheels are linked against a CUDA build of torch. With a CPU build their operators stay
    undeclared, and `import torchvision` fails where it registers fake kernels and gradients for them
    ("operator torchvision::nms does not exist"). The classifiers use none of those operators, so in that case
    the import is repeated with the two registration functions of torch.library doing nothing. They are put
    back at once, and nothing is declared in torch.

    Raises:
        MissingExtraError: if torchvision is not installed, or needs a package that is not.
        ImportError: if it fails for any other reason.
    """
    try:
        return importlib.import_module("torchvision")
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"networks by name need the package {error.name}; install it with: pip install 'lmonnx[export]'"
        ) from error
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    with (
        mock.patch("torch.library.register_fake", lambda *_, **__: lambda kernel: kernel),
        mock.patch("torch.library.register_autograd", lambda *_, **__: None),
    ):
        return importlib.import_module("torchvision")


def from_torchvision(
    name: str,
    weights: str = "default",
    size: tuple[int, int] | None = None,
    classes: int | None = None,
    dynamic: bool = False,
) -> Network:
    """One of torchvision's image classifiers, in the form that it is served in with torchvision's weights.

    It has torchvision's class names with torchvision's weights alone: by their name, or in a file of that hash.

    That is, without the auxiliary classifiers of GoogLeNet and Inception, and with these two turning the preset's
    normalisation into their own first (``transform_input``).

    Args:
        name: one of :func:`names`, such as ``"resnet50"``.
        weights: ``"default"`` for torchvision's best, the name of one of its weights such as
            ``"IMAGENET1K_V1"`` or ``"ResNet50_Weights.IMAGENET1K_V1"``, as the metadata has it, ``"seed:N"`` for
            random weights from the seed N, or a file, see :mod:`lmonnx.exporters.sources.checkpoint`.
        size: height and width in pixels, instead of those of the weights' preset.
        classes: number of classes, for a seed or a file.
        dynamic: take images of any size; ``size`` is then that of the proof and of photographs.

    Raises:
        WeightsError: if there are no such weights, they cannot be downloaded, or they are those of another network.
        OptionError: if torchvision's weights are for another number of classes.
    """
    models = import_torchvision().models
    choices = models.get_model_weights(name)
    chosen = _chosen(name, weights, choices) if is_pretrained(weights) else None
    published = chosen or _published(pathlib.Path(weights), choices)
    preset = published or choices.DEFAULT
    transforms, categories = preset.transforms(), tuple(preset.meta["categories"])
    if chosen is not None:
        require_classes(str(chosen), classes, len(categories))
    count = classes or len(categories)
    form = {"image_size": preset.meta["min_size"][0]} if name.startswith("vit_") else _FORM.get(name, {})
    module = models.get_model(name, weights=None, num_classes=count, **form).eval()
    matching: dict[str, Any] = {"renamed": lambda entry: _DOTTED.sub(r"\1\2", entry), "ignored": _AUXILIARY}
    if chosen is None:
        origin = fill(module, weights, size or _crop(transforms), **matching)
    else:
        restore(module, _downloaded(chosen), str(chosen), **matching)
        origin = {"weights": str(chosen)}
    return from_module(
        module,
        size=size,
        dynamic=dynamic,
        preprocessing=_preprocessing(transforms, size),
        labels=categories if published and count == len(categories) else None,
        origin={"kind": "torchvision", "name": name, **origin},
    )


def names() -> list[str]:
    """Torchvision's image classifiers."""
    models = import_torchvision().models
    known: list[str] = models.list_models(module=models)
    return known


def _chosen(name: str, weights: str, choices: Any) -> Any:
    """The entry of torchvision's enumeration."""
    if weights == "default":
        return choices.DEFAULT
    member = weights.removeprefix(f"{choices.__name__}.")
    if member in choices.__members__:
        return choices[member]
    allowed = ", ".join(["default", *(choice.name for choice in choices), "seed:N", "a file (.pth, .safetensors)"])
    raise WeightsError(f"{name} has no weights {weights!r}; choose one of {allowed}")


def _published(file: pathlib.Path, choices: Iterable[Any]) -> Any:
    """The entry of torchvision's enumeration whose weights a file holds, by the hash in the name of torchvision's."""
    if not is_file(str(file)) or not file.is_file():
        return None
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    hashes = ((choice, re.search(r"-([0-9a-f]{8,})\.\w+$", choice.url)) for choice in choices)
    return next((choice for choice, found in hashes if found and digest.startswith(found[1])), None)


@contextlib.contextmanager
def downloading() -> Iterator[None]:
    """Where a download shows its progress on a terminal, and is silent elsewhere."""
    if sys.stderr.isatty():
        with contextlib.redirect_stdout(sys.stderr):
            yield
        return
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _downloaded(preset: Any) -> Any:
    """The state of the weights, from torch's cache or from torchvision's server; a terminal sees the progress."""
    import torch

    try:
        with downloading():
            return preset.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:
        folder = pathlib.Path(torch.hub.get_dir()) / "checkpoints"
        file = preset.url.rsplit("/", 1)[-1]
        raise WeightsError(
            f"the weights {preset} cannot be had ({error}); connect to a network, or put {file} from {preset.url} "
            f"into {folder}, or give it: --weights {file}, or take random weights: --weights seed:0"
        ) from error


def _preprocessing(transforms: Any, size: tuple[int, int] | None) -> Preprocessing:
    """Torchvision's ImageClassification preset; another size keeps the preset's ratio of resize to crop."""
    (crop,), (resize,) = transforms.crop_size, transforms.resize_size
    size = size or _crop(transforms)
    return Preprocessing(
        size=size,
        resize=max(max(size), round(max(size) * resize / crop)),
        interpolation=transforms.interpolation.value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )


def _crop(transforms: Any) -> tuple[int, int]:
    """Height and width in pixels of what a preset makes."""
    (crop,) = transforms.crop_size
    return crop, crop
