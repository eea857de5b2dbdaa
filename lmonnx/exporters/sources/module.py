"""A PyTorch module as the source of a network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from lmonnx import reference
from lmonnx.errors import LmonnxError, SourceError
from lmonnx.exporters.normalise import OPSET
from lmonnx.exporters.sources import any_size
from lmonnx.exporters.sources.module_checks import line, require_any_batch, require_float32, why
from lmonnx.exporters.sources.module_image import channels_of, quiet, require_channels
from lmonnx.exporters.sources.network import Array, Network, Reference
from lmonnx.exporters.sources.per_image import write_for_each_image
from lmonnx.exporters.sources.translations import TRANSLATIONS
from lmonnx.masking import MaskRules
from lmonnx.runtime.preprocessing import DEFAULT_SIZE, Preprocessing

#: Wrappers that compute what the module in this attribute of theirs does.
_WRAPPED = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}


def from_module(
    module: torch.nn.Module,
    *,
    size: tuple[int, int] | None = None,
    dynamic: bool = False,
    preprocessing: Preprocessing | None = None,
    labels: tuple[str, ...] | None = None,
    origin: Mapping[str, Any] | None = None,
) -> Network:
    """A module in evaluation mode that takes one image [N, C, H, W] of float32.

    C is found by :func:`lmonnx.exporters.sources.module_image.channels_of`.

    Args:
        module: the network, with its weights; it is not changed.
        size: height and width it is exported for, in pixels; 224 × 224 if neither this nor ``preprocessing``
            says otherwise.
        dynamic: take images of any size; ``size`` is then that of the proof and of photographs.
        preprocessing: how its images are made.
        labels: names of its classes.
        origin: what the metadata says about where it comes from.

    Raises:
        SourceError: if it is in training mode, its weights are not of float32, PyTorch's exporter cannot follow it, or
            does so for some sizes only.
    """
    module = unwrapped(module)
    if module.training:
        raise SourceError("the module is in training mode; call its eval() first")
    size = size or (preprocessing.size if preprocessing else DEFAULT_SIZE)
    require_float32(module, size)
    name = f"{type(module).__module__}.{type(module).__qualname__}"
    graph, smallest = to_onnx_of_any_size(module, size) if dynamic else (to_onnx(module, size), None)
    return Network(
        graph=graph,
        size=size,
        layout="NCHW",
        reference=lambda rules: _reference(module, rules),
        plain=lambda image: _plain(module, image),
        front_end="aten",
        preprocessing=preprocessing,
        labels=labels,
        origin={**(origin or {"kind": "module", "name": name}), "weights_sha256": weights_hash(module)},
        smallest=smallest,
    )


def to_onnx(module: torch.nn.Module, size: tuple[int, int]) -> ir.Model:
    """The plain ONNX graph of a module, as torch.onnx exports it, with a free batch.

    Raises:
        SourceError: if PyTorch's exporter cannot follow the module.
    """
    channels = channels_of(module, size)
    try:
        with quiet():
            example = torch.zeros(2, channels, *size)
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                custom_translation_table=TRANSLATIONS,
                verbose=False,
            )
    except Exception as error:
        require_channels(module, channels, size)
        otherwise = _cause(error), "try another size, or export it to ONNX yourself and give the file"
        cause, remedy = why(module, channels, size) or otherwise
        raise SourceError(
            f"PyTorch could not export {type(module).__name__} at {size[0]}×{size[1]}: {cause}; {remedy}"
        ) from error
    assert program is not None
    require_any_batch(module, program.model)
    write_for_each_image(program.model)
    return program.model


def unwrapped(module: torch.nn.Module) -> torch.nn.Module:
    """The network that torch.compile or a data parallel wrapper has been put around, which computes the same.

    The module of an ExportedProgram has no modes; it says that it is in training mode, and its ``eval()`` raises.

    Raises:
        SourceError: if it is a program of TorchScript.
    """
    while isinstance(inner := getattr(module, _WRAPPED.get(type(module).__name__, ""), None), torch.nn.Module):
        module = inner
    if isinstance(module, torch.jit.ScriptModule):
        raise SourceError(
            "the module is a TorchScript program, which PyTorch's exporter does not follow; give the module that it "
            "was made of, or export it to ONNX yourself and give the file"
        )
    if isinstance(module, torch.fx.GraphModule) and "eval" in vars(module):
        module = torch.fx.GraphModule(module, module.graph)
        module.training = False
    return module


def to_onnx_of_any_size(module: torch.nn.Module, size: tuple[int, int]) -> tuple[ir.Model, int]:
    """The same with free height and width, and from how many pixels a side on it is what the module is.

    Args:
        module: the network.
        size: height and width of the image that PyTorch sees, its width a little larger.

    Raises:
        SourceError: if PyTorch's exporter cannot follow the module, or does so for some sizes only.
    """
    channels = channels_of(module, size)
    try:
        with quiet():
            seen = any_size.traced(module, channels, size)
            program = torch.onnx.export(
                seen, dynamo=True, opset_version=OPSET, custom_translation_table=TRANSLATIONS, verbose=False
            )
    except Exception as error:
        require_channels(module, channels, size)
        cause, remedy = why(module, channels, size) or (_cause(error), any_size.REMEDY)
        raise SourceError(
            f"PyTorch could not export {type(module).__name__} for every size: {cause}; {remedy}"
        ) from error
    assert program is not None
    require_any_batch(module, program.model)
    assert program.exported_program is not None
    smallest = any_size.smallest(program.exported_program, size)
    any_size.name_sides(program.model, program.exported_program)
    write_for_each_image(program.model)
    return program.model, smallest


def _cause(error: BaseException) -> str:
    """What it began with; what PyTorch says of an open side that the module uses up takes several lines."""
    if "specialized it to be a constant" in str(error) or "inferred a static shape" in str(error):
        return "the network reads height or width as a number"
    while error.__cause__ is not None and str(error.__cause__).strip():
        error = error.__cause__
    return line(error)


def weights_hash(module: torch.nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of the state, in order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        array = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {array.dtype} {tuple(array.shape)}\n".encode())
        digest.update(array.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _reference(module: torch.nn.Module, rules: MaskRules) -> Reference:
    masked = reference.mask_aware(module, rules=rules)

    def run(image: Array, mask: Array) -> tuple[Array, ...]:
        with torch.no_grad():
            return _arrays(masked(torch.from_numpy(image), torch.from_numpy(mask)))

    return run


def _plain(module: torch.nn.Module, image: Array) -> tuple[Array, ...]:
    with torch.no_grad():
        return _arrays(module(torch.from_numpy(image)))


def _arrays(outputs: Any) -> tuple[Array, ...]:
    """The tensors of a module's output, in the order in which the exporter lists them."""
    leaves, _ = torch.utils._pytree.tree_flatten(outputs)
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    if not tensors:
        raise LmonnxError("the network returns no tensor")
    return tuple(np.asarray(tensor.detach().cpu().numpy()) for tensor in tensors)
