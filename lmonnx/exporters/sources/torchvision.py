"""Networks by torchvision's names, with torchvision's weights, preprocessing and class names."""

from __future__ import annotations

import contextlib
import copy
import difflib
import importlib
import io
import math
import pathlib
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

from lmonnx.errors import SourceError, WeightsError
from lmonnx.exporters.sources.module import from_module
from lmonnx.exporters.sources.network import Network
from lmonnx.runtime.preprocessing import Preprocessing

_DRAWS = 2**20  # at once, because a matrix of a classifier may have 10^8 weights


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


def seeded(module: Any, seed: int) -> Any:
    """Fills ``module`` with random weights under which it behaves like a trained network; returns it.

    Weights are uniform with variance 2 / fan-in (He et al., ICCV 2015), scales of norms uniform in 0.5 … 1.5, biases
    uniform with deviation 0.1; the last matrix, the classifier, is five times smaller, so that probabilities are not
    saturated. The running statistics of batch norms are those of random images, as they would be after training, so
    that activations keep their scale in a network of any depth.

    The bits are the same on every machine. A draw is a random integer times one number, rounded once. Statistics are
    computed in float64 and rounded to bfloat16: another order of sums moves one by 2e-13 of that rounding's step, and
    any of the 83,648 of DenseNet-121 to another number with a chance of 2e-7 (measured).
    """
    import torch

    bits = np.random.PCG64(seed)
    state = {name: tensor for name, tensor in module.state_dict().items() if tensor.is_floating_point()}
    classifier = [name for name, tensor in state.items() if tensor.ndim == 2][-1:]
    for name, tensor in state.items():
        if name.endswith(("running_mean", "running_var")):
            continue
        if tensor.ndim == 1 and name.endswith("weight"):
            values = 1 + 0.5 * _uniform(bits, tensor.shape)
        elif tensor.ndim < 2:
            values = 0.1 * math.sqrt(3) * _uniform(bits, tensor.shape)
        else:
            smaller = 0.2 if name in classifier else 1.0
            values = smaller * math.sqrt(6 / tensor[0].numel()) * _uniform(bits, tensor.shape)
        tensor.copy_(torch.from_numpy(values))
    norms = [name for name, part in module.named_modules() if isinstance(part, torch.nn.BatchNorm2d)]
    twin = copy.deepcopy(module).double().eval()
    for name in norms:
        norm = twin.get_submodule(name).train()
        norm.reset_running_stats()
        norm.momentum = None  # the average over all batches, of which there is one
    if norms:
        with torch.no_grad():
            twin(torch.from_numpy(math.sqrt(3) * _uniform(bits, (4, 3, 128, 128))))
    for name in norms:
        for statistic in ("running_mean", "running_var"):
            value = getattr(twin.get_submodule(name), statistic)
            getattr(module.get_submodule(name), statistic).copy_(value.to(torch.bfloat16))
    return module


def _uniform(bits: np.random.PCG64, shape: Sequence[int]) -> npt.NDArray[np.float64]:
    """Odd multiples of 2^-24 in −1 … 1, float64 of ``shape``, exact on every machine.

    From the stream of integers that numpy promises not to change; distributions such as the normal go through
    logarithms, which differ in the last bit between processors and versions.
    """
    values = np.empty(math.prod(shape))
    for start in range(0, values.size, _DRAWS):
        part = values[start : start + _DRAWS]
        part[:] = bits.random_raw(part.size) >> 40
    values *= 2.0**-23
    values += 2.0**-24 - 1
    return values.reshape(shape)


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


def seed_of(weights: str) -> int:
    """The N of ``"seed:N"``.

    Raises:
        WeightsError: if it is not a whole number in 0 … 2^63 − 1.
    """
    number = weights.removeprefix("seed:")
    if not number.isdecimal() or int(number) >= 2**63:
        raise WeightsError(f"weights {weights!r} do not end in a whole number below 2^63; write seed:0")
    return int(number)


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
