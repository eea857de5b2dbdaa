"""Networks by timm's names, with timm's weights, preprocessing and class names."""

from __future__ import annotations

import contextlib
import importlib
import math
import warnings
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any
from unittest import mock

from lmonnx.errors import MissingExtraError, SourceError, WeightsError
from lmonnx.exporters.sources.checkpoint import close, fill, is_pretrained, require_classes
from lmonnx.exporters.sources.module import from_module
from lmonnx.exporters.sources.network import Network
from lmonnx.exporters.sources.torchvision import downloading, import_torchvision
from lmonnx.runtime.preprocessing import Preprocessing

PREFIX = "timm:"


def from_timm(
    source: str,
    weights: str = "default",
    size: tuple[int, int] | None = None,
    classes: int | None = None,
    dynamic: bool = False,
) -> Network:
    """One of timm's image classifiers.

    Its preprocessing is that of timm's configuration for the name and its tag, or None where a :class:`Preprocessing`
    cannot say it: a picture resized regardless of its aspect ratio and then cropped ("squash"), or fitted into the
    image with borders ("border").

    Args:
        source: ``"timm:resnet50.a1_in1k"``, or ``"timm:resnet50"`` for timm's default tag.
        weights: ``"default"`` for the tag's, which timm downloads from the Hugging Face Hub, the same by their full
            name, as the metadata has it, ``"seed:N"`` for random weights from the seed N, or a file, see
            :mod:`lmonnx.exporters.sources.checkpoint`.
        size: height and width in pixels, instead of those of the tag.
        classes: number of classes, for a seed or a file.
        dynamic: take images of any size; ``size`` is then that of the proof and of photographs.

    Raises:
        MissingExtraError: if timm is not installed.
        SourceError: if there is no such network or tag, close names are suggested; or if it has no classifier.
        WeightsError: if there are no such weights, they cannot be downloaded, or they are those of another network.
        OptionError: if timm's weights are for another number of classes.
    """
    name = source.removeprefix(PREFIX)
    config = _config(import_timm(), name)
    pretrained = is_pretrained(weights)
    full = ".".join(filter(None, (config.architecture, config.tag)))
    if pretrained and weights not in ("default", full):
        raise WeightsError(
            f"{source} has no weights {weights!r}; choose one of default, seed:N, a file (.pth, .safetensors), "
            f"or another tag: {_tags(config.architecture)}"
        )
    if not (config.num_classes if classes is None else classes):
        raise SourceError(
            f"{source} has no classifier, its answer is features; "
            f"take another tag ({_tags(config.architecture)}), or weights of your own and a number of classes: "
            "--weights FILE --num-classes N"
        )
    if pretrained:
        require_classes(full, classes, config.num_classes)
    module = _built(name, full if pretrained else None, classes, config)
    size = size or config.input_size[1:]
    origin = {"weights": full} if pretrained else fill(module, weights, size)
    return from_module(
        module,
        size=size,
        dynamic=dynamic,
        preprocessing=preprocessing_of(config, size),
        labels=labels_of(config) if pretrained else None,
        origin={"kind": "timm", "name": source, **origin},
    )


def import_timm() -> ModuleType:
    """Imports timm, after torchvision, which it imports itself.

    Raises:
        MissingExtraError: if it is not installed.
    """
    import_torchvision()
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"networks of timm need the package {error.name}; install it with: pip install 'lmonnx[timm]'"
        ) from error


def names() -> list[str]:
    """``"timm:NAME"`` of all networks of timm, without and with tags; empty if it is not installed."""
    try:
        timm = import_timm()
    except MissingExtraError:
        return []
    return [PREFIX + name for tags in (False, True) for name in timm.list_models(include_tags=tags)]


def preprocessing_of(config: Any, size: tuple[int, int]) -> Preprocessing | None:
    """What ``timm.data.create_transform`` makes of a configuration; None where a :class:`Preprocessing` cannot say it.

    Args:
        config: a ``PretrainedCfg`` of timm.
        size: height and width in pixels, instead of the configuration's. Of sides that differ the longer one decides
            how far the photograph's short side is resized.
    """
    straight = config.crop_mode == "squash" and config.crop_pct == 1
    if config.crop_mode != "center" and not straight:
        return None
    return Preprocessing(
        size=size,
        resize=None if straight else math.floor(max(size) / config.crop_pct),
        interpolation=config.interpolation,
        mean=tuple(config.mean),
        std=tuple(config.std),
    )


def labels_of(config: Any) -> tuple[str, ...] | None:
    """The class names, where the configuration has them or its number of classes is that of a part of ImageNet."""
    if config.label_names:
        return tuple((config.label_descriptions or {}).get(name, name) for name in config.label_names)
    data = importlib.import_module("timm.data")
    subset = data.infer_imagenet_subset({"num_classes": config.num_classes})
    return None if subset is None else tuple(data.ImageNetInfo(subset).label_descriptions())


def _config(timm: ModuleType, name: str) -> Any:
    """Timm's ``PretrainedCfg`` of a name, with or without a tag."""
    architecture, _, tag = name.partition(".")
    known = timm.list_models()
    if architecture not in known:
        renamed = timm.models.get_deprecated_models().get(name)
        near = (renamed and PREFIX + renamed) or close(name, known, PREFIX)
        hint = f"did you mean {near}?" if near else "timm.list_models() has the names"
        raise SourceError(f"timm has no network {architecture!r}; {hint}")
    configs: Mapping[str, Any] = timm.models.get_arch_pretrained_cfgs(architecture)
    if tag and name not in configs:
        raise SourceError(f"timm's {architecture} has no tag {tag!r}; choose one of {_tags(architecture)}")
    return timm.models.get_pretrained_cfg(name, allow_unregistered=False)


def _tags(architecture: str) -> str:
    """The tags of a network that has a classifier, as sources."""
    configs = import_timm().models.get_arch_pretrained_cfgs(architecture)
    return ", ".join(PREFIX + name for name, config in configs.items() if config.num_classes) or "there is none"


def _built(name: str, pretrained: str | None, classes: int | None, config: Any) -> Any:
    """The module in evaluation mode, with timm's weights of the name ``pretrained``, if that is not None."""
    timm = import_timm()
    if pretrained is None:
        return timm.create_model(name, num_classes=classes).eval()
    where = f"huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url or config.file
    remedy = "put them into a file and give it: --weights FILE, or take random weights: --weights seed:0"
    if not where:
        raise WeightsError(f"timm has no weights for {pretrained}; {remedy}")
    try:
        with _hub(), downloading(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return timm.create_model(name, pretrained=True).eval()
    except Exception as error:  # of the hub, of its transport, of the file: all say the same
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise WeightsError(
            f"the weights {pretrained} cannot be had from {where} ({line}); connect to a network, or {remedy}"
        ) from error


@contextlib.contextmanager
def _hub() -> Iterator[None]:
    """Where the Hugging Face Hub cannot be reached, its cache alone is asked, and not the hub again for a minute."""
    hub = importlib.import_module("huggingface_hub")
    try:
        hub.get_session().head(hub.constants.ENDPOINT, timeout=10)
    except Exception:  # its transport has errors of its own, and changed them
        with mock.patch.object(hub.constants, "HF_HUB_OFFLINE", True):
            yield
    else:
        yield
