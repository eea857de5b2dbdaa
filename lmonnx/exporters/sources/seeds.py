"""Random weights that are the same on every machine, under which a network behaves like a trained one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lmonnx.errors import SourceError, WeightsError
from lmonnx.exporters.sources.module_image import another_size, channels_of, require_channels
from lmonnx.reference.aten_program import duplicate

#: Height and width in pixels of the images whose statistics the norms get.
SIZE = (128, 128)
IMAGES = 8
_DRAWS = 2**20  # at once, because a matrix of a classifier may have 10^8 weights
#: What the names of factors end in; a bias is added and ends in "bias".
_FACTORS = ("weight", "gain", "gamma", "scale")


def seed_of(weights: str) -> int:
    """The N of ``"seed:N"``.

    Raises:
        WeightsError: if it is not a whole number in 0 … 2^63 − 1.
    """
    number = weights.removeprefix("seed:")
    if not number.isdecimal() or int(number) >= 2**63:
        raise WeightsError(f"weights {weights!r} do not end in a whole number below 2^63; write seed:0")
    return int(number)


def seeded(module: Any, seed: int, size: tuple[int, int] = SIZE) -> Any:
    """Fills ``module`` with random weights under which it behaves like a trained network; returns it.

    Weights are uniform with variance 2 / fan-in (He et al., ICCV 2015), biases uniform with deviation 0.1, and factors
    uniform in 0.5 … 1.5: the scales of norms, of layers and of standardised weights. The last matrix, the classifier,
    is five times smaller, so that probabilities are not saturated. The running statistics of norms are those of random
    images, coarse and fine as photographs are, as they would be after training, so that activations keep their scale in
    a network of any depth. Other buffers, such as the filters of a blur, are constants of the network and stay.

    Norms with running statistics have factors four times smaller and biases two times larger. With factors of 1 and
    statistics of white noise deep networks are chaotic: float32 is off float64 by 6 times what an EfficientNet-B7 says
    of an image, by 3e-5 with these (measured).

    The bits are the same on every machine. A draw is a random integer times one number, rounded once. Statistics are
    computed in float64 and rounded to bfloat16: another order of sums moves one by 2e-13 of that rounding's step, and
    any of the 83,648 of DenseNet-121 to another number with a chance of 2e-7 (measured).

    Args:
        module: a network, as its constructor initialises it.
        seed: the random numbers depend on it alone.
        size: height and width in pixels of the random images, for a network that cannot take 128 × 128.

    Raises:
        SourceError: if the network can take images of neither size.
    """
    bits = np.random.PCG64(seed)
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    state = {name: tensor for name, tensor in module.state_dict().items() if name in parameters}
    classifier = [name for name, tensor in state.items() if tensor.ndim == 2][-1:]
    norms = [name for name, part in module.named_modules() if _keeps_statistics(part)]
    for name, tensor in state.items():
        normed = name.rpartition(".")[0] in norms
        if _is_factor(name, tensor):
            values = (0.25 if normed else 1.0) * (1 + 0.5 * _uniform(bits, tensor.shape))
        elif tensor.ndim < 2:
            values = (0.2 if normed else 0.1) * math.sqrt(3) * _uniform(bits, tensor.shape)
        else:
            smaller = 0.2 if name in classifier else 1.0
            values = smaller * math.sqrt(6 / tensor[0].numel()) * _uniform(bits, tensor.shape)
        tensor.copy_(torch.from_numpy(np.asarray(values)))
    if norms:
        _measure(module, norms, bits, size)
    return module


def _is_factor(name: str, tensor: torch.Tensor) -> bool:
    """By its name, or by what it starts as: the same number everywhere, and not 0."""
    if tensor.ndim < 2 and name.endswith(_FACTORS):
        return True
    start = tensor.reshape(-1)[:1]
    return not name.endswith("bias") and bool((start != 0).all()) and bool((tensor == start).all())


def _measure(module: Any, norms: Sequence[str], bits: np.random.PCG64, size: tuple[int, int]) -> None:
    """Gives ``norms``, the parts of ``module`` that keep statistics, those of random images."""
    twin = duplicate(module).double().eval()
    for name in norms:
        norm = twin.get_submodule(name)
        norm.training = True
        norm.momentum = 1.0  # nothing is left of what was
    channels = channels_of(module, size)
    for sides in (SIZE, size):
        images = torch.from_numpy(_images(bits, channels, sides))
        try:
            with torch.no_grad():
                twin(images)
            break
        except Exception as error:  # whatever a network that is made for another size runs into
            failure = error
    else:
        require_channels(module, channels, size)
        line = next(iter(str(failure).splitlines()), type(failure).__name__)
        raise SourceError(
            f"{type(module).__name__} cannot take {channels} channels of {size[0]}×{size[1]} pixels: {line}; "
            f"{another_size(module, size)}"
        ) from failure
    for name in norms:
        for statistic in ("running_mean", "running_var"):
            value = getattr(twin.get_submodule(name), statistic, None)
            if value is not None:
                getattr(module.get_submodule(name), statistic).copy_(value.to(torch.bfloat16))


def _images(bits: np.random.PCG64, channels: int, sides: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Random images of mean 0 and variance 1, float64 [8, channels, H, W]: squares of 8 pixels and fine noise."""
    squares = _uniform(bits, (IMAGES, channels, -(-sides[0] // 8), -(-sides[1] // 8)))
    coarse = np.repeat(np.repeat(squares, 8, axis=2), 8, axis=3)[:, :, : sides[0], : sides[1]]
    fine = _uniform(bits, coarse.shape)
    mixed: npt.NDArray[np.float64] = math.sqrt(3) * (0.96 * coarse + 0.28 * fine)  # 0.96² + 0.28² = 1
    return mixed


def _keeps_statistics(part: torch.nn.Module) -> bool:
    """Whether it updates its statistics in training; frozen norms have no momentum."""
    return getattr(part, "running_var", None) is not None and hasattr(part, "momentum")


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
