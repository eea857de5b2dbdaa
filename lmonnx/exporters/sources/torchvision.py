"""Networks by torchvision's names, with torchvision's weights, preprocessing and class names."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import pathlib
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any
from unittest import mock

from lmonnx.errors import SourceError, WeightsError
from lmonnx.exporters.sources.module import from_module
from lmonnx.exporters.sources.network import Network
from lmonnx.exporters.sources.seeds import seed_of, seeded
from lmonnx.runtime.preprocessing import Preprocessing


def import_torchvision() -> ModuleType:
    """Imports torchvision, also where its compiled operators do not load.

    torchvision's wheels are linked against a CUDA build of torch. With a CPU build their operators stay
    undeclared, and `import torchvision` fails where it registers fake kernels and gradients for them
    ("operator torchvision::nms does not exist"). The classifiers use none of those operators, so in that case
    the import is repeated with the two registration functions of torch.library doing nothing. They are put
    back at once, and nothing is declared in torch.

    Raises:
        ImportError: if torchvision is not installed, or fails for any other reason.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    with (
        mock.patch("torch.library.register_fake", lambda *_, **__: lambda kernel: kernel),
        mock.patch("torch.library.register_autograd", lambda *_, **__: None),
    ):
        return importlib.import_module("torchvision")


def from_torchvision(
    name: str, weights: str = "default", size: tuple[int, int] | None = None, *, others: Sequence[str] = ()
) -> Network:
    """One of torchvision's image classifiers.

    Args:
        name: such as ``"resnet50"``.
        weights: ``"default"`` for torchvision's best, the name of one of its weights such as
            ``"IMAGENET1K_V1"`` or ``"ResNet50_Weights.IMAGENET1K_V1"``, as the metadata has it, or ``"seed:N"`` for
            random weights from the seed N.
        size: height and width in pixels, instead of those of the weights' preset.
        others: names that are not torchvision's, to suggest where one of them is close to an unknown name.

    Raises:
        SourceError: if there is no such classifier; close names are suggested.
        WeightsError: if there are no such weights, or they cannot be downloaded.
    """
    models = import_torchvision().models
    known = models.list_models(module=models)
    if name not in known:
        near = difflib.get_close_matches(name, [*others, *known], n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "torchvision.models.list_models() has the names"
        raise SourceError(f"{name!r} is neither a file nor a network that is known by name; {hint}")
    choices = models.get_model_weights(name)
    preset = _chosen(name, weights, choices)
    origin = {"kind": "torchvision", "name": name, "weights": weights if preset is None else str(preset)}
    if preset is None:
        module = seeded(models.get_model(name, weights=None, **_plain_arguments(name)), seed_of(weights))
    else:
        module = models.get_model(name, weights=None, **_plain_arguments(name, preset))
        module.load_state_dict(_downloaded(name, preset))
    transforms = (preset or choices.DEFAULT).transforms()
    return from_module(
        module.eval(),
        size=size,
        preprocessing=_preprocessing(transforms, size),
        labels=None if preset is None else tuple(preset.meta["categories"]),
        origin=origin,
    )


def _chosen(name: str, weights: str, choices: Any) -> Any:
    """The entry of torchvision's enumeration, or None for seeded weights."""
    if weights.startswith("seed:"):
        seed_of(weights)
        return None
    if weights == "default":
        return choices.DEFAULT
    member = weights.removeprefix(f"{choices.__name__}.")
    if member in choices.__members__:
        return choices[member]
    allowed = ", ".join(["default", *(choice.name for choice in choices), "seed:N"])
    raise WeightsError(f"{name} has no weights {weights!r}; choose one of {allowed}")


def _downloaded(name: str, preset: Any) -> Any:
    """The state of the weights, from torch's cache or from torchvision's server; a terminal sees the progress."""
    import torch

    progress = sys.stderr if sys.stderr.isatty() else io.StringIO()
    try:
        with contextlib.redirect_stdout(progress), contextlib.redirect_stderr(progress):
            return preset.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:
        folder = pathlib.Path(torch.hub.get_dir()) / "checkpoints"
        file = preset.url.rsplit("/", 1)[-1]
        raise WeightsError(
            f"the weights {preset} cannot be had ({error}); connect to a network, or put {file} from {preset.url} "
            f"into {folder}, or take random weights: lmonnx export {name} --weights seed:0"
        ) from error


def _plain_arguments(name: str, preset: Any = None) -> dict[str, Any]:
    """What torchvision's builders need beside their defaults to give the network that is served.

    The auxiliary classifiers of GoogLeNet and Inception train the network and are not part of its answer.
    """
    if name not in ("googlenet", "inception_v3"):
        return {}
    return {"aux_logits": preset is not None, "init_weights": False, "transform_input": preset is not None}


def _preprocessing(transforms: Any, size: tuple[int, int] | None) -> Preprocessing:
    """Torchvision's ImageClassification preset; another size keeps the preset's ratio of resize to crop."""
    (crop,), (resize,) = transforms.crop_size, transforms.resize_size
    size = size or (crop, crop)
    return Preprocessing(
        size=size,
        resize=max(max(size), round(max(size) * resize / crop)),
        interpolation=transforms.interpolation.value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )
